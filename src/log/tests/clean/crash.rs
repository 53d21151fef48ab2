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
    /// Number of keys for which the map has room.
    map_keys: usize,
    /// Decides which segments become one.
    segment_bytes: u64,
}

/// A disk after a number of operations, and what was known then.
struct Interrupted {
    disk: FaultyDisk,
    /// The first dirty offset, which may be in the checkpoint.
    first_dirty: Option<i64>,
    /// Whether all rounds ended.
    is_complete: bool,
}

impl Site {
    /// A log of which one round makes a group of one segment and a group of two. Something of each
    /// segment stays.
    fn new() -> Self {
        let long = "v".repeat(150);
        Self::of((100, 2500), |log| {
            for round in ["1", "2", "3"] {
                let value = format!("{long}{round}");
                let value = Some(value.as_str());
                put(log, plain(&[("a", value), ("b", None)]));
                put(log, transactional(1, 0, &[("c", value), ("a", Some("aborted"))]));
                put(log, end_of(1, false));
                put(log, plain(&[("c", value), (round, Some("1"))]));
                put(log, plain(&[("d", value)]));
            }
        })
    }

    /// A log of which nothing of the second segment stays. The map is too small for a round over
    /// all of it, and a transaction reaches over the ends of rounds.
    fn of_several_rounds() -> Self {
        let long = "v".repeat(150);
        let value = Some(long.as_str());
        Self::of((3, 1000), |log| {
            let end_segment = |log: &mut Log| log.roll(log.log_end(), NOW).expect("rolls");
            put(log, transactional(2, 0, &[("open", Some("aborted"))]));
            put(log, plain(&[("a", value), ("b", value)]));
            end_segment(log);
            put(log, plain(&[("a", value), ("b", value), ("gone", value)]));
            end_segment(log);
            put(log, plain(&[("a", None), ("b", value), ("gone", None)]));
            put(log, transactional(1, 0, &[("b", Some("aborted"))]));
            put(log, end_of(1, false));
            put(log, plain(&[("c", value)]));
            end_segment(log);
            put(log, end_of(2, false));
            put(log, transactional(1, 1, &[("c", None), ("d", value), ("b", Some("last"))]));
            put(log, end_of(1, true));
            put(log, plain(&[("a", value), ("d", None)]));
        })
    }

    fn of((map_keys, segment_bytes): (usize, u64), write: impl FnOnce(&mut Log)) -> Self {
        let disk = FaultyDisk::default();
        let (mut log, _) = open(&disk, small(), start(true, 0));
        write(&mut log);
        log.roll(log.log_end(), NOW).expect("rolls");
        put(&mut log, plain(&[("d", None)]));
        log.flush().expect("flushes");
        assert!(log.view().segment_count() >= 4, "{}", log.view().segment_count());
        let (recovery_point, log_end) = (log.recovery_point(), log.log_end());
        let table = committed_table(&log);
        Self { disk, recovery_point, log_end, table, map_keys, segment_bytes }
    }

    /// A copy of the log.
    fn copy(&self) -> (FaultyDisk, Shared<'static>) {
        let disk = self.disk.crash(Crash::Process);
        let log = self.open(&disk, false).expect("opens");
        (disk, Shared::new(log))
    }

    fn open(&self, disk: &FaultyDisk, is_early: bool) -> Result<Log, LogError> {
        // As if the checkpoint of the recovery point was not written.
        let recovery_point = if is_early { 0 } else { self.recovery_point };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let config = LogConfig { segment_bytes: self.segment_bytes, ..small() };
        let opened =
            Log::open(shared, Path::new(DIR), Arc::new(config), start(false, recovery_point));
        opened.map(|(log, _)| log)
    }

    /// Runs one round from the first dirty offset. Returns whether it reached the end of the range.
    fn round(&self, shared: &Shared, now_ms: i64) -> Result<bool, CleanError> {
        // A slot stays free.
        let map_bytes = 24 * (self.map_keys + 1);
        let options = CleanOptions { map_bytes, load_factor: 1.0, ..options(now_ms) };
        let range = {
            let log = shared.log.lock();
            cleanable(&log, log.view().first_dirty().unwrap_or(0))
        };
        let cleaned = clean::clean(shared, range, &options, &mut Collected::default())?;
        Ok(cleaned.end_offset == range.end)
    }

    /// Runs rounds up to the end of the range. Returns their number.
    fn rounds(&self, shared: &Shared, now_ms: i64) -> Result<usize, CleanError> {
        let mut count = 1;
        while !self.round(shared, now_ms)? {
            count += 1;
        }
        Ok(count)
    }

    /// Runs all rounds, of which `calls` operations succeed.
    fn interrupted(&self, calls: u32) -> Interrupted {
        let (disk, shared) = self.copy();
        disk.fail_after(Some(calls));
        let is_complete = self.rounds(&shared, NOW).is_ok();
        disk.fail_after(None);
        let first_dirty = shared.into_log().view().first_dirty();
        Interrupted { disk, first_dirty, is_complete }
    }

    /// Opens the log after a crash and compares what consumers see.
    fn check(&self, disk: &FaultyDisk, is_early: bool) -> Result<Log, String> {
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
        self.check_table(&log)?;
        Ok(log)
    }

