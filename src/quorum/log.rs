//! `__cluster_metadata-0` on disk: segments of record batches, one batch per Raft entry.
//!
//! Raft's index of a batch is not stored: batches are counted. If the log does not start at offset
//! 0, the newest snapshot says at which index and offset the count starts.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    files,
    format::FormatError,
    segment_files::{
        Obsolete, Reservation, delete_segment, read_batch, remove_indexes, segment_offsets,
        segment_path,
    },
};
use crate::{
    log::disk::{self, Disk, DiskFile, OpenMode},
    records::{Batch, BatchHeader},
};

/// The position of a batch in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPosition {
    pub epoch: i32,
    pub base_offset: i64,
    pub last_offset: i64,
    /// Offset in the file of its segment, in bytes.
    at: u64,
    pub size: u32,
}

/// A part of a segment's file. It stays readable when the log deletes the segment.
#[derive(Debug, Clone)]
pub struct FileRange {
    file: Arc<dyn DiskFile>,
    at: u64,
    size: usize,
}

impl FileRange {
    pub fn read(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.size];
        disk::read_exact_at(&*self.file, &mut bytes, self.at)?;
        Ok(bytes.into())
    }
}

impl BatchPosition {
    /// The offset after the batch's last record.
    pub fn end(&self) -> i64 {
        self.last_offset + 1
    }
}

/// A segment and its batches; its file is named by its base offset.
#[derive(Debug)]
struct Segment {
    base_offset: i64,
    file: Arc<dyn DiskFile>,
    size: u64,
    /// The disk has reserved room up to this offset in the file, in bytes.
    reserved: u64,
    batches: VecDeque<BatchPosition>,
}

/// The point from which batches are counted: the end of a snapshot, or the start of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Base {
    /// Raft's index of the first batch after the base.
    pub index: u64,
    /// The offset of the first record after the base.
    pub offset: i64,
    /// The epoch of the last batch before the base.
    pub epoch: i32,
}

impl Base {
    /// Epoch and index of the last batch before the base.
    pub fn last(self) -> Option<(i32, u64)> {
        self.index.checked_sub(1).map(|index| (self.epoch, index))
    }
}

/// The segments of the metadata log, and what of them is durable.
#[derive(Debug)]
pub struct MetadataLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segments: VecDeque<Segment>,
    /// Raft's index of the first batch in `segments`.
    first_index: u64,
    /// Epoch and index of the last batch that Raft must not read. The file may still have that
    /// batch.
    purged: Option<(i32, u64)>,
    end_offset: i64,
    /// Each leader epoch in the log and its first offset.
    epochs: Vec<(i32, i64)>,
    /// A segment was created since the directory was last synced.
    new_file: bool,
    /// Full segments that have unsynced batches.
    unsynced: Vec<Arc<dyn DiskFile>>,
    /// Raft's index of the first batch that may not be durable yet.
    synced_end: u64,
    /// The number of truncations. A sync makes nothing durable if the log was truncated since it
    /// began.
    cuts: u64,
    /// The number of snapshots after which the log continues and which are not on disk yet.
    awaited_snapshots: u32,
    roll_bytes: u64,
    /// Bytes after the snapshot that the log was opened with.
    written: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the log has no offset {0}, where the newest snapshot ends")]
    Gap(i64),
    #[error("batch at offset {offset}: {source}")]
    Format { offset: i64, source: FormatError },
}

/// The state of the log when a sync began, which the sync makes durable.
#[derive(Debug, Clone, Copy)]
pub struct SyncMark {
    next_index: u64,
    cuts: u64,
}

/// Whether a batch would survive a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchState {
    Durable,
    NotDurable,
    /// The log has another batch at its index, or none.
    Replaced,
}

/// Bytes that a reservation takes beyond what the next batch needs.
const RESERVE_BYTES: u64 = 32 << 10;

