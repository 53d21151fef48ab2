//! The rules for configuration changes, from the table of configuration keys; and the controller's
//! settings.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{ConfigRules, ControllerError, Settings};
use crate::{
    base::config::{
        Config, ConfigError, Key, key::Type, keys, validate_client_metrics_configs,
        validate_group_configs, validate_topic_configs,
    },
    metadata::{self, ConfigResource, ConfigResourceType},
};

/// `ConfigRules` from the table of keys. Values are checked together with the configuration that is
/// in force.
pub struct TableRules(pub Arc<ArcSwap<Config>>);

impl From<ConfigError> for ControllerError {
    fn from(error: ConfigError) -> Self {
        use crate::base::config::ConfigErrorKind as Kind;
        match error.kind {
            Kind::InvalidConfig => Self::InvalidConfig(error.message),
            Kind::InvalidRequest | Kind::Requirement => Self::InvalidRequest(error.message),
        }
    }
}

impl ConfigRules for TableRules {
    fn validate(
        &self,
        resource: &ConfigResource,
        new: &metadata::Config,
        _: &metadata::Config,
    ) -> Result<(), ControllerError> {
        let config = self.0.load();
        match resource.kind {
            ConfigResourceType::Topic => validate_topic_configs(&config, new)?,
            ConfigResourceType::Group => validate_group_configs(&config, new)?,
            ConfigResourceType::ClientMetrics => validate_client_metrics_configs(new)?,
            ConfigResourceType::Broker => {
                config.validate_broker_configs(new, !resource.name.is_empty())?;
            }
            ConfigResourceType::BrokerLogger => {}
        }
        Ok(())
    }

    fn is_list(&self, kind: ConfigResourceType, key: &str) -> bool {
        // As in Kafka, only topic and broker configs can be lists here.
        matches!(kind, ConfigResourceType::Topic | ConfigResourceType::Broker)
            && find_config(kind, key).is_some_and(|key| key.kind == Type::List)
    }

    fn default_value(&self, kind: ConfigResourceType, key: &str) -> Option<String> {
        find_config(kind, key)?.default_text().map(str::to_owned)
    }
}

/// The table row of a config key; `None` if the resource has no such key.
pub fn find_config(kind: ConfigResourceType, key: &str) -> Option<&'static Key> {
    match kind {
        ConfigResourceType::Topic => keys::topic().get(key).copied(),
        ConfigResourceType::Broker => keys::find_broker(key),
        ConfigResourceType::Group => keys::group().get(key).copied(),
        ConfigResourceType::ClientMetrics => keys::client_metrics().get(key).copied(),
        ConfigResourceType::BrokerLogger => None,
    }
}

impl Settings {
    /// Reads the controller's settings from the node's configuration.
    pub fn new(config: &Arc<ArcSwap<Config>>) -> Self {
        let loaded = config.load();
        let (broker, values) = (&loaded.broker, loaded.values());
        let balances = values.bool("auto.leader.rebalance.enable");
        let balance_s = values.i64("leader.imbalance.check.interval.seconds");
        Self {
            node_id: broker.node_id,
            is_broker: broker.cluster.is_broker,
            num_partitions: broker.num_partitions,
            default_replication_factor: broker.default_replication_factor as i16,
            min_insync_replicas: broker.min_insync_replicas,
            unclean_leader_election: values.bool("unclean.leader.election.enable"),
            broker_session_timeout_ms: values.i64("broker.session.timeout.ms"),
            broker_heartbeat_interval_ms: values.i64("broker.heartbeat.interval.ms"),
            balance_interval_ms: balances.then(|| balance_s.saturating_mul(1_000)),
            unclean_interval_ms: values.i64("unclean.leader.election.interval.ms"),
            rules: Arc::new(TableRules(config.clone())),
        }
    }
}