    fn check_table(&self, log: &Log) -> Result<(), String> {
        let table = committed_table(log);
        if table == self.table { Ok(()) } else { Err(format!("{table:?}")) }
    }

    /// As [`Self::check`]. After that, compacts the log from the checkpointed offset on until its
    /// tombstones are gone.
    fn check_later_rounds(
        &self,
        disk: &FaultyDisk,
        first_dirty: Option<i64>,
    ) -> Result<(), String> {
        let mut log = self.check(disk, true)?;
        log.restore_first_dirty(first_dirty);
        let shared = Shared::new(log);
        for now_ms in [NOW, NOW + 2 * RETENTION_MS, NOW + 4 * RETENTION_MS] {
            self.rounds(&shared, now_ms).map_err(|error| error.to_string())?;
        }
        self.check_table(&shared.into_log())
    }

    /// Crashes after each operation of the rounds. Returns the first difference.
    fn crash_everywhere(&self) -> Result<u32, String> {
        for calls in 0.. {
            let Interrupted { disk, first_dirty, is_complete } = self.interrupted(calls);
            for crash in crashes(&disk) {
                let of_crash = |what| format!("{crash:?} after {calls} calls: {what}");
                for is_early in [false, true] {
                    self.check(&disk.crash(crash), is_early).map_err(of_crash)?;
                }
                if matches!(crash, Crash::Process | Crash::LoseUnsynced) {
                    self.check_later_rounds(&disk.crash(crash), first_dirty).map_err(of_crash)?;
                }
            }
            if is_complete {
                return Ok(calls);
            }
        }
        unreachable!("a round ends")
    }
}

/// Each change of a name that was not synced is lost alone, or with all later ones.
fn crashes(disk: &FaultyDisk) -> impl Iterator<Item = Crash> + use<> {
    let changes = disk.unsynced_name_changes();
    let alone = (0..changes).map(|at| Crash::LoseNames(!(1 << at)));
    let with_later = (1..changes).map(|kept| Crash::LoseNames((1 << kept) - 1));
    [Crash::Process, Crash::LoseUnsynced].into_iter().chain(alone).chain(with_later)
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
    let calls = site.crash_everywhere().unwrap_or_else(|what| panic!("{what}"));
    assert!(calls > 60, "{calls}");
}

#[test]
fn crash_between_rounds_that_empty_segments_loses_nothing() {
    let site = Site::of_several_rounds();
    let (_, shared) = site.copy();
    assert!(!site.round(&shared, NOW).expect("cleans"));
    assert_eq!(shared.log.lock().view().segments[1].size(), 0, "nothing of it stays");
    assert_eq!(site.rounds(&shared, NOW).expect("cleans"), 2);
    let calls = site.crash_everywhere().unwrap_or_else(|what| panic!("{what}"));
    assert!(calls > 100, "{calls}");
}

/// The start after a crash is interrupted, too.
#[test]
fn crash_at_any_operation_of_the_start_after_it_loses_nothing() {
    let site = Site::new();
    let (mut is_complete, mut starts) = (false, 0);
    // A start removes incomplete files without a look at their content.
    let mut started_with = BTreeSet::new();
    for calls in 0.. {
        let interrupted = site.interrupted(calls);
        if std::mem::replace(&mut is_complete, interrupted.is_complete) {
            break;
        }
        for crash in [Crash::Process, Crash::LoseUnsynced] {
            if !started_with
                .insert((crash == Crash::Process, interrupted.disk.crash(crash).paths()))
            {
                continue;
            }
            for start_calls in 0.. {
                let crashed = interrupted.disk.crash(crash);
                crashed.fail_after(Some(start_calls));
                let is_open = site.open(&crashed, true).is_ok();
                crashed.fail_after(None);
                // After that, it is a start like any other.
                let is_settled = !has_leftovers(&crashed);
                for crash in crashes(&crashed).take(if is_settled { 2 } else { usize::MAX }) {
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

fn has_leftovers(disk: &FaultyDisk) -> bool {
    let suffixes = [".cleaned", ".swap", ".deleted"];
    let is_left = |path: &str| suffixes.iter().any(|suffix| path.ends_with(suffix));
    disk.paths().iter().any(|path| is_left(&path.to_string_lossy()))
}

/// With a missing sync or an early checkpoint, the crashes above find a loss.
#[test]
fn planted_bugs_are_found() {
    for (bug, site) in
        [(Bug::UnsyncedSwap, Site::new()), (Bug::EarlyFirstDirty, Site::of_several_rounds())]
    {
        plant(Some(bug));
        let found = site.crash_everywhere();
        plant(None);
        assert!(found.is_err(), "{bug:?}: {found:?}");
    }
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
        let checked = site.check(&disk.crash(Crash::Process), true);
        checked.unwrap_or_else(|what| panic!("{kind}: {what}"));
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
        site.check(&disk.crash(Crash::Process), true).unwrap_or_else(|what| {
            panic!("after {calls} calls: {first:?} {second:?} {what} {:?}", disk.paths())
        });
        if first.is_ok() {
            second.expect("cleans");
            break;
        }
    }
}
