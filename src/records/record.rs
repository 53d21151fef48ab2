//! The records inside a batch (Kafka's `DefaultRecord`). `Records` yields whole records, `Frames`
//! only the positions of their fields.

use super::batch::HEADER_LEN;
use super::varint::{VarintError, read_i32, read_i64};
use super::{Batch, BatchError, BatchHeader, CodecError, TimestampType};
use bytes::Bytes;

/// A record's header: name and value.
pub type Header = (Bytes, Option<Bytes>);

/// The smallest size of a record in bytes: size, attributes, two deltas, two lengths, header count.
const RECORD_LEN_MIN: usize = 7;

/// Most bytes of a control record, even if it was compressed. Real ones are much smaller.
const CONTROL_RECORD_MAX: usize = 1 << 16;

/// Why the records of a batch cannot be read.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum RecordError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("Found invalid record count {0} in magic v2 batch")]
    BadCount(i32),
    #[error("Incorrect declared batch size, premature EOF reached")]
    PrematureEnd,
    #[error("Incorrect declared batch size, records still remaining in file")]
    TrailingBytes,
    #[error("Invalid record size: {0}")]
    BadSize(i32),
    #[error("Record size has too many bytes")]
    BadSizeVarint,
    #[error("Found invalid record structure")]
    BadStructure,
    #[error("Found invalid number of record headers {0}")]
    BadHeaderCount(i32),
    #[error("Invalid negative header key size {0}")]
    BadHeaderKeySize(i32),
    #[error("Invalid record size: its fields end {0} bytes before it does")]
    UnreadBytes(usize),
}

/// For numbers inside a record. An invalid size of a record has errors of its own.
impl From<VarintError> for RecordError {
    fn from(_: VarintError) -> Self {
        Self::BadStructure
    }
}

/// The number of records that are still to be read from a batch; 0 after the first error.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordsLeft(i32);

impl RecordsLeft {
    pub(super) fn of(header: &BatchHeader) -> Result<Self, RecordError> {
        match header.record_count {
            count @ ..0 => Err(RecordError::BadCount(count)),
            count => Ok(Self(count)),
        }
    }

    #[inline]
    pub(super) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Counts a record as read. Returns whether it was the last.
    #[inline]
    pub(super) fn count_one(&mut self) -> bool {
        self.0 -= 1;
        self.0 == 0
    }

    /// Returns `read` as the next item of an iterator. After an error, no records are left.
    #[inline]
    pub(super) fn item<T>(
        &mut self,
        read: Result<T, RecordError>,
    ) -> Option<Result<T, RecordError>> {
        if read.is_err() {
            self.0 = 0;
        }
        Some(read)
    }
}

/// A record. Its key, value and headers are slices of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    /// Milliseconds since 1970; -1 for none. With LogAppendTime, the batch's maximum timestamp.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In the sender's order, duplicates kept.
    pub headers: Vec<Header>,
}

/// A record without the contents of its key, value and headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSummary {
    /// As in [`Record::timestamp`].
    pub timestamp: i64,
    pub offset_delta: i32,
    /// Bytes of the key; negative if the key is null.
    pub(super) key_len: i32,
    pub(super) value_len: i32,
}

impl RecordSummary {
    pub fn has_key(&self) -> bool {
        self.key_len >= 0
    }

    /// Bytes of the key, if there is one.
    pub fn key_len(&self) -> Option<usize> {
        usize::try_from(self.key_len).ok()
    }

    /// Bytes of the value, if there is one.
    pub fn value_len(&self) -> Option<usize> {
        usize::try_from(self.value_len).ok()
    }
}

/// A record's summary and the positions of its parts. It is small because the produce path creates
/// one for each uncompressed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub summary: RecordSummary,
    /// Bytes of the whole record, its size field included.
    size: u32,
    /// Position of the key's length. All positions count from the first byte of the record.
    contents_at: u32,
    value_at: u32,
    headers_at: u32,
    header_count: u32,
}

impl Frame {
    /// Bytes of the whole record, its size field included.
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// The key, if there is one. `record` is the record from which the frame was read.
    #[inline]
    pub fn key<'r>(&self, record: &'r [u8]) -> Option<&'r [u8]> {
        let len = self.summary.key_len()?;
        let (_, key_at) = read_i32(record, self.contents_at as usize).expect("it was read before");
        Some(&record[key_at..key_at + len])
    }

    /// The encoded key, value and headers. `record` is the record from which the frame was read.
    pub(super) fn contents<'r>(&self, record: &'r [u8]) -> &'r [u8] {
        &record[self.contents_at as usize..]
    }
}

