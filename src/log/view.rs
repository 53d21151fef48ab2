//! The view of a log that readers use: an immutable list of segments with the log's offsets. It is
//! cheap to take and to clone. It stays readable when the log rolls or deletes segments, until the
//! files of these segments are removed. A read of a segment whose file is gone fails with
//! [`ReadError::Io`] of the kind `NotFound`.

use std::{io, sync::Arc};

use super::{
    disk::DiskFile,
    error::ReadError,
    names::Kind,
    segment::{Place, Segment},
    walk::{Step, Walk, read_batch},
};
use crate::records::{Batch, BatchHeader, Compression, RecordError, RecordSummary, TimestampType};

/// Largest batch, in bytes, that is read for the timestamp of one record.
const LOOKED_INTO_MAX: usize = 128 << 10;

/// A log as it was at one moment.
#[derive(Debug, Clone)]
pub struct LogView {
    pub(super) segments: Arc<[Arc<Segment>]>,
    /// Valid bytes in the last segment.
    pub(super) active_size: u64,
    pub(super) log_start: i64,
    pub(super) log_end: i64,
    pub(super) recovery_point: i64,
    pub(super) unsettled: u64,
    pub(super) settled: i64,
    pub(super) generation: u64,
    pub(super) first_dirty: Option<i64>,
    pub(super) replacements: u64,
}

/// A range of a `.log` file that starts with a batch. Its last batch may be incomplete.
#[derive(Debug, Clone)]
pub struct LogSlice {
    pub file: Arc<dyn DiskFile>,
    pub position: u64,
    /// Bytes; 0 if there is nothing to read yet.
    pub len: usize,
    /// Bytes of the first batch, even if `len` is less because of the caller's limit; 0 if there is
    /// no batch.
    pub first_batch_size: usize,
    /// Base offset of the segment that the range is in.
    pub segment_base_offset: i64,
}

/// The timestamp and offset of a record, and the leader epoch in which it was written.
pub type TimestampOffset = (i64, i64, i32);

impl LogView {
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    pub fn log_end(&self) -> i64 {
        self.log_end
    }

    pub fn recovery_point(&self) -> i64 {
        self.recovery_point
    }

    /// Bytes appended since the log was last settled. A start after a crash of the process reads at
    /// most these.
    pub fn unsettled(&self) -> u64 {
        self.unsettled
    }

    /// The log end when the log was last settled, for its checkpoint.
    pub fn settled(&self) -> i64 {
        self.settled
    }

    /// Number of truncations. Records that an older view shows may be gone, and others in their
    /// place.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The first dirty offset: compaction has cleaned the records before it. `None` if the log was
    /// never cleaned.
    pub fn first_dirty(&self) -> Option<i64> {
        self.first_dirty
    }

    /// How often compaction had replaced segments.
    pub fn replacements(&self) -> u64 {
        self.replacements
    }

    /// Bytes of the `.log` files of all segments.
    pub fn size(&self) -> u64 {
        let (_, sealed) = self.segments.split_last().expect("a log has a segment");
        sealed.iter().map(|segment| segment.size()).sum::<u64>() + self.active_size
    }

    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The base offset of the oldest segment, at or below the log start.
    pub fn first_base_offset(&self) -> i64 {
        self.segments.first().expect("a log has a segment").base_offset
    }

    /// The base offset of the active segment.
    pub fn active_base_offset(&self) -> i64 {
        self.segments.last().expect("a log has a segment").base_offset
    }

    /// Closes files that were not read or written since the last call. A periodic task calls it.
    pub fn close_idle_files(&self) {
        for segment in self.segments.iter() {
            segment.close_if_idle();
        }
    }

    /// Looks up the largest timestamps of the oldest segments, up to the first segment that has one
    /// of `before_ms` or later. [`super::Log::apply_retention`] then need not read these segments
    /// while it holds the log. If a segment cannot be read, it reports that.
    pub fn look_up_ages(&self, before_ms: i64) {
        let is_older = |segment: &&Arc<Segment>| {
            segment.largest().is_ok_and(|it| it.is_none_or(|it| it.timestamp < before_ms))
        };
        self.segments.iter().take_while(is_older).for_each(drop);
    }

