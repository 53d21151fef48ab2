//! Record batches (magic 2): header view over shared bytes, CRC, record iterator and builder,
//! codecs, and the checks that a produced batch must pass.
//!
//! Must not know: files, the clock, leaders, topics' configuration, wire error codes.
//!
//! Invariants: no input makes any of it panic; no decoder allocates more than the limit it is given
//! plus a small constant; key, value and headers are slices of the batch, never copies; headers
//! keep their order and their duplicates.

pub mod batch;
pub mod builder;
pub mod compression;
pub mod control;
mod crc;
pub mod record;
pub mod validate;
mod varint;

pub use batch::{Batch, BatchError, BatchHeader, Compression, TimestampType};
pub use builder::{BatchBuilder, BatchOptions};
pub use compression::{CodecError, compress, decompress};
pub use control::ControlRecordType;
pub use record::{Frame, Frames, Record, RecordError, Records};
pub use validate::{
    AppendRefused, AppendRules, RefusedKind, TopicCompression, validate_for_append,
};

#[cfg(test)]
mod tests;
