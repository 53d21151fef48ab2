//! Timestamps of a batch under a topic's rules.

use super::AppendRules;
use crate::records::batch::{
    COMPRESSION_MASK, CONTROL, CRC_START, DELETE_HORIZON, LOG_APPEND_TIME, TRANSACTIONAL,
};
use crate::records::builder::NO_TIMESTAMP;
use crate::records::{Batch, TimestampType, crc};

/// Whether a timestamp must lie in the topic's range.
#[inline]
pub(super) fn is_checked(timestamp: i64, rules: &AppendRules) -> bool {
    rules.timestamp_type == TimestampType::CreateTime && timestamp != NO_TIMESTAMP
}

/// The sums wrap, as Java's do.
#[inline]
pub(super) fn out_of_range(timestamp: i64, rules: &AppendRules) -> bool {
    let age = rules.now_ms.wrapping_sub(timestamp);
    age > rules.before_max_ms || age.wrapping_neg() > rules.after_max_ms
}

/// Gives the batch the topic's timestamp type and its maximum timestamp, and the CRC that follows
/// from them (`DefaultRecordBatch.setMaxTimestamp`). The payload is not read again.
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
    // Kafka writes the attributes anew, so bits that it does not know are gone.
    header.attributes &= COMPRESSION_MASK | TRANSACTIONAL | CONTROL | DELETE_HORIZON;
    if rules.timestamp_type == TimestampType::LogAppendTime {
        header.attributes |= LOG_APPEND_TIME;
    }
    header.max_timestamp = max_timestamp;
    let after = header.to_bytes();
    let (before, after) = (&before[CRC_START..], &after[CRC_START..]);
    header.crc = crc::replace_prefix(header.crc, before, after, batch.payload.len());
}
