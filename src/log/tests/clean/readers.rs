//! Views of the log from before a replacement, and changes of the log during a round.

use super::*;
use crate::{
    base::planted_bugs::{Bug, plant},
    log::LogView,
};

fn history(disk: &FaultyDisk) -> Log {
    let (mut log, _) = open(disk, small(), start(true, 0));
    write_history(&mut log);
    log
}

/// A view whose segments have no open file.
fn idle_view(log: &Log) -> LogView {
    let view = log.view();
    view.close_idle_files();
    view.close_idle_files();
    view
}

fn read(view: &LogView) -> Result<Vec<Batch>, ReadError> {
    view.batches_from(0).collect()
}

#[test]
fn view_reads_old_segments_until_their_files_are_removed() {
    let disk = FaultyDisk::default();
    let log = history(&disk);
    let before = read(&log.view()).expect("reads");
    let views: RefCell<Vec<LogView>> = RefCell::default();
    // Readers take views between all steps, and open the files later.
    let shared = Shared::with(log, |_, log| {
        views.borrow_mut().push(idle_view(log));
        for view in views.borrow().iter() {
            view.close_idle_files();
            view.close_idle_files();
            let read = read(view).expect("reads");
            assert!(read.iter().all(|batch| before.iter().any(|it| {
                it.header.base_offset <= batch.header.base_offset
                    && it.header.last_offset() >= batch.header.last_offset()
            })));
        }
    });
    let range = cleanable(&shared.log.lock(), 0);
    let mut pace = Collected::default();
    clean::clean(&shared, range, &options(NOW), &mut pace).expect("cleans");
    let log = shared.into_log();
    let first = views.borrow()[0].clone();
    assert_eq!(read(&first).expect("reads"), before);
    assert!(log.replacements() > first.replacements());
    first.close_idle_files();
    first.close_idle_files();
    pace.deleted.into_iter().for_each(|segment| segment.remove().expect("removes"));
    let gone = read(&first).expect_err("the files are removed");
    assert!(gone.is_not_found(), "{gone}");
    read(&log.view()).expect("reads");
}

/// A view whose segments have no open file, which opens them after a round.
fn read_after_a_round() -> (Vec<Batch>, Result<Vec<Batch>, ReadError>) {
    let log = history(&FaultyDisk::default());
    let view = idle_view(&log);
    let before = read(&view).expect("reads");
    idle_view(&log);
    clean_all(log, NOW);
    (before, read(&view))
}

#[test]
fn planted_read_of_the_new_file_is_found() {
    let (before, after) = read_after_a_round();
    assert_eq!(after.expect("reads"), before);
    plant(Some(Bug::ReopenedByOldName));
    let (before, after) = read_after_a_round();
    plant(None);
    assert_ne!(after.ok(), Some(before));
}

/// A second replacement takes the names of the first one's old files.
#[test]
fn view_of_an_earlier_replacement_never_reads_files_of_a_later_one() {
    let disk = FaultyDisk::default();
    let log = history(&disk);
    let oldest = idle_view(&log);
    let before = read(&oldest).expect("reads");
    let (mut log, _) = clean_all(log, NOW);
    idle_view(&log);
    put(&mut log, plain(&[("a", Some("newer"))]));
    log.roll(log.log_end(), NOW).expect("rolls");
    let older = idle_view(&log);
    let cleaned = read(&older).expect("reads");
    let (log, _) = clean_all(log, NOW);
    for view in [&oldest, &older] {
        view.close_idle_files();
        view.close_idle_files();
    }
    assert_eq!(read(&older).expect("is still there"), cleaned);
    match read(&oldest) {
        Ok(read) => assert_eq!(read, before),
        Err(error) => assert!(error.is_not_found(), "{error}"),
    }
    read(&log.view()).expect("reads");
}

/// The log changes before each access of a round up to `end` in turn. After the last access, the
/// round changes nothing more.
fn change_everywhere(
    end: i64,
    change: impl Fn(&mut Log),
    mut check: impl FnMut(&Log, &Result<Cleaned, CleanError>),
) {
    for at in 0.. {
        let disk = FaultyDisk::default();
        let shared = Shared::with(history(&disk), |access, log| {
            if access == at {
                change(log);
            }
        });
        let range = CleanRange { end, ..cleanable(&shared.log.lock(), 0) };
        let ended = clean::clean(&shared, range, &options(NOW), &mut Collected::default());
        let is_over = shared.accesses.get() <= at;
        let log = shared.into_log();
        check(&log, &ended);
        let log_start = Some(log.log_start());
        let at_start = LogStart { log_start, ..start(false, 0) };
        let again = open(&disk.crash(Crash::Process), small(), at_start).0;
        assert_eq!(batches_of(&again), batches_of(&log), "at access {at}");
        let is_left = |path: &&std::path::PathBuf| {
            let name = path.to_string_lossy().into_owned();
            name.ends_with(".cleaned") || name.ends_with(".swap")
        };
        assert_eq!(disk.paths().iter().find(is_left), None, "at access {at}");
        if is_over {
            ended.expect("cleans");
            assert!(at > 5, "{at}");
            return;
        }
    }
}

