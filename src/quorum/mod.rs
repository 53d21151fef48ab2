//! The replicated metadata log: batches of metadata records, agreed on by Raft (openraft) and
//! stored as `__cluster_metadata-0` in Kafka's own format. Raft's term is KRaft's leader epoch.
//!
//! Owns the log, the vote and the snapshots. It does not depend on `controller`, which decides on
//! records, nor on `broker`, which acts on them. It applies records to an image only to publish it
//! and to write snapshots.
//!
//! A *member* runs Raft: it is a voter, or a learner (openraft's name for a node that receives the
//! log but does not vote). An *observer* does not run Raft and follows the log with Kafka's Fetch
//! (`observer`). It becomes a member when the leader or a candidate sends it a Raft message.
//!
//! Invariants:
//! - An acknowledged batch is on the disks of a majority (exception: `Durability::Deferred`).
//! - Only committed batches are published, in log order, each once. A snapshot from the leader is
//!   published as one batch, in place of the batches that it includes.
//! - One Raft entry is one record batch, and its bytes are the same on every node.
//! - A quorum of one runs the same code and writes the same files.

mod append;
mod candidacy;
mod change;
mod checkpoint;
mod checkpoint_file;
mod durability;
mod elections;
mod fetch;
mod files;
mod format;
mod log;
mod log_thread;
mod messages;
mod network;
mod observer;
mod segment_files;
mod start;
mod state_machine;
mod storage;
mod types;
mod voters;

#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use openraft::{
    Raft,
    error::{ClientWriteError, InstallSnapshotError, RaftError},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

/// Decoders and encoders that only this layer uses, for `fuzz/`.
#[cfg(feature = "fuzzing")]
pub mod formats {
    pub use super::{files::QuorumState, messages::*};
}

use self::{
    candidacy::Candidacy,
    checkpoint::{Checkpoint, CheckpointError},
    elections::LeaderContact,
    fetch::Observers,
    format::Stamp,
    log::LogError,
    messages::Request,
    network::Network,
    state_machine::StateMachine,
    storage::Storage,
    types::{Proposal, TypeConfig, epoch_of, leads},
};
pub use self::{
    change::VoterChangeError,
    elections::Timeouts,
    fetch::{FetchFrom, FetchOutcome, Fetched, Replica, SnapshotPart, SnapshotReadError},
    messages::MessageError,
    network::{Lane, NoPeers, Peer, RaftTransport, TransportError},
    observer::{LeaderClient, METADATA_TOPIC_ID, Observe},
    start::QuorumConfig,
    types::Durability,
    voters::{Endpoint, Voter},
};
use crate::{
    base::{environment::now_ms, random::Random},
    log::Disk,
    metadata::{Change, Image, MetadataRecord},
};

#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// The batch may still be committed if this node lost its leadership after it wrote the batch.
    #[error("node {leader:?} leads the quorum, not this node")]
    NotLeader { leader: Option<i32> },
    #[error("the epoch is {current}, not {expected}")]
    WrongEpoch { expected: i32, current: i32 },
    /// The disk is full. Nothing was written.
    #[error("the metadata log cannot grow: {0}")]
    NoRoom(std::io::Error),
    /// The log cannot be written or read any more: the process must stop.
    #[error("the metadata log has failed: {0}")]
    Failed(String),
    #[error("this node, {0}, is not among the quorum's voters")]
    NotAVoter(i32),
    #[error("{path}: {source}")]
    Io { path: std::path::PathBuf, source: std::io::Error },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A committed batch and the changes that it made.
#[derive(Debug, Clone)]
pub struct CommittedBatch {
    pub last_offset: i64,
    pub epoch: i32,
    /// Milliseconds since the Unix epoch.
    pub append_ms: i64,
    /// Empty for control records, such as a new leader's first batch, and for a snapshot that the
    /// leader sent.
    pub records: Vec<MetadataRecord>,
    /// The changes in the order of the records.
    pub changes: Vec<Change>,
    /// The image after the batch.
    pub image: Arc<Image>,
}

/// The committed batches in order. The first one follows the image that `Quorum::start` returned.
#[derive(Debug)]
pub struct CommittedStream(mpsc::UnboundedReceiver<CommittedBatch>);

impl CommittedStream {
    /// Waits for the next batch. Returns `None` once the quorum has stopped or its log has failed.
    pub async fn next(&mut self) -> Option<CommittedBatch> {
        self.0.recv().await
    }

