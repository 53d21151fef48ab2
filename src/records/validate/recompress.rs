//! Batches whose codec differs from that of the topic. They are checked record by record and
//! written with the topic's codec (Kafka's `LogValidator.buildRecordsAndAssignOffsets`).

use super::{AppendRefused, AppendRules, TopicCompression, Walk, check_records};
use crate::records::batch::{HEADER_LEN, LOG_APPEND_TIME, LOG_OVERHEAD, TRANSACTIONAL};
use crate::records::builder::BatchOptions;
use crate::records::record::Frames;
use crate::records::{
    Batch, BatchBuilder, BatchHeader, Compression, RecordError, TimestampType, compress,
};
use bytes::Bytes;

/// Validates a batch and returns it with the topic's codec. Fails like `validate_for_append`, and
/// if the records exceed `max_decompressed`, or the new batch `max_message_bytes`.
pub(super) fn validate(batch: Batch, rules: &AppendRules) -> Result<Batch, AppendRefused> {
    let (target, level) = match rules.compression {
        TopicCompression::Producer => (Compression::None, None),
        TopicCompression::Fixed(codec, level) => (codec, level),
    };
    let payload = batch.uncompressed_payload(rules.max_decompressed)?;
    let walk = check_records(&batch.header, &payload, rules)?;
    let written = if is_canonical(&batch.header, &payload, &walk)? {
        let payload = match target {
            Compression::None => payload,
            codec => compress(codec, level, &payload).map_err(RecordError::from)?.into(),
        };
        with_payload(&batch.header, payload, &walk, rules)
    } else {
        rebuild(&batch, &payload, rules)?
    };
    if written.size() > rules.max_message_bytes {
        return Err(super::too_large(written.size(), rules));
    }
    Ok(written)
}

/// Whether rebuilding the records would yield the same bytes, so that it is not necessary.
fn is_canonical(header: &BatchHeader, payload: &[u8], walk: &Walk) -> Result<bool, AppendRefused> {
    if header.timestamp_type() == TimestampType::LogAppendTime || !walk.offsets_in_order {
        return Ok(false);
    }
    let first = Frames::new(header, payload)?.next().transpose()?;
    Ok(first.is_some_and(|first| first.summary.timestamp == header.base_timestamp))
}

fn max_timestamp(by_records: i64, rules: &AppendRules) -> i64 {
    match rules.timestamp_type {
        TimestampType::CreateTime => by_records,
        TimestampType::LogAppendTime => rules.now_ms,
    }
}

fn with_payload(header: &BatchHeader, payload: Bytes, walk: &Walk, rules: &AppendRules) -> Batch {
    let codec = match rules.compression {
        TopicCompression::Fixed(codec, _) => codec.attributes(),
        TopicCompression::Producer => 0,
    };
    let mut attributes = codec | header.attributes & TRANSACTIONAL;
    if rules.timestamp_type == TimestampType::LogAppendTime {
        attributes |= LOG_APPEND_TIME;
    }
    let header = BatchHeader {
        batch_length: (HEADER_LEN - LOG_OVERHEAD + payload.len()) as i32,
        attributes,
        max_timestamp: max_timestamp(walk.max_timestamp, rules),
        ..*header
    };
    let mut batch = Batch { header, payload };
    batch.header.crc = batch.computed_crc();
    batch
}

/// Rebuilds the batch from its records, with consecutive offsets, and with timestamp deltas from
/// the first record.
fn rebuild(batch: &Batch, payload: &[u8], rules: &AppendRules) -> Result<Batch, AppendRefused> {
    let (compression, compression_level) = match rules.compression {
        TopicCompression::Fixed(codec, level) => (codec, level),
        TopicCompression::Producer => (Compression::None, None),
    };
    let mut builder = BatchBuilder::new(BatchOptions {
        leader_epoch: batch.header.leader_epoch,
        producer_id: batch.header.producer_id,
        producer_epoch: batch.header.producer_epoch,
        base_sequence: batch.header.base_sequence,
        compression,
        compression_level,
        timestamp_type: rules.timestamp_type,
        log_append_time: rules.now_ms,
        is_transactional: batch.header.is_transactional(),
        ..BatchOptions::default()
    });
    // Keys, values and headers are copied in their encoded form. Decoded, they would take many
    // times the memory.
    let mut at = 0;
    for frame in Frames::new(&batch.header, payload)? {
        let frame = frame?;
        let record = &payload[at..at + frame.size()];
        builder.append_contents(frame.summary.timestamp, frame.contents(record));
        at += frame.size();
    }
    Ok(builder.build())
}
