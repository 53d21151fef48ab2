//! Envelope (KIP-590): a client's request that a broker forwards to the active controller.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use kafka_protocol::messages::{ApiKey, EnvelopeRequest, EnvelopeResponse};

use super::{
    Client, ConnectionContext, Context, ErrorCode, Forwarding, Handler, HandlerError, Reply,
    answer_parsed, error_counts::error_codes,
};
use crate::protocol::{
    Principal,
    api::Scope,
    checks::CLUSTER_ACTION,
    frame::{self, Incoming},
};

pub struct Envelope;

impl Handler for Envelope {
    const API: ApiKey = ApiKey::Envelope;
    type Request = EnvelopeRequest;
    type Response = EnvelopeResponse;

    async fn handle(cx: &mut Context<'_>, request: EnvelopeRequest) -> Reply<EnvelopeResponse> {
        let refuse =
            |code: ErrorCode| Reply::Now(EnvelopeResponse::default().with_error_code(code.code()));
        if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
            return refuse(code);
        }
        if !cx.broker.leads_quorum() {
            return refuse(ErrorCode::NotController);
        }
        let principal = request.request_principal.as_deref();
        let Some(Ok(principal)) = principal.map(Principal::deserialize) else {
            return refuse(ErrorCode::PrincipalDeserializationFailure);
        };
        let mut body = request.request_data;
        let Ok(Incoming::Request(header)) = frame::parse_header(&mut body) else {
            return refuse(ErrorCode::InvalidRequest);
        };
        if header.api.scope != Scope::Forwarded {
            return refuse(ErrorCode::InvalidRequest);
        }
        let Some(address) = address(&request.client_host_address) else {
            return refuse(ErrorCode::InvalidRequest);
        };
        // As in Kafka, the forwarded request counts as one of this connection's listener.
        let mut session = ConnectionContext {
            client: Client {
                address: SocketAddr::new(address, 0),
                principal,
                authorizer: cx.session.client.authorizer.clone(),
            },
            listener: Arc::clone(&cx.session.listener),
            security_protocol: cx.session.security_protocol,
            on_controller_listener: true,
            software: None,
            presence: None,
        };
        let broker = cx.broker.clone();
        Reply::Later(Box::pin(async move {
            let forwarding = Forwarding::ByBroker;
            match answer_parsed(&broker, &mut session, &header, body, forwarding).await {
                Ok(response) => EnvelopeResponse::default().with_response_data(Some(response)),
                Err(HandlerError::NotController) => {
                    let code = ErrorCode::NotController.code();
                    EnvelopeResponse::default().with_error_code(code)
                }
                Err(error) => {
                    tracing::debug!(%error, api = header.api.name, "cannot answer an enveloped request");
                    let code = ErrorCode::InvalidRequest.code();
                    EnvelopeResponse::default().with_error_code(code)
                }
            }
        }))
    }
}

error_codes!(EnvelopeResponse: |it| [it.error_code]);

/// The address of the client, from its 4 or 16 bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}
