//! A topic's settings: its own configs take precedence over the broker's (`LogConfig` of Kafka).

use super::{
    Config, ConfigError, Properties, keys,
    keys::topic::Convert,
    parse::{self, Value},
    values::Values,
};

/// What happens to old segments. If both are false, they are kept (KIP-1030's empty list).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// The compression of stored batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompressionType {
    /// The compression that the producer chose.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Replicas whose replication is throttled (KIP-73).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ThrottledReplicas {
    All,
    /// Pairs of partition and broker, possibly none.
    Some(Vec<(i32, i32)>),
}

impl ThrottledReplicas {
    fn of(entries: &[String]) -> Self {
        if entries.iter().any(|entry| entry == "*") {
            return Self::All;
        }
        let replica = |entry: &String| {
            let (partition, broker) = entry.split_once(':')?;
            Some((partition.trim().parse().ok()?, broker.trim().parse().ok()?))
        };
        Self::Some(entries.iter().filter_map(replica).collect())
    }

    pub fn contains(&self, partition: i32, broker: i32) -> bool {
        match self {
            Self::All => true,
            Self::Some(replicas) => replicas.contains(&(partition, broker)),
        }
    }
}

/// All settings of one topic's logs.
#[derive(Clone, PartialEq, Debug)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_type: CompressionType,
    /// -1: the default level of the codec.
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: i32,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_type: TimestampType,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_after_max_ms: i64,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub leader_replication_throttled_replicas: ThrottledReplicas,
    pub follower_replication_throttled_replicas: ThrottledReplicas,
    /// `None`: no limit.
    pub retention_bytes: Option<i64>,
    /// `None`: no limit.
    pub retention_ms: Option<i64>,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
}

impl TopicConfig {
    /// The settings of a topic with these overrides on a broker with this configuration.
    pub fn resolve(config: &Config, overrides: &Properties) -> Result<Self, ConfigError> {
        let values = TopicValues::resolve(config, overrides)?;
        let cleanup = values.list("cleanup.policy");
        let integer = |name: &str| values.i64(name);
        let int = |name: &str| i32::try_from(values.i64(name)).unwrap_or(i32::MAX);
        Ok(Self {
            cleanup_policy: CleanupPolicy {
                delete: cleanup.iter().any(|policy| policy == "delete"),
                compact: cleanup.iter().any(|policy| policy == "compact"),
            },
            compression_type: compression_type(values.text("compression.type")),
            compression_gzip_level: int("compression.gzip.level"),
            compression_lz4_level: int("compression.lz4.level"),
            compression_zstd_level: int("compression.zstd.level"),
            delete_retention_ms: integer("delete.retention.ms"),
            file_delete_delay_ms: integer("file.delete.delay.ms"),
            flush_messages: integer("flush.messages"),
            flush_ms: integer("flush.ms"),
            min_cleanable_dirty_ratio: values.decimal("min.cleanable.dirty.ratio"),
            min_compaction_lag_ms: integer("min.compaction.lag.ms"),
            max_compaction_lag_ms: integer("max.compaction.lag.ms"),
            min_insync_replicas: int("min.insync.replicas"),
            leader_replication_throttled_replicas: ThrottledReplicas::of(
                values.list("leader.replication.throttled.replicas"),
            ),
            follower_replication_throttled_replicas: ThrottledReplicas::of(
                values.list("follower.replication.throttled.replicas"),
            ),
            index_interval_bytes: int("index.interval.bytes"),
            max_message_bytes: int("max.message.bytes"),
            message_timestamp_type: match values.text("message.timestamp.type") {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            message_timestamp_before_max_ms: integer("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: integer("message.timestamp.after.max.ms"),
            retention_bytes: Some(integer("retention.bytes")).filter(|bytes| *bytes >= 0),
            retention_ms: Some(integer("retention.ms")).filter(|ms| *ms >= 0),
            segment_bytes: match values.get("internal.segment.bytes") {
                Some(Value::Integer(bytes)) => i32::try_from(*bytes).unwrap_or(i32::MAX),
                _ => int("segment.bytes"),
            },
            segment_index_bytes: int("segment.index.bytes"),
            segment_jitter_ms: integer("segment.jitter.ms"),
            segment_ms: integer("segment.ms"),
        })
    }
}

fn compression_type(name: &str) -> CompressionType {
    match name {
        "uncompressed" => CompressionType::Uncompressed,
        "gzip" => CompressionType::Gzip,
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4,
        "zstd" => CompressionType::Zstd,
        _ => CompressionType::Producer,
    }
}

/// The values of all topic configs for one topic.
pub(super) struct TopicValues(Vec<(&'static str, Value)>);

impl TopicValues {
    pub fn resolve(config: &Config, overrides: &Properties) -> Result<Self, ConfigError> {
        let mut values = Vec::with_capacity(keys::topic::TOPIC.len());
        for key in keys::topic::TOPIC {
            let value = match overrides.get(key.name) {
                Some(text) => Some(parse::value(key, key.name, text)?),
                None => match from_broker(config.values(), key.name) {
                    Some(value) => Some(value),
                    None => {
                        let text = key.default_text();
                        text.map(|text| parse::value(key, key.name, text)).transpose()?
                    }
                },
            };
            values.extend(value.map(|value| (key.name, value)));
        }
        Ok(Self(values))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    fn i64(&self, name: &str) -> i64 {
        match self.get(name) {
            Some(Value::Integer(value)) => *value,
            other => unreachable!("{name} is an integer in the table, not {other:?}"),
        }
    }

    fn decimal(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Value::Decimal(value)) => *value,
            other => unreachable!("{name} is a DOUBLE in the table, not {other:?}"),
        }
    }

    fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Value::Text(value)) => value,
            other => unreachable!("{name} is a STRING in the table, not {other:?}"),
        }
    }

