//! Tests of whole logs by example. `tests/model.rs` compares logs with a model.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    Disk, Log, LogConfig, LogError, LogStart, ProducerCheck, ProducerError, ReadError, Recovery,
    faulty::{Crash, FaultyDisk},
    testing::{batch, bytes_of, of_producer, sealed},
};
use crate::records::{Batch, BatchBuilder, BatchHeader, BatchOptions, batch::NO_SEQUENCE};

mod clean;
mod deleted_segments;
mod dirs;
mod first_sequences;
mod hints;
mod horizon;
mod model;
mod start;
mod swap;
mod txns;

const DIR: &str = "/data/t-0";
const NOW: i64 = 1_000_000;

fn start(clean: bool, recovery_point: i64) -> LogStart {
    LogStart { recovery_point, settled: 0, log_start: None, clean, now_ms: NOW }
}

/// Segments of a few batches, with an index entry for nearly each batch.
fn small() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 150, ..LogConfig::default() }
}

fn open(disk: &FaultyDisk, config: LogConfig, start: LogStart) -> (Log, Recovery) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(disk, Path::new(DIR), Arc::new(config), start).expect("opens")
}

/// All bytes that a reader gets from `offset` on.
fn read_all(log: &Log, offset: i64) -> Vec<u8> {
    let view = log.view();
    let (mut bytes, mut next) = (Vec::new(), offset);
    while next < view.log_end() {
        let slice = view.read(next, 300, view.log_end(), true).expect("reads");
        if slice.len == 0 {
            break; // The log end offset may be larger than the end of the last batch.
        }
        let mut part = vec![0; slice.len];
        super::disk::read_exact_at(&*slice.file, &mut part, slice.position).expect("reads");
        let mut whole = bytes::Bytes::from(part);
        while let Ok(batch) = Batch::split_first(&mut whole) {
            next = batch.header.last_offset() + 1;
            bytes.extend(bytes_of(&batch));
        }
    }
    bytes
}

fn append(log: &mut Log, count: i32, size: usize) -> Vec<u8> {
    let mut batches = [batch(log.log_end(), count, size)];
    log.append(&mut batches, 0, NOW).expect("appends");
    bytes_of(&batches[0])
}

#[test]
fn offsets_and_epochs_are_assigned() {
    let disk = FaultyDisk::default();
    let (mut log, recovery) = open(&disk, small(), start(true, 0));
    assert!(recovery.created);
    let mut batches = [batch(0, 3, 50), batch(77, 2, 50)];
    let appended = log.append(&mut batches, 5, NOW).expect("appends");
    assert_eq!((appended.first_offset, appended.last_offset), (0, 4));
    assert_eq!(appended.max_timestamp, 1077);
    assert_eq!(batches[1].header.base_offset, 3);
    assert_eq!(batches[1].header.leader_epoch, 5);
    batches[1].verify_crc().expect("offset and epoch lie before the CRC");
    assert_eq!(log.latest_epoch(), Some(5));
    assert_eq!(log.end_offset_for_epoch(5), Some((5, 5)));
}

#[test]
fn reads_respect_limits() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, LogConfig::default(), start(true, 0));
    let sizes: Vec<usize> = (0..3).map(|_| append(&mut log, 2, 39).len()).collect();
    assert_eq!(sizes, [100; 3]);
    let view = log.view();
    let len = |offset, max, limit, at_least_one| {
        let slice = view.read(offset, max, limit, at_least_one).expect("reads");
        (slice.position, slice.len)
    };
    assert_eq!(len(0, 1000, 6, true), (0, 300));
    assert_eq!(len(3, 1000, 6, true), (100, 200), "from the middle of a batch");
    assert_eq!(len(0, 150, 6, true), (0, 150), "the last batch may be cut");
    assert_eq!(len(0, 99, 6, true), (0, 100));
    assert_eq!(len(0, 99, 6, false).1, 0);
    assert_eq!(len(0, 1000, 4, true), (0, 200));
    assert_eq!(len(4, 1000, 4, true).1, 0);
    assert_eq!(len(6, 1000, 6, true).1, 0);
    for offset in [-1, 7] {
        let error = view.read(offset, 1, 6, true).expect_err("is out of range");
        assert!(matches!(error, ReadError::OffsetOutOfRange { log_end: 6, .. }), "{error}");
    }
}

