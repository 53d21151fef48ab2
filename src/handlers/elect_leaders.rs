//! ElectLeaders (KIP-183, KIP-460).

use std::ops::RangeInclusive;

use kafka_protocol::messages::{
    ApiKey, ElectLeadersRequest, ElectLeadersResponse,
    elect_leaders_response::{PartitionResult, ReplicaElectionResult},
};

use super::{Context, ErrorCode, Handler, Reply, cluster::topic_name, errors};
use crate::controller::{ControllerError, ElectionType};

pub struct ElectLeaders;

impl Handler for ElectLeaders {
    const API: ApiKey = ApiKey::ElectLeaders;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    type Request = ElectLeadersRequest;
    type Response = ElectLeadersResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: ElectLeadersRequest,
    ) -> Reply<ElectLeadersResponse> {
        let kind = match request.election_type {
            _ if cx.version == 0 => ElectionType::Preferred,
            0 => ElectionType::Preferred,
            1 => ElectionType::Unclean,
            _ => return Reply::Now(refusal(ErrorCode::InvalidRequest, cx.version)),
        };
        let partitions = request.topic_partitions.map(|topics| {
            let each = topics.into_iter();
            each.map(|topic| (topic.topic.to_string(), topic.partitions)).collect()
        });
        match cx.broker.controller.elect_leaders(kind, partitions).await {
            Ok(committed) => {
                cx.broker.applied(committed.offset).await;
                let topics = committed.value.into_iter();
                let results = topics.map(|(topic, results)| answer(&topic, results)).collect();
                let response = ElectLeadersResponse::default();
                Reply::Now(response.with_replica_election_results(results))
            }
            Err(error) => Reply::Now(refusal(errors::controller(&error), cx.version)),
        }
    }
}

/// Version 0 has no place for an error of the whole.
fn refusal(code: ErrorCode, version: i16) -> ElectLeadersResponse {
    let code = if version == 0 { errors::NONE } else { code.code() };
    ElectLeadersResponse::default().with_error_code(code)
}

fn answer(
    topic: &str,
    results: Vec<(i32, Result<(), ControllerError>)>,
) -> ReplicaElectionResult {
    let row = |(partition, result): (i32, Result<(), ControllerError>)| {
        let (code, message) = errors::outcome(&result);
        PartitionResult::default()
            .with_partition_id(partition)
            .with_error_code(code)
            .with_error_message(message)
    };
    ReplicaElectionResult::default()
        .with_topic(topic_name(topic))
        .with_partition_result(results.into_iter().map(row).collect())
}
