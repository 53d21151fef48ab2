//! TxnOffsetCommit: commits offsets in a producer's transaction (KIP-447). They count once the
//! transaction commits.
//!
//! The group's partition of `__consumer_offsets` must be in the transaction. Before the first
//! offset, this broker asks the transaction's coordinator (KIP-890): from version 5 on it adds the
//! partition. Before, it only looks, because the client adds it with AddOffsetsToTxn.

use std::{collections::HashMap, sync::Arc};

use kafka_protocol::messages::{
    ApiKey, TopicName, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
    txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{optional_text, text, topic_name},
    error_counts::{each, error_codes},
    errors::{self, NONE, group_code},
    partitions::{has_partition, partition},
};
use crate::{
    base::TopicId,
    broker::verify::Question,
    coordinator::{
        OFFSETS_TOPIC,
        group::messages::{
            CommitPartition, CommitRequest, CommitTopic, CommitTransaction, CommittedTopic,
            GroupError,
        },
    },
    protocol::checks::{GROUP_READ, TOPIC_READ, TRANSACTIONAL_ID_WRITE},
    records::{Producer, TransactionVersion, Verification},
};

pub struct TxnOffsetCommit;

/// The first version whose clients handle COORDINATOR_LOAD_IN_PROGRESS (KAFKA-7296).
const KNOWS_LOADING: i16 = 2;
/// The first version whose clients know TRANSACTION_ABORTABLE.
const KNOWS_ABORTABLE: i16 = 4;
/// The first version that adds the partition to the transaction.
const ADDS_PARTITION: i16 = 5;

impl Handler for TxnOffsetCommit {
    const API: ApiKey = ApiKey::TxnOffsetCommit;
    type Request = TxnOffsetCommitRequest;
    type Response = TxnOffsetCommitResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: TxnOffsetCommitRequest,
    ) -> Reply<TxnOffsetCommitResponse> {
        let may_commit = cx.check(TRANSACTIONAL_ID_WRITE, &request.transactional_id);
        if let Err(code) = may_commit.and_then(|()| cx.check(GROUP_READ, &request.group_id)) {
            return Reply::Now(denied(&request, code.code()));
        }
        let (mut response, topics) = valid_topics(cx, &request.topics);
        if topics.is_empty() {
            return Reply::Now(response.finish(cx.version));
        }
        let places: Vec<Place> = topics.iter().map(place_of).collect();
        let transaction = match request.group_id.is_empty() {
            true => Err(ErrorCode::InvalidGroupId),
            false => verify(cx, &request).await,
        };
        let transaction = match transaction {
            Ok(transaction) => transaction,
            Err(code) => {
                response.merge(all_refused(&places, code_for_client(code, cx.version).code()));
                return Reply::Now(response.finish(cx.version));
            }
        };
        let commit = CommitRequest {
            group: text(&request.group_id),
            generation: request.generation_id,
            member_id: text(&request.member_id),
            instance_id: optional_text(request.group_instance_id.as_ref()),
            retention_ms: None,
            knows_group_id_not_found: false,
            topics,
            transaction: Some(transaction),
        };
        let (answer, version) =
            (cx.broker.coordinators.groups.commit_offsets(commit).await, cx.version);
        Reply::Later(Box::pin(async move {
            response.merge(match answer.wait().await.and_then(|committed| committed) {
                Ok(committed) => committed.iter().map(committed_topic).collect(),
                Err(error) => all_refused(&places, code_of(error)),
            });
            response.finish(version)
        }))
    }
}

error_codes!(TxnOffsetCommitResponse: |it| each!(it.topics, partitions));

