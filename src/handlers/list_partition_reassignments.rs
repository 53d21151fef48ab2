//! ListPartitionReassignments (KIP-455): the reassignments in progress.

use kafka_protocol::messages::{
    ApiKey, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    list_partition_reassignments_response::{
        OngoingPartitionReassignment, OngoingTopicReassignment,
    },
};

use super::{
    Context, ErrorCode, Forwarding, Handler, Reply,
    conversions::{ids, topic_name},
    error_counts::error_codes,
    errors,
};
use crate::{metadata::TopicImage, protocol::checks::CLUSTER_DESCRIBE};

pub struct ListPartitionReassignments;

impl Handler for ListPartitionReassignments {
    const API: ApiKey = ApiKey::ListPartitionReassignments;
    type Request = ListPartitionReassignmentsRequest;
    type Response = ListPartitionReassignmentsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: ListPartitionReassignmentsRequest,
    ) -> Reply<ListPartitionReassignmentsResponse> {
        let response = ListPartitionReassignmentsResponse::default().with_error_message(None);
        if let Err(code) = cx.check_on_cluster(CLUSTER_DESCRIBE) {
            return Reply::Now(denied(&request, code));
        }
        if cx.forwarding == Forwarding::TimedOut {
            return Reply::Now(response.with_error_code(ErrorCode::RequestTimedOut.code()));
        }
        let image = cx.broker.metadata();
        let topics = match &request.topics {
            None => image.topics.iter().filter_map(|topic| ongoing(topic, None)).collect(),
            Some(asked) => asked
                .iter()
                .filter_map(|it| ongoing(image.topic(&it.name)?, Some(&it.partition_indexes)))
                .collect(),
        };
        Reply::Now(response.with_topics(topics))
    }
}

error_codes!(ListPartitionReassignmentsResponse: |it| [it.error_code]);

/// The response to a client that may not list reassignments. As in Kafka, it repeats the topics and
/// partitions of the request.
fn denied(
    request: &ListPartitionReassignmentsRequest,
    code: ErrorCode,
) -> ListPartitionReassignmentsResponse {
    let topics = request.topics.iter().flatten().map(|topic| {
        let row = |at: &i32| OngoingPartitionReassignment::default().with_partition_index(*at);
        OngoingTopicReassignment::default()
            .with_name(topic.name.clone())
            .with_partitions(topic.partition_indexes.iter().map(row).collect())
    });
    let (code, message) = errors::with_message(code);
    ListPartitionReassignmentsResponse::default()
        .with_error_code(code)
        .with_error_message(message)
        .with_topics(topics.collect())
}

/// The partitions of a topic that are being reassigned. `None` if there are none.
fn ongoing(topic: &TopicImage, asked: Option<&Vec<i32>>) -> Option<OngoingTopicReassignment> {
    let partitions = topic.partitions.iter().zip(0..);
    let wanted = partitions.filter(|(_, at)| asked.is_none_or(|asked| asked.contains(at)));
    let moving: Vec<_> = wanted
        .filter(|(state, _)| state.is_reassigning())
        .map(|(state, at)| {
            OngoingPartitionReassignment::default()
                .with_partition_index(at)
                .with_replicas(ids(&state.replicas))
                .with_adding_replicas(ids(&state.adding_replicas))
                .with_removing_replicas(ids(&state.removing_replicas))
        })
        .collect();
    let answer = OngoingTopicReassignment::default().with_name(topic_name(&topic.name));
    (!moving.is_empty()).then(|| answer.with_partitions(moving))
}
