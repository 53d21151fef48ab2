//! IncrementalAlterConfigs (KIP-339): sets, unsets and edits single configs of resources.

use kafka_protocol::messages::{
    ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    incremental_alter_configs_request::AlterConfigsResource,
    incremental_alter_configs_response::AlterConfigsResourceResponse,
};

use super::{
    Context, Handler, Reply,
    config_resources::{self, AlterRequest, Change, CodeAndMessage, Keeps, Op, Row},
    error_counts::{each, error_codes},
};

pub struct IncrementalAlterConfigs;

impl Handler for IncrementalAlterConfigs {
    const API: ApiKey = ApiKey::IncrementalAlterConfigs;
    type Request = IncrementalAlterConfigsRequest;
    type Response = IncrementalAlterConfigsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: IncrementalAlterConfigsRequest,
    ) -> Reply<IncrementalAlterConfigsResponse> {
        config_resources::handle(cx, request).await
    }
}

error_codes!(IncrementalAlterConfigsResponse: |it| each!(it.responses));

impl AlterRequest for IncrementalAlterConfigsRequest {
    const KEEPS: Keeps = Keeps::Others;
    type Resource = AlterConfigsResource;

    fn resources(&mut self) -> &mut Vec<AlterConfigsResource> {
        &mut self.resources
    }

    fn validate_only(&self) -> bool {
        self.validate_only
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

    fn codes(response: Self::Response) -> impl Iterator<Item = CodeAndMessage> + Send {
        response.responses.into_iter().map(|it| (it.error_code, it.error_message))
    }

    fn response(rows: impl Iterator<Item = Row>) -> IncrementalAlterConfigsResponse {
        let responses = rows.map(|row| {
            AlterConfigsResourceResponse::default()
                .with_error_code(row.code)
                .with_error_message(row.message)
                .with_resource_type(row.kind)
                .with_resource_name(row.name)
        });
        IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
    }
}
