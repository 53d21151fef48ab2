//! A round of compaction (Kafka's `Cleaner.doClean`): maps the keys of the dirty range, then
//! rewrites the log from its first segment to the end of the round, one group of segments after the
//! other.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::{
        Disk, Log, LogConfig, LogError, LogView, ProducerEntry,
        error::During,
        names::{self, Kind},
        segment::{Home, Segment},
        view::io_error,
    },
    BatchProblem, CleanError, Filter, FilterRules, FilterStats, Filtered, KeyMapper, LastRecord,
    MapStats, Mapped, OffsetMap, Pace, Uncleanable,
    groups::{GroupLimits, SegmentSizes, group},
    output::Output,
    reader::BatchReader,
};
use crate::base::planted_bugs::{Bug, has_bug};

/// The offsets whose records a round compares with all earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanRange {
    /// Everything before this offset was cleaned by earlier rounds.
    pub first_dirty: i64,
    /// The first offset that must not be cleaned. At most the base offset of the active segment.
    pub end: i64,
    /// The number of truncations of the log when the range was determined. After another one, the
    /// range may have uncommitted records.
    pub generation: u64,
}

/// Settings of a round.
#[derive(Debug, Clone, Copy)]
pub struct CleanOptions {
    /// Largest size of the map from keys to offsets, in bytes.
    pub map_bytes: usize,
    /// Largest used share of the map's slots, from 0 to 1.
    pub load_factor: f64,
    /// Bytes that are read or written at once. A larger batch is read as a whole.
    pub io_buffer_bytes: usize,
    /// A random key for the hash of the map, so that producers cannot cause collisions.
    pub hash_key: [u8; 16],
    pub now_ms: i64,
    pub delete_retention_ms: i64,
}

/// The numbers of a round.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct CleanStats {
    pub map: MapStats,
    pub filter: FilterStats,
    /// The used share of the map's slots, from 0 to 1.
    pub map_utilization: f64,
}

/// The result of a round.
#[derive(Debug, Clone, Copy)]
pub struct Cleaned {
    /// Everything before this offset is clean now. Less than the end of the range if the map was
    /// too small for it.
    pub end_offset: i64,
    pub stats: CleanStats,
}

/// Access to the log that a round cleans.
pub trait CleanedLog {
    /// Runs a short change of the log, which other code does not change meanwhile. Fails with
    /// [`CleanError::Aborted`] if the log is out of service, or is not the one with which the round
    /// began.
    fn update<R>(&self, change: impl FnOnce(&mut Log) -> R) -> Result<R, CleanError>;
}

/// Segments that become one, each with the base offset of the segment after it.
type Group = Vec<(Arc<Segment>, i64)>;

/// What a round needs of a log to read and write segments without it.
struct Source {
    view: LogView,
    config: Arc<LogConfig>,
    disk: Arc<dyn Disk>,
    home: Arc<Home>,
}

impl Source {
    fn of(log: &Log) -> Self {
        Self {
            view: log.view(),
            config: log.config.clone(),
            disk: log.disk.clone(),
            home: log.home.clone(),
        }
    }

    /// The segments that begin before `end`, without the active one, each with the base offset of
    /// the segment after it.
    fn segments_before(&self, end: i64) -> impl Iterator<Item = (&Arc<Segment>, i64)> {
        let segments = &self.view.segments;
        let pairs = segments.iter().zip(&segments[1..]);
        let pairs = pairs.take_while(move |(segment, _)| segment.base_offset < end);
        pairs.map(|(segment, next)| (segment, next.base_offset))
    }

    fn sync_dir(&self) -> Result<(), LogError> {
        let dir = self.home.dir();
        self.disk.sync_dir(&dir).during("sync", &dir)
    }
}

/// Cleans the log: of the records before the end offset of the round, only the last one of each key
/// in the range stays. Takes the log only to rename files and to exchange segments.
///
/// When this returns without an error, all replacements are durable. After an error, the segments
/// that `pace` has received stay replaced.
pub fn clean(
    log: &impl CleanedLog,
    range: CleanRange,
    options: &CleanOptions,
    pace: &mut dyn Pace,
) -> Result<Cleaned, CleanError> {
    let source = log.update(|log| Source::of(log))?;
    if source.view.generation != range.generation {
        return Err(CleanError::Aborted);
    }
    let end = range.end.min(source.view.active_base_offset());
    let range = CleanRange { end, ..range };
    let round = Round { log, source: &source, range, options };
    let cleaned = round.tidy_up().and_then(|()| round.run(pace));
    log.update(|log| end_round(log, &source.view, cleaned))?
}

