//! Opening a log. After a clean stop, only the end of the last segment is read. After any other
//! stop, batches from the recovery point on are read and checked, or from the settled offset on if
//! it is larger. The first invalid batch ends the log. The producers' state comes from the newest
//! snapshot and the batches after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Active, Changes, Log, LogConfig, LogError, LogStart,
    append::new_epoch,
    disk::{Disk, read_file},
    epochs::Epochs,
    error::During,
    index::{OffsetEntry, TimeEntry},
    names::{self, Kind},
    producers::Producers,
    segment::{Home, Segment},
    swap,
    walk::{Step, Walk},
};
use crate::records::BatchHeader;

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The log did not exist and was created.
    pub created: bool,
    /// Bytes of batches that were checked.
    pub scanned_bytes: u64,
    /// Bytes cut off the end of a segment.
    pub cut_bytes: u64,
    /// Where they were cut, and why.
    pub cut_reason: Option<String>,
    /// Base offsets of removed segments, which were after a cut or before the log start.
    pub removed_segments: Vec<i64>,
    /// Base offsets of segments that replaced others, to complete a compaction.
    pub swapped_segments: Vec<i64>,
    /// Base offsets of segments whose indexes were rebuilt, at least in part.
    pub rebuilt_indexes: Vec<i64>,
    /// Base offsets of segments whose transaction indexes were rebuilt.
    pub rebuilt_txn_indexes: Vec<i64>,
    /// The leader epoch file was missing or damaged, so the epochs were read from the batches.
    pub rebuilt_epochs: bool,
    /// Batches read to restore the state of the producers.
    pub replayed_batches: u64,
}

impl Recovery {
    fn has_changed_names(&self) -> bool {
        self.cut_reason.is_some()
            || !self.rebuilt_indexes.is_empty()
            || !self.swapped_segments.is_empty()
    }
}

/// The files in the directory of a log.
#[derive(Debug, Default)]
struct DirContents {
    logs: BTreeMap<i64, HasIndexes>,
    snapshots: BTreeSet<i64>,
    has_epochs: bool,
    /// Base offsets of segments that have just replaced others.
    swapped: Vec<i64>,
}

#[derive(Debug, Default, Clone, Copy)]
struct HasIndexes {
    log: bool,
    offsets: bool,
    times: bool,
    txns: bool,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    config: Arc<LogConfig>,
    start: LogStart,
    checked_bytes: &AtomicU64,
) -> Result<(Log, Recovery), LogError> {
    let dir: Arc<Path> = dir.into();
    match find(&*disk, &dir)? {
        Some(mut found) if !found.logs.is_empty() => {
            let swapped_segments = std::mem::take(&mut found.swapped);
            let recovery = Recovery { swapped_segments, ..Recovery::default() };
            let plain_from = None;
            let aborted_from = None;
            let opening = Opening {
                disk,
                dir,
                config,
                start,
                recovery,
                plain_from,
                aborted_from,
                checked_bytes,
            };
            let (mut log, recovery) = opening.existing(found)?;
            if recovery.cut_reason.is_some() {
                // Otherwise a loss of power before the next flush could bring the cut records back,
                // after records that were written in their place.
                log.flush()?;
            }
            // A start opens thousands of logs, and few of them are used at once.
            log.active.segment.close_file();
            Ok((log, recovery))
        }
        found => create(disk, dir, config, start, found.is_none()),
    }
}

/// The names of the files in a directory; `None` if the directory does not exist.
fn file_names(disk: &dyn Disk, dir: &Path) -> Result<Option<Vec<String>>, LogError> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).during("list", dir),
    };
    Ok(Some(entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name).collect()))
}

