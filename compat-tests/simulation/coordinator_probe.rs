//! A client that asks brokers for the state of a transactional id until its coordinator answers.

use kafka_protocol::messages::{DescribeTransactionsRequest, TransactionalId};
use sordini::peers::Address;

use crate::{client::Client, node::BROKER_PORT, requests::text};

/// Asks the given brokers in turn until one returns the state of the transactional id, and then
/// notes it in the history.
pub async fn run(mut client: Client, id: String, brokers: Vec<i32>) {
    let ids = vec![TransactionalId(text(&id))];
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    loop {
        for broker in &brokers {
            let address = Address { host: format!("n{broker}"), port: BROKER_PORT };
            let answer = client.ask(&address, 0, &request).await;
            let state = answer.and_then(|mut it| it.transaction_states.pop());
            if state.is_some_and(|it| it.error_code == 0) {
                client.history.lock().served.insert(client.name.clone());
                return;
            }
        }
        client.rest().await;
    }
}
