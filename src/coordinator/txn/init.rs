//! InitProducerId with a transactional id.

use super::{
    Refused, Turn, TxnError,
    messages::{InitRequest, TxnOutcome},
    state::{Partitions, Transaction, TxnState, is_epoch_exhausted},
};
use crate::records::Producer;

impl Turn<'_> {
    /// Gives the client a producer with the next epoch. An open transaction is aborted first. The
    /// client then sends the request again, and gets the epoch after the one that fences.
    pub(super) fn init(
        &mut self,
        request: &InitRequest,
        new_producer_id: Option<i64>,
    ) -> Result<Producer, Refused> {
        let InitRequest { id, timeout_ms, expected } = request;
        self.check_size(id, &Partitions::new())?;
        let txn = match self.current(id) {
            Some(txn) => txn,
            None => Transaction::new(new_producer_id.ok_or(Refused::NeedsProducerId)?),
        };
        if txn.state.is_prepare() {
            return Err(TxnError::ConcurrentTransactions.into());
        }
        if expected.is_some_and(|expected| !may_continue(&txn, expected)) {
            return Err(TxnError::ProducerFenced.into());
        }
        if txn.state == TxnState::Ongoing {
            self.fence(id, txn, TxnOutcome::Fenced, new_producer_id)?;
            return Err(TxnError::ConcurrentTransactions.into());
        }
        let (producer, last_epoch) = next_producer(&txn, *expected, new_producer_id)?;
        self.write(id, txn.initialized(producer, last_epoch, *timeout_ms, self.now_ms));
        Ok(producer)
    }
}

/// Whether the producer that a client had before may continue. Its epoch is checked by
/// [`next_producer`]. The previous producer id is the expected one if the client repeats a request
/// that has replaced an exhausted id.
fn may_continue(txn: &Transaction, expected: Producer) -> bool {
    txn.producer.epoch == -1
        || expected.id == txn.producer.id
        || (expected.id == txn.previous_id && is_epoch_exhausted(expected.epoch))
}

/// The next producer, and the epoch with which the client may repeat the request.
fn next_producer(
    txn: &Transaction,
    expected: Option<Producer>,
    new_producer_id: Option<i64>,
) -> Result<(Producer, i16), Refused> {
    let Producer { id, epoch } = txn.producer;
    let expected = expected.map(|expected| expected.epoch);
    if is_epoch_exhausted(epoch) {
        // Kafka fails here, too, instead of answering a retry.
        if expected.is_some_and(|expected| expected != epoch) {
            return Err(TxnError::UnknownServerError.into());
        }
        let id = new_producer_id.ok_or(Refused::NeedsProducerId)?;
        return Ok((Producer { id, epoch: 0 }, expected.unwrap_or(-1)));
    }
    let next = Producer { id, epoch: epoch + 1 };
    match expected {
        None => Ok((next, -1)),
        Some(expected) if epoch == -1 || expected == epoch => Ok((next, epoch)),
        // The client repeats a request whose response it has not received.
        Some(expected) if expected == txn.last_epoch => Ok((txn.producer, txn.last_epoch)),
        Some(_) => Err(TxnError::ProducerFenced.into()),
    }
}
