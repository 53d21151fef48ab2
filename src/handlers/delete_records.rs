//! DeleteRecords: moves the start of partitions' logs (KIP-107).

use std::{ops::RangeInclusive, sync::Arc};

use kafka_protocol::messages::{
    ApiKey, DeleteRecordsRequest, DeleteRecordsResponse,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
};

use super::{Context, ErrorCode, Handler, Reply, cluster::is_internal, errors};
use crate::{broker::Broker, partition::DeleteRecordsError};

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
        let topics = request.topics.into_iter().map(|topic| {
            let delete = |index: i32, offset: i64| {
                let deleted = delete(cx.broker, &topic.name, index, offset);
                let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
                match deleted {
                    Ok(low_watermark) => result.with_low_watermark(low_watermark),
                    Err(code) => result.with_low_watermark(-1).with_error_code(code.code()),
                }
            };
            let partitions = topic.partitions.iter();
            let results = partitions.map(|it| delete(it.partition_index, it.offset)).collect();
            DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(results)
        });
        let response = DeleteRecordsResponse::default().with_topics(topics.collect());
        let broker = Arc::clone(cx.broker);
        Reply::Later(Box::pin(async move {
            // A crash after the answer must not bring back what was deleted.
            let written = tokio::task::spawn_blocking(move || broker.write_log_starts()).await;
            if let Err(error) = written {
                tracing::error!(%error, "log starts are not written");
            }
            response
        }))
    }
}

/// Returns the new start of the log. With followers it would be the lowest of theirs.
fn delete(broker: &Arc<Broker>, name: &str, index: i32, offset: i64) -> Result<i64, ErrorCode> {
    let topic = broker.partitions.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = topic.partition(index).map_err(errors::absent)?;
    if is_internal(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let policy = topic.config.load().cleanup_policy;
    if policy.compact && !policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    partition.update(|core| core.delete_records(offset)).map_err(|error| {
        if let DeleteRecordsError::Log(error) = &error {
            broker.on_log_error(&partition, error);
        }
        errors::delete_records(&error)
    })
}