#[test]
fn segments_roll_by_bytes_time_and_offsets() {
    let disk = FaultyDisk::default();
    let config = LogConfig { segment_ms: 50, ..small() };
    let (mut log, _) = open(&disk, config, start(true, 0));
    let mut written = Vec::new();
    for _ in 0..20 {
        written.extend(append(&mut log, 1, 239));
    }
    assert_eq!(log.view().segment_count(), 7, "three of 300 bytes in each");
    assert_eq!(read_all(&log, 0), written);
    let mut late = batch(0, 1, 10);
    late.header.max_timestamp = 5000;
    log.append(&mut [late], 0, NOW).expect("appends");
    assert_eq!(log.view().segment_count(), 8, "timestamps lie too far apart");
    let far = batch(3_000_000_000, 1, 10);
    log.append_verbatim(&[far], NOW).expect("appends");
    assert_eq!(log.view().active_base_offset(), 3_000_000_000);
    assert!(log.roll_if_due(NOW * 1_000_000).expect("rolls"));
    assert!(!log.roll_if_due(NOW).expect("is empty now"));
}

#[test]
fn each_segment_rolls_after_its_own_part_of_the_jitter() {
    let config = LogConfig { segment_ms: 1000, segment_jitter_ms: 400, ..LogConfig::default() };
    let ages: BTreeSet<i64> = (0..50)
        .map(|partition| {
            let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::default());
            let dir = format!("/data/t-{partition}");
            let config = Arc::new(config.clone());
            let opened = Log::open(disk, Path::new(&dir), config, start(true, 0));
            let mut log = opened.expect("opens").0;
            append(&mut log, 1, 100);
            let first = batch(0, 1, 100).header.max_timestamp;
            (0..=1001).find(|age| log.roll_if_due(first + age).expect("rolls")).expect("in time")
        })
        .collect();
    assert!(ages.iter().all(|age| (602..=1001).contains(age)), "{ages:?}");
    assert!(ages.len() > 25, "{ages:?}");
}

#[test]
fn failed_append_is_undone() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    let kept = append(&mut log, 1, 100);
    for room in [0, 30, 61, 150, 700, 1500] {
        disk.set_room(Some(room));
        let mut batches: Vec<Batch> = (0..20).map(|_| batch(0, 1, 100)).collect();
        let error = log.append(&mut batches, room as i32, NOW).expect_err("has no room");
        assert!(matches!(error, LogError::Io { .. }), "{error}");
        disk.set_room(None);
        assert_eq!((log.log_end(), log.size()), (1, kept.len() as u64), "room {room}");
        assert_eq!(read_all(&log, 0), kept);
    }
    let more = append(&mut log, 1, 100);
    let expected = [kept, more].concat();
    let (log, recovery) = open(&disk.crash(Crash::Process), small(), start(false, 0));
    assert_eq!(recovery.cut_bytes, 0, "{recovery:?}");
    assert_eq!(read_all(&log, 0), expected);
}

#[test]
fn log_rejects_appends_after_failed_undo() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    disk.fail_after(Some(1));
    log.append(&mut [batch(0, 1, 500)], -1, NOW).expect_err("breaks in the middle");
    disk.fail_after(None);
    let error = log.append(&mut [batch(0, 1, 500)], -1, NOW).expect_err("is closed to writes");
    assert!(matches!(error, LogError::Failed { .. }), "{error}");
}

#[test]
fn bad_batches_are_refused() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    append(&mut log, 5, 10);
    let refused = |log: &mut Log, batch| log.append_verbatim(&[batch], NOW).expect_err("is bad");
    assert!(matches!(refused(&mut log, batch(4, 1, 1)), LogError::OffsetBehindEnd { .. }));
    assert!(matches!(refused(&mut log, batch(9, 1, 2000)), LogError::TooLarge { .. }));
    assert!(matches!(refused(&mut log, batch(9, 0, 1)), LogError::BadBatch { .. }));
    assert!(matches!(
        refused(&mut log, batch(i64::MAX - 2000, i32::MAX, 1)),
        LogError::BadBatch { .. }
    ));
    assert_eq!(log.log_end(), 5);
}

