//! Configs of topics, groups and client metrics.

use super::{config, properties};
use crate::base::config::{
    CompressionType, ConfigErrorKind, TimestampType, TopicConfig, group_config,
    validate_client_metrics_configs, validate_group_configs, validate_topic_configs,
};

fn resolve(broker: &[(&str, &str)], topic: &[(&str, &str)]) -> TopicConfig {
    TopicConfig::resolve(&config(broker), &properties(topic)).expect("valid")
}

#[test]
fn a_topic_without_configs_has_kafkas_defaults() {
    let topic = resolve(&[], &[]);
    assert_eq!(topic.retention_ms, Some(604_800_000));
    assert_eq!((topic.retention_bytes, topic.segment_bytes), (None, 1 << 30));
    assert_eq!((topic.segment_ms, topic.segment_jitter_ms), (604_800_000, 0));
    assert_eq!((topic.flush_ms, topic.flush_messages), (i64::MAX, i64::MAX));
    assert!(topic.cleanup_policy.delete && !topic.cleanup_policy.compact);
    assert_eq!(topic.compression_type, CompressionType::Producer);
    assert_eq!(topic.message_timestamp_type, TimestampType::CreateTime);
    assert_eq!(topic.message_timestamp_after_max_ms, 3_600_000);
}

#[test]
fn the_finest_unit_that_is_set_counts() {
    let hours = ("log.retention.hours", "2");
    let minutes = ("log.retention.minutes", "3");
    assert_eq!(resolve(&[hours], &[]).retention_ms, Some(7_200_000));
    assert_eq!(resolve(&[hours, minutes], &[]).retention_ms, Some(180_000));
    assert_eq!(resolve(&[hours, minutes, ("log.retention.ms", "4")], &[]).retention_ms, Some(4));
    assert_eq!(resolve(&[hours, ("log.retention.ms", "-1")], &[]).retention_ms, None);
    assert_eq!(resolve(&[("log.retention.hours", "-1")], &[]).retention_ms, None);
    assert_eq!(resolve(&[("log.roll.hours", "1")], &[]).segment_ms, 3_600_000);
    assert_eq!(resolve(&[("log.roll.jitter.hours", "1")], &[]).segment_jitter_ms, 3_600_000);
    assert_eq!(resolve(&[("log.flush.scheduler.interval.ms", "5")], &[]).flush_ms, 5);
    let topic = resolve(&[hours], &[("retention.ms", "1"), ("cleanup.policy", "")]);
    assert_eq!(topic.retention_ms, Some(1));
    assert!(!topic.cleanup_policy.delete && !topic.cleanup_policy.compact);
}

#[test]
fn dynamic_configs_of_the_broker_reach_its_topics() {
    let config = config(&[("log.retention.hours", "2")]);
    let all = properties(&[("log.retention.ms", "1000"), ("message.max.bytes", "5")]);
    let own = properties(&[("message.max.bytes", "6")]);
    let changed = config.with_dynamic(&all, &own).expect("valid");
    let topic = TopicConfig::resolve(&changed, &properties(&[])).expect("valid");
    assert_eq!((topic.retention_ms, topic.max_message_bytes), (Some(1000), 6));
    let back = changed.with_dynamic(&properties(&[]), &properties(&[])).expect("valid");
    let topic = TopicConfig::resolve(&back, &properties(&[])).expect("valid");
    assert_eq!(topic.retention_ms, Some(7_200_000));
}

