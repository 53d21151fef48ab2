//! Appending batches to a log, and rolling to a new segment.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io::IoSlice,
    sync::Arc,
};

use super::{
    Active, Appended, Log, LogConfig, LogError,
    disk::{write_all_vectored_at, write_file},
    error::During,
    names::{self, Kind},
    producers::{Marker, Producers},
    segment::Segment,
    snapshot,
    walk::{Step, Walk},
};
use crate::{
    base::random::Random,
    records::{Batch, BatchHeader, batch::HEADER_LEN},
};

/// Largest size of a segment: Kafka stores positions in an index as `int`.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;
/// Most batches in one write: two slices per batch fill one `pwritev`.
const GROUP_MAX: usize = 512;

impl Log {
    /// Assigns the next offsets and the leader epoch to the batches, and appends them as
    /// [`Self::append_verbatim`] does. The caller has validated the records.
    pub fn append(
        &mut self,
        batches: &mut [Batch],
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, LogError> {
        let mut next = self.log_end;
        for batch in &mut *batches {
            batch.header.base_offset = next;
            batch.header.leader_epoch = leader_epoch;
            next = batch.header.last_offset() + 1;
        }
        self.append_verbatim(batches, now_ms)
    }

    /// Appends batches with the offsets and epochs that the leader gave them. Each must begin at or
    /// after the end of the one before.
    ///
    /// Appends all batches or none: after an error, everything that was written is undone. If the
    /// undo fails, too, the log accepts no more writes ([`LogError::Failed`]).
    pub fn append_verbatim(
        &mut self,
        batches: &[Batch],
        now_ms: i64,
    ) -> Result<Appended, LogError> {
        self.check_writable()?;
        self.check_batches(batches)?;
        // If there are too few descriptors, nothing is written, and nothing has to be undone.
        let segment = &self.active.segment;
        if let Err(error) = segment.file() {
            return Err(error).during("open", &segment.path(Kind::Log));
        }
        let before = self.log_end;
        let rolls_before = self.active.segment.base_offset;
        let mut producers_before = None;
        let mut rest = batches;
        while !rest.is_empty() {
            match self.append_group(rest, now_ms, &mut producers_before) {
                Ok(count) => rest = &rest[count..],
                Err(error) => {
                    self.undo_to(before, producers_before);
                    return Err(error);
                }
            }
        }
        let first = batches.first().map_or(before, |batch| batch.header.base_offset);
        let largest = batches.iter().map(|batch| batch.header.max_timestamp).max();
        Ok(Appended {
            first_offset: first,
            last_offset: self.log_end - 1,
            log_start: self.log_start,
            max_timestamp: largest.unwrap_or(-1),
            rolled: self.active.segment.base_offset != rolls_before,
        })
    }

    fn check_batches(&self, batches: &[Batch]) -> Result<(), LogError> {
        let mut log_end = self.log_end;
        let segment_bytes = self.config.segment_bytes.min(SEGMENT_BYTES_MAX);
        for batch in batches {
            let header = &batch.header;
            let base_offset = header.base_offset;
            if batch.size() != header.size() {
                return Err(LogError::BadBatch {
                    base_offset,
                    what: "a size that is not that in its header",
                });
            }
            if batch.size() as u64 > segment_bytes {
                return Err(LogError::TooLarge { size: batch.size(), segment_bytes });
            }
            if header.last_offset_delta < 0 {
                return Err(LogError::BadBatch { base_offset, what: "a negative offset delta" });
            }
            if base_offset < log_end {
                return Err(LogError::OffsetBehindEnd { base_offset, log_end });
            }
            // Otherwise the transaction would stay open on this replica and end on others.
            let is_marker = header.is_control() && header.has_producer_id();
            if is_marker && Marker::of(batch).is_err() {
                let what = "a control record that does not end a transaction";
                return Err(LogError::BadBatch { base_offset, what });
            }
            let end = base_offset.checked_add(i64::from(header.last_offset_delta) + 1);
            let overflow = LogError::BadBatch { base_offset, what: "offsets that overflow" };
            log_end = end.ok_or(overflow)?;
        }
        Ok(())
    }

    /// Writes as many of the first batches as fit the active segment, and returns their number.
    /// Rolls before that if the first batch must not go there. If batches remain for another group,
    /// the producers' state of before the write goes to `producers_before`, so that an undo reads
    /// no file.
    fn append_group(
        &mut self,
        batches: &[Batch],
        now_ms: i64,
        producers_before: &mut Option<Producers>,
    ) -> Result<usize, LogError> {
        if self.must_roll(&batches[0], now_ms)? {
            self.roll(batches[0].header.base_offset, now_ms)?;
        }
        let limit = self.config.segment_bytes.min(SEGMENT_BYTES_MAX);
        let mut size = self.active.size;
        let fits = |batch: &&Batch| {
            size += batch.size() as u64;
            size <= limit && self.offset_fits(batch.header.last_offset())
        };
        let count = batches.iter().take(GROUP_MAX).take_while(fits).count();
        assert!(count > 0, "a batch that is no larger than a segment fits an empty one");
        if count < batches.len() && producers_before.is_none() {
            *producers_before = Some(self.producers.clone());
        }
        let group = &batches[..count];
        for batch in group {
            let header = &batch.header;
            if header.leader_epoch >= 0 {
                self.assign_epoch_at(header.leader_epoch, header.base_offset)?;
            }
        }
        self.write(group)?;
        Ok(count)
    }

    fn write(&mut self, group: &[Batch]) -> Result<(), LogError> {
        let headers: Vec<[u8; HEADER_LEN]> =
            group.iter().map(|batch| batch.header.to_bytes()).collect();
        let mut slices = Vec::with_capacity(2 * group.len());
        let mut size = 0;
        for (batch, header) in group.iter().zip(&headers) {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(&batch.payload));
            size += batch.size() as u64;
        }
        let position = self.active.size;
        let segment = &self.active.segment;
        let written =
            segment.file().and_then(|file| write_all_vectored_at(&*file, &mut slices, position));
        // The path is built only for an error, because that takes longer than everything else here.
        if let Err(error) = written {
            return Err(error).during("write", &segment.path(Kind::Log));
        }
        if position == 0 {
            self.active.first_timestamp = Some(group[0].header.max_timestamp);
        }
        for batch in group {
            if let Some(aborted) = self.producers.apply(batch) {
                self.note_aborted(aborted);
            }
        }
        self.active.size += size;
        self.unsettled += size;
        self.log_end = group[group.len() - 1].header.last_offset() + 1;
        let noted = group.iter().map(|batch| batch.header);
        if self.active.segment.record_appended(noted, self.config.index_interval_bytes) {
            // Entries that cannot be written stay in memory until the next block.
            let _ = self.active.segment.write_indexes();
        }
        Ok(())
    }

