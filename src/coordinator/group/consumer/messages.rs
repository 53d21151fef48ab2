//! Requests of consumer groups (KIP-848) and their replies, independent of protocol versions.

use std::sync::Arc;

use crate::{
    base::TopicId,
    coordinator::group::{assignor::Assignment, error::GroupError},
    metadata::ShardedMap,
};

/// Why a request is refused, with the text for the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub error: GroupError,
    pub message: String,
}

impl Refusal {
    pub fn new(error: GroupError, message: &str) -> Self {
        Self { error, message: message.to_owned() }
    }
}

/// A ConsumerGroupHeartbeat. The handler has checked its form (Kafka's
/// `GroupCoordinatorService.throwIfConsumerGroupHeartbeatRequestIsInvalid`).
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerHeartbeatRequest {
    pub group: Arc<str>,
    /// Never empty: the handler makes an id for a new member that has none (version 0).
    pub member_id: Arc<str>,
    /// 0 to join, -1 to leave, -2 to leave as a static member that comes back.
    pub member_epoch: i32,
    pub instance_id: Option<Arc<str>>,
    pub rack_id: Option<Arc<str>>,
    /// In milliseconds; -1 if it has not changed since the last heartbeat.
    pub rebalance_timeout_ms: i32,
    /// `None` if it has not changed.
    pub subscribed_topic_names: Option<Vec<Arc<str>>>,
    /// `None` if it has not changed, empty to clear it.
    pub subscribed_topic_regex: Option<Arc<str>>,
    /// `None` if it has not changed, or if the coordinator chooses.
    pub server_assignor: Option<Arc<str>>,
    /// The partitions that the member owns; `None` if they have not changed.
    pub owned_partitions: Option<Vec<(TopicId, Vec<i32>)>>,
    pub client_id: Arc<str>,
    /// The address as Kafka prints it: `/127.0.0.1`.
    pub client_host: Arc<str>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerHeartbeatReply {
    pub member_id: Arc<str>,
    pub member_epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// `None` if the member already knows it.
    pub assignment: Option<Assignment>,
}

/// A group in the response to ConsumerGroupDescribe.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerGroupDescription {
    pub group: Arc<str>,
    pub state: &'static str,
    pub group_epoch: i32,
    pub assignment_epoch: i32,
    pub assignor: Arc<str>,
    pub members: Vec<ConsumerMemberDescription>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerMemberDescription {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub rack_id: Option<Arc<str>>,
    pub member_epoch: i32,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub subscribed_topic_names: Vec<Arc<str>>,
    pub subscribed_topic_regex: Option<Arc<str>>,
    pub assignment: Assignment,
    pub target_assignment: Assignment,
    /// Whether the member uses the classic protocol.
    pub is_classic: bool,
}

/// What groups need to know of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    pub id: TopicId,
    pub partitions: i32,
    /// The hash of the topic's id, name, partitions and racks (KIP-1101).
    pub hash: i64,
}

/// All topics of the cluster, as of one version of the metadata. A new one shares the entries of
/// topics that did not change, and most of its maps. Iterators have no particular order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopicsSnapshot {
    /// By name.
    pub topics: ShardedMap<Arc<str>, Arc<TopicInfo>>,
    /// The names by id.
    pub names: ShardedMap<TopicId, Arc<str>>,
}
