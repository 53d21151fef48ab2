//! Builds batches with the same bytes as Kafka's `MemoryRecordsBuilder`. Only the output of the
//! codecs may differ.

pub use super::batch::NO_TIMESTAMP;
use super::batch::{
    CONTROL, DELETE_HORIZON, HEADER_LEN, LOG_APPEND_TIME, LOG_OVERHEAD, NO_PRODUCER_ID,
    NO_SEQUENCE, TRANSACTIONAL,
};
use super::varint::{size_i64, write_i32, write_i64};
use super::{Batch, BatchError, BatchHeader, Compression, Frame, TimestampType, compress};
use bytes::Bytes;

/// "No leader epoch": what producers write.
pub const NO_LEADER_EPOCH: i32 = -1;

/// The header fields of a batch that do not follow from its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOptions {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub compression: Compression,
    /// The level of the codec; see [`compress`].
    pub compression_level: Option<i32>,
    pub timestamp_type: TimestampType,
    /// With LogAppendTime, the maximum timestamp of the batch in milliseconds since 1970.
    pub log_append_time: i64,
    pub is_transactional: bool,
    pub is_control: bool,
    /// The base timestamp of a batch whose tombstones or marker compaction removes later. A
    /// negative one means none.
    pub delete_horizon: Option<i64>,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            base_offset: 0,
            leader_epoch: NO_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: NO_SEQUENCE,
            compression: Compression::None,
            compression_level: None,
            timestamp_type: TimestampType::CreateTime,
            log_append_time: NO_TIMESTAMP,
            is_transactional: false,
            is_control: false,
            delete_horizon: None,
        }
    }
}

impl BatchOptions {
    /// The options with which a batch is built again from some of its records. Fails if its codec
    /// is unknown.
    pub fn of(header: &BatchHeader) -> Result<Self, BatchError> {
        Ok(Self {
            base_offset: header.base_offset,
            leader_epoch: header.leader_epoch,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            compression: header.compression()?,
            compression_level: None,
            timestamp_type: header.timestamp_type(),
            log_append_time: header.max_timestamp,
            is_transactional: header.is_transactional(),
            is_control: header.is_control(),
            delete_horizon: header.delete_horizon(),
        })
    }

    /// The delete horizon of the batch. As in Kafka, a negative one is not written.
    fn horizon(&self) -> Option<i64> {
        self.delete_horizon.filter(|horizon| *horizon >= 0)
    }

    fn attributes(&self) -> i16 {
        let mut attributes = self.compression.attributes();
        if self.timestamp_type == TimestampType::LogAppendTime {
            attributes |= LOG_APPEND_TIME;
        }
        if self.is_transactional {
            attributes |= TRANSACTIONAL;
        }
        if self.is_control {
            attributes |= CONTROL;
        }
        if self.horizon().is_some() {
            attributes |= DELETE_HORIZON;
        }
        attributes
    }
}

