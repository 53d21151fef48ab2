//! Reads the batches of a segment in large pieces, from a position to the end.
//!
//! A reader leaves the page cache as it was. If a part of the segment is not cached, the reader
//! drops what it has read, because otherwise a round would push the newest batches of all logs out
//! of the page cache. Of a cached segment, it drops nothing, because consumers may read it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{
    super::{
        disk::{DiskFile, read_exact_at},
        error::ReadError,
        segment::Segment,
        view::{corrupt, io_error},
    },
    CleanError, Pace,
    pace::pass,
};
use crate::records::{Batch, BatchHeader, batch::HEADER_LEN};

/// A reader of a segment that does not change any more. It checks the CRC of each batch.
pub struct BatchReader<'s> {
    segment: &'s Segment,
    file: Arc<dyn DiskFile>,
    /// Whether the page cache had all that the reader reads.
    was_cached: bool,
    /// Bytes to read at once. A larger batch is read as a whole.
    chunk: usize,
    /// Bytes that were read and not returned yet, and the position of their first byte.
    buffer: Bytes,
    position: u64,
    end: u64,
}

impl<'s> BatchReader<'s> {
    /// A reader from `position`, at which a batch begins. It reads `chunk` bytes at once.
    pub fn new(segment: &'s Segment, position: u64, chunk: usize) -> Result<Self, CleanError> {
        let file = segment.file().map_err(|error| io_error(segment, error))?;
        let (buffer, end) = (Bytes::new(), segment.size());
        let was_cached = file.is_cached(position, end.saturating_sub(position) as usize);
        let chunk = chunk.max(HEADER_LEN);
        Ok(Self { segment, file, was_cached, chunk, buffer, position, end })
    }

    /// Whether the page cache had all that the reader reads, when the reader was created.
    pub fn was_cached(&self) -> bool {
        self.was_cached
    }

    /// Returns the next batch, or `None` at the end of the segment. Calls `pace` after each read of
    /// the file.
    pub fn next(&mut self, pace: &mut dyn Pace) -> Result<Option<Batch>, CleanError> {
        if self.position >= self.end {
            return Ok(None);
        }
        self.fill(HEADER_LEN, pace)?;
        let header = BatchHeader::parse(&self.buffer);
        let header = header.map_err(|error| self.corrupt(error.to_string()))?;
        self.fill(header.size(), pace)?;
        let batch = Batch::split_first(&mut self.buffer);
        let batch = batch.map_err(|error| self.corrupt(error.to_string()))?;
        batch.verify_crc().map_err(|error| self.corrupt(error.to_string()))?;
        if header.base_offset < self.segment.base_offset || !header.has_valid_offsets() {
            return Err(self.corrupt("the offsets of a batch are invalid".to_owned()).into());
        }
        self.position += batch.size() as u64;
        Ok(Some(batch))
    }

    /// Reads until the buffer has `len` bytes. Fails if the segment ends before.
    fn fill(&mut self, len: usize, pace: &mut dyn Pace) -> Result<(), CleanError> {
        if self.buffer.len() >= len {
            return Ok(());
        }
        let left = self.end - self.position;
        if (len as u64) > left {
            let what = format!("a batch of {len} bytes where {left} bytes are left");
            return Err(self.corrupt(what).into());
        }
        let want = (len.max(self.chunk) as u64).min(left) as usize;
        let have = self.buffer.len();
        // The memory is used again if the caller has dropped all batches.
        let mut bytes = BytesMut::from(std::mem::take(&mut self.buffer));
        bytes.resize(want, 0);
        let read = read_exact_at(&*self.file, &mut bytes[have..], self.position + have as u64);
        read.map_err(|error| io_error(self.segment, error))?;
        self.buffer = bytes.freeze();
        if !self.was_cached {
            // From the start of the file, because the kernel keeps a large page that is not read to
            // its end yet.
            self.file.drop_cached(self.position + want as u64);
        }
        pass(pace, (want - have) as u64)
    }

    fn corrupt(&self, what: String) -> ReadError {
        corrupt(self.segment, self.position, what)
    }
}
