//! Requests to the group coordinator and its replies, independent of protocol versions.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

pub use super::error::GroupError;
use super::{
    cluster_info::ClusterInfo,
    consumer::{
        messages::{
            ConsumerGroupDescription, ConsumerHeartbeatReply, ConsumerHeartbeatRequest, Refusal,
        },
        resolution::RegexesResolved,
    },
};
use crate::{
    base::{TopicId, TopicPartition},
    records::{Producer, TransactionVersion, TxnMarker, Verification},
};

/// A request to a shard. Each is identified by a token until its reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Join(JoinRequest),
    Sync(SyncRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveRequest),
    CommitOffsets(CommitRequest),
    FetchOffsets(FetchRequest),
    DeleteOffsets(DeleteOffsetsRequest),
    DeleteGroups(Vec<Arc<str>>),
    Describe(Vec<Arc<str>>),
    List(ListRequest),
    /// Deletes the offsets of deleted partitions.
    ForgetPartitions(Vec<TopicPartition>),
    /// Writes the marker that ends a producer's transaction (WriteTxnMarkers).
    EndTransaction(TxnMarker),
    /// Returns all groups with their committed offsets, for metrics.
    Survey,
    /// ConsumerGroupHeartbeat (KIP-848).
    ConsumerHeartbeat(ConsumerHeartbeatRequest),
    /// ConsumerGroupDescribe (KIP-848).
    ConsumerDescribe(Vec<Arc<str>>),
    /// The outcome of the work that the shard has requested.
    RegexesResolved(RegexesResolved),
    /// Replaces what the shard knows of the cluster.
    UpdateClusterInfo(ClusterInfo),
}

/// The reply to the request of the same name.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Join(JoinReply),
    Sync(SyncReply),
    Heartbeat(Result<(), GroupError>),
    Leave(Result<Vec<LeaveResult>, GroupError>),
    CommitOffsets(CommitReply),
    FetchOffsets(Result<Vec<FetchedTopic>, GroupError>),
    DeleteOffsets(Result<Vec<DeletedOffsets>, GroupError>),
    DeleteGroups(Vec<(Arc<str>, Result<(), GroupError>)>),
    Describe(Vec<GroupDescription>),
    List(Vec<ListedGroup>),
    ForgetPartitions,
    EndTransaction,
    Survey(Vec<GroupSurvey>),
    ConsumerHeartbeat(Result<ConsumerHeartbeatReply, Refusal>),
    ConsumerDescribe(Vec<(Arc<str>, Result<ConsumerGroupDescription, Refusal>)>),
    RegexesResolved,
    UpdateClusterInfo,
}

#[derive(Debug, Clone, PartialEq)]
pub struct JoinRequest {
    pub group: Arc<str>,
    /// Empty for a member that has no id yet.
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    /// The address as Kafka prints it: `/127.0.0.1`.
    pub client_host: Arc<str>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: Arc<str>,
    /// Protocols with their metadata, the preferred one first.
    pub protocols: Vec<(Arc<str>, Bytes)>,
    /// KIP-394: a new dynamic member gets an id and must join again with it (from version 4).
    pub requires_known_member_id: bool,
    /// KIP-814: the client supports `skip_assignment` (from version 9).
    pub supports_skipping_assignment: bool,
    /// Random id, with which the id of a new member ends.
    pub fresh_id: Uuid,
}

#[derive(Debug, Clone, PartialEq)]
pub struct JoinReply {
    pub error: Option<GroupError>,
    /// -1 with an error.
    pub generation: i32,
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    /// Empty with an error.
    pub leader: Arc<str>,
    pub skip_assignment: bool,
    pub member_id: Arc<str>,
    /// All members of the group; only for the leader.
    pub members: Vec<JoinedMember>,
}

