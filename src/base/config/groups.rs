//! Settings of the group coordinator, configs of single groups, and the limits of both
//! (`GroupCoordinatorConfig`, `ShareGroupConfig` and `GroupConfig` of Kafka).

use super::{
    Config, ConfigError, Properties, keys,
    parse::{self, Value},
    values::Values,
};

/// The kinds of groups whose heartbeats, sessions and assignments have limits.
const KINDS: [&str; 3] = ["consumer", "share", "streams"];

const HEARTBEAT: &str = "heartbeat.interval.ms";
const SESSION: &str = "session.timeout.ms";
const ASSIGNMENT: &str = "assignment.interval.ms";

/// The settings of the group coordinator for classic groups, offsets and its topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupSettings {
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub initial_rebalance_delay_ms: i32,
    pub max_size: i32,
    pub offsets_topic_replication_factor: i16,
    pub offsets_topic_num_partitions: i32,
    pub offsets_topic_segment_bytes: i32,
    pub offset_metadata_max_bytes: i32,
    pub offsets_commit_timeout_ms: i32,
    pub offsets_retention_ms: i64,
    pub offsets_retention_check_interval_ms: i64,
}

impl GroupSettings {
    pub(super) fn read(values: &Values) -> Self {
        Self {
            min_session_timeout_ms: values.i32("group.min.session.timeout.ms"),
            max_session_timeout_ms: values.i32("group.max.session.timeout.ms"),
            initial_rebalance_delay_ms: values.i32("group.initial.rebalance.delay.ms"),
            max_size: values.i32("group.max.size"),
            offsets_topic_replication_factor: values.i16("offsets.topic.replication.factor"),
            offsets_topic_num_partitions: values.i32("offsets.topic.num.partitions"),
            offsets_topic_segment_bytes: values.i32("offsets.topic.segment.bytes"),
            offsets_commit_timeout_ms: values.i32("offsets.commit.timeout.ms"),
            offset_metadata_max_bytes: values.i32("offset.metadata.max.bytes"),
            offsets_retention_ms: values.i64("offsets.retention.minutes") * 60_000,
            offsets_retention_check_interval_ms: values.i64("offsets.retention.check.interval.ms"),
        }
    }
}

/// A built-in assignor of consumer groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsumerAssignor {
    Uniform,
    Range,
}

impl ConsumerAssignor {
    /// The assignor with this name, or with the name of this class of Kafka.
    fn find(name: &str) -> Option<Self> {
        match name {
            "uniform" | "org.apache.kafka.coordinator.group.assignor.UniformAssignor" => {
                Some(Self::Uniform)
            }
            "range" | "org.apache.kafka.coordinator.group.assignor.RangeAssignor" => {
                Some(Self::Range)
            }
            _ => None,
        }
    }

    /// The name that members send in their heartbeats.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }
}

/// Which groups with members may change between the classic and the consumer protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MigrationPolicy {
    Bidirectional,
    Upgrade,
    Downgrade,
    Disabled,
}

impl MigrationPolicy {
    /// Reads a valid text. As in Kafka, case does not matter.
    fn read(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "bidirectional" => Self::Bidirectional,
            "upgrade" => Self::Upgrade,
            "downgrade" => Self::Downgrade,
            _ => Self::Disabled,
        }
    }

    /// Whether a classic group with members may become a consumer group.
    pub fn allows_upgrade(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Upgrade)
    }

    /// Whether a consumer group with members may become a classic group.
    pub fn allows_downgrade(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Downgrade)
    }
}

/// A setting of consumer groups that a group can override between two limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limited {
    pub value: i32,
    pub min: i32,
    pub max: i32,
}

impl Limited {
    fn read(values: &Values, setting: &str) -> Self {
        let [value, min, max] = ["", "min.", "max."]
            .map(|bound| values.i32(&format!("group.consumer.{bound}{setting}")));
        Self { value, min, max }
    }
}

