//! EndTxn: commits or aborts the open transaction of a producer. The response leaves once the
//! decision is committed to `__transaction_state`. The markers are written afterwards.

use kafka_protocol::messages::{ApiKey, EndTxnRequest, EndTxnResponse, ProducerId};

use super::{Context, ErrorCode, Handler, Reply, conversions, error_counts::error_codes, errors};
use crate::{
    coordinator::txn::messages::EndRequest,
    protocol::checks::TRANSACTIONAL_ID_WRITE,
    records::{Producer, TransactionVersion},
};

pub struct EndTxn;

/// The first version whose clients know PRODUCER_FENCED (KIP-588).
const PRODUCER_FENCED_SINCE: i16 = 2;
/// The first version of transaction version 2, with a new producer epoch in the response.
const TRANSACTION_V2_SINCE: i16 = 5;

impl Handler for EndTxn {
    const API: ApiKey = ApiKey::EndTxn;
    type Request = EndTxnRequest;
    type Response = EndTxnResponse;

    async fn handle(cx: &mut Context<'_>, request: EndTxnRequest) -> Reply<EndTxnResponse> {
        if let Err(code) = cx.check(TRANSACTIONAL_ID_WRITE, &request.transactional_id) {
            return Reply::Now(response(Err(code)));
        }
        let version = match cx.version {
            ..TRANSACTION_V2_SINCE => TransactionVersion::V0,
            _ => TransactionVersion::V2,
        };
        let end = EndRequest {
            id: conversions::text(&request.transactional_id),
            producer: Producer { id: request.producer_id.0, epoch: request.producer_epoch },
            commits: request.committed,
            version,
        };
        // The next request of the connection may already begin the next transaction.
        let ids = &cx.broker.membership.producer_ids;
        let ended = cx.broker.coordinators.transactions.end(end, ids).await;
        let is_old = cx.version < PRODUCER_FENCED_SINCE;
        let code = |error| errors::fenced(errors::transaction(error), is_old);
        Reply::Now(response(ended.map_err(code)))
    }
}

error_codes!(EndTxnResponse: |it| [it.error_code]);

fn response(producer: Result<Producer, ErrorCode>) -> EndTxnResponse {
    let code = producer.as_ref().map_or_else(|code| code.code(), |_| errors::NONE);
    let producer = producer.unwrap_or(Producer { id: -1, epoch: -1 });
    EndTxnResponse::default()
        .with_error_code(code)
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
}