#[test]
fn producer_sequences_and_epochs_are_checked() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    let of = |epoch, sequence, count| of_producer(batch(0, count, 10), 9, epoch, sequence);
    let unknown = of(3, 41, 2);
    assert_eq!(log.check_producer(&unknown.header), Ok(ProducerCheck::Append));
    log.append(&mut [unknown.clone()], 0, NOW).expect("appends");
    let duplicate = ProducerCheck::Duplicate { base_offset: 0, last_offset: 1, timestamp: 1000 };
    assert_eq!(log.check_producer(&unknown.header), Ok(duplicate));
    let check = |log: &Log, batch: Batch| log.check_producer(&batch.header);
    assert_eq!(check(&log, of(3, 43, 1)), Ok(ProducerCheck::Append));
    for (epoch, sequence) in [(3, 44), (3, 42), (4, 1)] {
        let error = check(&log, of(epoch, sequence, 1)).expect_err("is out of order");
        assert!(matches!(error, ProducerError::OutOfOrderSequence { .. }), "{error}");
    }
    let fenced = check(&log, of(2, 43, 1)).expect_err("is fenced");
    assert!(matches!(fenced, ProducerError::InvalidEpoch { current_epoch: 3, .. }));
    assert_eq!(check(&log, of(4, 0, 1)), Ok(ProducerCheck::Append));
    assert_eq!(check(&log, of(3, NO_SEQUENCE, 1)), Ok(ProducerCheck::Append));
}

#[test]
fn sequences_wrap_and_five_batches_are_remembered() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    let mut sequence = i32::MAX - 5;
    let mut sent = Vec::new();
    for _ in 0..6 {
        let next = of_producer(batch(0, 3, 10), 1, 0, sequence);
        assert_eq!(log.check_producer(&next.header), Ok(ProducerCheck::Append), "{sequence}");
        log.append(&mut [next.clone()], 0, NOW).expect("appends");
        let after = (i64::from(sequence) + 3) % (i64::from(i32::MAX) + 1);
        sequence = after as i32;
        sent.push(next.header);
    }
    assert_eq!(sequence, 12);
    log.check_producer(&sent[0]).expect_err("is forgotten");
    for (index, header) in sent.iter().enumerate().skip(1) {
        let check = log.check_producer(header).expect("is remembered");
        let base = index as i64 * 3;
        assert!(
            matches!(check, ProducerCheck::Duplicate { base_offset, .. } if base_offset == base)
        );
    }
    log.expire_producers(NOW * 1000);
    assert_eq!(log.producers().len(), 0);
}

/// After a leader change, a client may repeat batches that it sent to the former leader, even after
/// five newer ones.
#[test]
fn in_flight_batches_are_deduplicated_after_leader_change() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    let mut sent = Vec::new();
    let mut remembered = |leader_epoch: i32, count: i32| {
        for _ in 0..count {
            let next = of_producer(batch(0, 1, 10), 1, 0, sent.len() as i32);
            log.append(&mut [next.clone()], leader_epoch, NOW).expect("appends");
            sent.push(next.header);
        }
        let is_known = |header: &BatchHeader| log.check_producer(header).is_ok();
        sent.iter().map(is_known).filter(|known| *known).count()
    };
    assert_eq!(remembered(3, 7), 5);
    assert_eq!(remembered(4, 1), 6);
    assert_eq!(remembered(4, 4), 10, "five of each epoch");
    assert_eq!(remembered(4, 20), 10, "batches of the former leader are kept");
    assert_eq!(remembered(5, 2), 10);
    assert_eq!(remembered(6, 5), 10, "and no more");
}

/// Sequence numbers repeat after 2^31 records. Batches with the same numbers are then different
/// ones.
#[test]
fn batches_of_former_leader_expire() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, LogConfig::default(), start(true, 0));
    let mut send = |leader_epoch: i32, sequence: i32, count: i32| {
        let next = of_producer(batch(0, count, 10), 1, 0, sequence);
        let check = log.check_producer(&next.header);
        if check == Ok(ProducerCheck::Append) {
            log.append(&mut [next], leader_epoch, NOW).expect("appends");
        }
        check
    };
    for sequence in 0..10 {
        assert_eq!(send(sequence / 5, sequence, 1), Ok(ProducerCheck::Append));
    }
    let many = 1 << 29;
    assert_eq!(send(1, 10, many), Ok(ProducerCheck::Append));
    assert!(matches!(send(1, 2, 1), Ok(ProducerCheck::Duplicate { .. })), "it may come again");
    assert_eq!(send(1, 10 + many, many), Ok(ProducerCheck::Append));
    send(1, 2, 1).expect_err("is another");
}