/// Returns the topics with the partitions that exist, and the response for the others.
fn valid_topics(
    cx: &Context<'_>,
    topics: &[TxnOffsetCommitRequestTopic],
) -> (Response, Vec<CommitTopic>) {
    let image = cx.broker.metadata();
    let (mut response, mut valid) = (Response::default(), Vec::new());
    for topic in topics {
        let (found, code) = match cx.check(TOPIC_READ, &topic.name) {
            Ok(()) => (image.topic(&topic.name), ErrorCode::UnknownTopicOrPartition),
            Err(code) => (None, code),
        };
        let (exist, missing): (Vec<_>, Vec<_>) = topic
            .partitions
            .iter()
            .partition(|it| found.is_some_and(|found| has_partition(found, it.partition_index)));
        if found.is_none() || !missing.is_empty() {
            let missing = missing.iter().map(|it| result(it.partition_index, code.code()));
            response.topic(&topic.name).partitions.extend(missing);
        }
        if let Some(found) = found.filter(|_| !exist.is_empty()) {
            valid.push(CommitTopic {
                name: found.name.clone(),
                // As in Kafka, the offset is valid for any topic with the name.
                id: TopicId::nil(),
                partitions: exist.into_iter().map(commit_partition).collect(),
            });
        }
    }
    (response, valid)
}

fn commit_partition(partition: &TxnOffsetCommitRequestPartition) -> CommitPartition {
    CommitPartition {
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.as_ref().map(|text| text.to_string()),
    }
}

/// Asks the coordinator whether the group's partition of `__consumer_offsets` is in the
/// transaction, unless the transaction is open there. As in Kafka, the question is not repeated:
/// clients retry.
async fn verify(
    cx: &Context<'_>,
    request: &TxnOffsetCommitRequest,
) -> Result<CommitTransaction, ErrorCode> {
    let producer = Producer { id: request.producer_id.0, epoch: request.producer_epoch };
    let adds = cx.version >= ADDS_PARTITION;
    let version = if adds { TransactionVersion::V2 } else { TransactionVersion::V0 };
    let is_required = cx.broker.settings().transaction.transaction_partition_verification_enable;
    if !adds && !is_required {
        let verification = Verification::NotRequired;
        return Ok(CommitTransaction { producer, verification, version });
    }
    let index = cx.broker.coordinators.groups.partition_of(&request.group_id);
    let partition = partition(cx.broker, OFFSETS_TOPIC, index)?;
    let guard = partition.verification_guard(producer, -1, version);
    let guard = guard.map_err(|error| errors::append(&error))?;
    if guard.is_some() {
        let (id, partitions) = (text(&request.transactional_id), vec![partition.id.clone()]);
        let question = Question { id, producer, partitions, adds };
        let refusals = cx.broker.verifier.ask(question).await;
        refusals.get(&partition.id).map_or(Ok(()), |code| Err(*code))?;
    }
    let verification = if is_required { guard.into() } else { Verification::NotRequired };
    Ok(CommitTransaction { producer, verification, version })
}

/// The error code in the response to a commit whose partition of `__consumer_offsets` could not be
/// verified (Kafka's `CoordinatorOperationExceptionHelper`).
fn code_for_client(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        ErrorCode::TransactionAbortable if version < KNOWS_ABORTABLE => ErrorCode::InvalidTxnState,
        // Clients send the request again without looking for the coordinator.
        ErrorCode::NetworkException => ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        code => code,
    }
}

/// The error code of a commit that the coordinator refuses. As in Kafka, clients know of
/// generations only, also for members of consumer groups (KIP-848).
fn code_of(error: GroupError) -> i16 {
    match error {
        GroupError::StaleMemberEpoch => group_code(GroupError::IllegalGeneration),
        error => group_code(error),
    }
}

fn committed_code(committed: &Result<(), GroupError>) -> i16 {
    committed.as_ref().map_or_else(|error| code_of(*error), |()| NONE)
}

/// A response that is being built: topics with errors of this broker, then those that the
/// coordinator has answered (Kafka's `TxnOffsetCommitResponse.Builder`).
#[derive(Default)]
struct Response {
    topics: Vec<TxnOffsetCommitResponseTopic>,
    places: HashMap<TopicName, usize>,
}

impl Response {
    /// The topic with this name, added if it is missing.
    fn topic(&mut self, name: &TopicName) -> &mut TxnOffsetCommitResponseTopic {
        let next = self.topics.len();
        let place = *self.places.entry(name.clone()).or_insert(next);
        if place == next {
            self.topics.push(TxnOffsetCommitResponseTopic::default().with_name(name.clone()));
        }
        &mut self.topics[place]
    }

    fn merge(&mut self, answered: Vec<TxnOffsetCommitResponseTopic>) {
        if self.topics.is_empty() {
            self.topics = answered;
            return;
        }
        for topic in answered {
            self.topic(&topic.name).partitions.extend(topic.partitions);
        }
    }

