//! ElectLeaders (KIP-183, KIP-460): elects preferred or unclean leaders of partitions.

use kafka_protocol::messages::{
    ApiKey, ElectLeadersRequest, ElectLeadersResponse,
    elect_leaders_response::{PartitionResult, ReplicaElectionResult},
};

use super::{
    Context, Handler, Reply,
    config_resources::CodeAndMessage,
    conversions::topic_name,
    error_counts::{each, error_codes},
    errors,
};
use crate::{
    controller::{ControllerError, ElectionType},
    protocol::checks::CLUSTER_ALTER,
};

pub struct ElectLeaders;

impl Handler for ElectLeaders {
    const API: ApiKey = ApiKey::ElectLeaders;
    type Request = ElectLeadersRequest;
    type Response = ElectLeadersResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: ElectLeadersRequest,
    ) -> Reply<ElectLeadersResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_ALTER) {
            return Reply::Now(refusal(&request, &errors::with_message(code), cx.version));
        }
        let kind = match request.election_type {
            _ if cx.version == 0 => ElectionType::Preferred,
            0 => ElectionType::Preferred,
            1 => ElectionType::Unclean,
            // A request for no partitions succeeds, even with an unknown election type.
            _ if request.topic_partitions.as_ref().is_some_and(Vec::is_empty) => {
                return Reply::Now(ElectLeadersResponse::default());
            }
            other => {
                let why = format!("Unknown election type {other}");
                let error = errors::outcome::<()>(&Err(ControllerError::InvalidRequest(why)));
                return Reply::Now(refusal(&request, &error, cx.version));
            }
        };
        let partitions = request.topic_partitions.as_ref().map(|topics| {
            let each = topics.iter();
            each.map(|topic| (topic.topic.to_string(), topic.partitions.clone())).collect()
        });
        match cx.controller_within(request.timeout_ms).elect_leaders(kind, partitions).await {
            Ok(committed) => {
                cx.broker.node.applied(committed.offset).await;
                let topics = committed.value.into_iter();
                let results = topics.map(|(topic, results)| {
                    let each = results.into_iter();
                    let results = each.map(|(at, result)| (at, errors::outcome(&result)));
                    answer(&topic, results.collect())
                });
                let results = results.collect();
                let response = ElectLeadersResponse::default();
                Reply::Now(response.with_replica_election_results(results))
            }
            Err(error) => {
                let error = errors::outcome::<()>(&Err(error));
                Reply::Now(refusal(&request, &error, cx.version))
            }
        }
    }
}

error_codes!(ElectLeadersResponse: |it| {
    each!(it.replica_election_results, partition_result).chain([it.error_code])
});

/// The same error for the request and for each of its partitions. Version 0 has no error code for
/// the request.
fn refusal(
    request: &ElectLeadersRequest,
    error: &CodeAndMessage,
    version: i16,
) -> ElectLeadersResponse {
    let code = if version == 0 { errors::NONE } else { error.0 };
    let topics = request.topic_partitions.iter().flatten().map(|topic| {
        answer(&topic.topic, topic.partitions.iter().map(|at| (*at, error.clone())).collect())
    });
    ElectLeadersResponse::default()
        .with_error_code(code)
        .with_replica_election_results(topics.collect())
}

fn answer(topic: &str, results: Vec<(i32, CodeAndMessage)>) -> ReplicaElectionResult {
    let row = |(partition, (code, message)): (i32, CodeAndMessage)| {
        PartitionResult::default()
            .with_partition_id(partition)
            .with_error_code(code)
            .with_error_message(message)
    };
    ReplicaElectionResult::default()
        .with_topic(topic_name(topic))
        .with_partition_result(results.into_iter().map(row).collect())
}
