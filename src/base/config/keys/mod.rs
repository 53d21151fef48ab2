//! The key table: all keys of Apache Kafka 4.3.1 and the few of Sordini, by theme. A row is `name
//! type default valid importance mode effect "what it means";`.

mod client_metrics;
mod general;
pub mod group;
mod groups;
mod log;
mod metadata;
mod metrics;
mod network;
mod own;
mod page;
mod remote;
mod replication;
mod security;
pub mod topic;
mod transactions;

use std::{collections::BTreeMap, sync::LazyLock};

pub use page::page;

use super::key::{Importance, Key, Mode, Type};

macro_rules! keys {
    ($group:ident: $($name:literal $kind:ident $default:tt $valid:tt
        $importance:ident $mode:ident $effect:tt $doc:literal;)*) => {
        pub static $group: &[Key] = &[$(Key {
            name: $name,
            kind: super::Type::$kind,
            default: $crate::base::config::keys::default!($default),
            valid: $crate::base::config::keys::valid!($valid),
            importance: super::Importance::$importance,
            mode: super::Mode::$mode,
            effect: $crate::base::config::keys::effect!($effect),
            is_hidden: $crate::base::config::keys::is_hidden!($effect),
            doc: $doc,
        }),*];
    };
}

macro_rules! default {
    (null) => {
        $crate::base::config::key::Default::Null
    };
    (required) => {
        $crate::base::config::key::Default::Required
    };
    ($text:literal) => {
        $crate::base::config::key::Default::Is($text)
    };
}

#[rustfmt::skip]
macro_rules! valid {
    (any) => { $crate::base::config::key::Valid::Any };
    (list) => { $crate::base::config::key::Valid::ListMayBeEmpty };
    (list_not_empty) => { $crate::base::config::key::Valid::ListNotEmpty };
    (non_empty) => { $crate::base::config::key::Valid::NonEmpty };
    (gzip_level) => { $crate::base::config::key::Valid::GzipLevel };
    (throttled_replicas) => { $crate::base::config::key::Valid::ThrottledReplicas };
    (auto_offset_reset) => { $crate::base::config::key::Valid::AutoOffsetReset };
    (voters) => { $crate::base::config::key::Valid::Voters };
    (bootstrap_servers) => { $crate::base::config::key::Valid::BootstrapServers };
    ((at_least $min:literal)) => { $crate::base::config::key::Valid::AtLeast($min) };
    ((between $min:literal $max:literal)) => {
        $crate::base::config::key::Valid::Between($min, $max)
    };
    ((between_decimals $min:literal $max:literal)) => {
        $crate::base::config::key::Valid::BetweenDecimals($min, $max)
    };
    ((one_of $($text:literal)*)) => { $crate::base::config::key::Valid::OneOf(&[$($text),*]) };
    ((one_of_ignoring_case $($text:literal)*)) => {
        $crate::base::config::key::Valid::OneOfIgnoringCase(&[$($text),*])
    };
    ((list_of $($text:literal)*)) => { $crate::base::config::key::Valid::ListOf(&[$($text),*]) };
    ((list_not_empty_of $($text:literal)*)) => {
        $crate::base::config::key::Valid::ListNotEmptyOf(&[$($text),*])
    };
}

#[rustfmt::skip]
macro_rules! effect {
    (Used) => { $crate::base::config::key::Effect::Used };
    (HiddenUsed) => { $crate::base::config::key::Effect::Used };
    (Ignored) => { $crate::base::config::key::Effect::Ignored };
    (HiddenIgnored) => { $crate::base::config::key::Effect::Ignored };
    ((used_only $($text:literal)*)) => { $crate::base::config::key::Effect::UsedOnly(&[$($text),*]) };
    ((protects $missing:literal)) => { $crate::base::config::key::Effect::Protects($missing) };
    ((protects_above $max:literal $missing:literal)) => {
        $crate::base::config::key::Effect::ProtectsAbove($max, $missing)
    };
}

#[rustfmt::skip]
macro_rules! is_hidden {
    (HiddenUsed) => { true };
    (HiddenIgnored) => { true };
    ($other:tt) => { false };
}

