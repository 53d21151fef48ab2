//! The state of the idempotent and transactional producers of a log (Kafka's
//! `ProducerStateManager`): the last batches of each, to tell a repeated batch from a new one and a
//! new one from a gap, and the open transactions.

mod entry;
mod guards;
mod marker;
mod order;

use std::collections::{BTreeMap, HashMap};

use self::{entry::LastMarker, guards::Guards, order::Known};
pub use self::{
    entry::{BatchMeta, ProducerEntry},
    marker::Marker,
    order::{ProducerCheck, ProducerError},
};
use super::aborted::AbortedTxn;
use crate::{
    base::planted_bugs::{Bug, has_bug},
    records::{
        Batch, BatchHeader, Producer, TransactionVersion, TxnMarker, Verification,
        VerificationGuard,
    },
};

/// The states of all producers of a log.
#[derive(Debug, Clone, Default)]
pub struct Producers {
    entries: HashMap<i64, ProducerEntry>,
    /// Open transactions: producer ids by first offset.
    open_txns: BTreeMap<i64, i64>,
    /// Ended transactions whose markers may not be below the high watermark yet: first offsets by
    /// the offset of the marker.
    unreplicated_txns: BTreeMap<i64, i64>,
    guards: Guards,
    /// The state includes all batches before this offset.
    end_offset: i64,
    /// Offset of the newest snapshot file, or of the start of the state.
    snapshot_offset: i64,
}

impl Producers {
    /// An empty state that begins at `offset`.
    pub fn starting_at(offset: i64) -> Self {
        Self { end_offset: offset, snapshot_offset: offset, ..Self::default() }
    }

    /// The state in the snapshot file of `offset`, without expired producers.
    pub fn from_snapshot(
        offset: i64,
        entries: Vec<(i64, ProducerEntry)>,
        expired_before_ms: i64,
    ) -> Self {
        let mut producers = Self::starting_at(offset);
        producers.entries = entries.into_iter().collect();
        let open = producers.entries.iter();
        producers.open_txns =
            open.filter_map(|(id, entry)| Some((entry.current_txn_first_offset?, *id))).collect();
        producers.expire(expired_before_ms);
        producers
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, &ProducerEntry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// First offset of the oldest transaction that is open or whose marker may not be below the
    /// high watermark yet.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        let open = self.open_txns.keys().next();
        open.into_iter().chain(self.unreplicated_txns.values()).copied().min()
    }

    /// Open transactions as pairs of first offset and producer id, in the order of first offsets.
    pub fn open_transactions(&self) -> impl ExactSizeIterator<Item = (i64, i64)> {
        self.open_txns.iter().map(|(first, producer_id)| (*first, *producer_id))
    }

    /// Removes ended transactions whose markers are below `offset`, which is the high watermark or
    /// the log start.
    pub fn forget_ended_below(&mut self, offset: i64) {
        if self.unreplicated_txns.keys().next().is_some_and(|first| *first < offset) {
            self.unreplicated_txns = self.unreplicated_txns.split_off(&offset);
        }
    }

    /// The offset of the snapshot that is due; `None` if the last one has the current state.
    pub fn snapshot_due(&self) -> Option<i64> {
        (self.end_offset > self.snapshot_offset).then_some(self.end_offset)
    }

    pub fn snapshot_taken(&mut self) {
        self.snapshot_offset = self.end_offset;
    }

    /// Notes that the state includes all batches before `offset`.
    pub fn includes_all_before(&mut self, offset: i64) {
        self.end_offset = self.end_offset.max(offset);
    }

    /// Removes producers without an open transaction that last wrote at or before `before_ms`, and
    /// guards that were created by then.
    pub fn expire(&mut self, before_ms: i64) {
        self.guards.expire(before_ms);
        self.entries.retain(|_, entry| {
            entry.last_timestamp > before_ms || entry.current_txn_first_offset.is_some()
        });
    }

    /// Whether any producer last wrote at `since_ms` or later.
    pub fn wrote_since(&self, since_ms: i64) -> bool {
        self.entries.values().any(|entry| entry.last_timestamp >= since_ms)
    }

    /// Adds batches that were read from the log to the producers of a snapshot. The batches of each
    /// producer are in the order of the log.
    pub fn recall(&mut self, batches: &HashMap<i64, Vec<BatchHeader>>) {
        for (id, batches) in batches {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let (epoch, Some(last)) = (entry.epoch, entry.last_batch().copied()) else { continue };
            let is_known = |header: &&BatchHeader| {
                header.producer_epoch == epoch && header.last_offset() <= last.last_offset
            };
            let last_timestamp = entry.last_timestamp;
            entry.batch_count = 0;
            batches.iter().filter(is_known).for_each(|header| entry.note(header));
            if entry.last_batch().is_none_or(|found| found.last_offset < last.last_offset) {
                entry.push(epoch, last);
            }
            entry.last_timestamp = last_timestamp;
        }
    }

