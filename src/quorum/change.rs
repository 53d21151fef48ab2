//! Changes of the voters while the quorum works (KIP-853), one voter at a time. A new voter first
//! receives the log as a learner. Then openraft passes through a joint configuration of the voters
//! before and after the change. Error texts: Kafka's `AddVoterHandler`, `RemoveVoterHandler` and
//! `UpdateVoterHandler`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::{
    ChangeMembers, Raft,
    error::{ClientWriteError, RaftError},
};
use tokio::{sync::OwnedMutexGuard, time::timeout};
use uuid::Uuid;

use super::{
    Inner, Quorum, Replica,
    messages::{self, Request},
    network::{Lane, TransportError},
    types::{Membership, TypeConfig},
    voters::{self, Voter},
};
use crate::base::{environment::now_ms, kafka_uuid};

/// The longest time since an observer was caught up, in milliseconds, at which it may still become
/// a voter (Kafka's `LeaderState`).
const CAUGHT_UP_MS_MAX: i64 = 3_600_000;

/// Why a change of the voters was refused or is not complete.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VoterChangeError {
    #[error("this node does not lead the quorum")]
    NotLeader,
    #[error("Request timed out waiting for leader to handle previous voter change request")]
    Pending,
    #[error(
        "Request timed out waiting for leader to establish HWM and fence previous voter changes"
    )]
    NotEstablished,
    #[error("Cluster doesn't support {0} voter because the kraft.version feature is {1}")]
    Unsupported(&'static str, i16),
    #[error(
        "Request timed out waiting for voters to commit the latest voter change at {0} with HWM {1}"
    )]
    Uncommitted(i64, i64),
    #[error("The voter id for {0} is already part of the set of voters {1}.")]
    Duplicate(String, String),
    #[error("New voter {0} is not ready to receive requests")]
    NotReady(String),
    #[error("Aborted add voter operation for {0} since it is lagging behind")]
    Lagging(String),
    #[error("Cannot remove voter {0} from the set of voters {1}")]
    NotFound(String, String),
    #[error("{0}")]
    Failed(String),
}

/// A voter as Kafka prints it.
fn key(id: i32, directory_id: Uuid) -> String {
    let directory_id = match directory_id.is_nil() {
        true => "<undefined>".to_owned(),
        false => kafka_uuid::encode(directory_id),
    };
    format!("ReplicaKey(id={id}, directoryId={directory_id})")
}

fn keys(voters: &[Voter]) -> String {
    let keys: Vec<_> = voters.iter().map(|voter| key(voter.id, voter.directory_id)).collect();
    format!("[{}]", keys.join(", "))
}

/// The right to change the voters. Only one exists at a time.
struct ChangeGuard {
    _one_at_a_time: OwnedMutexGuard<()>,
    raft: Arc<Raft<TypeConfig>>,
    voters: Vec<Voter>,
}

impl Quorum {
    /// Adds a voter, and waits until the change is complete. The node must follow the log as an
    /// observer already. Fails if a step of the change takes longer than `within`.
    pub async fn add_voter(&self, new: Voter, within: Duration) -> Result<(), VoterChangeError> {
        self.learner(&new, within).await?.change(add(&new), within).await
    }

    /// Begins to add a voter as `add_voter` does, and returns once the new voter has the log. A
    /// task completes the change and logs a failure.
    pub async fn begin_adding_voter(
        &self,
        new: Voter,
        within: Duration,
    ) -> Result<(), VoterChangeError> {
        let guard = self.learner(&new, within).await?;
        tokio::spawn(async move {
            if let Err(error) = guard.change(add(&new), within).await {
                tracing::warn!(%error, voter = new.id, "cannot add the voter");
            }
        });
        Ok(())
    }

