//! The first sequence number of a producer that the log does not know.

use super::*;

#[test]
fn unknown_producer_may_begin_with_any_sequence() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk, small(), start(true, 0));
    let late = of_producer(batch(0, 1, 10), 9, 3, 41);
    assert_eq!(log.check_producer(&late.header), Ok(ProducerCheck::Append));
}

/// Kafka 4.5 refuses a gap at the begin of a log that never had a record (KAFKA-15591).
#[test]
fn first_producer_of_a_log_begins_with_zero_if_configured() {
    let disk = FaultyDisk::default();
    let config = LogConfig { requires_first_sequence_zero: true, ..small() };
    let (mut log, _) = open(&disk, config, start(true, 0));
    let first = of_producer(batch(0, 1, 10), 9, 3, 0);
    let late = of_producer(batch(0, 1, 10), 9, 3, 41);
    assert_eq!(log.check_producer(&first.header), Ok(ProducerCheck::Append));
    let refused = log.check_producer(&late.header).expect_err("its log is new");
    assert!(matches!(refused, ProducerError::OutOfOrderSequence { sequence: 41, .. }), "{refused}");
    append(&mut log, 1, 10);
    assert_eq!(log.check_producer(&late.header), Ok(ProducerCheck::Append), "it may be expired");
}
