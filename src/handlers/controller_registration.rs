//! ControllerRegistration (KIP-919): a controller registers its endpoints and features.

use kafka_protocol::messages::{
    ApiKey, ControllerRegistrationRequest, ControllerRegistrationResponse,
};

use super::{Context, Handler, Reply, error_counts::error_codes, errors};
use crate::{
    metadata::records::{ControllerEndpoint, ControllerFeature, RegisterControllerRecord},
    protocol::checks::CLUSTER_ACTION,
};

pub struct ControllerRegistration;

impl Handler for ControllerRegistration {
    const API: ApiKey = ApiKey::ControllerRegistration;
    type Request = ControllerRegistrationRequest;
    type Response = ControllerRegistrationResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: ControllerRegistrationRequest,
    ) -> Reply<ControllerRegistrationResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
            let (code, message) = errors::with_message(code);
            let response = ControllerRegistrationResponse::default().with_error_code(code);
            return Reply::Now(response.with_error_message(message));
        }
        let registered = cx.broker.controller.register_controller(record(&request)).await;
        let (code, message) = errors::outcome(&registered);
        Reply::Now(
            ControllerRegistrationResponse::default()
                .with_error_code(code)
                .with_error_message(message),
        )
    }
}

error_codes!(ControllerRegistrationResponse: |it| [it.error_code]);

fn record(request: &ControllerRegistrationRequest) -> RegisterControllerRecord {
    let listeners = request.listeners.iter();
    let features = request.features.iter();
    RegisterControllerRecord {
        controller_id: request.controller_id,
        incarnation_id: request.incarnation_id,
        zk_migration_ready: request.zk_migration_ready,
        end_points: listeners
            .map(|it| ControllerEndpoint {
                name: it.name.to_string(),
                host: it.host.to_string(),
                port: it.port,
                security_protocol: it.security_protocol,
            })
            .collect(),
        features: features
            .map(|it| ControllerFeature {
                name: it.name.to_string(),
                min_supported_version: it.min_supported_version,
                max_supported_version: it.max_supported_version,
            })
            .collect(),
    }
}