pub(crate) use {default, effect, is_hidden, keys, valid};

/// The broker's keys by theme, as the documentation lists them.
pub static BROKER_THEMES: &[(&str, &[Key])] = &[
    ("General", general::GENERAL),
    ("Network", network::NETWORK),
    ("Logs", log::LOG),
    ("Replication and quotas", replication::REPLICATION),
    ("Groups", groups::GROUPS),
    ("Transactions and share state", transactions::TRANSACTIONS),
    ("Metadata", metadata::METADATA),
    ("Metrics", metrics::METRICS),
    ("Tiered storage", remote::REMOTE),
    ("Security", security::SECURITY),
    ("Sordini's own", own::OWN),
];

/// Keys that exist only as dynamic configs. A properties file cannot set them.
pub static DYNAMIC_ONLY: &[&str] = &[
    "leader.replication.throttled.rate",
    "follower.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// Keys by name.
pub type Table = BTreeMap<&'static str, &'static Key>;

static BROKER: LazyLock<Table> = LazyLock::new(|| {
    BROKER_THEMES.iter().flat_map(|(_, keys)| keys.iter()).map(|key| (key.name, key)).collect()
});
static TOPIC: LazyLock<Table> = LazyLock::new(|| by_name(topic::TOPIC));
static GROUP: LazyLock<Table> = LazyLock::new(|| by_name(group::GROUP));
static CLIENT_METRICS: LazyLock<Table> = LazyLock::new(|| by_name(client_metrics::CLIENT_METRICS));

fn by_name(keys: &'static [Key]) -> Table {
    keys.iter().map(|key| (key.name, key)).collect()
}

pub fn broker() -> &'static Table {
    &BROKER
}

pub fn topic() -> &'static Table {
    &TOPIC
}

pub fn group() -> &'static Table {
    &GROUP
}

pub fn client_metrics() -> &'static Table {
    &CLIENT_METRICS
}

/// The names that set the same value as `name`, in the order of precedence
/// (`DynamicBrokerConfig.brokerConfigSynonyms` of Kafka).
pub fn broker_synonyms(name: &str) -> Vec<&str> {
    const ROLL: &[&str] = &["log.roll.ms", "log.roll.hours"];
    const JITTER: &[&str] = &["log.roll.jitter.ms", "log.roll.jitter.hours"];
    const FLUSH: &[&str] = &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"];
    const RETENTION: &[&str] =
        &["log.retention.ms", "log.retention.minutes", "log.retention.hours"];
    match name {
        _ if ROLL.contains(&name) => ROLL.to_vec(),
        _ if JITTER.contains(&name) => JITTER.to_vec(),
        _ if RETENTION.contains(&name) => RETENTION.to_vec(),
        "log.flush.interval.ms" => FLUSH.to_vec(),
        _ => match listener_base_name(name) {
            Some(base) => vec![name, without_mechanism(base)],
            None => vec![name],
        },
    }
}

/// The name without the prefix `listener.name.<listener>.`, or `None` if it has no such prefix.
pub fn listener_base_name(name: &str) -> Option<&str> {
    name.strip_prefix("listener.name.")?.split_once('.').map(|(_, base)| base)
}

/// The name without the SASL mechanism, which precedes some SASL settings of a listener.
fn without_mechanism(base: &str) -> &str {
    const PER_MECHANISM: &[&str] = &[
        "sasl.jaas.config",
        "sasl.login.callback.handler.class",
        "sasl.login.class",
        "sasl.server.callback.handler.class",
        "connections.max.reauth.ms",
    ];
    PER_MECHANISM.iter().find(|name| base.ends_with(**name)).unwrap_or(&base)
}

/// The row of a broker's key. The name may have a listener's prefix.
pub fn find_broker(name: &str) -> Option<&'static Key> {
    let base = listener_base_name(name).map(without_mechanism);
    broker().get(name).or_else(|| broker().get(base?)).copied()
}

/// The row of a broker's key that a file may set.
pub fn find_static(name: &str) -> Option<&'static Key> {
    find_broker(name).filter(|key| !DYNAMIC_ONLY.contains(&key.name))
}
