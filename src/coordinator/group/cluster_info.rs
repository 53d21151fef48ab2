//! [`ClusterInfo`]: the part of the cluster's metadata and of the configuration that shards use.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    config::{ConsumerGroupConfig, GroupConfig},
    consumer::messages::TopicsSnapshot,
};

/// Topics and group configs of the cluster, and the configuration of the coordinator. The
/// coordinator sends a new one to all shards after each change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterInfo {
    /// Rises with each change. A shard ignores an info that is older than the one that it has.
    pub version: u64,
    /// The configuration of this coordinator, with dynamic broker configs applied.
    pub config: Arc<GroupConfig>,
    /// `None` until the broker has applied the cluster's metadata.
    pub topics: Option<Arc<TopicsSnapshot>>,
    /// The configs of groups that have any.
    pub group_configs: Arc<BTreeMap<Arc<str>, ConsumerGroupConfig>>,
}