    fn known(&self, producer_id: i64) -> Known<'_> {
        Known { entry: self.entries.get(&producer_id), pending: self.guards.get(producer_id) }
    }

    /// Returns the guard that a producer needs to begin a transaction in this log, or `None` if its
    /// transaction is open. `sequence` is that of the batch to append, or -1 if it has none.
    pub fn verification_guard(
        &mut self,
        producer: Producer,
        sequence: i32,
        version: TransactionVersion,
        now_ms: i64,
    ) -> Result<Option<VerificationGuard>, ProducerError> {
        let needs_guard = self.known(producer.id).needs_verification(producer)?;
        Ok(needs_guard.then(|| self.guards.obtain(producer, sequence, version, now_ms)))
    }

    /// Compares a client's batch with the state of its producer. A transactional batch needs an
    /// open transaction, or a verification that allows to begin one. If `requires_zero`, an unknown
    /// producer must begin with sequence 0, because the log never had a record.
    pub fn check(
        &self,
        header: &BatchHeader,
        verification: Verification,
        requires_zero: bool,
    ) -> Result<ProducerCheck, ProducerError> {
        if !header.has_producer_id() {
            return Ok(ProducerCheck::Append);
        }
        let known = self.known(header.producer_id);
        if let Some(batch) = known.entry.and_then(|entry| entry.duplicate_of(header)) {
            return Ok(ProducerCheck::Duplicate {
                base_offset: batch.first_offset(),
                last_offset: batch.last_offset,
                timestamp: batch.timestamp,
            });
        }
        let is_transactional = header.is_transactional();
        if is_transactional {
            known.check_transaction(Producer::of(header), verification)?;
        }
        known.check_sequence(header, requires_zero)?;
        let open_txn = known.entry.is_some_and(|entry| entry.current_txn_first_offset.is_some());
        if open_txn && !is_transactional {
            return Err(ProducerError::TransactionOpen { producer_id: header.producer_id });
        }
        Ok(ProducerCheck::Append)
    }

    /// Checks that the producer may write in a transaction; see [`Known::check_transaction`].
    pub fn check_transaction(
        &self,
        producer: Producer,
        verification: Verification,
    ) -> Result<(), ProducerError> {
        self.known(producer.id).check_transaction(producer, verification)
    }

    /// Fails if the last seen epoch of the producer is newer.
    pub fn check_epoch(&self, producer: Producer) -> Result<(), ProducerError> {
        self.known(producer.id).check_epoch(producer)
    }

    /// Checks the epochs of a marker that this log would append as leader.
    pub fn check_marker(&self, marker: &TxnMarker) -> Result<(), ProducerError> {
        self.known(marker.producer.id).check_marker(marker)
    }

    /// The offset of a marker that the log already has; see [`ProducerEntry::offset_of_marker`].
    /// `None` if the marker must be appended again, because it voids a guard: in transaction
    /// version 1, it may belong to the transaction that the guard was given out for.
    pub fn offset_of_marker(&self, marker: &TxnMarker) -> Option<i64> {
        if self.guards.has_voidable(marker.producer, true) {
            return None;
        }
        self.entries.get(&marker.producer.id)?.offset_of_marker(marker)
    }

    /// Adds an appended batch to the state. Returns the transaction that it aborts, if it is an
    /// ABORT marker of a producer with an open transaction.
    pub fn apply(&mut self, batch: &Batch) -> Option<AbortedTxn> {
        let header = &batch.header;
        self.end_offset = header.last_offset() + 1;
        if !header.has_producer_id() {
            return None;
        }
        if header.is_transactional() {
            self.guards.appended(header);
        }
        let entry = self.entries.entry(header.producer_id).or_default();
        if header.is_control() {
            let marker = Marker::of(batch).ok()??;
            entry.set_epoch(header.producer_epoch);
            entry.coordinator_epoch = marker.coordinator_epoch;
            entry.last_timestamp = marker.timestamp;
            entry.last_marker =
                Some(LastMarker { offset: header.base_offset, commits: !marker.aborts });
            let first_offset = entry.current_txn_first_offset.take()?;
            self.open_txns.remove(&first_offset);
            let (producer_id, last_offset) = (header.producer_id, header.base_offset);
            if !has_bug(Bug::EarlyStableOffset) {
                self.unreplicated_txns.insert(last_offset, first_offset);
            }
            let last_stable_offset = self.open_txns.keys().next().copied();
            let last_stable_offset = last_stable_offset.unwrap_or(last_offset + 1);
            let aborted = AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset };
            return marker.aborts.then_some(aborted);
        }
        entry.note(header);
        if header.is_transactional() && entry.current_txn_first_offset.is_none() {
            entry.current_txn_first_offset = Some(header.base_offset);
            self.open_txns.insert(header.base_offset, header.producer_id);
        }
        None
    }
}