impl MetadataLog {
    /// Opens the log, truncates a torn tail, and finds every batch. Calls `visit` with each batch
    /// from `base` on. A log that does not continue where the snapshot ends is emptied.
    pub fn open(
        (disk, dir): (&Arc<dyn Disk>, &Path),
        base: Base,
        roll_bytes: u64,
        mut visit: impl FnMut(&Batch) -> Result<(), FormatError>,
    ) -> Result<Self, LogError> {
        let at = |source| LogError::Io { path: dir.to_owned(), source };
        let mut log = Self {
            disk: disk.clone(),
            dir: dir.to_owned(),
            segments: VecDeque::new(),
            first_index: 0,
            purged: None,
            end_offset: 0,
            epochs: Vec::new(),
            new_file: false,
            unsynced: Vec::new(),
            synced_end: base.index,
            cuts: 0,
            awaited_snapshots: 0,
            roll_bytes,
            written: 0,
        };
        for base_offset in segment_offsets(&**disk, dir).map_err(at)? {
            if !log.scan(base_offset, base, &mut visit)? {
                break;
            }
        }
        if log.segments.is_empty() || !log.goes_through(base)? {
            log.restart_at(base).map_err(at)?;
        }
        log.number_from(base);
        Ok(log)
    }

    /// Reads one segment. Returns false if it is torn or does not follow the segment before it.
    /// Nothing after it counts then, and those files are deleted.
    fn scan(
        &mut self,
        base_offset: i64,
        base: Base,
        visit: &mut impl FnMut(&Batch) -> Result<(), FormatError>,
    ) -> Result<bool, LogError> {
        let path = segment_path(&self.dir, base_offset);
        let at = |source| LogError::Io { path: path.clone(), source };
        if !self.segments.is_empty() && base_offset != self.end_offset {
            self.delete_from(base_offset).map_err(at)?;
            return Ok(false);
        }
        let file = self.disk.open(&path, OpenMode::Write).map_err(at)?;
        let len = file.len().map_err(at)?;
        let mut segment =
            Segment { base_offset, file, size: 0, reserved: 0, batches: VecDeque::new() };
        self.end_offset = base_offset;
        while let Some(bytes) = read_batch(&*segment.file, segment.size, len).map_err(at)? {
            let Ok(batch) = Batch::split_first(&mut bytes.clone()) else { break };
            let header = batch.header;
            if header.base_offset != self.end_offset || batch.verify_crc().is_err() {
                break;
            }
            if header.base_offset >= base.offset {
                let offset = header.base_offset;
                visit(&batch).map_err(|source| LogError::Format { offset, source })?;
                self.written += header.size() as u64;
            }
            self.note(&header, &mut segment);
        }
        let torn = segment.size < len;
        if torn {
            segment.file.truncate(segment.size).map_err(at)?;
            remove_indexes(&*self.disk, &self.dir, base_offset);
            self.segments.push_back(segment);
            self.delete_from(self.end_offset.max(base_offset + 1)).map_err(at)?;
            return Ok(false);
        }
        self.segments.push_back(segment);
        Ok(true)
    }

    fn note(&mut self, header: &BatchHeader, segment: &mut Segment) {
        let epoch = header.leader_epoch;
        if self.epochs.last().is_none_or(|(last, _)| *last < epoch) {
            self.epochs.push((epoch, header.base_offset));
        }
        segment.batches.push_back(BatchPosition {
            epoch,
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            at: segment.size,
            size: header.size() as u32,
        });
        segment.size += header.size() as u64;
        self.end_offset = header.last_offset() + 1;
    }

    /// Whether the log continues where the snapshot ends. If not, it is from before the snapshot: a
    /// follower that received a snapshot in place of its tail may have stopped before it removed
    /// the tail.
    fn goes_through(&self, base: Base) -> Result<bool, LogError> {
        let starts_at = self.segments.front().map_or(base.offset, |first| first.base_offset);
        if starts_at > base.offset {
            return Err(LogError::Gap(base.offset));
        }
        let before = self.positions().take_while(|batch| batch.base_offset < base.offset).last();
        Ok(self.end_offset >= base.offset
            && before.is_none_or(|batch| {
                (batch.last_offset + 1, batch.epoch) == (base.offset, base.epoch)
            }))
    }

    /// Computes the Raft index of the first batch from the base, whose index is known.
    fn number_from(&mut self, base: Base) {
        let before = self.positions().filter(|batch| batch.base_offset < base.offset).count();
        self.first_index = base.index.saturating_sub(before as u64);
        self.purged = base.last();
    }