/// A follower truncates above its high watermark, which is the end of the round.
#[test]
fn truncation_aborts_a_round() {
    let original = history(&FaultyDisk::default());
    let bases: Vec<i64> = original.view().segments.iter().map(|it| it.base_offset).collect();
    // No transaction is open at this high watermark.
    let (high_watermark, offset) = (bases[4], bases[5] + 2);
    let mut expected = history(&FaultyDisk::default());
    expected.truncate_to(offset, high_watermark).expect("cuts");
    let mut aborted = 0;
    change_everywhere(
        high_watermark,
        |log| {
            // As if an earlier leader had committed more.
            log.set_first_dirty(bases[6]);
            log.truncate_to(offset, high_watermark).expect("cuts");
        },
        |log, ended| {
            let is_truncated = log.log_end() != original.log_end();
            match ended {
                Err(CleanError::Aborted) => {
                    assert!(is_truncated);
                    assert_eq!(log.log_end(), expected.log_end());
                    assert_eq!(log.view().first_dirty(), Some(bases[5]), "the active segment");
                    aborted += 1;
                }
                ended => {
                    let end_offset = ended.as_ref().expect("has no other error").end_offset;
                    assert!(!is_truncated && end_offset == high_watermark);
                    assert_eq!(log.view().first_dirty(), Some(high_watermark));
                }
            }
            let same = if is_truncated { &expected } else { &original };
            assert_eq!(committed_table(log), committed_table(same));
            let beyond = |log: &Log| {
                let batches = batches_of(log).into_iter();
                batches.filter(|it| it.header.base_offset >= high_watermark).collect::<Vec<_>>()
            };
            assert_eq!(beyond(log), beyond(same));
        },
    );
    assert!(aborted > 10, "{aborted}");
}

#[test]
fn restart_at_another_offset_aborts_a_round() {
    let end = history(&FaultyDisk::default()).view().active_base_offset();
    change_everywhere(
        end,
        |log| log.truncate_fully_and_start_at(500, NOW).expect("starts again"),
        |log, ended| match log.log_start() {
            500 => {
                assert!(matches!(ended, Err(CleanError::Aborted)), "{ended:?}");
                assert_eq!(batches_of(log), []);
                assert_eq!(log.view().first_dirty(), None);
            }
            _ => assert!(ended.is_ok(), "{ended:?}"),
        },
    );
}

#[test]
fn retention_during_a_round_deletes_what_it_would_without() {
    let retain = |log: &mut Log| {
        log.advance_log_start(9).expect("moves");
        log.apply_retention(NOW, log.log_end(), usize::MAX).expect("runs");
    };
    let end = history(&FaultyDisk::default()).view().active_base_offset();
    change_everywhere(end, retain, |log, ended| {
        let is_aborted = matches!(ended, Err(CleanError::Aborted));
        assert!(is_aborted || ended.is_ok(), "{ended:?}");
        assert!(log.log_start() == 9 || log.log_start() == 0);
    });
}

/// DeleteRecords into the middle of a segment. Records before the log start stay in the file.
#[test]
fn log_start_within_a_segment_stays() {
    let disk = FaultyDisk::default();
    let mut log = history(&disk);
    log.advance_log_start(5).expect("moves");
    let table = committed_table(&log);
    let (log, _) = clean_all(log, NOW);
    assert_eq!(log.log_start(), 5);
    assert_eq!(committed_table(&log), table);
    let at = LogStart { log_start: Some(5), ..start(false, 0) };
    let (again, _) = open(&disk.crash(Crash::Process), small(), at);
    assert_eq!((again.log_start(), committed_table(&again)), (5, table));
}

/// Each read below the log end returns the next batch, also in a gap.
#[test]
fn reads_within_gaps_return_the_next_batch() {
    let disk = FaultyDisk::default();
    let (log, end) = clean_all(history(&disk), NOW);
    let (view, batches) = (log.view(), batches_of(&log));
    for offset in 0..log.log_end() {
        let next = batches.iter().find(|it| it.header.last_offset() >= offset).expect("is there");
        for limit in [log.log_end(), end] {
            let slice = view.read(offset, 1, limit, true).expect("reads");
            // The last batch of the round stays, so no reader waits below its end.
            let is_readable = offset < limit && next.header.base_offset < limit;
            assert_eq!(is_readable, offset < limit, "{offset} of {limit}");
            assert_eq!(slice.len, if is_readable { next.size() } else { 0 }, "{offset} of {limit}");
        }
        let place = view.position_of(offset).expect("reads").expect("is there");
        assert!(place.0 <= next.header.base_offset);
        view.timestamp_at(offset, log.log_end()).expect("reads");
    }
}

/// A flush that began before a replacement moves the recovery point as usual.
#[test]
fn flush_during_a_replacement_makes_the_log_durable() {
    let disk = FaultyDisk::default();
    let mut log = history(&disk);
    let table = committed_table(&log);
    let flush = log.begin_flush().expect("there is something to sync");
    idle_view(&log);
    let range = cleanable(&log, 0);
    let (shared, mut pace) = (Shared::new(log), Collected::default());
    clean::clean(&shared, range, &options(NOW), &mut pace).expect("cleans");
    pace.deleted.into_iter().for_each(|segment| segment.remove().expect("removes"));
    let mut log = shared.into_log();
    log.flushed(flush.run().expect("what is gone needs no sync"));
    assert_eq!(log.recovery_point(), log.log_end());
    let (again, _) =
        open(&disk.crash(Crash::LoseUnsynced), small(), start(false, log.recovery_point()));
    assert_eq!(committed_table(&again), table);
}
