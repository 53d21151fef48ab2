//! IncrementalAlterConfigs (KIP-339): sets, unsets and edits single keys.

use std::ops::RangeInclusive;

use kafka_protocol::{
    messages::{
        ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        incremental_alter_configs_request::AlterConfigsResource,
        incremental_alter_configs_response::AlterConfigsResourceResponse,
    },
    protocol::StrBytes,
};

use super::{
    Context, Handler, Reply,
    config_resources::{self, Change, Judge, Keeps, Op, Refusal, code_and_message},
};
use crate::broker::Broker;

pub struct IncrementalAlterConfigs;

impl Handler for IncrementalAlterConfigs {
    const API: ApiKey = ApiKey::IncrementalAlterConfigs;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    type Request = IncrementalAlterConfigsRequest;
    type Response = IncrementalAlterConfigsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: IncrementalAlterConfigsRequest,
    ) -> Reply<IncrementalAlterConfigsResponse> {
        let changes: Vec<Change> = request.resources.iter().map(change).collect();
        let outcomes = alter(cx.broker, &changes, request.validate_only).await;
        let responses = changes.into_iter().zip(outcomes).map(|(change, outcome)| {
            let (code, message) = code_and_message(outcome);
            AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(change.kind)
                .with_resource_name(StrBytes::from_string(change.name))
        });
        let response = IncrementalAlterConfigsResponse::default();
        Reply::Now(response.with_responses(responses.collect()))
    }
}

fn change(resource: &AlterConfigsResource) -> Change {
    let ops = resource.configs.iter().map(|config| Op {
        name: config.name.to_string(),
        kind: config.config_operation,
        value: config.value.as_ref().map(ToString::to_string),
    });
    Change {
        kind: resource.resource_type,
        name: resource.resource_name.to_string(),
        ops: ops.collect(),
    }
}

/// Answers when the change is in force on this broker.
async fn alter(
    broker: &Broker,
    changes: &[Change],
    validate_only: bool,
) -> Vec<Result<(), Refusal>> {
    let checked = {
        let (config, image) = (broker.config(), broker.metadata());
        let judge =
            Judge { node_id: broker.node_id, config: &config, image: &image, keeps: Keeps::Others };
        judge.check_all(changes)
    };
    let accepted: Vec<_> = checked.iter().flatten().cloned().collect();
    if accepted.is_empty() {
        return config_resources::outcomes(checked, []);
    }
    let count = accepted.len();
    let decided = match broker.controller.incremental_alter_configs(accepted, validate_only).await {
        Ok(committed) => {
            broker.applied(committed.offset).await;
            let results = committed.value.into_iter();
            results.map(|(_, result)| result.map_err(Refusal::from)).collect()
        }
        Err(error) => vec![Err(Refusal::from(error)); count],
    };
    config_resources::outcomes(checked, decided)
}
