//! The offset and time index of a segment. They are hints: without them, a lookup walks the `.log`
//! file. A failure to read or write an index file therefore fails no append, lookup or truncation,
//! as long as a wrong file can be removed.
//!
//! Invariants:
//! - Entries that could not be written stay in memory and are written with the next block. A failed
//!   write keeps at most [`KEPT_MAX`] per index.
//! - A start assumes that the index files of a sealed segment below the recovery point are
//!   complete, and rebuilds those that are missing. So before a flush moves the recovery point past
//!   a segment, its index files are completed or removed.

use std::{io, sync::Arc};

use super::{
    super::{
        disk::{DiskFile, OpenMode, write_all_at},
        index::{Entries, Entry, OffsetEntry, TimeEntry},
        names::Kind,
    },
    Segment,
};

/// Number of entries in memory at which they are written to the file in one block.
const PENDING_MAX: usize = 512;
/// Most entries of an index that a failed write keeps in memory.
const KEPT_MAX: usize = 4 * PENDING_MAX;

/// Both index files of a segment.
const INDEXES: [Kind; 2] = [Kind::Index, Kind::TimeIndex];

/// An index: entries in the file, followed by entries in memory.
#[derive(Debug)]
pub(super) struct Index<E> {
    /// Number of entries in the file; `None` until a lookup or a write needs it.
    pub stored: Option<u32>,
    pub pending: Vec<E>,
    pub last: Option<E>,
    /// Number of pending entries at which they are to be written.
    write_at: usize,
}

impl<E: Entry> Index<E> {
    pub fn new(stored: Option<u32>) -> Self {
        Self { stored, pending: Vec::new(), last: None, write_at: PENDING_MAX }
    }

    pub fn push(&mut self, entry: E) {
        self.pending.push(entry);
        self.last = Some(entry);
    }

    fn len(&self) -> usize {
        self.stored.unwrap_or(0) as usize + self.pending.len()
    }

    pub fn is_write_due(&self) -> bool {
        self.pending.len() >= self.write_at
    }

