//! The requests of a transactional producer, and what it does about their errors.

use bytes::Bytes;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest,
    ProduceRequest, ProducerId, TransactionalId, TxnOffsetCommitRequest,
    add_partitions_to_txn_request::AddPartitionsToTxnTopic,
    txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
};
use sordini::{
    base::environment::now_ms,
    protocol::ErrorCode,
    records::{BatchBuilder, BatchOptions, Producer},
};

use crate::{
    history::Place,
    requests::{self, group_id, text, topic_name},
};

/// The `timeout.ms` of a Produce request, in milliseconds.
const TIMEOUT_MS: i32 = 1_500;

/// The versions of the requests that a worker sends.
#[derive(Clone, Copy)]
pub struct Versions {
    pub init: i16,
    pub produce: i16,
    pub commit_offset: i16,
    pub end: i16,
}

impl Versions {
    /// Transaction version 1. The producer adds partitions itself, and keeps its epoch.
    pub const FIRST: Self = Self { init: 4, produce: 11, commit_offset: 4, end: 4 };
    /// Transaction version 2 (KIP-890). Brokers add the partitions, and each transaction has its
    /// own producer epoch.
    pub const SECOND: Self = Self { init: 5, produce: 12, commit_offset: 5, end: 5 };

    /// Whether each end of a transaction gives the producer another epoch.
    pub fn bumps_epoch(self) -> bool {
        self.end >= 5
    }
}

/// What the producer does about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// Sends the request again.
    Retry,
    /// Aborts the transaction.
    Abort,
    /// Gets a new producer epoch with InitProducerId.
    Restart,
}

/// What the producer does about an error code. `None` if there is no error.
pub fn reaction(code: i16) -> Option<Reaction> {
    use ErrorCode::*;
    let code = ErrorCode::try_from_code(code)?;
    Some(match code {
        ConcurrentTransactions
        | CoordinatorLoadInProgress
        | CoordinatorNotAvailable
        | FencedLeaderEpoch
        | KafkaStorageError
        | LeaderNotAvailable
        | NetworkException
        | NotCoordinator
        | NotEnoughReplicas
        | NotEnoughReplicasAfterAppend
        | NotLeaderOrFollower
        | RequestTimedOut
        | UnknownTopicOrPartition
        | UnstableOffsetCommit => Reaction::Retry,
        TransactionAbortable | OperationNotAttempted => Reaction::Abort,
        _ => Reaction::Restart,
    })
}

fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

/// InitProducerId. `last` is the producer that the client had before (KIP-360).
pub fn init(id: &str, timeout_ms: i32, last: Option<Producer>) -> InitProducerIdRequest {
    let last = last.unwrap_or(Producer { id: -1, epoch: -1 });
    InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(id)))
        .with_transaction_timeout_ms(timeout_ms)
        .with_producer_id(ProducerId(last.id))
        .with_producer_epoch(last.epoch)
}

pub fn add_partitions(id: &str, producer: Producer, places: &[Place]) -> AddPartitionsToTxnRequest {
    let topic = |(name, partition): &Place| {
        AddPartitionsToTxnTopic::default()
            .with_name(topic_name(name))
            .with_partitions(vec![*partition])
    };
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id(id))
        .with_v3_and_below_producer_id(ProducerId(producer.id))
        .with_v3_and_below_producer_epoch(producer.epoch)
        .with_v3_and_below_topics(places.iter().map(topic).collect())
}

pub fn add_offsets(id: &str, producer: Producer) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_group_id(group_id(id))
}

/// Commits an offset of the group `id` in a transaction. `metadata` names the transaction.
pub fn commit_offset(
    id: &str,
    producer: Producer,
    (topic, partition): &Place,
    (offset, metadata): (i64, &str),
) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition::default()
        .with_partition_index(*partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text(metadata)));
    let topic = TxnOffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    TxnOffsetCommitRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_group_id(group_id(id))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_generation_id(-1)
        .with_topics(vec![topic])
}

pub fn end(id: &str, producer: Producer, commits: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_committed(commits)
}

/// Produces one batch in a transaction. `sequence` is the number of its first record.
pub fn produce(
    id: &str,
    producer: Producer,
    (topic, partition): &Place,
    (values, sequence): (&[String], i32),
) -> ProduceRequest {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        base_sequence: sequence,
        is_transactional: true,
        ..BatchOptions::default()
    });
    for value in values {
        builder.append(now_ms(), None, Some(value.as_bytes()), &[]);
    }
    let mut bytes = Vec::new();
    builder.build().write_to(&mut bytes);
    requests::produce(topic, -1, [(*partition, Bytes::from(bytes))])
        .with_transactional_id(Some(transactional_id(id)))
        .with_timeout_ms(TIMEOUT_MS)
}
