//! ListConfigResources (KIP-1142): the resources that can have configs. Version 0 was
//! ListClientMetricsResources (KIP-714).

use kafka_protocol::{
    messages::{
        ApiKey, ListConfigResourcesRequest, ListConfigResourcesResponse,
        list_config_resources_response::ConfigResource,
    },
    protocol::StrBytes,
};

use super::{Context, ErrorCode, Handler, Reply, error_counts::error_codes};
use crate::{
    metadata::{ConfigResourceType, Image},
    protocol::checks::CLUSTER_DESCRIBE_CONFIGS,
};

pub struct ListConfigResources;

impl Handler for ListConfigResources {
    const API: ApiKey = ApiKey::ListConfigResources;
    type Request = ListConfigResourcesRequest;
    type Response = ListConfigResourcesResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: ListConfigResourcesRequest,
    ) -> Reply<ListConfigResourcesResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_DESCRIBE_CONFIGS) {
            return Reply::Now(ListConfigResourcesResponse::default().with_error_code(code.code()));
        }
        Reply::Now(answer(&cx.broker.metadata(), &request, cx.version))
    }
}

error_codes!(ListConfigResourcesResponse: |it| [it.error_code]);

fn answer(
    image: &Image,
    request: &ListConfigResourcesRequest,
    version: i16,
) -> ListConfigResourcesResponse {
    use ConfigResourceType as Kind;
    let response = ListConfigResourcesResponse::default();
    let kinds: Option<Vec<Kind>> = match (version, request.resource_types.as_slice()) {
        (0, _) => Some(vec![Kind::ClientMetrics]),
        (_, []) => Some(vec![
            Kind::ClientMetrics,
            Kind::BrokerLogger,
            Kind::Broker,
            Kind::Topic,
            Kind::Group,
        ]),
        (_, ids) => ids.iter().map(|id| Kind::from_id(*id)).collect(),
    };
    let Some(mut kinds) = kinds else {
        return response.with_error_code(ErrorCode::UnsupportedVersion.code());
    };
    kinds.sort_unstable_by_key(|kind| kind.id());
    kinds.dedup();
    let resources = kinds.into_iter().flat_map(|kind| {
        let resource = move |name: String| {
            ConfigResource::default()
                .with_resource_name(StrBytes::from_string(name))
                .with_resource_type(kind.id())
        };
        names(image, kind).into_iter().map(resource)
    });
    response.with_config_resources(resources.collect())
}

/// The names of the resources of one kind: all topics and brokers, but only those groups and client
/// metrics subscriptions that have configs.
fn names(image: &Image, kind: ConfigResourceType) -> Vec<String> {
    let mut names: Vec<String> = match kind {
        ConfigResourceType::Topic => {
            image.topics.iter().map(|topic| topic.name.to_string()).collect()
        }
        ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => {
            image.brokers.keys().map(ToString::to_string).collect()
        }
        ConfigResourceType::Group | ConfigResourceType::ClientMetrics => {
            let configured = image.configs.iter().map(|(resource, _)| resource);
            let of_kind = configured.filter(|resource| resource.kind == kind);
            of_kind.map(|resource| resource.name.to_string()).collect()
        }
    };
    names.sort_unstable();
    names
}
