//! Which part of a log can be compacted, and whether that is due (Kafka's
//! `LogCleanerManager.cleanableOffsets` and `LogToClean`).
//!
//! A log has a clean part, which earlier rounds have compacted, and a dirty part after it. Only
//! whole segments of the dirty part are compacted. The segments must be below the last stable
//! offset and old enough, and the active segment is never compacted.

use std::{io, sync::Arc};

use super::CleanRange;
use crate::log::{
    LogConfig, LogView, ReadError,
    disk::OpenMode,
    names::Kind,
    segment::Segment,
    view::io_error,
    walk::{Step, Walk},
};

/// What a round would find in a log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogToClean {
    pub range: CleanRange,
    /// Bytes of the segments before the first dirty offset.
    pub clean_bytes: u64,
    /// Bytes of the segments that can be compacted.
    pub dirty_bytes: u64,
    /// By how many milliseconds the oldest dirty segment exceeds `max.compaction.lag.ms`; 0 if none
    /// does.
    pub delay_ms: i64,
    /// The checkpointed first dirty offset, if it lies outside of the log. The range then begins at
    /// the log start.
    pub invalid_checkpoint: Option<i64>,
}

impl LogToClean {
    /// Looks up what can be compacted. Reads timestamps from the disk if a lag is configured, so
    /// the caller must not hold the lock of the partition.
    pub fn of(
        view: &LogView,
        config: &LogConfig,
        last_stable_offset: i64,
        now_ms: i64,
    ) -> Result<Self, ReadError> {
        let log_start = view.log_start();
        let is_in_log = |offset: &i64| (log_start..=view.log_end()).contains(offset);
        let first_dirty = view.first_dirty().filter(is_in_log).unwrap_or(log_start);
        let active = view.segments.len() - 1;
        let dirty = &view.segments[view.segment_at(first_dirty)..active];
        let mut end = last_stable_offset.min(view.active_base_offset());
        if config.min_compaction_lag_ms > 0 {
            let young_after = now_ms.saturating_sub(config.min_compaction_lag_ms);
            for segment in dirty {
                if largest_timestamp(segment).map_err(|error| io_error(segment, error))?
                    > young_after
                {
                    end = end.min(segment.base_offset);
                    break;
                }
            }
        }
        let end_index = view.segment_at(end.max(first_dirty));
        let end = view.segments[end_index].base_offset;
        let dirty_index = view.segment_at(first_dirty.min(end));
        let clean_count = view.segments.partition_point(|it| it.base_offset < first_dirty);
        let bytes = |range: std::ops::Range<usize>| range.map(|index| view.end_of(index)).sum();
        Ok(Self {
            range: CleanRange { first_dirty, end, generation: view.generation() },
            clean_bytes: bytes(0..clean_count),
            dirty_bytes: bytes(dirty_index..end_index),
            delay_ms: compaction_delay_ms(dirty, config, now_ms)?,
            invalid_checkpoint: view.first_dirty().filter(|offset| !is_in_log(offset)),
        })
    }

    /// The dirty part of the log, from 0 to 1.
    pub fn ratio(&self) -> f64 {
        match self.clean_bytes + self.dirty_bytes {
            0 => 0.0,
            all => self.dirty_bytes as f64 / all as f64,
        }
    }

    /// Whether a round is due: enough of the log is dirty, or a dirty record is too old.
    pub fn is_due(&self, config: &LogConfig) -> bool {
        self.delay_ms > 0 && self.dirty_bytes > 0 || self.ratio() > config.min_cleanable_dirty_ratio
    }
}

fn compaction_delay_ms(
    dirty: &[Arc<Segment>],
    config: &LogConfig,
    now_ms: i64,
) -> Result<i64, ReadError> {
    let old_before = now_ms.saturating_sub(config.max_compaction_lag_ms.max(0));
    let mut delay_ms = 0;
    // With the default lag, no timestamp is old enough, and nothing is read.
    if old_before > 0 {
        for segment in dirty {
            let first = first_timestamp(segment).map_err(|error| io_error(segment, error))?;
            let first = first.filter(|timestamp| *timestamp > 0);
            delay_ms = delay_ms.max(first.map_or(0, |timestamp| old_before - timestamp));
        }
    }
    Ok(delay_ms)
}