/// Lists the files of a log and removes those that a crash has left. `None` if the directory does
/// not exist.
fn find(disk: &dyn Disk, dir: &Path) -> Result<Option<DirContents>, LogError> {
    let Some(mut names) = file_names(disk, dir)? else { return Ok(None) };
    let swapped = swap::settle(disk, dir, &names)?;
    if names.iter().any(|name| name.ends_with(names::SWAP)) {
        names = file_names(disk, dir)?.unwrap_or_default();
    }
    let mut found = DirContents { swapped, ..DirContents::default() };
    for name in names {
        let path = dir.join(&name);
        if names::is_leftover(&name) {
            disk.remove_file(&path).during("remove", &path)?;
        } else if name == names::LEADER_EPOCH_CHECKPOINT {
            found.has_epochs = true;
        } else if let Some((offset, kind)) = names::parse_file(&name) {
            match kind {
                Kind::Log => found.logs.entry(offset).or_default().log = true,
                Kind::Index => found.logs.entry(offset).or_default().offsets = true,
                Kind::TimeIndex => found.logs.entry(offset).or_default().times = true,
                Kind::Snapshot => drop(found.snapshots.insert(offset)),
                Kind::TxnIndex => found.logs.entry(offset).or_default().txns = true,
            }
        }
    }
    // Indexes without their `.log` file are useless.
    for (offset, _) in found.logs.iter().filter(|(_, has)| !has.log) {
        for kind in [Kind::Index, Kind::TimeIndex, Kind::TxnIndex] {
            let path = names::file(dir, *offset, kind);
            match disk.remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.during("remove", &path)?,
            }
        }
    }
    found.logs.retain(|_, has| has.log);
    Ok(Some(found))
}

fn create(
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    config: Arc<LogConfig>,
    start: LogStart,
    without_dir: bool,
) -> Result<(Log, Recovery), LogError> {
    if without_dir {
        disk.create_dir_all(&dir).during("create", &dir)?;
    }
    let offset = start.log_start.unwrap_or(0);
    let path = names::file(&dir, offset, Kind::Log);
    let home = Home::new(dir.clone());
    let segment = Segment::create(disk.clone(), home.clone(), offset).during("create", &path)?;
    let segment = Arc::new(segment);
    let log = Log {
        disk,
        dir,
        home,
        segments: [segment.clone()].into(),
        deleted: Vec::new(),
        active: Active::new(segment, 0, &config, start.now_ms),
        config,
        log_start: offset,
        log_end: offset,
        recovery_point: offset,
        epochs: Epochs::default(),
        epochs_changes: Changes::default(),
        producers: Producers::starting_at(offset),
        snapshots: Vec::new(),
        unsynced: Vec::new(),
        dir_changes: Changes { made: 1, synced: 0 },
        // The name of the directory may be new, too.
        parent_dirty: true,
        unsettled: 0,
        settled: offset,
        generation: 0,
        first_dirty: None,
        incoming: None,
        replacements: 0,
        failed: false,
    };
    Ok((log, Recovery { created: true, ..Recovery::default() }))
}

struct Opening<'a> {
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    config: Arc<LogConfig>,
    start: LogStart,
    recovery: Recovery,
    /// All batches from this offset to the log end were read, and none has a producer id.
    plain_from: Option<i64>,
    /// The base offset of the first segment whose transaction index is damaged or may be missing.
    aborted_from: Option<i64>,
    checked_bytes: &'a AtomicU64,
}

