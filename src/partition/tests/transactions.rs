//! Transactional batches and markers in a partition.

use super::*;
use crate::{
    log::ProducerError,
    records::{
        BatchBuilder, BatchOptions, Producer, TimestampType, TransactionVersion, TxnMarker,
        Verification, VerificationGuard,
    },
};

const V1: TransactionVersion = TransactionVersion::V1;
const V2: TransactionVersion = TransactionVersion::V2;
const PRODUCER: Producer = Producer { id: 7, epoch: 3 };

fn epoch(epoch: i16) -> Producer {
    Producer { epoch, ..PRODUCER }
}

fn records(producer: Producer, base_sequence: i32, is_transactional: bool) -> Batch {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        base_sequence,
        is_transactional,
        ..BatchOptions::default()
    });
    builder.append(NOW, Some(b"key"), Some(b"value"), &[]);
    builder.build()
}

fn new_partition() -> Arc<Partition> {
    leader(&FaultyDisk::default(), i64::MAX).0
}

fn guard(
    partition: &Arc<Partition>,
    producer: Producer,
    sequence: i32,
    version: TransactionVersion,
) -> Option<VerificationGuard> {
    partition.verification_guard(producer, sequence, version).expect("the epoch is current")
}

/// The result of an append: the base offset or the producer's error.
fn write(
    partition: &Arc<Partition>,
    guard: Option<VerificationGuard>,
    producer: Producer,
    sequence: i32,
) -> Result<i64, ProducerError> {
    let mut batches = [records(producer, sequence, true)];
    of_producers(partition.append_verified(guard.into(), &mut batches, Acks::All, NOW))
}

