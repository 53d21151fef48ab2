//! Transactional batches: the checks of a request, and the question to the transaction coordinator
//! before the first batch of a transaction in a partition (KIP-890, Kafka's
//! `ReplicaManager.handleProduceAppend`).

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::messages::{TransactionalId, produce_request::TopicProduceData};
use tokio::time::{Instant, sleep};

use super::{
    ADMIN_CLIENT,
    response::PartitionError,
    topics::{may_write, topic_of},
};
use crate::{
    base::TopicPartition,
    broker::{Broker, verify::Question},
    controller::topic_names::is_internal,
    handlers::{Context, ErrorCode, errors},
    partition::Partition,
    protocol::{checks::TRANSACTIONAL_ID_WRITE, error_code},
    records::{BatchHeader, Producer, TransactionVersion, Verification, VerificationGuard},
};

/// Byte offsets of magic and attributes in a batch of magic 2, and the transactional bit in the
/// low byte of the attributes.
const MAGIC_AT: usize = 16;
const ATTRIBUTES_AT: usize = 21;
const TRANSACTIONAL: u8 = 0x10;
/// The first version whose clients know TRANSACTION_ABORTABLE.
const KNOWS_ABORTABLE: i16 = 11;
/// The first version whose batches add their partition to the transaction. Clients of earlier
/// versions add it with AddPartitionsToTxn.
const ADDS_PARTITIONS: i16 = 12;

/// What the coordinator answered about the partitions of a request.
#[derive(Debug, Default)]
pub struct Verified {
    /// Whether `transaction.partition.verification.enable` was false when the request arrived.
    is_off: bool,
    guards: HashMap<TopicPartition, VerificationGuard>,
    refusals: HashMap<TopicPartition, PartitionError>,
}

impl Verified {
    /// What allows the partition's batch to begin a transaction.
    pub fn verification(&self, partition: &TopicPartition) -> Verification {
        match self.is_off {
            true => Verification::NotRequired,
            false => self.guards.get(partition).copied().into(),
        }
    }

    /// The error of a partition whose batch must not be appended.
    pub fn refusal(&self, partition: &TopicPartition) -> Option<&PartitionError> {
        self.refusals.get(partition)
    }
}

/// Whether the request has a transactional batch.
pub fn has_transaction(topics: &[TopicProduceData]) -> bool {
    let is_transactional = |records: &Bytes| {
        let attributes = records.get(ATTRIBUTES_AT..ATTRIBUTES_AT + 2);
        records.get(MAGIC_AT) == Some(&2)
            && attributes.is_some_and(|bytes| bytes[1] & TRANSACTIONAL != 0)
    };
    topics.iter().any(|topic| {
        let mut partitions = topic.partition_data.iter();
        partitions.any(|data| data.records.as_ref().is_some_and(is_transactional))
    })
}

/// The transactional batch of a partition.
struct Transactional {
    partition: Arc<Partition>,
    producer: Producer,
    base_sequence: i32,
}

/// Asks the coordinator about the partitions in which the request's transactional batches begin a
/// transaction. Fails if the whole request is refused: the client may not use the transactional id,
/// or the batches are of several producers.
pub async fn verify(
    cx: &Context<'_>,
    id: Option<&TransactionalId>,
    topics: &[TopicProduceData],
) -> Result<Verified, PartitionError> {
    let Some(id) = id.filter(|id| cx.allowed(TRANSACTIONAL_ID_WRITE, id)) else {
        return Err(ErrorCode::TransactionalIdAuthorizationFailed.into());
    };
    let batches = transactional_batches(cx, topics);
    let Some(first) = batches.first() else { return Ok(Verified::default()) };
    if batches.iter().any(|batch| batch.producer != first.producer) {
        let message = "Transactional records contained more than one producer ID";
        let refusal = PartitionError::from(ErrorCode::InvalidProducerIdMapping);
        return Err(PartitionError { message: Some(message.to_owned()), ..refusal });
    }
    let adds = cx.version >= ADDS_PARTITIONS;
    let settings = cx.broker.settings();
    let config = &settings.transaction;
    let is_off = !config.transaction_partition_verification_enable;
    if !adds && is_off {
        return Ok(Verified { is_off, ..Verified::default() });
    }
    let millis = |ms: i32| Duration::from_millis(ms.max(0) as u64);
    let backoff = millis(config.add_partitions_to_txn_retry_backoff_ms);
    let retries_ms =
        config.add_partitions_to_txn_retry_backoff_max_ms.min(settings.cluster.request_timeout_ms);
    drop(settings);
    let (version, broker, id) = (cx.version, cx.broker, Arc::<str>::from(id.as_str()));
    let deadline = Instant::now() + millis(retries_ms);
    loop {
        let (guards, mut refused) = take_guards(&batches, adds);
        if !guards.is_empty() {
            refused.extend(ask(broker, &id, first.producer, (guards.keys(), adds)).await);
        }
        // The last transaction of the producer is being ended, which takes a moment. A retry of the
        // client would take longer.
        let must_retry =
            adds && refused.values().any(|it| *it == ErrorCode::ConcurrentTransactions);
        if !must_retry || Instant::now() >= deadline {
            let refusals =
                refused.into_iter().map(|(partition, code)| (partition, refusal(code, version)));
            return Ok(Verified { is_off, guards, refusals: refusals.collect() });
        }
        sleep(backoff).await;
    }
}

