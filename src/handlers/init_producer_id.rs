//! InitProducerId: a producer id for an idempotent producer. Transactional ids are refused, because
//! this broker does not have a transaction coordinator yet.

use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Context, ErrorCode, Handler, Reply, error_counts::error_codes};
use crate::protocol::checks::{CLUSTER_IDEMPOTENT_WRITE, TOPIC_WRITE, TRANSACTIONAL_ID_WRITE};

pub struct InitProducerId;

impl Handler for InitProducerId {
    const API: ApiKey = ApiKey::InitProducerId;
    type Request = InitProducerIdRequest;
    type Response = InitProducerIdResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: InitProducerIdRequest,
    ) -> Reply<InitProducerIdResponse> {
        if let Err(code) = check(cx, &request) {
            return Reply::Now(refusal(code));
        }
        let refused = match request.transactional_id.as_deref().map(|id| id.as_str()) {
            Some("") => Some(ErrorCode::InvalidRequest),
            Some(_) => Some(ErrorCode::UnsupportedVersion),
            // A request has both producer id and epoch, or neither (KIP-360).
            None if (request.producer_id.0 == -1) != (request.producer_epoch == -1) => {
                Some(ErrorCode::InvalidRequest)
            }
            None => None,
        };
        if let Some(code) = refused {
            return Reply::Now(refusal(code));
        }
        match cx.broker.membership.producer_ids.next().await {
            Ok(id) => Reply::Now(
                InitProducerIdResponse::default()
                    .with_producer_id(ProducerId(id))
                    .with_producer_epoch(0),
            ),
            Err(error) => {
                tracing::warn!(%error, "no producer ids from the controller");
                Reply::Now(refusal(ErrorCode::CoordinatorLoadInProgress))
            }
        }
    }
}

error_codes!(InitProducerIdResponse: |it| [it.error_code]);

/// Checks whether the client may have a producer id. A client that may write to some topic may have
/// one, too (KIP-679).
fn check(cx: &Context<'_>, request: &InitProducerIdRequest) -> Result<(), ErrorCode> {
    match &request.transactional_id {
        Some(id) => cx.check(TRANSACTIONAL_ID_WRITE, id),
        None => cx.check_on_cluster(CLUSTER_IDEMPOTENT_WRITE).or_else(|code| {
            let may_write = cx.session.client.allowed_on_any(TOPIC_WRITE);
            if may_write { Ok(()) } else { Err(code) }
        }),
    }
}

fn refusal(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(code.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}
