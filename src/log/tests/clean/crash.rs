//! Crashes at every operation of a round, and of the start that follows.

use rustix::io::Errno;

use super::*;
use crate::{
    base::planted_bugs::{Bug, plant},
    log::faulty::Operation,
};

/// A small log whose records are durable, with the table that consumers see.
struct Site {
    disk: FaultyDisk,
    recovery_point: i64,
    log_end: i64,
    table: Table,
}

impl Site {
    fn new() -> Self {
        let disk = FaultyDisk::default();
        let (mut log, _) = open(&disk, small(), start(true, 0));
        let long = "v".repeat(150);
        for round in ["1", "2", "3"] {
            let value = format!("{long}{round}");
            let value = Some(value.as_str());
            put(&mut log, plain(&[("a", value), ("b", None)]));
            put(&mut log, transactional(1, 0, &[("c", value), ("a", Some("aborted"))]));
            put(&mut log, end_of(1, false));
            // Something of each segment stays.
            put(&mut log, plain(&[("c", value), (round, Some("1"))]));
            put(&mut log, plain(&[("d", value)]));
        }
        log.roll(log.log_end(), NOW).expect("rolls");
        put(&mut log, plain(&[("d", None)]));
        log.flush().expect("flushes");
        assert!(log.view().segment_count() >= 4, "{}", log.view().segment_count());
        let (recovery_point, log_end) = (log.recovery_point(), log.log_end());
        Self { disk, recovery_point, log_end, table: committed_table(&log) }
    }

    /// A copy of the log with settings that make groups of two segments.
    fn copy(&self) -> (FaultyDisk, Shared<'static>) {
        let disk = self.disk.crash(Crash::Process);
        let log = self.open(&disk, false).expect("opens");
        (disk, Shared::new(log))
    }

    fn open(&self, disk: &FaultyDisk, is_early: bool) -> Result<Log, LogError> {
        // As if the checkpoint of the recovery point was not written.
        let recovery_point = if is_early { 0 } else { self.recovery_point };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let config = LogConfig { segment_bytes: 2500, ..small() };
        let opened =
            Log::open(shared, Path::new(DIR), Arc::new(config), start(false, recovery_point));
        opened.map(|(log, _)| log)
    }

    /// Opens the log after a crash and compares what consumers see.
    fn check(&self, disk: &FaultyDisk, is_early: bool) -> Result<(), String> {
        let log = self.open(disk, is_early).map_err(|error| error.to_string())?;
        if log.log_end() != self.log_end {
            return Err(format!("the log ends at {} instead of {}", log.log_end(), self.log_end));
        }
        let mut next = 0;
        for batch in batches_of(&log) {
            if batch.header.base_offset < next {
                return Err(format!("a second batch at {}", batch.header.base_offset));
            }
            next = batch.header.last_offset() + 1;
        }
        match committed_table(&log) == self.table {
            true => Ok(()),
            false => Err(format!("{:?}", committed_table(&log))),
        }
    }
}

/// The disk after `calls` operations of a round, and whether the round ended.
fn interrupted(site: &Site, calls: u32) -> (FaultyDisk, bool) {
    let (disk, shared) = site.copy();
    disk.fail_after(Some(calls));
    let ended = run(&shared, 0, NOW).is_ok();
    disk.fail_after(None);
    (disk, ended)
}

/// Each change of a name is lost alone, or with all later ones.
fn crashes() -> impl Iterator<Item = Crash> {
    let alone = (0..16).map(|at| Crash::LoseNames(!(1 << at)));
    let with_later = (1..16).map(|kept| Crash::LoseNames((1 << kept) - 1));
    [Crash::Process, Crash::LoseUnsynced].into_iter().chain(alone).chain(with_later)
}

/// Crashes after each operation of a round. Returns the first difference.
fn crash_everywhere(site: &Site) -> Result<u32, String> {
    for calls in 0.. {
        let (disk, ended) = interrupted(site, calls);
        for crash in crashes() {
            for is_early in [false, true] {
                let checked = site.check(&disk.crash(crash), is_early);
                checked.map_err(|what| format!("{crash:?} after {calls} calls: {what}"))?;
            }
        }
        if ended {
            return Ok(calls);
        }
    }
    unreachable!("a round ends")
}

