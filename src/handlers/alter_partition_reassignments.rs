//! AlterPartitionReassignments (KIP-455, KIP-860): begins or cancels reassignments of partitions.

use kafka_protocol::{
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ApiKey,
        alter_partition_reassignments_request::ReassignablePartition,
        alter_partition_reassignments_response::{
            ReassignablePartitionResponse, ReassignableTopicResponse,
        },
    },
    protocol::StrBytes,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::topic_name,
    error_counts::{each, error_codes},
    errors,
};
use crate::{
    controller::{ControllerError, Reassignment},
    protocol::checks::CLUSTER_ALTER,
};

pub struct AlterPartitionReassignments;

impl Handler for AlterPartitionReassignments {
    const API: ApiKey = ApiKey::AlterPartitionReassignments;
    type Request = AlterPartitionReassignmentsRequest;
    type Response = AlterPartitionReassignmentsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: AlterPartitionReassignmentsRequest,
    ) -> Reply<AlterPartitionReassignmentsResponse> {
        let allow = cx.version == 0 || request.allow_replication_factor_change;
        let response = AlterPartitionReassignmentsResponse::default()
            .with_allow_replication_factor_change(allow);
        if let Err(code) = cx.check_on_cluster(CLUSTER_ALTER) {
            return Reply::Now(refusal(&request, response, &errors::with_message(code)));
        }
        let topics = request.topics.iter();
        let topics = topics.map(|topic| {
            (topic.name.to_string(), topic.partitions.iter().map(reassignment).collect())
        });
        let controller = cx.controller_within(request.timeout_ms);
        match controller.alter_partition_reassignments(topics.collect(), allow).await {
            Ok(committed) => {
                cx.broker.node.applied(committed.offset).await;
                let answers = committed.value.into_iter();
                let answers = answers.map(|(topic, results)| answer(&topic, results));
                // Kafka sends an empty message if the request has no topics, and null otherwise.
                let message = request.topics.is_empty().then(Default::default);
                Reply::Now(response.with_error_message(message).with_responses(answers.collect()))
            }
            // The controller could not begin in time.
            Err(ControllerError::TimedOut) => {
                let error = (ErrorCode::RequestTimedOut.code(), None);
                Reply::Now(refusal(&request, response, &error))
            }
            Err(error) => {
                let (code, message) = errors::outcome::<()>(&Err(error));
                Reply::Now(response.with_error_code(code).with_error_message(message))
            }
        }
    }
}

error_codes!(AlterPartitionReassignmentsResponse: |it| {
    each!(it.responses, partitions).chain([it.error_code])
});

/// The same error for the request and for each of its partitions.
fn refusal(
    request: &AlterPartitionReassignmentsRequest,
    response: AlterPartitionReassignmentsResponse,
    (code, message): &(i16, Option<StrBytes>),
) -> AlterPartitionReassignmentsResponse {
    let row = |it: &ReassignablePartition| {
        ReassignablePartitionResponse::default()
            .with_partition_index(it.partition_index)
            .with_error_code(*code)
            .with_error_message(message.clone())
    };
    let topics = request.topics.iter().map(|topic| {
        ReassignableTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(topic.partitions.iter().map(row).collect())
    });
    let response = response.with_error_code(*code).with_error_message(message.clone());
    response.with_responses(topics.collect())
}

fn reassignment(asked: &ReassignablePartition) -> Reassignment {
    let replicas = asked.replicas.as_ref();
    Reassignment {
        partition: asked.partition_index,
        replicas: replicas.map(|ids| ids.iter().map(|id| id.0).collect()),
    }
}

fn answer(
    topic: &str,
    results: Vec<(i32, Result<(), ControllerError>)>,
) -> ReassignableTopicResponse {
    let row = |(partition, result): (i32, Result<(), ControllerError>)| {
        let (code, message) = errors::outcome(&result);
        ReassignablePartitionResponse::default()
            .with_partition_index(partition)
            .with_error_code(code)
            .with_error_message(message)
    };
    ReassignableTopicResponse::default()
        .with_name(topic_name(topic))
        .with_partitions(results.into_iter().map(row).collect())
}
