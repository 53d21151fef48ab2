//! One segment: a `.log` file and its two indexes. Shared by the log that owns it and by readers.
//!
//! The newest index entries stay in memory and go to their files in blocks; what a crash loses of
//! them, recovery rebuilds. No index file stays open. The `.log` file of a segment that nobody
//! writes is opened when first read, and closed again when it was not read for a while.

mod indexes;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use indexes::Index;

use super::{
    aborted::TxnIndex,
    disk::{Disk, DiskFile, OpenMode},
    index::{OffsetEntry, TimeEntry},
    names::{self, Kind},
    walk::{Step, Walk},
};
use crate::records::BatchHeader;

/// Of so many of the newest batches the positions are known without reading.
const RECENT_MAX: usize = 32;

/// Where a batch lies.
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
    /// Whether the file was read since the last look at idle files.
    file_used: bool,
    offsets: Index<OffsetEntry>,
    times: Index<TimeEntry>,
    bytes_since_entry: u64,
    /// The largest timestamp and the last offset of the first batch that has it; outer `None`
    /// until somebody needs to know.
    largest: Option<Option<TimeEntry>>,
    recent: VecDeque<Place>,
    /// Whether index blocks were written since the last flush.
    index_dirty: bool,
    /// Whether the last use of an index file failed.
    index_failed: bool,
}

/// Where a log's files lie. A deletion renames the directory while readers hold segments of it, and
/// another topic may have its old name then.
#[derive(Debug)]
pub struct Home(RwLock<Arc<Path>>);

impl Home {
    pub fn new(dir: Arc<Path>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(dir)))
    }

    /// To be called between the renaming and anything else coming to the old name.
    pub fn set(&self, dir: Arc<Path>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = dir;
    }

    fn dir(&self) -> Arc<Path> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
pub struct Segment {
    pub base_offset: i64,
    pub(super) txns: TxnIndex,
    pub(super) disk: Arc<dyn Disk>,
    home: Arc<Home>,
    state: Mutex<State>,
}

impl Segment {
    /// A segment whose files are there, with `size` valid bytes.
    pub fn existing(disk: Arc<dyn Disk>, home: Arc<Home>, base_offset: i64, size: u64) -> Self {
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
        Self { base_offset, txns: TxnIndex::default(), disk, home, state: Mutex::new(state) }
    }

    /// Makes the files of an empty segment.
    pub fn create(disk: Arc<dyn Disk>, home: Arc<Home>, base_offset: i64) -> io::Result<Self> {
        let segment = Self::existing(disk, home, base_offset, 0);
        let file = segment.open(Kind::Log, OpenMode::Truncate)?;
        segment.state().file = Some(file);
        let emptied =
            segment.empty_index(Kind::Index).and_then(|()| segment.empty_index(Kind::TimeIndex));
        segment.forget_indexes();
        if let Err(error) = emptied {
            // An empty segment that is left would count as the log's end at the next start.
            let _ = segment.disk.remove_file(&segment.path(Kind::Log));
            return Err(error);
        }
        Ok(segment)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics with a segment's state held")
    }

    pub fn path(&self, kind: Kind) -> PathBuf {
        names::file(&self.home.dir(), self.base_offset, kind)
    }

    /// Opens one of the segment's files, and never one of another log that has the name now: the
    /// directory was not renamed until after the opening.
    pub(super) fn open(&self, kind: Kind, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        loop {
            let dir = self.home.dir();
            let path = names::file(&dir, self.base_offset, kind);
            let opened = match self.disk.open(&path, mode) {
                // It was deleted while a reader still has it in view.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && kind.outlives_removal() =>
                {
                    self.disk.open(&names::deleted(&path), OpenMode::Read)
                }
                other => other,
            };
            if Arc::ptr_eq(&dir, &self.home.dir()) {
                return opened;
            }
        }
    }

    pub fn size(&self) -> u64 {
        self.state().size
    }

    /// The `.log` file, opened if it was not.
    pub fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.file_used = true;
        if let Some(file) = &state.file {
            return Ok(file.clone());
        }
        let file = self.open(Kind::Log, OpenMode::Write)?;
        state.file = Some(file.clone());
        Ok(file)
    }

    /// Closes the file if nobody asked for it since the last call.
    pub fn close_if_idle(&self) {
        let mut state = self.state();
        if !std::mem::take(&mut state.file_used) {
            state.file = None;
        }
    }

    pub fn close_file(&self) {
        self.state().file = None;
    }

    /// Notes a batch at the segment's end: its size, its index entries if they are due. Says
    /// whether index entries wait to be written in a block.
    pub fn note(&self, headers: impl Iterator<Item = BatchHeader>, index_interval: u64) -> bool {
        let mut state = self.state();
        for header in headers {
            state.note(&header, index_interval);
        }
        state.offsets.is_write_due() || state.times.is_write_due()
    }

    /// The first batch that ends at or after `offset`, among the first `end` bytes.
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

    /// The first batch that `wanted` holds for, going on from an index entry if it is true.
    pub fn find_from(
        &self,
        floor: Option<OffsetEntry>,
        end: u64,
        mut wanted: impl FnMut(&BatchHeader) -> bool,
    ) -> io::Result<Option<Place>> {
        let file = self.file()?;
        let start = floor.filter(|floor| self.is_true(&*file, floor, end)).map(|at| at.position);
        let mut walk = Walk::headers(&*file, u64::from(start.unwrap_or(0)), end);
        loop {
            match walk.step()? {
                Step::Batch { header, position } if wanted(&header) => {
                    return Ok(Some(Place::of(&header, position)));
                }
                Step::Batch { .. } => {}
                Step::End => return Ok(None),
                Step::Torn { position, what } => {
                    let told = format!("position {position}: {what}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, told));
                }
            }
        }
    }

    /// Whether an index entry points to the batch that it names.
    pub fn is_true(&self, file: &dyn DiskFile, entry: &OffsetEntry, end: u64) -> bool {
        let mut walk = Walk::headers(file, u64::from(entry.position), end);
        matches!(walk.step(), Ok(Step::Batch { header, .. })
            if header.last_offset() == entry.offset && header.base_offset >= self.base_offset)
    }

    /// The largest timestamp in the segment and the last offset of the first batch that has it.
    pub fn largest(&self) -> io::Result<Option<TimeEntry>> {
        if let Some(largest) = self.state().largest {
            return Ok(largest);
        }
        let last = self.stored_floor(Kind::TimeIndex, None, |_: &TimeEntry| false);
        let largest = match last {
            Some(last) if self.is_true_time(&last) => Some(last),
            _ => largest_from(&*self.file()?, 0, self.size())?,
        };
        self.state().largest = Some(largest);
        Ok(largest)
    }

    /// Whether the batch that a time index entry names has its timestamp.
    pub fn is_true_time(&self, entry: &TimeEntry) -> bool {
        let mut timestamp = None;
        let floor = self.floor_entry(entry.offset);
        let found = self.find_from(floor, self.size(), |header| {
            timestamp = Some(header.max_timestamp);
            header.last_offset() >= entry.offset
        });
        matches!(found, Ok(Some(_))) && timestamp == Some(entry.timestamp)
    }

    /// Bytes that follow the last index entry, noted when the log is opened.
    pub fn set_bytes_since_entry(&self, bytes: u64) {
        self.state().bytes_since_entry = bytes;
    }

    /// Ends the segment before `position`, which is where `offset` would have been. Works on a full
    /// disk: files only become shorter.
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
    fn note(&mut self, header: &BatchHeader, index_interval: u64) {
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

    /// Entries of the time index rise, and batches without a timestamp have none.
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
