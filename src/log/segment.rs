//! A segment (Kafka's `LogSegment`): a `.log` file with its indexes, shared by the log and its
//! readers.
//!
//! The newest index entries stay in memory and are written to their files in blocks. Entries that a
//! crash loses are rebuilt by recovery. Index files are open only while they are used. The `.log`
//! file is opened when it is first used, and closed when it has not been used for a while. `files`
//! tracks the current names of the files.

mod files;
mod indexes;

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use files::SegmentFiles;
pub use files::{Home, OWN_KINDS};
use indexes::Index;
use parking_lot::{Mutex, MutexGuard};

use super::{
    LogError,
    aborted::TxnIndex,
    disk::{Disk, DiskFile, OpenMode},
    error::During,
    index::{OffsetEntry, TimeEntry},
    names::Kind,
    walk::{Step, Walk},
};
use crate::records::BatchHeader;

/// Number of the newest batches whose positions are in memory.
const RECENT_MAX: usize = 32;

/// The offsets of a batch, and its position and size in the `.log` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub base_offset: i64,
    pub last_offset: i64,
    pub position: u64,
    pub size: usize,
}

impl Place {
    pub fn of(header: &BatchHeader, position: u64) -> Self {
        let (base_offset, last_offset) = (header.base_offset, header.last_offset());
        Self { base_offset, last_offset, position, size: header.size() }
    }
}

#[derive(Debug)]
struct State {
    size: u64,
    file: Option<Arc<dyn DiskFile>>,
    /// Whether the file was used since the last call of [`Segment::close_if_idle`].
    file_used: bool,
    offsets: Index<OffsetEntry>,
    times: Index<TimeEntry>,
    bytes_since_entry: u64,
    /// The largest timestamp, and the last offset of the first batch that has it. The outer option
    /// is `None` until the timestamp is looked up, the inner one if there is no batch.
    largest: Option<Option<TimeEntry>>,
    recent: VecDeque<Place>,
    /// Whether index entries were written to a file since the last flush.
    index_dirty: bool,
    /// Whether the last use of an index file failed.
    index_failed: bool,
}

/// A segment of a log. The lock of its state is held only briefly, except while the `.log` file is
/// opened.
#[derive(Debug)]
pub struct Segment {
    pub base_offset: i64,
    pub(super) txns: TxnIndex,
    pub(super) files: SegmentFiles,
    state: Mutex<State>,
}

impl Segment {
    /// A segment whose files exist, with `size` valid bytes in the `.log` file.
    pub fn existing(disk: Arc<dyn Disk>, home: Arc<Home>, base_offset: i64, size: u64) -> Self {
        Self::with_files(SegmentFiles::new(disk, home, base_offset), base_offset, size)
    }

    fn with_files(files: SegmentFiles, base_offset: i64, size: u64) -> Self {
        let state = State {
            size,
            file: None,
            file_used: false,
            offsets: Index::new(None),
            times: Index::new(None),
            bytes_since_entry: 0,
            largest: None,
            recent: VecDeque::new(),
            index_dirty: false,
            index_failed: false,
        };
        Self { base_offset, txns: TxnIndex::default(), files, state: Mutex::new(state) }
    }

    /// Creates an empty segment and its files.
    pub fn create(disk: Arc<dyn Disk>, home: Arc<Home>, base_offset: i64) -> io::Result<Self> {
        let segment = Self::existing(disk, home, base_offset, 0);
        let file = segment.files.open(Kind::Log, OpenMode::Truncate)?;
        segment.state().file = Some(file);
        let emptied =
            segment.empty_index(Kind::Index).and_then(|()| segment.empty_index(Kind::TimeIndex));
        segment.reset_indexes_in_memory();
        if let Err(error) = emptied {
            // Otherwise the next start would treat the empty file as the active segment.
            let _ = segment.files.disk.remove_file(&segment.path(Kind::Log));
            return Err(error);
        }
        Ok(segment)
    }