    fn out_of_range(&self, offset: i64) -> ReadError {
        let (log_start, log_end) = (self.log_start, self.log_end);
        ReadError::OffsetOutOfRange { offset, log_start, log_end }
    }

    /// Index of the segment that contains `offset` or would contain it.
    pub(super) fn segment_at(&self, offset: i64) -> usize {
        let after = self.segments.partition_point(|segment| segment.base_offset <= offset);
        after.saturating_sub(1)
    }

    /// Valid bytes in the segment at `index`.
    pub(super) fn end_of(&self, index: usize) -> u64 {
        match index + 1 == self.segments.len() {
            true => self.active_size,
            false => self.segments[index].size(),
        }
    }

    /// Returns at most `max_bytes` of one segment: from the batch that contains `offset` to before
    /// the batch that contains `end_limit` (high watermark, last stable offset or log end). With
    /// `at_least_one`, the first batch is complete even if it is larger. Without it, `len` is 0 if
    /// the first batch does not fit. Fails if `offset` is before the log start or after the log
    /// end.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        end_limit: i64,
        at_least_one: bool,
    ) -> Result<LogSlice, ReadError> {
        if offset < self.log_start || offset > self.log_end {
            return Err(self.out_of_range(offset));
        }
        if offset >= end_limit.min(self.log_end) {
            return self.empty_slice();
        }
        // If a compacted segment ends before `offset`, the next segment has the batch.
        for index in self.segment_at(offset)..self.segments.len() {
            let segment = &self.segments[index];
            let found = segment.find(offset, self.end_of(index));
            let Some(first) = found.map_err(|error| io_error(segment, error))? else { continue };
            let end = self.limit_position(index, end_limit)?;
            let available = end.saturating_sub(first.position) as usize;
            if available == 0 {
                break;
            }
            let file = segment.file().map_err(|error| io_error(segment, error))?;
            let len = match first.size <= max_bytes || at_least_one {
                true => available.min(max_bytes.max(first.size)),
                false => 0,
            };
            return Ok(LogSlice {
                file,
                position: first.position,
                len,
                first_batch_size: first.size,
                segment_base_offset: segment.base_offset,
            });
        }
        self.empty_slice()
    }

    fn empty_slice(&self) -> Result<LogSlice, ReadError> {
        let segment = self.segments.last().expect("a log has a segment");
        Ok(LogSlice {
            file: segment.file().map_err(|error| io_error(segment, error))?,
            position: self.active_size,
            len: 0,
            first_batch_size: 0,
            segment_base_offset: segment.base_offset,
        })
    }

    /// Position in the segment at `index` at which a read up to `end_limit` ends.
    fn limit_position(&self, index: usize, end_limit: i64) -> Result<u64, ReadError> {
        let end = self.end_of(index);
        let next = self.segments.get(index + 1).map_or(self.log_end, |next| next.base_offset);
        if end_limit >= next {
            return Ok(end);
        }
        let segment = &self.segments[index];
        let place = segment.find(end_limit, end).map_err(|error| io_error(segment, error))?;
        Ok(place.map_or(end, |place| place.position))
    }

    /// Finds the batch that contains `offset`: the base offset of its segment, and its position
    /// there.
    pub fn position_of(&self, offset: i64) -> Result<Option<(i64, u64)>, ReadError> {
        for index in self.segment_at(offset)..self.segments.len() {
            let segment = &self.segments[index];
            let found = segment.find(offset, self.end_of(index));
            if let Some(place) = found.map_err(|error| io_error(segment, error))? {
                return Ok(Some((segment.base_offset, place.position)));
            }
        }
        Ok(None)
    }

    /// Returns the timestamp, in ms, of the first record from `offset` to before `end_limit`;
    /// `None` if there is no record, or if it has no timestamp. In a compressed or large batch it
    /// is the time of the batch's first record, which is earlier by at most the producer's linger.
    /// This keeps each call short, because callers look at many batches.
    pub fn timestamp_at(&self, offset: i64, end_limit: i64) -> Result<Option<i64>, ReadError> {
        let from = offset.max(self.log_start);
        if from >= end_limit.min(self.log_end) {
            return Ok(None);
        }
        let found = self.read(from, 0, end_limit, true)?;
        if found.len == 0 {
            return Ok(None);
        }
        let segment = &self.segments[self.segment_at(found.segment_base_offset)];
        let end = found.position + found.first_batch_size as u64;
        let header = header_at(segment, &*found.file, found.position, end)?;
        let is_plain = header.compression() == Ok(Compression::None);
        let timestamp = match header.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            _ if from > header.base_offset && is_plain && header.size() <= LOOKED_INTO_MAX => {
                let batch = read_batch(&*found.file, &header, found.position);
                let batch = batch.map_err(|error| io_error(segment, error))?;
                let record = first_record(&batch, |(_, offset)| offset >= from);
                let record = record.map_err(|error| malformed(segment, found.position, error))?;
                record.map_or(header.max_timestamp, |(timestamp, _)| timestamp)
            }
            // The base timestamp is then the delete horizon, or there is no record.
            _ if header.has_delete_horizon() || header.record_count == 0 => header.max_timestamp,
            _ => header.base_timestamp,
        };
        Ok(Some(timestamp).filter(|timestamp| *timestamp >= 0))
    }

    /// Iterates over the batches from the one that contains `offset` to the log end. Reads them one
    /// by one.
    pub fn batches_from(&self, offset: i64) -> Batches {
        Batches { view: self.clone(), next: offset.max(self.log_start), at: None }
    }

    /// Finds the first record with at least the given timestamp, from the log start to before
    /// `end_limit`.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        end_limit: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        for index in self.segment_at(self.log_start)..self.segments.len() {
            let segment = &self.segments[index];
            if segment.base_offset >= end_limit {
                break;
            }
            let largest = segment.largest().map_err(|error| io_error(segment, error))?;
            if largest.is_none_or(|largest| largest.timestamp < timestamp) {
                continue;
            }
            if let Some(found) = self.timestamp_in(index, timestamp, end_limit)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn timestamp_in(
        &self,
        index: usize,
        timestamp: i64,
        end_limit: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let segment = &self.segments[index];
        let wrap = |error| io_error(segment, error);
        let before = segment.time_before(timestamp);
        // All records up to a confirmed entry are older than `timestamp`.
        let before = before.filter(|entry| segment.confirms_time_entry(entry));
        let from = before.map_or(segment.base_offset, |entry| entry.offset).max(self.log_start);
        let mut floor = segment.floor_entry(from);
        let file = segment.file().map_err(wrap)?;
        let end = self.end_of(index);
        floor = floor.filter(|entry| segment.confirms_offset_entry(&*file, entry, end));
        let mut walk = Walk::headers(&*file, floor.map_or(0, |at| u64::from(at.position)), end);
        while let Step::Batch { header, position } = walk.step().map_err(wrap)? {
            if header.base_offset >= end_limit {
                break;
            }
            if header.last_offset() < self.log_start || header.max_timestamp < timestamp {
                continue;
            }
            let batch = read_batch(&*file, &header, position).map_err(wrap)?;
            let wanted = |(time, offset)| time >= timestamp && offset >= self.log_start;
            let found = first_record(&batch, wanted);
            let found = found.map_err(|error| malformed(segment, position, error))?;
            if let Some((time, offset)) = found {
                let found = (time, offset, header.leader_epoch);
                return Ok(Some(found).filter(|_| offset < end_limit));
            }
        }
        Ok(None)
    }

    /// Finds the first record with the largest timestamp; `None` in a log without records.
    pub fn max_timestamp(&self) -> Result<Option<TimestampOffset>, ReadError> {
        let mut best: Option<(usize, i64, i64)> = None;
        for (index, segment) in self.segments.iter().enumerate() {
            let largest = segment.largest().map_err(|error| io_error(segment, error))?;
            let Some(largest) = largest else { continue };
            if best.is_none_or(|(_, timestamp, _)| largest.timestamp > timestamp) {
                best = Some((index, largest.timestamp, largest.offset));
            }
        }
        let Some((index, timestamp, last_offset)) = best else { return Ok(None) };
        let segment = &self.segments[index];
        let wrap = |error| io_error(segment, error);
        let mut found = None;
        let place = segment
            .find_from(segment.floor_entry(last_offset), self.end_of(index), |at| {
                found = Some(*at);
                at.last_offset() >= last_offset
            })
            .map_err(wrap)?;
        let (Some(header), Some(place)) = (found, place) else { return Ok(None) };
        let file = segment.file().map_err(wrap)?;
        let batch = read_batch(&*file, &header, place.position).map_err(wrap)?;
        let record = first_record(&batch, |(time, _)| time == timestamp);
        let record = record.map_err(|error| malformed(segment, place.position, error))?;
        // As in Kafka, there is no answer if compaction has removed the records of the batch.
        Ok(record.map(|(_, offset)| (timestamp, offset, header.leader_epoch)))
    }
}

