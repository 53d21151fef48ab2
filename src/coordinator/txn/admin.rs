//! DescribeTransactions, ListTransactions, and the numbers of transactions for metrics.

use super::{
    Turn, TxnError,
    messages::{ListRequest, ListedTxn, TxnDescription, TxnSurvey},
    state::Transaction,
};

/// How long after its timeout an open transaction counts as late, in milliseconds.
const LATE_MS: i64 = 5 * 60 * 1_000;

impl Turn<'_> {
    pub(super) fn describe(&self, id: &str) -> Result<TxnDescription, TxnError> {
        let txn = self.logged.transactions.get(id).ok_or(TxnError::TransactionalIdNotFound)?;
        let partitions = match self.volatile.waiting.get(id) {
            Some(waiting) => &waiting.partitions,
            None => &*txn.partitions,
        };
        Ok(TxnDescription {
            producer: txn.producer,
            state: txn.state.name(),
            timeout_ms: txn.timeout_ms,
            start_ms: txn.start_ms,
            partitions: partitions.iter().cloned().collect(),
        })
    }

    pub(super) fn list(&self, request: &ListRequest) -> Vec<ListedTxn> {
        let ListRequest { producer_ids, states, longer_than_ms } = request;
        let passes = |txn: &Transaction| {
            (producer_ids.is_empty() || producer_ids.contains(&txn.producer.id))
                && (states.is_empty() || states.iter().any(|name| **name == *txn.state.name()))
                && longer_than_ms.is_none_or(|ms| self.now_ms.saturating_sub(txn.start_ms) > ms)
        };
        let listed = self.logged.transactions.iter().filter(|(_, txn)| passes(txn));
        let listed = listed.map(|(id, txn)| ListedTxn {
            id: id.clone(),
            producer_id: txn.producer.id,
            state: txn.state.name(),
        });
        listed.collect()
    }

    pub(super) fn survey(&self) -> TxnSurvey {
        let mut survey = TxnSurvey::default();
        for txn in self.logged.transactions.values() {
            *survey.states.entry(txn.state.name()).or_default() += 1;
            survey.late += usize::from(txn.is_overdue(LATE_MS, self.now_ms));
        }
        let waiting = self.volatile.waiting.values();
        survey.waiting_markers = waiting.map(|waiting| waiting.partitions.len()).sum();
        survey
    }
}
