//! AddPartitionsToTxn: adds partitions to the open transaction of a producer, or begins one with
//! them. Up to version 3, clients send it, with one transaction. From version 4 on, brokers send it
//! on behalf of their clients, with many transactions (KIP-890).

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey, TopicName,
    add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
    add_partitions_to_txn_response::{
        AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
    },
};
use tokio::task::JoinSet;

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{text, topic_name},
    error_counts::error_codes,
    errors,
};
use crate::{
    base::TopicPartition,
    broker::Broker,
    controller::topic_names::is_internal,
    coordinator::txn::messages::{AddRequest, VerifyRequest},
    protocol::checks::{CLUSTER_ACTION, TOPIC_WRITE, TRANSACTIONAL_ID_WRITE},
    records::{Producer, TransactionVersion},
};

pub struct AddPartitionsToTxn;

/// The first version whose clients know PRODUCER_FENCED (KIP-588).
const PRODUCER_FENCED_SINCE: i16 = 2;
/// The first version with many transactions, which only brokers send.
const BATCHED_SINCE: i16 = 4;

/// The error codes of a transaction's partitions.
enum Codes {
    /// One code for everything that the request names, in its order. Repetitions are repeated.
    All(i16),
    Each(Vec<(TopicPartition, i16)>),
}

impl Handler for AddPartitionsToTxn {
    const API: ApiKey = ApiKey::AddPartitionsToTxn;
    type Request = AddPartitionsToTxnRequest;
    type Response = AddPartitionsToTxnResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: AddPartitionsToTxnRequest,
    ) -> Reply<AddPartitionsToTxnResponse> {
        if cx.version >= BATCHED_SINCE {
            return add_batch(cx, request);
        }
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let is_old = cx.version < PRODUCER_FENCED_SINCE;
        // The next request of the connection may already write to the partitions.
        let codes = match check(cx, &transaction) {
            Ok(checked) => add(cx.broker, checked, TransactionVersion::V0, is_old).await,
            Err(codes) => codes,
        };
        let results = results(transaction.topics, codes);
        Reply::Now(
            AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results),
        )
    }
}

error_codes!(AddPartitionsToTxnResponse: |it| {
    let transactions = it.results_by_transaction.iter().flat_map(|it| &it.topic_results);
    let topics = transactions.chain(&it.results_by_topic_v3_and_below);
    let partitions = topics.flat_map(|it| &it.results_by_partition);
    partitions.map(|it| it.partition_error_code).chain([it.error_code])
});

/// A transaction whose partitions all exist, and may be added.
struct Checked {
    id: Arc<str>,
    producer: Producer,
    partitions: Vec<TopicPartition>,
    verify_only: bool,
}

fn add_batch(
    cx: &Context<'_>,
    request: AddPartitionsToTxnRequest,
) -> Reply<AddPartitionsToTxnResponse> {
    if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
        return Reply::Now(AddPartitionsToTxnResponse::default().with_error_code(code.code()));
    }
    let broker = Arc::clone(cx.broker);
    let mut seen = HashSet::new();
    let transactions = request.transactions.into_iter();
    // As in Kafka, the first entry of a transactional id counts.
    let transactions = transactions.filter(|it| seen.insert(it.transactional_id.clone()));
    let checked: Vec<_> = transactions.map(|it| (check(cx, &it), it)).collect();
    Reply::Later(Box::pin(async move {
        let mut added = JoinSet::new();
        for (checked, transaction) in checked {
            let broker = Arc::clone(&broker);
            added.spawn(async move {
                let codes = match checked {
                    Ok(checked) => add(&broker, checked, TransactionVersion::V2, false).await,
                    Err(codes) => codes,
                };
                AddPartitionsToTxnResult::default()
                    .with_transactional_id(transaction.transactional_id)
                    .with_topic_results(results(transaction.topics, codes))
            });
        }
        let results = added.join_all().await;
        AddPartitionsToTxnResponse::default().with_results_by_transaction(results)
    }))
}

