//! Validation of the records for one partition of a produce request: the checks of Kafka's
//! `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords` and `LogValidator`, in
//! Kafka's order and with the error codes and messages that Apache Kafka 4.3.1 sends.
//!
//! Each produced batch takes one pass for the CRC and a walk over the framing of its records. For
//! the walk, a compressed batch is decompressed in chunks, which are not kept. The walk does not
//! rely on what the header says about the records.

mod recompress;
mod timestamps;

use super::batch::{HEADER_LEN, LOG_OVERHEAD};
use super::compression::Scratch;
use super::record::{Frames, RecordSummary};
use super::stream::RecordStream;
use super::{Batch, BatchHeader, CodecError, Compression, RecordError, TimestampType};
use crate::base::TopicPartition;
use bytes::Bytes;

/// The smallest valid length of a batch in bytes: Kafka's record overhead for magic 0.
const LENGTH_MIN: i32 = 14;
const MAGIC_AT: usize = 16;
const ATTRIBUTES_AT: usize = 21;
/// How many refused records a response lists at most. A small compressed batch may have millions.
const RECORD_ERRORS_MAX: usize = 100_000;

/// The rules for a batch, from the topic's configuration and the request.
#[derive(Debug, Clone)]
pub struct AppendRules {
    /// The partition, for messages to the client.
    pub partition: TopicPartition,
    pub now_ms: i64,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub after_max_ms: i64,
    pub compression: TopicCompression,
    /// `max.message.bytes`, which limits the whole batch.
    pub max_message_bytes: usize,
    /// Whether `cleanup.policy` has `compact`.
    pub compacted: bool,
    /// The limit in bytes for decompressing a whole batch into memory, which is only necessary if
    /// the codec changes.
    pub max_decompressed: usize,
    /// Whether the request's version allows zstd: Produce 7 and later (KIP-110).
    pub zstd_allowed: bool,
}

/// A topic's `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicCompression {
    /// The codec of the producer.
    Producer,
    /// This codec (`uncompressed` is [`Compression::None`]), at this level.
    Fixed(Compression, Option<i32>),
}

/// The kind of a refusal, from which the handler derives the error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedKind {
    CorruptMessage,
    InvalidRecord,
    InvalidTimestamp,
    MessageTooLarge,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
    /// Kafka's answer after an unexpected exception, for example for an unknown codec or data that
    /// cannot be decompressed.
    UnknownServerError,
}

/// Why a batch is not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AppendRefused {
    pub kind: RefusedKind,
    /// The reason, for logs. Clients only receive [`AppendRefused::wire_message`].
    pub message: String,
    /// Index in the batch and message of each refused record.
    pub record_errors: Vec<(i32, Option<String>)>,
    /// Whether Kafka refuses the batch before it accesses the partition. Then the response has no
    /// log start, and metrics do not count the request.
    pub before_log: bool,
    /// Whether Kafka sends `message` to the client.
    told_to_client: bool,
}

impl AppendRefused {
    fn new(kind: RefusedKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            record_errors: vec![],
            before_log: false,
            told_to_client: false,
        }
    }

    /// The response's error message. Kafka sends none for most of these errors.
    pub fn wire_message(&self) -> Option<&str> {
        self.told_to_client.then_some(&self.message)
    }
}

impl RecordError {
    /// The kind of refusal for this error. Kafka throws its own exception for malformed records.
    /// Exceptions of the libraries that it uses become UNKNOWN_SERVER_ERROR.
    pub fn kind(&self) -> RefusedKind {
        match self {
            Self::Codec(CodecError::TooLarge { .. }) => RefusedKind::MessageTooLarge,
            Self::Codec(_) | Self::Batch(_) | Self::BadSizeVarint => {
                RefusedKind::UnknownServerError
            }
            Self::BadCount(_)
            | Self::PrematureEnd
            | Self::TrailingBytes
            | Self::BadSize(_)
            | Self::BadStructure
            | Self::BadHeaderCount(_)
            | Self::BadHeaderKeySize(_)
            | Self::UnreadBytes(_) => RefusedKind::InvalidRecord,
        }
    }
}