    /// Makes the new voter a learner, waits until it has the log, and returns the right to add it.
    async fn learner(
        &self,
        new: &Voter,
        within: Duration,
    ) -> Result<ChangeGuard, VoterChangeError> {
        let guard = self.begin_change(Some("adding"))?;
        let name = key(new.id, new.directory_id);
        if guard.voters.iter().any(|voter| voter.id == new.id) {
            return Err(VoterChangeError::Duplicate(name, keys(&guard.voters)));
        }
        let to = new.peer(new.id, Lane::Vote);
        let answer_within = self.inner.config.timeouts.response_timeout() * 4;
        let probed = self.inner.network.call(to, &Request::Probe, answer_within).await;
        let replica = Replica { id: new.id, directory_id: new.directory_id };
        let caught_up =
            self.inner.observers.lock().is_caught_up(replica, now_ms() - CAUGHT_UP_MS_MAX);
        match (probed, caught_up) {
            (Err(TransportError::Refused(_)), _) | (Err(_), true) => {
                return Err(VoterChangeError::NotReady(name));
            }
            // No node has recently fetched the log to its end with this id and directory.
            (_, false) => return Err(VoterChangeError::Lagging(name)),
            (Ok(_), true) => {}
        }
        guard.forget_other_directory(new, within).await?;
        let learned = timeout(within, guard.raft.add_learner(new.id, new.clone(), true)).await;
        match learned {
            Ok(Ok(_)) => Ok(guard),
            Ok(Err(error)) => Err(VoterChangeError::Failed(error.to_string())),
            // `tidy_up` removes the learner later.
            Err(_) => Err(VoterChangeError::Lagging(name)),
        }
    }

    /// Removes a voter, which continues as an observer. A leader that removes itself steps down.
    pub async fn remove_voter(
        &self,
        id: i32,
        directory_id: Uuid,
        within: Duration,
    ) -> Result<(), VoterChangeError> {
        let guard = self.begin_change(Some("removing"))?;
        let is_voter =
            guard.voters.iter().any(|voter| (voter.id, voter.directory_id) == (id, directory_id));
        if !is_voter || guard.voters.len() < 2 {
            let name = key(id, directory_id);
            return Err(VoterChangeError::NotFound(name, keys(&guard.voters)));
        }
        guard.change(ChangeMembers::RemoveVoters([id].into()), within).await
    }

    /// Changes a voter's endpoints and the versions that it supports.
    pub async fn update_voter(
        &self,
        voter: Voter,
        within: Duration,
    ) -> Result<(), VoterChangeError> {
        let guard = self.begin_change(Some("updating"))?;
        let known = guard.voters.iter().find(|it| it.id == voter.id);
        match known {
            Some(known) if *known == voter => return Ok(()),
            Some(known) if known.directory_id == voter.directory_id => {}
            _ => {
                let name = key(voter.id, voter.directory_id);
                return Err(VoterChangeError::NotFound(name, keys(&guard.voters)));
            }
        }
        guard.change(ChangeMembers::SetNodes([(voter.id, voter)].into()), within).await
    }

    /// The level of `kraft.version`: 0 if the voters are configured, 1 if they are in the log.
    pub fn kraft_version(&self) -> i16 {
        self.inner.machine.machine().kraft_version
    }

    /// Raises `kraft.version` to 1. The voters were configured by their ids until now. From then on
    /// they are in the log, with the directory ids that they report.
    pub async fn upgrade_kraft_version(&self, within: Duration) -> Result<(), VoterChangeError> {
        let guard = self.begin_change(None)?;
        if self.inner.storage.voter_state().kraft_version > 0 {
            return Ok(());
        }
        let config = &self.inner.config;
        let mut nodes = BTreeMap::new();
        for voter in &guard.voters {
            let directory_id = match voter.id == config.node_id {
                true => config.directory_id(),
                false => self.ask_directory(voter).await.unwrap_or_default(),
            };
            if directory_id.is_nil() {
                return Err(VoterChangeError::NotReady(key(voter.id, directory_id)));
            }
            nodes.insert(voter.id, Voter { directory_id, ..voter.clone() });
        }
        guard.change(ChangeMembers::SetNodes(nodes), within).await
    }

    /// The id of this node's metadata log directory.
    pub fn directory_id(&self) -> Uuid {
        self.inner.config.directory_id()
    }

    /// Whether the leader is a Sordini node. A controller of Apache Kafka answers no Raft messages.
    pub async fn leader_speaks_raft(&self) -> bool {
        let Some(id) = self.leader() else { return false };
        if id == self.inner.config.node_id {
            return true;
        }
        let Some(at) = self.endpoint(id) else { return false };
        let voter = Voter::new(id, Uuid::nil(), at);
        self.ask_directory(&voter).await.is_some()
    }

    /// The id of another voter's metadata log directory, or `None` if it does not answer.
    async fn ask_directory(&self, voter: &Voter) -> Option<Uuid> {
        let to = voter.peer(voter.id, Lane::Vote);
        let within = self.inner.config.timeouts.response_timeout() * 4;
        let answer = self.inner.network.call(to, &Request::Probe, within).await.ok()?;
        messages::decode_probed(answer).ok()
    }