    fn list(&self, name: &str) -> &[String] {
        match self.get(name) {
            Some(Value::List(value)) => value,
            other => unreachable!("{name} is a LIST in the table, not {other:?}"),
        }
    }
}

/// The broker's default of a topic config (`AbstractKafkaConfig.extractLogConfigMap` of Kafka).
fn from_broker(values: &Values, topic_key: &str) -> Option<Value> {
    let (_, synonyms) = keys::topic::SYNONYMS.iter().find(|(name, _)| *name == topic_key)?;
    match topic_key {
        "retention.ms" => Some(Value::Integer(retention_ms(values))),
        "segment.ms" => Some(Value::Integer(roll_ms(values))),
        "segment.jitter.ms" => Some(Value::Integer(roll_jitter_ms(values))),
        _ => synonyms.iter().find_map(|(name, _)| values.get(name)).cloned(),
    }
}

fn first_in_ms(values: &Values, topic_key: &str) -> i64 {
    let synonyms = keys::topic::SYNONYMS.iter().find(|(name, _)| *name == topic_key);
    let (_, synonyms) = synonyms.unwrap_or(&("", &[]));
    let in_ms = |(name, convert): &(&str, Convert)| {
        let value = values.long(name)?;
        Some(match convert {
            Convert::Same => value,
            Convert::MinutesToMs => value.saturating_mul(60_000),
            Convert::HoursToMs => value.saturating_mul(3_600_000),
        })
    };
    synonyms.iter().find_map(in_ms).unwrap_or_default()
}

/// How long records are kept, in milliseconds. -1: no limit.
pub(super) fn retention_ms(values: &Values) -> i64 {
    first_in_ms(values, "retention.ms").max(-1)
}

pub(super) fn roll_ms(values: &Values) -> i64 {
    first_in_ms(values, "segment.ms")
}

pub(super) fn roll_jitter_ms(values: &Values) -> i64 {
    first_in_ms(values, "segment.jitter.ms")
}