    /// Deletes all batches, and starts an empty log where a snapshot ends.
    fn restart_at(&mut self, base: Base) -> io::Result<()> {
        self.segments.clear();
        self.delete_from(0)?;
        self.reset_to(base)
    }

    /// Removes all batches and continues where a snapshot ends that may not be on disk yet. Once
    /// the snapshot is on disk and the returned segments are deleted, the caller calls
    /// `snapshot_is_durable`. Until then, no batch after the snapshot counts as durable, because a
    /// crash would lose it.
    pub fn continue_after(&mut self, base: Base) -> io::Result<Obsolete> {
        if self.end_offset == base.offset {
            // After a crash, a start tells the batches from those after the snapshot by the gap
            // between them.
            self.truncate(self.next_index().saturating_sub(1))?;
        }
        // New segments may need the names of these files, so they are deleted now.
        self.delete_from(base.offset)?;
        let base_offsets = self.segments.drain(..).map(|segment| segment.base_offset);
        let base_offsets = base_offsets.filter(|offset| *offset < base.offset).collect();
        self.awaited_snapshots += 1;
        self.reset_to(base)?;
        Ok(Obsolete { disk: self.disk.clone(), dir: self.dir.clone(), base_offsets })
    }

    /// Notes that the snapshot of a `continue_after` is on disk and its old segments are deleted.
    pub fn snapshot_is_durable(&mut self) {
        self.awaited_snapshots = self.awaited_snapshots.saturating_sub(1);
        // The deletion has to be synced: if a crash brought the old segments back, a start would
        // delete the new ones after the gap.
        self.new_file = true;
    }

    fn reset_to(&mut self, base: Base) -> io::Result<()> {
        (self.first_index, self.purged) = (base.index, base.last());
        self.end_offset = base.offset;
        self.epochs.clear();
        self.unsynced.clear();
        // The snapshot includes everything before it.
        self.synced_end = base.index;
        self.cuts += 1;
        self.add_segment()
    }

    fn add_segment(&mut self) -> io::Result<()> {
        let base_offset = self.end_offset;
        let path = segment_path(&self.dir, base_offset);
        let file = self.disk.open(&path, OpenMode::Truncate)?;
        self.new_file = true;
        let batches = VecDeque::new();
        self.segments.push_back(Segment { base_offset, file, size: 0, reserved: 0, batches });
        Ok(())
    }

    /// Deletes the files of segments at and after the offset.
    fn delete_from(&self, offset: i64) -> io::Result<()> {
        for base_offset in segment_offsets(&*self.disk, &self.dir)? {
            if base_offset >= offset {
                delete_segment(&*self.disk, &self.dir, base_offset)?;
            }
        }
        Ok(())
    }

    fn positions(&self) -> impl Iterator<Item = &BatchPosition> {
        self.segments.iter().flat_map(|segment| &segment.batches)
    }

    /// The log end offset: the offset of the next record.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Raft's index of the first batch of the last epoch, if the log has that batch.
    pub fn start_of_last_epoch(&self) -> Option<u64> {
        let epoch = self.last_epoch();
        let at = self.positions().position(|batch| batch.epoch == epoch)?;
        Some(self.first_index + at as u64)
    }

    /// Bytes after the snapshot that the log was opened with.
    pub fn written_bytes(&self) -> u64 {
        self.written
    }

    /// Raft's index of the next batch.
    pub fn next_index(&self) -> u64 {
        let batches: usize = self.segments.iter().map(|segment| segment.batches.len()).sum();
        self.first_index + batches as u64
    }

    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    /// Epoch and index of the last batch that Raft must not read.
    pub fn purged(&self) -> Option<(i32, u64)> {
        self.purged
    }

    /// The epoch of the last batch, or of the snapshot before an empty log; 0 if there is neither.
    pub fn last_epoch(&self) -> i32 {
        let last = self.segments.iter().rev().find_map(|segment| segment.batches.back());
        last.map(|batch| batch.epoch).or(self.purged.map(|(epoch, _)| epoch)).unwrap_or(0)
    }

    /// The position and file of the batch with this Raft index.
    pub fn position(&self, index: u64) -> Option<(&BatchPosition, &Arc<dyn DiskFile>)> {
        let mut at = usize::try_from(index.checked_sub(self.first_index)?).ok()?;
        for segment in &self.segments {
            if let Some(position) = segment.batches.get(at) {
                return Some((position, &segment.file));
            }
            at -= segment.batches.len();
        }
        None
    }

