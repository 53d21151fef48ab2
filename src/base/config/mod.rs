//! Configuration: one typed table of Kafka's keys, and the typed views made from it.
//!
//! Owns the names, types, defaults, limits and synonyms of every key, the syntax of properties
//! files, the precedence of sources, and the content of DescribeConfigs responses. It does not
//! depend on files, sockets, the clock or the protocol: the caller passes bytes and environment as
//! arguments.
//!
//! Invariants:
//! - A [`Config`] holds only values that the table allows.
//! - A [`Config`] never changes: a dynamic change (KIP-226) makes another one.
//! - A [`Config`] is passed to its users and never global.

mod broker;
mod cluster;
mod defaults;
pub mod describe;
mod dynamic;
mod effects;
mod groups;
pub mod key;
pub mod keys;
mod listeners;
mod load;
pub mod parse;
mod providers;
#[cfg(test)]
mod tests;
mod topic;
mod values;

use std::{collections::BTreeMap, sync::Arc};

pub use broker::{BrokerConfig, CleanerSettings, HttpListener, PerIpLimits, TransactionSettings};
pub use cluster::{ClusterConfig, QuorumVoter};
pub use dynamic::{validate_client_metrics_configs, validate_topic_configs};
pub use effects::ignored_configs;
pub use groups::{
    ConsumerAssignor, ConsumerGroupSettings, GroupSettings, Limited, MigrationPolicy, group_config,
    validate_group_configs,
};
pub use key::Key;
pub use listeners::{Listener, SecurityProtocol};
pub use load::{LoadError, Loaded, Sources, load};
pub use parse::host_and_port;
pub use providers::FileAccess;
pub use topic::{CleanupPolicy, CompressionType, TimestampType, TopicConfig};
pub use values::Values;

/// Names and values as they are written in a source, not parsed.
pub type Properties = BTreeMap<String, String>;

/// Why a configuration is refused, with Kafka's message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    pub kind: ConfigErrorKind,
    pub message: String,
}

/// The exception with which Kafka refuses the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigErrorKind {
    /// `ConfigException` and `InvalidConfigurationException`: INVALID_CONFIG on the wire.
    InvalidConfig,
    /// `InvalidRequestException`: INVALID_REQUEST on the wire.
    InvalidRequest,
    /// `IllegalArgumentException` of a rule about several keys. It stops a start, and is
    /// INVALID_REQUEST in the response to a dynamic change.
    Requirement,
}

impl ConfigError {
    pub fn config(message: impl Into<String>) -> Self {
        Self { kind: ConfigErrorKind::InvalidConfig, message: message.into() }
    }

    pub fn requirement(message: impl Into<String>) -> Self {
        Self { kind: ConfigErrorKind::Requirement, message: message.into() }
    }

    pub fn request(message: impl Into<String>) -> Self {
        Self { kind: ConfigErrorKind::InvalidRequest, message: message.into() }
    }
}

/// A broker's whole configuration: the values of its start, the dynamic changes since then, and the
/// typed view of both.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pairs from file, environment and command line.
    statics: Arc<Properties>,
    /// Dynamic configs of all brokers. Those of this broker, in `per_broker`, take precedence.
    cluster_default: Arc<Properties>,
    per_broker: Arc<Properties>,
    values: Arc<Values>,
    pub broker: Arc<BrokerConfig>,
}

impl Config {
    /// Builds the configuration from the pairs of a start, which [`load`] collects. Fails at the
    /// first value that is not allowed.
    pub fn new(statics: Properties, host_name: &str) -> Result<Self, ConfigError> {
        let nothing = Arc::new(Properties::new());
        Self::build([nothing.clone(), nothing, Arc::new(statics)], host_name, |_| ())
    }

    /// Builds the configuration of the dynamic configs of this broker, those of all brokers, and
    /// the pairs of the start. `adjust` may change the values before they are checked.
    fn build(
        [per_broker, cluster_default, statics]: [Arc<Properties>; 3],
        host_name: &str,
        adjust: impl FnOnce(&mut Values),
    ) -> Result<Self, ConfigError> {
        let mut values = Values::resolve(&[&per_broker, &cluster_default, &statics])?;
        adjust(&mut values);
        let broker = BrokerConfig::from_values(&values, &statics, host_name)?;
        Ok(Self {
            statics,
            cluster_default,
            per_broker,
            values: Arc::new(values),
            broker: Arc::new(broker),
        })
    }

    /// The configuration with these dynamic configs (KIP-226) in place of the earlier ones: those
    /// of all brokers (resource name "") and those of this broker, which take precedence.
    pub fn with_dynamic(
        &self,
        cluster_default: &Properties,
        per_broker: &Properties,
    ) -> Result<Self, ConfigError> {
        let layers = self.layers(cluster_default, per_broker);
        Self::build(layers, &self.broker.host_name, |_| ())
    }

    /// As [`Self::with_dynamic`], for configs that metadata has. They were valid when they were
    /// set, but a limit in a broker's file may have changed since. A value beyond such a limit is
    /// replaced by the limit (`GroupCoordinatorConfig.clampDynamicConfigs` of Kafka). Returns the
    /// keys of these values, too.
    pub fn with_stored(
        &self,
        cluster_default: &Properties,
        per_broker: &Properties,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let layers = self.layers(cluster_default, per_broker);
        let mut clamped = Vec::new();
        let clamp = |values: &mut Values| clamped = groups::clamp_dynamic(values);
        let config = Self::build(layers, &self.broker.host_name, clamp)?;
        Ok((config, clamped))
    }

    /// The sources of values, in the order of precedence.
    fn layers(
        &self,
        cluster_default: &Properties,
        per_broker: &Properties,
    ) -> [Arc<Properties>; 3] {
        [Arc::new(per_broker.clone()), Arc::new(cluster_default.clone()), self.statics.clone()]
    }

    /// The values in force, by name.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The pairs of the start, including unknown names.
    pub fn statics(&self) -> &Properties {
        &self.statics
    }

    pub fn cluster_default(&self) -> &Properties {
        &self.cluster_default
    }

    pub fn per_broker(&self) -> &Properties {
        &self.per_broker
    }
}
