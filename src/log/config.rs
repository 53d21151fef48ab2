//! The configuration of a log.

use crate::records::TimestampType;

/// Settings of one log, named after Kafka's configuration keys, with Kafka's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// Largest size of a segment (`segment.bytes`).
    pub segment_bytes: u64,
    /// Age at which a segment is rolled (`segment.ms`).
    pub segment_ms: i64,
    /// A random part of this is subtracted from `segment_ms` for each segment, so that segments do
    /// not all roll at the same time (`segment.jitter.ms`).
    pub segment_jitter_ms: i64,
    /// Largest size of an index file (`segment.index.bytes`). A full index rolls the segment.
    pub index_bytes: u64,
    /// Bytes of log between two entries of an index.
    pub index_interval_bytes: u64,
    /// Negative: segments are kept at any age.
    pub retention_ms: i64,
    /// Negative: the log may have any size.
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` has `delete`.
    pub delete: bool,
    /// Whether `cleanup.policy` has `compact`.
    pub compact: bool,
    /// The part of the log, from 0 to 1, that may be dirty before the log is compacted.
    pub min_cleanable_dirty_ratio: f64,
    /// Records that are younger than this are not compacted yet.
    pub min_compaction_lag_ms: i64,
    /// Records that are older than this are compacted even if little of the log is dirty.
    pub max_compaction_lag_ms: i64,
    /// How long a tombstone stays after the first compaction that keeps it.
    pub delete_retention_ms: i64,
    /// How long the files of a deleted segment remain, for readers that still use them.
    pub file_delete_delay_ms: i64,
    pub producer_id_expiration_ms: i64,
    /// Whether a producer must begin with sequence 0 in a log that never had a record
    /// (`unstable.api.versions.enable`, KAFKA-15591).
    pub requires_first_sequence_zero: bool,
    /// The timestamp type of markers (`message.timestamp.type`). Producers' batches have theirs
    /// already.
    pub timestamp_type: TimestampType,
    /// Records after which a flush is due.
    pub flush_messages: i64,
    /// Time after which a flush is due.
    pub flush_ms: i64,
}

impl LogConfig {
    /// Age at which a segment is rolled, without jitter. A record can be compacted only after its
    /// segment was rolled, so `max.compaction.lag.ms` limits the age, too.
    pub fn max_segment_ms(&self) -> i64 {
        match self.compact && self.max_compaction_lag_ms > 0 {
            true => self.segment_ms.min(self.max_compaction_lag_ms),
            false => self.segment_ms,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            delete: true,
            compact: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: DAY_MS,
            file_delete_delay_ms: 60_000,
            producer_id_expiration_ms: DAY_MS,
            requires_first_sequence_zero: false,
            timestamp_type: TimestampType::CreateTime,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacted_segments_roll_within_the_largest_compaction_lag() {
        let config = LogConfig { segment_ms: 50, max_compaction_lag_ms: 30, ..Default::default() };
        assert_eq!(config.max_segment_ms(), 50);
        let compacted = LogConfig { compact: true, ..config };
        assert_eq!(compacted.max_segment_ms(), 30);
        assert_eq!(LogConfig { max_compaction_lag_ms: 60, ..compacted }.max_segment_ms(), 50);
    }
}
