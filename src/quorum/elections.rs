//! Heartbeats and elections: the timers around openraft, and the published leadership.
//!
//! openraft's own timers are off. openraft draws its election timeout once per start, so two nodes
//! can tie forever. And a node that was cut off deposes a healthy leader with its higher epoch.
//! Here, each attempt draws a new timeout, and a candidate first asks whether it would be elected
//! (KIP-996). As in Kafka, a leader resigns if no majority answers it for a while. If the leader's
//! process has ended, a follower starts an election before its timeout.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use openraft::{
    Raft, ServerState, Vote,
    error::{Fatal, RaftError},
    raft::VoteRequest,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Inner, Leadership, Quorum,
    candidacy::Poll,
    change,
    messages::Request,
    network::{Lane, TransportError},
    types::{Metrics, TypeConfig, leads, log_id},
};

/// More bytes than a new leader's first batch has.
const FIRST_BATCH_BYTES: u64 = 4096;

/// Kafka's two timeouts of the quorum. All other times are derived from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// `controller.quorum.election.timeout.ms`
    pub election_ms: u64,
    /// `controller.quorum.fetch.timeout.ms`
    pub fetch_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { election_ms: 1_000, fetch_ms: 2_000 }
    }
}

impl Timeouts {
    /// One `of`-th of `ms`, at least `least` milliseconds.
    fn part(ms: u64, of: u64, least: u64) -> Duration {
        Duration::from_millis((ms / of).max(least))
    }

    /// The interval of a leader's heartbeats.
    pub fn heartbeat(self) -> Duration {
        Self::part(self.fetch_ms, 20, 10)
    }

    /// The longest wait for the response to a message.
    pub fn response_timeout(self) -> Duration {
        Self::part(self.fetch_ms, 8, 25)
    }

    /// For this long after a leader's message, a node grants no vote to another candidate.
    pub fn lease(self) -> Duration {
        Self::part(self.fetch_ms, 5, 40)
    }

    /// After this long without a message, a follower checks whether the leader's process still
    /// runs.
    fn probe_after(self) -> Duration {
        self.heartbeat() * 3
    }

    /// The unit of the times without contact. A follower's election timeout is drawn between 1.5
    /// and 3 times this.
    pub(super) fn contact_unit(self) -> Duration {
        Self::part(self.fetch_ms, 2, 100)
    }

    /// A leader resigns if no majority answers it for this long.
    fn resign_after(self) -> Duration {
        self.contact_unit() * 3 / 2
    }

    /// The longest pause before the next attempt to be elected.
    fn candidacy_pause_max(self) -> Duration {
        Self::part(self.election_ms, 3, 30)
    }
}

/// The last contact with a leader: when its last message arrived, or when this node last granted a
/// vote to a candidate.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeaderContact {
    last: Option<Instant>,
}

impl LeaderContact {
    /// Records a contact now.
    pub fn record(&mut self) {
        self.last = Some(Instant::now());
    }

    /// The time since the last contact. `None` if there was none since the start.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.last.map(|last| last.elapsed())
    }
}

/// Starts the tasks that watch and drive Raft. They end with Raft and do not keep it alive.
pub fn spawn(inner: &Arc<Inner>, raft: &Raft<TypeConfig>) {
    let (weak, metrics) = (Arc::downgrade(inner), raft.metrics());
    inner.publish_leadership(&metrics.borrow());
    tokio::spawn(follow(weak.clone(), metrics.clone()));
    tokio::spawn(Timers::new(inner, metrics).run(weak));
}

/// Publishes the leadership and starts snapshots, until Raft ends.
async fn follow(weak: Weak<Inner>, mut metrics: watch::Receiver<Metrics>) {
    let Some(enough) = weak.upgrade().map(|inner| inner.enough.clone()) else { return };
    loop {
        tokio::select! {
            biased;
            changed = metrics.changed() => {
                let Some(inner) = weak.upgrade().filter(|it| it.raft.load().is_some()) else {
                    return;
                };
                inner.publish_leadership(&metrics.borrow_and_update());
                let ended = match &metrics.borrow().running_state {
                    Err(Fatal::Stopped) => return,
                    Err(fatal) => fatal.to_string(),
                    Ok(()) if changed.is_err() => "it stopped by itself".to_owned(),
                    Ok(()) => continue,
                };
                return inner.fail(&ended);
            }
            () = enough.notified() => {
                let Some(inner) = weak.upgrade() else { return };
                tokio::spawn(async move { inner.snapshot().await });
            }
        }
    }
}

/// Stops Raft on this node when its log cannot be written any more.
pub(super) async fn watch_disk(weak: Weak<Inner>, mut failure: watch::Receiver<Option<String>>) {
    let why = match failure.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        // The quorum has ended.
        Err(_) => return,
    };
    let Some(inner) = weak.upgrade() else { return };
    inner.fail(&why);
    if let Some(raft) = inner.raft.load_full() {
        // The shutdown ends waiting proposals.
        let _ = raft.shutdown().await;
    }
}