fn of_producers(
    appended: Result<super::super::Appended, AppendError>,
) -> Result<i64, ProducerError> {
    match appended {
        Ok(appended) => Ok(appended.first_offset),
        Err(AppendError::Producer(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

fn end(
    partition: &Arc<Partition>,
    producer: Producer,
    version: TransactionVersion,
) -> Result<i64, ProducerError> {
    let marker = TxnMarker { producer, commits: true, coordinator_epoch: 5, version };
    of_producers(partition.append_marker(&marker, Acks::All, NOW))
}

const NOT_VERIFIED: ProducerError = ProducerError::NotVerified { producer_id: PRODUCER.id };

#[test]
fn first_batch_of_a_transaction_needs_the_guard() {
    let partition = new_partition();
    assert_eq!(write(&partition, None, PRODUCER, 0), Err(NOT_VERIFIED));
    let first = guard(&partition, PRODUCER, 0, V1);
    let other = Some(VerificationGuard(u64::MAX));
    assert_eq!(write(&partition, other, PRODUCER, 0), Err(NOT_VERIFIED));
    assert_eq!(write(&partition, first, PRODUCER, 0), Ok(0));
    assert_eq!(guard(&partition, PRODUCER, 1, V1), None, "the transaction is open");
    assert_eq!(write(&partition, None, PRODUCER, 1), Ok(1));
    assert_eq!(write(&partition, None, PRODUCER, 1), Ok(1), "a repeated batch");
    let outside = partition.append(&mut [records(PRODUCER, 2, false)], Acks::All, NOW);
    let open = ProducerError::TransactionOpen { producer_id: PRODUCER.id };
    assert_eq!(of_producers(outside), Err(open));
    assert_eq!(partition.view().last_stable_offset, 0);
    assert_eq!(end(&partition, PRODUCER, V1), Ok(2));
    assert_eq!(partition.view().last_stable_offset, 3);
    assert_eq!(write(&partition, first, PRODUCER, 2), Err(NOT_VERIFIED), "the guard is used up");
    assert_eq!(write(&partition, None, PRODUCER, 1), Ok(1), "a repeated batch needs no guard");
    let next = guard(&partition, PRODUCER, 2, V1);
    assert_eq!(write(&partition, next, PRODUCER, 2), Ok(3));
}

/// The transaction ends while the coordinator is asked. In version 2, the marker has the epoch of
/// the producer's next transaction, whose guard stays valid.
#[test]
fn marker_voids_the_guard_of_its_transaction() {
    let partition = new_partition();
    let asked = guard(&partition, PRODUCER, 0, V1);
    assert_eq!(end(&partition, PRODUCER, V1), Ok(0));
    assert_eq!(write(&partition, asked, PRODUCER, 0), Err(NOT_VERIFIED));
    let asked = guard(&partition, PRODUCER, 0, V2);
    assert_eq!(end(&partition, epoch(4), V2), Ok(1));
    let late = write(&partition, asked, PRODUCER, 0).expect_err("its epoch has ended");
    assert!(matches!(late, ProducerError::InvalidEpoch { current_epoch: 4, .. }), "{late}");
    assert!(partition.verification_guard(PRODUCER, 0, V2).is_err());
    assert_eq!(write(&partition, asked, epoch(4), 0), Err(NOT_VERIFIED));
    let asked = guard(&partition, epoch(4), 0, V2);
    assert_eq!(end(&partition, epoch(4), V2), Ok(2), "a repeated marker");
    assert_eq!(write(&partition, asked, epoch(4), 0), Ok(3));
}

#[test]
fn newer_epoch_voids_the_guard() {
    let partition = new_partition();
    let older = guard(&partition, PRODUCER, 0, V2);
    let newer = guard(&partition, epoch(4), 0, V2);
    assert_eq!(write(&partition, older, PRODUCER, 0), Err(NOT_VERIFIED));
    assert_eq!(write(&partition, newer, epoch(4), 0), Ok(0));
}

#[test]
fn truncation_voids_the_guard() {
    let partition = new_partition();
    partition.append(&mut [batch(0, 1, 50)], Acks::All, NOW).expect("appends");
    let asked = guard(&partition, PRODUCER, 0, V2);
    partition.update(|core| core.log_mut().truncate_to(0, 0)).expect("truncates");
    assert_eq!(write(&partition, asked, PRODUCER, 0), Err(NOT_VERIFIED));
}

/// A batch that overtakes the retry of an earlier one would leave a gap for good.
#[test]
fn lowest_sequence_goes_first() {
    let partition = new_partition();
    let first = guard(&partition, PRODUCER, 5, V1);
    assert_eq!(guard(&partition, PRODUCER, 6, V1), first);
    let early = ProducerError::AfterUnverified { producer_id: 7, sequence: 6, lowest_sequence: 5 };
    assert_eq!(write(&partition, first, PRODUCER, 6), Err(early));
    assert_eq!(write(&partition, first, PRODUCER, 5), Ok(0), "an unknown producer");
    assert_eq!(write(&partition, None, PRODUCER, 6), Ok(1));
}

/// In version 2, each transaction has an epoch of its own, which begins with sequence 0.
#[test]
fn transactions_of_version_2_begin_with_sequence_0() {
    let partition = new_partition();
    let asked = guard(&partition, PRODUCER, 5, V2);
    let refused = write(&partition, asked, PRODUCER, 5).expect_err("has no sequence 0");
    assert!(matches!(refused, ProducerError::OutOfOrderSequence { .. }), "{refused}");
    let asked = guard(&partition, PRODUCER, 0, V2);
    assert_eq!(write(&partition, asked, PRODUCER, 0), Ok(0));
    assert_eq!(end(&partition, epoch(4), V2), Ok(1));
    let asked = guard(&partition, epoch(4), 1, V2);
    let refused = write(&partition, asked, epoch(4), 1).expect_err("has no sequence 0");
    assert!(matches!(refused, ProducerError::OutOfOrderSequence { .. }), "{refused}");
}

#[test]
fn no_guard_is_needed_without_verification() {
    let partition = new_partition();
    assert_eq!(write(&partition, None, PRODUCER, 0), Err(NOT_VERIFIED));
    let batches = &mut [records(PRODUCER, 0, true)];
    let appended = partition.append_verified(Verification::NotRequired, batches, Acks::All, NOW);
    assert_eq!(of_producers(appended), Ok(0));
}

#[test]
fn followers_give_no_guards_and_take_no_markers() {
    let partition = new_partition();
    partition.update(|core| core.set_role(Role::Follower { epoch: 1, leader: 2 }));
    let refused = partition.verification_guard(PRODUCER, 0, V2);
    assert!(matches!(refused, Err(AppendError::NotLeader)), "{refused:?}");
    let marker =
        TxnMarker { producer: PRODUCER, commits: false, coordinator_epoch: 5, version: V2 };
    let refused = partition.append_marker(&marker, Acks::All, NOW);
    assert!(matches!(refused, Err(AppendError::NotLeader)), "{refused:?}");
}

#[test]
fn markers_of_older_epochs_are_refused() {
    let partition = new_partition();
    let asked = guard(&partition, PRODUCER, 0, V2);
    assert_eq!(write(&partition, asked, PRODUCER, 0), Ok(0));
    let refused = end(&partition, PRODUCER, V2).expect_err("the transaction is open");
    assert!(matches!(refused, ProducerError::InvalidMarkerEpoch { .. }), "{refused}");
    assert_eq!(end(&partition, epoch(4), V2), Ok(1));
    let older = TxnMarker { producer: epoch(5), commits: true, coordinator_epoch: 4, version: V2 };
    let refused = of_producers(partition.append_marker(&older, Acks::All, NOW));
    let fenced = ProducerError::CoordinatorFenced { producer_id: 7, epoch: 4, current_epoch: 5 };
    assert_eq!(refused, Err(fenced));
    assert_eq!(partition.view().log.log_end(), 2, "refused markers are not written");
}

/// Apache Kafka 4.3.1 wrote these bytes with `MemoryRecords.withEndTransactionMarker`.
#[test]
fn bytes_of_markers_are_kafkas() {
    const KAFKAS: &str = "000000000000000000000042ffffffff0222f926a500300000000000000174876e8000\
        00000174876e800000000000000000070003ffffffff000000012000000008000000010c00000000000900";
    let marker = TxnMarker { producer: PRODUCER, commits: true, coordinator_epoch: 9, version: V1 };
    let batch = marker.to_batch(TimestampType::CreateTime, 1_600_000_000_000);
    let bytes = [&batch.header.to_bytes()[..], &batch.payload].concat();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, KAFKAS);
}
