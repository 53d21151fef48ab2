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
    config_resources::{self, Change, Keeps, Op, SET, code_and_message},
};

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
        let validate_only = request.validate_only;
        let handed_on = cx.session.of_controllers;
        let keeps = Keeps::Nothing;
        let altered =
            config_resources::alter(cx.broker, &changes, keeps, validate_only, handed_on);
        let outcomes = altered.await;
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