    /// Reads the batch with this Raft index. `None` if the log does not have it.
    pub fn read(&self, index: u64) -> io::Result<Option<Bytes>> {
        let Some((position, file)) = self.position(index) else { return Ok(None) };
        let end = position.at + u64::from(position.size);
        read_batch(&**file, position.at, end)
    }

    /// The log start offset.
    pub fn start_offset(&self) -> i64 {
        self.segments.front().map_or(self.end_offset, |first| first.base_offset)
    }

    /// The highest epoch of the log that is not above the given one, and the offset after its last
    /// record.
    pub fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        let after = self.epochs.partition_point(|(known, _)| *known <= epoch);
        let end = self.epochs.get(after).map_or(self.end_offset, |(_, start)| *start);
        let known = after.checked_sub(1).map(|at| self.epochs[at].0);
        (known.or(self.purged.map(|(epoch, _)| epoch)).unwrap_or(0), end)
    }

    /// The file range of batches, from the one that contains `offset` on, that end below `below`.
    /// It has at least one batch, and as many more of the same segment as fit into `max_bytes`.
    /// `None` if there is no such batch.
    pub fn range(&self, offset: i64, below: i64, max_bytes: usize) -> Option<FileRange> {
        let at = self.segments.partition_point(|segment| segment.base_offset <= offset);
        let segment = &self.segments[at.checked_sub(1)?];
        let first = segment.batches.partition_point(|batch| batch.last_offset < offset);
        let mut range: Option<FileRange> = None;
        for batch in segment.batches.range(first..).take_while(|it| it.last_offset < below) {
            let size = batch.size as usize;
            match &mut range {
                None => range = Some(FileRange { file: segment.file.clone(), at: batch.at, size }),
                Some(range) if range.size + size <= max_bytes => range.size += size,
                Some(_) => break,
            }
        }
        range
    }

    /// Epoch and Raft's index of the last batch.
    pub fn last_log_id(&self) -> Option<(i32, u64)> {
        self.next_index().checked_sub(1).map(|index| (self.last_epoch(), index))
    }

    fn roll_if_full(&mut self) -> io::Result<()> {
        if self.segments.back().is_none_or(|segment| segment.size >= self.roll_bytes) {
            self.unsynced.extend(self.segments.back().map(|segment| segment.file.clone()));
            self.add_segment()?;
        }
        Ok(())
    }

    /// The reservation that a batch of `len` bytes needs, so that a full disk is noticed before
    /// Raft relies on the write. `None` if enough room is reserved. A reservation does not make the
    /// file longer.
    pub fn reservation(&mut self, len: u64) -> io::Result<Option<Reservation>> {
        self.roll_if_full()?;
        let segment = self.segments.back().expect("added if there was none");
        if segment.size + len <= segment.reserved {
            return Ok(None);
        }
        let (file, at, cuts) = (segment.file.clone(), segment.size, self.cuts);
        Ok(Some(Reservation { file, at, len: len + RESERVE_BYTES, cuts }))
    }

    /// Notes that the disk has made the reservation.
    pub fn reserved(&mut self, made: &Reservation) {
        let last = self.segments.back_mut().filter(|it| Arc::ptr_eq(&it.file, &made.file));
        // A truncation releases the room after it.
        if let Some(segment) = last.filter(|_| made.cuts == self.cuts) {
            segment.reserved = segment.reserved.max(made.at + made.len);
        }
    }

    /// Forgets all reserved room, as if another process had taken it.
    #[cfg(test)]
    pub fn forget_reserve(&mut self) {
        self.segments.iter_mut().for_each(|segment| segment.reserved = 0);
    }

    /// Writes a batch at the end, to the page cache only.
    pub fn append(&mut self, bytes: &Bytes) -> io::Result<()> {
        let header = BatchHeader::parse(bytes).map_err(io::Error::other)?;
        if header.base_offset != self.end_offset || header.size() != bytes.len() {
            return Err(io::Error::other("the batch does not follow the one before it"));
        }
        self.roll_if_full()?;
        let epochs = self.epochs.len();
        let mut segment = self.segments.pop_back().expect("added above");
        let written = disk::write_all_at(&*segment.file, bytes, segment.size);
        if written.is_ok() {
            self.note(&header, &mut segment);
        }
        self.segments.push_back(segment);
        written?;
        self.written += bytes.len() as u64;
        if self.epochs.len() != epochs {
            match files::write_leader_epochs(&*self.disk, &self.dir, &self.epochs) {
                // The epochs are in the log, too, and the file is written again with the next
                // epoch.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                written => written?,
            }
        }
        Ok(())
    }

    /// Returns a function that makes everything appended so far durable, and the mark for `synced`.
    /// The function may block. The caller passes the mark to `synced` after the function has
    /// succeeded.
    pub fn sync(&mut self) -> (SyncMark, impl FnOnce() -> io::Result<()> + Send + 'static) {
        let mark = SyncMark { next_index: self.next_index(), cuts: self.cuts };
        let last = self.segments.back().map(|segment| segment.file.clone());
        let files: Vec<_> = std::mem::take(&mut self.unsynced).into_iter().chain(last).collect();
        let dir = std::mem::take(&mut self.new_file).then(|| (self.disk.clone(), self.dir.clone()));
        let sync = move || {
            files.iter().try_for_each(|file| file.sync_data())?;
            dir.map_or(Ok(()), |(disk, dir)| disk.sync_dir(&dir))
        };
        (mark, sync)
    }

    /// Notes that the sync that began with the mark has succeeded.
    pub fn synced(&mut self, mark: SyncMark) {
        // After a truncation, batches that are not synced may have taken the place of synced ones.
        if mark.cuts == self.cuts && self.awaited_snapshots == 0 {
            self.synced_end = self.synced_end.max(mark.next_index);
        }
    }

    /// Whether the batch with this epoch and index is durable.
    pub fn state_of(&self, (epoch, index): (i32, u64)) -> BatchState {
        if index < self.first_index {
            // Only committed batches are purged.
            return BatchState::Durable;
        }
        match self.position(index).map(|it| it.0.epoch) {
            Some(found) if found == epoch && index < self.synced_end => BatchState::Durable,
            Some(found) if found == epoch => BatchState::NotDurable,
            _ => BatchState::Replaced,
        }
    }

    /// Epoch and index of the last batch up to which all batches are durable.
    pub fn last_durable(&self) -> Option<(i32, u64)> {
        let index = self.synced_end.checked_sub(1)?;
        let here = self.position(index).map(|it| (it.0.epoch, index));
        here.or(self.purged.filter(|purged| purged.1 == index))
    }

    /// Removes the batches from the index on. The next sync makes that durable.
    pub fn truncate(&mut self, index: u64) -> io::Result<()> {
        self.cuts += 1;
        self.synced_end = self.synced_end.min(index.max(self.first_index));
        while self.next_index() > index.max(self.first_index) {
            let segment = self.segments.back_mut().expect("there are batches");
            let Some(dropped) = segment.batches.pop_back() else {
                let base_offset = segment.base_offset;
                self.segments.pop_back();
                self.delete_from(base_offset)?;
                continue;
            };
            segment.size = dropped.at;
            segment.reserved = 0;
            segment.file.truncate(dropped.at)?;
            remove_indexes(&*self.disk, &self.dir, segment.base_offset);
            self.end_offset = dropped.base_offset;
        }
        self.epochs.retain(|(_, offset)| *offset < self.end_offset);
        files::write_leader_epochs(&*self.disk, &self.dir, &self.epochs)
    }

    /// Removes segments whose batches are all at or before the index, but not the last segment. The
    /// caller deletes the files of the returned segments.
    pub fn purge(&mut self, upto: u64) -> Obsolete {
        let mut base_offsets = Vec::new();
        while self.segments.len() > 1 {
            let first = &self.segments[0];
            if self.first_index + first.batches.len() as u64 > upto + 1 {
                break;
            }
            base_offsets.push(first.base_offset);
            self.first_index += first.batches.len() as u64;
            let last = first.batches.back().map(|batch| (batch.epoch, self.first_index - 1));
            self.purged = self.purged.max(last);
            self.segments.pop_front();
        }
        Obsolete { disk: self.disk.clone(), dir: self.dir.clone(), base_offsets }
    }
}
