//! AlterConfigs: sets a resource to just what is named; the rest is unset. IncrementalAlterConfigs
//! has taken its place.

use std::ops::RangeInclusive;

use kafka_protocol::{
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, ApiKey,
        alter_configs_request::AlterConfigsResource,
        alter_configs_response::AlterConfigsResourceResponse,
    },
    protocol::StrBytes,
};

use super::{
    Context, Handler, Reply,
    config_resources::{self, Change, Checked, Judge, Keeps, Op, Refusal, SET, code_and_message},
};
use crate::{broker::Broker, controller::ConfigOp, metadata::ConfigResource};

pub struct AlterConfigs;

impl Handler for AlterConfigs {
    const API: ApiKey = ApiKey::AlterConfigs;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    type Request = AlterConfigsRequest;
    type Response = AlterConfigsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: AlterConfigsRequest,
    ) -> Reply<AlterConfigsResponse> {
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
        Reply::Now(AlterConfigsResponse::default().with_responses(responses.collect()))
    }
}

fn change(resource: &AlterConfigsResource) -> Change {
    let ops = resource.configs.iter().map(|config| Op {
        name: config.name.to_string(),
        kind: SET,
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
        let judge = Judge {
            node_id: broker.node_id,
            config: &config,
            image: &image,
            keeps: Keeps::Nothing,
        };
        judge.check_all(changes)
    };
    let accepted: Vec<_> = checked.iter().flatten().map(whole).collect();
    if accepted.is_empty() {
        return config_resources::outcomes(checked, []);
    }
    let count = accepted.len();
    let decided = match broker.controller.alter_configs(accepted, validate_only).await {
        Ok(committed) => {
            broker.applied(committed.offset).await;
            let results = committed.value.into_iter();
            results.map(|(_, result)| result.map_err(Refusal::from)).collect()
        }
        Err(error) => vec![Err(Refusal::from(error)); count],
    };
    config_resources::outcomes(checked, decided)
}

/// The controller's form of a change that names everything.
fn whole((resource, ops): &Checked) -> (ConfigResource, Vec<(String, Option<String>)>) {
    let value = |op: &ConfigOp| match op {
        ConfigOp::Set(value) => Some(value.clone()),
        ConfigOp::Delete | ConfigOp::Append(_) | ConfigOp::Subtract(_) => None,
    };
    let configs = ops.iter().map(|(name, op)| (name.clone(), value(op)));
    (resource.clone(), configs.collect())
}
