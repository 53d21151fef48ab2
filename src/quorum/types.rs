//! The types with which openraft is instantiated. An entry is a record batch, a response is the
//! offset of the batch's last record, and a node is identified by its `node.id`.

use std::fmt;

use bytes::Bytes;
use openraft::{
    CommittedLeaderId, LogId,
    entry::{FromAppData, RaftEntry, RaftPayload},
    log_id::RaftLogId,
};

pub(super) use super::voters::Membership;
use super::{checkpoint_file::CheckpointFile, voters::Voter};
use crate::metadata::MetadataRecord;

openraft::declare_raft_types!(
    /// KRaft's metadata log as a Raft log.
    pub TypeConfig:
        D = Proposal,
        R = i64,
        NodeId = i32,
        Node = Voter,
        Entry = Entry,
        SnapshotData = CheckpointFile,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(super) type Metrics = openraft::RaftMetrics<i32, Voter>;

/// Whether the node leads. openraft's server state alone does not show this: a voter may have
/// granted a ballot of this node for a later epoch before an earlier election succeeded. openraft
/// takes over that vote and still calls the node a leader, but it commits nothing any more.
pub(super) fn leads(metrics: &Metrics) -> bool {
    metrics.state == openraft::ServerState::Leader && metrics.vote.is_committed()
}

/// When a proposed batch may be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once it is on disk.
    #[default]
    Synced,
    /// Once it is written to the page cache. It is on disk before any later `Synced` batch is
    /// acknowledged. For facts that the next start records again, such as a broker's registration.
    /// Only a quorum of one does this; several voters treat it as `Synced`.
    Deferred,
}

/// A batch of records to append to the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Milliseconds since the Unix epoch.
    pub append_ms: i64,
    /// The leader epoch in which the records were decided. In any other epoch, a no-op record is
    /// written in their place.
    pub epoch: i32,
    pub durability: Durability,
    pub records: Vec<MetadataRecord>,
}

/// One record batch of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    pub log_id: LogId<i32>,
    pub content: Content,
}

/// The content of an entry, encoded or still to be encoded by this leader.
#[derive(Clone, Debug)]
pub enum Content {
    /// The first batch of this new leader, not encoded yet.
    Blank,
    /// A change of the voters, not encoded yet.
    Membership(Membership),
    /// Proposed records, not encoded yet.
    Proposal(Proposal),
    /// An encoded batch. Its bytes are the same on every node.
    Batch { bytes: Bytes, membership: Option<Membership> },
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.log_id)
    }
}

impl RaftLogId<i32> for Entry {
    fn get_log_id(&self) -> &LogId<i32> {
        &self.log_id
    }

    fn set_log_id(&mut self, log_id: &LogId<i32>) {
        self.log_id = *log_id;
    }
}

impl RaftPayload<i32, Voter> for Entry {
    fn is_blank(&self) -> bool {
        matches!(self.content, Content::Blank)
    }

    fn get_membership(&self) -> Option<&Membership> {
        match &self.content {
            Content::Membership(membership) => Some(membership),
            Content::Batch { membership, .. } => membership.as_ref(),
            Content::Blank | Content::Proposal(_) => None,
        }
    }
}

impl RaftEntry<i32, Voter> for Entry {
    fn new_blank(log_id: LogId<i32>) -> Self {
        Self { log_id, content: Content::Blank }
    }

    fn new_membership(log_id: LogId<i32>, membership: Membership) -> Self {
        Self { log_id, content: Content::Membership(membership) }
    }
}

impl FromAppData<Proposal> for Entry {
    fn from_app_data(proposal: Proposal) -> Self {
        Self { log_id: LogId::default(), content: Content::Proposal(proposal) }
    }
}

/// A log id of openraft. It consists of epoch and index, because a term has at most one leader.
pub(super) fn log_id(epoch: i32, index: u64) -> LogId<i32> {
    LogId::new(CommittedLeaderId::new(epoch as u64, 0), index)
}

pub(super) fn epoch_of(log_id: &LogId<i32>) -> i32 {
    log_id.leader_id.term as i32
}