impl Opening<'_> {
    fn existing(mut self, found: DirContents) -> Result<(Log, Recovery), LogError> {
        let epochs_before = self.load_epochs(found.has_epochs)?;
        let mut epochs = self.certain_epochs(epochs_before.clone());
        let home = Home::new(self.dir.clone());
        let mut segments = self.existing_segments(&home, found.logs.keys())?;
        let has: Vec<HasIndexes> = found.logs.into_values().collect();
        let log_end = self.check_segments(&mut segments, &has, epochs.as_mut())?;
        self.load_aborted(&segments, &has)?;
        let epochs = match epochs {
            Some(epochs) => epochs,
            None => self.epochs_from(&segments)?,
        };
        let active = segments.last().expect("the first is never removed").clone();
        let (first, size) = (segments[0].base_offset, active.size());
        let log_start = self.start.log_start.unwrap_or(first).max(first);
        let recovery_point = match self.start.clean {
            true => log_end,
            false => self.start.recovery_point.clamp(log_start.min(log_end), log_end),
        };
        let rebuilt = &self.recovery.rebuilt_indexes;
        let is_unsynced = |(segment, next): &(&Arc<Segment>, &Arc<Segment>)| {
            rebuilt.contains(&segment.base_offset) || next.base_offset > recovery_point
        };
        let unsynced = segments.iter().zip(&segments[1..]).filter(is_unsynced);
        let unsynced = unsynced.map(|(segment, _)| (1, segment.clone())).collect();
        // The next flush syncs the directory, so that removed segments do not come back.
        let made = u64::from(self.recovery.has_changed_names());
        let mut log = Log {
            active: Active::new(active, size, &self.config, self.start.now_ms),
            segments: segments.into(),
            deleted: Vec::new(),
            disk: self.disk,
            dir: self.dir,
            home,
            config: self.config,
            log_start,
            log_end,
            recovery_point,
            epochs,
            epochs_changes: Changes::default(),
            producers: Producers::starting_at(log_start),
            snapshots: found.snapshots.into_iter().collect(),
            unsynced,
            dir_changes: Changes { made, synced: 0 },
            parent_dirty: !self.start.clean,
            unsettled: self.recovery.scanned_bytes,
            settled: self.start.sound_until().clamp(recovery_point, log_end),
            generation: 0,
            first_dirty: None,
            incoming: None,
            replacements: 0,
            failed: false,
        };
        if log_end < log_start {
            // The log start checkpoint says that all remaining records were deleted.
            let removed = log.segments.iter().map(|segment| segment.base_offset);
            self.recovery.removed_segments.extend(removed);
            log.truncate_fully_and_start_at(log_start, self.start.now_ms)?;
            return Ok((log, self.recovery));
        }
        if found.has_epochs || !log.epochs.entries().is_empty() {
            log.settle_epochs(epochs_before.as_ref())?;
        }
        let from = (self.plain_from, self.aborted_from);
        log.settle_producers(&self.start, from, &mut self.recovery)?;
        log.check_invariants();
        Ok((log, self.recovery))
    }

    fn existing_segments<'a>(
        &self,
        home: &Arc<Home>,
        base_offsets: impl Iterator<Item = &'a i64>,
    ) -> Result<Vec<Arc<Segment>>, LogError> {
        let segment = |base_offset: &i64| {
            let path = names::file(&self.dir, *base_offset, Kind::Log);
            let size = self.disk.len(&path).during("look at", &path)?;
            let (disk, home) = (self.disk.clone(), home.clone());
            Ok(Arc::new(Segment::existing(disk, home, *base_offset, size)))
        };
        base_offsets.map(segment).collect()
    }

    /// Loads the transaction indexes and notes the first damaged one.
    fn load_aborted(
        &mut self,
        segments: &[Arc<Segment>],
        has: &[HasIndexes],
    ) -> Result<(), LogError> {
        for (index, segment) in segments.iter().enumerate().filter(|(index, _)| has[*index].txns) {
            let next = segments.get(index + 1).map_or(i64::MAX, |next| next.base_offset);
            let path = segment.path(Kind::TxnIndex);
            if !segment.load_aborted(next).during("read", &path)? {
                self.note_aborted_from(segment);
            }
        }
        Ok(())
    }

    fn note_aborted_from(&mut self, segment: &Segment) {
        let first = self.aborted_from.map_or(segment.base_offset, |it| it.min(segment.base_offset));
        self.aborted_from = Some(first);
    }

    /// Reads the leader epoch file; `None` if the epochs have to be read from the batches.
    fn load_epochs(&mut self, exists: bool) -> Result<Option<Epochs>, LogError> {
        if !exists {
            return Ok(None);
        }
        let path = self.dir.join(names::LEADER_EPOCH_CHECKPOINT);
        let bytes = read_file(&*self.disk, &path).during("read", &path)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        Ok(Epochs::decode(&bytes).ok())
    }

    /// Removes the epochs of batches that will be checked. The check adds them again.
    fn certain_epochs(&self, mut epochs: Option<Epochs>) -> Option<Epochs> {
        if let Some(epochs) = &mut epochs
            && !self.start.clean
        {
            epochs.truncate_from_end(self.start.sound_until().max(0));
        }
        epochs
    }

    /// Reads the leader epochs from the headers of all batches, for lack of a valid file.
    fn epochs_from(&mut self, segments: &[Arc<Segment>]) -> Result<Epochs, LogError> {
        let mut epochs = Epochs::default();
        for segment in segments.iter().filter(|segment| segment.size() > 0) {
            self.recovery.rebuilt_epochs = true;
            let path = segment.path(Kind::Log);
            let file = segment.file().during("open", &path)?;
            let mut walk = Walk::headers(&*file, 0, segment.size());
            while let Step::Batch { header, .. } = walk.step().during("read", &path)? {
                note_epoch(&mut epochs, &header);
            }
        }
        Ok(epochs)
    }

    /// Checks the segments and returns the log end. Removes the segments after an invalid batch.
    fn check_segments(
        &mut self,
        segments: &mut Vec<Arc<Segment>>,
        has: &[HasIndexes],
        mut epochs: Option<&mut Epochs>,
    ) -> Result<i64, LogError> {
        let mut log_end = segments[0].base_offset;
        let last = segments.len() - 1;
        for index in 0..=last {
            let segment = segments[index].clone();
            let next = segments.get(index + 1).map_or(i64::MAX, |next| next.base_offset);
            let has_indexes = has[index].offsets && has[index].times;
            // The indexes of a segment that ends at the recovery point may have been written later.
            let is_past = !self.start.clean && next >= self.start.sound_until();
            if index < last && !is_past && has_indexes {
                self.plain_from = None;
                continue;
            }
            if index == last
                && !is_past
                && has_indexes
                && let Some(end) = self.adopt_active(&segment)?
            {
                return Ok(end);
            }
            let from = match self.start.clean || !has_indexes {
                true => i64::MIN,
                false => self.start.sound_until(),
            };
            let bounds = Bounds { first: log_end.max(segment.base_offset), next };
            let (end, is_whole) = self.scan(&segment, from, bounds, epochs.as_deref_mut())?;
            log_end = end;
            if index < last {
                let written = segment.reset_indexes_unless_written(segment.seal());
                written.during("write the indexes of", &segment.path(Kind::Log))?;
                segment.close_file();
            }
            if !is_whole {
                for removed in segments.drain(index + 1..).rev() {
                    self.recovery.removed_segments.push(removed.base_offset);
                    removed.files.remove()?;
                }
                break;
            }
        }
        Ok(log_end)
    }

    /// Opens the last segment without checking it, and returns its end offset; `None` if its files
    /// contradict each other.
    fn adopt_active(&self, segment: &Segment) -> Result<Option<i64>, LogError> {
        let size = segment.size();
        let path = segment.path(Kind::Log);
        if size == 0 {
            // The process may have stopped after it created the segment and before its indexes.
            segment.reset_indexes().during("create the indexes of", &path)?;
            return Ok(Some(segment.base_offset));
        }
        self.adopt_filled(segment, size).during("read", &path)
    }

    fn adopt_filled(&self, segment: &Segment, size: u64) -> io::Result<Option<i64>> {
        let file = segment.file()?;
        // An index file that cannot be read is rebuilt.
        let offsets = segment.cut_index(Kind::Index, |_: &OffsetEntry| false);
        let times = segment.cut_index(Kind::TimeIndex, |_: &TimeEntry| false);
        let (Ok(offsets), Ok(times)) = (offsets, times) else { return Ok(None) };
        if offsets.1.is_some_and(|last| !segment.confirms_offset_entry(&*file, &last, size)) {
            return Ok(None);
        }
        let position = offsets.1.map_or(0, |last| u64::from(last.position));
        let (mut end, mut largest) = (segment.base_offset, times.1);
        let mut walk = Walk::headers(&*file, position, size);
        loop {
            match walk.step()? {
                Step::Batch { header, .. } if header.base_offset >= end => {
                    end = header.last_offset() + 1;
                    let entry = TimeEntry { timestamp: header.max_timestamp, offset: end - 1 };
                    if largest.is_none_or(|known| entry.timestamp > known.timestamp) {
                        largest = Some(entry);
                    }
                }
                Step::End => break,
                Step::Batch { .. } | Step::Torn { .. } => return Ok(None),
            }
        }
        segment.adopt_indexes(offsets, times, largest);
        segment.set_bytes_since_entry(size - position);
        Ok(Some(end))
    }

    /// Checks a segment, starting after the last index entry before `from`. Rebuilds the index
    /// entries that follow, and cuts the segment at the first invalid batch. Returns its end offset
    /// and whether nothing was cut.
    fn scan(
        &mut self,
        segment: &Segment,
        from: i64,
        bounds: Bounds,
        mut epochs: Option<&mut Epochs>,
    ) -> Result<(i64, bool), LogError> {
        let path = segment.path(Kind::Log);
        let wrap = |result: io::Result<()>| result.during("write the indexes of", &path);
        let file = segment.file().during("open", &path)?;
        let file_size = segment.size();
        let (position, mut expected) = match self.resume(segment, from).during("read", &path)? {
            Some((position, next)) => (position, next),
            None => {
                wrap(segment.reset_indexes())?;
                (0, bounds.first)
            }
        };
        segment.set_size(position);
        self.plain_from.get_or_insert(expected);
        self.recovery.rebuilt_indexes.push(segment.base_offset);
        // Batches before `from` need index entries, but no check.
        let mut walk = Walk::checked_from(from, &*file, position, file_size);
        let (valid, what) = loop {
            match walk.step().during("read", &path)? {
                Step::Batch { header, position } => {
                    if let Some(what) = bounds.refuse(segment, &header, expected) {
                        break (position, Some(what.to_owned()));
                    }
                    expected = header.last_offset() + 1;
                    if walk.is_checking() {
                        let size = header.size() as u64;
                        self.recovery.scanned_bytes += size;
                        self.checked_bytes.fetch_add(size, Ordering::Relaxed);
                    }
                    if header.has_producer_id() {
                        self.plain_from = None;
                        // If indexes are missing, the transaction index may be missing, too.
                        if from == i64::MIN && header.is_control() {
                            self.note_aborted_from(segment);
                        }
                    }
                    if let Some(epochs) = epochs.as_deref_mut() {
                        note_epoch(epochs, &header);
                    }
                    let header = std::iter::once(header);
                    if segment.record_appended(header, self.config.index_interval_bytes) {
                        wrap(segment.reset_indexes_unless_written(segment.write_indexes()))?;
                    }
                }
                Step::End => break (file_size, None),
                Step::Torn { position, what } => break (position, Some(what)),
            }
        };
        let is_whole = what.is_none();
        if let Some(what) = what {
            self.recovery.cut_bytes += file_size - valid;
            let message = format!("{} at position {valid}: {what}", path.display());
            self.recovery.cut_reason = Some(message);
            file.truncate(valid).during("truncate", &path)?;
        }
        Ok((expected, is_whole))
    }

    /// Finds an index entry before `from` that the log confirms, and cuts the indexes after it.
    /// Returns the position and the offset after its batch; `None` if there is no such entry.
    fn resume(&self, segment: &Segment, from: i64) -> io::Result<Option<(u64, i64)>> {
        if from <= segment.base_offset {
            return Ok(None);
        }
        // Either index may lack entries at its end. Up to the last confirmed time index entry, both
        // are complete.
        let Some(last) = segment.time_before_offset(from) else { return Ok(None) };
        if !segment.confirms_time_entry(&last) {
            return Ok(None);
        }
        let Some(floor) = segment.floor_entry(last.offset) else { return Ok(None) };
        let file = segment.file()?;
        let size = segment.size();
        if !segment.confirms_offset_entry(&*file, &floor, size) {
            return Ok(None);
        }
        let mut walk = Walk::checked(&*file, u64::from(floor.position), size);
        let Step::Batch { header, position } = walk.step()? else { return Ok(None) };
        let offsets =
            segment.cut_index(Kind::Index, |entry: &OffsetEntry| entry.offset > floor.offset);
        let times =
            segment.cut_index(Kind::TimeIndex, |entry: &TimeEntry| entry.offset > floor.offset);
        let (Ok(offsets), Ok(times)) = (offsets, times) else { return Ok(None) };
        segment.adopt_indexes(offsets, times, times.1);
        let confirmed = match times.1 {
            Some(last) => segment.confirms_time_entry(&last),
            None => false,
        };
        if offsets.1 != Some(floor) || !confirmed {
            return Ok(None);
        }
        segment.set_bytes_since_entry(header.size() as u64);
        Ok(Some((position + header.size() as u64, header.last_offset() + 1)))
    }
}

fn note_epoch(epochs: &mut Epochs, header: &BatchHeader) {
    let latest = epochs.latest().map(|entry| entry.epoch);
    if let Some(epoch) = new_epoch(latest, header) {
        epochs.assign(epoch, header.base_offset);
    }
}

/// The offsets between which the batches of a segment must be.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    first: i64,
    next: i64,
}

impl Bounds {
    fn refuse(
        &self,
        segment: &Segment,
        header: &BatchHeader,
        expected: i64,
    ) -> Option<&'static str> {
        if header.base_offset < expected {
            return Some("its offsets are not behind those before it");
        }
        if header.last_offset() >= self.next {
            return Some("its offsets reach into the next segment");
        }
        if header.last_offset() - segment.base_offset > i64::from(i32::MAX) {
            return Some("its offsets are too far from the segment's base offset");
        }
        None
    }
}