#[test]
fn topic_configs_are_refused_in_kafkas_words() {
    let config = config(&[]);
    for (name, value, refusal) in [
        ("foo", "1", "Unknown topic config name: foo"),
        (
            "retention.ms",
            "abc",
            "Invalid value abc for configuration retention.ms: Not a number of type LONG",
        ),
        (
            "retention.ms",
            "-2",
            "Invalid value -2 for configuration retention.ms: Value must be at least -1",
        ),
        (
            "cleanup.policy",
            "foo",
            "Invalid value foo for configuration cleanup.policy: String must be one of: compact, \
             delete",
        ),
        ("min.compaction.lag.ms", "9223372036854775807", ""),
        (
            "leader.replication.throttled.replicas",
            "x",
            "Invalid value [x] for configuration leader.replication.throttled.replicas: \
             leader.replication.throttled.replicas must be the literal '*' or a list of replicas \
             in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        ),
        (
            "remote.storage.enable",
            "true",
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
             with remote log storage.",
        ),
        ("message.format.version", "3.0", "Unknown topic config name: message.format.version"),
        ("leader.replication.throttled.replicas", "0:1,1:2", ""),
        ("leader.replication.throttled.replicas", "*", ""),
        ("retention.bytes", "-5", ""),
        ("internal.segment.bytes", "100", ""),
    ] {
        let result = config.validate_topic_config(name, value).map_err(|error| error.message);
        let expected = if refusal.is_empty() { Ok(()) } else { Err(refusal.to_owned()) };
        assert_eq!(result, expected, "{name}={value}");
    }
    let lags = [("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")];
    assert_eq!(
        validate_topic_configs(&config, &properties(&lags)).map_err(|error| error.message),
        Err("conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
            .to_owned())
    );
}

#[test]
fn group_configs_are_refused_in_kafkas_words() {
    let config = config(&[]);
    let result = |name: &str, value: &str| {
        let configs = properties(&[(name, value)]);
        validate_group_configs(&config, &configs).map_err(|error| error.message)
    };
    for (name, value, refusal) in [
        ("foo", "1", "Unknown group config name: foo"),
        (
            "consumer.session.timeout.ms",
            "1",
            "consumer.session.timeout.ms must be greater than or equal to \
             group.consumer.min.session.timeout.ms",
        ),
        (
            "streams.num.standby.replicas",
            "3",
            "streams.num.standby.replicas must be less than or equal to \
             group.streams.max.standby.replicas",
        ),
        (
            "share.record.lock.duration.ms",
            "500",
            "Invalid value 500 for configuration share.record.lock.duration.ms: Value must be at \
             least 1000",
        ),
        (
            "share.partition.max.record.locks",
            "50000",
            "share.partition.max.record.locks must be less than or equal to \
             group.share.max.partition.max.record.locks",
        ),
        (
            "share.auto.offset.reset",
            "by_duration:-PT1H",
            "Invalid value by_duration:-PT1H for configuration share.auto.offset.reset: Invalid \
             value `by_duration:-PT1H` for configuration share.auto.offset.reset. The value must \
             be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.",
        ),
    ] {
        assert_eq!(result(name, value), Err(refusal.to_owned()), "{name}={value}");
    }
    for duration in ["PT1H", "P1D", "P1DT2H3M4.5S", "pt0.1s"] {
        assert_eq!(result("share.auto.offset.reset", &format!("by_duration:{duration}")), Ok(()));
    }
    for duration in ["", "P", "PT", "P1H", "PT1M1H", "PT1.5H", "x"] {
        assert!(result("share.auto.offset.reset", &format!("by_duration:{duration}")).is_err());
    }
    assert_eq!(result("consumer.session.timeout.ms", "50000"), Ok(()));
}

#[test]
fn group_configs_are_checked_together_and_in_kafkas_order() {
    let config = config(&[
        ("group.consumer.min.session.timeout.ms", "1000"),
        ("group.consumer.min.heartbeat.interval.ms", "1000"),
    ]);
    let refusal = |pairs: &[(&str, &str)]| {
        validate_group_configs(&config, &properties(pairs)).expect_err("refused").message
    };
    let (session, heartbeat) = ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms");
    let assignment = "consumer.assignment.interval.ms";
    let above = format!("{session} must be greater than {heartbeat}");
    assert_eq!(refusal(&[(session, "5000")]), above, "the broker's heartbeat interval is 5000");
    assert_eq!(refusal(&[(session, "6000"), (heartbeat, "6000")]), above);
    let fit = properties(&[(session, "6000"), (heartbeat, "5999"), (assignment, "0")]);
    assert_eq!(validate_group_configs(&config, &fit), Ok(()));
    let low = [(assignment, "16000"), (session, "1"), (heartbeat, "1")];
    assert_eq!(
        refusal(&low),
        "consumer.heartbeat.interval.ms must be greater than or equal to \
         group.consumer.min.heartbeat.interval.ms"
    );
    assert_eq!(
        refusal(&low[..2]),
        "consumer.session.timeout.ms must be greater than or equal to \
         group.consumer.min.session.timeout.ms"
    );
    assert_eq!(
        refusal(&low[..1]),
        "consumer.assignment.interval.ms must be less than or equal to \
         group.consumer.max.assignment.interval.ms"
    );
    assert_eq!(
        refusal(&[(heartbeat, "x"), (session, "y"), ("share.delivery.count.limit", "1")]),
        "Invalid value y for configuration consumer.session.timeout.ms: Not a number of type INT"
    );
}

#[test]
fn values_of_group_configs_are_integers() {
    let configs = properties(&[
        ("consumer.session.timeout.ms", " 50000 "),
        ("consumer.heartbeat.interval.ms", "x"),
    ]);
    assert_eq!(group_config(&configs, "consumer.session.timeout.ms"), Some(50_000));
    assert_eq!(group_config(&configs, "consumer.heartbeat.interval.ms"), None);
    assert_eq!(group_config(&configs, "consumer.assignment.interval.ms"), None);
}

#[test]
fn client_metrics_are_refused_in_kafkas_words() {
    let result = |name: &str, value: &str| {
        let error = validate_client_metrics_configs(&properties(&[(name, value)])).err();
        error.map(|error| (error.kind, error.message))
    };
    let interval = "Invalid value 99 for interval.ms, interval must be between 100 and 3600000 \
                    (1 hour)";
    assert_eq!(
        result("interval.ms", "99"),
        Some((ConfigErrorKind::InvalidRequest, interval.to_owned()))
    );
    assert_eq!(
        result("foo", "1"),
        Some((
            ConfigErrorKind::InvalidRequest,
            "Unknown client metrics configuration: foo".to_owned()
        ))
    );
    for pattern in ["x", "a=b", "client_id=[", "client_id="] {
        assert_eq!(
            result("match", pattern),
            Some((
                ConfigErrorKind::InvalidConfig,
                format!("Illegal client matching pattern: {pattern}")
            ))
        );
    }
    assert_eq!(result("match", "client_id=abc,client_software_name=j.*"), None);
    assert_eq!(result("metrics", "a,a"), None);
}
