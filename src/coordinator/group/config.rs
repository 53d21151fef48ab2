//! The configuration of the group coordinator.

use super::assignor::Assignor;
use crate::base::config::MigrationPolicy;

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
    /// The settings of consumer groups (KIP-848).
    pub consumer: ConsumerConfig,
}

/// The `group.consumer.*` settings, with Kafka's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// `group.consumer.session.timeout.ms`
    pub session_timeout_ms: Bounded,
    /// `group.consumer.heartbeat.interval.ms`
    pub heartbeat_interval_ms: Bounded,
    /// `group.consumer.assignment.interval.ms`: the least time between two target assignments.
    pub assignment_interval_ms: Bounded,
    /// `group.consumer.max.size`, in members.
    pub max_size: usize,
    /// `group.consumer.assignors`; never empty. The first one is the default.
    pub assignors: Vec<Assignor>,
    /// `group.consumer.regex.refresh.interval.ms`
    pub regex_refresh_interval_ms: i32,
    /// `group.consumer.migration.policy`
    pub migration_policy: MigrationPolicy,
}

/// A setting that groups can override between two bounds, `group.consumer.min.*` and
/// `group.consumer.max.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounded {
    pub value: i32,
    pub min: i32,
    pub max: i32,
}

impl Bounded {
    /// The value for a group with this config. As in Kafka, a config outside the bounds counts as
    /// the nearest bound. It was within the bounds when it was set, but the bounds may have changed
    /// since.
    pub fn or_config(self, config: Option<i32>) -> i32 {
        config.map_or(self.value, |value| value.min(self.max).max(self.min))
    }
}

/// The configs of a group that override the broker's; `None` if not set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerGroupConfig {
    /// `consumer.session.timeout.ms`
    pub session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`
    pub heartbeat_interval_ms: Option<i32>,
    /// `consumer.assignment.interval.ms`
    pub assignment_interval_ms: Option<i32>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: Bounded { value: 45_000, min: 45_000, max: 60_000 },
            heartbeat_interval_ms: Bounded { value: 5_000, min: 5_000, max: 15_000 },
            assignment_interval_ms: Bounded { value: 1_000, min: 0, max: 15_000 },
            max_size: i32::MAX as usize,
            assignors: vec![Assignor::Uniform, Assignor::Range],
            regex_refresh_interval_ms: 10 * 60 * 1_000,
            migration_policy: MigrationPolicy::Bidirectional,
        }
    }
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
            consumer: ConsumerConfig::default(),
        }
    }
}
