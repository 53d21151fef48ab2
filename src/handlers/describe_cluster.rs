//! DescribeCluster (KIP-700; fenced brokers: KIP-1073): the brokers, or the controllers on a
//! controller listener.

use kafka_protocol::messages::{
    ApiKey, BrokerId, DescribeClusterRequest, DescribeClusterResponse,
    describe_cluster_response::DescribeClusterBroker,
};

use super::{
    Context, ErrorCode, Handler, Reply, brokers::endpoint, context::NO_OPERATIONS,
    conversions::str_bytes, error_counts::error_codes, errors,
};
use crate::{
    metadata::{BrokerImage, ControllerImage, Image},
    protocol::checks::CLUSTER_ALTER,
};

/// The endpoint types of KIP-919.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub struct DescribeCluster;

impl Handler for DescribeCluster {
    const API: ApiKey = ApiKey::DescribeCluster;
    type Request = DescribeClusterRequest;
    type Response = DescribeClusterResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeClusterRequest,
    ) -> Reply<DescribeClusterResponse> {
        if cx.session.on_controller_listener
            && let Err(code) = cx.check_on_cluster(CLUSTER_ALTER)
        {
            let (code, message) = errors::with_message(code);
            let response = DescribeClusterResponse::default().with_error_code(code);
            return Reply::Now(response.with_error_message(message));
        }
        let kind = if cx.version == 0 { BROKERS } else { request.endpoint_type };
        let here = if cx.session.on_controller_listener { CONTROLLERS } else { BROKERS };
        if kind != here {
            return Reply::Now(refusal(kind));
        }
        let operations = match request.include_cluster_authorized_operations {
            true => cx.cluster_operations(),
            false => NO_OPERATIONS,
        };
        let answer = DescribeClusterResponse::default()
            .with_endpoint_type(kind)
            .with_cluster_id(str_bytes(&cx.broker.node.cluster_id))
            .with_cluster_authorized_operations(operations);
        let image = cx.broker.metadata();
        if kind == CONTROLLERS {
            let leader = cx.broker.quorum.leader().unwrap_or(-1);
            let controllers = controllers(&image, &cx.session.listener);
            let answer = answer.with_controller_id(BrokerId(leader)).with_brokers(controllers);
            return Reply::Now(answer);
        }
        let fenced_too = cx.version >= 2 && request.include_fenced_brokers;
        let brokers = brokers(&image, &cx.session.listener, fenced_too);
        let live = image.brokers.values().find(|broker| !broker.fenced);
        let controller = live.map(|broker| BrokerId(broker.broker_id));
        let listed = controller.filter(|id| brokers.iter().any(|it| it.broker_id == *id));
        let controller = listed.unwrap_or(BrokerId(-1));
        Reply::Now(answer.with_controller_id(controller).with_brokers(brokers))
    }
}

error_codes!(DescribeClusterResponse: |it| [it.error_code]);

/// The registered controllers that have the listener.
fn controllers(image: &Image, listener: &str) -> Vec<DescribeClusterBroker> {
    let row = |controller: &std::sync::Arc<ControllerImage>| {
        let endpoint = controller.end_points.iter().find(|it| it.name == listener)?;
        let row = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(controller.controller_id))
            .with_host(str_bytes(&endpoint.host))
            .with_port(i32::from(endpoint.port));
        Some(row)
    };
    image.controllers.values().filter_map(row).collect()
}

fn refusal(kind: i8) -> DescribeClusterResponse {
    let (code, why) = match kind {
        CONTROLLERS => (
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type \
             CONTROLLER"
                .to_owned(),
        ),
        BROKERS => (
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type CONTROLLER, but we wanted an endpoint of \
             type BROKER"
                .to_owned(),
        ),
        _ => (ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {kind}")),
    };
    DescribeClusterResponse::default()
        .with_error_code(code.code())
        .with_error_message(Some(str_bytes(&why)))
}

fn brokers(image: &Image, listener: &str, fenced_too: bool) -> Vec<DescribeClusterBroker> {
    let row = |broker: &std::sync::Arc<BrokerImage>| {
        let endpoint = endpoint(broker, listener)?;
        let row = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.broker_id))
            .with_host(str_bytes(&endpoint.host))
            .with_port(i32::from(endpoint.port))
            .with_rack(broker.rack.as_deref().map(str_bytes))
            .with_is_fenced(broker.fenced);
        Some(row)
    };
    let listed = image.brokers.values().filter(|broker| fenced_too || !broker.fenced);
    listed.filter_map(row).collect()
}
