//! The replicated metadata log: batches of metadata records, agreed on by Raft (openraft) and kept
//! as `__cluster_metadata-0` in Kafka's own format. Raft's term is KRaft's leader epoch.
//!
//! Owns the log, the vote, and the snapshots. Must not know what decides on records (`controller`)
//! or what acts on them (`broker`); it applies them to an image only to snapshot and publish it.
//!
//! Invariants: an acknowledged batch is on disk (but see `Durability::Deferred`); batches are
//! published in log order, each once; one Raft entry is one record batch. A quorum of one is a
//! quorum: same code, same files.

mod checkpoint;
mod checkpoint_file;
mod files;
mod format;
mod log;
mod network;
mod start;
mod state_machine;
mod storage;
mod types;

#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, watch};

use self::{
    checkpoint::{Checkpoint, CheckpointError},
    format::Stamp,
    log::LogError,
    storage::Storage,
    types::{Proposal, TypeConfig},
};
pub use self::{start::QuorumConfig, types::Durability};
use crate::{
    base::clock::now_ms,
    metadata::{Change, Image, MetadataRecord},
};

#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    #[error("node {leader:?} leads the quorum, not this node")]
    NotLeader { leader: Option<i32> },
    #[error("the epoch is {current}, not {expected}")]
    WrongEpoch { expected: i32, current: i32 },
    /// Nothing was written.
    #[error("the metadata log cannot grow: {0}")]
    NoRoom(std::io::Error),
    /// The log cannot be written or read any more: the process must stop.
    #[error("the metadata log has failed: {0}")]
    Failed(String),
    #[error("this node, {0}, is not among the quorum's voters")]
    NotAVoter(i32),
    #[error("a quorum of {0} voters is not supported yet")]
    TooManyVoters(usize),
    #[error("{path}: {source}")]
    Io { path: std::path::PathBuf, source: std::io::Error },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A batch that is committed, with what it changed.
#[derive(Debug, Clone)]
pub struct CommittedBatch {
    pub last_offset: i64,
    pub epoch: i32,
    /// Milliseconds since the epoch.
    pub append_ms: i64,
    /// Empty for a new leader's first batch.
    pub records: Vec<MetadataRecord>,
    /// What the records changed, in their order.
    pub changes: Vec<Change>,
    /// The image after the batch.
    pub image: Arc<Image>,
}

/// Committed batches in order, beginning after the image that `Quorum::start` returned.
#[derive(Debug)]
pub struct CommittedStream(mpsc::UnboundedReceiver<CommittedBatch>);

impl CommittedStream {
    /// `None` when the quorum has stopped.
    pub async fn next(&mut self) -> Option<CommittedBatch> {
        self.0.recv().await
    }

    /// A batch that is there already.
    pub fn try_next(&mut self) -> Option<CommittedBatch> {
        self.0.try_recv().ok()
    }
}

/// Who leads the quorum, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<i32>,
    pub epoch: i32,
    /// This node leads, and has applied all that was committed before its epoch.
    pub active: bool,
}

/// What DescribeQuorum tells.
#[derive(Debug, Clone, PartialEq)]
pub struct QuorumStatus {
    /// -1 when there is none.
    pub leader_id: i32,
    pub leader_epoch: i32,
    /// The offset after the last committed record.
    pub high_watermark: i64,
    pub voters: Vec<ReplicaStatus>,
    pub observers: Vec<ReplicaStatus>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaStatus {
    pub replica_id: i32,
    pub directory_id: uuid::Uuid,
    /// -1 when unknown.
    pub log_end_offset: i64,
    /// Milliseconds since the epoch; -1 when unknown.
    pub last_fetch_ms: i64,
    pub last_caught_up_ms: i64,
}

/// A handle to this node's part in the quorum.
#[derive(Clone)]
pub struct Quorum {
    raft: openraft::Raft<TypeConfig>,
    storage: Storage,
    published: Arc<ArcSwap<Image>>,
    config: Arc<QuorumConfig>,
    /// The log's `written_bytes` at the newest snapshot.
    snapshot_at: Arc<std::sync::atomic::AtomicU64>,
}

impl Quorum {
    /// Opens the log, replays it, and joins the quorum; a sole voter leads when this returns. The
    /// image holds what was replayed; everything after comes through the stream.
    pub async fn start(
        config: QuorumConfig,
    ) -> Result<(Quorum, Image, CommittedStream), QuorumError> {
        start::start(config).await
    }

