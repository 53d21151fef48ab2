//! `.txnindex` files: the aborted transactions whose markers a segment has (Kafka's `AbortedTxn`
//! and `TransactionIndex`). A `read_committed` fetch returns the transactions that overlap its
//! records, and the consumer drops the records of those producers.
//!
//! Other indexes are hints. This one is not: if an entry is missing, consumers get aborted records.
//!
//! Invariants:
//! - Entries are in the order of their markers, and their last stable offsets never decrease.
//! - Readers see an entry once its marker is appended. An entry that cannot be written stays in
//!   memory. The next append of a marker, flush or settling writes it.
//! - The recovery point and the settled offset stay below a marker whose entry is not in the file,
//!   so that a start after a crash rebuilds the entry.
//! - A segment without aborted transactions has no file, or an empty one.

use std::{io, sync::Arc};

use super::{
    Log, LogError, LogSlice, LogView, ReadError,
    aborted::{AbortedTxn, decode_all},
    disk::{FileDurability, OpenMode, read_file, replace_file, write_all_at},
    error::During,
    index::{Entries, Entry},
    names::Kind,
    segment::Segment,
    view::io_error,
};

impl Segment {
    pub(super) fn has_aborted(&self) -> bool {
        let state = self.txns.state();
        state.stored > 0 || !state.pending.is_empty()
    }

    /// The offset of the first marker whose entry is not in the file.
    pub(super) fn unwritten_aborted(&self) -> Option<i64> {
        self.txns.state().pending.first().map(|entry| entry.last_offset)
    }

    /// Whether entries were written or cut since the last call.
    pub(super) fn take_aborted_dirty(&self) -> bool {
        std::mem::take(&mut self.txns.state().is_dirty)
    }

    /// Loads the index file when a log is opened. Returns false if the file is damaged and has to
    /// be rebuilt. All markers of the segment are before `next`.
    pub(super) fn load_aborted(&self, next: i64) -> io::Result<bool> {
        let bytes = read_file(&*self.files.disk, &self.path(Kind::TxnIndex))?;
        let entries = decode_all(&bytes, self.base_offset, next);
        let mut state = self.txns.state();
        state.stored = entries.as_ref().map_or(0, Vec::len) as u32;
        state.last_stored = entries.as_ref().and_then(|all| Some(all.last()?.last_offset));
        state.replaced = entries.is_none().then_some(FileDurability::PageCache);
        // An earlier process may have written the file without syncing it.
        state.is_dirty = true;
        Ok(entries.is_some())
    }

    /// Replaces the entries of markers at or after `from` by `rebuilt`, in memory. Returns whether
    /// they differed.
    fn rebuild_aborted(
        &self,
        from: i64,
        rebuilt: &[AbortedTxn],
        durability: FileDurability,
    ) -> io::Result<bool> {
        let mut entries = self.stored_aborted()?;
        let mut state = self.txns.state();
        let kept = entries.partition_point(|entry| entry.last_offset < from);
        if state.replaced.is_none() && entries[kept..] == *rebuilt {
            return Ok(false);
        }
        entries.truncate(kept);
        entries.extend_from_slice(rebuilt);
        (state.stored, state.last_stored) = (0, None);
        (state.pending, state.replaced) = (entries, Some(durability));
        Ok(true)
    }

    fn stored_aborted(&self) -> io::Result<Vec<AbortedTxn>> {
        let mut entries = Vec::new();
        self.collect_aborted(i64::MIN, i64::MAX, &mut entries)?;
        Ok(entries)
    }