    /// Receives the result of writing all pending entries: the number of entries in the file, or
    /// `None` if there was nothing to write. After a failure, the entries stay in memory. If there
    /// are too many, every second one is dropped, so lookups walk further. The last one is kept,
    /// because the last entry of a time index has the largest timestamp of the segment.
    fn finish_write(&mut self, written: io::Result<Option<u32>>) -> io::Result<()> {
        match written {
            Ok(None) => {}
            Ok(stored) => {
                self.stored = stored;
                self.pending = Vec::new();
                self.write_at = PENDING_MAX;
            }
            Err(error) => {
                while self.pending.len() > KEPT_MAX {
                    let mut behind = self.pending.len();
                    self.pending.retain(|_| {
                        behind -= 1;
                        behind.is_multiple_of(2)
                    });
                }
                self.write_at = self.pending.len() + PENDING_MAX;
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Segment {
    /// Empties both indexes, in memory and on disk. Skips files that are already empty, because a
    /// start calls this for thousands of small logs.
    pub fn reset_indexes(&self) -> io::Result<()> {
        for kind in INDEXES {
            if !matches!(self.files.disk.len(&self.path(kind)), Ok(0)) {
                self.empty_index(kind)?;
            }
        }
        self.reset_indexes_in_memory();
        Ok(())
    }

    /// Empties an index file, or removes it if that fails.
    pub(super) fn empty_index(&self, kind: Kind) -> io::Result<()> {
        match self.files.open(kind, OpenMode::Truncate) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.warn_of_index(kind, &error);
                self.remove_index(kind)
            }
        }
    }

    fn remove_index(&self, kind: Kind) -> io::Result<()> {
        // Another segment may have the name of a deleted segment's file.
        if !self.files.is_live() {
            return Ok(());
        }
        match self.files.disk.remove_file(&self.path(kind)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Logs the first failure of this segment's index files, and the first one after each
    /// successful write.
    fn warn_of_index(&self, kind: Kind, error: &io::Error) {
        if !std::mem::replace(&mut self.state().index_failed, true) {
            tracing::warn!(
                path = %self.path(kind).display(), %error,
                "cannot read or write index file, lookups scan the log"
            );
        }
    }

    /// Sets the indexes in memory to those of empty files.
    pub(super) fn reset_indexes_in_memory(&self) {
        let mut state = self.state();
        state.offsets = Index::new(Some(0));
        state.times = Index::new(Some(0));
        state.bytes_since_entry = 0;
        state.largest = Some(None);
        state.recent.clear();
    }

    /// Whether an index of `index_bytes` may have no room for another entry. In the time index, one
    /// slot is reserved for the entry that [`Self::seal`] adds.
    pub fn index_full(&self, index_bytes: u64) -> bool {
        let state = self.state();
        let slots = |len: usize| index_bytes as usize / len;
        state.offsets.len() >= slots(OffsetEntry::LEN)
            || state.times.len() + 1 >= slots(TimeEntry::LEN)
    }

    /// Writes index entries that are only in memory. Entries that cannot be written stay there. The
    /// error is logged, so the caller may ignore it.
    pub fn write_indexes(&self) -> io::Result<()> {
        // Only the owner of the log calls this, so no entry is added while the lock is free.
        let (offsets, times, from) = {
            let state = self.state();
            let from = (state.offsets.stored, state.times.stored);
            (state.offsets.pending.clone(), state.times.pending.clone(), from)
        };
        let offsets_stored = self.write_index(Kind::Index, from.0, &offsets);
        let times_stored = self.write_index(Kind::TimeIndex, from.1, &times);
        let mut state = self.state();
        state.index_dirty |= !offsets.is_empty() || !times.is_empty();
        let offsets = state.offsets.finish_write(offsets_stored);
        let times = state.times.finish_write(times_stored);
        let failed = offsets.err().map(|error| (Kind::Index, error));
        let failed = failed.or(times.err().map(|error| (Kind::TimeIndex, error)));
        state.index_failed &= failed.is_some();
        drop(state);
        let Some((kind, error)) = failed else { return Ok(()) };
        self.warn_of_index(kind, &error);
        Err(error)
    }

    /// Empties both indexes if `written`, the result of [`Self::write_indexes`], is an error.
    /// Lookups then scan the log.
    pub fn reset_indexes_unless_written(&self, written: io::Result<()>) -> io::Result<()> {
        if written.is_err() {
            let largest = self.state().largest;
            self.reset_indexes()?;
            self.state().largest = largest;
        }
        Ok(())
    }

    /// Writes index entries that are only in memory. Removes a file that cannot be completed, so
    /// that no start assumes that it is complete. Its entries stay in memory.
    pub fn complete_or_remove_indexes(&self) -> io::Result<()> {
        if self.write_indexes().is_ok() {
            return Ok(());
        }
        let (offsets, times) = {
            let state = self.state();
            (!state.offsets.pending.is_empty(), !state.times.pending.is_empty())
        };
        if offsets {
            self.remove_index(Kind::Index)?;
            self.state().offsets.stored = Some(0);
        }
        if times {
            self.remove_index(Kind::TimeIndex)?;
            self.state().times.stored = Some(0);
        }
        Ok(())
    }

    /// Makes the index files durable. Removes a file that cannot be synced; a start rebuilds it.
    /// Any thread may call this.
    pub fn sync_indexes(&self) -> io::Result<()> {
        for kind in INDEXES {
            let synced = self.files.open(kind, OpenMode::Write).and_then(|file| file.sync_data());
            match synced {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.warn_of_index(kind, &error);
                    self.remove_index(kind)?;
                }
            }
        }
        Ok(())
    }

    /// Writes entries to an index file. Returns the number of entries in the file afterwards, or
    /// `None` if there was nothing to write.
    fn write_index<E: Entry>(
        &self,
        kind: Kind,
        stored: Option<u32>,
        pending: &[E],
    ) -> io::Result<Option<u32>> {
        if pending.is_empty() {
            return Ok(None);
        }
        let file = self.files.open(kind, OpenMode::Create)?;
        // The file may have been removed since its entries were counted.
        let in_file = (file.len()? / E::LEN as u64) as u32;
        let stored = stored.map_or(in_file, |stored| stored.min(in_file));
        let mut bytes = Vec::with_capacity(pending.len() * E::LEN);
        for entry in pending {
            entry.encode(&mut bytes, self.base_offset);
        }
        write_all_at(&*file, &bytes, u64::from(stored) * E::LEN as u64)?;
        Ok(Some(stored + pending.len() as u32))
    }

    /// Whether index blocks were written since the last call.
    pub fn take_index_dirty(&self) -> bool {
        std::mem::take(&mut self.state().index_dirty)
    }

    /// Bytes of the offset index and of the time index, with entries that are only in memory.
    pub fn index_sizes(&self) -> io::Result<(u64, u64)> {
        let (offsets, times) = {
            let state = self.state();
            let (offsets, times) = (&state.offsets, &state.times);
            ((offsets.stored, offsets.pending.len()), (times.stored, times.pending.len()))
        };
        let size = |kind: Kind, (stored, pending): (Option<u32>, usize), len: usize| {
            let in_file = match stored {
                Some(stored) => u64::from(stored) * len as u64,
                None => match self.files.open(kind, OpenMode::Read) {
                    Ok(file) => file.len()?,
                    // A missing index is rebuilt by the next start.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                    Err(error) => return Err(error),
                },
            };
            Ok(in_file + (pending * len) as u64)
        };
        let offsets = size(Kind::Index, offsets, OffsetEntry::LEN)?;
        Ok((offsets, size(Kind::TimeIndex, times, TimeEntry::LEN)?))
    }

    /// Adds the last entry to the time index, so that retention need not read the segment for its
    /// largest timestamp. Then writes both indexes.
    pub fn seal(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Some(Some(largest)) = state.largest {
            state.note_time(largest);
        }
        drop(state);
        self.write_indexes()
    }

    /// Opens an index file for reading. Returns it with the number of its entries, which is
    /// `stored` if that is known.
    fn open_index<E: Entry>(
        &self,
        kind: Kind,
        stored: Option<u32>,
    ) -> io::Result<(Arc<dyn DiskFile>, u32)> {
        let file = self.files.open(kind, OpenMode::Read)?;
        let count = match stored {
            Some(stored) => stored,
            None => (file.len()? / E::LEN as u64) as u32,
        };
        Ok((file, count))
    }

    /// Finds the last entry in an index file for which `after` is false. There is none if the file
    /// is missing, too short or cannot be read; callers then walk the log.
    pub(super) fn stored_floor<E: Entry>(
        &self,
        kind: Kind,
        stored: Option<u32>,
        after: impl Fn(&E) -> bool,
    ) -> Option<E> {
        if stored == Some(0) {
            return None;
        }
        let found = (|| {
            let (file, count) = self.open_index::<E>(kind, stored)?;
            Entries { file: &*file, base_offset: self.base_offset, count }.floor(after)
        })();
        found.unwrap_or_else(|error: io::Error| {
            let is_expected = matches!(
                error.kind(),
                // `WouldBlock` comes from `without_waiting`, whose caller repeats the lookup.
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::WouldBlock
            );
            if !is_expected {
                self.warn_of_index(kind, &error);
            }
            None
        })
    }

    /// The last offset index entry at or before `offset`, in memory or in the file.
    pub fn floor_entry(&self, offset: i64) -> Option<OffsetEntry> {
        let (pending, stored) = {
            let state = self.state();
            let pending = state.offsets.pending.iter().rfind(|entry| entry.offset <= offset);
            (pending.copied(), state.offsets.stored)
        };
        pending.or_else(|| {
            self.stored_floor(Kind::Index, stored, |entry: &OffsetEntry| entry.offset > offset)
        })
    }

    /// Returns an offset after all records before `position`: that of the first index entry at or
    /// after `position`. `None` if there is no such entry. As in Kafka's
    /// `AbstractIndex.binarySearch`, the first entry of the index does not count if it is exactly
    /// at `position`.
    pub fn offset_behind(&self, position: u64) -> Option<i64> {
        let is_behind = |entry: &OffsetEntry| u64::from(entry.position) >= position;
        let counts = |(slot, entry): &(usize, &OffsetEntry)| {
            u64::from(entry.position) >= position + u64::from(*slot == 0)
        };
        let (stored, first_pending, pending) = {
            let offsets = &self.state().offsets;
            let first_slot = usize::from(offsets.stored != Some(0));
            let slots = (first_slot..).zip(&offsets.pending);
            let behind = slots.into_iter().find(counts).map(|(_, entry)| *entry);
            (offsets.stored, offsets.pending.first().copied(), behind)
        };
        let in_file = || {
            let (file, count) = self.open_index::<OffsetEntry>(Kind::Index, stored)?;
            let entries = Entries { file: &*file, base_offset: self.base_offset, count };
            let slot = entries.partition_point(is_behind)?;
            let block = entries.block(slot)?;
            let found = (slot as usize..).zip(&block).find(counts).map(|(_, entry)| *entry);
            Ok::<_, io::Error>(found)
        };
        let is_in_file = stored != Some(0) && first_pending.is_none_or(|first| is_behind(&first));
        // If the file cannot be read, the caller uses the end of the segment.
        let in_file = if is_in_file { in_file().ok().flatten() } else { None };
        in_file.or(pending).map(|entry| entry.offset)
    }

    /// The last time index entry with a timestamp below `timestamp`, in memory or in the file.
    pub fn time_before(&self, timestamp: i64) -> Option<TimeEntry> {
        let (pending, stored) = {
            let state = self.state();
            let pending = state.times.pending.iter().rfind(|entry| entry.timestamp < timestamp);
            (pending.copied(), state.times.stored)
        };
        pending.or_else(|| {
            self.stored_floor(Kind::TimeIndex, stored, |entry: &TimeEntry| {
                entry.timestamp >= timestamp
            })
        })
    }

    /// The last entry in the time index file with an offset below `offset`.
    pub fn time_before_offset(&self, offset: i64) -> Option<TimeEntry> {
        self.stored_floor(Kind::TimeIndex, None, |entry: &TimeEntry| entry.offset >= offset)
    }

    /// Sets the state of the indexes after their files were read or cut: for each file, the number
    /// of entries and the last one; and the largest timestamp of the segment.
    pub fn adopt_indexes(
        &self,
        offsets: (u32, Option<OffsetEntry>),
        times: (u32, Option<TimeEntry>),
        largest: Option<TimeEntry>,
    ) {
        let mut state = self.state();
        state.offsets = Index { last: offsets.1, ..Index::new(Some(offsets.0)) };
        state.times = Index { last: times.1, ..Index::new(Some(times.0)) };
        state.largest = Some(largest);
        state.recent.clear();
        state.bytes_since_entry = 0;
    }

    /// Cuts the entries for which `after` is true off an index file. Returns the number of entries
    /// that remain, and the last of them. A file that cannot be cut is removed.
    pub(super) fn cut_or_remove_index<E: Entry>(
        &self,
        kind: Kind,
        after: impl Fn(&E) -> bool,
    ) -> io::Result<(u32, Option<E>)> {
        match self.cut_index(kind, after) {
            Ok(kept) => Ok(kept),
            Err(error) => {
                self.warn_of_index(kind, &error);
                self.remove_index(kind)?;
                Ok((0, None))
            }
        }
    }

    /// Cuts the entries for which `after` is true off an index file. Returns the number of entries
    /// that remain, and the last of them.
    pub fn cut_index<E: Entry>(
        &self,
        kind: Kind,
        after: impl Fn(&E) -> bool,
    ) -> io::Result<(u32, Option<E>)> {
        let file = self.files.open(kind, OpenMode::Create)?;
        let len = file.len()?;
        let count = (len / E::LEN as u64) as u32;
        let entries = Entries { file: &*file, base_offset: self.base_offset, count };
        // Usually nothing has to be cut, and the last entry is enough to see that.
        let newest = match count {
            0 => None,
            count => Some(entries.get(count - 1)?).filter(|newest| !after(newest)),
        };
        let kept = match newest {
            Some(_) => count,
            None => entries.partition_point(after)?,
        };
        let last = match kept {
            0 => None,
            kept => newest.map_or_else(|| entries.get(kept - 1), Ok).map(Some)?,
        };
        let kept_len = u64::from(kept) * E::LEN as u64;
        if kept_len < len {
            file.truncate(kept_len)?;
        }
        Ok((kept, last))
    }
}