impl Inner {
    /// Ends the stream of committed batches, because nothing more will be applied. The reader of
    /// the stream must stop the process.
    pub(super) fn fail(&self, why: &str) {
        tracing::error!(why, "the metadata log has failed");
        self.machine.machine().committed = None;
    }

    /// Writes a snapshot, and makes openraft purge the log before it.
    async fn snapshot(&self) {
        if let Err(error) = self.machine.write_snapshot().await {
            return tracing::error!(%error, "cannot write a metadata snapshot");
        }
        let has_any = self.machine.machine().snapshot.is_some();
        if let Some(raft) = self.raft.load_full().filter(|_| has_any) {
            let _ = raft.trigger().snapshot().await; // `follow` reports Raft's end.
        }
    }

    /// Publishes the leadership as of these metrics.
    fn publish_leadership(&self, metrics: &Metrics) {
        let epoch = metrics.current_term as i32;
        let leads = leads(metrics) && metrics.running_state.is_ok();
        // The first batch of its epoch is applied, so everything before it is applied, too.
        let active = leads && self.published.load().epoch == epoch;
        let leader = metrics.current_leader.filter(|&id| leads || id != self.config.node_id);
        let now = Leadership { leader, epoch, active };
        self.leadership.send_if_modified(|known| std::mem::replace(known, now) != now);
    }
}

/// The timers of one member.
struct Timers {
    timeouts: Timeouts,
    metrics: watch::Receiver<Metrics>,
    /// When the next step is due.
    due: Instant,
    /// This follower's current election timeout.
    election_timeout: Duration,
    led_since: Option<Instant>,
    started: Instant,
    /// Since when there have been learners.
    learners: Option<Instant>,
    /// Since when this node has tried to be elected without a leader, and whether it has warned of
    /// that.
    campaigning_since: Option<Instant>,
    has_warned: bool,
}

impl Timers {
    fn new(inner: &Inner, metrics: watch::Receiver<Metrics>) -> Self {
        let timeouts = inner.config.timeouts;
        let mut random = inner.random.lock();
        // There was no contact yet. The node whose timer ends first becomes a candidate.
        let due = Instant::now() + random.about(timeouts.heartbeat() * 2);
        let election_timeout = random.about(timeouts.contact_unit() * 3);
        Self {
            timeouts,
            metrics,
            due,
            election_timeout,
            led_since: None,
            started: Instant::now(),
            learners: None,
            campaigning_since: None,
            has_warned: false,
        }
    }

    async fn run(mut self, weak: Weak<Inner>) {
        loop {
            // A leader without other members sleeps.
            let (has_work, running) = {
                let metrics = self.metrics.borrow_and_update();
                let has_others = metrics.membership_config.nodes().any(|(id, _)| *id != metrics.id);
                (has_others || !leads(&metrics), metrics.running_state.is_ok())
            };
            if !running {
                return;
            }
            tokio::select! {
                biased;
                () = sleep_until(self.due), if has_work => {}
                changed = self.metrics.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
            }
            let Some(inner) = weak.upgrade() else { return };
            let Some(raft) = inner.raft.load_full() else { return };
            if self.step(&inner, &raft).await.is_err() {
                return;
            }
        }
    }

    /// Does what is due in the current role: heartbeats as a leader, elections as a follower or
    /// candidate. A learner without contact becomes an observer.
    async fn step(
        &mut self,
        inner: &Arc<Inner>,
        raft: &Raft<TypeConfig>,
    ) -> Result<(), Fatal<i32>> {
        let metrics = self.metrics.borrow().clone();
        // openraft needs ticks to step down when this node is no longer a voter.
        raft.runtime_config().tick(true);
        self.due = Instant::now() + inner.random.lock().about(self.timeouts.heartbeat());
        match metrics.state {
            ServerState::Leader if leads(&metrics) => {
                self.due = Instant::now() + self.timeouts.heartbeat();
                let since = *self.led_since.get_or_insert_with(Instant::now);
                raft.trigger().heartbeat().await?;
                let membership = metrics.membership_config.membership();
                let silence = inner.network.majority_silence(membership).unwrap_or(Duration::MAX);
                if silence.min(since.elapsed()) > self.timeouts.resign_after() {
                    resign(inner, raft, &metrics).await?;
                }
                if inner.leadership.borrow().active {
                    let forgets = self.learners_since(&metrics);
                    change::tidy_up(inner, raft, forgets);
                }
            }
            ServerState::Leader | ServerState::Follower | ServerState::Candidate => {
                self.led_since = None;
                if self.shall_campaign(inner, &metrics).await {
                    self.warn_of_no_leader(inner, &metrics);
                    self.campaign(inner, raft, &metrics).await?;
                } else {
                    (self.campaigning_since, self.has_warned) = (None, false);
                }
            }
            ServerState::Learner => {
                self.led_since = None;
                if self.is_forgotten(inner, self.timeouts.contact_unit() * 2) {
                    self.leave(inner);
                }
            }
            ServerState::Shutdown => {}
        }
        Ok(())
    }