impl From<RecordError> for AppendRefused {
    fn from(error: RecordError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

fn invalid(message: impl Into<String>) -> AppendRefused {
    AppendRefused::new(RefusedKind::InvalidRecord, message)
}

/// Validates the records that a client sent for one partition: exactly one batch of magic 2. As in
/// Kafka, an incomplete second batch is dropped. The returned batch is ready to be appended; the
/// log assigns its offsets and leader epoch.
pub fn validate_for_append(
    records: Option<Bytes>,
    rules: &AppendRules,
) -> Result<Batch, AppendRefused> {
    let mut records = records.unwrap_or_default();
    let size = size_of_one(&records, rules)
        .map_err(|refused| AppendRefused { before_log: true, ..refused })?;
    records.truncate(size);
    check_whole(&records, rules)?;
    let mut batch = Batch::split_first(&mut records)
        .map_err(|error| AppendRefused::new(RefusedKind::CorruptMessage, error.to_string()))?;
    let source = batch
        .header
        .compression()
        .map_err(|error| AppendRefused::new(RefusedKind::UnknownServerError, error.to_string()))?;
    check_header(&batch.header, rules)?;
    let target = match rules.compression {
        TopicCompression::Producer => source,
        TopicCompression::Fixed(codec, _) => codec,
    };
    if target != source {
        return recompress::validate(batch, rules);
    }
    let max_timestamp = match source {
        Compression::None => check_records(&batch.header, &batch.payload, rules)?.max_timestamp,
        _ => check_compressed(&batch, rules)?,
    };
    timestamps::settle(&mut batch, rules, max_timestamp);
    Ok(batch)
}

/// The length of the next batch in bytes; `None` if the batch is incomplete (Kafka's
/// `ByteBufferLogInputStream`).
fn next_batch_len(bytes: &[u8]) -> Result<Option<usize>, AppendRefused> {
    if bytes.len() < LOG_OVERHEAD {
        return Ok(None);
    }
    let length = i32::from_be_bytes(bytes[8..12].try_into().expect("four bytes"));
    let corrupt = |message| Err(AppendRefused::new(RefusedKind::CorruptMessage, message));
    if length < LENGTH_MIN {
        let least = LENGTH_MIN;
        return corrupt(format!(
            "Record size {length} is less than the minimum record overhead ({least})"
        ));
    }
    let Some(&magic) = bytes.get(MAGIC_AT) else {
        return Ok(None);
    };
    let magic = magic as i8;
    if !(0..=2).contains(&magic) {
        return corrupt(format!("Invalid magic found in record: {magic}"));
    }
    // Kafka's sum overflows here, so that its broker answers UNKNOWN_SERVER_ERROR.
    if length > i32::MAX - LOG_OVERHEAD as i32 {
        let message = format!("batch length {length} is out of bounds");
        return Err(AppendRefused::new(RefusedKind::UnknownServerError, message));
    }
    let whole = length as usize + LOG_OVERHEAD;
    Ok((whole <= bytes.len()).then_some(whole))
}

/// Checks the framing of the only batch in `records` and returns its length in bytes (Kafka's
/// `ProduceRequest.validateRecords`).
fn size_of_one(records: &[u8], rules: &AppendRules) -> Result<usize, AppendRefused> {
    let size = next_batch_len(records)
        .map_err(|refused| AppendRefused {
            told_to_client: refused.kind == RefusedKind::CorruptMessage,
            ..refused
        })?
        .ok_or_else(|| invalid("a produce request has at least one batch per partition"))?;
    if records[MAGIC_AT] != 2 {
        return Err(invalid("only record batches of magic version 2 can be produced"));
    }
    let attributes = [records[ATTRIBUTES_AT], records[ATTRIBUTES_AT + 1]];
    let codec = Compression::from_attributes(i16::from_be_bytes(attributes));
    if !rules.zstd_allowed && codec == Ok(Compression::Zstd) {
        let message = "ZStandard needs version 7 of the produce request";
        return Err(AppendRefused::new(RefusedKind::UnsupportedCompressionType, message));
    }
    if size < records.len() && next_batch_len(&records[size..])?.is_some() {
        return Err(invalid("a produce request has exactly one batch per partition"));
    }
    Ok(size)
}

/// Checks base offset, size and CRC of a whole batch.
fn check_whole(bytes: &[u8], rules: &AppendRules) -> Result<(), AppendRefused> {
    let base_offset = i64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
    if base_offset != 0 {
        return Err(invalid(format!("the base offset should be 0, but it is {base_offset}")));
    }
    if bytes.len() > rules.max_message_bytes {
        return Err(too_large(bytes.len(), rules));
    }
    let stored = bytes.get(17..21).filter(|_| bytes.len() >= HEADER_LEN);
    let stored = stored.map(|crc| u32::from_be_bytes(crc.try_into().expect("four bytes")));
    // Header and payload are still contiguous, so one pass computes the CRC of both.
    if stored != Some(crc32c::crc32c(&bytes[ATTRIBUTES_AT..])) {
        let message = format!("Record is corrupt (stored crc = {})", stored.unwrap_or(0));
        return Err(AppendRefused::new(RefusedKind::CorruptMessage, message));
    }
    Ok(())
}

fn too_large(size: usize, rules: &AppendRules) -> AppendRefused {
    let (most, partition) = (rules.max_message_bytes, &rules.partition);
    let message = format!("a batch of {size} bytes for {partition} exceeds the maximum of {most}");
    AppendRefused::new(RefusedKind::MessageTooLarge, message)
}

/// Checks the header of a client's batch (Kafka's `LogValidator.validateBatch`).
fn check_header(header: &BatchHeader, rules: &AppendRules) -> Result<(), AppendRefused> {
    let in_partition = &rules.partition;
    let count_from_offsets = i64::from(header.last_offset_delta) + 1;
    let count = i64::from(header.record_count);
    if count_from_offsets <= 0 || count <= 0 || count_from_offsets != count {
        return Err(invalid(format!(
            "the batch has {count} records and a last offset delta of {} in {in_partition}",
            header.last_offset_delta
        )));
    }
    if header.is_control() {
        return Err(invalid(format!("clients cannot write control records in {in_partition}")));
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(invalid(format!(
            "the sequence number {} of producer {} is invalid in {in_partition}",
            header.base_sequence, header.producer_id
        )));
    }
    Ok(())
}

/// The result of a walk over the records.
struct Walk {
    max_timestamp: i64,
    /// Whether the offset deltas are 0, 1, 2, ...
    offsets_in_order: bool,
}

/// Checks each record of an uncompressed payload.
fn check_records(
    header: &BatchHeader,
    payload: &[u8],
    rules: &AppendRules,
) -> Result<Walk, AppendRefused> {
    let check = RecordCheck::new(header, rules);
    match check.walk(Frames::new(header, payload)?.summaries())? {
        Some(walk) => Ok(walk),
        None => Err(check.refusal(Frames::new(header, payload)?.summaries())),
    }
}

/// Checks each record of a batch that stays compressed. Returns the maximum timestamp.
fn check_compressed(batch: &Batch, rules: &AppendRules) -> Result<i64, AppendRefused> {
    let check = RecordCheck::new(&batch.header, rules);
    Scratch::with(|scratch| {
        let records = RecordStream::open(batch, scratch)?;
        let Some(walk) = check.walk(records)? else {
            let records = RecordStream::open(batch, scratch)?;
            return Err(check.refusal(records));
        };
        if !walk.offsets_in_order {
            // Kafka tries to rebuild the batch from records without contents, and fails.
            let message = "the offsets inside a compressed batch are not consecutive";
            return Err(AppendRefused::new(RefusedKind::UnknownServerError, message));
        }
        Ok(walk.max_timestamp)
    })
}

/// Checks single records (Kafka's `LogValidator.validateRecord`).
struct RecordCheck<'a> {
    rules: &'a AppendRules,
    /// Whether the batch has the timestamp type LogAppendTime.
    by_log: bool,
    /// Whether Kafka reads these records without their contents.
    compressed: bool,
}

impl<'a> RecordCheck<'a> {
    fn new(header: &BatchHeader, rules: &'a AppendRules) -> Self {
        // Kafka skips the contents of compressed records that it does not rewrite.
        let codec = header.compression();
        let compressed = match rules.compression {
            TopicCompression::Producer => codec != Ok(Compression::None),
            TopicCompression::Fixed(target, _) => {
                target != Compression::None && codec == Ok(target)
            }
        };
        let by_log = header.timestamp_type() == TimestampType::LogAppendTime;
        Self { rules, by_log, compressed }
    }

