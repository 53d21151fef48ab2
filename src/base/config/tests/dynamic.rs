//! Checks of dynamic configs of brokers.

use super::{config, properties};
use crate::base::config::{Config, ConfigErrorKind};

fn refusal(config: &Config, per_broker: bool, pairs: &[(&str, &str)]) -> Option<String> {
    let result = config.validate_broker_configs(&properties(pairs), per_broker);
    let error = result.err()?;
    assert_eq!(error.kind, ConfigErrorKind::InvalidRequest);
    Some(error.message)
}

#[test]
fn only_dynamic_keys_change_at_their_level() {
    let config = config(&[]);
    let all = |pairs: &[(&str, &str)]| refusal(&config, false, pairs);
    let one = |pairs: &[(&str, &str)]| refusal(&config, true, pairs);
    let listener_password = [("listener.name.plaintext.ssl.keystore.password", "a")];
    let only_static = "Cannot update these configs dynamically: [log.dirs, node.id]";
    assert_eq!(all(&[("node.id", "1"), ("log.dirs", "x")]).as_deref(), Some(only_static));
    assert_eq!(
        all(&[("listeners", "PLAINTEXT://:1")]).as_deref(),
        Some(
            "Cannot update these configs at default cluster level, broker id must be specified: \
             [listeners]"
        )
    );
    assert!(all(&listener_password).is_some_and(|why| why.contains("default cluster level")));
    assert_eq!(one(&listener_password), None);
    assert_eq!(
        one(&[("ssl.keystore.password", "a")]).as_deref(),
        Some(
            "These security configs can be dynamically updated only per-listener using the \
             listener prefix: [ssl.keystore.password]"
        )
    );
    assert_eq!(all(&[("listener.name.plaintext.max.connections", "5")]), None);
    assert_eq!(
        one(&[("listener.name.plaintext.max.connections", "x")]).as_deref(),
        Some("Invalid value x for configuration max.connections: Not a number of type INT")
    );
    assert_eq!(all(&[("foo.bar", "x")]), None);
    assert_eq!(
        all(&[("config.providers", "env")]).as_deref(),
        Some("Config providers can be set at the start only: [config.providers]")
    );
    assert_eq!(all(&[("leader.replication.throttled.rate", "5")]), None);
    assert_eq!(
        all(&[("leader.replication.throttled.rate", "-1")]).as_deref(),
        Some(
            "Invalid value -1 for configuration leader.replication.throttled.rate: Value must be \
             at least 0"
        )
    );
}

#[test]
fn dynamic_change_is_checked_against_the_whole_configuration() {
    let config = config(&[]);
    let all = |pairs: &[(&str, &str)]| refusal(&config, false, pairs);
    assert_eq!(
        all(&[("log.retention.ms", "0")]).as_deref(),
        Some(
            "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or \
             equal to 1"
        )
    );
    let refused = |why: &str| {
        format!(
            "Invalid value org.apache.kafka.common.config.ConfigException: {why} for \
             configuration Invalid dynamic configuration"
        )
    };
    let threads = "Dynamic thread count update validation failed for num.io.threads=";
    let doubled = "value should not be greater than double the current value 8";
    let halved = "value should be at least half the current value 8";
    assert_eq!(all(&[("num.io.threads", "17")]), Some(refused(&format!("{threads}17, {doubled}"))));
    assert_eq!(all(&[("num.io.threads", "3")]), Some(refused(&format!("{threads}3, {halved}"))));
    assert_eq!(all(&[("num.io.threads", "16")]), None);
    assert_eq!(all(&[("num.io.threads", "4")]), None);
    assert_eq!(
        all(&[("log.retention.ms", "1000"), ("log.local.retention.ms", "2000")]),
        Some(refused(
            "Invalid value 2000 for configuration log.local.retention.ms: Value must not be more \
             than log.retention.ms property value: 1000"
        ))
    );
    assert_eq!(
        refusal(&config, true, &[("cordoned.log.dirs", "/x")]).as_deref(),
        Some(
            "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs or \
             log.dir. Missing entries : /x"
        )
    );
}

#[test]
fn cleaner_threads_change_by_a_factor_of_two_and_share_the_buffer() {
    let config = config(&[("log.cleaner.threads", "4")]);
    let all = |pairs: &[(&str, &str)]| refusal(&config, false, pairs).unwrap_or_default();
    let of_threads = |threads: &str| all(&[("log.cleaner.threads", threads)]);
    for allowed in ["2", "8"] {
        assert_eq!(of_threads(allowed), "");
    }
    let doubled = "cannot be increased to more than double the current value 4";
    assert!(of_threads("9").contains(doubled), "{}", of_threads("9"));
    let halved = "cannot be reduced to less than half the current value 4";
    assert!(of_threads("1").contains(halved), "{}", of_threads("1"));
    assert_eq!(of_threads("0"), "/ by zero");
    let size = "log.cleaner.dedupe.buffer.size";
    let shared = format!("requirement failed: {size} must be at least 1MB per cleaner thread.");
    assert_eq!(all(&[(size, "4194307")]), shared);
    assert_eq!(all(&[(size, "4194308")]), "");
    assert!(all(&[("log.cleaner.backoff.ms", "-1")]).contains("at least 0"));
    assert!(all(&[("log.cleaner.enable", "false")]).starts_with("Cannot update these configs"));
    let changed = [("log.cleaner.threads", "2"), ("log.cleaner.io.max.bytes.per.second", "1000")];
    let changed = config.with_dynamic(&properties(&changed), &properties(&[])).expect("valid");
    let cleaner = &changed.broker.cleaner;
    assert_eq!(cleaner.log_cleaner_threads, 2);
    assert!(cleaner.log_cleaner_io_max_bytes_per_second < 1001.0);
}

#[test]
fn a_single_change_is_checked_with_what_is_set_already() {
    let changed = config(&[])
        .with_dynamic(&properties(&[("log.retention.ms", "1000")]), &properties(&[]))
        .expect("valid");
    assert!(changed.validate_broker_config("log.local.retention.ms", "2000", false).is_err());
    assert!(changed.validate_broker_config("log.local.retention.ms", "500", false).is_ok());
}

/// The limits of a broker may change while metadata keeps a value that was within them.
#[test]
fn stored_assignment_interval_is_moved_into_its_limits() {
    const NAME: &str = "group.consumer.assignment.interval.ms";
    let config = config(&[
        ("group.consumer.min.assignment.interval.ms", "500"),
        ("group.consumer.max.assignment.interval.ms", "5000"),
    ]);
    for (stored, expected) in [("100", 500), ("500", 500), ("5000", 5_000), ("9000", 5_000)] {
        let all = properties(&[(NAME, stored), ("num.io.threads", "16")]);
        let (changed, clamped) = config.with_stored(&all, &properties(&[])).expect("valid");
        let interval = changed.broker.consumer_group.group_consumer_assignment_interval_ms;
        assert_eq!(interval.value, expected);
        assert_eq!(clamped.is_empty(), stored == expected.to_string(), "{clamped:?}");
        assert_eq!(changed.cluster_default(), &all, "kept as it is stored");
        assert_eq!(config.with_dynamic(&all, &properties(&[])).is_err(), !clamped.is_empty());
    }
    let refused = refusal(&config, false, &[(NAME, "100")]);
    let expected = format!("{NAME} must be greater than or equal to group.consumer.min.assignment");
    assert!(refused.is_some_and(|why| why.starts_with(&expected)));
}