    fn offset_fits(&self, offset: i64) -> bool {
        let relative = offset.checked_sub(self.active.segment.base_offset);
        relative.is_some_and(|relative| relative <= i64::from(i32::MAX))
    }

    /// Whether `next` must go to a new segment (Kafka's `LogSegment.shouldRoll`).
    fn must_roll(&mut self, next: &Batch, now_ms: i64) -> Result<bool, LogError> {
        if !self.offset_fits(next.header.last_offset()) {
            return Ok(true);
        }
        if self.active.size == 0 {
            return Ok(false);
        }
        let limit = self.config.segment_bytes.min(SEGMENT_BYTES_MAX);
        if self.active.size + next.size() as u64 > limit
            || self.active.segment.index_full(self.config.index_bytes)
        {
            return Ok(true);
        }
        let waited = match self.first_timestamp()? {
            first if first >= 0 => next.header.max_timestamp.saturating_sub(first),
            _ => now_ms - self.active.created_ms,
        };
        Ok(waited > self.active.roll_ms(&self.config))
    }

    fn first_timestamp(&mut self) -> Result<i64, LogError> {
        if let Some(first) = self.active.first_timestamp {
            return Ok(first);
        }
        let segment = &self.active.segment;
        let step =
            segment.file().and_then(|file| Walk::headers(&*file, 0, self.active.size).step());
        let first = match step.during("read", &segment.path(Kind::Log))? {
            Step::Batch { header, .. } => header.max_timestamp,
            _ => -1,
        };
        self.active.first_timestamp = Some(first);
        Ok(first)
    }

    /// Rolls the active segment if it has batches and is older than `segment_ms`, so that it is
    /// rolled without an append, too. Returns whether it did.
    pub fn roll_if_due(&mut self, now_ms: i64) -> Result<bool, LogError> {
        if self.active.size == 0 || self.failed {
            return Ok(false);
        }
        let since = match self.first_timestamp()? {
            first if first >= 0 => first,
            _ => self.active.created_ms,
        };
        let waited = now_ms.saturating_sub(since);
        let due = waited > self.active.roll_ms(&self.config);
        if due {
            self.roll(self.log_end, now_ms)?;
        }
        Ok(due)
    }

