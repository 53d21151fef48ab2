//! DescribeConfigs: values, sources and synonyms.

use super::{config, properties};
use crate::base::config::{
    Config,
    describe::{self, ConfigSource, Entry},
    key::Type,
};

fn find(entries: &[Entry], name: &str) -> Entry {
    entries.iter().find(|entry| entry.name == name).cloned().expect("listed")
}

/// `source:name=value` of each synonym, in order.
fn synonyms(entry: &Entry) -> Vec<String> {
    let one = |synonym: &describe::Synonym| {
        let value = synonym.value.as_deref().unwrap_or("null");
        format!("{:?}:{}={value}", synonym.source, synonym.name)
    };
    entry.synonyms.iter().map(one).collect()
}

fn example() -> Config {
    config(&[
        ("log.retention.hours", "100"),
        ("log.retention.minutes", "60"),
        ("log.roll.hours", "24"),
        ("log.roll.ms", "36000000"),
        ("log.flush.scheduler.interval.ms", "5000"),
        ("foo.bar", "1"),
        ("log.initial.task.delay.ms", "500"),
        ("ssl.keystore.password", "abc"),
        ("listener.name.plaintext.max.connections", "10"),
        ("log.cleanup.policy", "delete, compact"),
        ("log.cleaner.min.cleanable.ratio", "0.50"),
    ])
}

#[test]
fn a_topics_configs_name_where_they_come_from() {
    let overrides = properties(&[("retention.ms", "1000")]);
    let entries = describe::topic(&example(), &overrides).expect("valid");
    assert_eq!(entries.len(), 33);
    let retention = find(&entries, "retention.ms");
    assert_eq!((retention.source, retention.kind), (ConfigSource::Topic, Some(Type::Long)));
    // Kafka leaves out values that are set under another name than the key's own.
    assert_eq!(synonyms(&retention), ["Topic:retention.ms=1000"]);
    let segment = find(&entries, "segment.ms");
    assert_eq!(segment.value.as_deref(), Some("36000000"));
    assert_eq!(
        synonyms(&segment),
        [
            "StaticBroker:log.roll.ms=36000000",
            "StaticBroker:log.roll.hours=24",
            "Default:log.roll.hours=168"
        ]
    );
    let flush = find(&entries, "flush.ms");
    assert_eq!((flush.value.as_deref(), flush.source), (Some("5000"), ConfigSource::Default));
    assert!(flush.synonyms.is_empty());
    let policy = find(&entries, "cleanup.policy");
    assert_eq!(policy.value.as_deref(), Some("delete,compact"));
    assert_eq!(synonyms(&policy)[0], "StaticBroker:log.cleanup.policy=delete, compact");
    assert_eq!(find(&entries, "min.cleanable.dirty.ratio").value.as_deref(), Some("0.5"));
}

#[test]
fn a_broker_lists_what_kafka_lists_and_what_is_set() {
    let config = example();
    let entries = describe::broker(&config);
    // 340 keys of Kafka, and three other names that are set.
    assert_eq!(entries.len(), 340 + 3);
    let unknown = find(&entries, "foo.bar");
    assert!(unknown.is_sensitive && unknown.read_only && unknown.value.is_none());
    assert_eq!(synonyms(&unknown), ["StaticBroker:foo.bar=null"]);
    let password = find(&entries, "ssl.keystore.password");
    assert_eq!((password.value.as_deref(), password.is_sensitive), (None, true));
    assert!(!password.read_only);
    let prefixed = find(&entries, "listener.name.plaintext.max.connections");
    assert_eq!((prefixed.value.as_deref(), prefixed.read_only), (Some("10"), true));
    assert_eq!(
        synonyms(&prefixed),
        [
            "StaticBroker:listener.name.plaintext.max.connections=10",
            "Default:max.connections=2147483647"
        ]
    );
    let minutes = find(&entries, "log.retention.minutes");
    assert_eq!(
        synonyms(&minutes),
        [
            "StaticBroker:log.retention.minutes=60",
            "StaticBroker:log.retention.hours=100",
            "Default:log.retention.hours=168"
        ]
    );
    assert!(find(&entries, "log.retention.ms").value.is_none());
    assert!(find(&entries, "log.initial.task.delay.ms").value.is_some());
    let id = find(&entries, "broker.id");
    assert_eq!(synonyms(&id), ["StaticBroker:broker.id=1", "Default:broker.id=-1"]);
}

#[test]
fn dynamic_levels_come_before_the_static_one() {
    let all = properties(&[("num.io.threads", "10"), ("foo", "x")]);
    let one = properties(&[("num.io.threads", "12")]);
    let config = config(&[]).with_dynamic(&all, &one).expect("valid");
    let threads = find(&describe::broker(&config), "num.io.threads");
    assert_eq!(threads.value.as_deref(), Some("12"));
    assert_eq!(
        synonyms(&threads),
        [
            "DynamicBroker:num.io.threads=12",
            "DynamicDefaultBroker:num.io.threads=10",
            "Default:num.io.threads=8"
        ]
    );
    let defaults = describe::cluster_default(&config);
    assert_eq!(defaults.len(), 2);
    let threads = find(&defaults, "num.io.threads");
    assert_eq!(synonyms(&threads), ["DynamicDefaultBroker:num.io.threads=10"]);
    assert!(find(&defaults, "foo").value.is_none());
}

#[test]
fn groups_and_subscriptions_show_defaults_too() {
    let config = config(&[("group.consumer.session.timeout.ms", "50000")]);
    let entries =
        describe::group(&config, &properties(&[("share.isolation.level", "read_committed")]));
    let entries = entries.expect("valid");
    assert_eq!(entries.len(), 17);
    let session = find(&entries, "consumer.session.timeout.ms");
    assert_eq!(session.value.as_deref(), Some("50000"));
    assert_eq!(
        synonyms(&session),
        [
            "StaticBroker:group.consumer.session.timeout.ms=50000",
            "Default:group.consumer.session.timeout.ms=45000"
        ]
    );
    assert_eq!(
        synonyms(&find(&entries, "share.isolation.level")),
        [
            "Group:share.isolation.level=read_committed",
            "Default:share.isolation.level=read_uncommitted"
        ]
    );
    let entries = describe::client_metrics(&properties(&[("interval.ms", "1000")]));
    let entries = entries.expect("valid");
    assert_eq!(synonyms(&find(&entries, "interval.ms")), ["ClientMetrics:interval.ms=1000"]);
    assert_eq!(find(&entries, "metrics").source, ConfigSource::Default);
}

#[test]
fn created_topics_show_where_a_secondary_synonym_sets_a_config() {
    let config = example();
    let of_broker = |config: &Config, name| describe::topic_config_of_broker(config, name);
    let set = |value: &str, source| Some((value.to_owned(), source));
    let fixed = ConfigSource::StaticBroker;
    assert_eq!(of_broker(&config, "retention.ms"), set("3600000", fixed));
    assert_eq!(of_broker(&config, "flush.ms"), set("5000", fixed));
    assert_eq!(of_broker(&config, "segment.ms"), set("36000000", fixed));
    assert_eq!(of_broker(&config, "cleanup.policy"), set("delete, compact", fixed));
    assert_eq!(of_broker(&config, "segment.jitter.ms"), None);
    let dynamic = properties(&[("log.retention.ms", "7")]);
    let changed = config.with_dynamic(&dynamic, &properties(&[])).expect("valid");
    let by_default = ConfigSource::DynamicDefaultBroker;
    assert_eq!(of_broker(&changed, "retention.ms"), set("7", by_default));
}
