//! Record batches (magic 2): header view over shared bytes, CRC, record iterator and builder,
//! codecs, and the checks that a produced batch must pass.
//!
//! Must not know: files, the clock, leaders, topics' configuration, wire error codes.
//!
//! Invariants: no input makes any of it panic; what a batch decompresses to is kept only where a
//! limit is given, else it is read in chunks of bounded size; key, value and headers are slices of
//! the batch, never copies; headers keep their order and their duplicates.

pub mod batch;
pub mod builder;
pub mod compression;
pub mod control;
mod crc;
pub mod record;
mod stream;
pub mod validate;
mod varint;

pub use batch::{Batch, BatchError, BatchHeader, Compression, TimestampType};
pub use builder::{BatchBuilder, BatchOptions};
pub use compression::{CodecError, compress};
pub use control::ControlRecordType;
pub use record::{Frame, Frames, Record, RecordError, RecordSummary, Records};
pub use validate::{
    AppendRefused, AppendRules, RefusedKind, TopicCompression, validate_for_append,
};

#[cfg(test)]
mod tests;
