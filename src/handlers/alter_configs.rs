//! AlterConfigs: sets a resource to just what is named; the rest is unset. IncrementalAlterConfigs
//! has taken its place.

use std::{ops::RangeInclusive, sync::Arc};

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
    config_resources::{self, Change, Keeps, Op, Refusal, SET, code_and_message, outcomes, told},
    forward,
};

pub struct AlterConfigs;

impl Handler for AlterConfigs {
    const API: ApiKey = ApiKey::AlterConfigs;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    type Request = AlterConfigsRequest;
    type Response = AlterConfigsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        mut request: AlterConfigsRequest,
    ) -> Reply<AlterConfigsResponse> {
        let changes: Vec<Change> = request.resources.iter().map(change).collect();
        let keeps = Keeps::Nothing;
        if cx.session.of_controllers {
            let altered = config_resources::alter(cx, &changes, keeps, request.validate_only).await;
            return Reply::Now(response(changes, altered));
        }
        let checked = config_resources::retain_sound(
            cx.broker,
            &changes,
            keeps,
            request.validate_only,
            &mut request.resources,
        );
        let (broker, client, version) = (Arc::clone(cx.broker), cx.session.peer, cx.version);
        let is_decided_here = broker.leads_quorum();
        let rest = async move {
            let deadline = forward::deadline(&broker);
            let answer = match request.resources.is_empty() {
                true => None,
                false => forward::ask(broker, client, version, request, deadline).await.ok(),
            };
            let rows = answer.into_iter().flat_map(|it| it.responses);
            let decided = rows.map(|it| told(it.error_code, it.error_message));
            response(changes, outcomes(checked, decided))
        };
        match is_decided_here {
            true => Reply::Now(rest.await),
            false => Reply::Later(Box::pin(rest)),
        }
    }
}

fn response(changes: Vec<Change>, outcomes: Vec<Result<(), Refusal>>) -> AlterConfigsResponse {
    let responses = changes.into_iter().zip(outcomes).map(|(change, outcome)| {
        let (code, message) = code_and_message(outcome);
        AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(change.kind)
            .with_resource_name(StrBytes::from_string(change.name))
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
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