/// A snapshot has one batch of each producer. The others are read from the log, even if they are
/// large.
#[test]
fn large_batches_before_a_snapshot_are_remembered() {
    let disk = FaultyDisk::default();
    let config = LogConfig { segment_bytes: 1 << 30, ..LogConfig::default() };
    let (mut log, _) = open(&disk, config.clone(), start(true, 0));
    let mut sent = Vec::new();
    for at in 0..8 {
        let mut next = batch(0, 300, 400_000);
        next.header.max_timestamp = NOW;
        let next = of_producer(next, 1, 0, at * 300);
        log.append(&mut [next.clone()], 0, NOW).expect("appends");
        sent.push(next.header);
    }
    log.close().expect("closes");
    let (log, _) = open(&disk, config, start(true, log.log_end()));
    for header in &sent[3..] {
        let check = log.check_producer(header);
        assert!(matches!(check, Ok(ProducerCheck::Duplicate { .. })), "{check:?}");
    }
}

#[test]
fn retention_deletes_from_the_front() {
    let disk = FaultyDisk::default();
    let config = LogConfig { retention_bytes: 1000, retention_ms: -1, ..small() };
    let (mut log, _) = open(&disk, config, start(true, 0));
    for _ in 0..10 {
        append(&mut log, 1, 239);
    }
    let before = log.view();
    assert_eq!(
        log.apply_retention(NOW, 4, usize::MAX).expect("runs").len(),
        1,
        "up to the high watermark"
    );
    let deleted = log.apply_retention(NOW, 10, usize::MAX).expect("runs");
    assert_eq!(deleted.len(), 1);
    assert_eq!((log.log_start(), log.size()), (6, 1200));
    assert!(before.read(0, 300, 10, true).is_ok(), "an old view still has the files");
    for segment in deleted {
        segment.remove().expect("removes");
    }
    let age = LogConfig { retention_ms: 100, ..small() };
    log.set_config(Arc::new(age));
    assert_eq!(
        log.apply_retention(1109, 10, usize::MAX).expect("runs").len(),
        1,
        "of timestamps to 1008"
    );
    assert_eq!(log.log_start(), 9);
    log.apply_retention(5000, 10, usize::MAX).expect("runs");
    assert_eq!((log.log_start(), log.log_end(), log.view().segment_count()), (10, 10, 1));
    let names = disk.paths();
    let stale = names.iter().filter(|path| path.to_string_lossy().contains("00000.log"));
    assert_eq!(stale.count(), 1, "only what was not removed yet: {names:?}");
}

#[test]
fn the_log_start_moves_within_a_segment() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    for _ in 0..10 {
        append(&mut log, 1, 239);
    }
    assert!(log.advance_log_start(4).expect("moves"));
    assert!(!log.advance_log_start(2).expect("does not move back"));
    assert!(log.advance_log_start(11).is_err());
    assert_eq!(log.apply_retention(NOW, 10, usize::MAX).expect("runs").len(), 1);
    assert_eq!(log.log_start(), 4);
    assert!(log.view().read(3, 1, 10, true).is_err());
    let recovery_point = log.close().expect("closes");
    let start = LogStart { log_start: Some(4), ..start(true, recovery_point) };
    let (log, _) = open(&disk, small(), start);
    assert_eq!((log.log_start(), log.log_end()), (4, 10));
}

#[test]
fn a_clean_stop_is_opened_without_reading() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    let mut written = Vec::new();
    for sequence in 0..20 {
        let mut next = [of_producer(batch(0, 1, 239), 7, 0, sequence)];
        log.append(&mut next, 3, NOW).expect("appends");
        written.extend(bytes_of(&next[0]));
    }
    let recovery_point = log.close().expect("closes");
    assert_eq!(recovery_point, 20);
    let (log, recovery) = open(&disk.crash(Crash::LoseUnsynced), small(), start(true, 20));
    assert_eq!(recovery, Recovery::default());
    assert_eq!((log.log_end(), log.recovery_point(), log.latest_epoch()), (20, 20, Some(3)));
    assert_eq!(read_all(&log, 0), written);
    let (_, producer) = log.producers().next().expect("is remembered");
    assert_eq!(producer.last_sequence(), 19);
    let next = of_producer(batch(0, 1, 10), 7, 0, 20);
    assert_eq!(log.check_producer(&next.header), Ok(ProducerCheck::Append));
}