    /// Puts the records at the end of the log as one batch and returns the last one's offset when
    /// they are committed and in `image()`. Fails if this node does not lead in `expected_epoch`.
    pub async fn propose(
        &self,
        expected_epoch: i32,
        records: Vec<MetadataRecord>,
    ) -> Result<i64, QuorumError> {
        self.propose_with(expected_epoch, records, Durability::Synced).await
    }

    pub async fn propose_with(
        &self,
        expected_epoch: i32,
        records: Vec<MetadataRecord>,
        durability: Durability,
    ) -> Result<i64, QuorumError> {
        let current = self.epoch();
        if current != expected_epoch {
            return Err(QuorumError::WrongEpoch { expected: expected_epoch, current });
        }
        let append_ms = now_ms();
        // A log that cannot be written ends Raft; a disk that is full now may have room later.
        let size = format::encode_records(&Stamp::default(), &records).len() as u64;
        self.storage.log().reserve(size).map_err(QuorumError::NoRoom)?;
        let proposal = Proposal { append_ms, durability, records };
        match self.raft.client_write(proposal).await {
            Ok(written) => {
                self.snapshot_when_grown().await;
                Ok(written.data)
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(QuorumError::NotLeader { leader: to.leader_id })
            }
            Err(error) => Err(QuorumError::Failed(error.to_string())),
        }
    }

    async fn snapshot_when_grown(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        let written = self.storage.log().written_bytes();
        let since = written.saturating_sub(self.snapshot_at.load(Relaxed));
        if since >= self.config.snapshot_bytes {
            self.snapshot_at.store(written, Relaxed);
            if let Err(error) = self.raft.trigger().snapshot().await {
                tracing::error!(%error, "no metadata snapshot can be written");
            }
        }
    }

    /// Everything that is committed.
    pub fn image(&self) -> Arc<Image> {
        self.published.load_full()
    }

    /// The sole voter leads in the epoch in which it started.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        let leader = Some(self.config.node_id);
        watch::channel(Leadership { leader, epoch: self.epoch(), active: true }).1
    }

    /// Who leads the quorum, as far as this node knows.
    pub fn leader(&self) -> Option<i32> {
        self.raft.metrics().borrow().current_leader
    }

    /// The epoch that this node is in.
    pub fn epoch(&self) -> i32 {
        self.raft.metrics().borrow().current_term as i32
    }

    pub fn status(&self) -> QuorumStatus {
        let metrics = self.raft.metrics().borrow().clone();
        let log_end_offset = self.storage.log().end_offset();
        let now = now_ms();
        let voter = |&replica_id: &i32| {
            let here = replica_id == self.config.node_id;
            ReplicaStatus {
                replica_id,
                directory_id: uuid::Uuid::nil(),
                log_end_offset: if here { log_end_offset } else { -1 },
                last_fetch_ms: if here { now } else { -1 },
                last_caught_up_ms: if here { now } else { -1 },
            }
        };
        QuorumStatus {
            leader_id: metrics.current_leader.unwrap_or(-1),
            leader_epoch: metrics.current_term as i32,
            high_watermark: self.published.load().offset + 1,
            voters: self.config.voters.iter().map(voter).collect(),
            observers: Vec::new(),
        }
    }

    /// Leaves the quorum with everything on disk.
    pub async fn stop(self) -> Result<(), QuorumError> {
        let stopped = self.raft.shutdown().await;
        stopped.map_err(|error| QuorumError::Failed(error.to_string()))?;
        let sync = self.storage.log().sync();
        let synced = tokio::task::spawn_blocking(sync).await.map_err(std::io::Error::other);
        let path = self.config.dir.clone();
        synced.and_then(|synced| synced).map_err(|source| QuorumError::Io { path, source })
    }
}

/// The records of a snapshot file; `bootstrap.checkpoint`, which `kafka-storage format` leaves in a
/// log directory, is one too.
pub fn read_checkpoint(path: &Path) -> Result<Vec<MetadataRecord>, QuorumError> {
    Ok(Checkpoint::read(path)?.records)
}
