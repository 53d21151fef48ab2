//! Record batches (magic 2): header, CRC, iterators over records, the builder, the codecs, and the
//! validation of produced batches.
//!
//! This folder does not depend on files, the clock, leaders, topic configuration or wire error
//! codes.
//!
//! Invariants:
//! - No input causes a panic.
//! - A whole batch is decompressed into memory only with a size limit. Otherwise, it is
//!   decompressed in chunks of bounded size.
//! - The key, the value and the headers of a record are slices of the batch, not copies.
//! - Headers keep their order and their duplicates.

pub mod batch;
pub mod builder;
pub mod compression;
pub mod control;
mod crc;
pub mod record;
mod stream;
pub mod transaction;
pub mod validate;
mod varint;

pub use batch::{Batch, BatchError, BatchHeader, Compression, TimestampType};
pub use builder::{BatchBuilder, BatchOptions};
pub use compression::{CodecError, compress};
pub use control::ControlRecordType;
pub use record::{Frame, Frames, Record, RecordError, RecordSummary, Records};
pub use stream::DECOMPRESSED_MAX;
pub use transaction::{Producer, TransactionVersion, TxnMarker, Verification, VerificationGuard};
pub use validate::{
    AppendRefused, AppendRules, RefusedKind, TopicCompression, validate_for_append,
};

#[cfg(test)]
mod tests;