/// Ends a round on the log that it began with, and notes what is clean now.
fn end_round(
    log: &mut Log,
    begun: &LogView,
    cleaned: Result<Cleaned, CleanError>,
) -> Result<Cleaned, CleanError> {
    // A start completes what was begun. Until then, nothing more may be written to the directory.
    log.check_writable()?;
    let is_truncated = log.generation != begun.generation;
    // The log looks damaged if retention deletes segments during a read.
    let is_shortened = log.segments[0].base_offset != begun.first_base_offset();
    match cleaned {
        _ if is_truncated => Err(CleanError::Aborted),
        Err(_) if is_shortened => Err(CleanError::Aborted),
        Err(error) => Err(error),
        Ok(cleaned) => {
            log.set_first_dirty(cleaned.end_offset);
            Ok(cleaned)
        }
    }
}

struct Round<'a, L> {
    log: &'a L,
    source: &'a Source,
    range: CleanRange,
    options: &'a CleanOptions,
}

impl<L: CleanedLog> Round<'_, L> {
    /// Completes a replacement of an earlier round that failed before the new files had their final
    /// names, and removes files that an earlier round could not remove. A start after a crash would
    /// take these for a part of this round.
    fn tidy_up(&self) -> Result<(), CleanError> {
        self.log.update(|log| log.check_writable())??;
        for segment in self.source.view.segments.iter().filter(|it| it.files.is_swap()) {
            self.complete(segment)?;
        }
        let (dir, disk) = (self.source.home.dir(), &self.source.disk);
        let mut is_removed = false;
        for entry in disk.list(&dir).during("list", &dir)? {
            if entry.name.ends_with(names::CLEANED) || entry.name.ends_with(names::SWAP) {
                let path = dir.join(&entry.name);
                disk.remove_file(&path).during("remove", &path)?;
                is_removed = true;
            }
        }
        match is_removed {
            true => Ok(self.source.sync_dir()?),
            false => Ok(()),
        }
    }

    fn run(&self, pace: &mut dyn Pace) -> Result<Cleaned, CleanError> {
        let (Mapped { map, end_offset, survivors }, map_stats) = self.map_keys(pace)?;
        pace.mapped();
        if has_bug(Bug::EarlyFirstDirty) {
            self.log.update(|log| log.set_first_dirty(end_offset))?;
        }
        let rules = FilterRules {
            end_offset,
            range_end: self.range.end,
            now_ms: self.options.now_ms,
            delete_retention_ms: self.options.delete_retention_ms,
        };
        let mut filter = Filter::new(&map, rules);
        filter.set_survivors(&survivors);
        for group in self.groups(end_offset)? {
            self.clean_group(&group, &mut filter, pace)?;
        }
        let (filter, map_utilization) = (filter.stats(), map.utilization());
        let stats = CleanStats { map: map_stats, filter, map_utilization };
        Ok(Cleaned { end_offset, stats })
    }

    /// Maps the keys of the range to their last offsets.
    fn map_keys(&self, pace: &mut dyn Pace) -> Result<(Mapped, MapStats), CleanError> {
        let CleanOptions { map_bytes, load_factor, hash_key, .. } = *self.options;
        let CleanRange { first_dirty, end, .. } = self.range;
        let map = OffsetMap::new(map_bytes, load_factor, hash_key);
        let mut mapper = KeyMapper::new(map, first_dirty..end);
        'range: for (segment, next) in self.dirty_segments() {
            let from = first_dirty.max(segment.base_offset);
            mapper.add_aborted(&self.source.view.aborted_between(from, next)?);
            let Some(position) = self.dirty_position(segment)? else { continue };
            let chunk = self.options.io_buffer_bytes;
            let mut reader = BatchReader::new(segment, position, chunk)?;
            while let Some(batch) = reader.next(pace)? {
                let has_room = mapper.add(&batch);
                if !has_room.map_err(|problem| uncleanable(segment, problem))? {
                    break 'range;
                }
            }
            segment.close_file();
        }
        let stats = mapper.stats();
        Ok((mapper.finish(), stats))
    }

    /// The segments that reach into the range.
    fn dirty_segments(&self) -> impl Iterator<Item = (&Arc<Segment>, i64)> {
        let CleanRange { first_dirty, end, .. } = self.range;
        self.source.segments_before(end).filter(move |(_, next)| *next > first_dirty)
    }

    /// The position of the first batch of a segment that reaches into the range.
    fn dirty_position(&self, segment: &Segment) -> Result<Option<u64>, CleanError> {
        if self.range.first_dirty <= segment.base_offset {
            return Ok(Some(0));
        }
        let place = segment.find(self.range.first_dirty, segment.size());
        let place = place.map_err(|error| io_error(segment, error))?;
        Ok(place.map(|place| place.position))
    }

    /// The segments to rewrite, in groups that become one segment each.
    fn groups(&self, end_offset: i64) -> Result<Vec<Group>, CleanError> {
        let mut segments = Vec::new();
        let mut sizes = Vec::new();
        for (segment, next) in self.source.segments_before(end_offset) {
            let index_sizes = segment.index_sizes();
            let (offset_index, time_index) =
                index_sizes.during("read", &segment.path(Kind::Index))?;
            let (base_offset, log) = (segment.base_offset, segment.size());
            sizes.push(SegmentSizes { base_offset, log, offset_index, time_index });
            segments.push((segment.clone(), next));
        }
        let LogConfig { segment_bytes, index_bytes, .. } = *self.source.config;
        let limits = GroupLimits { segment_bytes, index_bytes };
        let mut segments = segments.into_iter();
        let counts = group(&sizes, limits, self.range.end);
        Ok(counts.into_iter().map(|count| segments.by_ref().take(count).collect()).collect())
    }

    fn clean_group(
        &self,
        group: &[(Arc<Segment>, i64)],
        filter: &mut Filter,
        pace: &mut dyn Pace,
    ) -> Result<(), CleanError> {
        let new = self.rewrite(group, filter, pace)?;
        let old: Vec<_> = group.iter().map(|(segment, _)| segment.clone()).collect();
        if let Err(error) = self.announce(&new, &old) {
            self.log.update(|log| log.withdraw(&new)).unwrap_or_default();
            self.discard(&new);
            return Err(error);
        }
        let deleted = match self.log.update(|log| log.replace(&new, &old)) {
            Ok(replaced) => replaced?,
            Err(error) => {
                self.discard(&new);
                return Err(error);
            }
        };
        let completed = self.complete(&new);
        // The old files are not used any more, even if the names of the new ones are not final.
        pace.replaced(deleted);
        completed
    }

    /// Writes the records of a group that stay to a new segment, and makes it durable.
    fn rewrite(
        &self,
        group: &[(Arc<Segment>, i64)],
        filter: &mut Filter,
        pace: &mut dyn Pace,
    ) -> Result<Arc<Segment>, CleanError> {
        let (first, last) = (&group[0].0, &group[group.len() - 1].0);
        let Source { disk, home, config, view } = self.source;
        let (interval, chunk) = (config.index_interval_bytes, self.options.io_buffer_bytes);
        let (disk, home) = (disk.clone(), home.clone());
        let mut output = Output::create(disk, home, first.base_offset, interval, chunk)?;
        filter.set_last_records(self.log.update(|log| log.last_records())?);
        for (segment, next) in group {
            filter.add_aborted(&view.aborted_between(segment.base_offset, *next)?);
            let mut reader = BatchReader::new(segment, 0, chunk)?;
            output.note_cached(reader.was_cached());
            while let Some(batch) = reader.next(pace)? {
                match filter.apply(&batch).map_err(|problem| uncleanable(segment, problem))? {
                    Filtered::Dropped => {}
                    Filtered::AsIs => output.append(&batch, pace)?,
                    Filtered::Rebuilt(rebuilt) => output.append(&rebuilt, pace)?,
                }
            }
            // A log may have thousands of segments.
            segment.close_file();
        }
        output.note_aborted(filter.take_aborted());
        let path = last.path(Kind::Log);
        let modified = self.source.disk.modified_ms(&path);
        let modified_ms = modified.during("read the modification time of", &path)?;
        output.finish(modified_ms, pace)
    }

    /// Renames the new files to `*.swap`, durably.
    fn announce(&self, new: &Arc<Segment>, old: &[Arc<Segment>]) -> Result<(), CleanError> {
        let generation = self.source.view.generation;
        let earlier = self.log.update(|log| log.announce(new, old, generation))??;
        // Removing large files takes too long to do it with the log.
        for segment in earlier {
            segment.remove()?;
        }
        Ok(self.source.sync_dir()?)
    }

    /// Gives the new files their final names. Before and after, makes the names durable.
    fn complete(&self, new: &Arc<Segment>) -> Result<(), CleanError> {
        self.source.sync_dir()?;
        self.log.update(|log| log.complete(new))??;
        Ok(self.source.sync_dir()?)
    }

    /// Removes the files of a new segment that does not replace any.
    fn discard(&self, new: &Segment) {
        // The next start removes or completes them.
        if let Err(error) = new.files.remove() {
            tracing::warn!(%error, "cannot remove the files of a cleaned segment");
        }
    }
}

fn uncleanable(segment: &Segment, problem: BatchProblem) -> CleanError {
    CleanError::Uncleanable { path: segment.path(Kind::Log), problem: Uncleanable::Batch(problem) }
}

impl Log {
    /// The last record of each producer that the log has the state of
    /// (Kafka's `UnifiedLog.lastRecordsOfActiveProducers`).
    fn last_records(&self) -> HashMap<i64, LastRecord> {
        let last = |(id, entry): (i64, &ProducerEntry)| {
            let last_data_offset = entry.last_batch().map(|batch| batch.last_offset);
            (id, LastRecord { last_data_offset, epoch: entry.epoch })
        };
        self.producers().map(last).collect()
    }
}
