//! InitProducerId: a producer id for an idempotent producer, or the producer id and epoch of a
//! transactional id. The latter ends a transaction that an earlier producer with the same
//! transactional id has left open.

use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Context, ErrorCode, Handler, Reply, conversions, error_counts::error_codes, errors};
use crate::{
    broker::Broker,
    coordinator::{ProducerIdSource, txn::messages::InitRequest},
    protocol::checks::{CLUSTER_IDEMPOTENT_WRITE, TOPIC_WRITE, TRANSACTIONAL_ID_WRITE},
    records::Producer,
};

pub struct InitProducerId;

/// The first version whose clients know PRODUCER_FENCED (KIP-588).
const PRODUCER_FENCED_SINCE: i16 = 4;

impl Handler for InitProducerId {
    const API: ApiKey = ApiKey::InitProducerId;
    type Request = InitProducerIdRequest;
    type Response = InitProducerIdResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: InitProducerIdRequest,
    ) -> Reply<InitProducerIdResponse> {
        let expected = check(cx, &request).and_then(|()| expected(&request));
        let expected = match expected {
            Ok(expected) => expected,
            Err(code) => return Reply::Now(response(Err(code))),
        };
        // The next request of the connection may already use the producer.
        let producer = producer(cx.broker, &request, expected).await;
        let is_old = cx.version < PRODUCER_FENCED_SINCE;
        Reply::Now(response(producer.map_err(|code| errors::fenced(code, is_old))))
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

/// The producer that the client had before (KIP-360). A request has both its id and its epoch, or
/// neither.
fn expected(request: &InitProducerIdRequest) -> Result<Option<Producer>, ErrorCode> {
    match (request.producer_id.0, request.producer_epoch) {
        (-1, -1) => Ok(None),
        (-1, _) | (_, -1) => Err(ErrorCode::InvalidRequest),
        (id, epoch) => Ok(Some(Producer { id, epoch })),
    }
}

async fn producer(
    broker: &Broker,
    request: &InitProducerIdRequest,
    expected: Option<Producer>,
) -> Result<Producer, ErrorCode> {
    let ids: &dyn ProducerIdSource = &broker.membership.producer_ids;
    let Some(id) = &request.transactional_id else {
        let id = ids.next().await.map_err(|()| ErrorCode::CoordinatorLoadInProgress)?;
        return Ok(Producer { id, epoch: 0 });
    };
    let request = InitRequest {
        id: conversions::text(id),
        timeout_ms: request.transaction_timeout_ms,
        expected,
    };
    broker.coordinators.transactions.init(request, ids).await.map_err(errors::transaction)
}

fn response(producer: Result<Producer, ErrorCode>) -> InitProducerIdResponse {
    let code = producer.as_ref().map_or_else(|code| code.code(), |_| errors::NONE);
    let producer = producer.unwrap_or(Producer { id: -1, epoch: -1 });
    InitProducerIdResponse::default()
        .with_error_code(code)
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
}
