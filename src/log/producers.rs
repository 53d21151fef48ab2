//! The state of the idempotent and transactional producers of a log (Kafka's
//! `ProducerStateManager`, `ProducerStateEntry`, `ProducerAppendInfo`): the last five batches of
//! each, to tell a repeated batch from a new one, and a new one from a gap.
//!
//! After a leader change, it keeps more batches than Kafka does. A client has up to five batches in
//! flight to each broker. While the client waits for responses from the former leader, it may send
//! newer batches to the new leader. It repeats the older ones only after those.

use std::collections::{BTreeMap, HashMap};

use super::aborted::AbortedTxn;
use crate::records::{
    Batch, BatchHeader, ControlRecordType, batch::NO_SEQUENCE, control::EndTxnMarker,
};

/// Most bytes of a control record, even if it was compressed. Real ones are much smaller.
const MARKER_LEN_MAX: usize = 1 << 16;
const NO_EPOCH: i16 = -1;
const NO_LEADER_EPOCH: i32 = -1;
/// Number of batches that a client can have in flight, and that are remembered.
const BATCHES_MAX: usize = 5;

/// The sequence numbers and offsets of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchMeta {
    pub last_sequence: i32,
    pub last_offset: i64,
    /// Last offset minus first offset.
    pub offset_delta: i32,
    /// Largest timestamp of the batch, in ms.
    pub timestamp: i64,
}

impl BatchMeta {
    pub fn first_sequence(&self) -> i32 {
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        match first < 0 {
            true => (first + i64::from(i32::MAX) + 1) as i32,
            false => first as i32,
        }
    }

    pub fn of(header: &BatchHeader) -> Self {
        Self {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        }
    }

    pub fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// The state of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    pub epoch: i16,
    /// Epoch of the coordinator that ended the last transaction; -1 before the first end.
    pub coordinator_epoch: i32,
    pub last_timestamp: i64,
    pub current_txn_first_offset: Option<i64>,
    pub(super) batches: [BatchMeta; BATCHES_MAX],
    pub(super) batch_count: usize,
    /// The leader epoch that the newest batch was written in; -1 if unknown.
    pub(super) leader_epoch: i32,
    /// Number of batches written in it, counted up to `BATCHES_MAX + 1`.
    pub(super) written_in_epoch: usize,
    /// Batches that the first batches of a leader epoch have displaced from `batches`. The client
    /// may still repeat them, because it may not have received the former leader's responses, while
    /// the new leader already acknowledges newer batches.
    pub(super) earlier: Vec<BatchMeta>,
}

impl Default for ProducerEntry {
    fn default() -> Self {
        Self {
            epoch: NO_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: -1,
            current_txn_first_offset: None,
            batches: [BatchMeta::default(); BATCHES_MAX],
            batch_count: 0,
            leader_epoch: NO_LEADER_EPOCH,
            written_in_epoch: 0,
            earlier: Vec::new(),
        }
    }
}

impl ProducerEntry {
    /// The remembered batches, oldest first.
    pub fn batches(&self) -> &[BatchMeta] {
        &self.batches[..self.batch_count]
    }

    pub fn last_batch(&self) -> Option<&BatchMeta> {
        self.batches().last()
    }

    /// Last sequence number of the newest batch; -1 if no batch is known.
    pub fn last_sequence(&self) -> i32 {
        self.last_batch().map_or(NO_SEQUENCE, |last| last.last_sequence)
    }

    pub(super) fn push(&mut self, epoch: i16, batch: BatchMeta) {
        self.set_epoch(epoch);
        if self.batch_count == BATCHES_MAX {
            self.batches.rotate_left(1);
            self.batch_count -= 1;
        }
        self.batches[self.batch_count] = batch;
        self.batch_count += 1;
        self.last_timestamp = batch.timestamp;
    }

    /// Adds a batch that was appended.
    fn note(&mut self, header: &BatchHeader) {
        if self.leader_epoch != header.leader_epoch {
            (self.leader_epoch, self.written_in_epoch) = (header.leader_epoch, 0);
        }
        self.written_in_epoch = (self.written_in_epoch + 1).min(BATCHES_MAX + 1);
        if self.written_in_epoch <= BATCHES_MAX && self.batch_count == BATCHES_MAX {
            self.earlier.push(self.batches[0]);
            let too_many = self.earlier.len().saturating_sub(BATCHES_MAX);
            self.earlier.drain(..too_many);
        }
        self.push(header.producer_epoch, BatchMeta::of(header));
    }

    fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.batch_count = 0;
            self.batches = Default::default();
            self.earlier = Vec::new();
            self.epoch = epoch;
        }
    }

    fn duplicate_of(&self, header: &BatchHeader) -> Option<&BatchMeta> {
        let same = |batch: &&BatchMeta| {
            batch.first_sequence() == header.base_sequence
                && batch.last_sequence == header.last_sequence()
        };
        // Sequence numbers repeat after 2^31 records. If a batch is more than half of that older
        // than the newest one, it is not the batch that the client repeats.
        let behind = |batch: &&BatchMeta| {
            self.last_sequence().wrapping_sub(batch.last_sequence) & i32::MAX < 1 << 30
        };
        let mut known = self.batches().iter().chain(self.earlier.iter().filter(behind));
        known.find(same).filter(|_| header.producer_epoch == self.epoch)
    }
}

/// The result of comparing a batch with the state of its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerCheck {
    Append,
    /// The log already has the batch.
    Duplicate {
        base_offset: i64,
        last_offset: i64,
        timestamp: i64,
    },
    /// The batch repeats the pending batch with this index.
    DuplicatePending(usize),
}

/// Why a batch does not follow the earlier batches of its producer.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum ProducerError {
    #[error(
        "epoch {epoch} of producer {producer_id} is smaller than the last seen epoch {current_epoch}"
    )]
    InvalidEpoch { producer_id: i64, epoch: i16, current_epoch: i16 },
    #[error(
        "producer {producer_id} sent sequence {sequence} in epoch {epoch} after sequence \
        {current_sequence} in epoch {current_epoch}"
    )]
    OutOfOrderSequence {
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        current_epoch: i16,
        current_sequence: i32,
    },
    #[error("producer {producer_id} has a transaction open and wrote outside of it")]
    TransactionOpen { producer_id: i64 },
}

impl ProducerError {
    /// Whether batches are missing before the refused one.
    pub fn is_gap(&self) -> bool {
        match self {
            Self::OutOfOrderSequence {
                epoch, sequence, current_epoch, current_sequence, ..
            } => epoch > current_epoch || sequence.wrapping_sub(*current_sequence) > 0,
            Self::InvalidEpoch { .. } | Self::TransactionOpen { .. } => false,
        }
    }
}

/// The states of all producers of a log.
#[derive(Debug, Clone, Default)]
pub struct Producers {
    entries: HashMap<i64, ProducerEntry>,
    /// Open transactions: producer ids by first offset.
    open_txns: BTreeMap<i64, i64>,
    /// Ended transactions whose markers may not be below the high watermark yet: first offsets by
    /// the offset of the marker.
    unreplicated_txns: BTreeMap<i64, i64>,
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
    pub fn advance_to(&mut self, offset: i64) {
        self.forget_ended_below(offset);
        self.end_offset = self.end_offset.max(offset);
    }