    /// Closes the active segment and starts a new one at `base_offset`, which must not be before
    /// the log end. An empty active segment is replaced.
    pub fn roll(&mut self, base_offset: i64, now_ms: i64) -> Result<(), LogError> {
        assert!(base_offset >= self.log_end, "a roll to {base_offset} before {}", self.log_end);
        let old = self.active.segment.clone();
        // Both are hints, so a failure is no error. The next flush writes the index entries; the
        // next roll, settling or clean stop writes a snapshot.
        let _ = old.seal();
        if let Err(error) = self.take_snapshot() {
            tracing::warn!(%error, "producer snapshot not written");
        }
        let replaces = self.active.size == 0;
        if replaces && old.base_offset == base_offset {
            return Ok(());
        }
        let segment = Segment::create(self.disk.clone(), self.home.clone(), base_offset);
        let path = names::file(&self.dir, base_offset, Kind::Log);
        let segment = Arc::new(segment.during("create", &path)?);
        let kept = self.segments.len() - usize::from(replaces);
        let segments = self.segments[..kept].iter().cloned().chain([segment.clone()]);
        self.segments = segments.collect();
        self.active = Active::new(segment, 0, &self.config, now_ms);
        self.dir_changes.made += 1;
        self.log_end = base_offset;
        match replaces {
            true => old.files.remove()?,
            false => self.unsynced.push((self.dir_changes.made, old)),
        }
        Ok(())
    }

    /// Writes a snapshot of the producers' state if the log has grown since the last one.
    pub(super) fn take_snapshot(&mut self) -> Result<(), LogError> {
        let Some(offset) = self.producers.snapshot_due() else { return Ok(()) };
        let bytes = snapshot::encode(self.producers.iter());
        let path = names::file(&self.dir, offset, Kind::Snapshot);
        write_file(&*self.disk, &path, &bytes).during("write", &path)?;
        self.producers.snapshot_taken();
        self.snapshots.retain(|other| *other != offset);
        self.snapshots.push(offset);
        Ok(())
    }

    /// Removes what a failed append wrote. `producers_before` is the producers' state of before, if
    /// any batch was written.
    fn undo_to(&mut self, offset: i64, producers_before: Option<Producers>) {
        let undone = match self.log_end == offset {
            true => {
                let position = self.active.size;
                let segment = &self.active.segment;
                let truncated = segment.file().and_then(|file| file.truncate(position));
                truncated.during("truncate", &segment.path(Kind::Log))
            }
            false => self.cut_segments(offset).and_then(|()| self.drop_snapshots(offset)),
        };
        if let Some(producers) = producers_before {
            self.producers = producers;
        }
        // If the disk is full, the file keeps entries of the undone batches. The next start drops
        // them.
        if self.epochs.truncate_from_end(offset) {
            let _ = self.write_epochs();
        }
        self.failed = undone.is_err();
    }
}

impl Active {
    pub(super) fn new(segment: Arc<Segment>, size: u64, config: &LogConfig, now_ms: i64) -> Self {
        let roll_jitter_ms = random_jitter_ms(&segment, config, now_ms);
        Self { segment, size, created_ms: now_ms, first_timestamp: None, roll_jitter_ms }
    }

    /// Age at which the segment is rolled, in ms.
    fn roll_ms(&self, config: &LogConfig) -> i64 {
        config.max_segment_ms() - self.roll_jitter_ms
    }
}

/// A random part of `segment.jitter.ms`, as in Kafka's `LogConfig.randomSegmentJitter`.
fn random_jitter_ms(segment: &Segment, config: &LogConfig, now_ms: i64) -> i64 {
    let longest = config.segment_jitter_ms.min(config.segment_ms);
    if longest <= 0 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (segment.path(Kind::Log), now_ms).hash(&mut hasher);
    // Kafka draws a number of 31 bits.
    i64::from(Random::new(hasher.finish()).next_u64() as u32 >> 1) % longest
}

/// The leader epoch of a batch if it is newer than `latest`.
pub(super) fn new_epoch(latest: Option<i32>, header: &BatchHeader) -> Option<i32> {
    let epoch = header.leader_epoch;
    (epoch >= 0 && latest.is_none_or(|latest| epoch > latest)).then_some(epoch)
}