/// Checks the partitions of a transaction. If one cannot be added, none is.
fn check(cx: &Context<'_>, transaction: &AddPartitionsToTxnTransaction) -> Result<Checked, Codes> {
    let by_client = cx.version < BATCHED_SINCE;
    if by_client {
        let may_write = cx.check(TRANSACTIONAL_ID_WRITE, &transaction.transactional_id);
        may_write.map_err(|code| Codes::All(code.code()))?;
    }
    let image = cx.broker.metadata();
    let check = |partition: &TopicPartition| {
        let topic = &partition.topic;
        // Offsets are added with AddOffsetsToTxn, so a client cannot add an internal topic.
        if by_client && (is_internal(topic) || !cx.allowed(TOPIC_WRITE, topic)) {
            return Err(ErrorCode::TopicAuthorizationFailed);
        }
        let known = image.partition(topic, partition.partition);
        known.map(|_| ()).ok_or(ErrorCode::UnknownTopicOrPartition)
    };
    let partitions = partitions(&transaction.topics);
    let checked: Vec<_> = partitions.iter().map(check).collect();
    if checked.iter().any(Result::is_err) {
        let codes = checked.into_iter().map(|checked| match checked {
            Ok(()) => ErrorCode::OperationNotAttempted.code(),
            Err(code) => code.code(),
        });
        return Err(Codes::Each(partitions.into_iter().zip(codes).collect()));
    }
    Ok(Checked {
        id: text(&transaction.transactional_id),
        producer: Producer { id: transaction.producer_id.0, epoch: transaction.producer_epoch },
        partitions,
        verify_only: transaction.verify_only,
    })
}

/// The partitions of a request, each once.
fn partitions(topics: &[AddPartitionsToTxnTopic]) -> Vec<TopicPartition> {
    let mut seen = HashSet::new();
    let mut partitions = Vec::new();
    for topic in topics {
        let name = text(&topic.name);
        for index in &topic.partitions {
            let partition = TopicPartition::new(Arc::clone(&name), *index);
            if seen.insert(partition.clone()) {
                partitions.push(partition);
            }
        }
    }
    partitions
}

/// Adds the partitions, or verifies that the transaction has them.
async fn add(
    broker: &Broker,
    checked: Checked,
    version: TransactionVersion,
    is_old: bool,
) -> Codes {
    let Checked { id, producer, partitions, verify_only } = checked;
    let transactions = &broker.coordinators.transactions;
    let code = |error| errors::fenced(errors::transaction(error), is_old).code();
    if verify_only {
        let verified = transactions.verify(VerifyRequest { id, producer, partitions }).await;
        let code_of = |has: bool| match has {
            true => errors::NONE,
            false => ErrorCode::TransactionAbortable.code(),
        };
        return verified.map_or_else(
            |error| Codes::All(code(error)),
            |each| Codes::Each(each.into_iter().map(|(at, has)| (at, code_of(has))).collect()),
        );
    }
    let added = transactions.add(AddRequest { id, producer, partitions, version }).await;
    Codes::All(added.map_or_else(code, |()| errors::NONE))
}

fn results(
    topics: Vec<AddPartitionsToTxnTopic>,
    codes: Codes,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let result = |index: i32, code: i16| {
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(index)
            .with_partition_error_code(code)
    };
    let topic = |name: TopicName, results: Vec<_>| {
        AddPartitionsToTxnTopicResult::default().with_name(name).with_results_by_partition(results)
    };
    match codes {
        Codes::All(code) => {
            let results = |topic: &AddPartitionsToTxnTopic| {
                topic.partitions.iter().map(|index| result(*index, code)).collect()
            };
            topics.into_iter().map(|it| topic(it.name.clone(), results(&it))).collect()
        }
        Codes::Each(codes) => {
            let mut by_topic: BTreeMap<Arc<str>, Vec<_>> = BTreeMap::new();
            for (partition, code) in codes {
                let result = result(partition.partition, code);
                by_topic.entry(partition.topic).or_default().push(result);
            }
            by_topic.into_iter().map(|(name, results)| topic(topic_name(&name), results)).collect()
        }
    }
}
