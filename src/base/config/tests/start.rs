//! Configurations of starts: sources, defaults, listeners, warnings and errors.

use std::path::PathBuf;

use super::{properties, started};
use crate::base::config::{Config, ConsumerAssignor, Loaded, MigrationPolicy, Sources, load};

fn refusal(pairs: &[(&str, &str)]) -> String {
    started(pairs).expect_err("refused")
}

#[test]
fn no_start_without_cleaner_threads() {
    let refused = refusal(&[("log.cleaner.threads", "0")]);
    assert_eq!(refused, "log.cleaner.threads must be at least 1.");
}

#[test]
fn a_multi_broker_tutorials_file_works_as_it_is() {
    let (config, warnings) = started(&[
        ("broker.id", "2"),
        ("listeners", "PLAINTEXT://:9094"),
        ("log.dir", "/tmp/kafka-logs-2"),
        ("zookeeper.connect", "localhost:2181"),
        ("zookeeper.connection.timeout.ms", "18000"),
        ("offsets.topic.replication.factor", "1"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
    ])
    .expect("starts");
    let broker = &config.broker;
    assert_eq!(broker.node_id, 2);
    assert_eq!(broker.log_dirs, [PathBuf::from("/tmp/kafka-logs-2")]);
    assert_eq!((broker.listeners[0].host.as_str(), broker.listeners[0].port), ("", 9094));
    assert_eq!(broker.advertised_listeners[0].host, "here");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("zookeeper.connect has no effect"));
}

#[test]
fn host_name_and_port_become_listeners_unless_those_are_set() {
    let (config, warnings) = started(&[("port", "9095")]).expect("starts");
    assert_eq!(config.broker.listeners[0].port, 9095);
    assert!(warnings[0].starts_with("host.name and port"), "{warnings:?}");
    let (config, _) =
        started(&[("port", "9095"), ("listeners", "PLAINTEXT://h:1")]).expect("starts");
    assert_eq!(config.broker.listeners[0].port, 1);
}

