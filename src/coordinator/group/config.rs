//! The configuration of the group coordinator.

/// Settings with Kafka's defaults (`GroupCoordinatorConfig`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`, in members.
    pub max_size: usize,
    /// How long the join of a new member may wait, in milliseconds (KIP-394). Kafka has no key for
    /// it.
    pub new_member_join_timeout_ms: i32,
    /// `offset.metadata.max.bytes`; Kafka counts UTF-16 units.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.topic.num.partitions`
    pub offsets_topic_num_partitions: i32,
    /// `offsets.commit.timeout.ms`. As in Kafka, it limits all writes of the coordinator.
    pub commit_timeout_ms: u64,
    /// The most bytes of one append: `max.message.bytes` of `__consumer_offsets`.
    pub max_batch_bytes: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX as usize,
            new_member_join_timeout_ms: 5 * 60 * 1_000,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            offsets_topic_num_partitions: 50,
            commit_timeout_ms: 5_000,
            max_batch_bytes: 1_048_588,
        }
    }
}
