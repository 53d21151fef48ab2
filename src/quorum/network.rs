//! openraft's network: sends Raft messages to other controllers through a `RaftTransport`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use openraft::{
    RaftNetwork, RaftNetworkFactory, SnapshotSegmentId,
    error::{
        InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, SnapshotMismatch,
        Unreachable,
    },
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    durability::NotDurable,
    messages::{self, Header, MessageError, Request},
    storage::Storage,
    types::TypeConfig,
    voters::{Endpoint, Membership, Voter},
};
use crate::base::environment::now_ms;

/// Why a message got no response.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The connection was refused: the node's machine is up, but its process has ended.
    #[error("connection refused: {0}")]
    Refused(String),
    /// There was no response, for any other reason.
    #[error("{0}")]
    NoAnswer(String),
}

/// The kind of a message. Each kind needs a connection of its own: responses come in order, and a
/// snapshot that is being written must not delay heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    Log,
    Vote,
    Snapshot,
}

/// The receiver of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: i32,
    /// Nil if unknown.
    pub directory_id: Uuid,
    pub at: Endpoint,
    pub lane: Lane,
}

impl Voter {
    /// This voter as the receiver of a message. Its id is openraft's key of the node.
    pub(super) fn peer(&self, id: i32, lane: Lane) -> Peer {
        let at = self.endpoints.first().cloned().unwrap_or_default();
        Peer { id, directory_id: self.directory_id, at, lane }
    }
}

/// Carries messages to other controllers, where `Quorum::answer` handles them.
pub trait RaftTransport: Send + Sync + 'static {
    /// Sends a message and returns the response. Fails with `Refused` only if the connection was
    /// refused, because a follower then starts an election at once. Fails with `NoAnswer` in any
    /// other case, and after `timeout` at the latest.
    fn call(
        &self,
        to: Peer,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}

/// The transport of a quorum of one. Every call fails.
#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

impl RaftTransport for NoPeers {
    fn call(
        &self,
        _: Peer,
        _: Bytes,
        _: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        Box::pin(async { Err(TransportError::NoAnswer("no such controller".into())) })
    }
}

/// Times of a voter's last response to the leader, and of the last one that showed it caught up.
#[derive(Debug, Clone, Copy)]
pub struct VoterContact {
    pub answered: Instant,
    /// Milliseconds since the Unix epoch.
    pub answered_ms: i64,
    /// Milliseconds since the Unix epoch; -1 when unknown.
    pub caught_up_ms: i64,
}

/// Sends messages to all other controllers, and records their responses.
#[derive(Clone)]
pub struct Network {
    transport: Arc<dyn RaftTransport>,
    cluster_id: Arc<str>,
    node_id: i32,
    storage: Storage,
    contacts: Arc<parking_lot::Mutex<BTreeMap<i32, VoterContact>>>,
    /// Voters that did not answer the last message of this leader.
    silent: Arc<parking_lot::Mutex<BTreeSet<i32>>>,
}

impl Network {
    pub fn new(transport: Arc<dyn RaftTransport>, cluster_id: &str, storage: Storage) -> Self {
        Self {
            transport,
            cluster_id: cluster_id.into(),
            node_id: storage.node_id(),
            storage,
            contacts: Arc::default(),
            silent: Arc::default(),
        }
    }

    /// The last response of each voter, by id.
    pub fn voter_contacts(&self) -> BTreeMap<i32, VoterContact> {
        self.contacts.lock().clone()
    }

    /// The time since a majority of the voters last answered this leader. A response counts even if
    /// the entries are not durable yet, so that a slow disk does not look like a lost voter. `None`
    /// if too few voters have ever answered.
    pub fn majority_silence(&self, membership: &Membership) -> Option<Duration> {
        let contacts = self.voter_contacts();
        let now = Instant::now();
        let answered = |id: &i32| match *id == self.node_id {
            true => Some(now),
            false => contacts.get(id).map(|it| it.answered),
        };
        let last = membership.get_joint_config().iter().map(|config| {
            let mut times: Vec<_> = config.iter().map(answered).collect();
            times.sort_unstable();
            // A majority has answered at this time or later.
            times.get(times.len().saturating_sub(1) / 2).copied().flatten()
        });
        last.min().flatten().map(|last| now - last)
    }

    pub async fn call(
        &self,
        to: Peer,
        request: &Request,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let cluster_id = self.cluster_id.to_string();
        let to_directory = to.directory_id;
        let header = Header { cluster_id, from: self.node_id, to: to.id, to_directory };
        let message = messages::encode_request(&header, request);
        self.transport.call(to, message, timeout).await
    }

