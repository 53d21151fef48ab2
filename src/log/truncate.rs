//! Truncating a log, as a follower does, and restarting it at another offset.

use std::sync::Arc;

use super::{
    Active, Log, LogError,
    error::During,
    names::{self, Kind},
    producers::Producers,
    segment::Segment,
};

impl Log {
    /// Removes all records from `offset` on. A batch that contains `offset` is removed as a whole.
    /// Fails if `offset` is below the log start, and panics if it is below the high watermark,
    /// because committed records are never removed.
    pub fn truncate_to(&mut self, offset: i64, high_watermark: i64) -> Result<(), LogError> {
        assert!(
            offset >= high_watermark.min(self.log_end),
            "{}: cut at {offset} below the high watermark {high_watermark}",
            self.dir.display()
        );
        if offset < self.log_start {
            return Err(self.out_of_range(offset));
        }
        self.cut(offset, high_watermark)?;
        if self.epochs.truncate_from_end(offset) {
            self.write_epochs()?;
        }
        self.check_invariants();
        Ok(())
    }

    pub(super) fn out_of_range(&self, offset: i64) -> LogError {
        let (log_start, log_end) = (self.log_start, self.log_end);
        LogError::OutOfRange { offset, log_start, log_end }
    }

    /// Truncates the segments and the producers' state, but not the leader epochs.
    fn cut(&mut self, offset: i64, high_watermark: i64) -> Result<(), LogError> {
        if offset >= self.log_end {
            return Ok(());
        }
        self.cut_segments(offset)?;
        self.reload_producers(high_watermark)
    }

    /// Truncates only the segments. The log must end after `offset`.
    pub(super) fn cut_segments(&mut self, offset: i64) -> Result<(), LogError> {
        self.discard_incoming()?;
        let kept = self.segments.partition_point(|segment| segment.base_offset <= offset);
        if kept == 0 {
            // A roll to a later offset has replaced the only segment, which was empty.
            let producers = std::mem::take(&mut self.producers);
            let restarted = self.truncate_fully_and_start_at(offset, self.active.created_ms);
            self.producers = producers;
            return restarted;
        }
        // The last segment is removed first, so that a crash in between leaves no gap.
        let removed = self.segments[kept..].to_vec();
        for segment in removed.iter().rev() {
            segment.files.remove()?;
        }
        let segment = self.segments[kept - 1].clone();
        let path = segment.path(Kind::Log);
        let size = match removed.is_empty() {
            true => self.active.size,
            false => segment.size(),
        };
        let place = segment.find(offset, size).during("read", &path)?;
        let position = place.map_or(size, |place| place.position);
        segment.truncate(offset, position).during("truncate", &path)?;
        let (created_ms, first) = (self.active.created_ms, self.active.first_timestamp);
        self.segments = self.segments[..kept].into();
        self.active = Active::new(segment.clone(), position, &self.config, created_ms);
        self.active.first_timestamp = first.filter(|_| removed.is_empty() && position > 0);
        self.unsynced.retain(|(_, other)| other.base_offset < segment.base_offset);
        self.log_end = place.map_or(offset, |place| place.base_offset.min(offset));
        self.recovery_point = self.recovery_point.min(self.log_end);
        self.settled = self.settled.min(self.log_end);
        self.log_start = self.log_start.min(self.log_end);
        self.lower_first_dirty();
        self.generation += 1;
        self.dir_changes.made += 1;
        Ok(())
    }

    /// Removes everything and restarts the log at `offset`. A follower does this if the leader no
    /// longer has the records after the follower's log end.
    pub fn truncate_fully_and_start_at(
        &mut self,
        offset: i64,
        now_ms: i64,
    ) -> Result<(), LogError> {
        self.discard_incoming()?;
        let removed = self.segments.to_vec();
        for segment in removed.iter().rev() {
            segment.files.remove()?;
        }
        for snapshot in std::mem::take(&mut self.snapshots) {
            self.remove_snapshot(snapshot)?;
        }
        let created = Segment::create(self.disk.clone(), self.home.clone(), offset);
        let path = names::file(&self.dir, offset, Kind::Log);
        let segment = Arc::new(created.during("create", &path)?);
        self.segments = [segment.clone()].into();
        self.active = Active::new(segment, 0, &self.config, now_ms);
        self.unsynced.clear();
        (self.log_start, self.log_end, self.recovery_point) = (offset, offset, offset);
        self.settled = offset;
        self.lower_first_dirty();
        self.producers = Producers::starting_at(offset);
        self.generation += 1;
        self.dir_changes.made += 1;
        self.failed = false;
        self.epochs.clear();
        self.write_epochs()
    }

    pub(super) fn remove_snapshot(&self, offset: i64) -> Result<(), LogError> {
        let path = names::file(&self.dir, offset, Kind::Snapshot);
        match self.disk.remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.during("remove", &path),
        }
    }
}