    /// Returns the next batch if it is available already.
    pub fn try_next(&mut self) -> Option<CommittedBatch> {
        self.0.try_recv().ok()
    }
}

/// The quorum's state as DescribeQuorum reports it.
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
    /// Milliseconds since the Unix epoch; -1 when unknown.
    pub last_fetch_ms: i64,
    pub last_caught_up_ms: i64,
    /// A voter's endpoints for other controllers. Empty for an observer.
    pub endpoints: Vec<Endpoint>,
}

/// The leader of the quorum, as far as this node has learned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    pub leader: Option<i32>,
    pub epoch: i32,
    /// This node is the active controller: it leads, and its image has all batches of earlier
    /// epochs.
    pub active: bool,
}

/// A handle to this node's part in the quorum.
#[derive(Clone)]
pub struct Quorum {
    inner: Arc<Inner>,
}

struct Inner {
    /// Raft, while this node is a member. Empty while it is an observer.
    raft: ArcSwapOption<Raft<TypeConfig>>,
    config: QuorumConfig,
    network: Network,
    storage: Storage,
    machine: StateMachine,
    published: Arc<ArcSwap<Image>>,
    leadership: watch::Sender<Leadership>,
    contact: Mutex<LeaderContact>,
    candidacy: Candidacy,
    /// The observers that fetch from this node while it leads.
    observers: Mutex<Observers>,
    /// The leader that this observer follows, and its endpoint.
    followed: Mutex<Option<(i32, Endpoint)>>,
    /// True while this node is an observer. False makes the observer's task end.
    observing: watch::Sender<bool>,
    /// Held while this node becomes a member or an observer, so that one change runs at a time.
    /// Holds the observer's task.
    observer_task: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// The offset of the last applied record.
    progress: Arc<watch::Sender<i64>>,
    /// Held while an observer replaces its log with a snapshot.
    installing: Arc<tokio::sync::Mutex<()>>,
    /// True while this node's disk has no room for batches from the leader.
    has_no_room: Arc<AtomicBool>,
    /// True once this node begins to stop. A lost majority is then logged as info, not as a
    /// warning.
    expects_loss: AtomicBool,
    /// Held during a change of the voters, so that one change runs at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
    random: Mutex<Random>,
    /// Notified when the log has grown enough for another snapshot.
    enough: Arc<Notify>,
}

impl Quorum {
    /// Opens the log, replays it and joins the quorum. A sole voter leads when this returns. One of
    /// several voters does not wait for a leader. The returned image holds the replayed batches
    /// that are known to be committed. All later batches arrive through the stream.
    ///
    /// Fails if the files cannot be read or written, and with `NotAVoter` if this node neither
    /// votes nor is configured to observe.
    pub async fn start(
        config: QuorumConfig,
    ) -> Result<(Quorum, Image, CommittedStream), QuorumError> {
        start::start(config).await
    }

    fn raft(&self) -> Option<Arc<Raft<TypeConfig>>> {
        self.inner.raft.load_full()
    }

    /// Appends the records to the log as one batch. Returns the offset of the last record once the
    /// batch is committed and included in `image()`. Fails if this node does not lead in
    /// `expected_epoch`.
    pub async fn propose(
        &self,
        expected_epoch: i32,
        records: Vec<MetadataRecord>,
    ) -> Result<i64, QuorumError> {
        self.propose_with(expected_epoch, records, Durability::Synced).await
    }