/// Collects records and builds a batch from them.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    options: BatchOptions,
    body: Vec<u8>,
    count: i32,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    pub fn new(options: BatchOptions) -> Self {
        let base_timestamp = options.horizon().unwrap_or(NO_TIMESTAMP);
        Self {
            options,
            body: vec![],
            count: 0,
            last_offset_delta: -1,
            base_timestamp,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    /// The number of records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Size in bytes of the batch with the records so far, without compression.
    pub fn size(&self) -> usize {
        HEADER_LEN + self.body.len()
    }

    /// Appends a record at the next offset. `timestamp` is in milliseconds since 1970.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let contents_len = field_len(key)
            + field_len(value)
            + size_i64(headers.len() as i64)
            + headers.iter().map(|(k, v)| field_len(Some(k)) + field_len(*v)).sum::<usize>();
        self.begin_record(timestamp, contents_len);
        let out = &mut self.body;
        let contents_at = out.len();
        write_field(out, key);
        write_field(out, value);
        write_i32(out, headers.len() as i32);
        for (key, value) in headers {
            write_field(out, Some(key));
            write_field(out, *value);
        }
        debug_assert_eq!(out.len() - contents_at, contents_len);
    }

    /// Reserves memory for records of `bytes` in total.
    pub fn reserve(&mut self, bytes: usize) {
        self.body.reserve(bytes);
    }

    /// Appends a record with the encoded key, value and headers of another record.
    pub(super) fn append_contents(&mut self, timestamp: i64, contents: &[u8]) {
        self.begin_record(timestamp, contents.len());
        self.body.extend_from_slice(contents);
    }

    /// Appends a record of another batch with the same base offset. The record keeps its offset
    /// delta, its timestamp, its key, its value and its headers. `record` is the record from which
    /// `frame` was read.
    pub fn append_frame(&mut self, frame: &Frame, record: &[u8]) {
        self.last_offset_delta = frame.summary.offset_delta.wrapping_sub(1);
        self.append_contents(frame.summary.timestamp, frame.contents(record));
    }

    /// Writes the fields of a record that come before its key.
    fn begin_record(&mut self, timestamp: i64, contents_len: usize) {
        self.last_offset_delta = self.last_offset_delta.wrapping_add(1);
        if self.count == 0 && self.options.horizon().is_none() {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let body_len =
            1 + size_i64(timestamp_delta) + size_i64(self.last_offset_delta.into()) + contents_len;
        let out = &mut self.body;
        out.reserve(body_len + 5);
        write_i32(out, i32::try_from(body_len).expect("a record is shorter than 2 GiB"));
        out.push(0);
        write_i64(out, timestamp_delta);
        write_i32(out, self.last_offset_delta);
    }

    /// Sets the offset delta of the next record, which leaves a gap as compaction does. Panics if
    /// it is not above that of the last record.
    #[cfg(test)]
    pub fn skip_to(&mut self, offset_delta: i32) {
        assert!(offset_delta > self.last_offset_delta, "offsets rise");
        self.last_offset_delta = offset_delta - 1;
    }

    /// Builds the batch as [`BatchBuilder::build`] does, with another last offset. Compaction keeps
    /// the last offset of a batch when it removes records at the end.
    pub fn build_ending_at(mut self, last_offset_delta: i32) -> Batch {
        self.last_offset_delta = last_offset_delta;
        self.build()
    }

    /// Builds the batch, compressed and with its CRC. Panics if it has no records.
    pub fn build(self) -> Batch {
        assert!(self.count > 0, "a batch has records");
        let options = &self.options;
        let payload = match options.compression {
            Compression::None => self.body,
            codec => compress(codec, options.compression_level, &self.body)
                .expect("compressing into memory cannot fail"),
        };
        let max_timestamp = match options.timestamp_type {
            TimestampType::CreateTime => self.max_timestamp,
            TimestampType::LogAppendTime => options.log_append_time,
        };
        let length = HEADER_LEN - LOG_OVERHEAD + payload.len();
        let header = BatchHeader {
            base_offset: options.base_offset,
            batch_length: i32::try_from(length).expect("a batch is shorter than 2 GiB"),
            leader_epoch: options.leader_epoch,
            magic: 2,
            crc: 0,
            attributes: options.attributes(),
            last_offset_delta: self.last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp,
            producer_id: options.producer_id,
            producer_epoch: options.producer_epoch,
            base_sequence: options.base_sequence,
            record_count: self.count,
        };
        let mut batch = Batch { header, payload: Bytes::from(payload) };
        batch.header.crc = batch.computed_crc();
        batch
    }
}

fn field_len(field: Option<&[u8]>) -> usize {
    field.map_or(1, |field| size_i64(field.len() as i64) + field.len())
}

fn write_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => write_i32(out, -1),
        Some(field) => {
            write_i32(out, field.len() as i32);
            out.extend_from_slice(field);
        }
    }
}