#[test]
fn crash_at_any_operation_of_a_round_loses_nothing() {
    let site = Site::new();
    let (_, shared) = site.copy();
    let mut pace = Collected::default();
    let range = cleanable(&shared.log.lock(), 0);
    clean::clean(&shared, range, &options(NOW), &mut pace).expect("cleans");
    let replacements = shared.log.lock().replacements();
    assert_eq!((pace.deleted.len(), replacements), (3, 2), "one group has two segments");
    let calls = crash_everywhere(&site).unwrap_or_else(|what| panic!("{what}"));
    assert!(calls > 60, "{calls}");
}

/// The start after a crash is interrupted, too.
#[test]
fn crash_at_any_operation_of_the_start_after_it_loses_nothing() {
    let site = Site::new();
    let mut is_ended = false;
    let mut starts = 0;
    for calls in 0.. {
        if std::mem::replace(&mut is_ended, interrupted(&site, calls).1) {
            break;
        }
        let (disk, _) = interrupted(&site, calls);
        for crash in [Crash::Process, Crash::LoseUnsynced] {
            for start_calls in 0.. {
                let crashed = disk.crash(crash);
                crashed.fail_after(Some(start_calls));
                let is_open = site.open(&crashed, true).is_ok();
                crashed.fail_after(None);
                for crash in [Crash::Process, Crash::LoseUnsynced] {
                    let checked = site.check(&crashed.crash(crash), true);
                    checked.unwrap_or_else(|what| {
                        panic!("{crash:?} after {calls} and {start_calls} calls: {what}")
                    });
                    starts += 1;
                }
                if is_open {
                    break;
                }
            }
        }
    }
    assert!(starts > 500, "{starts}");
}

/// Without the sync of the new files, the crashes above find a loss.
#[test]
fn missing_sync_of_a_new_segment_is_found() {
    let site = Site::new();
    plant(Some(Bug::UnsyncedSwap));
    let found = crash_everywhere(&site);
    plant(None);
    assert!(found.is_err(), "{found:?}");
}

/// A full disk may refuse a rename, too. The old segments are deleted already then.
#[test]
fn new_segment_without_its_final_name_is_kept() {
    let site = Site::new();
    for kind in [".log", ".index", ".timeindex"] {
        let (disk, shared) = site.copy();
        let fault: fn(Operation, &Path) -> Option<Errno> = match kind {
            ".log" => |operation, path| refuse(operation, path, ".log.swap"),
            ".index" => |operation, path| refuse(operation, path, ".index.swap"),
            _ => |operation, path| refuse(operation, path, ".timeindex.swap"),
        };
        disk.fail_files(Some(fault));
        let first = run(&shared, 0, NOW).expect_err("a rename fails");
        assert!(matches!(first, CleanError::Log(LogError::Failed { .. })), "{kind}: {first}");
        disk.fail_files(None);
        run(&shared, 0, NOW).expect_err("only a start can mend the log");
        site.check(&disk.crash(Crash::Process), true)
            .unwrap_or_else(|what| panic!("{kind}: {what}"));
    }
}

fn refuse(operation: Operation, path: &Path, suffix: &str) -> Option<Errno> {
    let is_refused = operation == Operation::Rename && path.to_string_lossy().ends_with(suffix);
    is_refused.then_some(Errno::NOSPC)
}

/// If an operation fails once and the process continues, nothing is lost either.
#[test]
fn round_after_a_failed_one_cleans_the_log() {
    let site = Site::new();
    for calls in 0.. {
        let (disk, shared) = site.copy();
        disk.fail_after(Some(calls));
        let first = run(&shared, 0, NOW);
        disk.fail_after(None);
        if shared.log.lock().failed {
            let is_failure = |error| match error {
                CleanError::Log(error) => error.is_disk_failure(),
                CleanError::Aborted | CleanError::Uncleanable { .. } => false,
            };
            let first = first.expect_err("the log has failed");
            assert!(is_failure(first), "the directory goes offline");
            let second = run(&shared, 0, NOW);
            assert!(is_failure(second.expect_err("only a start can mend the log")));
            site.check(&disk.crash(Crash::Process), true).expect("is complete");
            continue;
        }
        let table = committed_table(&shared.log.lock());
        assert_eq!(table, site.table, "after {calls} calls: {first:?}");
        let second = run(&shared, 0, NOW);
        assert_eq!(committed_table(&shared.log.lock()), site.table);
        let checked = site.check(&disk.crash(Crash::Process), true);
        assert_eq!(checked, Ok(()), "after {calls} calls: {first:?} {second:?} {:?}", disk.paths());
        if first.is_ok() {
            second.expect("cleans");
            break;
        }
    }
}
