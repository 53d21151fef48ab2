//! ListTransactions (KIP-664). This broker does not have a transaction coordinator yet, so its list
//! is empty. If it leads a partition of `__transaction_state`, Apache Kafka may have written
//! transactions there that this broker has not loaded. The response is then an error, not an empty
//! list.

use std::collections::HashSet;

use kafka_protocol::messages::{ApiKey, ListTransactionsRequest, ListTransactionsResponse};

use super::{Context, ErrorCode, Handler, Reply, error_counts::error_codes};
use crate::broker::{Broker, TRANSACTIONS_TOPIC};

/// The states that a filter can name (`TransactionState`).
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

pub struct ListTransactions;

impl Handler for ListTransactions {
    const API: ApiKey = ApiKey::ListTransactions;
    type Request = ListTransactionsRequest;
    type Response = ListTransactionsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: ListTransactionsRequest,
    ) -> Reply<ListTransactionsResponse> {
        let response = ListTransactionsResponse::default();
        if leads_transaction_state(cx.broker) {
            let code = ErrorCode::CoordinatorNotAvailable.code();
            return Reply::Now(response.with_error_code(code));
        }
        let pattern = request.transactional_id_pattern.as_deref().unwrap_or_default();
        if regex_syntax::parse(pattern).is_err() {
            let code = ErrorCode::InvalidRegularExpression.code();
            return Reply::Now(response.with_error_code(code));
        }
        let mut unknown = request.state_filters;
        unknown.retain(|state| !STATES.contains(&state.as_str()));
        let mut seen = HashSet::new();
        unknown.retain(|state| seen.insert(state.clone()));
        Reply::Now(response.with_unknown_state_filters(unknown))
    }
}

error_codes!(ListTransactionsResponse: |it| [it.error_code]);

fn leads_transaction_state(broker: &Broker) -> bool {
    let image = broker.metadata();
    let topic = image.topic(TRANSACTIONS_TOPIC);
    topic.is_some_and(|topic| topic.partitions.iter().any(|it| it.leader == broker.node.id))
}
