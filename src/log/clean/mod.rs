//! Log compaction: the last record of each key stays, older ones are removed (Kafka's `Cleaner`).
//!
//! A round ([`clean`]) maps each key to its last offset ([`KeyMapper`]) and then passes the batches
//! of the log through a [`Filter`]. Both work on batches in memory, so that they can be tested
//! without a disk. Around them, `reader` and `output` read and write segments, and `replacement`
//! exchanges them.
//!
//! Invariants:
//! - The last record of a key, in the order of the log, never goes, unless it is a tombstone whose
//!   delete horizon has passed.
//! - Offsets and the order of records never change.
//! - Records at or above the end offset of the round stay.

mod error;
mod filter;
mod groups;
mod keys;
mod map;
mod output;
mod pace;
mod range;
mod reader;
mod replacement;
mod round;
mod survivors;
mod transactions;

pub use error::{CleanError, Uncleanable};
pub use filter::{Filter, FilterRules, FilterStats, Filtered, LastRecord};
pub use keys::{KeyMapper, MapStats, Mapped};
pub use map::OffsetMap;
pub use pace::Pace;
pub use range::LogToClean;
pub use round::{CleanOptions, CleanRange, CleanStats, Cleaned, CleanedLog, clean};
pub use survivors::Survivors;

use bytes::Bytes;

use crate::records::{
    Batch, BatchHeader, CodecError, DECOMPRESSED_MAX, RecordError, control::ControlError,
};

/// Why a batch makes its partition uncleanable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("batch at offset {base_offset}: {reason}")]
pub struct BatchProblem {
    /// The base offset of the batch.
    pub base_offset: i64,
    pub reason: ProblemReason,
}

/// What is wrong with a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProblemReason {
    /// The header, the CRC or the records. An older format is `BatchError::UnsupportedMagic`.
    #[error(transparent)]
    Records(#[from] RecordError),
    #[error("cannot read the type of a control record: {0}")]
    Control(#[from] ControlError),
    #[error("a control record has no key")]
    NoControlKey,
    #[error("last offset delta {0} is out of bounds")]
    BadOffsets(i32),
}

/// Fails if the offsets of a batch cannot be those of a log.
fn check_offsets(header: &BatchHeader) -> Result<(), ProblemReason> {
    match header.has_valid_offsets() {
        true => Ok(()),
        false => Err(ProblemReason::BadOffsets(header.last_offset_delta)),
    }
}

/// The records of a batch without compression; `None` if they exceed the limit for decompression.
/// Such a batch stays whole and its keys are not mapped. [`Filter`] keeps the tombstones after it.
fn uncompressed_records(batch: &Batch) -> Result<Option<Bytes>, RecordError> {
    if batch.header.record_count == 0 && !batch.payload.is_empty() {
        return Err(RecordError::TrailingBytes);
    }
    match batch.uncompressed_payload(DECOMPRESSED_MAX) {
        Err(RecordError::Codec(CodecError::TooLarge { .. })) => Ok(None),
        payload => payload.map(Some),
    }
}

#[cfg(test)]
mod tests;
