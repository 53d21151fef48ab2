//! The effects in the key table are true: used keys have a reader and all others have none, keys
//! that ask for missing protection stop the start, and keys without effect cause a warning.

use std::{fs, path::Path};

use super::{config, properties, started};
use crate::base::config::{
    ignored_configs,
    key::{Effect, Key, Type, Valid},
    keys::{self, topic::SYNONYMS},
    parse,
};

/// Keys whose field has another name than the key.
const FIELDS: &[(&str, &str)] = &[
    ("internal.segment.bytes", "segment_bytes"),
    ("log.dir", "log_dirs"),
    ("socket.listen.backlog.size", "socket_listen_backlog"),
    ("broker.id", "node_id"),
    ("process.roles", "is_controller"),
    ("inter.broker.listener.name", "inter_broker_listener"),
    ("logging.format", "logging_json"),
    ("max.connections.per.ip.overrides", "max_connections_per_ip"),
    ("offsets.retention.minutes", "offsets_retention_ms"),
    ("group.min.session.timeout.ms", "min_session_timeout_ms"),
    ("group.max.session.timeout.ms", "max_session_timeout_ms"),
    ("group.initial.rebalance.delay.ms", "initial_rebalance_delay_ms"),
    ("group.max.size", "max_size"),
    ("group.coordinator.rebalance.protocols", "has_consumer_protocol"),
];

/// Keys that only the configuration code reads.
const WITHIN: &[&str] = &[
    "config.providers",
    "controller.listener.names",
    "listener.security.protocol.map",
    "group.consumer.min.session.timeout.ms",
    "group.consumer.max.session.timeout.ms",
    "group.consumer.min.heartbeat.interval.ms",
    "group.consumer.max.heartbeat.interval.ms",
    "group.consumer.min.assignment.interval.ms",
    "group.consumer.max.assignment.interval.ms",
];

fn all_keys() -> impl Iterator<Item = &'static Key> {
    let broker = keys::BROKER_THEMES.iter().flat_map(|(_, keys)| keys.iter());
    broker.chain(keys::topic::TOPIC).chain(keys::group::GROUP)
}

#[test]
fn used_keys_and_only_those_have_a_reader() {
    let mut code = String::new();
    read_code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
    let is_used = |key: &Key| matches!(key.effect, Effect::Used | Effect::UsedOnly(_));
    let outside = || all_keys().filter(|key| !WITHIN.contains(&key.name));
    let unread: Vec<_> =
        outside().filter(|key| is_used(key) && !is_read(key, &code)).map(|key| key.name).collect();
    assert!(unread.is_empty(), "used, says the table, but nothing reads {unread:?}");
    let read: Vec<_> =
        outside().filter(|key| !is_used(key) && is_read(key, &code)).map(|key| key.name).collect();
    assert!(read.is_empty(), "without effect, says the table, but the code reads {read:?}");
    for name in WITHIN {
        let quoted = format!("\"{name}\"");
        assert!(!has_word(&code, &quoted), "{name} is read elsewhere by now");
    }
}

/// Each key that can ask for missing protection, with such a value. The table must agree.
const PROTECTION: &[(&str, &str)] = &[
    ("alter.config.policy.class.name", "com.example.Policy"),
    ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
    ("client.quota.callback.class", "com.example.Quotas"),
    ("connections.max.reauth.ms", "60000"),
    ("create.topic.policy.class.name", "com.example.Policy"),
    ("max.connection.creation.rate", "100"),
    ("principal.builder.class", "com.example.Principals"),
    ("queued.max.request.bytes", "1000000000"),
    ("remote.log.storage.system.enable", "true"),
    ("sasl.enabled.mechanisms", "SCRAM-SHA-512"),
    ("sasl.jaas.config", "secret"),
    ("sasl.kerberos.principal.to.local.rules", "RULE:[1:$1]"),
    ("sasl.mechanism.controller.protocol", "PLAIN"),
    ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
    ("sasl.oauthbearer.expected.audience", "us"),
    ("sasl.oauthbearer.expected.issuer", "me"),
    ("sasl.oauthbearer.jwt.validator.class", "com.example.Validator"),
    ("sasl.server.callback.handler.class", "com.example.Handler"),
    ("security.inter.broker.protocol", "SSL"),
    ("ssl.client.auth", "required"),
    ("ssl.client.auth", "requested"),
    ("ssl.principal.mapping.rules", "RULE:^CN=(.*)$/$1/"),
];

#[test]
fn keys_that_ask_for_missing_protection_stop_the_start() {
    for (name, value) in PROTECTION {
        for name in [(*name).to_owned(), format!("listener.name.plaintext.{name}")] {
            let refusal = started(&[(&name, value)]).expect_err(&name);
            let shown = if name.ends_with("jaas.config") { "[hidden]" } else { value };
            let start = format!("{name}={shown} asks for protection that Sordini does not have");
            assert!(refusal.starts_with(&start), "{refusal}");
            assert!(refusal.ends_with(&format!("Remove {name} to go without it")), "{refusal}");
        }
    }
    for key in all_keys() {
        let protects = matches!(key.effect, Effect::Protects(_) | Effect::ProtectsAbove(..));
        let is_listed = PROTECTION.iter().any(|(name, _)| *name == key.name);
        assert_eq!(protects, is_listed, "{}", key.name);
        if protects {
            let default = key.default_text().unwrap_or_default();
            let (_, warnings) = started(&[(key.name, default)]).expect(key.name);
            assert!(!warnings.iter().any(|it| it.contains(key.name)), "{warnings:?}");
        }
    }
}