    /// Appends the records as `propose` does, and acknowledges them as `durability` says.
    pub async fn propose_with(
        &self,
        expected_epoch: i32,
        records: Vec<MetadataRecord>,
        durability: Durability,
    ) -> Result<i64, QuorumError> {
        let wrong = |current| QuorumError::WrongEpoch { expected: expected_epoch, current };
        let current = self.epoch();
        if current != expected_epoch {
            return Err(wrong(current));
        }
        let Some(raft) = self.raft() else {
            return Err(QuorumError::NotLeader { leader: self.leadership().borrow().leader });
        };
        let append_ms = now_ms();
        // openraft stops for good when a write fails, but a full disk may have room later. So the
        // room is reserved before openraft writes.
        let size = format::encode_records(&Stamp::default(), &records).len() as u64;
        self.inner.storage.reserve(size).await.map_err(QuorumError::NoRoom)?;
        let proposal = Proposal { append_ms, epoch: expected_epoch, durability, records };
        let written = tokio::select! {
            biased;
            written = raft.client_write(proposal) => written,
            leader = deposed(&raft, expected_epoch) => {
                return Err(QuorumError::NotLeader { leader });
            }
        };
        match written {
            Ok(written) if epoch_of(&written.log_id) == expected_epoch => Ok(written.data),
            Ok(written) => Err(wrong(epoch_of(&written.log_id))),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(QuorumError::NotLeader { leader: to.leader_id })
            }
            Err(error) => Err(QuorumError::Failed(error.to_string())),
        }
    }

    /// Handles a message from another controller's `RaftTransport` and returns the response. Fails
    /// if the message is invalid or meant for another node, directory or cluster, or if Raft has
    /// stopped.
    pub async fn answer(&self, message: Bytes) -> Result<Bytes, MessageError> {
        let (header, request) = messages::decode_request(message)?;
        let config = &self.inner.config;
        if header.to != config.node_id {
            return Err(MessageError::NotForThisNode(header.to));
        }
        let (meant, own) = (header.to_directory, config.directory_id());
        // The votes and entries that this node acknowledged are lost with the other directory.
        if !meant.is_nil() && !own.is_nil() && meant != own {
            return Err(MessageError::OtherDirectory(meant));
        }
        if header.cluster_id != config.cluster_id {
            return Err(MessageError::OtherCluster(header.cluster_id));
        }
        let raft = match (self.raft(), &request) {
            (Some(raft), _) => raft,
            // The leader sends the log to this node, so this node becomes a member.
            (None, Request::Append(_) | Request::Snapshot(_)) => self.join().await?,
            (None, Request::Probe) => return Ok(messages::encode_probed(config.directory_id())),
            // This node's own log says that it votes, and the candidate may need its vote.
            (None, Request::PreVote(_)) if self.is_voter() => self.join().await?,
            (None, Request::PreVote(request)) => {
                return Ok(messages::encode_ballot_result(&self.inner.pre_vote(request)));
            }
            // The candidate counts this node as a voter. This node's removal may not be committed,
            // or this node may not have received its addition yet.
            (None, Request::Vote(_)) => self.join().await?,
        };
        let stopped = |error: &dyn std::fmt::Display| MessageError::Stopped(error.to_string());
        match request {
            Request::Probe => Ok(messages::encode_probed(config.directory_id())),
            Request::PreVote(request) => {
                Ok(messages::encode_ballot_result(&self.inner.pre_vote(&request)))
            }
            Request::Vote(request) => {
                let response = self.inner.vote(&raft, request).await?;
                Ok(messages::encode_ballot_result(&response))
            }
            Request::Append(request) => {
                let response = self.answer_append(request, &raft).await?;
                Ok(messages::encode_appended(response.as_ref()))
            }
            Request::Snapshot(request) => {
                self.record_accepted_leader(&request.vote, &raft);
                match raft.install_snapshot(request).await {
                    Ok(response) => Ok(messages::encode_chunk_result(Some(&response.vote))),
                    Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(_))) => {
                        Ok(messages::encode_chunk_result(None))
                    }
                    Err(error) => Err(stopped(&error)),
                }
            }
        }
    }

    fn is_voter(&self) -> bool {
        self.inner.config.is_voter(self.inner.storage.voter_state().effective().membership())
    }

    /// Turns this observer into a member. This completes even if the sender of the message does not
    /// wait for it.
    async fn join(&self) -> Result<Arc<Raft<TypeConfig>>, MessageError> {
        let quorum = self.clone();
        let joined = tokio::spawn(async move { quorum.become_member().await }).await;
        joined.unwrap_or_else(|error| Err(MessageError::Stopped(error.to_string())))
    }

    /// Stops observing and starts Raft on the existing log. Returns the running Raft if this node
    /// is a member already.
    async fn become_member(&self) -> Result<Arc<Raft<TypeConfig>>, MessageError> {
        let stopped = |error: &dyn std::fmt::Display| MessageError::Stopped(error.to_string());
        let mut observer_task = self.inner.observer_task.lock().await;
        if let Some(raft) = self.raft() {
            return Ok(raft);
        }
        self.stop_observing(&mut observer_task).await;
        // From now on, Raft counts everything in the log as durable.
        self.inner.storage.thread.sync().await.map_err(|error| stopped(&error))?;
        self.start_raft().await.map(Arc::new).map_err(|error| stopped(&error))
    }

    /// Ends the observer's task, if there is one, and waits for its end.
    async fn stop_observing(&self, observer_task: &mut Option<tokio::task::JoinHandle<()>>) {
        self.inner.observing.send_replace(false);
        *self.inner.followed.lock() = None;
        if let Some(task) = observer_task.take() {
            // The task has ended, with or without an error. An installation of a snapshot that it
            // started may still run on another thread.
            let _ = task.await;
            let _ = self.inner.installing.lock().await;
        }
    }

    /// Stops Raft, if it runs, and follows the log as an observer. Exception: if a change that
    /// removes this node from the voters is not known to be committed, this node removes that
    /// change from its log and restarts Raft. Fails with `NotAVoter` if this node is not configured
    /// to observe.
    async fn observe(&self) -> Result<(), QuorumError> {
        let mut observer_task = self.inner.observer_task.lock().await;
        let Some(observe) = self.inner.config.observe.clone() else {
            return Err(QuorumError::NotAVoter(self.inner.config.node_id));
        };
        let raft = self.inner.raft.swap(None);
        if let Some(raft) = &raft {
            let stopped = raft.shutdown().await;
            stopped.map_err(|error| QuorumError::Failed(error.to_string()))?;
        }
        self.stop_observing(&mut observer_task).await;
        // Only a former member is checked: what it has applied is what it learned to be committed.
        // A node that starts as an observer has not learned that yet.
        if let Some(index) = raft.and_then(|_| self.uncommitted_removal()) {
            // The removal may never be committed. Until it is, this node's vote is needed.
            let path = self.inner.config.dir.clone();
            let cut = self.inner.storage.cut(index);
            cut.map_err(|source| QuorumError::Io { path, source })?;
            return self.start_raft().await.map(drop);
        }
        // Raft's epoch may be one in which this node was only a candidate. The log has the last
        // epoch that had a leader.
        let epoch = self.inner.storage.log().last_epoch();
        let unknown = Leadership { leader: None, epoch, active: false };
        self.inner.leadership.send_replace(unknown);
        self.inner.observing.send_replace(true);
        *observer_task = Some(observer::spawn(&self.inner, observe));
        Ok(())
    }

    /// The index of the log's last change of the voters, if it removes this node and is not known
    /// to be committed. This node's own copy does not count for that change.
    fn uncommitted_removal(&self) -> Option<u64> {
        let applied = self.inner.machine.machine().applied.map(|applied| applied.index);
        let known = self.inner.storage.voter_state();
        let [.., before, last] = known.memberships.as_slice() else { return None };
        let config = &self.inner.config;
        let at = last.log_id().map(|at| at.index).filter(|at| Some(*at) > applied)?;
        let is_removal =
            config.is_voter(before.membership()) && !config.is_voter(last.membership());
        is_removal.then_some(at)
    }

    /// Records that this node is in contact with a leader.
    fn record_leader_contact(&self) {
        self.inner.contact.lock().record();
    }

    /// Records contact with a leader that this node accepts as soon as its message arrives, however
    /// long the disk then takes.
    fn record_accepted_leader(&self, vote: &openraft::Vote<i32>, raft: &Raft<TypeConfig>) {
        if *vote >= raft.metrics().borrow().vote {
            self.record_leader_contact();
        }
    }

    /// The newest image: all committed batches that this node has applied.
    pub fn image(&self) -> Arc<Image> {
        self.inner.published.load_full()
    }

    /// The id of the quorum's leader, as far as this node has learned it.
    pub fn leader(&self) -> Option<i32> {
        self.inner.leadership.borrow().leader
    }

    /// Whether this member has had no contact with its leader for twice
    /// `Timeouts::contact_unit`, or none since its start. `leader` names the old leader until
    /// another one is elected.
    pub fn has_lost_leader(&self) -> bool {
        let inner = &self.inner;
        let silence = inner.contact.lock().silence();
        let is_silent = silence.is_none_or(|it| it > inner.config.timeouts.contact_unit() * 2);
        self.raft().is_some() && self.leader() != Some(inner.config.node_id) && is_silent
    }

    /// The leader epoch that this node is in.
    pub fn epoch(&self) -> i32 {
        match self.raft() {
            Some(raft) => raft.metrics().borrow().current_term as i32,
            None => self.inner.leadership.borrow().epoch,
        }
    }

    /// Whether this node's metadata lags because its disk has no room. Always false on the leader.
    pub fn has_no_room(&self) -> bool {
        let leads = self.leader() == Some(self.inner.config.node_id);
        !leads && self.inner.has_no_room.load(Ordering::Relaxed)
    }

    /// Must be called when this node begins to stop. The other voters may be stopping too, so a
    /// lost majority is no reason for a warning then.
    pub fn expect_loss(&self) {
        self.inner.expects_loss.store(true, Ordering::Relaxed);
    }

    /// Subscribes to changes of the leadership.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// The quorum's state for DescribeQuorum.
    pub fn status(&self) -> QuorumStatus {
        let Leadership { leader, epoch, .. } = *self.inner.leadership.borrow();
        QuorumStatus {
            leader_id: leader.unwrap_or(-1),
            leader_epoch: epoch,
            high_watermark: self.inner.published.load().offset + 1,
            voters: self.voters_status(),
            observers: self.observers_status(),
        }
    }

    fn voters_status(&self) -> Vec<ReplicaStatus> {
        let inner = &self.inner;
        let deciding = self.deciding_voters();
        let replication = self.raft().and_then(|raft| raft.metrics().borrow().replication.clone());
        let contacts = inner.network.voter_contacts();
        let now = now_ms();
        let log = inner.storage.log();
        let voter = |voter: Voter| {
            let here = voter.id == inner.config.node_id;
            let matching = replication.as_ref().and_then(|it| it.get(&voter.id).copied().flatten());
            let position = matching.and_then(|at| log.position(at.index));
            let end = if here { log.end_offset() } else { position.map_or(-1, |it| it.0.end()) };
            let last = contacts.get(&voter.id);
            ReplicaStatus {
                replica_id: voter.id,
                directory_id: voter.directory_id,
                log_end_offset: end,
                last_fetch_ms: if here { now } else { last.map_or(-1, |it| it.answered_ms) },
                last_caught_up_ms: if here { now } else { last.map_or(-1, |it| it.caught_up_ms) },
                endpoints: voter.endpoints,
            }
        };
        deciding.into_iter().map(voter).collect()
    }

    /// The voters that DescribeQuorum lists. A new voter is listed once its addition is complete,
    /// so that the quorum can lose another voter.
    fn deciding_voters(&self) -> Vec<Voter> {
        voters::deciding(self.inner.machine.machine().membership.membership())
    }

    /// Stops Raft or the observer, and syncs the log to disk.
    pub async fn stop(self) -> Result<(), QuorumError> {
        self.stop_observing(&mut *self.inner.observer_task.lock().await).await;
        if let Some(raft) = self.raft() {
            let stopped = raft.shutdown().await;
            stopped.map_err(|error| QuorumError::Failed(error.to_string()))?;
        }
        let path = self.inner.config.dir.clone();
        self.inner.storage.thread.sync().await.map_err(|source| QuorumError::Io { path, source })
    }
}