    /// Checks every record. Returns `None` if one is refused. An error for a malformed record takes
    /// precedence, so [`RecordCheck::refusal`] collects the refused records in a second walk.
    #[inline]
    fn walk(
        &self,
        records: impl Iterator<Item = Result<RecordSummary, RecordError>>,
    ) -> Result<Option<Walk>, RecordError> {
        let mut walk = Walk { max_timestamp: -1, offsets_in_order: true };
        let mut any_refused = false;
        for (index, record) in records.enumerate() {
            let record = record?;
            any_refused |= self.refuses_key(&record) || self.refuses_timestamp(&record);
            walk.max_timestamp = walk.max_timestamp.max(record.timestamp);
            walk.offsets_in_order &= record.offset_delta == index as i32;
        }
        Ok((!any_refused).then_some(walk))
    }

    #[inline]
    fn refuses_key(&self, record: &RecordSummary) -> bool {
        self.rules.compacted && !record.has_key()
    }

    #[inline]
    fn refuses_timestamp(&self, record: &RecordSummary) -> bool {
        if timestamps::is_checked(record.timestamp, self.rules) {
            return timestamps::out_of_range(record.timestamp, self.rules);
        }
        self.by_log
    }

    /// The error that lists the refused records.
    fn refusal(
        &self,
        records: impl Iterator<Item = Result<RecordSummary, RecordError>>,
    ) -> AppendRefused {
        let mut errors = vec![];
        let mut count = 0_usize;
        let mut kind = RefusedKind::InvalidRecord;
        for (index, record) in records.flatten().enumerate() {
            let refuses_key = self.refuses_key(&record);
            if !refuses_key && !self.refuses_timestamp(&record) {
                continue;
            }
            count += 1;
            if !refuses_key {
                kind = RefusedKind::InvalidTimestamp;
            }
            if errors.len() == RECORD_ERRORS_MAX {
                continue;
            }
            let message = if refuses_key {
                let partition = &self.rules.partition;
                format!(
                    "Compacted topic cannot accept message without key \
                     in topic partition {partition}"
                )
            } else {
                self.timestamp_message(&record)
            };
            errors.push((index as i32, Some(message)));
        }
        let message = match kind {
            RefusedKind::InvalidTimestamp => {
                "One or more records have been rejected due to invalid timestamp".to_string()
            }
            _ => first_three(&errors, count),
        };
        AppendRefused {
            kind,
            message,
            record_errors: errors,
            before_log: false,
            told_to_client: true,
        }
    }

