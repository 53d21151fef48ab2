//! What a topic's configuration says to its logs.

/// Settings of one log, named as the topic's keys with `_` for `.`. Defaults are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is never larger (`segment.bytes`).
    pub segment_bytes: u64,
    /// A segment is rolled once it spans this much time.
    pub segment_ms: i64,
    /// At most this much is taken off `segment_ms`, so that segments do not roll all at once.
    pub segment_jitter_ms: i64,
    /// An index is never larger; a full one rolls the segment.
    pub index_bytes: u64,
    /// Bytes of log between two index entries.
    pub index_interval_bytes: u64,
    /// Negative: forever.
    pub retention_ms: i64,
    /// Negative: any size.
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` has `delete`.
    pub delete: bool,
    /// How long a deleted segment's files stay for those who still read them.
    pub file_delete_delay_ms: i64,
    pub producer_id_expiration_ms: i64,
    /// A flush is due after this many records.
    pub flush_messages: i64,
    /// A flush is due after this much time.
    pub flush_ms: i64,
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
            file_delete_delay_ms: 60_000,
            producer_id_expiration_ms: DAY_MS,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
        }
    }
}