/// Waits until this node no longer leads in the epoch. Returns the new leader, if there is one.
async fn deposed(raft: &Raft<TypeConfig>, epoch: i32) -> Option<i32> {
    let mut metrics = raft.metrics();
    let is_deposed = |metrics: &openraft::RaftMetrics<i32, Voter>| {
        // If Raft has failed, `client_write` returns the reason.
        metrics.running_state.is_ok() && (metrics.current_term as i32 != epoch || !leads(metrics))
    };
    let leader = metrics.wait_for(is_deposed).await.map(|metrics| metrics.current_leader);
    match leader {
        Ok(leader) => leader,
        // Raft has ended, and `client_write` returns that error.
        Err(_) => std::future::pending().await,
    }
}

/// Formats the directory for a new quorum whose only voter is this one, as `kafka-storage format
/// --standalone` does. Other voters can be added later. A directory that has a log or a snapshot is
/// left unchanged.
pub fn found(disk: &dyn Disk, dir: &Path, voter: &Voter) -> std::io::Result<()> {
    disk.create_dir_all(dir)?;
    let holds = |name: &str| name.ends_with(".log") || name.ends_with(".checkpoint");
    if disk.list(dir)?.iter().any(|entry| holds(&entry.name)) {
        return Ok(());
    }
    let content = checkpoint::SnapshotContent {
        image: Image::default(),
        raft_index: 0,
        membership: voters::StoredMembership::new(
            None,
            voters::of_voters(std::slice::from_ref(voter)),
        ),
        kraft_version: 1,
    };
    checkpoint::write(disk, dir, &content).map(drop)
}

/// Reads the metadata records of a snapshot file. `bootstrap.checkpoint`, which `kafka-storage
/// format` writes into a log directory, is such a file.
pub fn read_checkpoint(disk: &dyn Disk, path: &Path) -> Result<Vec<MetadataRecord>, QuorumError> {
    Ok(Checkpoint::read(disk, path)?.records)
}
