//! IncrementalAlterConfigs (KIP-339): sets, unsets and edits single keys.

use std::{ops::RangeInclusive, sync::Arc};

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
    config_resources::{self, Change, Keeps, Op, Refusal, code_and_message, outcomes, told},
    forward,
};

pub struct IncrementalAlterConfigs;

impl Handler for IncrementalAlterConfigs {
    const API: ApiKey = ApiKey::IncrementalAlterConfigs;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    type Request = IncrementalAlterConfigsRequest;
    type Response = IncrementalAlterConfigsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        mut request: IncrementalAlterConfigsRequest,
    ) -> Reply<IncrementalAlterConfigsResponse> {
        let changes: Vec<Change> = request.resources.iter().map(change).collect();
        let keeps = Keeps::Others;
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

fn response(
    changes: Vec<Change>,
    outcomes: Vec<Result<(), Refusal>>,
) -> IncrementalAlterConfigsResponse {
    let responses = changes.into_iter().zip(outcomes).map(|(change, outcome)| {
        let (code, message) = code_and_message(outcome);
        AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(change.kind)
            .with_resource_name(StrBytes::from_string(change.name))
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
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
