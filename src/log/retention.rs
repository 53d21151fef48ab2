//! Deleting segments that are too old, exceed the size limit, or are below the log start (Kafka's
//! `UnifiedLog.deleteOldSegments`). Whole segments are deleted, the oldest first.

use std::sync::{Arc, Weak};

use super::{Log, LogError, error::During, names::Kind, segment::Segment};

/// A segment that was deleted from its log. Its files have the suffix `.deleted`. The caller
/// removes them after `file_delete_delay_ms`, and a start removes those that are left.
#[derive(Debug)]
pub struct DeletedSegment(Arc<Segment>);

impl DeletedSegment {
    /// Removes the files.
    pub fn remove(self) -> Result<(), LogError> {
        self.0.files.remove_deleted()
    }
}

impl Log {
    /// Moves the log start forward (DeleteRecords) and returns whether it moved.
    /// [`Log::apply_retention`] later deletes the segments below it. Fails if `offset` is after the
    /// log end.
    pub fn advance_log_start(&mut self, offset: i64) -> Result<bool, LogError> {
        if offset > self.log_end {
            return Err(self.out_of_range(offset));
        }
        if offset <= self.log_start {
            return Ok(false);
        }
        self.log_start = offset;
        self.recovery_point = self.recovery_point.max(offset);
        self.producers.forget_ended_below(offset);
        self.producers.includes_all_before(offset);
        if self.epochs.truncate_from_start(offset) {
            self.write_epochs()?;
        }
        Ok(true)
    }

    /// Deletes up to `max_segments` segments, the oldest first: those below the log start and, if
    /// `cleanup.policy` has `delete`, those that exceed `retention.bytes` or have no timestamp
    /// within `retention.ms`. Keeps segments with records at or above the high watermark. Renames
    /// the files of deleted segments; the caller removes them.
    pub fn apply_retention(
        &mut self,
        now_ms: i64,
        high_watermark: i64,
        max_segments: usize,
    ) -> Result<Vec<DeletedSegment>, LogError> {
        if self.failed {
            return Ok(Vec::new());
        }
        let count = self.deletable_count(now_ms, high_watermark)?.min(max_segments);
        if count == 0 {
            return Ok(Vec::new());
        }
        if count == self.segments.len() {
            self.roll(self.log_end, now_ms)?;
        }
        let mut deleted = Vec::with_capacity(count);
        for segment in &self.segments.clone()[..count] {
            deleted.push(self.mark_deleted(segment)?);
        }
        self.segments = self.segments[count..].into();
        let first = self.segments[0].base_offset;
        self.unsynced.retain(|(_, segment)| segment.base_offset >= first);
        self.advance_log_start(first)?;
        self.check_invariants();
        Ok(deleted)
    }

    /// Number of segments to delete, counted from the oldest.
    fn deletable_count(&self, now_ms: i64, high_watermark: i64) -> Result<usize, LogError> {
        let mut excess = match u64::try_from(self.config.retention_bytes) {
            Ok(bytes) if self.config.delete => self.size().saturating_sub(bytes),
            _ => 0,
        };
        for (index, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(index + 1);
            let end = next.map_or(self.log_end, |next| next.base_offset);
            let size = segment.size();
            let is_empty_last = next.is_none() && size == 0;
            if end > high_watermark || is_empty_last {
                return Ok(index);
            }
            let is_below_start = next.is_some() && end <= self.log_start;
            let is_excess = size > 0 && size <= excess;
            if !is_below_start && !is_excess && !self.is_too_old(segment, now_ms)? {
                return Ok(index);
            }
            excess = excess.saturating_sub(size);
        }
        Ok(self.segments.len())
    }

    fn is_too_old(&self, segment: &Segment, now_ms: i64) -> Result<bool, LogError> {
        if !self.config.delete || self.config.retention_ms < 0 {
            return Ok(false);
        }
        let path = segment.path(Kind::Log);
        let largest = segment.largest().during("read", &path)?;
        let timestamp = match largest.filter(|largest| largest.timestamp >= 0) {
            Some(largest) => largest.timestamp,
            None => self.disk.modified_ms(&path).during("read the modification time of", &path)?,
        };
        Ok(now_ms.saturating_sub(timestamp) > self.config.retention_ms)
    }

    /// Renames the files of a segment to `*.deleted`.
    fn mark_deleted(&mut self, segment: &Arc<Segment>) -> Result<DeletedSegment, LogError> {
        // Readers may still hold an earlier segment of the same base offset. Its files must not be
        // taken for those of this one.
        for earlier in self.earlier_deleted(segment.base_offset) {
            earlier.remove()?;
        }
        segment.files.mark_deleted()?;
        self.snapshots.retain(|offset| *offset != segment.base_offset);
        Ok(self.note_deleted(segment))
    }

    /// Deleted segments of the same base offset, whose files may still exist.
    pub(super) fn earlier_deleted(&self, base_offset: i64) -> Vec<DeletedSegment> {
        let deleted = self.deleted.iter().filter_map(Weak::upgrade);
        deleted.filter(|it| it.base_offset == base_offset).map(DeletedSegment).collect()
    }

    /// Notes that the files of a segment have the suffix `.deleted` now.
    pub(super) fn note_deleted(&mut self, segment: &Arc<Segment>) -> DeletedSegment {
        self.deleted.retain(|deleted| deleted.strong_count() > 0);
        self.deleted.push(Arc::downgrade(segment));
        self.dir_changes.made += 1;
        DeletedSegment(segment.clone())
    }
}
