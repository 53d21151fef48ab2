//! ListTransactions (KIP-664): the transactional ids that this broker coordinates.

use std::collections::HashSet;

use kafka_protocol::messages::{
    ApiKey, ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
    list_transactions_response::TransactionState,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{str_bytes, text},
    error_counts::error_codes,
    errors,
};
use crate::{
    base::re2::Pattern,
    coordinator::txn::{messages::ListRequest, state::is_state_name},
    protocol::checks::TRANSACTIONAL_ID_DESCRIBE,
};

pub struct ListTransactions;

impl Handler for ListTransactions {
    const API: ApiKey = ApiKey::ListTransactions;
    type Request = ListTransactionsRequest;
    type Response = ListTransactionsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: ListTransactionsRequest,
    ) -> Reply<ListTransactionsResponse> {
        Reply::Now(list(cx, request).await.unwrap_or_else(|code| {
            ListTransactionsResponse::default().with_error_code(code.code())
        }))
    }
}

error_codes!(ListTransactionsResponse: |it| [it.error_code]);

async fn list(
    cx: &Context<'_>,
    request: ListTransactionsRequest,
) -> Result<ListTransactionsResponse, ErrorCode> {
    let filter = ListRequest {
        producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
        states: request.state_filters.iter().map(text).collect(),
        longer_than_ms: Some(request.duration_filter).filter(|duration| *duration >= 0),
    };
    let transactions = &cx.broker.coordinators.transactions;
    let mut listed = transactions.list(filter).await.map_err(errors::transaction)?;
    let pattern = request.transactional_id_pattern.as_deref().unwrap_or_default();
    if !pattern.is_empty() {
        let pattern = Pattern::new(pattern).map_err(|_| ErrorCode::InvalidRegularExpression)?;
        listed.retain(|transaction| pattern.matches(&transaction.id));
    }
    listed.retain(|transaction| cx.allowed(TRANSACTIONAL_ID_DESCRIBE, &transaction.id));
    let states = listed.into_iter().map(|transaction| {
        TransactionState::default()
            .with_transactional_id(TransactionalId(str_bytes(&transaction.id)))
            .with_producer_id(ProducerId(transaction.producer_id))
            .with_transaction_state(str_bytes(transaction.state))
    });
    let mut unknown = request.state_filters;
    unknown.retain(|state| !is_state_name(state));
    let mut seen = HashSet::new();
    unknown.retain(|state| seen.insert(state.clone()));
    Ok(ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown)
        .with_transaction_states(states.collect()))
}
