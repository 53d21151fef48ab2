//! OffsetForLeaderEpoch: the end offset of a leader epoch (KIP-101, KIP-320).

use kafka_protocol::messages::{
    ApiKey, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    offset_for_leader_epoch_request::OffsetForLeaderPartition,
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
};

use super::{
    Context, ErrorCode, Handler, Reply,
    error_counts::{each, error_codes},
    errors, partitions,
};
use crate::{
    broker::Broker,
    protocol::checks::{CLUSTER_ACTION, TOPIC_DESCRIBE},
};

pub struct OffsetForLeaderEpoch;

impl Handler for OffsetForLeaderEpoch {
    const API: ApiKey = ApiKey::OffsetForLeaderEpoch;
    type Request = OffsetForLeaderEpochRequest;
    type Response = OffsetForLeaderEpochResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: OffsetForLeaderEpochRequest,
    ) -> Reply<OffsetForLeaderEpochResponse> {
        let sees_all = cx.allowed_on_cluster(CLUSTER_ACTION);
        let (topics, denied): (Vec<_>, Vec<_>) = request
            .topics
            .into_iter()
            .partition(|topic| sees_all || cx.allowed(TOPIC_DESCRIBE, &topic.topic));
        let topics = topics.into_iter().map(|topic| {
            let answer = |asked: &OffsetForLeaderPartition| {
                let result = EpochEndOffset::default().with_partition(asked.partition);
                match end_offset(cx.broker, &topic.topic, asked) {
                    Ok((epoch, end)) => result.with_leader_epoch(epoch).with_end_offset(end),
                    Err(code) => refused(result, code),
                }
            };
            let partitions = topic.partitions.iter().map(answer).collect();
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic)
                .with_partitions(partitions)
        });
        let denied = denied.into_iter().map(|topic| {
            let refuse = |asked: &OffsetForLeaderPartition| {
                let result = EpochEndOffset::default().with_partition(asked.partition);
                refused(result, ErrorCode::TopicAuthorizationFailed)
            };
            let partitions = topic.partitions.iter().map(refuse).collect();
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic)
                .with_partitions(partitions)
        });
        let topics = topics.chain(denied).collect();
        Reply::Now(OffsetForLeaderEpochResponse::default().with_topics(topics))
    }
}

error_codes!(OffsetForLeaderEpochResponse: |it| each!(it.topics, partitions));

fn refused(result: EpochEndOffset, code: ErrorCode) -> EpochEndOffset {
    result.with_error_code(code.code()).with_leader_epoch(-1).with_end_offset(-1)
}

fn end_offset(
    broker: &Broker,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let partition = partitions::partition(broker, topic, asked.partition)?;
    errors::check_leader_epoch(partition.view().role, asked.current_leader_epoch)?;
    Ok(partition.end_offset_for_epoch(asked.leader_epoch).unwrap_or((-1, -1)))
}
