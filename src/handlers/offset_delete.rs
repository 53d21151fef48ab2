//! OffsetDelete: deletes committed offsets of topics to which the group is not subscribed.

use std::sync::Arc;

use kafka_protocol::messages::{
    ApiKey, OffsetDeleteRequest, OffsetDeleteResponse,
    offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{text, topic_name},
    error_counts::{each, error_codes},
    errors::{group_code, group_code_of},
};
use crate::{
    coordinator::group::messages::DeleteOffsetsRequest,
    protocol::checks::{GROUP_DELETE, TOPIC_READ},
};

pub struct OffsetDelete;

impl Handler for OffsetDelete {
    const API: ApiKey = ApiKey::OffsetDelete;
    type Request = OffsetDeleteRequest;
    type Response = OffsetDeleteResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: OffsetDeleteRequest,
    ) -> Reply<OffsetDeleteResponse> {
        if let Err(code) = cx.check(GROUP_DELETE, &request.group_id) {
            return Reply::Now(OffsetDeleteResponse::default().with_error_code(code.code()));
        }
        let image = cx.broker.metadata();
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut refused = Vec::new();
        for topic in &request.topics {
            let (found, code) = match cx.allowed(TOPIC_READ, &topic.name) {
                true => (image.topic(&topic.name), ErrorCode::UnknownTopicOrPartition),
                false => (None, ErrorCode::TopicAuthorizationFailed),
            };
            let count = found.map_or(0, |found| found.partitions.len());
            let exists = |index: &i32| usize::try_from(*index).is_ok_and(|index| index < count);
            let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
            let (valid, unknown): (Vec<i32>, Vec<i32>) = indexes.partition(exists);
            if count > 0 && topic.partitions.is_empty() {
                continue; // the response omits it
            }
            let name: Arc<str> = text(&topic.name);
            refused.push((name.clone(), unknown, code.code()));
            if !valid.is_empty() {
                topics.push((name, valid));
            }
        }
        let group = text(&request.group_id);
        let delete = DeleteOffsetsRequest { group, topics };
        let answer = cx.broker.coordinators.groups.delete_offsets(delete).await;
        Reply::Later(Box::pin(async move {
            let deleted = match answer.wait().await.and_then(|deleted| deleted) {
                Ok(deleted) => deleted,
                Err(error) => {
                    return OffsetDeleteResponse::default().with_error_code(group_code(error));
                }
            };
            let mut results = deleted.into_iter().peekable();
            let topics = refused.into_iter().map(|(name, unknown, code)| {
                let mut partitions: Vec<_> =
                    unknown.into_iter().map(|index| partition(index, code)).collect();
                if let Some(deleted) = results.next_if(|deleted| deleted.topic == name) {
                    let deleted = deleted.partitions.iter();
                    partitions
                        .extend(deleted.map(|(at, result)| partition(*at, group_code_of(result))));
                }
                OffsetDeleteResponseTopic::default()
                    .with_name(topic_name(&name))
                    .with_partitions(partitions)
            });
            OffsetDeleteResponse::default().with_topics(topics.collect())
        }))
    }
}

error_codes!(OffsetDeleteResponse: |it| each!(it.topics, partitions).chain([it.error_code]));

fn partition(index: i32, code: i16) -> OffsetDeleteResponsePartition {
    OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code)
}
