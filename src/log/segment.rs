//! One segment: a `.log` file and its two indexes. Shared by the log that owns it and by readers.
//!
//! The newest index entries stay in memory and go to their files in blocks; what a crash loses of
//! them, recovery rebuilds. No index file stays open. The `.log` file of a segment that nobody
//! writes is opened when first read, and closed again when it was not read for a while.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use super::{
    disk::{Disk, DiskFile, OpenMode, write_all_at},
    index::{Entries, Entry, OffsetEntry, TimeEntry},
    names::{self, Kind},
    walk::{Step, Walk},
};
use crate::records::BatchHeader;

/// So many index entries are kept in memory before they are written in one block.
const PENDING_MAX: usize = 512;
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

/// An index: entries in the file, then entries in memory.
#[derive(Debug)]
struct Index<E> {
    /// Entries in the file; `None` until somebody needs to know.
    stored: Option<u32>,
    pending: Vec<E>,
    last: Option<E>,
}

impl<E: Entry> Index<E> {
    fn new(stored: Option<u32>) -> Self {
        Self { stored, pending: Vec::new(), last: None }
    }

    fn push(&mut self, entry: E) {
        self.pending.push(entry);
        self.last = Some(entry);
    }

    fn len(&self) -> usize {
        self.stored.unwrap_or(0) as usize + self.pending.len()
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
    disk: Arc<dyn Disk>,
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
        };
        Self { base_offset, disk, home, state: Mutex::new(state) }
    }

    /// Makes the files of an empty segment.
    pub fn create(disk: Arc<dyn Disk>, home: Arc<Home>, base_offset: i64) -> io::Result<Self> {
        let segment = Self::existing(disk, home, base_offset, 0);
        let file = segment.open(Kind::Log, OpenMode::Truncate)?;
        segment.state().file = Some(file);
        let emptied = segment
            .open(Kind::Index, OpenMode::Truncate)
            .and_then(|_| segment.open(Kind::TimeIndex, OpenMode::Truncate));
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
    fn open(&self, kind: Kind, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        loop {
            let dir = self.home.dir();
            let path = names::file(&dir, self.base_offset, kind);
            let opened = match self.disk.open(&path, mode) {
                // It was deleted while a reader still has it in view.
                Err(error) if error.kind() == io::ErrorKind::NotFound && kind == Kind::Log => {
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

    /// Empties both indexes, in memory and on disk. Files that are empty are left alone: thousands
    /// of small logs have such, and a start looks at all of them.
    pub fn reset_indexes(&self) -> io::Result<()> {
        for kind in [Kind::Index, Kind::TimeIndex] {
            if !matches!(self.disk.len(&self.path(kind)), Ok(0)) {
                self.open(kind, OpenMode::Truncate)?;
            }
        }
        self.forget_indexes();
        Ok(())
    }

    /// Both indexes are empty on disk.
    fn forget_indexes(&self) {
        let mut state = self.state();
        state.offsets = Index::new(Some(0));
        state.times = Index::new(Some(0));
        state.bytes_since_entry = 0;
        state.largest = Some(None);
        state.recent.clear();
    }

    /// Notes a batch at the segment's end: its size, its index entries if they are due. Says
    /// whether index entries wait to be written in a block.
    pub fn note(&self, headers: impl Iterator<Item = BatchHeader>, index_interval: u64) -> bool {
        let mut state = self.state();
        for header in headers {
            state.note(&header, index_interval);
        }
        state.offsets.pending.len() >= PENDING_MAX || state.times.pending.len() >= PENDING_MAX
    }

    /// Whether another entry may not fit an index of `index_bytes`. A slot of the time index is
    /// kept for the entry at the roll.
    pub fn index_full(&self, index_bytes: u64) -> bool {
        let state = self.state();
        let slots = |len: usize| index_bytes as usize / len;
        state.offsets.len() >= slots(OffsetEntry::LEN)
            || state.times.len() + 1 >= slots(TimeEntry::LEN)
    }

    /// Writes index entries that are only in memory.
    pub fn write_indexes(&self) -> io::Result<()> {
        // Only the log's owner comes here, so that nothing is added between the two locks.
        let (offsets, times, from) = {
            let state = self.state();
            let from = (state.offsets.stored, state.times.stored);
            (state.offsets.pending.clone(), state.times.pending.clone(), from)
        };
        let offsets_stored = self.write_index(Kind::Index, from.0, &offsets)?;
        let times_stored = self.write_index(Kind::TimeIndex, from.1, &times)?;
        let mut state = self.state();
        state.index_dirty |= !offsets.is_empty() || !times.is_empty();
        if offsets_stored.is_some() {
            state.offsets.stored = offsets_stored;
            state.offsets.pending = Vec::new();
        }
        if times_stored.is_some() {
            state.times.stored = times_stored;
            state.times.pending = Vec::new();
        }
        Ok(())
    }

    /// Where the disk had no room for index entries, does without: an empty index sends whoever
    /// looks to the log itself.
    pub fn or_without(&self, written: io::Result<()>) -> io::Result<()> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let largest = self.state().largest;
                self.reset_indexes()?;
                self.state().largest = largest;
                Ok(())
            }
            other => other,
        }
    }

    /// Says how many entries the file has afterwards, if there was anything to write.
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
        let stored = match stored {
            Some(stored) => stored,
            None => (file.len()? / E::LEN as u64) as u32,
        };
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
        let floor = match floor {
            Some(floor) => Some(floor),
            None => {
                self.stored_floor(Kind::Index, stored, |entry: &OffsetEntry| entry.offset > offset)?
            }
        };
        self.find_from(floor, end, |header| header.last_offset() >= offset)
    }

    /// The last entry in an index file that `after` does not hold for. A file that is missing or
    /// too short has none: the log itself has the truth.
    fn stored_floor<E: Entry>(
        &self,
        kind: Kind,
        stored: Option<u32>,
        after: impl Fn(&E) -> bool,
    ) -> io::Result<Option<E>> {
        if stored == Some(0) {
            return Ok(None);
        }
        let found = (|| {
            let file = self.open(kind, OpenMode::Read)?;
            let count = match stored {
                Some(stored) => stored,
                None => (file.len()? / E::LEN as u64) as u32,
            };
            Entries { file: &*file, base_offset: self.base_offset, count }.floor(after)
        })();
        match found {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Ok(None)
            }
            other => other,
        }
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

    /// The last index entry at or before `offset`, wherever it is.
    pub fn floor_entry(&self, offset: i64) -> io::Result<Option<OffsetEntry>> {
        let (pending, stored) = {
            let state = self.state();
            let pending = state.offsets.pending.iter().rfind(|entry| entry.offset <= offset);
            (pending.copied(), state.offsets.stored)
        };
        match pending {
            Some(entry) => Ok(Some(entry)),
            None => {
                self.stored_floor(Kind::Index, stored, |entry: &OffsetEntry| entry.offset > offset)
            }
        }
    }

    /// The last time index entry that is before `timestamp`, wherever it is.
    pub fn time_before(&self, timestamp: i64) -> io::Result<Option<TimeEntry>> {
        let (pending, stored) = {
            let state = self.state();
            let pending = state.times.pending.iter().rfind(|entry| entry.timestamp < timestamp);
            (pending.copied(), state.times.stored)
        };
        match pending {
            Some(entry) => Ok(Some(entry)),
            None => self.stored_floor(Kind::TimeIndex, stored, |entry: &TimeEntry| {
                entry.timestamp >= timestamp
            }),
        }
    }

    /// The last time index entry in the file that is for an offset before `offset`.
    pub fn time_before_offset(&self, offset: i64) -> io::Result<Option<TimeEntry>> {
        self.stored_floor(Kind::TimeIndex, None, |entry: &TimeEntry| entry.offset >= offset)
    }

    /// The largest timestamp in the segment and the last offset of the first batch that has it.
    pub fn largest(&self) -> io::Result<Option<TimeEntry>> {
        if let Some(largest) = self.state().largest {
            return Ok(largest);
        }
        let last = self.stored_floor(Kind::TimeIndex, None, |_: &TimeEntry| false)?;
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
        let found = self.floor_entry(entry.offset).and_then(|floor| {
            self.find_from(floor, self.size(), |header| {
                timestamp = Some(header.max_timestamp);
                header.last_offset() >= entry.offset
            })
        });
        matches!(found, Ok(Some(_))) && timestamp == Some(entry.timestamp)
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
        state.offsets = Index { stored: Some(offsets.0), pending: Vec::new(), last: offsets.1 };
        state.times = Index { stored: Some(times.0), pending: Vec::new(), last: times.1 };
        state.largest = Some(largest);
        state.recent.clear();
        state.bytes_since_entry = 0;
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
        let offsets = self.cut_index(Kind::Index, |entry: &OffsetEntry| entry.offset >= offset)?;
        let times = self.cut_index(Kind::TimeIndex, |entry: &TimeEntry| entry.offset >= offset)?;
        file.truncate(position)?;
        self.state().size = position;
        let last_time = pending.1.last().copied().or(times.1);
        let from = match last_time {
            Some(last) => self.floor_entry(last.offset)?,
            None => None,
        };
        let rest = largest_from(&*file, from.map_or(0, |at| u64::from(at.position)), position)?;
        let larger = |a: TimeEntry, b: TimeEntry| if b.timestamp > a.timestamp { b } else { a };
        let largest = last_time.into_iter().chain(rest).reduce(larger);
        self.adopt_indexes(offsets, times, largest);
        let mut state = self.state();
        pending.0.into_iter().for_each(|entry| state.offsets.push(entry));
        pending.1.into_iter().for_each(|entry| state.times.push(entry));
        Ok(())
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