    /// Writes entries that are only in memory.
    pub(super) fn write_aborted(&self) -> io::Result<()> {
        // Only the owner of the log calls this, so no entry is added while the lock is free.
        let (stored, bytes, replaced) = {
            let state = self.txns.state();
            if state.pending.is_empty() && state.replaced.is_none() {
                return Ok(());
            }
            let mut bytes = Vec::with_capacity(state.pending.len() * AbortedTxn::LEN);
            state.pending.iter().for_each(|entry| entry.encode(&mut bytes, self.base_offset));
            (state.stored, bytes, state.replaced)
        };
        let path = self.path(Kind::TxnIndex);
        let written = match replaced {
            Some(durability) => replace_file(&*self.files.disk, &path, &bytes, durability),
            None => self.files.open(Kind::TxnIndex, OpenMode::Create).and_then(|file| {
                write_all_at(&*file, &bytes, u64::from(stored) * AbortedTxn::LEN as u64)
            }),
        };
        let mut state = self.txns.state();
        if let Err(error) = &written {
            if !std::mem::replace(&mut state.has_failed, true) {
                tracing::warn!(path = %path.display(), %error, "transaction index not written");
            }
            return written;
        }
        let added = std::mem::take(&mut state.pending);
        state.stored += added.len() as u32;
        state.last_stored = added.last().map(|entry| entry.last_offset).or(state.last_stored);
        (state.replaced, state.is_dirty, state.has_failed) = (None, true, false);
        Ok(())
    }

    /// Removes the entries of markers at or after `offset`.
    pub(super) fn cut_aborted(&self, offset: i64) -> io::Result<()> {
        let is_cut = {
            let mut state = self.txns.state();
            state.pending.retain(|entry| entry.last_offset < offset);
            state.last_stored.is_some_and(|last| last >= offset)
        };
        if is_cut {
            let after = |entry: &AbortedTxn| entry.last_offset >= offset;
            let (kept, last) = self.cut_index(Kind::TxnIndex, after)?;
            let mut state = self.txns.state();
            state.is_dirty = true;
            (state.stored, state.last_stored) = (kept, last.map(|entry| entry.last_offset));
        }
        Ok(())
    }

    /// Adds to `found` the transactions that overlap the offsets from `from` to before `end`.
    /// Returns whether later segments have none.
    fn collect_aborted(
        &self,
        from: i64,
        end: i64,
        found: &mut Vec<AbortedTxn>,
    ) -> io::Result<bool> {
        let (stored, pending) = {
            let state = self.txns.state();
            (state.stored, state.pending.clone())
        };
        let mut take = |entries: &[AbortedTxn]| {
            for entry in entries {
                if entry.last_offset >= from && entry.first_offset < end {
                    found.push(*entry);
                }
                if entry.last_stable_offset >= end {
                    return true;
                }
            }
            false
        };
        if stored > 0 {
            let file = self.files.open(Kind::TxnIndex, OpenMode::Read)?;
            let entries = Entries { file: &*file, base_offset: self.base_offset, count: stored };
            let mut slot =
                entries.partition_point(|entry: &AbortedTxn| entry.last_offset >= from)?;
            while slot < stored {
                let block = entries.block(slot)?;
                if take(&block) {
                    return Ok(true);
                }
                slot += block.len() as u32;
            }
        }
        Ok(take(&pending))
    }
}

impl Log {
    /// Adds an entry to the active segment's transaction index. If it cannot be written, it stays
    /// in memory.
    pub(super) fn note_aborted(&mut self, aborted: AbortedTxn) {
        self.active.segment.txns.state().pending.push(aborted);
        self.note_new_files();
        let _ = self.active.segment.write_aborted();
    }

    /// Makes the next flush sync the directory if writing entries may create a file.
    fn note_new_files(&mut self) {
        if self.segments_with_changes().any(|segment| segment.txns.state().makes_file()) {
            self.dir_changes.made += 1;
        }
    }

    /// Writes entries of transaction indexes that are only in memory. Returns the offset of the
    /// first marker whose entry could not be written.
    pub(super) fn write_aborted(&mut self) -> Option<i64> {
        self.note_new_files();
        let unwritten = |segment: &Arc<Segment>| {
            let _ = segment.write_aborted();
            segment.unwritten_aborted()
        };
        self.segments_with_changes().filter_map(unwritten).min()
    }

