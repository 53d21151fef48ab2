//! DescribeTransactions (KIP-664): the states of transactional ids that this broker coordinates.

use kafka_protocol::messages::{
    ApiKey, DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TransactionalId,
    describe_transactions_response::{TopicData, TransactionState},
};

use super::{
    Context, ErrorCode, Handler, Reply, conversions,
    conversions::{str_bytes, topic_name},
    error_counts::{each, error_codes},
    errors,
};
use crate::{
    base::TopicPartition,
    coordinator::txn::messages::TxnDescription,
    protocol::checks::{TOPIC_DESCRIBE, TRANSACTIONAL_ID_DESCRIBE},
};

pub struct DescribeTransactions;

impl Handler for DescribeTransactions {
    const API: ApiKey = ApiKey::DescribeTransactions;
    type Request = DescribeTransactionsRequest;
    type Response = DescribeTransactionsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeTransactionsRequest,
    ) -> Reply<DescribeTransactionsResponse> {
        let mut states = Vec::with_capacity(request.transactional_ids.len());
        for id in request.transactional_ids {
            let described = describe(cx, &id).await;
            states.push(state(cx, id, described));
        }
        Reply::Now(DescribeTransactionsResponse::default().with_transaction_states(states))
    }
}

error_codes!(DescribeTransactionsResponse: |it| each!(it.transaction_states));

async fn describe(cx: &Context<'_>, id: &TransactionalId) -> Result<TxnDescription, ErrorCode> {
    cx.check(TRANSACTIONAL_ID_DESCRIBE, id)?;
    let transactions = &cx.broker.coordinators.transactions;
    transactions.describe(conversions::text(id)).await.map_err(errors::transaction)
}

fn state(
    cx: &Context<'_>,
    id: TransactionalId,
    described: Result<TxnDescription, ErrorCode>,
) -> TransactionState {
    let state = TransactionState::default().with_transactional_id(id);
    let described = match described {
        Ok(described) => described,
        Err(code) => return state.with_error_code(code.code()),
    };
    let mut topics = TopicPartition::by_topic(&described.partitions);
    topics.retain(|name, _| cx.allowed(TOPIC_DESCRIBE, name));
    let topic = |(name, partitions): (&str, Vec<i32>)| {
        TopicData::default().with_topic(topic_name(name)).with_partitions(partitions)
    };
    state
        .with_producer_id(ProducerId(described.producer.id))
        .with_producer_epoch(described.producer.epoch)
        .with_transaction_state(str_bytes(described.state))
        .with_transaction_timeout_ms(described.timeout_ms)
        .with_transaction_start_time_ms(described.start_ms)
        .with_topics(topics.into_iter().map(topic).collect())
}
