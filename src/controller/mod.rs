//! The controller: decides what becomes of topics, configurations, features and brokers, as
//! metadata records. Decisions are pure functions of an image, soft state, a time and a request;
//! `task` is the one task that takes requests in turn, proposes the records of several as one
//! batch, and answers when the batch is committed. `runtime` is the handle to it.
//!
//! Must not know the wire protocol (requests and answers are plain types), partitions' logs, or
//! what a broker does about a change.
//!
//! Invariants: only this module proposes records; a decision sees every decision before it; nothing
//! is answered before it is committed.

pub mod alter_partition;
pub mod configs;
pub mod directories;
pub mod elections;
pub mod error;
mod events;
pub mod features;
pub mod heartbeat;
mod leadership;
mod liveness;
pub mod names;
mod partition_change;
pub mod placement;
pub mod producer_ids;
mod random;
pub mod reassignment;
pub mod registration;
mod rules;
mod runtime;
mod task;
pub mod timers;
pub mod topics;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::{
    alter_partition::{AlterPartition, AlteredPartitions},
    configs::{ConfigOp, ConfigResults, ConfigRules, ConfigValues},
    directories::{Assigned, Assignments},
    elections::{ElectionResults, ElectionType, Partitions},
    error::ControllerError,
    features::{
        FeatureUpdate, KRAFT_VERSION, METADATA_VERSION, SUPPORTED, SupportedFeature, UpgradeType,
    },
    heartbeat::{Heartbeat, HeartbeatReply},
    liveness::SoftState,
    partition_change::{UNASSIGNED_DIR, has_online_dir, is_nowhere},
    producer_ids::PRODUCER_ID_BLOCK,
    random::Random,
    reassignment::{Reassigned, Reassignment},
    registration::{Registration, own_features},
    rules::{TableRules, find_config},
    runtime::{Committed, Controller},
    topics::{CreatedTopic, NewPartitions, NewTopic, Results},
};
use crate::metadata::{ConfigResource, Image, MetadataRecord, TopicImage};

/// What the controller is configured with.
#[derive(Clone)]
pub struct Settings {
    pub node_id: i32,
    /// Whether this process is a broker too.
    pub is_broker: bool,
    /// `num.partitions`
    pub num_partitions: i32,
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// `min.insync.replicas`; a new cluster takes it as its dynamic default.
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

/// All that a decision sees.
pub struct Context<'a> {
    /// Committed, and decided before in the same batch; its offset is that of the record before the
    /// next one.
    pub image: &'a Image,
    pub settings: &'a Settings,
    /// What is known besides; a decision may change it before its records are committed.
    pub soft: &'a mut SoftState,
    pub random: &'a mut Random,
    /// Of a clock that only moves forward.
    pub now_ms: i64,
}

impl Context<'_> {
    /// Whether eligible leader replicas (KIP-966) are in use.
    fn elr_enabled(&self) -> bool {
        self.image.feature(features::ELR) > 0
    }

    /// What is set for a topic, or for this node, or for all brokers.
    fn topic_config(&self, topic: &str, key: &str) -> Option<&str> {
        let here = ConfigResource::broker(self.settings.node_id);
        let layers = [ConfigResource::topic(topic), here, ConfigResource::default_broker()];
        let mut found = layers.iter().filter_map(|layer| self.image.config(layer).get(key));
        found.next().map(String::as_str)
    }

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

/// Records to propose, and the answer for when they are committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<T> {
    pub records: Vec<MetadataRecord>,
    pub response: T,
}

impl<T> Decision<T> {
    /// The answer alone, for a request that only wants to be checked.
    pub fn validated(self) -> Self {
        Self { records: Vec::new(), ..self }
    }
}
