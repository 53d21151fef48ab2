//! How a node is elected: it asks the voters for their votes before openraft begins an election.
//!
//! openraft waits for a vote no longer than the leader's lease, and each of its attempts is in a
//! new epoch. A voter's vote counts only once it is on disk. With openraft alone, a voter whose
//! disk takes longer than the lease would therefore never help to elect a leader. So a candidate
//! does these steps, and repeats them until it is elected or another node leads:
//!
//! 1. It asks the voters whether they would elect it. They write nothing for that (KIP-996).
//! 2. It asks for their votes in the next epoch. While a voter's disk writes the vote, the
//!    candidate asks for the same vote again. The candidate does not enter that epoch itself, so
//!    the epoch stays the same.
//! 3. Once a majority has granted its vote, it starts openraft's election in that epoch. The
//!    candidate's own vote becomes durable, and the voters grant again at once what they have
//!    granted before.
//!
//! Two candidates with slow disks could each use up the other's vote. So a candidate refuses its
//! vote to a candidate that ranks below it, and a voter does not become a candidate while its disk
//! writes a vote.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use openraft::{
    LogId, Raft, Vote,
    error::Fatal,
    raft::{VoteRequest, VoteResponse},
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    Inner,
    messages::{self, MessageError, Request},
    network::Lane,
    types::{self, Membership, Metrics, TypeConfig, log_id},
};

/// How long a candidate waits for its own disk before it tries again.
const OWN_VOTE_MAX: Duration = Duration::from_secs(60);

/// The state of this node's own candidacy and of the votes that it grants.
#[derive(Debug, Default)]
pub struct Candidacy {
    /// While this node is a candidate: the end of its log, and until when it refuses its vote to
    /// candidates of a lower rank.
    standing: parking_lot::Mutex<Option<(Option<LogId<i32>>, Instant)>>,
    /// The number of votes for other candidates that openraft is deciding on or writing.
    granting: AtomicU32,
}

impl Candidacy {
    fn stand_until(&self, last: Option<LogId<i32>>, until: Instant) {
        *self.standing.lock() = Some((last, until));
    }

    /// Whether this node is a candidate itself and ranks above the other candidate. The longer log
    /// ranks higher, then the higher id.
    fn outranks(&self, node_id: i32, request: &VoteRequest<i32>) -> bool {
        let standing = self.standing.lock().filter(|(_, until)| Instant::now() < *until);
        let candidate = request.vote.leader_id.voted_for;
        standing.is_some_and(|(last, _)| {
            candidate != Some(node_id) && (last, Some(node_id)) > (request.last_log_id, candidate)
        })
    }

    /// Whether this node is deciding on or writing a vote for another candidate.
    pub fn is_granting(&self) -> bool {
        self.granting.load(Ordering::Acquire) > 0
    }
}

impl Inner {
    fn last_log_id(&self) -> Option<LogId<i32>> {
        self.storage.log().last_log_id().map(|(epoch, index)| log_id(epoch, index))
    }

    /// Whether this node would elect the candidate. It refuses while it leads, while it had contact
    /// with a leader within the lease, and while it is a candidate of a higher rank. It also
    /// refuses a candidate that lacks batches which this node has.
    pub(super) fn pre_vote(&self, request: &VoteRequest<i32>) -> VoteResponse<i32> {
        let (vote, leads) = match &*self.raft.load() {
            Some(raft) => {
                let metrics = raft.metrics();
                let metrics = metrics.borrow();
                (metrics.vote, types::leads(&metrics))
            }
            None => (self.storage.voter_state().vote.unwrap_or_default(), false),
        };
        let last = self.last_log_id();
        let silence = self.contact.lock().silence();
        let has_leader = silence.is_some_and(|silence| silence < self.config.timeouts.lease());
        let outranks = self.candidacy.outranks(self.config.node_id, request);
        let granted = !has_leader && !leads && !outranks && request.last_log_id >= last;
        VoteResponse::new(vote, last, granted)
    }

    /// Answers a candidate's request for a vote. A granted vote is durable.
    pub(super) async fn vote(
        self: &std::sync::Arc<Self>,
        raft: &std::sync::Arc<Raft<TypeConfig>>,
        request: VoteRequest<i32>,
    ) -> Result<VoteResponse<i32>, MessageError> {
        if self.candidacy.outranks(self.config.node_id, &request) {
            let vote = raft.metrics().borrow().vote;
            return Ok(VoteResponse::new(vote, self.last_log_id(), false));
        }
        let stopped = |error: &dyn std::fmt::Display| MessageError::Stopped(error.to_string());
        let (inner, raft) = (self.clone(), raft.clone());
        inner.candidacy.granting.fetch_add(1, Ordering::AcqRel);
        // The decision completes even if the candidate stops waiting.
        let voted = tokio::spawn(async move {
            let voted = raft.vote(request).await;
            if voted.as_ref().is_ok_and(|it| it.vote_granted) {
                inner.contact.lock().record();
            }
            inner.candidacy.granting.fetch_sub(1, Ordering::AcqRel);
            voted
        });
        let voted = voted.await.map_err(|error| stopped(&error))?;
        voted.map_err(|error| stopped(&error))
    }

