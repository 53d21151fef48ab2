//! EndTxn, and the end of a transaction by the coordinator itself.

use std::sync::Arc;

use super::{
    Refused, Turn, TxnError,
    messages::{EndRequest, ShardEffect, TxnOutcome},
    state::{Transaction, TxnState, is_epoch_exhausted},
};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    records::{Producer, TransactionVersion},
};

/// What EndTxn below version 5 returns: its response has no producer.
const NO_PRODUCER: Producer = Producer { id: -1, epoch: -1 };

impl Turn<'_> {
    /// EndTxn. Returns the producer of the client's next transaction in version 2, otherwise
    /// [`NO_PRODUCER`].
    pub(super) fn end(
        &mut self,
        request: &EndRequest,
        new_producer_id: Option<i64>,
    ) -> Result<Producer, Refused> {
        let txn = self.current(&request.id).ok_or(TxnError::InvalidProducerIdMapping)?;
        match request.version.bumps_epoch() {
            true => self.end_with_next_epoch(request, txn, new_producer_id),
            false => self.end_with_same_epoch(request, txn).map(|()| NO_PRODUCER),
        }
    }

    /// EndTxn below transaction version 2. A retry has the same epoch as its first attempt.
    fn end_with_same_epoch(
        &mut self,
        request: &EndRequest,
        txn: Transaction,
    ) -> Result<(), Refused> {
        let &EndRequest { ref id, producer, commits, version: _ } = request;
        if txn.producer.id != producer.id {
            return Err(TxnError::InvalidProducerIdMapping.into());
        }
        if txn.producer.epoch != producer.epoch {
            return Err(TxnError::ProducerFenced.into());
        }
        match txn.state {
            TxnState::Ongoing => {
                let outcome = TxnOutcome::of_client(commits);
                self.end_transaction(id, &txn, TransactionVersion::V0, outcome, None)?;
                Ok(())
            }
            TxnState::PrepareCommit | TxnState::PrepareAbort => {
                Err(TxnError::ConcurrentTransactions.into())
            }
            TxnState::CompleteCommit if commits => Ok(()),
            TxnState::CompleteAbort if !commits => Ok(()),
            _ => Err(TxnError::InvalidTxnState.into()),
        }
    }

    /// EndTxn of transaction version 2. Each end gives the producer another epoch, so a retry has
    /// the epoch before the current one, or the last epoch of the previous producer id.
    fn end_with_next_epoch(
        &mut self,
        request: &EndRequest,
        txn: Transaction,
        new_producer_id: Option<i64>,
    ) -> Result<Producer, Refused> {
        let &EndRequest { ref id, producer, commits, version } = request;
        if txn.state.is_prepare() {
            return Err(TxnError::ConcurrentTransactions.into());
        }
        let repeats_last_epoch = producer.id == txn.previous_id
            && producer.epoch == i16::MAX - 1
            && txn.producer.epoch == 0;
        let repeats_epoch = i32::from(txn.producer.epoch) == i32::from(producer.epoch) + 1;
        let is_retry = repeats_last_epoch || repeats_epoch;
        if txn.producer.id != producer.id && !repeats_last_epoch {
            return Err(TxnError::InvalidProducerIdMapping.into());
        }
        let may_be_retry = !matches!(txn.state, TxnState::Empty | TxnState::Ongoing);
        if txn.producer.epoch != producer.epoch
            && !(may_be_retry && is_retry)
            && !has_bug(Bug::LateEndTxn)
        {
            return Err(TxnError::ProducerFenced.into());
        }
        match txn.state {
            TxnState::CompleteCommit if is_retry && commits => Ok(txn.producer),
            TxnState::CompleteAbort if is_retry && !commits => Ok(txn.producer),
            TxnState::CompleteCommit | TxnState::CompleteAbort if is_retry => {
                Err(TxnError::InvalidTxnState.into())
            }
            // A client may abort without knowing whether a partition was added.
            _ if txn.state == TxnState::Ongoing || !commits => {
                let outcome = TxnOutcome::of_client(commits);
                self.end_transaction(id, &txn, version, outcome, new_producer_id)
            }
            _ => Err(TxnError::InvalidTxnState.into()),
        }
    }

    /// Aborts an open transaction, so that its producer's epoch is no longer the current one.
    pub(super) fn fence(
        &mut self,
        id: &Arc<str>,
        mut txn: Transaction,
        outcome: TxnOutcome,
        new_producer_id: Option<i64>,
    ) -> Result<(), Refused> {
        let fenced = txn.producer;
        let version = self.volatile.version;
        let version = if version.bumps_epoch() { version } else { TransactionVersion::V0 };
        if !version.bumps_epoch() {
            txn.producer.epoch = fenced.epoch.saturating_add(1);
            txn.last_epoch = -1;
        }
        self.end_transaction(id, &txn, version, outcome, new_producer_id)?;
        let Producer { id: producer_id, epoch: producer_epoch } = fenced;
        tracing::info!(
            transactional_id = &**id,
            producer_id,
            producer_epoch,
            reason = outcome.name(),
            "transaction aborted by its coordinator"
        );
        Ok(())
    }

    /// Writes the Prepare record and requests the markers. Returns the producer of the next
    /// transaction.
    fn end_transaction(
        &mut self,
        id: &Arc<str>,
        txn: &Transaction,
        version: TransactionVersion,
        outcome: TxnOutcome,
        new_producer_id: Option<i64>,
    ) -> Result<Producer, Refused> {
        let needs_id = version.bumps_epoch() && is_epoch_exhausted(txn.producer.epoch);
        let next_id = match needs_id {
            true => Some(new_producer_id.ok_or(Refused::NeedsProducerId)?),
            false => None,
        };
        let commits = outcome == TxnOutcome::Committed;
        let ended = txn.ended(commits, version, next_id, self.now_ms);
        let ended = ended.ok_or(TxnError::UnknownServerError)?;
        self.check_size(id, &ended.partitions)?;
        self.write(id, ended.clone());
        self.out.effects.push(ShardEffect::Ended(outcome));
        if ended.partitions.is_empty() {
            self.complete(id, &ended);
        } else {
            self.request_markers(id, &ended);
        }
        Ok(ended.completed(self.now_ms).producer)
    }
}