#[test]
fn recovery_reads_only_past_the_recovery_point() {
    let disk = FaultyDisk::default();
    let config = LogConfig { segment_bytes: 1 << 20, ..small() };
    let (mut log, _) = open(&disk, config.clone(), start(true, 0));
    for sequence in 0..3000 {
        let mut next = of_producer(batch(0, 1, 139), 7, 0, sequence);
        next.header.max_timestamp = i64::from(sequence);
        log.append(&mut [sealed(next)], 0, NOW).expect("appends");
        if sequence == 2000 {
            log.flush().expect("flushes");
        }
    }
    assert_eq!(log.recovery_point(), 2001);
    let expected = read_all(&log, 0);
    let (log, recovery) = open(&disk.crash(Crash::Process), config, start(false, 2001));
    assert_eq!(read_all(&log, 0), expected);
    assert!((900 * 200..1500 * 200).contains(&recovery.scanned_bytes), "{recovery:?}");
    assert_eq!(log.producers().next().expect("is restored").1.last_sequence(), 2999);
}

#[test]
fn damage_below_recovery_point_does_not_panic() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    for _ in 0..12 {
        append(&mut log, 1, 239);
    }
    log.close().expect("closes");
    for path in disk.paths() {
        for at in (0..disk.len(&path).expect("is there").min(700)).step_by(11) {
            let damaged = disk.crash(Crash::Process);
            damaged.flip(&path, at, 0x81);
            for clean in [true, false] {
                let seen: Arc<dyn Disk> = Arc::new(damaged.crash(Crash::Process));
                let config = Arc::new(small());
                let opened = Log::open(seen, Path::new(DIR), config, start(clean, 12));
                let Ok((mut log, _)) = opened else { continue };
                let view = log.view();
                for offset in (view.log_start()..view.log_end()).take(20) {
                    let _ = view.read(offset, 100, view.log_end(), true);
                }
                let _ = view.offset_for_timestamp(1006, view.log_end());
                let _ = view.max_timestamp();
                let _ = view.batches_from(0).count();
                let _ = log.apply_retention(NOW, view.log_end(), usize::MAX);
            }
        }
    }
}

#[test]
fn epochs_are_rebuilt_from_batches() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    for epoch in [0, 0, 2, 5] {
        log.append(&mut [batch(0, 1, 239)], epoch, NOW).expect("appends");
    }
    let epochs = log.epochs().to_vec();
    log.close().expect("closes");
    disk.remove_file(&Path::new(DIR).join("leader-epoch-checkpoint")).expect("removes");
    let (log, recovery) = open(&disk, small(), start(true, 4));
    assert!(recovery.rebuilt_epochs);
    assert_eq!(log.epochs(), epochs);
}

#[test]
fn flush_before_truncation_does_not_count() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    for _ in 0..8 {
        append(&mut log, 1, 239);
    }
    let flush = log.begin_flush().expect("is due");
    let flushed = flush.run().expect("syncs");
    log.truncate_to(5, 5).expect("cuts");
    append(&mut log, 9, 239);
    log.flushed(flushed);
    assert_eq!(log.recovery_point(), 0);
    log.flush().expect("flushes");
    assert_eq!(log.recovery_point(), 14);
    assert!(log.begin_flush().is_none());
}

#[test]
#[should_panic(expected = "below the high watermark")]
fn a_cut_below_the_high_watermark_is_a_bug() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    append(&mut log, 5, 10);
    let _ = log.truncate_to(3, 4);
}

#[test]
fn log_restarts_at_new_offset() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    for _ in 0..8 {
        append(&mut log, 1, 239);
    }
    log.truncate_fully_and_start_at(100, NOW).expect("starts over");
    assert_eq!((log.log_start(), log.log_end(), log.latest_epoch()), (100, 100, None));
    append(&mut log, 1, 10);
    let (log, _) = open(&disk.crash(Crash::Process), small(), start(false, 0));
    assert_eq!((log.log_start(), log.log_end()), (100, 101));
    assert_eq!(log.view().read(100, 10, 101, true).expect("reads").len, 71);
}