    /// Removes producers without an open transaction that last wrote at or before `before_ms`.
    pub fn expire(&mut self, before_ms: i64) {
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

    /// Compares a client's batch with the state of its producer, as if `pending` were appended
    /// already.
    pub fn check(
        &self,
        pending: &[Batch],
        header: &BatchHeader,
    ) -> Result<ProducerCheck, ProducerError> {
        if !header.has_producer_id() {
            return Ok(ProducerCheck::Append);
        }
        let stored = self.entries.get(&header.producer_id);
        if let Some(batch) = stored.and_then(|entry| entry.duplicate_of(header)) {
            return Ok(ProducerCheck::Duplicate {
                base_offset: batch.first_offset(),
                last_offset: batch.last_offset,
                timestamp: batch.timestamp,
            });
        }
        let is_same = |batch: &Batch| {
            let other = &batch.header;
            (other.producer_id, other.producer_epoch, other.base_sequence, other.last_sequence())
                == (
                    header.producer_id,
                    header.producer_epoch,
                    header.base_sequence,
                    header.last_sequence(),
                )
        };
        let is_own = |batch: &&Batch| batch.header.producer_id == header.producer_id;
        if header.base_sequence != NO_SEQUENCE
            && let Some(index) = pending.iter().position(is_same)
        {
            return Ok(ProducerCheck::DuplicatePending(index));
        }
        let last_pending = pending.iter().rfind(is_own).map(|batch| &batch.header);
        let (epoch, sequence) = match (last_pending, stored) {
            (Some(last), _) => (last.producer_epoch, last.last_sequence()),
            (None, Some(entry)) => (entry.epoch, entry.last_sequence()),
            (None, None) => (NO_EPOCH, NO_SEQUENCE),
        };
        check_order(header, epoch, sequence)?;
        let open_txn = stored.is_some_and(|entry| entry.current_txn_first_offset.is_some());
        if open_txn && !header.is_transactional() && !header.is_control() {
            return Err(ProducerError::TransactionOpen { producer_id: header.producer_id });
        }
        Ok(ProducerCheck::Append)
    }

    /// Adds an appended batch to the state. Returns the transaction that it aborts, if it is an
    /// ABORT marker of a producer with an open transaction.
    pub fn apply(&mut self, batch: &Batch) -> Option<AbortedTxn> {
        let header = &batch.header;
        self.end_offset = header.last_offset() + 1;
        if !header.has_producer_id() {
            return None;
        }
        let entry = self.entries.entry(header.producer_id).or_default();
        if header.is_control() {
            let marker = Marker::of(batch).ok()??;
            entry.set_epoch(header.producer_epoch);
            entry.coordinator_epoch = marker.coordinator_epoch;
            entry.last_timestamp = marker.timestamp;
            let first_offset = entry.current_txn_first_offset.take()?;
            self.open_txns.remove(&first_offset);
            let (producer_id, last_offset) = (header.producer_id, header.base_offset);
            self.unreplicated_txns.insert(last_offset, first_offset);
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

fn check_order(header: &BatchHeader, epoch: i16, sequence: i32) -> Result<(), ProducerError> {
    let producer_id = header.producer_id;
    if header.producer_epoch < epoch {
        let (epoch, current_epoch) = (header.producer_epoch, epoch);
        return Err(ProducerError::InvalidEpoch { producer_id, epoch, current_epoch });
    }
    // Control batches and a coordinator's batches have no sequence. A producer that is unknown or
    // has expired may begin with any sequence.
    if header.base_sequence == NO_SEQUENCE || header.is_control() || epoch == NO_EPOCH {
        return Ok(());
    }
    let in_order = match header.producer_epoch == epoch {
        false => header.base_sequence == 0,
        true => {
            i64::from(header.base_sequence) == i64::from(sequence) + 1
                || (header.base_sequence == 0 && sequence == i32::MAX)
        }
    };
    if in_order {
        return Ok(());
    }
    Err(ProducerError::OutOfOrderSequence {
        producer_id,
        epoch: header.producer_epoch,
        sequence: header.base_sequence,
        current_epoch: epoch,
        current_sequence: sequence,
    })
}

/// The content of a transaction marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marker {
    aborts: bool,
    coordinator_epoch: i32,
    /// Timestamp of the record, which may differ from that in the batch header.
    timestamp: i64,
}

/// The error for a control batch with a producer id whose record is not a transaction marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoMarker;

impl Marker {
    /// Reads the marker of a control batch; `None` if compaction has removed its record.
    pub(super) fn of(batch: &Batch) -> Result<Option<Self>, NoMarker> {
        let mut records = batch.records(MARKER_LEN_MAX).map_err(|_| NoMarker)?;
        let Some(record) = records.next() else { return Ok(None) };
        let record = record.map_err(|_| NoMarker)?;
        let (key, value) = (record.key.ok_or(NoMarker)?, record.value.ok_or(NoMarker)?);
        let aborts = match ControlRecordType::from_key(&key) {
            Ok(ControlRecordType::Abort) => true,
            Ok(ControlRecordType::Commit) => false,
            _ => return Err(NoMarker),
        };
        let value = EndTxnMarker::from_value(&value).map_err(|_| NoMarker)?;
        let (coordinator_epoch, timestamp) = (value.coordinator_epoch, record.timestamp);
        Ok(Some(Self { aborts, coordinator_epoch, timestamp }))
    }
}
