//! The index files of a segment. They are hints: a lookup without them walks the `.log` file. So no
//! failure to read or write an index file fails an append, a lookup or a truncation.
//!
//! Invariants:
//! - Entries that could not be written stay in memory, at most [`KEPT_MAX`] per index, and are
//!   written with the next block.
//! - A start trusts an index file of a sealed segment below the recovery point to have its last
//!   entry. Before a flush moves the recovery point past a segment, its index files are complete
//!   or removed: a start rebuilds files that are missing.

use std::io;

use super::{
    super::{
        disk::{OpenMode, write_all_at},
        index::{Entries, Entry, OffsetEntry, TimeEntry},
        names::Kind,
    },
    Segment,
};

/// So many index entries are kept in memory before they are written in one block.
const PENDING_MAX: usize = 512;
/// So many entries of an index stay in memory while its file cannot be written.
const KEPT_MAX: usize = 4 * PENDING_MAX;

/// Both index files of a segment.
const INDEXES: [Kind; 2] = [Kind::Index, Kind::TimeIndex];

/// An index: entries in the file, then entries in memory.
#[derive(Debug)]
pub(super) struct Index<E> {
    /// Entries in the file; `None` until a lookup or a write needs the count.
    pub stored: Option<u32>,
    pub pending: Vec<E>,
    pub last: Option<E>,
    /// The count of pending entries at which they are to be written.
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