/// A compressed batch of two records with the given timestamps.
fn timed(timestamps: [i64; 2]) -> Batch {
    let codec = crate::records::Compression::Lz4;
    let mut builder = BatchBuilder::new(BatchOptions { compression: codec, ..Default::default() });
    for timestamp in timestamps {
        builder.append(timestamp, None, Some(b"value"), &[]);
    }
    builder.build()
}

#[test]
fn timestamps_find_the_exact_record() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, LogConfig { segment_bytes: 300, ..small() }, start(true, 0));
    for first in [10, 30, 20, 50, 40, 60] {
        log.append(&mut [timed([first, first + 5])], 1, NOW).expect("appends");
    }
    let view = log.view();
    assert!(view.segment_count() > 1);
    let find = |timestamp, limit| view.offset_for_timestamp(timestamp, limit).expect("reads");
    assert_eq!(find(0, 12), Some((10, 0, 1)));
    assert_eq!(find(11, 12), Some((15, 1, 1)));
    assert_eq!(find(16, 12), Some((30, 2, 1)));
    assert_eq!(find(36, 12), Some((50, 6, 1)));
    assert_eq!(find(36, 6), None, "behind the limit");
    assert_eq!(find(66, 12), None);
    assert_eq!(view.max_timestamp().expect("reads"), Some((65, 11, 1)));
    log.advance_log_start(3).expect("moves");
    let found = log.view().offset_for_timestamp(0, 12).expect("reads");
    assert_eq!(found, Some((35, 3, 1)));
}

/// A producer that did not receive the last five responses may repeat any of these batches. The
/// same holds after a restart, although a snapshot has only the last batch.
#[test]
fn five_batches_of_a_producer_are_known_after_a_restart() {
    for clean in [true, false] {
        let disk = FaultyDisk::default();
        let (mut log, _) = open(&disk, small(), start(false, 0));
        let mut batches = Vec::new();
        for sequence in 0..12 {
            let batch = of_producer(batch(i64::from(sequence), 1, 150), 7, 0, sequence);
            log.append(std::slice::from_ref(&batch).to_vec().as_mut_slice(), 0, NOW)
                .expect("appends");
            batches.push(batch);
        }
        let recovery_point = match clean {
            true => log.close().expect("closes"),
            false => {
                log.flush().expect("flushes");
                log.recovery_point()
            }
        };
        let disk = disk.crash(Crash::Process);
        let at = LogStart { now_ms: 2000, ..start(clean, recovery_point) };
        let (log, _) = open(&disk, small(), at);
        for (sequence, batch) in batches.iter().enumerate() {
            let check = log.check_producer(&batch.header);
            let duplicate = matches!(check, Ok(ProducerCheck::Duplicate { base_offset, .. })
                if base_offset == sequence as i64);
            assert_eq!(duplicate, sequence >= 7, "clean: {clean}, sequence {sequence}: {check:?}");
        }
    }
}

#[test]
fn a_full_disk_can_be_opened_and_read() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    let mut written = Vec::new();
    for epoch in 0..30 {
        let mut next = [batch(0, 2, 150)];
        log.append(&mut next, epoch, NOW).expect("appends");
        written.extend(bytes_of(&next[0]));
    }
    let disk = disk.crash(Crash::Process);
    disk.set_room(Some(0));
    for _ in 0..2 {
        let (log, _) = open(&disk, small(), start(false, 0));
        assert_eq!((log.log_end(), log.latest_epoch()), (60, Some(29)));
        assert_eq!(read_all(&log, 0), written);
        for offset in 0..60 {
            let found = log.view().read(offset, 1, 60, true).expect("reads").position;
            assert_eq!(
                log.view().position_of(offset).expect("reads").expect("it is there").1,
                found
            );
        }
    }
    disk.set_room(None);
    let (mut log, _) = open(&disk, small(), start(false, 0));
    log.append(&mut [batch(0, 1, 10)], 30, NOW).expect("there is room");
    log.close().expect("closes");
    let (log, recovery) = open(&disk.crash(Crash::Process), small(), start(true, 61));
    assert_eq!(recovery, Recovery::default());
    assert_eq!((log.log_end(), log.latest_epoch()), (61, Some(30)));
}
