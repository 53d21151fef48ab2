//! Record batches (magic 2): header view over shared bytes, CRC, record iterator and builder, codecs.
//! Pure: no files, no clock, no leaders.

pub mod batch;

pub use batch::{Batch, BatchError, BatchHeader, Compression, TimestampType};