/// Timestamp and offset of the first record in a batch for which `wanted` is true.
fn first_record(
    batch: &Batch,
    wanted: impl Fn((i64, i64)) -> bool,
) -> Result<Option<(i64, i64)>, RecordError> {
    let position = |record: &RecordSummary| {
        (record.timestamp, batch.header.base_offset + i64::from(record.offset_delta))
    };
    let found = batch.find_record(|record| wanted(position(record)))?;
    Ok(found.as_ref().map(position))
}

pub(super) fn io_error(segment: &Segment, source: io::Error) -> ReadError {
    let path = segment.path(Kind::Log);
    match source.kind() {
        io::ErrorKind::InvalidData => ReadError::Corrupt { path, what: source.to_string() },
        _ => ReadError::Io { path, source },
    }
}

fn malformed(segment: &Segment, position: u64, source: RecordError) -> ReadError {
    ReadError::Records { path: segment.path(Kind::Log), position, source }
}

pub(super) fn corrupt(segment: &Segment, position: u64, what: String) -> ReadError {
    let what = format!("position {position}: {what}");
    ReadError::Corrupt { path: segment.path(Kind::Log), what }
}

/// An iterator over the batches of a view. Checks their CRCs. Ends after the first error.
#[derive(Debug)]
pub struct Batches {
    view: LogView,
    next: i64,
    /// Index of the segment and position of the next batch, once known.
    at: Option<(usize, u64)>,
}