    /// Takes the right to change the voters. Fails unless this node is the active controller and no
    /// other change is in progress. If `doing` is set, the change needs `kraft.version` 1.
    fn begin_change(&self, doing: Option<&'static str>) -> Result<ChangeGuard, VoterChangeError> {
        let leadership = *self.inner.leadership.borrow();
        let raft = self.raft().ok_or(VoterChangeError::NotLeader)?;
        if leadership.leader != Some(self.inner.config.node_id) {
            return Err(VoterChangeError::NotLeader);
        }
        let one_at_a_time = self.inner.changing.clone().try_lock_owned();
        let one_at_a_time = one_at_a_time.map_err(|_| VoterChangeError::Pending)?;
        if !leadership.active {
            return Err(VoterChangeError::NotEstablished);
        }
        let known = self.inner.storage.voter_state().clone();
        if !is_member(&self.inner, known.effective().membership()) {
            return Err(VoterChangeError::NotLeader);
        }
        if let (Some(doing), 0) = (doing, known.kraft_version) {
            return Err(VoterChangeError::Unsupported(doing, 0));
        }
        let at = known.effective().log_id().map(|at| at.index);
        let applied = self.inner.machine.machine().applied.map(|applied| applied.index);
        if at > applied {
            let log = self.inner.storage.log();
            let position = at.and_then(|at| log.position(at)).map(|it| it.0.base_offset);
            let high_watermark = self.image().offset + 1;
            return Err(VoterChangeError::Uncommitted(position.unwrap_or(-1), high_watermark));
        }
        let voters = voters::voters(known.effective().membership());
        Ok(ChangeGuard { _one_at_a_time: one_at_a_time, raft, voters })
    }
}

/// Whether this node is a voter or a learner. A leader that was removed leads for up to a heartbeat
/// longer. openraft lets no such leader change the members.
fn is_member(inner: &Inner, membership: &Membership) -> bool {
    membership.get_node(&inner.config.node_id).is_some()
}

fn add(new: &Voter) -> ChangeMembers<i32, Voter> {
    ChangeMembers::AddVoterIds([new.id].into())
}

impl ChangeGuard {
    /// Removes the new voter from the learners if it is a learner with another directory. A removed
    /// voter remains a learner for a while. With another directory, its log is another one, so it
    /// has to become a new learner.
    async fn forget_other_directory(
        &self,
        new: &Voter,
        within: Duration,
    ) -> Result<(), VoterChangeError> {
        let known = self.raft.metrics().borrow().membership_config.clone();
        let before = known.membership().get_node(&new.id);
        match before.is_some_and(|it| it.directory_id != new.directory_id) {
            true => self.change(ChangeMembers::RemoveNodes([new.id].into()), within).await,
            false => Ok(()),
        }
    }

    async fn change(
        &self,
        change: ChangeMembers<i32, Voter>,
        within: Duration,
    ) -> Result<(), VoterChangeError> {
        // A removed voter remains a learner for a while, so that it receives its removal.
        match timeout(within, self.raft.change_membership(change, true)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(VoterChangeError::NotLeader)
            }
            Ok(Err(error)) => Err(VoterChangeError::Failed(error.to_string())),
            Err(_) => Err(VoterChangeError::Pending),
        }
    }
}

/// Begins one step to complete changes of the voters that are incomplete. The first that applies:
/// - write voters to the log that only the format command's snapshot names,
/// - leave a joint configuration,
/// - remove the learners, if `forgets_learners`.
pub fn tidy_up(inner: &Inner, raft: &Raft<TypeConfig>, forgets_learners: bool) {
    let Ok(guard) = inner.changing.clone().try_lock_owned() else { return };
    let known = inner.storage.voter_state().clone();
    let stored = known.effective();
    let membership = stored.membership();
    let nodes: BTreeMap<i32, Voter> =
        membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
    let learners = membership.learner_ids().collect();
    let change = if known.kraft_version == 0 || !is_member(inner, membership) {
        return;
    } else if stored.log_id().is_none() {
        ChangeMembers::SetNodes(nodes)
    } else if membership.get_joint_config().len() > 1 {
        ChangeMembers::AddVoterIds([].into())
    } else if forgets_learners && membership.learner_ids().next().is_some() {
        ChangeMembers::RemoveNodes(learners)
    } else {
        return;
    };
    let raft = raft.clone();
    tokio::spawn(async move {
        if let Err(error) = raft.change_membership(change, true).await {
            tracing::warn!(%error, "cannot complete a change of the voters");
        }
        drop(guard);
    });
}