    /// Writes entries of transaction indexes that are only in memory. Fails if one cannot be
    /// written.
    pub(super) fn write_all_aborted(&mut self) -> Result<(), LogError> {
        self.note_new_files();
        self.segments_with_changes().try_for_each(|segment| {
            segment.write_aborted().during("write", &segment.path(Kind::TxnIndex))
        })
    }

    fn segments_with_changes(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.unsynced.iter().map(|(_, segment)| segment).chain([&self.active.segment])
    }

    /// Replaces the entries of all markers from `from` on by `aborted`, which was read from the
    /// log. Returns the base offsets of the segments whose entries differed.
    pub(super) fn rebuild_aborted(
        &mut self,
        from: i64,
        aborted: &[AbortedTxn],
    ) -> Result<Vec<i64>, LogError> {
        let mut rebuilt = Vec::new();
        let mut rest = aborted;
        for index in self.view().segment_at(from)..self.segments.len() {
            let segment = &self.segments[index];
            let next = self.segments.get(index + 1).map_or(i64::MAX, |next| next.base_offset);
            let (own, later) = rest.split_at(rest.partition_point(|it| it.last_offset < next));
            rest = later;
            // The recovery point is already past these markers, so the file must be durable at
            // once.
            let durability = match segment.base_offset < self.recovery_point {
                true => FileDurability::Synced,
                false => FileDurability::PageCache,
            };
            let changed = segment.rebuild_aborted(from, own, durability);
            if !changed.during("read", &segment.path(Kind::TxnIndex))? {
                continue;
            }
            rebuilt.push(segment.base_offset);
            self.dir_changes.made += 1;
            let is_known =
                self.segments_with_changes().any(|it| it.base_offset == segment.base_offset);
            if !is_known {
                self.unsynced.push((self.dir_changes.made, segment.clone()));
            }
        }
        self.write_aborted();
        Ok(rebuilt)
    }
}

impl LogView {
    /// Returns the aborted transactions that overlap the offsets from `from`, which a segment
    /// begins at or contains, to before `end`.
    pub(super) fn aborted_between(
        &self,
        from: i64,
        end: i64,
    ) -> Result<Vec<AbortedTxn>, ReadError> {
        let mut found = Vec::new();
        for segment in &self.segments[self.segment_at(from)..] {
            let collected = segment.collect_aborted(from, end, &mut found);
            if collected.map_err(|error| io_error(segment, cut_short(error)))? {
                break;
            }
        }
        Ok(found)
    }

    /// Returns the aborted transactions that overlap a slice that was read from `offset` on, in the
    /// order of their markers. As in Kafka, the end of the slice is rounded up to an index entry,
    /// so some transactions may be after the slice.
    pub fn aborted_transactions(
        &self,
        offset: i64,
        slice: &LogSlice,
    ) -> Result<Vec<AbortedTxn>, ReadError> {
        let first = self.segment_at(slice.segment_base_offset);
        let mut end = None;
        let mut found = Vec::new();
        for segment in self.segments[first..].iter().filter(|segment| segment.has_aborted()) {
            let behind = match end {
                Some(end) => end,
                None => {
                    let position = slice.position + slice.len as u64;
                    let entry = self.segments[first].offset_behind(position);
                    let next = self.segments.get(first + 1).map(|next| next.base_offset);
                    entry.or(next).unwrap_or(self.log_end)
                }
            };
            end = Some(behind);
            let collected = segment.collect_aborted(offset, behind, &mut found);
            if collected.map_err(|error| io_error(segment, cut_short(error)))? {
                break;
            }
        }
        Ok(found)
    }
}

/// Turns the error of a file that is too short into one of damaged content, because it does not
/// mean that the disk has failed.
fn cut_short(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(io::ErrorKind::InvalidData, "the transaction index is too short")
        }
        _ => error,
    }
}