impl JoinReply {
    pub fn refused(member_id: Arc<str>, error: GroupError) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: Arc::default(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct JoinedMember {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub metadata: Bytes,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SyncRequest {
    pub group: Arc<str>,
    pub generation: i32,
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    /// Compared with the group's, if present (from version 5).
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    /// Member ids with their assignments; only from the leader.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SyncReply {
    pub error: Option<GroupError>,
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    pub assignment: Bytes,
}

impl SyncReply {
    pub fn refused(error: GroupError) -> Self {
        Self {
            error: Some(error),
            protocol_type: None,
            protocol_name: None,
            assignment: Bytes::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct HeartbeatRequest {
    pub group: Arc<str>,
    pub generation: i32,
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LeaveRequest {
    pub group: Arc<str>,
    pub members: Vec<LeavingMember>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LeavingMember {
    /// Empty for the removal of a static member by its instance id (KIP-345).
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    /// Why the member leaves (KIP-800), for the log.
    pub reason: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LeaveResult {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub result: Result<(), GroupError>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CommitRequest {
    pub group: Arc<str>,
    /// -1 from a consumer that assigns its partitions itself.
    pub generation: i32,
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    /// How long to keep the offsets in milliseconds, from clients that set it (up to version 4).
    pub retention_ms: Option<i64>,
    /// From version 9, the error for an unknown group is GROUP_ID_NOT_FOUND instead of
    /// ILLEGAL_GENERATION.
    pub knows_group_id_not_found: bool,
    pub topics: Vec<CommitTopic>,
    /// The transaction in which the offsets are committed (TxnOffsetCommit), if any.
    pub transaction: Option<CommitTransaction>,
}

/// The transaction of a producer in which offsets are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitTransaction {
    pub producer: Producer,
    /// What allows the batch to begin the producer's transaction in the group's partition.
    pub verification: Verification,
    pub version: TransactionVersion,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CommitTopic {
    pub name: Arc<str>,
    /// Nil if the topic has no known id.
    pub id: TopicId,
    pub partitions: Vec<CommitPartition>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CommitPartition {
    pub partition: i32,
    pub offset: i64,
    /// -1 for none.
    pub leader_epoch: i32,
    pub metadata: Option<String>,
}

/// The partitions' results in the order of the request.
pub type CommitReply = Result<Vec<CommittedTopic>, GroupError>;

#[derive(Debug, Clone, PartialEq)]
pub struct CommittedTopic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub partitions: Vec<(i32, Result<(), GroupError>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FetchRequest {
    pub group: Arc<str>,
    /// The member that asks, from version 9 on. `None` if it is not in a group.
    pub member_id: Option<Arc<str>>,
    /// The epoch of the member; -1 if it is not in a group.
    pub member_epoch: i32,
    /// `None` requests all committed offsets.
    pub topics: Option<Vec<FetchTopic>>,
    /// Whether a partition with an offset in an open transaction is reported as unstable, instead
    /// of its committed offset (KIP-447).
    pub requires_stable: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FetchTopic {
    pub name: Arc<str>,
    /// Topic id, or nil if unknown. An offset committed under another topic id is not returned.
    pub id: TopicId,
    pub partitions: Vec<i32>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FetchedTopic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub partitions: Vec<FetchedOffset>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FetchedOffset {
    pub partition: i32,
    /// -1 for none.
    pub offset: i64,
    /// -1 for none.
    pub leader_epoch: i32,
    pub metadata: String,
    /// Whether there is no offset because an open transaction has one. The client must ask again.
    pub is_unstable: bool,
}

impl FetchedOffset {
    pub fn none(partition: i32) -> Self {
        Self {
            partition,
            offset: -1,
            leader_epoch: -1,
            metadata: String::new(),
            is_unstable: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct DeleteOffsetsRequest {
    pub group: Arc<str>,
    pub topics: Vec<(Arc<str>, Vec<i32>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DeletedOffsets {
    pub topic: Arc<str>,
    pub partitions: Vec<(i32, Result<(), GroupError>)>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListRequest {
    /// States to list, ignoring case. If empty, all are listed.
    pub states: Vec<Arc<str>>,
    /// Group types to list, ignoring case. If empty, all are listed.
    pub types: Vec<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ListedGroup {
    pub group: Arc<str>,
    pub protocol_type: Arc<str>,
    pub state: &'static str,
    pub group_type: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GroupDescription {
    pub group: Arc<str>,
    /// Set for a group that does not exist, whose state is `Dead`.
    pub error: Option<GroupError>,
    pub state: &'static str,
    pub protocol_type: Arc<str>,
    /// The protocol; empty unless the group is stable.
    pub protocol: Arc<str>,
    pub members: Vec<MemberDescription>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MemberDescription {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    /// Empty unless the group is stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// A group, for metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSurvey {
    pub group: Arc<str>,
    pub state: &'static str,
    pub generation: i32,
    pub members: usize,
    /// Number of JoinGroup and SyncGroup requests that wait.
    pub parked: usize,
    /// Number of members and pending members, each of which has a session timer.
    pub sessions: usize,
    pub offsets: Vec<(TopicPartition, i64)>,
}