/// The header fields from which the timestamps of a batch's records are computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    base_timestamp: i64,
    log_append_time: Option<i64>,
}

impl Times {
    pub(super) fn of(header: &BatchHeader) -> Self {
        let by_log = header.timestamp_type() == TimestampType::LogAppendTime;
        Self {
            base_timestamp: header.base_timestamp,
            log_append_time: by_log.then_some(header.max_timestamp),
        }
    }

    /// The timestamp of a record with this timestamp delta. The sum wraps, as in Java.
    #[inline]
    pub(super) fn at(self, delta: i64) -> i64 {
        self.log_append_time.unwrap_or(self.base_timestamp.wrapping_add(delta))
    }
}

impl Frame {
    /// Reads the record at the start of `rest`.
    #[inline]
    pub(super) fn parse(rest: &[u8], times: Times) -> Result<Self, RecordError> {
        let (body_len, body_at) = read_i32(rest, 0).map_err(|error| match error {
            VarintError::Underflow => RecordError::PrematureEnd,
            VarintError::TooLong => RecordError::BadSizeVarint,
        })?;
        let size = usize::try_from(body_len)
            .ok()
            .and_then(|len| len.checked_add(body_at))
            .filter(|size| *size <= rest.len())
            .ok_or(RecordError::BadSize(body_len))?;
        let record = &rest[..size];
        // The attributes of a record are unused. Kafka accepts any value.
        let (timestamp_delta, at) = read_i64(record, body_at + 1)?;
        let (offset_delta, contents_at) = read_i32(record, at)?;
        let (key_len, key_at) = read_length(record, contents_at)?;
        let (value_len, value_at) = read_length(record, key_at + key_len.max(0) as usize)?;
        let count_at = value_at + value_len.max(0) as usize;
        let (header_count, headers_at) = read_i32(record, count_at)?;
        let end = match header_count {
            0 => headers_at,
            _ => skip_headers(record, headers_at, header_count)?,
        };
        if end != size {
            return Err(RecordError::UnreadBytes(size - end));
        }
        // The size field has at most 5 bytes and its value is an i32, so all positions fit into
        // u32.
        let timestamp = times.at(timestamp_delta);
        Ok(Frame {
            summary: RecordSummary { timestamp, offset_delta, key_len, value_len },
            size: size as u32,
            contents_at: contents_at as u32,
            value_at: value_at as u32,
            headers_at: headers_at as u32,
            header_count: header_count as u32,
        })
    }
}

/// An iterator over the frames of an uncompressed payload. It ends after the first error.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    payload: &'a [u8],
    /// Where the next record starts.
    at: usize,
    left: RecordsLeft,
    times: Times,
}

impl<'a> Frames<'a> {
    /// Iterates over `payload`, the uncompressed records. Fails if the record count in the header
    /// is negative.
    pub fn new(header: &BatchHeader, payload: &'a [u8]) -> Result<Self, RecordError> {
        Ok(Self { payload, at: 0, left: RecordsLeft::of(header)?, times: Times::of(header) })
    }

    /// Yields each frame with the record from which it was read.
    #[inline]
    pub fn with_records(mut self) -> impl Iterator<Item = Result<(Frame, &'a [u8]), RecordError>> {
        std::iter::from_fn(move || {
            let at = self.at;
            let frame = self.next()?;
            Some(frame.map(|frame| (frame, &self.payload[at..at + frame.size()])))
        })
    }

    #[inline]
    pub fn summaries(self) -> impl Iterator<Item = Result<RecordSummary, RecordError>> {
        self.map(|frame| Ok(frame?.summary))
    }

    #[inline]
    fn read(&mut self) -> Result<Frame, RecordError> {
        let frame = Frame::parse(&self.payload[self.at..], self.times)?;
        self.at += frame.size();
        if self.left.count_one() && self.at != self.payload.len() {
            return Err(RecordError::TrailingBytes);
        }
        Ok(frame)
    }
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_zero() {
            return None;
        }
        let read = self.read();
        self.left.item(read)
    }
}

