//! DeleteRecords: deletes the records before an offset, by moving the log start offset (KIP-107).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kafka_protocol::messages::{
    ApiKey, DeleteRecordsRequest, DeleteRecordsResponse, TopicName,
    delete_records_request::DeleteRecordsTopic,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
};
use tokio::time::{Instant, timeout_at};

use super::{
    Context, ErrorCode, Handler, Reply,
    error_counts::{each, error_codes},
    errors, partitions,
};
use crate::{
    base::environment::blocking,
    broker::Broker,
    controller::topic_names::is_internal,
    partition::{DeleteRecordsError, Partition},
    protocol::checks::TOPIC_DELETE,
};

pub struct DeleteRecords;

impl Handler for DeleteRecords {
    const API: ApiKey = ApiKey::DeleteRecords;
    type Request = DeleteRecordsRequest;
    type Response = DeleteRecordsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DeleteRecordsRequest,
    ) -> Reply<DeleteRecordsResponse> {
        let topics: Vec<(TopicName, Vec<Outcome>)> = last_of_each(request.topics)
            .into_iter()
            .map(|(name, partitions)| {
                let is_allowed = cx.allowed(TOPIC_DELETE, &name);
                let delete = |(index, offset)| match is_allowed {
                    true => (index, delete(cx.broker, &name, index, offset)),
                    false => (index, Err(ErrorCode::TopicAuthorizationFailed)),
                };
                let deleted = partitions.into_iter().map(delete).collect();
                (name, deleted)
            })
            .collect();
        let broker = Arc::clone(cx.broker);
        let patience = Duration::from_millis(request.timeout_ms.max(0) as u64);
        let deadline = Instant::now() + patience;
        Reply::Later(Box::pin(async move {
            // Write the log start offsets before the response, so that a crash does not bring
            // deleted records back.
            let unwritten = blocking(move || broker.replicas.write_log_starts()).await.ok();
            let mut response = DeleteRecordsResponse::default();
            for (name, partitions) in topics {
                let mut results = Vec::with_capacity(partitions.len());
                for (index, deleted) in partitions {
                    let deleted = match deleted {
                        Ok(deleted) => deleted.finish(unwritten.as_ref(), deadline).await,
                        Err(code) => Err(code),
                    };
                    let result =
                        DeleteRecordsPartitionResult::default().with_partition_index(index);
                    results.push(match deleted {
                        Ok(low_watermark) => result.with_low_watermark(low_watermark),
                        Err(code) => refused(result, code),
                    });
                }
                let result = DeleteRecordsTopicResult::default().with_name(name);
                response.topics.push(result.with_partitions(results));
            }
            response
        }))
    }
}

error_codes!(DeleteRecordsResponse: |it| each!(it.topics, partitions));

/// A partition's index and the result of its deletion.
type Outcome = (i32, Result<Deleted, ErrorCode>);

/// A partition whose log start offset has been moved.
struct Deleted {
    partition: Arc<Partition>,
    log_start: i64,
}

impl Deleted {
    /// Waits until all followers have deleted the records, too, and returns the low watermark.
    /// `unwritten` has the log directories whose log start offsets could not be written. `None`
    /// means that writing them failed as a whole.
    async fn finish(
        &self,
        unwritten: Option<&HashSet<PathBuf>>,
        deadline: Instant,
    ) -> Result<i64, ErrorCode> {
        if unwritten.is_none_or(|dirs| dirs.contains(&*self.partition.log_dir())) {
            return Err(ErrorCode::KafkaStorageError);
        }
        match timeout_at(deadline, self.partition.wait_deleted(self.log_start)).await {
            Ok(low_watermark) => low_watermark.ok_or(ErrorCode::NotLeaderOrFollower),
            Err(_) => Err(ErrorCode::RequestTimedOut),
        }
    }
}

fn refused(result: DeleteRecordsPartitionResult, code: ErrorCode) -> DeleteRecordsPartitionResult {
    result.with_low_watermark(-1).with_error_code(code.code())
}

/// The offset for each partition. As in Kafka, the last one is used if the request names several.
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

/// Moves the log start offset of the leader. Followers get it in the responses to their fetches.
fn delete(broker: &Arc<Broker>, name: &str, index: i32, offset: i64) -> Result<Deleted, ErrorCode> {
    let partition = partitions::partition(broker, name, index)?;
    if is_internal(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let topic = broker.replicas.partitions.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let policy = topic.config.load().cleanup_policy;
    if policy.compact && !policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let deleted = partition.update(|core| core.delete_records(offset)).map_err(|error| {
        if let DeleteRecordsError::Log(error) = &error {
            broker.replicas.on_log_error(&partition, error);
        }
        errors::delete_records(&error)
    });
    deleted.map(|log_start| Deleted { partition, log_start })
}
