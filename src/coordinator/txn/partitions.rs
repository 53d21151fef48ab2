//! AddPartitionsToTxn: adds partitions to a transaction, or looks whether it has them.

use super::{
    Turn, TxnError,
    messages::{AddRequest, Verified, VerifyRequest},
    state::{Transaction, TxnState},
};
use crate::records::Producer;

impl Turn<'_> {
    /// Adds partitions to the producer's transaction, and begins one if none is open.
    pub(super) fn add(&mut self, request: &AddRequest) -> Result<(), TxnError> {
        let AddRequest { id, producer, partitions, version } = request;
        let txn = self.current(id).ok_or(TxnError::InvalidProducerIdMapping)?;
        // This check is first, because a producer may use the producer id that follows the ended
        // transaction already.
        if txn.state.is_prepare() {
            return Err(TxnError::ConcurrentTransactions);
        }
        check_producer(&txn, *producer)?;
        let has = |partition| txn.partitions.contains(partition);
        if txn.state == TxnState::Ongoing && partitions.iter().all(has) {
            return Ok(());
        }
        let txn = txn.with_partitions(partitions, *version, self.now_ms);
        self.check_size(id, &txn.partitions)?;
        self.write(id, txn);
        Ok(())
    }

    /// Returns for each partition whether the producer's open transaction has it.
    pub(super) fn verify(&self, request: VerifyRequest) -> Result<Verified, TxnError> {
        let VerifyRequest { id, producer, partitions } = request;
        let txn = self.logged.transactions.get(&id).ok_or(TxnError::InvalidProducerIdMapping)?;
        check_producer(txn, producer)?;
        if txn.state.is_prepare() {
            return Err(TxnError::ConcurrentTransactions);
        }
        let verified = partitions.into_iter().map(|partition| {
            let has = txn.partitions.contains(&partition);
            (partition, has)
        });
        Ok(verified.collect())
    }
}

fn check_producer(txn: &Transaction, producer: Producer) -> Result<(), TxnError> {
    if txn.producer.id != producer.id {
        return Err(TxnError::InvalidProducerIdMapping);
    }
    if txn.producer.epoch != producer.epoch {
        return Err(TxnError::ProducerFenced);
    }
    Ok(())
}
