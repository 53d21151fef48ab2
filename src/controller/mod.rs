//! The controller: it decides changes of topics, configurations, features and brokers, and
//! expresses them as metadata records. A decision is a pure function of an image, the volatile
//! state, the time and a request. One task (`task`) takes the requests in order, proposes the
//! records of several decisions as one batch, and answers once the batch is committed. `runtime` is
//! the handle to that task.
//!
//! It knows neither the wire protocol (requests and responses are plain types), nor the logs of
//! partitions, nor what a broker does when it applies a change.
//!
//! Invariants:
//! - Only this module proposes metadata records.
//! - A decision sees the effect of every decision before it.
//! - No request is answered before its records are committed.

pub mod alter_partition;
mod config_rules;
pub mod configs;
pub mod directories;
pub mod elections;
pub mod error;
mod events;
pub mod features;
pub mod heartbeat;
mod leadership;
mod liveness;
mod partition_change;
pub mod placement;
pub mod producer_ids;
mod random;
pub mod reassignment;
pub mod registration;
mod runtime;
mod task;
pub mod timers;
pub mod topic_names;
pub mod topics;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::{
    alter_partition::{AlterPartition, AlteredPartitions},
    config_rules::{TableRules, find_config},
    configs::{ConfigOp, ConfigResults, ConfigRules, ConfigValues},
    directories::{Assigned, Assignments},
    elections::{ElectionResults, ElectionType, Partitions},
    error::ControllerError,
    features::{
        FeatureUpdate, KRAFT_VERSION, METADATA_VERSION, SUPPORTED, SupportedFeature, UpgradeType,
    },
    heartbeat::{Heartbeat, HeartbeatReply},
    liveness::VolatileState,
    partition_change::{UNASSIGNED_DIR, has_online_dir, is_nowhere},
    producer_ids::PRODUCER_ID_BLOCK,
    random::Random,
    reassignment::{Reassigned, Reassignment},
    registration::{Registration, own_features},
    runtime::{Committed, Controller},
    topics::{CreatedTopic, NewPartitions, NewTopic, Results},
};
use crate::metadata::{ConfigResource, Image, MetadataRecord, TopicImage};

/// The controller's part of the node's configuration. `Settings::new` (in `rules`) reads it.
#[derive(Clone)]
pub struct Settings {
    pub node_id: i32,
    /// Whether this node is also a broker.
    pub is_broker: bool,
    /// `num.partitions`
    pub num_partitions: i32,
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// `min.insync.replicas`. A new cluster gets it as its cluster-wide default.
    pub min_insync_replicas: i32,
    /// `unclean.leader.election.enable`
    pub unclean_leader_election: bool,
    /// `broker.session.timeout.ms`
    pub broker_session_timeout_ms: i64,
    /// `broker.heartbeat.interval.ms`
    pub broker_heartbeat_interval_ms: i64,
    /// `leader.imbalance.check.interval.seconds`; `None` without `auto.leader.rebalance.enable`.
    pub balance_interval_ms: Option<i64>,
    /// `unclean.leader.election.interval.ms`
    pub unclean_interval_ms: i64,
    pub rules: Arc<dyn ConfigRules>,
}

/// Everything that a decision may read or change.
pub struct Context<'a> {
    /// The committed metadata plus the earlier decisions of the same batch. Its offset is that of
    /// the last record in it, so the next record gets `offset + 1`.
    pub image: &'a Image,
    pub settings: &'a Settings,
    /// State that is not in the metadata log, for example when each broker sent its last heartbeat.
    /// A decision changes it at once, before its records are committed. If the commit fails, the
    /// task replaces the volatile state.
    pub volatile: &'a mut VolatileState,
    pub random: &'a mut Random,
    /// Milliseconds of a clock that never goes back.
    pub now_ms: i64,
}

impl Context<'_> {
    /// Whether eligible leader replicas (KIP-966) are in use.
    fn elr_enabled(&self) -> bool {
        self.image.feature(features::ELR) > 0
    }

    /// The value of a config key set for the topic, else for this node, else for all brokers.
    /// `None` if it is set in none of these.
    fn topic_config(&self, topic: &str, key: &str) -> Option<&str> {
        let here = ConfigResource::broker(self.settings.node_id);
        let layers = [ConfigResource::topic(topic), here, ConfigResource::default_broker()];
        let mut found = layers.iter().filter_map(|layer| self.image.config(layer).get(key));
        found.next().map(String::as_str)
    }

    /// `min.insync.replicas` of the topic, but at most the number of its replicas.
    fn min_isr(&self, topic: &TopicImage) -> usize {
        let set = self.topic_config(&topic.name, "min.insync.replicas");
        let min = set.and_then(|text| text.trim().parse().ok());
        let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
        usize::try_from(min.unwrap_or(self.settings.min_insync_replicas)).unwrap_or(0).min(replicas)
    }

    fn allows_unclean_election(&self, topic: &str) -> bool {
        match self.topic_config(topic, "unclean.leader.election.enable") {
            Some(text) => text.trim().eq_ignore_ascii_case("true"),
            None => self.settings.unclean_leader_election,
        }
    }
}

/// The records to propose, and the response to send once they are committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<T> {
    pub records: Vec<MetadataRecord>,
    pub response: T,
}

impl<T> Decision<T> {
    /// Drops the records and keeps the response, for a request with `validate_only`.
    pub fn validated(self) -> Self {
        Self { records: Vec::new(), ..self }
    }
}
