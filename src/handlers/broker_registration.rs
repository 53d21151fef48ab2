//! BrokerRegistration (KIP-631): a starting broker registers at the active controller, and gets its
//! broker epoch.

use kafka_protocol::messages::{
    ApiKey, BrokerRegistrationRequest, BrokerRegistrationResponse,
    broker_registration_request::{Feature, Listener},
};

use super::{Context, ErrorCode, Handler, Reply, error_counts::error_codes, errors};
use crate::{
    controller::Registration,
    metadata::records::{BrokerEndpoint, BrokerFeature},
    protocol::checks::CLUSTER_ACTION,
};

pub struct BrokerRegistration;

impl Handler for BrokerRegistration {
    const API: ApiKey = ApiKey::BrokerRegistration;
    type Request = BrokerRegistrationRequest;
    type Response = BrokerRegistrationResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: BrokerRegistrationRequest,
    ) -> Reply<BrokerRegistrationResponse> {
        let refuse = |code: ErrorCode| {
            let answer = BrokerRegistrationResponse::default().with_error_code(code.code());
            Reply::Now(answer.with_broker_epoch(-1))
        };
        if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
            return refuse(code);
        }
        if *request.cluster_id != *cx.broker.node.cluster_id {
            return refuse(ErrorCode::InconsistentClusterId);
        }
        let registered = cx.broker.controller.register_broker(registration(&request)).await;
        match registered.and_then(|it| it.value) {
            Ok(epoch) => Reply::Now(BrokerRegistrationResponse::default().with_broker_epoch(epoch)),
            Err(error) => {
                tracing::info!(%error, broker = request.broker_id.0, "broker registration refused");
                refuse(errors::controller(&error))
            }
        }
    }
}

error_codes!(BrokerRegistrationResponse: |it| [it.error_code]);

fn registration(request: &BrokerRegistrationRequest) -> Registration {
    let endpoint = |it: &Listener| BrokerEndpoint {
        name: it.name.to_string(),
        host: it.host.to_string(),
        port: it.port,
        security_protocol: it.security_protocol,
    };
    let feature = |it: &Feature| BrokerFeature {
        name: it.name.to_string(),
        min_supported_version: it.min_supported_version,
        max_supported_version: it.max_supported_version,
    };
    Registration {
        broker_id: request.broker_id.0,
        incarnation_id: request.incarnation_id,
        endpoints: request.listeners.iter().map(endpoint).collect(),
        features: request.features.iter().map(feature).collect(),
        rack: request.rack.as_ref().map(|rack| rack.to_string()),
        log_dirs: request.log_dirs.clone(),
        previous_broker_epoch: request.previous_broker_epoch,
    }
}