#[test]
fn a_quickstart_file_keeps_the_controllers_listener_apart() {
    let (config, warnings) = started(&[
        ("process.roles", "broker,controller"),
        ("node.id", "1"),
        ("controller.quorum.bootstrap.servers", "localhost:9093"),
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("inter.broker.listener.name", "PLAINTEXT"),
        ("advertised.listeners", "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093"),
        ("controller.listener.names", "CONTROLLER"),
        (
            "listener.security.protocol.map",
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
        ),
        ("log.dirs", "/tmp/a, /tmp/b"),
        ("offsets.topic.replication.factor", "1"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
    ])
    .expect("starts");
    let broker = &config.broker;
    assert_eq!(broker.listeners.len(), 1);
    assert_eq!(broker.controller_listeners[0].port, 9093);
    assert_eq!(broker.advertised_listeners.len(), 1);
    assert_eq!(broker.log_dirs.len(), 2);
    assert_eq!(broker.metadata_log_dir, PathBuf::from("/tmp/a"));
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn unknown_keys_are_warnings_and_groups_that_cannot_work_too() {
    let (_, warnings) = started(&[("num.partition", "3")]).expect("starts");
    assert_eq!(
        warnings[0],
        "server.properties, line 1 sets num.partition, which is no known key and has no effect; \
         did you mean num.partitions?"
    );
    assert!(warnings[1].starts_with("offsets.topic.replication.factor is 3"), "{warnings:?}");
    let state =
        "transaction.state.log.replication.factor is 3 and transaction.state.log.min.isr is 2";
    assert!(warnings[2].starts_with(state), "{warnings:?}");
}

#[test]
fn the_environment_is_read_as_the_container_images_do() {
    let pairs = [
        ("KAFKA_LOG_DIRS", "/data"),
        ("KAFKA_NUM_PARTITIONS", "4"),
        ("KAFKA_LISTENER_NAME_PLAINTEXT_MAX_CONNECTIONS", "7"),
        ("KAFKA_SOME__KEY___HERE", "1"),
        ("KAFKA_HEAP_OPTS", "-Xmx1G"),
        ("KAFKA_PORT", "tcp://10.0.0.1:9092"),
        ("KAFKA_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
        ("KAFKA_SERVICE_HOST", "10.0.0.1"),
        ("HOME", "/"),
    ];
    let environment = properties(&pairs).into_iter().collect();
    let loaded = load(Sources { environment, ..Sources::default() }).expect("starts");
    let broker = &loaded.config.broker;
    assert_eq!(broker.log_dirs, [PathBuf::from("/data")]);
    assert_eq!(broker.num_partitions, 4);
    let own = "listener.name.plaintext.max.connections";
    assert_eq!(loaded.config.values().long(own), Some(7));
    assert_eq!(
        loaded.warnings,
        ["environment variable KAFKA_SOME__KEY___HERE sets some_key-here, which is no known key \
             and has no effect"]
    );
}

/// Names that are prefixes of each other, and names like paths, stay whole.
#[test]
fn layers_keep_names_whole() {
    let pairs = [
        ("max.connections", "5"),
        ("max.connections.per.ip", "6"),
        ("max.connections.per.ip.overrides", "h:7"),
        ("log.dir", "/a"),
        ("log.dir.failure.timeout.ms", "9"),
        ("Odd[0].Key-x", "y"),
    ];
    for _ in 0..20 {
        let (config, _) = started(&pairs).expect("starts");
        let broker = &config.broker;
        assert_eq!((broker.max_connections, broker.max_connections_per_ip.max), (5, 6));
        assert_eq!(broker.max_connections_per_ip.overrides.get("h"), Some(&7));
        assert_eq!(broker.log_dirs, [PathBuf::from("/a")]);
        assert_eq!(config.values().i64("log.dir.failure.timeout.ms"), 9);
        assert_eq!(config.statics().get("Odd[0].Key-x").map(String::as_str), Some("y"));
    }
}

#[test]
fn rules_between_keys_hold_at_start() {
    let bad = |pair: (&str, &str)| refusal(&[pair]);
    assert_eq!(
        refusal(&[("node.id", "1"), ("broker.id", "2")]),
        "You must set `node.id` to the same value as `broker.id`."
    );
    for name in ["log.retention.ms", "log.retention.minutes", "log.retention.hours"] {
        assert_eq!(
            bad((name, "0")),
            "log.retention.ms must be unlimited (-1) or, greater than or equal to 1"
        );
    }
    assert_eq!(bad(("log.roll.ms", "0")), "log.roll.ms must be greater than or equal to 1");
    assert_eq!(
        bad(("max.connections.per.ip", "0")),
        "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides \
         property is set."
    );
    assert_eq!(
        bad(("max.connections.per.ip.overrides", "bad host:1")),
        "max.connections.per.ip.overrides contains invalid addresses : bad host"
    );
    assert_eq!(bad(("offsets.topic.compression.codec", "9")), "Unknown compression type id: 9");
    assert_eq!(
        bad(("group.coordinator.rebalance.protocols", "consumer")),
        "Disabling the 'classic' protocol is not supported."
    );
    assert_eq!(
        bad(("group.consumer.session.timeout.ms", "1")),
        "group.consumer.session.timeout.ms must be greater than or equal to \
         group.consumer.min.session.timeout.ms"
    );
    let limits = [
        ("group.consumer.min.heartbeat.interval.ms", "100"),
        ("group.consumer.min.session.timeout.ms", "100"),
        ("group.consumer.heartbeat.interval.ms", "200"),
        ("group.consumer.session.timeout.ms", "200"),
    ];
    assert_eq!(
        refusal(&limits),
        "group.consumer.heartbeat.interval.ms must be less than group.consumer.session.timeout.ms"
    );
    assert_eq!(
        bad(("group.streams.max.heartbeat.interval.ms", "1")),
        "group.streams.max.heartbeat.interval.ms must be greater than or equal to \
         group.streams.min.heartbeat.interval.ms"
    );
    assert!(bad(("process.roles", "controller")).contains("process.roles"));
    assert!(bad(("http.listener", "nowhere")).contains("http.listener"));
}

#[test]
fn assignors_of_consumer_groups_are_built_in() {
    const NAME: &str = "group.consumer.assignors";
    let assignors = |pairs: &[(&str, &str)]| {
        let (config, _) = started(pairs).expect("starts");
        config.broker.consumer_group.group_consumer_assignors.clone()
    };
    let (uniform, range) = (ConsumerAssignor::Uniform, ConsumerAssignor::Range);
    assert_eq!(assignors(&[]), [uniform, range]);
    let class = "org.apache.kafka.coordinator.group.assignor";
    let classes = format!("{class}.RangeAssignor,{class}.UniformAssignor");
    assert_eq!(assignors(&[(NAME, &classes)]), [range, uniform]);
    assert_eq!(assignors(&[(NAME, "range,range")]), [range]);
    let other = [(NAME, "range,com.example.Other")];
    assert_eq!(refusal(&other), "Class com.example.Other cannot be found");
    let twice = format!("range,{class}.RangeAssignor");
    assert_eq!(refusal(&[(NAME, &twice)]), "group.consumer.assignors has the assignor range twice");
    assert!(refusal(&[(NAME, "")]).contains("must not be empty"));
}

#[test]
fn migration_policy_ignores_case() {
    const NAME: &str = "group.consumer.migration.policy";
    let policy = |pairs: &[(&str, &str)]| {
        let (config, _) = started(pairs).expect("starts");
        config.broker.consumer_group.group_consumer_migration_policy
    };
    assert_eq!(policy(&[]), MigrationPolicy::Bidirectional);
    for (text, expected, upgrades, downgrades) in [
        ("BIDIRECTIONAL", MigrationPolicy::Bidirectional, true, true),
        ("Upgrade", MigrationPolicy::Upgrade, true, false),
        ("downgrade", MigrationPolicy::Downgrade, false, true),
        ("disableD", MigrationPolicy::Disabled, false, false),
    ] {
        let read = policy(&[(NAME, text)]);
        assert_eq!(read, expected, "{text}");
        assert_eq!((read.allows_upgrade(), read.allows_downgrade()), (upgrades, downgrades));
    }
}

#[test]
fn consumer_protocol_can_be_turned_off() {
    const NAME: &str = "group.coordinator.rebalance.protocols";
    let has_protocol = |pairs: &[(&str, &str)]| {
        let (config, warnings) = started(pairs).expect("starts");
        let is_deprecated = warnings.iter().any(|it| it.starts_with(&format!("{NAME} is")));
        (config.broker.consumer_group.has_consumer_protocol, is_deprecated)
    };
    assert_eq!(has_protocol(&[]), (true, false));
    assert_eq!(has_protocol(&[(NAME, "classic,consumer")]), (true, true));
    assert_eq!(has_protocol(&[(NAME, "classic")]), (false, true));
}

#[test]
fn a_node_has_an_id_where_nothing_fills_it_in() {
    let refused = Config::new(properties(&[("process.roles", "broker")]), "here");
    assert_eq!(
        refused.err().map(|error| error.message).as_deref(),
        Some("Missing required configuration \"node.id\" which has no default value.")
    );
}

#[test]
fn listeners_are_checked() {
    let bad = |listeners: &str| refusal(&[("listeners", listeners)]);
    assert_eq!(bad("foo"), "Unable to parse a listener name from foo");
    assert_eq!(
        bad("FOO://:1"),
        "Error creating broker listeners from '[FOO://:1]': No security protocol defined for \
         listener FOO"
    );
    assert_eq!(
        bad("PLAINTEXT://:9092,PLAINTEXT://:9093"),
        "Error creating broker listeners from '[PLAINTEXT://:9092, PLAINTEXT://:9093]': Each \
         listener must have a different name, listeners: [PLAINTEXT://:9092, PLAINTEXT://:9093]"
    );
    assert_eq!(
        bad("PLAINTEXT://:9092,CONTROLLER://:9092"),
        "Error creating broker listeners from '[PLAINTEXT://:9092, CONTROLLER://:9092]': Each \
         listener must have a different port, listeners: [PLAINTEXT://:9092, CONTROLLER://:9092]"
    );
    assert_eq!(
        bad("PLAINTEXT://:x"),
        "Error creating broker listeners from '[PLAINTEXT://:x]': Unable to parse PLAINTEXT://:x \
         to a broker endpoint"
    );
    assert_eq!(
        bad("PLAINTEXT://0.0.0.0:9092"),
        "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP \
         address."
    );
    assert!(bad("SSL://:9092").contains("SSL is not supported yet"));
    assert!(bad("CONTROLLER://:9092").contains("at least one listener"));
    let map = ("listener.security.protocol.map", "PLAINTEXT:FOO");
    assert_eq!(
        refusal(&[map]),
        "Invalid security protocol `FOO` defined in listener.security.protocol.map"
    );
    let advertised = ("advertised.listeners", "SSL://h:9092");
    assert!(refusal(&[advertised]).starts_with("advertised.listeners listener names must be"));
    let inter = ("inter.broker.listener.name", "FOO");
    assert_eq!(
        refusal(&[inter]),
        "Listener with name FOO defined in inter.broker.listener.name not found in \
         listener.security.protocol.map."
    );
}

#[test]
fn one_port_may_serve_ipv4_and_ipv6() {
    let (config, _) = started(&[
        ("listeners", "plaintext://[::1]:9092,two://127.0.0.1:9092"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,TWO:PLAINTEXT"),
    ])
    .expect("starts");
    assert_eq!(config.broker.listeners[0].host, "::1");
    assert_eq!(config.broker.listeners[1].name, "TWO");
}

#[test]
fn metrics_can_be_moved_and_turned_off() {
    let http =
        |pairs: &[(&str, &str)]| started(pairs).expect("starts").0.broker.http_listener.clone();
    let default = http(&[]).expect("on");
    assert_eq!(
        (default.host.as_str(), default.port, default.is_explicit),
        ("127.0.0.1", 9644, false)
    );
    let moved = http(&[("http.listener", ":1234")]).expect("on");
    assert_eq!((moved.host.as_str(), moved.port, moved.is_explicit), ("0.0.0.0", 1234, true));
    assert_eq!(http(&[("http.listener", "none")]), None);
    assert_eq!(http(&[("http.listener", "")]), None);
}

/// A start without a properties file.
fn without_file(overrides: &[(&str, &str)], environment: &[(&str, &str)]) -> Loaded {
    let environment = properties(environment).into_iter().collect();
    let overrides = properties(overrides).into_iter().collect();
    load(Sources { environment, overrides, ..Sources::default() }).expect("starts")
}

#[test]
fn defaults_give_way_to_what_is_said() {
    let start = |overrides: &[(&str, &str)]| without_file(overrides, &[]).config.broker;
    assert_eq!(start(&[("broker.id", "0")]).node_id, 0);
    assert_eq!(without_file(&[], &[("KAFKA_BROKER_ID", "0")]).config.broker.node_id, 0);
    assert_eq!(start(&[("broker.id", "-1")]).node_id, 1);
    assert_eq!(start(&[("log.dir", "/a")]).log_dirs, [PathBuf::from("/a")]);
    assert_eq!(without_file(&[("port", "9095")], &[]).config.broker.listeners[0].port, 9095);
    let local = start(&[("advertised.listeners", "PLAINTEXT://localhost:9092")]);
    assert_eq!(local.listeners[0].host, "127.0.0.1");
    let public = start(&[("advertised.listeners", "PLAINTEXT://kafka.example.com:9092")]);
    assert_eq!((public.listeners[0].host.as_str(), public.listeners[0].port), ("", 9092));
    let loaded = without_file(&[("listeners", "PLAINTEXT://localhost:9644")], &[]);
    assert_eq!(loaded.config.broker.http_listener, None);
    assert!(loaded.warnings[0].starts_with("metrics are off"), "{:?}", loaded.warnings);
}

#[test]
fn defaults_give_way_to_the_quorum() {
    let start = |overrides: &[(&str, &str)]| without_file(overrides, &[]).config.broker;
    const VOTERS: (&str, &str) = ("controller.quorum.voters", "3@localhost:9093,4@b:9093,5@c:9093");
    let single = start(&[("controller.quorum.voters", "3@localhost:9093")]);
    assert_eq!((single.node_id, single.group.offsets_topic_replication_factor), (3, 1));
    let voter = start(&[VOTERS, ("node.id", "3")]);
    assert_eq!((voter.cluster.is_broker, voter.cluster.is_controller), (true, true));
    assert_eq!(voter.controller_listeners[0].host, "localhost");
    assert_eq!(voter.controller_listeners[0].port, 9093);
    assert_eq!(voter.group.offsets_topic_replication_factor, 3);
    assert_eq!(start(&[VOTERS, ("broker.id", "4")]).controller_listeners[0].host, "");
    let observer = start(&[VOTERS, ("node.id", "7")]);
    assert_eq!((observer.cluster.is_broker, observer.cluster.is_controller), (true, false));
    let controller = start(&[VOTERS, ("node.id", "3"), ("process.roles", "controller")]);
    assert_eq!((controller.listeners.len(), controller.controller_listeners.len()), (0, 1));
    assert!(!start(&[("process.roles", "controller")]).controller_listeners.is_empty());
    let overrides = properties(&[VOTERS]).into_iter().collect();
    let refused = load(Sources { overrides, ..Sources::default() }).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "Missing required configuration \"node.id\" which has no default value."
    );
}

#[test]
fn errors_name_the_file_and_line_the_variable_or_the_argument() {
    let refusal = |file: &str, environment: &[(&str, &str)], overrides: &[(&str, &str)]| {
        let sources = Sources {
            file: Some(("a/server.properties".to_owned(), file.into())),
            environment: properties(environment).into_iter().collect(),
            overrides: properties(overrides).into_iter().collect(),
            ..Sources::default()
        };
        load(sources).expect_err("refused").to_string()
    };
    let invalid = "Invalid value abc for configuration num.partitions: Not a number of type INT";
    assert_eq!(
        refusal("# one\nlog.dirs=\\\n  /a\nnum.partitions=abc\n", &[], &[]),
        format!("{invalid} (a/server.properties, line 4 sets num.partitions)")
    );
    assert_eq!(
        refusal("num.partitions=1", &[("KAFKA_NUM_PARTITIONS", "abc")], &[]),
        format!("{invalid} (environment variable KAFKA_NUM_PARTITIONS sets num.partitions)")
    );
    assert_eq!(
        refusal("", &[], &[("num.partitions", "abc")]),
        format!("{invalid} (--override sets num.partitions)")
    );
    assert_eq!(
        refusal("a=1\nb=\\u12\n", &[], &[]),
        "a/server.properties, line 2: Malformed \\uxxxx encoding."
    );
    let refused = refusal("node.id=1\n\nbroker.id=2\n", &[], &[]);
    assert!(
        refused.ends_with(
            "(a/server.properties, line 3 sets broker.id, a/server.properties, line 1 sets node.id)"
        ),
        "{refused}"
    );
}

#[test]
fn misspelled_keys_get_a_suggestion() {
    let hint = |name: &str| {
        let (_, warnings) =
            started(&[(name, "1"), ("offsets.topic.replication.factor", "1")]).expect("starts");
        warnings[0].split_once("; ").map(|(_, hint)| hint.to_owned())
    };
    assert_eq!(hint("log.retention.hour").as_deref(), Some("did you mean log.retention.hours?"));
    assert_eq!(hint("listner.port"), None);
    assert_eq!(
        hint("auto.create.topic.enabled").as_deref(),
        Some("did you mean auto.create.topics.enable?")
    );
    assert_eq!(hint("foo.bar"), None);
}
