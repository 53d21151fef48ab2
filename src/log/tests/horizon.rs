//! Batches as compaction leaves them: with a delete horizon instead of the first timestamp, or
//! without records.

use super::*;

const HORIZON: i64 = 1_700_000_000_000;

/// Three records with the timestamps 1000, 1007 and 1003 in a batch with a delete horizon.
fn with_horizon(base_offset: i64) -> Batch {
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset,
        delete_horizon: Some(HORIZON),
        leader_epoch: 0,
        ..BatchOptions::default()
    });
    for timestamp in [1000, 1007, 1003] {
        builder.append(timestamp, Some(b"key"), None, &[]);
    }
    let batch = builder.build();
    assert_eq!(batch.header.base_timestamp, HORIZON);
    batch
}

fn log_of(disk: &FaultyDisk, config: LogConfig, batches: &[Batch]) -> Log {
    let (mut log, _) = open(disk, config, start(true, 0));
    log.append_verbatim(batches, NOW).expect("appends");
    log
}

#[test]
fn readers_of_timestamps_do_not_take_the_horizon_for_one() {
    let disk = FaultyDisk::default();
    let log = log_of(&disk, LogConfig::default(), &[with_horizon(0), with_horizon(10)]);
    let (view, end) = (log.view(), log.log_end());
    assert_eq!(view.timestamp_at(0, end).expect("reads"), Some(1007));
    assert_eq!(view.timestamp_at(2, end).expect("reads"), Some(1003));
    assert_eq!(view.timestamp_at(5, end).expect("reads"), Some(1007));
    assert_eq!(view.offset_for_timestamp(1003, end).expect("reads"), Some((1007, 1, 0)));
    assert_eq!(view.offset_for_timestamp(1008, end).expect("reads"), None);
    assert_eq!(view.max_timestamp().expect("reads"), Some((1007, 1, 0)));
}

#[test]
fn horizon_does_not_decide_when_a_segment_rolls() {
    let disk = FaultyDisk::default();
    let config = LogConfig { segment_ms: 50, ..small() };
    drop(log_of(&disk, config.clone(), &[with_horizon(0)]));
    // After a restart, the time of the first batch comes from its header.
    let (mut log, _) = open(&disk, config, start(false, 0));
    for (max_timestamp, segments) in [(1057, 1), (1058, 2)] {
        let mut next = batch(log.log_end(), 1, 10);
        next.header.max_timestamp = max_timestamp;
        log.append_verbatim(&[sealed(next)], NOW).expect("appends");
        assert_eq!(log.view().segment_count(), segments, "{max_timestamp}");
    }
}

#[test]
fn batches_without_records_have_a_time_but_no_record() {
    let disk = FaultyDisk::default();
    let empty = with_horizon(0).without_records();
    let mut newest = with_horizon(0).without_records();
    (newest.header.base_offset, newest.header.max_timestamp) = (20, 2000);
    let batches = [empty, with_horizon(10), sealed(newest)];
    let log = log_of(&disk, LogConfig::default(), &batches);
    let (view, end) = (log.view(), log.log_end());
    assert_eq!(end, 23);
    assert_eq!(view.timestamp_at(0, end).expect("reads"), Some(1007));
    assert_eq!(view.timestamp_at(1, end).expect("reads"), Some(1007));
    assert_eq!(view.timestamp_at(20, end).expect("reads"), Some(2000));
    assert_eq!(view.offset_for_timestamp(1003, end).expect("reads"), Some((1007, 11, 0)));
    assert_eq!(view.offset_for_timestamp(1500, end).expect("reads"), None);
    assert_eq!(view.max_timestamp().expect("reads"), None);
}
