//! The batches of a shard: their headers by [`BatchKind`], and the batch that is being filled.

use bytes::Bytes;

use crate::{
    coordinator::{BatchKind, Shard},
    records::{Batch, BatchBuilder, BatchHeader, BatchOptions, ControlRecordType, Producer},
};

impl BatchKind {
    pub fn of(header: &BatchHeader) -> Self {
        let producer = Producer { id: header.producer_id, epoch: header.producer_epoch };
        match (header.is_control(), header.is_transactional()) {
            (true, _) => Self::Control(producer),
            (false, true) => Self::Transactional(producer),
            (false, false) => Self::Plain,
        }
    }

    /// The header fields as Kafka's coordinators write them. `base_sequence` is that of batches
    /// without a producer. Those in transactions have 0, and markers have none.
    fn options(self, base_sequence: i32) -> BatchOptions {
        let plain = BatchOptions { base_sequence, ..BatchOptions::default() };
        let of = |producer: Producer| BatchOptions {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            is_transactional: true,
            ..BatchOptions::default()
        };
        match self {
            Self::Plain => plain,
            Self::Transactional(producer) => BatchOptions { base_sequence: 0, ..of(producer) },
            Self::Control(producer) => BatchOptions { is_control: true, ..of(producer) },
        }
    }
}

/// Applies the marker of a transaction. `key` is its key in the log.
pub fn end_transaction<S: Shard>(logged: &mut S::LoggedState, producer_id: i64, key: &[u8]) {
    let commits = ControlRecordType::from_key(key) == Ok(ControlRecordType::Commit);
    S::end_transaction(logged, producer_id, commits);
}

/// Records that have been applied, but not appended yet. All of them go into one batch.
pub struct OpenBatch {
    kind: BatchKind,
    /// The base sequence of batches without a producer.
    base_sequence: i32,
    builder: BatchBuilder,
}

impl OpenBatch {
    /// `base_sequence` is [`Shard::BASE_SEQUENCE`].
    pub fn new(kind: BatchKind, base_sequence: i32) -> Self {
        Self { kind, base_sequence, builder: BatchBuilder::new(kind.options(base_sequence)) }
    }

    pub fn is_empty(&self) -> bool {
        self.builder.count() == 0
    }

    /// Whether records of this kind and of up to `len` bytes can be added to the batch.
    pub fn has_room_for(&self, kind: BatchKind, len: usize, max_batch_bytes: usize) -> bool {
        let is_marker = matches!(kind, BatchKind::Control(_));
        let is_same = self.kind == kind && !is_marker;
        self.is_empty() || (is_same && self.builder.size() + len <= max_batch_bytes)
    }

    /// Adds a record. Panics if the batch has records of another kind.
    pub fn push(&mut self, kind: BatchKind, now_ms: i64, key: &[u8], value: Option<&[u8]>) {
        if self.kind != kind {
            assert!(self.is_empty(), "a batch has records of one kind");
            *self = Self::new(kind, self.base_sequence);
        }
        self.builder.append(now_ms, Some(key), value, &[]);
    }

    /// Takes the records, and leaves an empty batch. Panics if there are none.
    pub fn take(&mut self) -> Batch {
        std::mem::replace(self, Self::new(self.kind, self.base_sequence)).builder.build()
    }
}

/// An upper bound of the bytes that a record takes in a batch.
pub fn record_len((key, value): &(Bytes, Option<Bytes>)) -> usize {
    const LENGTHS_AND_DELTAS: usize = 36;
    LENGTHS_AND_DELTAS + key.len() + value.as_ref().map_or(0, Bytes::len)
}