/// Reads the length of a nullable field at `at`, where any negative length means null. Returns the
/// length and the position of the field's first byte. Fails if the field ends past the record.
#[inline]
fn read_length(record: &[u8], at: usize) -> Result<(i32, usize), RecordError> {
    let (length, start) = read_i32(record, at)?;
    if length > 0 && length as usize > record.len() - start {
        return Err(RecordError::BadStructure);
    }
    Ok((length, start))
}

/// Returns the position after `count` headers that start at `at`.
fn skip_headers(record: &[u8], mut at: usize, count: i32) -> Result<usize, RecordError> {
    let bytes_left = record.len() - at;
    if usize::try_from(count).map_or(true, |count| count > bytes_left) {
        return Err(RecordError::BadHeaderCount(count));
    }
    for _ in 0..count {
        let (key_len, key_at) = read_i32(record, at)?;
        let Ok(key_len) = usize::try_from(key_len) else {
            return Err(RecordError::BadHeaderKeySize(key_len));
        };
        if key_len > record.len() - key_at {
            return Err(RecordError::BadStructure);
        }
        let (value_len, value_at) = read_length(record, key_at + key_len)?;
        at = value_at + value_len.max(0) as usize;
    }
    Ok(at)
}

/// An iterator over the records of a batch. It ends after the first error.
#[derive(Debug, Clone)]
pub struct Records {
    payload: Bytes,
    at: usize,
    left: RecordsLeft,
    times: Times,
    base_offset: i64,
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (at, left, times) = (self.at, self.left, self.times);
        let mut frames = Frames { payload: &self.payload, at, left, times };
        let frame = frames.next();
        (self.at, self.left) = (frames.at, frames.left);
        let frame = match frame? {
            Ok(frame) => frame,
            Err(error) => return Some(Err(error)),
        };
        let bytes = self.payload.slice(at..at + frame.size());
        Some(record(&bytes, &frame, self.base_offset))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The header's record count may be wrong, so the size of the payload bounds it.
        let most = (self.payload.len() - self.at) / RECORD_LEN_MIN + 1;
        (0, Some(most.min(self.left.0 as usize)))
    }
}

/// Slices the parts of a record out of `bytes`, the record from which `frame` was read.
fn record(bytes: &Bytes, frame: &Frame, base_offset: i64) -> Result<Record, RecordError> {
    let part = |at: usize, len: i32| {
        let len = usize::try_from(len).ok()?;
        Some(bytes.slice(at..at + len))
    };
    let (key_len, key_at) = read_length(bytes, frame.contents_at as usize)?;
    let mut headers = Vec::with_capacity(frame.header_count as usize);
    let mut at = frame.headers_at as usize;
    for _ in 0..frame.header_count {
        let (key_len, key_at) = read_length(bytes, at)?;
        let key = part(key_at, key_len).ok_or(RecordError::BadHeaderKeySize(key_len))?;
        let (value_len, value_at) = read_length(bytes, key_at + key.len())?;
        headers.push((key, part(value_at, value_len)));
        at = value_at + value_len.max(0) as usize;
    }
    Ok(Record {
        offset: base_offset.wrapping_add(i64::from(frame.summary.offset_delta)),
        timestamp: frame.summary.timestamp,
        key: part(key_at, key_len),
        value: part(frame.value_at as usize, frame.summary.value_len),
        headers,
    })
}

impl Batch {
    /// Iterates over the records. Compressed records are decompressed into memory first, which
    /// fails if they have more than `limit` bytes.
    pub fn records(&self, limit: usize) -> Result<Records, RecordError> {
        let left = RecordsLeft::of(&self.header)?;
        let payload = self.uncompressed_payload(limit)?;
        let times = Times::of(&self.header);
        Ok(Records { payload, at: 0, left, times, base_offset: self.header.base_offset })
    }

    /// The first record of a control batch; `None` if compaction has removed it.
    pub fn control_record(&self) -> Result<Option<Record>, RecordError> {
        self.records(CONTROL_RECORD_MAX)?.next().transpose()
    }

    /// Appends the whole batch to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.reserve(HEADER_LEN + self.payload.len());
        out.extend_from_slice(&self.header.to_bytes());
        out.extend_from_slice(&self.payload);
    }
}
