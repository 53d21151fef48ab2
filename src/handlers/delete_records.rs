//! DeleteRecords: moves the start of partitions' logs (KIP-107).

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    sync::Arc,
};

use kafka_protocol::messages::{
    ApiKey, DeleteRecordsRequest, DeleteRecordsResponse, TopicName,
    delete_records_request::DeleteRecordsTopic,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
};

use super::{Context, ErrorCode, Handler, Reply, cluster::{self, is_internal}, errors};
use crate::{base::world::blocking, broker::Broker, partition::{DeleteRecordsError, Partition}};

pub struct DeleteRecords;

impl Handler for DeleteRecords {
    const API: ApiKey = ApiKey::DeleteRecords;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    type Request = DeleteRecordsRequest;
    type Response = DeleteRecordsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DeleteRecordsRequest,
    ) -> Reply<DeleteRecordsResponse> {
        let topics: Vec<(TopicName, Vec<Outcome>)> =
            last_of_each(request.topics)
                .into_iter()
                .map(|(name, partitions)| {
                    let delete = |(index, offset)| (index, delete(cx.broker, &name, index, offset));
                    let deleted = partitions.into_iter().map(delete).collect();
                    (name, deleted)
                })
                .collect();
        let broker = Arc::clone(cx.broker);
        Reply::Later(Box::pin(async move {
            // A crash after the answer must not bring back what was deleted.
            let written = blocking(move || broker.write_log_starts()).await;
            let result = |(index, deleted): Outcome| {
                let kept = |it: &Deleted| match &written {
                    Ok(unwritten) => !unwritten.contains(it.partition.log_dir()),
                    Err(_) => false,
                };
                let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
                match deleted {
                    Ok(deleted) if kept(&deleted) => result.with_low_watermark(deleted.log_start),
                    Ok(_) => refused(result, ErrorCode::KafkaStorageError),
                    Err(code) => refused(result, code),
                }
            };
            let topics = topics.into_iter().map(|(name, partitions)| {
                let results = partitions.into_iter().map(result).collect();
                DeleteRecordsTopicResult::default().with_name(name).with_partitions(results)
            });
            DeleteRecordsResponse::default().with_topics(topics.collect())
        }))
    }
}

/// What became of a partition's deletion.
type Outcome = (i32, Result<Deleted, ErrorCode>);

/// A partition whose log starts later now.
struct Deleted {
    partition: Arc<Partition>,
    log_start: i64,
}

fn refused(result: DeleteRecordsPartitionResult, code: ErrorCode) -> DeleteRecordsPartitionResult {
    result.with_low_watermark(-1).with_error_code(code.code())
}

/// Each partition once: the last offset that the request names counts, as in Kafka's maps.
fn last_of_each(topics: Vec<DeleteRecordsTopic>) -> Vec<(TopicName, BTreeMap<i32, i64>)> {
    let mut merged: Vec<(TopicName, BTreeMap<i32, i64>)> = Vec::new();
    let mut places: HashMap<TopicName, usize> = HashMap::new();
    for topic in topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let place = *places.entry(topic.name.clone()).or_insert(merged.len());
        if place == merged.len() {
            merged.push((topic.name, BTreeMap::new()));
        }
        merged[place].1.extend(topic.partitions.iter().map(|it| (it.partition_index, it.offset)));
    }
    merged
}

/// Returns the new start of the log. With followers it would be the lowest of theirs.
fn delete(
    broker: &Arc<Broker>,
    name: &str,
    index: i32,
    offset: i64,
) -> Result<Deleted, ErrorCode> {
    let partition = cluster::partition(broker, name, index)?;
    if is_internal(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let topic = broker.partitions.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let policy = topic.config.load().cleanup_policy;
    if policy.compact && !policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let deleted = partition.update(|core| core.delete_records(offset)).map_err(|error| {
        if let DeleteRecordsError::Log(error) = &error {
            broker.on_log_error(&partition, error);
        }
        errors::delete_records(&error)
    });
    deleted.map(|log_start| Deleted { partition, log_start })
}