    fn timestamp_message(&self, record: &RecordSummary) -> String {
        let (timestamp, offset) = (record.timestamp, record.offset_delta);
        if timestamps::is_checked(timestamp, self.rules) {
            let earliest = self.rules.now_ms.wrapping_sub(self.rules.before_max_ms);
            let latest = self.rules.now_ms.wrapping_add(self.rules.after_max_ms);
            return format!(
                "Timestamp {timestamp} of message with offset {offset} is out of range. \
                 The timestamp should be within [{earliest}, {latest}]"
            );
        }
        // For null, Kafka prints -1 if it has skipped the contents of the record, otherwise 0.
        let (class, null) =
            if self.compressed { ("PartialDefaultRecord", -1) } else { ("DefaultRecord", 0) };
        let len = |len: Option<usize>| len.map_or(null, |len| len as i64);
        let (key, value) = (len(record.key_len()), len(record.value_len()));
        format!(
            "Invalid timestamp type in message {class}(offset={offset}, timestamp={timestamp}, \
             key={key} bytes, value={value} bytes). \
             Producer should not set timestamp type to LogAppendTime."
        )
    }
}

/// Kafka's message for `count` record errors, with the first three of them.
fn first_three(errors: &[(i32, Option<String>)], count: usize) -> String {
    let shown = errors.iter().take(3).map(|(index, message)| {
        let message = message.as_deref().unwrap_or("null");
        format!("RecordError(batchIndex={index}, message='{message}')")
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    format!(
        "One or more records have been rejected due to {count} record errors in total, \
         and only showing the first three errors at most: [{shown}]"
    )
}

#[cfg(test)]
mod tests;
