//! What the coordinator does by itself: it aborts transactions that have timed out, and deletes
//! transactional ids that have not been used for long.

use std::sync::Arc;

use super::{
    Record, Refused, TimerKey, Turn, TxnError,
    messages::{Effect, TxnOutcome},
    state::{Transaction, TxnState},
};
use crate::records::Producer;

impl Turn<'_> {
    /// Aborts all transactions that have timed out. Sets the timer of the next search.
    pub(super) fn abort_overdue(&mut self) {
        let logged = self.logged;
        for (id, txn) in &logged.transactions {
            if !txn.is_overdue(0, self.now_ms) {
                continue;
            }
            let Some(current) = self.current(id) else { continue };
            // Another error is logged where it occurs. The next search tries again.
            if self.fence(id, current, TxnOutcome::TimedOut, None) == Err(Refused::NeedsProducerId)
            {
                self.effect(Effect::AbortTimedOut { id: id.clone(), producer: txn.producer });
            }
        }
        self.set_timer(TimerKey::Abort, self.volatile.config.abort_interval_ms);
    }

    /// Aborts a transaction that has timed out and needed a producer id. Does nothing if it has
    /// ended meanwhile.
    pub(super) fn abort_timed_out(
        &mut self,
        id: &Arc<str>,
        producer: Producer,
        new_producer_id: i64,
    ) -> Result<(), TxnError> {
        let now_ms = self.now_ms;
        let is_same = |txn: &Transaction| txn.producer == producer && txn.is_overdue(0, now_ms);
        let Some(txn) = self.current(id).filter(is_same) else { return Ok(()) };
        match self.fence(id, txn, TxnOutcome::TimedOut, Some(new_producer_id)) {
            Ok(()) => Ok(()),
            Err(Refused::Error(error)) => Err(error),
            Err(Refused::NeedsProducerId) => unreachable!("the request has one"),
        }
    }

    /// Deletes the ids that have not changed for `transactional.id.expiration.ms`. Sets the timer of
    /// the next search.
    pub(super) fn expire_ids(&mut self) {
        let since_ms = self.now_ms.saturating_sub(self.volatile.config.id_expiration_ms);
        let logged = self.logged;
        for (id, txn) in &logged.transactions {
            let is_idle = txn.state != TxnState::Ongoing && !txn.state.is_prepare();
            if is_idle && txn.last_update_ms <= since_ms {
                self.volatile.unlogged.remove(id);
                self.out.records.push(Record::Expired { id: id.clone() });
            }
        }
        self.set_timer(TimerKey::Expire, self.volatile.config.expiry_interval_ms);
    }
}
