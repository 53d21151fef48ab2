//! No data is lost if index files and snapshots cannot be written, read or synced.

use rustix::io::Errno;

use super::*;
use crate::log::faulty::{
    Fault,
    Operation::{self, Open, Read, Remove, Sync, Write},
};

fn is_index(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "index" || it == "timeindex")
}

fn is_hint(path: &Path) -> bool {
    is_index(path) || path.extension().is_some_and(|it| it == "snapshot")
}

const FAULTS: [Fault; 6] = [
    |operation, path| (operation == Open && is_hint(path)).then_some(Errno::MFILE),
    |operation, path| (operation == Write && is_hint(path)).then_some(Errno::NOSPC),
    |operation, path| (matches!(operation, Open | Write) && is_hint(path)).then_some(Errno::IO),
    |operation, path| (operation == Sync && is_hint(path)).then_some(Errno::IO),
    |operation, path| (operation == Read && is_index(path)).then_some(Errno::IO),
    // The end of a time index is lost, and nothing else.
    |operation, path| {
        let is_time_index = path.extension().is_some_and(|it| it == "timeindex");
        (operation == Write && is_time_index).then_some(Errno::NOSPC)
    },
];

/// Segments of a few batches, with an index entry for each batch.
fn dense() -> LogConfig {
    LogConfig { segment_bytes: 400, index_interval_bytes: 1, ..LogConfig::default() }
}

/// The batch at offset `2 * sequence`, as a producer sends it.
fn numbered(sequence: i32) -> Batch {
    let time = 10 * i64::from(sequence);
    of_producer(timed([time, time + 5]), 7, 0, 2 * sequence)
}

fn append_numbered(log: &mut Log, sequences: std::ops::Range<i32>) {
    for sequence in sequences {
        log.append(&mut [numbered(sequence)], 0, NOW).expect("the log itself is well");
    }
}

/// Looks up each record by its offset and by its timestamp.
fn check_lookups(log: &Log) {
    let view = log.view();
    for offset in 0..view.log_end() {
        assert!(view.position_of(offset).expect("reads").is_some(), "offset {offset}");
        let found = view.offset_for_timestamp(5 * offset, view.log_end()).expect("reads");
        assert_eq!(found, Some((5 * offset, offset, 0)));
    }
    let end = view.log_end();
    assert_eq!(view.max_timestamp().expect("reads"), Some((5 * end - 5, end - 1, 0)));
}

#[test]
fn failing_hints_fail_no_append_and_no_flush() {
    for (index, fault) in FAULTS.into_iter().enumerate() {
        let disk = FaultyDisk::default();
        let (mut log, _) = open(&disk, dense(), start(true, 0));
        append_numbered(&mut log, 0..1);
        disk.fail_files(Some(fault));
        append_numbered(&mut log, 1..10);
        log.flush().expect("the log itself is well");
        assert_eq!(log.recovery_point(), 20, "fault {index}");
        append_numbered(&mut log, 10..14);
        assert!(log.view().segment_count() > 3);
        check_lookups(&log);
        for crash in [Crash::Process, Crash::LoseUnsynced] {
            let (log, recovery) = open(&disk.crash(crash), dense(), start(false, 20));
            assert!(log.log_end() >= 20, "fault {index}: {recovery:?}");
            check_lookups(&log);
            let last = log.producers().next().expect("is restored").1.last_sequence();
            assert_eq!(i64::from(last), log.log_end() - 1, "fault {index}, {crash:?}");
        }
        let _ = log.close();
        disk.fail_files(None);
        append_numbered(&mut log, 14..15);
        log.close().expect("closes");
        let (log, recovery) = open(&disk.crash(Crash::Process), dense(), start(true, 30));
        assert_eq!((log.log_end(), recovery.cut_bytes), (30, 0), "fault {index}");
        check_lookups(&log);
    }
}

#[test]
fn index_entries_wait_in_memory_for_a_file_that_can_be_opened() {
    let disk = FaultyDisk::default();
    let config = LogConfig { segment_bytes: 1 << 30, index_interval_bytes: 1, ..small() };
    let (mut log, _) = open(&disk, config.clone(), start(true, 0));
    disk.fail_files(Some(FAULTS[0]));
    for _ in 0..5000 {
        append(&mut log, 1, 20);
    }
    log.settle();
    assert_eq!(log.view().settled(), 0, "a start would not find the entries");
    disk.fail_files(None);
    append(&mut log, 1, 20);
    log.settle();
    assert_eq!(log.view().settled(), 5001);
    let entries = disk.len(&Path::new(DIR).join("00000000000000000000.index")).expect("is there");
    assert!((1000..=3000).contains(&(entries / 8)), "bounded: {entries} bytes");
    let settled = LogStart { settled: 5001, ..start(false, 0) };
    let (_, recovery) = open(&disk.crash(Crash::Process), config, settled);
    assert!(recovery.scanned_bytes < 1000, "{recovery:?}");
}

#[test]
fn an_append_is_undone_without_opening_a_file() {
    let fault: Fault = |operation, path| {
        let is_second = path.to_string_lossy().contains("/00000000000000000003.");
        (operation == Open && !is_second).then_some(Errno::MFILE)
    };
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    let mut first = [of_producer(batch(0, 1, 239), 7, 0, 0)];
    log.append(&mut first, 0, NOW).expect("appends");
    disk.fail_files(Some(fault));
    let next: Vec<Batch> = (1..9).map(|at| of_producer(batch(0, 1, 239), 7, 0, at)).collect();
    log.append(&mut next.clone(), 0, NOW).expect_err("the third segment cannot be made");
    assert_eq!((log.log_end(), log.size()), (1, 300));
    assert_eq!(log.check_producer(&next[0].header), Ok(ProducerCheck::Append));
    assert!(log.check_producer(&next[1].header).is_err(), "the one before was undone");
    disk.fail_files(None);
    log.append(&mut next.clone(), 0, NOW).expect("is open to writes");
    assert_eq!(log.log_end(), 9);
    let (log, _) = open(&disk.crash(Crash::Process), small(), start(false, 0));
    assert_eq!(log.log_end(), 9);
}

#[test]
fn a_roll_of_an_empty_log_is_undone() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    disk.fail_files(Some(|operation, path| {
        let is_far = path.to_string_lossy().ends_with("/00000000003000000000.log");
        (operation == Write && is_far).then_some(Errno::NOSPC)
    }));
    let far = batch(3_000_000_000, 1, 10);
    log.append_verbatim(std::slice::from_ref(&far), NOW).expect_err("has no room");
    assert_eq!((log.log_end(), log.view().active_base_offset()), (0, 0));
    disk.fail_files(None);
    log.append_verbatim(&[far], NOW).expect("there is room");
    assert_eq!(log.log_end(), 3_000_000_001);
}

#[test]
fn a_short_index_that_stays_closes_the_log() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    disk.fail_files(Some(|operation: Operation, path| {
        (matches!(operation, Write | Remove) && is_index(path)).then_some(Errno::IO)
    }));
    for _ in 0..5 {
        append(&mut log, 1, 239);
    }
    log.flush().expect("the batches are durable");
    assert_eq!(log.recovery_point(), 0, "a start rebuilds the indexes");
    let refused = log.append(&mut [batch(0, 1, 10)], 0, NOW).expect_err("the disk has failed");
    assert!(matches!(refused, LogError::Failed { .. }), "{refused}");
    assert!(log.close().is_err(), "the stop is not clean");
}
