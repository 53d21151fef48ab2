//! What openraft is told about us: an entry is a batch of metadata records, an answer is the offset
//! of the batch's last record, a node is known by its `node.id`.

use bytes::Bytes;
use openraft::{CommittedLeaderId, LogId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::checkpoint_file::CheckpointFile;
use crate::metadata::MetadataRecord;

openraft::declare_raft_types!(
    /// KRaft's metadata log as a Raft log.
    pub TypeConfig:
        D = Proposal,
        R = i64,
        NodeId = i32,
        Node = (),
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = CheckpointFile,
        AsyncRuntime = openraft::TokioRuntime,
);

/// When a proposed batch may be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Durability {
    /// When it is on disk.
    #[default]
    Synced,
    /// When it is written; it is on disk before any `Synced` batch after it is acknowledged. For
    /// facts that the next start states anew, like a broker's registration. Only a quorum of one
    /// makes use of it.
    Deferred,
}

/// A batch of records to be put at the end of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Milliseconds since the epoch.
    pub append_ms: i64,
    pub durability: Durability,
    #[serde(serialize_with = "to_frames", deserialize_with = "from_frames")]
    pub records: Vec<MetadataRecord>,
}

fn to_frames<S: Serializer>(records: &[MetadataRecord], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(records.iter().map(|record| record.to_bytes().to_vec()))
}

fn from_frames<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<MetadataRecord>, D::Error> {
    let frames = Vec::<Vec<u8>>::deserialize(from)?;
    let decode = |frame| MetadataRecord::decode(Bytes::from(frame)).map_err(D::Error::custom);
    frames.into_iter().map(decode).collect()
}

/// With one leader per term, a log id is the leader's epoch and the index.
pub(super) fn log_id(epoch: i32, index: u64) -> LogId<i32> {
    LogId::new(CommittedLeaderId::new(epoch as u64, 0), index)
}