    /// Creates the empty files of a segment that compaction writes (`*.cleaned`). Such files of an
    /// earlier attempt are emptied or removed.
    pub fn create_cleaned(
        disk: Arc<dyn Disk>,
        home: Arc<Home>,
        base_offset: i64,
    ) -> Result<Self, LogError> {
        let files = SegmentFiles::cleaned(disk, home, base_offset);
        let segment = Self::with_files(files, base_offset, 0);
        for kind in [Kind::Log, Kind::Index, Kind::TimeIndex] {
            let created = segment.files.open(kind, OpenMode::Truncate);
            let file = created.during("create", &segment.path(kind))?;
            if kind == Kind::Log {
                segment.state().file = Some(file);
            }
        }
        let txns = segment.path(Kind::TxnIndex);
        match segment.files.disk.remove_file(&txns) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.during("remove", &txns)?,
        }
        segment.reset_indexes_in_memory();
        Ok(segment)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn path(&self, kind: Kind) -> PathBuf {
        self.files.path(kind)
    }

    pub fn size(&self) -> u64 {
        self.state().size
    }

    /// The `.log` file. Opens it if it is closed.
    pub fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.file_used = true;
        if let Some(file) = &state.file {
            return Ok(file.clone());
        }
        let file = self.files.open(Kind::Log, OpenMode::Write)?;
        state.file = Some(file.clone());
        Ok(file)
    }

    /// Closes the `.log` file if it was not used since the last call.
    pub fn close_if_idle(&self) {
        let mut state = self.state();
        if !std::mem::take(&mut state.file_used) {
            state.file = None;
        }
    }

    pub fn close_file(&self) {
        self.state().file = None;
    }

    /// Adds batches that were written at the end of the segment: their sizes, and index entries in
    /// memory if they are due. Returns whether index entries are due to be written to the files.
    pub fn record_appended(
        &self,
        headers: impl Iterator<Item = BatchHeader>,
        index_interval: u64,
    ) -> bool {
        let mut state = self.state();
        for header in headers {
            state.record_appended(&header, index_interval);
        }
        state.offsets.is_write_due() || state.times.is_write_due()
    }

    /// Finds the first batch that ends at or after `offset`, within the first `end` bytes.
    pub fn find(&self, offset: i64, end: u64) -> io::Result<Option<Place>> {
        let (floor, stored) = {
            let state = self.state();
            if let Some(place) = state.find_recent(offset) {
                return Ok(Some(place).filter(|place| place.position < end));
            }
            let next = state.offsets.pending.partition_point(|entry| entry.offset <= offset);
            (next.checked_sub(1).map(|floor| state.offsets.pending[floor]), state.offsets.stored)
        };
        let floor = floor.or_else(|| {
            self.stored_floor(Kind::Index, stored, |entry: &OffsetEntry| entry.offset > offset)
        });
        self.find_from(floor, end, |header| header.last_offset() >= offset)
    }

    /// Finds the first batch for which `wanted` is true. Starts at the index entry `floor` if the
    /// log confirms the entry, else at the beginning.
    pub fn find_from(
        &self,
        floor: Option<OffsetEntry>,
        end: u64,
        mut wanted: impl FnMut(&BatchHeader) -> bool,
    ) -> io::Result<Option<Place>> {
        let file = self.file()?;
        let start = floor
            .filter(|floor| self.confirms_offset_entry(&*file, floor, end))
            .map(|at| at.position);
        let mut walk = Walk::headers(&*file, u64::from(start.unwrap_or(0)), end);
        loop {
            match walk.step()? {
                Step::Batch { header, position } if wanted(&header) => {
                    return Ok(Some(Place::of(&header, position)));
                }
                Step::Batch { .. } => {}
                Step::End => return Ok(None),
                Step::Torn { position, what } => {
                    let message = format!("position {position}: {what}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
            }
        }
    }

    /// Whether the log confirms an index entry: the batch that it names is at its position.
    pub fn confirms_offset_entry(
        &self,
        file: &dyn DiskFile,
        entry: &OffsetEntry,
        end: u64,
    ) -> bool {
        let mut walk = Walk::headers(file, u64::from(entry.position), end);
        matches!(walk.step(), Ok(Step::Batch { header, .. })
            if header.last_offset() == entry.offset && header.base_offset >= self.base_offset)
    }

    /// The largest timestamp in the segment, and the last offset of the first batch that has it;
    /// `None` without batches. Reads the segment only if the time index does not have it.
    pub fn largest(&self) -> io::Result<Option<TimeEntry>> {
        if let Some(largest) = self.state().largest {
            return Ok(largest);
        }
        let last = self.stored_floor(Kind::TimeIndex, None, |_: &TimeEntry| false);
        let largest = match last {
            Some(last) if self.confirms_time_entry(&last) => Some(last),
            _ => largest_from(&*self.file()?, 0, self.size())?,
        };
        self.state().largest = Some(largest);
        Ok(largest)
    }

    /// Whether the log confirms a time index entry: the batch that it names has its timestamp.
    pub fn confirms_time_entry(&self, entry: &TimeEntry) -> bool {
        let mut timestamp = None;
        let floor = self.floor_entry(entry.offset);
        let found = self.find_from(floor, self.size(), |header| {
            timestamp = Some(header.max_timestamp);
            header.last_offset() >= entry.offset
        });
        matches!(found, Ok(Some(_))) && timestamp == Some(entry.timestamp)
    }

    /// Sets the number of bytes after the last index entry when a log is opened.
    pub fn set_bytes_since_entry(&self, bytes: u64) {
        self.state().bytes_since_entry = bytes;
    }

    /// Truncates the segment to `position`, where the batch with `offset` begins or would begin.
    /// Works on a full disk, because files only become shorter.
    pub fn truncate(&self, offset: i64, position: u64) -> io::Result<()> {
        let file = self.file()?;
        let pending = {
            let mut state = self.state();
            state.offsets.pending.retain(|entry| entry.offset < offset);
            state.times.pending.retain(|entry| entry.offset < offset);
            (state.offsets.pending.clone(), state.times.pending.clone())
        };
        let offsets =
            self.cut_or_remove_index(Kind::Index, |entry: &OffsetEntry| entry.offset >= offset)?;
        let times =
            self.cut_or_remove_index(Kind::TimeIndex, |entry: &TimeEntry| entry.offset >= offset)?;
        self.cut_aborted(offset)?;
        file.truncate(position)?;
        self.state().size = position;
        let last_time = pending.1.last().copied().or(times.1);
        let from = last_time.and_then(|last| self.floor_entry(last.offset));
        let rest = largest_from(&*file, from.map_or(0, |at| u64::from(at.position)), position)?;
        let larger = |a: TimeEntry, b: TimeEntry| if b.timestamp > a.timestamp { b } else { a };
        let largest = last_time.into_iter().chain(rest).reduce(larger);
        self.adopt_indexes(offsets, times, largest);
        let mut state = self.state();
        pending.0.into_iter().for_each(|entry| state.offsets.push(entry));
        pending.1.into_iter().for_each(|entry| state.times.push(entry));
        Ok(())
    }

    pub fn set_size(&self, size: u64) {
        self.state().size = size;
    }
}

/// The largest timestamp between `position` and `end`, with the last offset of the first batch that
/// has it. Stops at the first invalid batch.
fn largest_from(file: &dyn DiskFile, position: u64, end: u64) -> io::Result<Option<TimeEntry>> {
    let mut largest: Option<TimeEntry> = None;
    let mut walk = Walk::headers(file, position, end);
    while let Step::Batch { header, .. } = walk.step()? {
        if largest.is_none_or(|largest| header.max_timestamp > largest.timestamp) {
            let (timestamp, offset) = (header.max_timestamp, header.last_offset());
            largest = Some(TimeEntry { timestamp, offset });
        }
    }
    Ok(largest)
}

impl State {
    fn record_appended(&mut self, header: &BatchHeader, index_interval: u64) {
        let place = Place::of(header, self.size);
        let known = self.largest.flatten();
        if known.is_none_or(|largest| header.max_timestamp > largest.timestamp) {
            let (timestamp, offset) = (header.max_timestamp, place.last_offset);
            self.largest = Some(Some(TimeEntry { timestamp, offset }));
        }
        if self.bytes_since_entry > index_interval {
            let position = place.position as u32;
            self.offsets.push(OffsetEntry { offset: place.last_offset, position });
            if let Some(Some(largest)) = self.largest {
                self.note_time(largest);
            }
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += place.size as u64;
        self.size += place.size as u64;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(place);
    }

    /// Adds an entry to the time index if its timestamp is larger than that of the last one.
    /// Batches without a timestamp (-1) therefore get no entry.
    fn note_time(&mut self, entry: TimeEntry) {
        let last = self.times.last.map_or(-1, |last| last.timestamp);
        if entry.timestamp > last {
            self.times.push(entry);
        }
    }

    fn find_recent(&self, offset: i64) -> Option<Place> {
        let covers = self.recent.front().is_some_and(|first| first.base_offset <= offset);
        let at = self.recent.partition_point(|place| place.last_offset < offset);
        self.recent.get(at).copied().filter(|_| covers)
    }
}
