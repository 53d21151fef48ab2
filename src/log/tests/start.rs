//! What a start reads and writes, and which logs open files late.

use super::*;
use crate::log::disk::{OpenMode, read_exact_at};

/// One segment with some entries in its indexes.
fn large() -> LogConfig {
    LogConfig { segment_bytes: 1 << 30, ..LogConfig::default() }
}

#[test]
fn start_after_kill_writes_nothing() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, large(), start(true, 0));
    let written = append(&mut log, 3, 200);
    for (log_end, bytes) in [(3, written), (0, Vec::new())] {
        let after = match log_end {
            0 => {
                let empty = FaultyDisk::default();
                open(&empty, large(), start(true, 0));
                empty.crash(Crash::Process)
            }
            _ => disk.crash(Crash::Process),
        };
        after.fail_after(Some(0));
        let (log, recovery) = open(&after, large(), start(false, 0));
        assert_eq!((log.log_end(), read_all(&log, 0)), (log_end, bytes), "{recovery:?}");
    }
}

#[test]
fn large_flush_shortens_recovery() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, large(), start(true, 0));
    for sequence in 0..600 {
        let next = of_producer(batch(0, 1, 4000), 7, 0, sequence);
        log.append(&mut [next], 0, NOW).expect("appends");
    }
    assert!(log.view().unsettled() > 2 << 20);
    let settled = log.view().settled();
    log.flush().expect("flushes");
    assert_eq!((log.view().unsettled(), log.recovery_point()), (0, 600));
    assert_ne!(log.view().settled(), settled, "a checkpoint is due");
    append(&mut log, 1, 300);
    for crash in [Crash::Process, Crash::LoseUnsynced] {
        let (log, recovery) = open(&disk.crash(crash), large(), start(false, 600));
        assert!(recovery.scanned_bytes < 20_000, "{crash:?}: {recovery:?}");
        assert!(recovery.replayed_batches <= 2, "{crash:?}: {recovery:?}");
        assert_eq!(log.producers().next().expect("is restored").1.last_sequence(), 599);
    }
    // A flush of few bytes leaves no snapshot. The next flush of many bytes removes the former
    // snapshot.
    log.flush().expect("flushes");
    let snapshots = |disk: &FaultyDisk| {
        disk.paths().iter().filter(|it| it.extension().is_some_and(|it| it == "snapshot")).count()
    };
    assert_eq!(snapshots(&disk), 1);
    for _ in 0..300 {
        append(&mut log, 1, 4000);
    }
    log.flush().expect("flushes");
    assert_eq!(snapshots(&disk), 1);
}

#[test]
fn settled_log_is_scanned_only_after_machine_restart() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, large(), start(true, 0));
    for sequence in 0..600 {
        let next = of_producer(batch(0, 1, 4000), 7, 0, sequence);
        log.append(&mut [next], 0, NOW).expect("appends");
    }
    log.settle();
    assert_eq!((log.view().settled(), log.view().unsettled()), (600, 0));
    append(&mut log, 1, 300);
    assert_eq!(log.recovery_point(), 0, "nothing is durable");
    let settled = LogStart { settled: 600, ..start(false, 0) };
    for (at, is_read) in [(settled, false), (start(false, 0), true)] {
        let (log, recovery) = open(&disk.crash(Crash::Process), large(), at);
        assert_eq!(recovery.scanned_bytes > 2 << 20, is_read, "{recovery:?}");
        assert_eq!(recovery.replayed_batches > 2, is_read, "{recovery:?}");
        assert_eq!(log.producers().next().expect("is restored").1.last_sequence(), 599);
        assert_eq!((log.log_end(), log.recovery_point()), (601, 0));
    }
}

#[test]
fn settled_data_is_durable_after_flush() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    let mut written = Vec::new();
    for _ in 0..12 {
        written.extend(append(&mut log, 1, 339));
    }
    log.settle();
    assert!(log.view().segment_count() > 4);
    let disk = disk.crash(Crash::Process);
    let (mut log, recovery) = open(&disk, small(), LogStart { settled: 12, ..start(false, 0) });
    assert!(recovery.scanned_bytes < 1000, "{recovery:?}");
    log.flush().expect("flushes");
    let (log, _) = open(&disk.crash(Crash::LoseUnsynced), small(), start(false, 0));
    assert_eq!(read_all(&log, 0), written);
}

#[test]
fn truncation_lowers_settled_offset() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    append(&mut log, 3, 100);
    log.settle();
    log.truncate_to(1, 0).expect("cuts");
    assert_eq!(log.view().settled(), log.log_end());
}

#[test]
fn reopened_files_belong_to_renamed_log() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    let mut written = Vec::new();
    for _ in 0..6 {
        written.extend(append(&mut log, 1, 339));
    }
    assert!(log.view().segment_count() > 2);
    let view = log.view();
    // The second of two calls closes what was not used in between.
    view.close_idle_files();
    view.close_idle_files();
    let renamed = Path::new("/data/t-0.gone-delete");
    disk.rename(Path::new(DIR), renamed).expect("renames");
    log.set_dir(renamed);
    let (mut other, _) = open(&disk, small(), start(true, 0));
    for _ in 0..6 {
        append(&mut other, 1, 339);
    }
    assert_ne!(read_all(&other, 0), Vec::<u8>::new());
    assert_eq!(read_all(&log, 0), written, "not those of the log that has the name now");
    assert_eq!(log.append(&mut [batch(0, 1, 30)], 0, NOW).expect("appends").last_offset, 6);
    let path = renamed.join("00000000000000000000.log");
    let file = disk.open(&path, OpenMode::Read).expect("was renamed");
    let mut head = [0; 8];
    read_exact_at(&*file, &mut head, 0).expect("reads");
    assert_eq!(head, [0; 8], "offset 0");
}

#[test]
fn retention_uses_looked_up_timestamps() {
    let disk = FaultyDisk::default();
    let config = LogConfig { retention_ms: 1000, ..small() };
    let (mut log, _) = open(&disk, config.clone(), start(true, 0));
    for _ in 0..12 {
        append(&mut log, 1, 339);
    }
    log.close().expect("closes");
    let (mut log, _) = open(&disk.crash(Crash::Process), config, start(true, 12));
    let segments = log.view().segment_count();
    assert!(segments > 4);
    log.view().look_up_ages(i64::MAX);
    for left in (1..segments).rev() {
        let deleted = log.apply_retention(NOW, 12, 1).expect("runs");
        assert_eq!((deleted.len(), log.view().segment_count()), (1, left));
    }
}