/// The settings of consumer groups (KIP-848).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerGroupSettings {
    /// Whether `group.coordinator.rebalance.protocols` has `consumer`.
    pub has_consumer_protocol: bool,
    pub group_consumer_session_timeout_ms: Limited,
    pub group_consumer_heartbeat_interval_ms: Limited,
    pub group_consumer_assignment_interval_ms: Limited,
    pub group_consumer_regex_refresh_interval_ms: i32,
    pub group_consumer_max_size: i32,
    /// Not empty. The first one is the default.
    pub group_consumer_assignors: Vec<ConsumerAssignor>,
    pub group_consumer_migration_policy: MigrationPolicy,
}

impl ConsumerGroupSettings {
    /// # Errors
    /// `group.consumer.assignors` has a class that is not one of Kafka's assignors, or has an
    /// assignor twice.
    pub(super) fn read(values: &Values) -> Result<Self, ConfigError> {
        let protocols = values.list("group.coordinator.rebalance.protocols").unwrap_or_default();
        Ok(Self {
            has_consumer_protocol: protocols.iter().any(|protocol| protocol == "consumer"),
            group_consumer_session_timeout_ms: Limited::read(values, SESSION),
            group_consumer_heartbeat_interval_ms: Limited::read(values, HEARTBEAT),
            group_consumer_assignment_interval_ms: Limited::read(values, ASSIGNMENT),
            group_consumer_regex_refresh_interval_ms: values
                .i32("group.consumer.regex.refresh.interval.ms"),
            group_consumer_max_size: values.i32("group.consumer.max.size"),
            group_consumer_assignors: assignors(values)?,
            group_consumer_migration_policy: MigrationPolicy::read(
                values.text("group.consumer.migration.policy").unwrap_or_default(),
            ),
        })
    }
}

fn assignors(values: &Values) -> Result<Vec<ConsumerAssignor>, ConfigError> {
    const NAME: &str = "group.consumer.assignors";
    let mut assignors = Vec::new();
    for name in values.list(NAME).unwrap_or_default() {
        let assignor = ConsumerAssignor::find(name)
            .ok_or_else(|| ConfigError::config(format!("Class {name} cannot be found")))?;
        if assignors.contains(&assignor) {
            let message = format!("{NAME} has the assignor {} twice", assignor.name());
            return Err(ConfigError::config(message));
        }
        assignors.push(assignor);
    }
    Ok(assignors)
}

/// Checks that each setting of consumer, share and streams groups is between its limits, in Kafka's
/// order.
pub(super) fn check_limits(values: &Values) -> Result<(), ConfigError> {
    for kind in KINDS {
        check_limit(values, kind, HEARTBEAT)?;
        check_limit(values, kind, SESSION)?;
        let [heartbeat, session] = [HEARTBEAT, SESSION].map(|it| format!("group.{kind}.{it}"));
        if values.i64(&heartbeat) >= values.i64(&session) {
            return Err(ConfigError::config(format!("{heartbeat} must be less than {session}")));
        }
        check_limit(values, kind, ASSIGNMENT)?;
    }
    for setting in ["delivery.count.limit", "record.lock.duration.ms", "partition.max.record.locks"]
    {
        check_limit(values, "share", setting)?;
    }
    Ok(())
}

fn check_limit(values: &Values, kind: &str, setting: &str) -> Result<(), ConfigError> {
    let [name, min, max] =
        ["", "min.", "max."].map(|bound| format!("group.{kind}.{bound}{setting}"));
    let at_least = |high: &str, low: &str| match values.i64(high) >= values.i64(low) {
        true => Ok(()),
        false => Err(ConfigError::config(format!("{high} must be greater than or equal to {low}"))),
    };
    at_least(&max, &min)?;
    at_least(&name, &min)?;
    match values.i64(&name) <= values.i64(&max) {
        true => Ok(()),
        false => Err(ConfigError::config(format!("{name} must be less than or equal to {max}"))),
    }
}