/// The transactional batches of partitions that this broker has and that the client may write to.
/// Internal topics are among them only for the client that the append accepts there.
/// Batches that are not valid are left out: the append refuses them.
fn transactional_batches(cx: &Context<'_>, topics: &[TopicProduceData]) -> Vec<Transactional> {
    let mut found = Vec::new();
    for data in topics {
        let Some(topic) = topic_of(cx.broker, cx.version, data) else { continue };
        let is_refused = is_internal(&topic.name) && cx.client_id() != ADMIN_CLIENT;
        if is_refused || !may_write(cx.broker, &cx.session.client, (cx.version, data), Some(&topic))
        {
            continue;
        }
        for data in &data.partition_data {
            let header = data.records.as_ref().and_then(|bytes| BatchHeader::parse(bytes).ok());
            let (Some(header), Ok(partition)) = (header, topic.partition(data.index)) else {
                continue;
            };
            if header.is_transactional() && header.has_producer_id() {
                found.push(Transactional {
                    partition,
                    producer: Producer::of(&header),
                    base_sequence: header.base_sequence,
                });
            }
        }
    }
    found
}

type Guards = HashMap<TopicPartition, VerificationGuard>;
type Refused = HashMap<TopicPartition, ErrorCode>;

/// Takes the guards of the partitions in which the transaction is not open. Also returns the
/// partitions that give none.
fn take_guards(batches: &[Transactional], adds: bool) -> (Guards, Refused) {
    let version = if adds { TransactionVersion::V2 } else { TransactionVersion::V0 };
    let (mut guards, mut refused) = (Guards::new(), Refused::new());
    for Transactional { partition, producer, base_sequence } in batches {
        match partition.verification_guard(*producer, *base_sequence, version) {
            Ok(None) => {}
            Ok(Some(guard)) => {
                guards.insert(partition.id.clone(), guard);
            }
            Err(error) => {
                refused.insert(partition.id.clone(), errors::append(&error));
            }
        }
    }
    (guards, refused)
}

async fn ask(
    broker: &Broker,
    id: &Arc<str>,
    producer: Producer,
    (partitions, adds): (impl Iterator<Item = &TopicPartition>, bool),
) -> Refused {
    let partitions = partitions.cloned().collect();
    broker.verifier.ask(Question { id: Arc::clone(id), producer, partitions, adds }).await
}

/// The response for a partition that the coordinator has refused. Clients retry
/// NOT_ENOUGH_REPLICAS without a request for metadata, so it stands for the errors of coordinators.
fn refusal(code: ErrorCode, version: i16) -> PartitionError {
    use ErrorCode::*;
    let refused = |code: ErrorCode, message: Option<String>| PartitionError {
        message,
        before_log: true,
        ..code.into()
    };
    match code {
        InvalidTxnState => {
            refused(code, Some("Partition was not added to the transaction".to_owned()))
        }
        TransactionAbortable if version < KNOWS_ABORTABLE => refusal(InvalidTxnState, version),
        ConcurrentTransactions if version >= ADDS_PARTITIONS => refused(code, None),
        NetworkException
        | CoordinatorLoadInProgress
        | CoordinatorNotAvailable
        | NotCoordinator
        | ConcurrentTransactions => {
            let name = error_code::name(code.code());
            let message = format!(
                "Unable to verify the partition has been added to the transaction. Underlying \
                error: {name}"
            );
            refused(NotEnoughReplicas, Some(message))
        }
        _ => refused(code, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration may change between the question and the append.
    #[test]
    fn verification_of_a_request_is_that_of_its_begin() {
        let partition = TopicPartition::new("t", 0);
        let guards = HashMap::from([(partition.clone(), VerificationGuard(7))]);
        let mut verified = Verified { guards, ..Verified::default() };
        assert_eq!(
            verified.verification(&partition),
            Verification::Guard(VerificationGuard(7)),
            "verification is on"
        );
        let other = TopicPartition::new("t", 1);
        assert_eq!(verified.verification(&other), Verification::MustBeOpen);
        verified.is_off = true;
        assert_eq!(verified.verification(&partition), Verification::NotRequired);
        assert_eq!(verified.verification(&other), Verification::NotRequired);
    }

    #[test]
    fn refusals_depend_on_the_version() {
        use ErrorCode::*;
        let code = |refused: ErrorCode, version| refusal(refused, version).code;
        let coordinators =
            [NetworkException, CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator];
        for version in [9, 11, 12, 13] {
            for refused in coordinators {
                assert_eq!(code(refused, version), NotEnoughReplicas, "{refused:?} {version}");
            }
            assert_eq!(code(InvalidProducerEpoch, version), InvalidProducerEpoch);
            assert_eq!(code(InvalidProducerIdMapping, version), InvalidProducerIdMapping);
        }
        assert_eq!(code(ConcurrentTransactions, 11), NotEnoughReplicas);
        assert_eq!(code(ConcurrentTransactions, 12), ConcurrentTransactions);
        assert_eq!(code(TransactionAbortable, 10), InvalidTxnState);
        assert_eq!(code(TransactionAbortable, 11), TransactionAbortable);
        let message = refusal(NotCoordinator, 9).message.expect("names the reason");
        assert!(message.ends_with("Underlying error: NOT_COORDINATOR"), "{message}");
    }
}