impl Batches {
    fn advance(&mut self) -> Result<Option<Batch>, ReadError> {
        while self.next < self.view.log_end {
            let (index, position) = match self.at {
                Some(at) => at,
                None => match self.first_place()? {
                    Some((index, place)) => (index, place.position),
                    None => return Ok(None),
                },
            };
            if position >= self.view.end_of(index) {
                if index + 1 == self.view.segments.len() {
                    return Ok(None);
                }
                self.at = Some((index + 1, 0));
                continue;
            }
            let segment = &self.view.segments[index];
            let file = segment.file().map_err(|error| io_error(segment, error))?;
            let header = header_at(segment, &*file, position, self.view.end_of(index))?;
            let batch = read_batch(&*file, &header, position);
            let batch = batch.map_err(|error| io_error(segment, error))?;
            batch.verify_crc().map_err(|error| corrupt(segment, position, error.to_string()))?;
            self.at = Some((index, position + header.size() as u64));
            self.next = header.last_offset() + 1;
            return Ok(Some(batch));
        }
        Ok(None)
    }

    fn first_place(&self) -> Result<Option<(usize, Place)>, ReadError> {
        for index in self.view.segment_at(self.next)..self.view.segments.len() {
            let segment = &self.view.segments[index];
            let found = segment.find(self.next, self.view.end_of(index));
            if let Some(place) = found.map_err(|error| io_error(segment, error))? {
                return Ok(Some((index, place)));
            }
        }
        Ok(None)
    }
}

fn header_at(
    segment: &Segment,
    file: &dyn DiskFile,
    position: u64,
    end: u64,
) -> Result<BatchHeader, ReadError> {
    match Walk::headers(file, position, end).step() {
        Ok(Step::Batch { header, .. }) => Ok(header),
        Ok(Step::End) => Err(corrupt(segment, position, "no batch".to_owned())),
        Ok(Step::Torn { position, what }) => Err(corrupt(segment, position, what)),
        Err(error) => Err(io_error(segment, error)),
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if matches!(next, Some(Err(_))) {
            self.next = i64::MAX;
        }
        next
    }
}
