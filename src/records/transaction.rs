//! What brokers, coordinators and partition leaders tell each other about a producer's transaction.

use super::{
    Batch, BatchBuilder, BatchHeader, BatchOptions, ControlRecordType, TimestampType,
    control::EndTxnMarker,
};

/// A producer of transactional records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

impl Producer {
    /// The producer of a batch. The batch must have a producer id.
    pub fn of(header: &BatchHeader) -> Self {
        Self { id: header.producer_id, epoch: header.producer_epoch }
    }
}

/// The protocol of a transactional request (KIP-890, Kafka's `TransactionVersion`). The version of
/// the request decides it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransactionVersion {
    #[default]
    V0,
    /// As `V0`. Records of `__transaction_state` may have tagged fields.
    V1,
    /// Each transaction has its own producer epoch, and a partition is added by its first batch.
    V2,
}

impl TransactionVersion {
    /// The version of a finalised level of the feature `transaction.version`.
    pub fn of_level(level: i16) -> Self {
        match level {
            ..=0 => Self::V0,
            1 => Self::V1,
            2.. => Self::V2,
        }
    }

    pub fn level(self) -> i16 {
        self as i16
    }

    /// Whether the epoch of the producer rises at the end of each transaction.
    pub fn bumps_epoch(self) -> bool {
        self == Self::V2
    }
}

/// The end of a producer's transaction, as its coordinator has decided it. Each partition of the
/// transaction gets a control record with it (WriteTxnMarkers, Kafka's `TxnMarkerEntry`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxnMarker {
    pub producer: Producer,
    /// Whether the transaction commits. Otherwise it aborts.
    pub commits: bool,
    /// Leader epoch of the coordinator's partition of `__transaction_state`.
    pub coordinator_epoch: i32,
    /// The protocol of the transaction. It decides which producer epochs a partition accepts.
    pub version: TransactionVersion,
}

impl TxnMarker {
    /// The control batch with the marker, with the same bytes as Kafka's
    /// `MemoryRecords.withEndTransactionMarker`. The log assigns base offset and leader epoch.
    pub fn to_batch(&self, timestamp_type: TimestampType, now_ms: i64) -> Batch {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: self.producer.id,
            producer_epoch: self.producer.epoch,
            timestamp_type,
            log_append_time: now_ms,
            is_transactional: true,
            is_control: true,
            ..BatchOptions::default()
        });
        let record_type = match self.commits {
            true => ControlRecordType::Commit,
            false => ControlRecordType::Abort,
        };
        let value = EndTxnMarker { coordinator_epoch: self.coordinator_epoch }.to_value();
        builder.append(now_ms, Some(&record_type.to_key()), Some(&value), &[]);
        builder.build()
    }
}

/// A number that a partition leader gives out before it asks a coordinator about a producer
/// (KIP-890, Kafka's `VerificationGuard`). The batch is appended only if the producer's state still
/// has the same number. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerificationGuard(pub u64);

/// What allows a batch to begin a producer's transaction in a partition. It is determined once for
/// each request, so that a change of `transaction.partition.verification.enable` does not affect
/// requests that the broker has begun to handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// Nothing: the transaction must already be open in the partition.
    MustBeOpen,
    /// The coordinator has agreed. The guard must still be valid, or the transaction open.
    Guard(VerificationGuard),
    /// Verification is off. Any batch may begin a transaction.
    NotRequired,
}

/// A partition gives out no guard if the producer's transaction is open there.
impl From<Option<VerificationGuard>> for Verification {
    fn from(guard: Option<VerificationGuard>) -> Self {
        guard.map_or(Self::MustBeOpen, Self::Guard)
    }
}
