//! The replicated metadata log: batches of metadata records, agreed on by Raft (openraft) and kept
//! as `__cluster_metadata-0` in Kafka's own format. Raft's term is KRaft's leader epoch.
//!
//! Owns the log, the vote, and the snapshots. Must not know what decides on records (`controller`)
//! or what acts on them (`broker`); it applies them to an image only to snapshot and publish it.
//!
//! Invariants: an acknowledged batch is on disk of a majority (but see `Durability::Deferred`);
//! batches are published in log order, each once, and only when they are committed; one Raft entry
//! is one record batch, whose bytes are the same on every node. A quorum of one is a quorum: same
//! code, same files. Who does not vote follows the same log by Kafka's Fetch (`observer`), and
//! turns into a member when the leader's first message comes.

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
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use openraft::{
    Raft, ServerState,
    error::{ClientWriteError, InstallSnapshotError, RaftError},
};
use tokio::sync::{Notify, mpsc, watch};

/// Decoders and encoders that only this layer uses, for `fuzz/`.
#[cfg(feature = "fuzzing")]
pub mod formats {
    pub use super::{files::QuorumState, messages::*};
}

use self::{
    candidacy::Candidacy,
    checkpoint::{Checkpoint, CheckpointError},
    elections::Contact,
    fetch::Observers,
    format::Stamp,
    log::LogError,
    messages::Request,
    network::Network,
    state_machine::StateMachine,
    storage::{Storage, lock},
    types::{Proposal, TypeConfig, epoch_of},
};
pub use self::{
    change::VoterChangeError,
    elections::Timeouts,
    fetch::{FetchFrom, FetchOutcome, Fetched, Replica, SnapshotPart, SnapshotReadError},
    messages::MessageError,
    network::{BoxFuture, Lane, NoPeers, Peer, RaftTransport, TransportError},
    observer::{LeaderClient, METADATA_TOPIC, METADATA_TOPIC_ID, Observe},
    start::QuorumConfig,
    types::Durability,
    voters::{Endpoint, Voter},
};
use crate::{
    base::{random::Random, world::now_ms},
    log::Disk,
    metadata::{Change, Image, MetadataRecord},
};

#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// Whether the batch is committed after all is for the next leader to know.
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
    /// Where a voter listens for other controllers.
    pub endpoints: Vec<Endpoint>,
}

/// Who leads the quorum, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    pub leader: Option<i32>,
    pub epoch: i32,
    /// This node leads, and its image has everything from before its epoch: it may decide.
    pub active: bool,
}

/// A handle to this node's part in the quorum.
#[derive(Clone)]
pub struct Quorum {
    inner: Arc<Inner>,
}

struct Inner {
    /// Empty while this node only observes.
    raft: ArcSwapOption<Raft<TypeConfig>>,
    config: QuorumConfig,
    network: Network,
    storage: Storage,
    machine: StateMachine,
    published: Arc<ArcSwap<Image>>,
    leadership: watch::Sender<Leadership>,
    contact: Mutex<Contact>,
    candidacy: Candidacy,
    /// Followers that do not vote, while this node leads.
    observers: Mutex<Observers>,
    /// Whom this node follows from outside of the quorum, and where that listens.
    followed: Mutex<Option<(i32, Endpoint)>>,
    /// Whether this node is to follow the log from outside of the quorum.
    observing: watch::Sender<bool>,
    /// One turn into the quorum or out of it at a time; the task that follows from outside.
    turn: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// The last offset that is applied.
    progress: Arc<watch::Sender<i64>>,
    /// Held while an observer takes a snapshot in the place of its log.
    installing: Arc<tokio::sync::Mutex<()>>,
    /// This node's disk has no room for what the leader sends.
    has_no_room: AtomicBool,
    /// Whether this node stops: a lost majority is no fault then.
    expects_loss: AtomicBool,
    /// The voters change one at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
    random: Mutex<Random>,
    /// The log has grown enough for another snapshot.
    enough: Arc<Notify>,
}

impl Quorum {
    /// Opens the log, replays it, and joins the quorum; a sole voter leads when this returns, one
    /// of several does not wait for a leader. The image holds what was replayed and is known to be
    /// committed; everything after comes through the stream.
    pub async fn start(
        config: QuorumConfig,
    ) -> Result<(Quorum, Image, CommittedStream), QuorumError> {
        start::start(config).await
    }

