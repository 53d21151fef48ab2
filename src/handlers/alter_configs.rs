//! AlterConfigs: replaces all configs of a resource. Configs that the request does not name are
//! unset. Newer clients use IncrementalAlterConfigs instead.

use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ApiKey, alter_configs_request::AlterConfigsResource,
    alter_configs_response::AlterConfigsResourceResponse,
};

use super::{
    Context, Handler, Reply,
    config_resources::{self, AlterRequest, Change, CodeAndMessage, Keeps, Op, Row, SET},
    error_counts::{each, error_codes},
};

pub struct AlterConfigs;

impl Handler for AlterConfigs {
    const API: ApiKey = ApiKey::AlterConfigs;
    type Request = AlterConfigsRequest;
    type Response = AlterConfigsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: AlterConfigsRequest,
    ) -> Reply<AlterConfigsResponse> {
        config_resources::handle(cx, request).await
    }
}

error_codes!(AlterConfigsResponse: |it| each!(it.responses));

impl AlterRequest for AlterConfigsRequest {
    const KEEPS: Keeps = Keeps::Nothing;
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
            kind: SET,
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

    fn response(rows: impl Iterator<Item = Row>) -> AlterConfigsResponse {
        let responses = rows.map(|row| {
            AlterConfigsResourceResponse::default()
                .with_error_code(row.code)
                .with_error_message(row.message)
                .with_resource_type(row.kind)
                .with_resource_name(row.name)
        });
        AlterConfigsResponse::default().with_responses(responses.collect())
    }
}