/// The largest timestamp in a segment or, without timestamps, the time of its last change.
fn largest_timestamp(segment: &Segment) -> io::Result<i64> {
    match segment.largest()?.filter(|largest| largest.timestamp >= 0) {
        Some(largest) => Ok(largest.timestamp),
        None => segment.files.disk.modified_ms(&segment.path(Kind::Log)),
    }
}

/// The largest timestamp in the first batch of a segment.
fn first_timestamp(segment: &Segment) -> io::Result<Option<i64>> {
    // `Segment::file` would keep the file of an idle segment open.
    let file = segment.files.open(Kind::Log, OpenMode::Read)?;
    let step = Walk::headers(&*file, 0, segment.size()).step()?;
    Ok(match step {
        Step::Batch { header, .. } => Some(header.max_timestamp),
        // A round finds what is wrong with the segment.
        Step::End | Step::Torn { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::log::{Log, LogStart, faulty::FaultyDisk, testing::batch};

    const NOW: i64 = 1_700_000_000_000;
    /// Each segment has one batch of 100 offsets.
    const PER_SEGMENT: i64 = 100;
    const NO_TIMESTAMP: i64 = i64::MIN;

    /// A log with one segment per age (in ms) of its batch, and an empty active segment.
    fn log(config: &LogConfig, ages: &[i64]) -> Log {
        let disk = Arc::new(FaultyDisk::default());
        let start = LogStart::of_new(NOW);
        let opened = Log::open(disk, Path::new("/data/t-0"), Arc::new(config.clone()), start);
        let mut log = opened.expect("opens").0;
        for age in ages {
            let mut batch = batch(log.log_end(), PER_SEGMENT as i32, 10);
            batch.header.max_timestamp = if *age == NO_TIMESTAMP { -1 } else { NOW - age };
            log.append(&mut [batch], 0, NOW).expect("appends");
            log.roll(log.log_end(), NOW).expect("rolls");
        }
        log
    }

    fn compacted() -> LogConfig {
        LogConfig { compact: true, ..LogConfig::default() }
    }

    fn of(log: &Log, config: &LogConfig, last_stable_offset: i64) -> LogToClean {
        LogToClean::of(&log.view(), config, last_stable_offset, NOW).expect("readable")
    }

    fn range(log: &Log, config: &LogConfig, last_stable_offset: i64) -> (i64, i64) {
        let range = of(log, config, last_stable_offset).range;
        (range.first_dirty, range.end)
    }

    #[test]
    fn a_round_ends_at_the_last_stable_offset_in_whole_segments() {
        let config = compacted();
        let mut log = log(&config, &[5, 4, 3, 2]);
        for (last_stable, end) in [(400, 400), (399, 300), (300, 300), (1, 0), (0, 0)] {
            assert_eq!(range(&log, &config, last_stable), (0, end), "{last_stable}");
        }
        log.append(&mut [batch(400, 1, 10)], 0, NOW).expect("appends");
        assert_eq!(range(&log, &config, 401), (0, 400), "the active segment is left out");
        let size = log.view().segments[0].size();
        let found = of(&log, &config, 250);
        assert_eq!((found.clean_bytes, found.dirty_bytes), (0, 2 * size));
        log.set_first_dirty(200);
        let found = of(&log, &config, 401);
        assert_eq!((found.clean_bytes, found.dirty_bytes), (2 * size, 2 * size));
        assert_eq!(range(&log, &config, 401), (200, 400));
        let found = of(&log, &config, 150);
        assert_eq!((found.dirty_bytes, found.ratio()), (0, 0.0), "nothing new is stable");
    }

    #[test]
    fn a_log_is_due_above_its_ratio() {
        let config = compacted();
        let mut log = log(&config, &[5, 4, 3, 2]);
        log.set_first_dirty(200);
        let found = of(&log, &config, 400);
        assert!((found.ratio() - 0.5).abs() < 1e-9);
        assert!(!found.is_due(&config), "not above");
        assert!(found.is_due(&LogConfig { min_cleanable_dirty_ratio: 0.49, ..config.clone() }));
        log.set_first_dirty(400);
        let all_clean = of(&log, &config, 400);
        assert!(!all_clean.is_due(&LogConfig { min_cleanable_dirty_ratio: 0.0, ..config }));
        assert!(!of(&log, &compacted(), 0).is_due(&compacted()));
    }

    #[test]
    fn young_segments_wait_for_the_least_lag() {
        let config = LogConfig { min_compaction_lag_ms: 100, ..compacted() };
        let log = log(&config, &[500, 100, 99, 500]);
        assert_eq!(range(&log, &config, 400), (0, 200), "the third is too young");
        let shorter = LogConfig { min_compaction_lag_ms: 50, ..config.clone() };
        assert_eq!(range(&log, &shorter, 400), (0, 400));
        assert_eq!(range(&log, &config, 150), (0, 100));
    }

    #[test]
    fn timestamps_of_the_future_and_missing_ones_hold_back() {
        let config = LogConfig { min_compaction_lag_ms: 100, ..compacted() };
        assert_eq!(range(&log(&config, &[500, NOW - i64::MAX]), &config, 200), (0, 100));
        let log = log(&config, &[NO_TIMESTAMP]);
        // The file has just been written.
        let modified = log.view().segments[0].path(Kind::Log);
        let modified = log.view().segments[0].files.disk.modified_ms(&modified).expect("is there");
        let at = |now| LogToClean::of(&log.view(), &config, 100, now).expect("readable").range.end;
        assert_eq!((at(modified + 99), at(modified + 100)), (0, 100));
    }

    #[test]
    fn old_records_are_due_at_any_ratio() {
        let lag = |ms| LogConfig { max_compaction_lag_ms: ms, ..compacted() };
        let mut log = log(&lag(1000), &[9000, 5000, 50]);
        log.set_first_dirty(200);
        let found = of(&log, &lag(1000), 300);
        assert_eq!(found.delay_ms, 0, "the old records are clean");
        assert!(!found.is_due(&lag(1000)));
        log.set_first_dirty(100);
        let found = of(&log, &lag(1000), 300);
        assert_eq!(found.delay_ms, 4000);
        let never = LogConfig { min_cleanable_dirty_ratio: 1.0, ..lag(1000) };
        assert!(found.is_due(&never));
        assert!(!of(&log, &never, 100).is_due(&never), "old, but not stable");
        assert_eq!(of(&log, &lag(i64::MAX), 300).delay_ms, 0);
    }

    #[test]
    fn a_checkpoint_outside_of_the_log_is_replaced_by_the_log_start() {
        let config = compacted();
        let mut log = log(&config, &[5, 4, 3]);
        assert_eq!(of(&log, &config, 300).invalid_checkpoint, None);
        log.restore_first_dirty(Some(301));
        assert_eq!(of(&log, &config, 300).invalid_checkpoint, Some(301));
        assert_eq!(range(&log, &config, 300), (0, 300));
        log.restore_first_dirty(Some(50));
        log.advance_log_start(150).expect("in range");
        assert_eq!(of(&log, &config, 300).invalid_checkpoint, Some(50));
        assert_eq!(range(&log, &config, 300), (150, 300));
        log.restore_first_dirty(Some(300));
        assert_eq!(of(&log, &config, 300).invalid_checkpoint, None);
        assert_eq!(range(&log, &config, 300), (300, 300));
    }

    #[test]
    fn a_truncation_lowers_the_first_dirty_offset() {
        let config = compacted();
        let mut log = log(&config, &[5, 4, 3]);
        log.set_first_dirty(300);
        log.truncate_to(150, 0).expect("in range");
        assert_eq!(log.view().first_dirty(), Some(100), "its segment is active now");
        log.truncate_fully_and_start_at(50, NOW).expect("restarts");
        assert_eq!(log.view().first_dirty(), Some(50));
        log.set_first_dirty(70);
        assert_eq!(log.view().first_dirty(), Some(50), "never in the active segment");
    }
}
