//! UnregisterBroker (KIP-631): removes the registration of a broker that is gone for good.

use kafka_protocol::messages::{ApiKey, UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::{Context, Handler, Reply, error_counts::error_codes, errors};
use crate::protocol::checks::CLUSTER_ALTER;

pub struct UnregisterBroker;

impl Handler for UnregisterBroker {
    const API: ApiKey = ApiKey::UnregisterBroker;
    type Request = UnregisterBrokerRequest;
    type Response = UnregisterBrokerResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: UnregisterBrokerRequest,
    ) -> Reply<UnregisterBrokerResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_ALTER) {
            let (code, message) = errors::with_message(code);
            let response = UnregisterBrokerResponse::default().with_error_code(code);
            return Reply::Now(response.with_error_message(message));
        }
        let result = match cx.controller().unregister_broker(request.broker_id.0).await {
            Ok(committed) => {
                cx.broker.node.applied(committed.offset).await;
                committed.value
            }
            Err(error) => Err(error),
        };
        let (code, message) = errors::outcome(&result);
        let response = UnregisterBrokerResponse::default().with_error_code(code);
        Reply::Now(response.with_error_message(message))
    }
}

error_codes!(UnregisterBrokerResponse: |it| [it.error_code]);
