//! Writes the segment that replaces a group of segments: `*.cleaned` files with indexes, synced
//! once at the end.

use std::sync::Arc;

use super::{
    super::{
        AbortedTxn, Disk, LogError,
        disk::{OpenMode, write_all_at},
        error::During,
        names::Kind,
        segment::{Home, OWN_KINDS, Segment},
    },
    CleanError, Pace, Uncleanable,
    pace::pass,
};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    records::{Batch, BatchHeader},
};

/// Kafka stores positions in an index as `int`.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// A new segment while it is written. Its files are removed when it is dropped before
/// [`Self::finish`].
pub struct Output {
    segment: Arc<Segment>,
    index_interval: u64,
    /// Bytes to write at once.
    chunk: usize,
    buffer: Vec<u8>,
    /// The headers of the batches in the buffer.
    headers: Vec<BatchHeader>,
    /// Whether the segment stays in the page cache.
    stays_cached: bool,
    is_finished: bool,
}

impl Output {
    /// Creates the empty files.
    pub fn create(
        disk: Arc<dyn Disk>,
        home: Arc<Home>,
        base_offset: i64,
        index_interval: u64,
        chunk: usize,
    ) -> Result<Self, LogError> {
        Ok(Self {
            segment: Arc::new(Segment::create_cleaned(disk, home, base_offset)?),
            index_interval,
            chunk,
            buffer: Vec::new(),
            headers: Vec::new(),
            stays_cached: true,
            is_finished: false,
        })
    }

    /// Appends a batch. Writes a full buffer, and calls `pace` after that.
    pub fn append(&mut self, batch: &Batch, pace: &mut dyn Pace) -> Result<(), CleanError> {
        let (base_offset, offset) = (self.segment.base_offset, batch.header.last_offset());
        if offset - base_offset > i64::from(i32::MAX) {
            return Err(self.uncleanable(Uncleanable::OffsetOverflow { base_offset, offset }));
        }
        let pending = self.buffer.len() + batch.size();
        if self.segment.size() + pending as u64 > SEGMENT_BYTES_MAX {
            return Err(self.uncleanable(Uncleanable::SegmentTooLarge));
        }
        if pending > self.chunk {
            self.write(pace)?;
        }
        self.buffer.extend_from_slice(&batch.header.to_bytes());
        self.buffer.extend_from_slice(&batch.payload);
        self.headers.push(batch.header);
        Ok(())
    }

    fn uncleanable(&self, problem: Uncleanable) -> CleanError {
        CleanError::Uncleanable { path: self.segment.path(Kind::Log), problem }
    }

    fn write(&mut self, pace: &mut dyn Pace) -> Result<(), CleanError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let path = self.segment.path(Kind::Log);
        let written = self
            .segment
            .file()
            .and_then(|file| write_all_at(&*file, &self.buffer, self.segment.size()));
        written.during("write", &path)?;
        let bytes = self.buffer.len() as u64;
        self.buffer.clear();
        // The buffer is that of one large batch.
        self.buffer.shrink_to(self.chunk);
        if self.segment.record_appended(self.headers.drain(..), self.index_interval) {
            self.segment.write_indexes().during("write the indexes of", &path)?;
        }
        pass(pace, bytes)
    }

    /// Notes whether an old segment was in the page cache. Unless all were, the new one does not
    /// stay there, either.
    pub fn note_cached(&mut self, was_cached: bool) {
        self.stays_cached &= was_cached;
    }

    /// Adds entries to the transaction index. They must be in the order of their markers.
    pub fn note_aborted(&mut self, aborted: Vec<AbortedTxn>) {
        self.segment.txns.state().pending.extend(aborted);
    }

    /// Writes what is in memory, sets the modification time, and makes all files durable.
    pub fn finish(
        mut self,
        modified_ms: i64,
        pace: &mut dyn Pace,
    ) -> Result<Arc<Segment>, CleanError> {
        self.write(pace)?;
        let path = self.segment.path(Kind::Log);
        self.segment.seal().during("write the indexes of", &path)?;
        let txns = self.segment.path(Kind::TxnIndex);
        self.segment.write_aborted().during("write", &txns)?;
        let disk = &self.segment.files.disk;
        disk.set_modified_ms(&path, modified_ms).during("set the time of", &path)?;
        for kind in OWN_KINDS {
            let path = self.segment.path(kind);
            match self.segment.files.open(kind, OpenMode::Write) {
                Ok(_) if has_bug(Bug::UnsyncedSwap) => {}
                Ok(file) => file.sync_data().during("sync", &path)?,
                // A segment without aborted transactions has no transaction index.
                Err(error)
                    if kind == Kind::TxnIndex && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).during("open", &path)?,
            }
        }
        if !self.stays_cached {
            let file = self.segment.file().during("open", &path)?;
            file.drop_cached(self.segment.size());
        }
        self.segment.take_index_dirty();
        self.segment.take_aborted_dirty();
        self.segment.close_file();
        self.is_finished = true;
        Ok(self.segment.clone())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        // The next start removes files that are left.
        if let Err(error) = self.segment.files.remove() {
            tracing::warn!(%error, "cannot remove the files of an incomplete cleaned segment");
        }
    }
}