#[test]
fn dynamic_configs_cannot_ask_for_missing_protection() {
    let config = config(&[]);
    let asked = properties(&[("listener.name.plaintext.ssl.client.auth", "required")]);
    let refusal = config.validate_broker_configs(&asked, true).expect_err("refused");
    assert!(refusal.message.contains("asks for protection"), "{}", refusal.message);
    let asked = properties(&[("listener.name.plaintext.ssl.client.auth", "none")]);
    assert_eq!(config.validate_broker_configs(&asked, true), Ok(()));
}

/// Values to try. At least one of them is allowed for any key.
fn candidates(key: &Key) -> Vec<String> {
    let near = key.default_text().and_then(|text| text.parse::<i64>().ok());
    let near = near.into_iter().flat_map(|n| [n.saturating_add(1), n.saturating_sub(1)]);
    let of_type: &[&str] = match (key.kind, key.valid) {
        (Type::Boolean, _) => &["true", "false"],
        (_, Valid::OneOf(all) | Valid::OneOfIgnoringCase(all)) => all,
        (_, Valid::ListOf(all) | Valid::ListNotEmptyOf(all)) => all,
        (Type::Double, _) => &["0.25"],
        (Type::Short | Type::Int | Type::Long, _) => &["1", "10000000"],
        (_, Valid::AutoOffsetReset) => &["earliest"],
        _ => &["org.example.Other"],
    };
    of_type.iter().map(|text| (*text).to_owned()).chain(near.map(|n| n.to_string())).collect()
}

#[test]
fn the_start_warns_of_every_key_that_is_set_without_effect() {
    for (_, keys) in keys::BROKER_THEMES {
        for key in keys.iter().filter(|key| key.effect == Effect::Ignored) {
            let warns = |text: &str| {
                let (_, warnings) = started(&[(key.name, text)]).ok()?;
                let ignored = format!("keys are set that have no effect yet: {}", key.name);
                Some(warnings.contains(&ignored))
            };
            if let Some(default) = key.default_text() {
                assert_eq!(warns(default), Some(false), "{}", key.name);
            }
            let warned = candidates(key).iter().any(|text| warns(text) == Some(true));
            assert!(warned, "no warning of {}", key.name);
        }
    }
}

#[test]
fn values_without_effect_are_warned_of_together() {
    let (_, warnings) = started(&[
        ("log.preallocate", "true"),
        ("num.io.threads", "16"),
        ("num.network.threads", "3"),
        ("replica.selector.class", "com.example.Selector"),
        ("ssl.keystore.location", ""),
        ("offsets.topic.replication.factor", "1"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
    ])
    .expect("starts");
    let expected = "keys are set that have no effect yet: log.preallocate, num.io.threads, \
                    replica.selector.class";
    assert_eq!(warnings, [expected]);
}

#[test]
fn configs_of_topics_groups_and_subscriptions_without_effect_are_found() {
    let topic = [("cleanup.policy", "compact"), ("retention.ms", "1"), ("preallocate", "true")];
    let ignored = ignored_configs(topic, |name| keys::topic().get(name).copied());
    assert_eq!(ignored, ["preallocate"]);
    let topic = [("preallocate", "false"), ("cleanup.policy", "")];
    let ignored = ignored_configs(topic, |name| keys::topic().get(name).copied());
    assert_eq!(ignored, [""; 0]);
    for key in keys::topic::TOPIC.iter().chain(keys::group::GROUP) {
        let values = candidates(key).into_iter();
        let fit: Vec<_> = values.filter(|text| parse::value(key, key.name, text).is_ok()).collect();
        let set = fit.iter().map(|text| (key.name, text.as_str()));
        let ignored = ignored_configs(set, |_| Some(key));
        let is_used = key.effect == Effect::Used;
        assert_eq!(ignored.is_empty(), is_used, "{}", key.name);
    }
}

fn is_read(key: &Key, code: &str) -> bool {
    let of_topic = SYNONYMS.iter().filter(|(_, all)| all.iter().any(|(name, _)| *name == key.name));
    let names = of_topic.map(|(name, _)| *name).chain([key.name]);
    names.into_iter().any(|name| {
        let renamed = FIELDS.iter().find(|(of, _)| *of == name).map(|(_, field)| *field);
        let field = renamed.map_or_else(|| name.replace('.', "_"), str::to_owned);
        has_word(code, &format!(".{field}")) || has_word(code, &format!("\"{name}\""))
    })
}

fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| !code[at + word.len()..].starts_with(is_part))
}

/// Appends all code outside of the configuration, without tests.
fn read_code(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        let is_test = path.ends_with("tests") || path.ends_with("tests.rs");
        if is_test || path.ends_with("base/config") {
            continue;
        }
        if path.is_dir() {
            read_code(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let end = text.find("#[cfg(test)]").unwrap_or(text.len());
            code.push_str(&text[..end]);
        }
    }
}