    fn raft(&self) -> Option<Arc<Raft<TypeConfig>>> {
        self.inner.raft.load_full()
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
        let wrong = |current| QuorumError::WrongEpoch { expected: expected_epoch, current };
        let current = self.epoch();
        if current != expected_epoch {
            return Err(wrong(current));
        }
        let Some(raft) = self.raft() else {
            return Err(QuorumError::NotLeader { leader: self.leadership().borrow().leader });
        };
        let append_ms = now_ms();
        // A log that cannot be written ends Raft; a disk that is full now may have room later.
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

    /// Answers a message of another controller's `RaftTransport`.
    pub async fn answer(&self, message: Bytes) -> Result<Bytes, MessageError> {
        let (header, request) = messages::decode_request(message)?;
        let config = &self.inner.config;
        if header.to != config.node_id {
            return Err(MessageError::NotForThisNode(header.to));
        }
        let (meant, own) = (header.to_directory, config.directory_id());
        // With another directory this node does not know what it once has agreed to.
        if !meant.is_nil() && !own.is_nil() && meant != own {
            return Err(MessageError::OtherDirectory(meant));
        }
        if header.cluster_id != config.cluster_id {
            return Err(MessageError::OtherCluster(header.cluster_id));
        }
        let raft = match (self.raft(), &request) {
            (Some(raft), _) => raft,
            // The leader has this node learn, or vote: it is to take part from now on.
            (None, Request::Append(_) | Request::Snapshot(_)) => self.join().await?,
            (None, Request::Probe) => return Ok(messages::encode_probed(config.directory_id())),
            // It votes as far as it knows, and the others may need it.
            (None, Request::PreVote(_)) if self.is_voter() => self.join().await?,
            (None, Request::PreVote(request)) => {
                return Ok(messages::encode_ballot_result(&self.inner.pre_vote(request)));
            }
            // Somebody counts on its vote: that it was removed may not be committed, and that it was
            // added it may not have heard yet.
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
                self.hear_of(&request.vote, &raft);
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
        self.inner.config.is_voter(self.inner.storage.known().effective().membership())
    }

    /// Turns from an observer into a member of the quorum; it does so whether or not the sender of the
    /// message waits for it.
    async fn join(&self) -> Result<Arc<Raft<TypeConfig>>, MessageError> {
        let quorum = self.clone();
        let joined = tokio::spawn(async move { quorum.become_member().await }).await;
        joined.unwrap_or_else(|error| Err(MessageError::Stopped(error.to_string())))
    }

    /// On the log that there is.
    async fn become_member(&self) -> Result<Arc<Raft<TypeConfig>>, MessageError> {
        let stopped = |error: &dyn std::fmt::Display| MessageError::Stopped(error.to_string());
        let mut turn = self.inner.turn.lock().await;
        if let Some(raft) = self.raft() {
            return Ok(raft);
        }
        self.stop_observing(&mut turn).await;
        // What is in the log counts from now on as if it were on disk.
        self.inner.storage.sync().await.map_err(|error| stopped(&error))?;
        self.start_raft().await.map(Arc::new).map_err(|error| stopped(&error))
    }

    async fn stop_observing(&self, turn: &mut Option<tokio::task::JoinHandle<()>>) {
        self.inner.observing.send_replace(false);
        *lock(&self.inner.followed) = None;
        if let Some(task) = turn.take() {
            // Whatever became of it, it has ended; but what it left to a thread may go on.
            let _ = task.await;
            let _ = self.inner.installing.lock().await;
        }
    }

    /// Follows the log from outside of the quorum, which this node is no member of.
    async fn observe(&self) -> Result<(), QuorumError> {
        let mut turn = self.inner.turn.lock().await;
        let Some(observe) = self.inner.config.observe.clone() else {
            return Err(QuorumError::NotAVoter(self.inner.config.node_id));
        };
        let raft = self.inner.raft.swap(None);
        if let Some(raft) = &raft {
            let stopped = raft.shutdown().await;
            stopped.map_err(|error| QuorumError::Failed(error.to_string()))?;
        }
        self.stop_observing(&mut turn).await;
        // What a member had applied is what it knew to be committed; an observer learns that anew.
        if let Some(index) = raft.and_then(|_| self.uncommitted_removal()) {
            // It is not certain, and this node's vote is needed until it is.
            let path = self.inner.config.dir.clone();
            let cut = self.inner.storage.cut(index);
            cut.map_err(|source| QuorumError::Io { path, source })?;
            return self.start_raft().await.map(drop);
        }
        // An epoch that was only stood for is nobody's; the log tells which there have been.
        let epoch = self.inner.storage.log().last_epoch();
        let unknown = Leadership { leader: None, epoch, active: false };
        self.inner.leadership.send_replace(unknown);
        self.inner.observing.send_replace(true);
        *turn = Some(observer::spawn(&self.inner, observe));
        Ok(())
    }

    /// Where the log removes this node from the voters, if that is not known to be committed. This
    /// node's copy does not count for that.
    fn uncommitted_removal(&self) -> Option<u64> {
        let applied = self.inner.machine.machine().applied.map(|applied| applied.index);
        let known = self.inner.storage.known();
        let [.., before, last] = known.memberships.as_slice() else { return None };
        let config = &self.inner.config;
        let at = last.log_id().map(|at| at.index).filter(|at| Some(*at) > applied)?;
        let is_removal =
            config.is_voter(before.membership()) && !config.is_voter(last.membership());
        is_removal.then_some(at)
    }

    fn hear(&self) {
        lock(&self.inner.contact).hear();
    }

    /// A leader that this node accepts is heard when its message comes, however long the disk
    /// then takes.
    fn hear_of(&self, vote: &openraft::Vote<i32>, raft: &Raft<TypeConfig>) {
        if *vote >= raft.metrics().borrow().vote {
            self.hear();
        }
    }

    /// Everything that is committed.
    pub fn image(&self) -> Arc<Image> {
        self.inner.published.load_full()
    }

    /// Who leads the quorum, as far as this node knows.
    pub fn leader(&self) -> Option<i32> {
        self.inner.leadership.borrow().leader
    }

    /// Whether this voter's leader has sent nothing for so long that it must be gone. `leader` names
    /// it until another one is elected.
    pub fn has_lost_leader(&self) -> bool {
        let inner = &self.inner;
        let silence = lock(&inner.contact).silence();
        let is_silent = silence.is_none_or(|it| it > inner.config.timeouts.patience() * 2);
        self.raft().is_some() && self.leader() != Some(inner.config.node_id) && is_silent
    }

    /// The epoch that this node is in.
    pub fn epoch(&self) -> i32 {
        match self.raft() {
            Some(raft) => raft.metrics().borrow().current_term as i32,
            None => self.inner.leadership.borrow().epoch,
        }
    }

    /// Whether this node's metadata stays behind, since its disk has no room for more.
    pub fn has_no_room(&self) -> bool {
        let leads = self.leader() == Some(self.inner.config.node_id);
        !leads && self.inner.has_no_room.load(Ordering::Relaxed)
    }

    /// To be called when this node begins to stop: the other voters may be stopping too.
    pub fn expect_loss(&self) {
        self.inner.expects_loss.store(true, Ordering::Relaxed);
    }

    /// Who leads, as it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

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
        let heard = inner.network.heard();
        let now = now_ms();
        let log = inner.storage.log();
        let voter = |voter: Voter| {
            let here = voter.id == inner.config.node_id;
            let matching = replication.as_ref().and_then(|it| it.get(&voter.id).copied().flatten());
            let position = matching.and_then(|at| log.position(at.index));
            let end = if here { log.end_offset() } else { position.map_or(-1, |it| it.0.end()) };
            let heard = heard.get(&voter.id);
            ReplicaStatus {
                replica_id: voter.id,
                directory_id: voter.directory_id,
                log_end_offset: end,
                last_fetch_ms: if here { now } else { heard.map_or(-1, |it| it.answered_ms) },
                last_caught_up_ms: if here { now } else { heard.map_or(-1, |it| it.caught_up_ms) },
                endpoints: voter.endpoints,
            }
        };
        deciding.into_iter().map(voter).collect()
    }

    /// The voters that DescribeQuorum lists. A new voter is one of them once the quorum can lose
    /// another voter without it.
    fn deciding_voters(&self) -> Vec<Voter> {
        voters::deciding(self.inner.machine.machine().membership.membership())
    }

    /// Leaves the quorum with everything on disk.
    pub async fn stop(self) -> Result<(), QuorumError> {
        self.stop_observing(&mut *self.inner.turn.lock().await).await;
        if let Some(raft) = self.raft() {
            let stopped = raft.shutdown().await;
            stopped.map_err(|error| QuorumError::Failed(error.to_string()))?;
        }
        let path = self.inner.config.dir.clone();
        self.inner.storage.sync().await.map_err(|source| QuorumError::Io { path, source })
    }
}

/// Returns when this node does not lead in that epoch any more, and who does.
async fn deposed(raft: &Raft<TypeConfig>, epoch: i32) -> Option<i32> {
    let mut metrics = raft.metrics();
    let is_deposed = |metrics: &openraft::RaftMetrics<i32, Voter>| {
        // When Raft has failed, the proposal itself says why.
        metrics.running_state.is_ok()
            && (metrics.current_term as i32 != epoch || metrics.state != ServerState::Leader)
    };
    let leader = metrics.wait_for(is_deposed).await.map(|metrics| metrics.current_leader);
    match leader {
        Ok(leader) => leader,
        // Raft has ended, and says so to whoever waits for it.
        Err(_) => std::future::pending().await,
    }
}

/// Makes the directory a new quorum's, whose only voter this is, as `kafka-storage format
/// --standalone` does: other voters can be added. A directory that has a log is left as it is.
pub fn found(disk: &dyn Disk, dir: &Path, voter: &Voter) -> std::io::Result<()> {
    disk.create_dir_all(dir)?;
    let holds = |name: &str| name.ends_with(".log") || name.ends_with(".checkpoint");
    if disk.list(dir)?.iter().any(|entry| holds(&entry.name)) {
        return Ok(());
    }
    let content = checkpoint::Content {
        image: Image::default(),
        raft_index: 0,
        membership: types::StoredMembership::new(
            None,
            voters::of_voters(std::slice::from_ref(voter)),
        ),
        kraft_version: 1,
    };
    checkpoint::write(disk, dir, &content).map(drop)
}

/// The records of a snapshot file; `bootstrap.checkpoint`, which `kafka-storage format` leaves in a
/// log directory, is one too.
pub fn read_checkpoint(disk: &dyn Disk, path: &Path) -> Result<Vec<MetadataRecord>, QuorumError> {
    Ok(Checkpoint::read(disk, path)?.records)
}