    fn finish(mut self, version: i16) -> TxnOffsetCommitResponse {
        let loading = ErrorCode::CoordinatorLoadInProgress.code();
        for partition in self.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            if version < KNOWS_LOADING && partition.error_code == loading {
                partition.error_code = ErrorCode::CoordinatorNotAvailable.code();
            }
        }
        TxnOffsetCommitResponse::default().with_topics(self.topics)
    }
}

fn result(partition_index: i32, code: i16) -> TxnOffsetCommitResponsePartition {
    TxnOffsetCommitResponsePartition::default()
        .with_partition_index(partition_index)
        .with_error_code(code)
}

/// The response to a client that may not commit offsets of the group in the transaction.
fn denied(request: &TxnOffsetCommitRequest, code: i16) -> TxnOffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|it| result(it.partition_index, code));
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

/// A topic and its partitions.
type Place = (Arc<str>, Vec<i32>);

fn place_of(topic: &CommitTopic) -> Place {
    (topic.name.clone(), topic.partitions.iter().map(|it| it.partition).collect())
}

fn all_refused(places: &[Place], code: i16) -> Vec<TxnOffsetCommitResponseTopic> {
    let refused = places.iter().map(|(name, partitions)| {
        let partitions = partitions.iter().map(|index| result(*index, code));
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic_name(name))
            .with_partitions(partitions.collect())
    });
    refused.collect()
}

fn committed_topic(topic: &CommittedTopic) -> TxnOffsetCommitResponseTopic {
    let partitions =
        topic.partitions.iter().map(|(index, committed)| result(*index, committed_code(committed)));
    TxnOffsetCommitResponseTopic::default()
        .with_name(topic_name(&topic.name))
        .with_partitions(partitions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_verification_are_those_that_clients_of_the_version_know() {
        use ErrorCode::*;
        for (code, expected) in [
            (NetworkException, CoordinatorLoadInProgress),
            (UnknownTopicOrPartition, CoordinatorNotAvailable),
            (NotLeaderOrFollower, NotCoordinator),
            (KafkaStorageError, NotCoordinator),
            (CoordinatorNotAvailable, CoordinatorNotAvailable),
            (NotCoordinator, NotCoordinator),
            (ConcurrentTransactions, ConcurrentTransactions),
            (InvalidProducerEpoch, InvalidProducerEpoch),
            (InvalidProducerIdMapping, InvalidProducerIdMapping),
        ] {
            for version in [0, 5] {
                assert_eq!(code_for_client(code, version), expected);
            }
        }
        assert_eq!(code_for_client(TransactionAbortable, 3), InvalidTxnState);
        assert_eq!(code_for_client(TransactionAbortable, 4), TransactionAbortable);
    }

    #[test]
    fn stale_member_epochs_are_old_generations() {
        let illegal = ErrorCode::IllegalGeneration.code();
        let stale = Err(GroupError::StaleMemberEpoch);
        assert_eq!(
            (code_of(GroupError::StaleMemberEpoch), committed_code(&stale)),
            (illegal, illegal)
        );
        assert_eq!(code_of(GroupError::UnknownMemberId), ErrorCode::UnknownMemberId.code());
        assert_eq!(committed_code(&Ok(())), NONE);
    }

    #[test]
    fn old_clients_do_not_get_the_loading_error() {
        let loading = ErrorCode::CoordinatorLoadInProgress.code();
        let places: [Place; 2] = [("a".into(), vec![0, 1]), ("a".into(), vec![2])];
        for (version, expected) in [(1, ErrorCode::CoordinatorNotAvailable.code()), (2, loading)] {
            let mut response = Response::default();
            response.merge(all_refused(&places, loading));
            let response = response.finish(version);
            let partitions: Vec<_> =
                response.topics.iter().map(|topic| topic.partitions.len()).collect();
            // As in Kafka, topics are joined only with those that this broker has refused.
            assert_eq!(partitions, [2, 1]);
            let mut codes = response.topics.iter().flat_map(|topic| &topic.partitions);
            assert!(codes.all(|partition| partition.error_code == expected));
        }
    }
}
