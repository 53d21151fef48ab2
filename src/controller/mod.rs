//! The controller: decides what becomes of topics, configurations, features and brokers, as
//! metadata records. Decisions are pure functions of an image and a request; `runtime` is the one
//! task that takes requests in turn, proposes the records of several as one batch, and answers when
//! the batch is committed.
//!
//! Must not know the wire protocol (requests and answers are plain types), partitions' logs, or
//! what a broker does about a change.
//!
//! Invariants: only this module proposes records; a decision sees every decision before it; nothing
//! is answered before it is committed.

pub mod brokers;
pub mod configs;
pub mod elections;
pub mod error;
pub mod features;
pub mod names;
pub mod placement;
mod random;
mod rules;
mod runtime;
pub mod topics;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::{
    brokers::{DirsFailure, PRODUCER_ID_BLOCK, Registration},
    configs::{ConfigOp, ConfigResults, ConfigRules, ConfigValues},
    elections::{ElectionResults, ElectionType, Partitions},
    error::ControllerError,
    features::{FeatureUpdate, SUPPORTED, SupportedFeature, UpgradeType},
    random::Random,
    rules::TableRules,
    runtime::{Committed, Controller},
    topics::{CreatedTopic, NewPartitions, NewTopic, Results},
};
use crate::metadata::{Image, MetadataRecord};

/// What the controller is configured with.
#[derive(Clone)]
pub struct Settings {
    pub node_id: i32,
    /// `num.partitions`
    pub num_partitions: i32,
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// `min.insync.replicas`; a new cluster takes it as its dynamic default.
    pub min_insync_replicas: i32,
    pub rules: Arc<dyn ConfigRules>,
}

/// All that a decision sees.
pub struct Context<'a> {
    /// Committed, and decided before in the same batch; its offset is that of the record before the
    /// next one.
    pub image: &'a Image,
    pub settings: &'a Settings,
    pub random: &'a mut Random,
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