/// Replaces assignment intervals beyond their limits by the limits, and returns their keys. These
/// are the only dynamic keys with limits.
pub(super) fn clamp_dynamic(values: &mut Values) -> Vec<String> {
    let mut clamped = Vec::new();
    for kind in KINDS {
        let [name, min, max] =
            ["", "min.", "max."].map(|bound| format!("group.{kind}.{bound}{ASSIGNMENT}"));
        let value = values.i64(&name);
        // The minimum may be above the maximum here, because that is checked later.
        let within = value.max(values.i64(&min)).min(values.i64(&max));
        if within != value {
            values.set_i64(&name, within);
            clamped.push(name);
        }
    }
    clamped
}

/// The group configs with limits, in the order in which Kafka checks them.
const LIMITED: [&str; 13] = [
    "consumer.heartbeat.interval.ms",
    "consumer.session.timeout.ms",
    "consumer.assignment.interval.ms",
    "share.heartbeat.interval.ms",
    "share.session.timeout.ms",
    "share.record.lock.duration.ms",
    "share.delivery.count.limit",
    "share.partition.max.record.locks",
    "share.assignment.interval.ms",
    "streams.heartbeat.interval.ms",
    "streams.session.timeout.ms",
    "streams.num.standby.replicas",
    "streams.assignment.interval.ms",
];

/// The limits of a group config: the names of the broker keys, if there are such keys.
fn limits_of(name: &str) -> [Option<String>; 2] {
    let (kind, setting) = name.split_once('.').unwrap_or((name, ""));
    let setting = setting.strip_prefix("num.").unwrap_or(setting);
    ["min", "max"].map(|bound| {
        let key = format!("group.{kind}.{bound}.{setting}");
        keys::broker().contains_key(key.as_str()).then_some(key)
    })
}

/// Checks all configs of a group (`GroupConfig.validate` of Kafka).
pub fn validate_group_configs(config: &Config, configs: &Properties) -> Result<(), ConfigError> {
    if let Some(unknown) = configs.keys().find(|name| !keys::group().contains_key(name.as_str())) {
        let message = format!("Unknown group config name: {unknown}");
        return Err(ConfigError::config(message));
    }
    for key in keys::group::GROUP {
        if let Some(text) = configs.get(key.name) {
            parse::value(key, key.name, text)?;
        }
    }
    for name in LIMITED {
        let Some(value) = integer(configs, name) else { continue };
        let [min, max] = limits_of(name);
        if let Some(min) = min.filter(|min| value < config.values().i64(min)) {
            let message = format!("{name} must be greater than or equal to {min}");
            return Err(ConfigError::config(message));
        }
        if let Some(max) = max.filter(|max| value > config.values().i64(max)) {
            let message = format!("{name} must be less than or equal to {max}");
            return Err(ConfigError::config(message));
        }
    }
    for kind in KINDS {
        let in_force = |setting: &str| {
            let set = integer(configs, &format!("{kind}.{setting}"));
            set.unwrap_or_else(|| config.values().i64(&format!("group.{kind}.{setting}")))
        };
        if in_force(SESSION) <= in_force(HEARTBEAT) {
            let message = format!("{kind}.{SESSION} must be greater than {kind}.{HEARTBEAT}");
            return Err(ConfigError::config(message));
        }
    }
    Ok(())
}

/// The value of a group config that is an integer. `None` if it is not set or not valid.
fn integer(configs: &Properties, name: &str) -> Option<i64> {
    let key = keys::group().get(name)?;
    match parse::value(key, name, configs.get(name)?) {
        Ok(Value::Integer(value)) => Some(value),
        _ => None,
    }
}

/// The value of a group config that is an INT, as it is set. `None` if it is not set or not valid.
pub fn group_config(configs: &Properties, name: &str) -> Option<i32> {
    integer(configs, name).and_then(|value| i32::try_from(value).ok())
}
