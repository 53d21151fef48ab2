//! Checks and sets the timestamps of a batch by the rules of its topic.

use super::AppendRules;
use crate::records::batch::{
    COMPRESSION_MASK, CONTROL, CRC_START, DELETE_HORIZON, LOG_APPEND_TIME, TRANSACTIONAL,
};
use crate::records::builder::NO_TIMESTAMP;
use crate::records::{Batch, TimestampType, crc};

/// Whether the topic limits this timestamp to a range.
#[inline]
pub(super) fn is_checked(timestamp: i64, rules: &AppendRules) -> bool {
    rules.timestamp_type == TimestampType::CreateTime && timestamp != NO_TIMESTAMP
}

/// Whether a timestamp is outside the topic's range. The sums wrap, as in Java.
#[inline]
pub(super) fn out_of_range(timestamp: i64, rules: &AppendRules) -> bool {
    let age = rules.now_ms.wrapping_sub(timestamp);
    age > rules.before_max_ms || age.wrapping_neg() > rules.after_max_ms
}

/// Sets timestamp type and maximum timestamp in the header, and updates the CRC without reading the
/// payload again (Kafka's `DefaultRecordBatch.setMaxTimestamp`).
pub(super) fn settle(batch: &mut Batch, rules: &AppendRules, max_timestamp: i64) {
    let max_timestamp = match rules.timestamp_type {
        TimestampType::CreateTime => max_timestamp,
        TimestampType::LogAppendTime => rules.now_ms,
    };
    let header = &mut batch.header;
    if header.timestamp_type() == rules.timestamp_type && header.max_timestamp == max_timestamp {
        return;
    }
    let before = header.to_bytes();
    // As in Kafka, unknown bits of the attributes are cleared.
    header.attributes &= COMPRESSION_MASK | TRANSACTIONAL | CONTROL | DELETE_HORIZON;
    if rules.timestamp_type == TimestampType::LogAppendTime {
        header.attributes |= LOG_APPEND_TIME;
    }
    header.max_timestamp = max_timestamp;
    let after = header.to_bytes();
    let (before, after) = (&before[CRC_START..], &after[CRC_START..]);
    header.crc = crc::replace_prefix(header.crc, before, after, batch.payload.len());
}