    /// Takes the result of a write of all pending entries: the count in the file, if there was
    /// anything to write. After a failure the entries stay. If they are too many, every second one
    /// is dropped, which makes lookups walk further; the last one is kept, as it tells the
    /// segment's age.
    fn written(&mut self, written: io::Result<Option<u32>>) -> io::Result<()> {
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
    /// Empties both indexes, in memory and on disk. Files that are empty are left alone: thousands
    /// of small logs have such, and a start looks at all of them.
    pub fn reset_indexes(&self) -> io::Result<()> {
        for kind in INDEXES {
            if !matches!(self.disk.len(&self.path(kind)), Ok(0)) {
                self.empty_index(kind)?;
            }
        }
        self.forget_indexes();
        Ok(())
    }

    /// Leaves no entry in an index file: it is empty, or not there.
    pub(super) fn empty_index(&self, kind: Kind) -> io::Result<()> {
        match self.open(kind, OpenMode::Truncate) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.warn_of_index(kind, &error);
                self.remove_index(kind)
            }
        }
    }

    fn remove_index(&self, kind: Kind) -> io::Result<()> {
        match self.disk.remove_file(&self.path(kind)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Logs the first failure of this segment's index files; one more after a success.
    fn warn_of_index(&self, kind: Kind, error: &io::Error) {
        if !std::mem::replace(&mut self.state().index_failed, true) {
            tracing::warn!(path = %self.path(kind).display(), %error, "index file failed");
        }
    }

    /// Both indexes are empty on disk.
    pub(super) fn forget_indexes(&self) {
        let mut state = self.state();
        state.offsets = Index::new(Some(0));
        state.times = Index::new(Some(0));
        state.bytes_since_entry = 0;
        state.largest = Some(None);
        state.recent.clear();
    }

    /// Whether another entry may not fit an index of `index_bytes`. A slot of the time index is
    /// kept for the entry at the roll.
    pub fn index_full(&self, index_bytes: u64) -> bool {
        let state = self.state();
        let slots = |len: usize| index_bytes as usize / len;
        state.offsets.len() >= slots(OffsetEntry::LEN)
            || state.times.len() + 1 >= slots(TimeEntry::LEN)
    }

    /// Writes index entries that are only in memory. Those that cannot be written stay there, and
    /// the error is logged; the caller may ignore it.
    pub fn write_indexes(&self) -> io::Result<()> {
        // Only the log's owner comes here, so that nothing is added between the two locks.
        let (offsets, times, from) = {
            let state = self.state();
            let from = (state.offsets.stored, state.times.stored);
            (state.offsets.pending.clone(), state.times.pending.clone(), from)
        };
        let offsets_stored = self.write_index(Kind::Index, from.0, &offsets);
        let times_stored = self.write_index(Kind::TimeIndex, from.1, &times);
        let mut state = self.state();
        state.index_dirty |= !offsets.is_empty() || !times.is_empty();
        let offsets = state.offsets.written(offsets_stored);
        let times = state.times.written(times_stored);
        let failed = offsets.err().map(|error| (Kind::Index, error));
        let failed = failed.or(times.err().map(|error| (Kind::TimeIndex, error)));
        state.index_failed &= failed.is_some();
        drop(state);
        let Some((kind, error)) = failed else { return Ok(()) };
        self.warn_of_index(kind, &error);
        Err(error)
    }

    /// Where index entries could not be written, does without: an empty index sends lookups to the
    /// log itself.
    pub fn or_without(&self, written: io::Result<()>) -> io::Result<()> {
        if written.is_err() {
            let largest = self.state().largest;
            self.reset_indexes()?;
            self.state().largest = largest;
        }
        Ok(())
    }

    /// Writes index entries that are only in memory. A file that cannot be completed is removed, so
    /// that no start takes it for complete; its entries stay in memory.
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

    /// Makes the index files durable. A file that cannot be synced is removed, for a start to
    /// rebuild. Any thread may call it.
    pub fn sync_indexes(&self) -> io::Result<()> {
        for kind in INDEXES {
            let synced = self.open(kind, OpenMode::Write).and_then(|file| file.sync_data());
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

    /// Returns how many entries the file has afterwards, if there was anything to write.
    fn write_index<E: Entry>(
        &self,
        kind: Kind,
        stored: Option<u32>,
        pending: &[E],
    ) -> io::Result<Option<u32>> {
        if pending.is_empty() {
            return Ok(None);
        }
        let file = self.open(kind, OpenMode::Create)?;
        // The file may have been removed since.
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

    /// Gives the time index its last entry, which tells the segment's age without reading it.
    pub fn seal(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Some(Some(largest)) = state.largest {
            state.note_time(largest);
        }
        drop(state);
        self.write_indexes()
    }

    /// The last entry in an index file that `after` does not hold for. A file that is missing, too
    /// short or cannot be read has none: the log itself has the truth.
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
            let file = self.open(kind, OpenMode::Read)?;
            let count = match stored {
                Some(stored) => stored,
                None => (file.len()? / E::LEN as u64) as u32,
            };
            Entries { file: &*file, base_offset: self.base_offset, count }.floor(after)
        })();
        found.unwrap_or_else(|error: io::Error| {
            let is_expected = matches!(
                error.kind(),
                // The last is of `without_waiting`, whose caller looks again.
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::WouldBlock
            );
            if !is_expected {
                self.warn_of_index(kind, &error);
            }
            None
        })
    }

    /// The last index entry at or before `offset`, wherever it is.
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

    /// An offset behind all records before `position`, from the first index entry that is not
    /// before it; `None` if there is no such entry. As in Kafka, the first entry of the index does
    /// not count where it is exactly at `position` (`AbstractIndex.binarySearch`).
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
            let file = self.open(Kind::Index, OpenMode::Read)?;
            let count = match stored {
                Some(stored) => stored,
                None => (file.len()? / OffsetEntry::LEN as u64) as u32,
            };
            let entries = Entries { file: &*file, base_offset: self.base_offset, count };
            let slot = entries.partition_point(is_behind)?;
            let block = entries.block(slot)?;
            let found = (slot as usize..).zip(&block).find(counts).map(|(_, entry)| *entry);
            Ok::<_, io::Error>(found)
        };
        let is_in_file = stored != Some(0) && first_pending.is_none_or(|first| is_behind(&first));
        // Without the index, the end of the segment is an offset behind, too.
        let in_file = if is_in_file { in_file().ok().flatten() } else { None };
        in_file.or(pending).map(|entry| entry.offset)
    }

    /// The last time index entry that is before `timestamp`, wherever it is.
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

    /// The last time index entry in the file that is for an offset before `offset`.
    pub fn time_before_offset(&self, offset: i64) -> Option<TimeEntry> {
        self.stored_floor(Kind::TimeIndex, None, |entry: &TimeEntry| entry.offset >= offset)
    }

    /// Takes over what an index file says at the log's opening: so many entries, of which the last
    /// are these; and the largest timestamp.
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

    /// Cuts off the entries that `after` holds for, and returns how many are left, and the last. A
    /// file that cannot be cut is removed.
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

    /// Cuts off the entries that `after` holds for; says how many are left, and the last.
    pub fn cut_index<E: Entry>(
        &self,
        kind: Kind,
        after: impl Fn(&E) -> bool,
    ) -> io::Result<(u32, Option<E>)> {
        let file = self.open(kind, OpenMode::Create)?;
        let len = file.len()?;
        let count = (len / E::LEN as u64) as u32;
        let entries = Entries { file: &*file, base_offset: self.base_offset, count };
        // Most often nothing is to go, and the last entry tells.
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