    /// Whether there have been learners for so long that each should have received the change that
    /// made it a learner.
    fn learners_since(&mut self, metrics: &Metrics) -> bool {
        if metrics.membership_config.membership().learner_ids().next().is_none() {
            self.learners = None;
            return false;
        }
        let since = *self.learners.get_or_insert_with(Instant::now);
        since.elapsed() > self.timeouts.contact_unit() * 2
    }

    /// Whether this node has had no contact with a leader for longer than `after`. Always false if
    /// it cannot observe.
    fn is_forgotten(&self, inner: &Inner, after: Duration) -> bool {
        let silence = inner.contact.lock().silence().unwrap_or(Duration::MAX);
        inner.config.observe.is_some() && silence.min(self.started.elapsed()) > after
    }

    /// Makes this node an observer, in a task of its own.
    fn leave(&self, inner: &Arc<Inner>) {
        let quorum = Quorum { inner: inner.clone() };
        tokio::spawn(async move {
            if let Err(error) = quorum.observe().await {
                tracing::error!(%error, "cannot continue as an observer");
            }
        });
    }

    /// Whether this node should become a candidate now: its election timeout has passed, or the
    /// leader's process has ended.
    async fn shall_campaign(&self, inner: &Inner, metrics: &Metrics) -> bool {
        if inner.candidacy.is_granting() {
            return false;
        }
        let Some(silence) = inner.contact.lock().silence() else { return true };
        // As a candidate, this node was not elected. Another node may have been a candidate, too.
        if silence >= self.election_timeout || metrics.state == ServerState::Candidate {
            return true;
        }
        let leader = metrics.current_leader.filter(|id| *id != metrics.id);
        let Some(leader) = leader.filter(|_| silence >= self.timeouts.probe_after()) else {
            return false;
        };
        let membership = metrics.membership_config.membership();
        let Some(node) = membership.get_node(&leader) else { return false };
        let to = node.peer(leader, Lane::Vote);
        let answer =
            inner.network.call(to, &Request::Probe, self.timeouts.response_timeout()).await;
        matches!(answer, Err(TransportError::Refused(_)))
    }

    /// Warns once if there has been no leader for ten times `Timeouts::contact_unit`. The warning
    /// shows the sets of voters: there are two during a change of the voters, and a leader needs a
    /// majority of each.
    fn warn_of_no_leader(&mut self, inner: &Inner, metrics: &Metrics) {
        let since = *self.campaigning_since.get_or_insert_with(Instant::now);
        let is_expected = inner.expects_loss.load(Ordering::Relaxed);
        if self.has_warned || is_expected || since.elapsed() < self.timeouts.contact_unit() * 10 {
            return;
        }
        self.has_warned = true;
        let voters = metrics.membership_config.membership().get_joint_config();
        let (epoch, last_leader) = (metrics.current_term, metrics.current_leader);
        tracing::warn!(epoch, ?last_leader, ?voters, "no majority of the voters elects a leader");
    }

    /// Starts an election if enough voters say that they would elect this node.
    async fn campaign(
        &mut self,
        inner: &Arc<Inner>,
        raft: &Raft<TypeConfig>,
        metrics: &Metrics,
    ) -> Result<(), Fatal<i32>> {
        {
            let mut random = inner.random.lock();
            self.due = Instant::now() + random.about(self.timeouts.candidacy_pause_max());
            self.election_timeout = random.about(self.timeouts.contact_unit() * 3);
        }
        // A new leader writes a batch first. openraft stops for good if there is no room for it.
        if let Err(error) = inner.storage.reserve(FIRST_BATCH_BYTES).await {
            tracing::warn!(%error, "the metadata log cannot grow: this node is not a candidate");
            return Ok(());
        }
        match inner.campaign(raft, metrics).await? {
            // The others may have a leader that sends nothing to this node, because this node was
            // removed from the voters and has not received that. As an observer, it gets the log.
            Poll::Refused if self.is_forgotten(inner, self.timeouts.contact_unit() * 10) => {
                self.leave(inner);
            }
            _ => {}
        }
        // The voters answer openraft's election before the next attempt.
        self.due = self.due.max(Instant::now() + self.timeouts.response_timeout());
        Ok(())
    }
}

/// Makes this leader step down: it votes for another voter in the next epoch.
async fn resign(
    inner: &Inner,
    raft: &Raft<TypeConfig>,
    metrics: &Metrics,
) -> Result<(), Fatal<i32>> {
    let mut others = metrics.membership_config.membership().voter_ids();
    let Some(other) = others.find(|voter| *voter != metrics.id) else { return Ok(()) };
    let epoch = metrics.current_term;
    match inner.expects_loss.load(Ordering::Relaxed) {
        true => tracing::info!(epoch, "quorum leader resigned: no majority answers"),
        false => tracing::warn!(epoch, "quorum leader resigned: no majority answers"),
    }
    let last = inner.storage.log().last_log_id().map(|(epoch, index)| log_id(epoch, index));
    let request = VoteRequest::new(Vote::new(metrics.current_term + 1, other), last);
    match raft.vote(request).await {
        Ok(_) => Ok(()),
        Err(RaftError::Fatal(fatal)) => Err(fatal),
        Err(RaftError::APIError(never)) => match never {},
    }
}