    /// Logs the first of several messages that a voter does not answer. openraft's own log is off.
    fn note_silent(&self, voter: i32, error: &TransportError) {
        if self.silent.lock().insert(voter) {
            tracing::info!(voter, %error, "voter does not answer");
        }
    }

    /// Records a response of a voter.
    fn note(&self, id: i32, caught_up: bool) {
        if self.silent.lock().remove(&id) {
            tracing::info!(voter = id, "voter answers");
        }
        let answered_ms = now_ms();
        let mut contacts = self.contacts.lock();
        let caught_up_ms = match contacts.get(&id) {
            _ if caught_up => answered_ms,
            Some(before) => before.caught_up_ms,
            None => -1,
        };
        contacts.insert(id, VoterContact { answered: Instant::now(), answered_ms, caught_up_ms });
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, id: i32, node: &Voter) -> Client {
        Client { network: self.clone(), to: node.peer(id, Lane::Log) }
    }
}

/// Sends Raft messages to one other controller.
pub struct Client {
    network: Network,
    to: Peer,
}

type Failure<E = openraft::error::Infallible> = RPCError<i32, Voter, RaftError<i32, E>>;

fn no_answer<E: std::error::Error>(error: TransportError) -> Failure<E> {
    RPCError::Unreachable(Unreachable::new(&error))
}

fn not_durable(why: NotDurable) -> Failure {
    RPCError::Unreachable(Unreachable::new(&why))
}

fn bad_answer<E: std::error::Error>(error: MessageError) -> Failure<E> {
    RPCError::Network(NetworkError::new(&io::Error::other(error)))
}

impl Client {
    async fn call<E: std::error::Error>(
        &self,
        lane: Lane,
        request: &Request,
        option: &RPCOption,
    ) -> Result<Bytes, Failure<E>> {
        let to = Peer { lane, ..self.to.clone() };
        let answer = self.network.call(to, request, option.hard_ttl()).await;
        if let (Lane::Log, Err(error)) = (lane, &answer) {
            self.network.note_silent(self.to.id, error);
        }
        answer.map_err(no_answer)
    }
}

impl RaftNetwork<TypeConfig> for Client {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<i32>, Failure> {
        let deadline = Instant::now() + option.soft_ttl();
        let last = request.entries.last().map(|entry| entry.log_id);
        let previous = request.prev_log_id;
        let answer = self.call(Lane::Log, &Request::Append(request), &option).await?;
        let response = messages::decode_appended(answer).map_err(bad_answer)?;
        let is_caught_up = response.as_ref().is_some_and(|it| last.is_none() && it.is_success());
        self.network.note(self.to.id, is_caught_up);
        // openraft has no response for this case. After an error it pauses and sends the entries
        // again.
        let response = response.ok_or_else(|| not_durable(NotDurable::Yet))?;
        let acknowledged = match response {
            AppendEntriesResponse::Success => last,
            AppendEntriesResponse::PartialSuccess(upto) => upto.filter(|_| last.is_some()),
            _ => None,
        };
        // openraft takes no acknowledged entries from the response to a heartbeat.
        let Some(acknowledged) = acknowledged else { return Ok(response) };
        let range = (previous, acknowledged);
        let released = self.network.storage.release(self.to.id, range, deadline).await;
        released.map_err(not_durable)
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<i32>, Failure<InstallSnapshotError>> {
        let (id, offset) = (request.meta.snapshot_id.clone(), request.offset);
        let answer = self.call(Lane::Snapshot, &Request::Snapshot(request), &option).await?;
        self.network.note(self.to.id, false);
        match messages::decode_chunk_result(answer).map_err(bad_answer)? {
            Some(vote) => Ok(InstallSnapshotResponse { vote }),
            None => {
                let segment = |offset| SnapshotSegmentId { id: id.clone(), offset };
                let mismatch = SnapshotMismatch { expect: segment(0), got: segment(offset) };
                let error = InstallSnapshotError::SnapshotMismatch(mismatch);
                Err(RPCError::RemoteError(RemoteError::new(self.to.id, RaftError::APIError(error))))
            }
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<i32>,
        option: RPCOption,
    ) -> Result<VoteResponse<i32>, Failure> {
        let answer = self.call(Lane::Vote, &Request::Vote(request), &option).await?;
        messages::decode_ballot_result(answer).map_err(bad_answer)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(100)))
    }
}
