//! The state of one producer: its epochs, its newest batches, and the begin of its transaction.
//!
//! After a leader change, it keeps more batches than Kafka does. A client has up to five batches in
//! flight to each broker. While the client waits for responses from the former leader, it may send
//! newer batches to the new leader. It repeats the older ones only after those.

use crate::records::{BatchHeader, TxnMarker, batch::NO_SEQUENCE};

pub const NO_EPOCH: i16 = -1;
pub const NO_COORDINATOR_EPOCH: i32 = -1;
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

/// The offset and the kind of a transaction marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastMarker {
    pub offset: i64,
    pub commits: bool,
}

/// The state of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    pub epoch: i16,
    /// Epoch of the coordinator that ended the last transaction; -1 before the first end.
    pub coordinator_epoch: i32,
    pub last_timestamp: i64,
    pub current_txn_first_offset: Option<i64>,
    /// The last marker of the producer. Snapshots do not have it.
    pub(in crate::log) last_marker: Option<LastMarker>,
    pub(in crate::log) batches: [BatchMeta; BATCHES_MAX],
    pub(in crate::log) batch_count: usize,
    /// The leader epoch that the newest batch was written in; -1 if unknown.
    pub(in crate::log) leader_epoch: i32,
    /// Number of batches written in it, counted up to `BATCHES_MAX + 1`.
    pub(in crate::log) written_in_epoch: usize,
    /// Batches that the first batches of a leader epoch have displaced from `batches`. The client
    /// may still repeat them, because it may not have received the former leader's responses, while
    /// the new leader already acknowledges newer batches.
    pub(in crate::log) earlier: Vec<BatchMeta>,
}

impl Default for ProducerEntry {
    fn default() -> Self {
        Self {
            epoch: NO_EPOCH,
            coordinator_epoch: NO_COORDINATOR_EPOCH,
            last_timestamp: -1,
            current_txn_first_offset: None,
            last_marker: None,
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

    /// Whether the producer has a transaction open in this epoch. A newer epoch begins another one.
    pub fn has_open_transaction(&self, epoch: i16) -> bool {
        self.current_txn_first_offset.is_some() && self.epoch == epoch
    }

    /// The offset of the producer's last marker, if `marker` equals it and no transaction has begun
    /// since. Also `None` if the last marker was read from a snapshot.
    pub fn offset_of_marker(&self, marker: &TxnMarker) -> Option<i64> {
        let is_equal = |last: &LastMarker| {
            last.commits == marker.commits
                && self.epoch == marker.producer.epoch
                && self.coordinator_epoch == marker.coordinator_epoch
                && self.current_txn_first_offset.is_none()
        };
        self.last_marker.filter(is_equal).map(|last| last.offset)
    }

    /// Last sequence number of the newest batch; -1 if no batch is known.
    pub fn last_sequence(&self) -> i32 {
        self.last_batch().map_or(NO_SEQUENCE, |last| last.last_sequence)
    }

    pub(in crate::log) fn push(&mut self, epoch: i16, batch: BatchMeta) {
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
    pub fn note(&mut self, header: &BatchHeader) {
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

    pub fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.batch_count = 0;
            self.batches = Default::default();
            self.earlier = Vec::new();
            self.epoch = epoch;
        }
    }

    pub fn duplicate_of(&self, header: &BatchHeader) -> Option<&BatchMeta> {
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