    /// Makes one attempt to be elected, in the steps that the module describes.
    pub(super) async fn campaign(
        &self,
        raft: &Raft<TypeConfig>,
        metrics: &Metrics,
    ) -> Result<Poll, Fatal<i32>> {
        let timeouts = self.config.timeouts;
        let membership = metrics.membership_config.membership();
        let last = self.last_log_id();
        let ballot =
            VoteRequest::new(Vote::new(metrics.current_term + 1, self.config.node_id), last);
        let poll =
            self.ask(membership, Request::PreVote, &ballot, timeouts.response_timeout()).await;
        match poll {
            Poll::Elected => {}
            Poll::EpochUsed => return Ok(Poll::Refused),
            Poll::Refused | Poll::NoAnswer => return Ok(poll),
        }
        self.candidacy.stand_until(last, Instant::now() + OWN_VOTE_MAX);
        let outcome = match self.ask(membership, Request::Vote, &ballot, timeouts.lease()).await {
            // In a used epoch, openraft's election fails, but it makes the next attempt ask for votes
            // in a later epoch.
            Poll::Elected | Poll::EpochUsed if !self.is_overtaken(raft, metrics) => {
                self.elect(raft, metrics).await
            }
            _ => Ok(()),
        };
        self.candidacy.stand_until(last, Instant::now() + timeouts.contact_unit());
        outcome.map(|()| Poll::Elected)
    }

    /// Whether this node has since voted for another candidate or followed a leader.
    fn is_overtaken(&self, raft: &Raft<TypeConfig>, metrics: &Metrics) -> bool {
        let now = raft.metrics();
        let now = now.borrow();
        self.candidacy.is_granting()
            || (now.current_term, now.vote) != (metrics.current_term, metrics.vote)
    }

    /// Starts openraft's election, and waits until this node's own vote is on disk. A second
    /// election in the meantime would only be queued, in yet another epoch.
    async fn elect(&self, raft: &Raft<TypeConfig>, metrics: &Metrics) -> Result<(), Fatal<i32>> {
        raft.trigger().elect().await?;
        let mut now = raft.metrics();
        let has_voted = now.wait_for(|it| it.vote != metrics.vote || it.running_state.is_err());
        // Raft's end is reported elsewhere.
        let _ = timeout(OWN_VOTE_MAX, has_voted).await;
        Ok(())
    }

    /// Sends the request to all other voters, and returns once a majority has granted it or all
    /// have answered. This node's own vote counts.
    async fn ask(
        &self,
        membership: &Membership,
        request: fn(VoteRequest<i32>) -> Request,
        ballot: &VoteRequest<i32>,
        timeout: Duration,
    ) -> Poll {
        let id = self.config.node_id;
        let mut asked = JoinSet::new();
        let mut granted = vec![id];
        for voter in membership.voter_ids().filter(|voter| *voter != id) {
            let to = membership.get_node(&voter).cloned().unwrap_or_default();
            let to = to.peer(voter, Lane::Vote);
            let (network, request) = (self.network.clone(), request(ballot.clone()));
            asked.spawn(async move {
                let answer = network.call(to, &request, timeout).await.ok()?;
                let result = messages::decode_ballot_result(answer).ok()?;
                Some((voter, result))
            });
        }
        let is_majority = |granted: &[i32]| {
            membership.get_joint_config().iter().all(|config| {
                let votes = config.iter().filter(|voter| granted.contains(voter)).count();
                votes * 2 > config.len()
            })
        };
        let (mut otherwise, epoch) = (Poll::NoAnswer, ballot.vote.leader_id.term);
        while !is_majority(&granted) {
            match asked.join_next().await {
                Some(Ok(Some((voter, result)))) if result.vote_granted => granted.push(voter),
                Some(Ok(Some((_, result)))) if result.vote.leader_id.term >= epoch => {
                    otherwise = Poll::EpochUsed;
                }
                Some(Ok(Some(_))) if otherwise == Poll::NoAnswer => otherwise = Poll::Refused,
                Some(Ok(Some(_))) => {}
                Some(Ok(None) | Err(_)) => {}
                None => return otherwise,
            }
        }
        Poll::Elected
    }
}

/// The voters' response to a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    Elected,
    Refused,
    /// A voter refused because it is in the epoch already, or in a later one.
    EpochUsed,
    /// No voter refused, and too few responded.
    NoAnswer,
}
