//! The leader's state: the position of each follower, the in-sync replicas (ISR), and the change of
//! the ISR that is proposed to the controller. The rules are those of Kafka's `Partition`,
//! `PartitionState` and `Replica`.

use crate::{
    base::planted_bugs::{Bug, has_bug},
    metadata::PartitionImage,
};

/// How long clients may take to find a new leader, or to send a refused batch again.
const UNSURE_MS: i64 = 2_000;
/// How long after the response to a fetch the follower's next fetch may arrive.
const NEXT_FETCH_MS: i64 = 1_500;

/// Whether clients may not have reacted yet to an event at `then_ms`. The event may be later than
/// `now_ms`, which is when a request arrived: the request may have waited since.
pub fn is_recent(then_ms: i64, now_ms: i64) -> bool {
    (-UNSURE_MS..UNSURE_MS).contains(&now_ms.saturating_sub(then_ms))
}

/// The configuration that decides which replicas are in sync and what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsrRules {
    /// `min.insync.replicas`. A partition with fewer replicas needs only these.
    pub min_in_sync: usize,
    /// `replica.lag.time.max.ms`
    pub lag_max_ms: i64,
}

impl Default for IsrRules {
    fn default() -> Self {
        Self { min_in_sync: 1, lag_max_ms: 30_000 }
    }
}

/// The state of a broker's registration, from metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerStatus {
    /// The broker epoch; `None` if the broker is fenced or not registered.
    pub epoch: Option<i64>,
    pub is_shutting_down: bool,
}

/// A change of the in-sync replicas that the leader proposes to the controller (AlterPartition).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    /// The new in-sync replicas, each with the broker epoch of its last fetch. The epoch is -1 if
    /// it is unknown, and for the leader.
    pub isr: Vec<(i32, i64)>,
    pub change: IsrChange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsrChange {
    Expand(i32),
    Shrink(Vec<i32>),
}

/// The controller's answer to a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposalAnswer {
    Committed {
        leader_epoch: i32,
        partition_epoch: i32,
        isr: Vec<i32>,
    },
    /// The controller has not applied the proposal and never will.
    Refused,
    /// The controller has a newer state of the partition, which arrives with the metadata.
    Outdated,
}

/// The state of a follower, as its fetches show it to the leader. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    pub id: i32,
    /// -1 before its first fetch.
    pub log_end: i64,
    pub log_start: i64,
    /// When the follower last had all of the leader's records.
    pub caught_up_ms: i64,
    last_fetch_ms: i64,
    /// How long the leader may hold the last fetch while there are no new records.
    max_wait_ms: i64,
    /// The leader's log end at the last fetch.
    last_leader_end: i64,
    /// The broker epoch of its last fetch: -1 if the request had none, `None` before the first.
    broker_epoch: Option<i64>,
    status: BrokerStatus,
}

impl Follower {
    fn unknown(id: i32) -> Self {
        Self {
            id,
            log_end: -1,
            log_start: -1,
            caught_up_ms: 0,
            last_fetch_ms: 0,
            max_wait_ms: 0,
            last_leader_end: -1,
            broker_epoch: None,
            status: BrokerStatus::default(),
        }
    }

    /// Whether the follower's next fetch is overdue. While there are no new records, a follower
    /// fetches once in `replica.fetch.wait.max.ms`. `now_ms` may be before the last fetch, because
    /// it may be the arrival of an earlier request.
    pub fn is_silent(&self, now_ms: i64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(self.last_fetch_ms);
        !(-UNSURE_MS..self.max_wait_ms + NEXT_FETCH_MS).contains(&elapsed_ms)
    }

    fn fetched(&mut self, fetch: &FollowerFetch, leader_end: i64, now_ms: i64) {
        // A follower that fetches from what was the leader's log end at its previous fetch had all
        // records at that time.
        if fetch.fetch_offset >= leader_end {
            self.caught_up_ms = self.caught_up_ms.max(now_ms);
        } else if fetch.fetch_offset >= self.last_leader_end {
            self.caught_up_ms = self.caught_up_ms.max(self.last_fetch_ms);
        }
        self.log_end = fetch.fetch_offset;
        self.log_start = fetch.log_start;
        self.last_leader_end = self.last_leader_end.max(leader_end);
        self.last_fetch_ms = now_ms;
        self.max_wait_ms = fetch.max_wait_ms;
        self.broker_epoch = Some(fetch.broker_epoch);
    }

    fn is_caught_up(&self, leader_end: i64, now_ms: i64, lag_max_ms: i64) -> bool {
        self.log_end == leader_end || now_ms.saturating_sub(self.caught_up_ms) <= lag_max_ms
    }

    /// Whether the controller would add the follower to the in-sync replicas. The broker epoch of
    /// its last fetch must be current: a broker that has restarted since may have lost records.
    fn may_join(&self) -> bool {
        let is_same = match (self.broker_epoch, self.status.epoch) {
            (Some(fetched), Some(known)) => fetched == -1 || fetched == known,
            _ => false,
        };
        is_same && !self.status.is_shutting_down
    }
}

/// The fields of a follower's fetch from which the leader updates its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    pub replica: i32,
    /// -1 before version 15 of Fetch.
    pub broker_epoch: i64,
    pub fetch_offset: i64,
    /// Leader epoch of the follower's last record; -1 if it has none.
    pub last_fetched_epoch: i32,
    /// The follower's log start.
    pub log_start: i64,
    /// How long the leader may wait for records before it answers, in milliseconds.
    pub max_wait_ms: i64,
}

/// The part of a replica's state that only a leader has.
#[derive(Clone, Debug)]
pub struct LeaderState {
    me: i32,
    partition_epoch: i32,
    /// The log end when the leader epoch began.
    epoch_start: i64,
    /// When this replica took over from another leader; `None` if no other broker led before.
    took_over_ms: Option<i64>,
    /// The in-sync replicas that the controller has committed.
    isr: Vec<i32>,
    /// The proposal that the controller has not answered yet. There is at most one at a time.
    pending: Option<Proposal>,
    followers: Vec<Follower>,
}

impl LeaderState {
    /// The state of a leader that is the only replica.
    pub fn alone() -> Self {
        Self {
            me: -1,
            partition_epoch: -1,
            epoch_start: 0,
            took_over_ms: None,
            isr: vec![-1],
            pending: None,
            followers: Vec::new(),
        }
    }

    /// Starts a leader epoch at log end `epoch_start`. `before` is this leader's state in the
    /// previous epoch, if the positions of the followers in it are still valid.
    pub fn new(
        (me, image): (i32, &PartitionImage),
        before: Option<&Self>,
        epoch_start: i64,
        now_ms: i64,
    ) -> Self {
        let follower = |id: i32| {
            let known = before.and_then(|before| before.follower(id)).copied();
            let is_in_sync = image.isr.contains(&id);
            let since_ms = if is_in_sync { now_ms } else { 0 };
            let mut follower = known.unwrap_or_else(|| Follower::unknown(id));
            if known.is_some() {
                follower.last_leader_end = epoch_start;
                follower.last_fetch_ms = since_ms;
            }
            follower.caught_up_ms = since_ms;
            follower
        };
        Self {
            me,
            partition_epoch: image.partition_epoch,
            epoch_start,
            took_over_ms: None,
            isr: image.isr.clone(),
            pending: None,
            followers: others(me, image).map(follower).collect(),
        }
    }

    /// Notes that another broker led until now.
    pub fn take_over(&mut self, now_ms: i64) {
        self.took_over_ms = Some(now_ms);
    }

    /// Whether clients may send to two leaders at the moment: this leader has just taken over from
    /// another one, or it may have been replaced, because an in-sync follower has stopped fetching.
    pub fn may_have_two_leaders(&self, now_ms: i64) -> bool {
        let has_just_taken_over = self.took_over_ms.is_some_and(|ms| is_recent(ms, now_ms));
        let mut in_sync = self.followers.iter().filter(|it| self.isr.contains(&it.id));
        has_just_taken_over || in_sync.any(|it| it.is_silent(now_ms))
    }

    /// Applies a newer state of the same leader epoch. A pending proposal becomes void: the
    /// controller only accepts proposals for the newest partition epoch.
    pub fn update(&mut self, (me, image): (i32, &PartitionImage)) {
        let known = |id| self.follower(id).copied().unwrap_or_else(|| Follower::unknown(id));
        self.followers = others(me, image).map(known).collect();
        self.me = me;
        self.isr = image.isr.clone();
        self.partition_epoch = image.partition_epoch;
        self.pending = None;
    }

    pub fn set_broker_statuses(&mut self, status: impl Fn(i32) -> BrokerStatus) {
        for follower in &mut self.followers {
            follower.status = status(follower.id);
        }
    }

    pub fn set_broker_status(&mut self, id: i32, status: BrokerStatus) {
        if let Some(follower) = self.followers.iter_mut().find(|it| it.id == id) {
            follower.status = status;
        }
    }

    pub fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    pub fn followers(&self) -> &[Follower] {
        &self.followers
    }

    pub fn follower(&self, id: i32) -> Option<&Follower> {
        self.followers.iter().find(|follower| follower.id == id)
    }

    pub fn epoch_start(&self) -> i64 {
        self.epoch_start
    }

    pub fn isr(&self) -> &[i32] {
        &self.isr
    }

    pub fn pending(&self) -> Option<&Proposal> {
        self.pending.as_ref()
    }

    /// Whether the replica is in sync, or a pending proposal adds it: the controller may already
    /// have committed that proposal (Kafka's maximal ISR).
    fn is_in_maximal_isr(&self, id: i32) -> bool {
        let is_joining = |it: &Proposal| it.change == IsrChange::Expand(id);
        self.isr.contains(&id) || self.pending.as_ref().is_some_and(is_joining)
    }

    fn maximal_isr_len(&self) -> usize {
        let is_joining = |it: &&Proposal| matches!(it.change, IsrChange::Expand(_));
        self.isr.len() + self.pending.iter().filter(is_joining).count()
    }

    pub fn counts(&self, rules: &IsrRules) -> IsrCounts {
        IsrCounts {
            replicas: self.followers.len() + 1,
            in_sync: self.isr.len(),
            maximal: self.maximal_isr_len(),
            min: rules.min_in_sync.min(self.followers.len() + 1),
        }
    }

    /// The offset to which the high watermark may rise: the smallest log end of the replicas in the
    /// maximal ISR, and of followers that have caught up, so that these can join the ISR. `None` if
    /// fewer than `min.insync.replicas` are in sync; the high watermark then stays (KIP-966).
    pub fn committed_end(&self, log_end: i64, rules: &IsrRules, now_ms: i64) -> Option<i64> {
        if self.isr.len() < rules.min_in_sync.min(self.followers.len() + 1) {
            return None;
        }
        let counts = |it: &&Follower| {
            self.is_in_maximal_isr(it.id)
                || (it.is_caught_up(log_end, now_ms, rules.lag_max_ms) && it.may_join())
        };
        let ends = self.followers.iter().filter(counts).map(|it| it.log_end);
        Some(ends.fold(log_end, i64::min))
    }

    /// The smallest log start of the leader and of followers on registered brokers that are not
    /// fenced.
    pub fn low_watermark(&self, log_start: i64) -> i64 {
        let alive = self.followers.iter().filter(|it| it.status.epoch.is_some());
        alive.map(|it| it.log_start).fold(log_start, i64::min)
    }

    /// Updates the follower's state from a fetch. Returns false if the broker has no replica, or if
    /// its broker epoch is older than that of its registration.
    pub fn fetched(&mut self, fetch: &FollowerFetch, log_end: i64, now_ms: i64) -> bool {
        let Some(at) = self.followers.iter().position(|it| it.id == fetch.replica) else {
            return false;
        };
        let follower = &mut self.followers[at];
        let is_stale = follower.status.epoch.is_some_and(|known| known > fetch.broker_epoch);
        if is_stale && fetch.broker_epoch != -1 {
            return false;
        }
        follower.fetched(fetch, log_end, now_ms);
        true
    }

    /// Proposes to add the follower to the in-sync replicas, if it has reached the high watermark
    /// and the start of the leader epoch. Does nothing while a proposal is pending.
    pub fn expand(&mut self, id: i32, leader_epoch: i32, high_watermark: i64) {
        let can_join = |it: &Follower| {
            it.log_end >= high_watermark && it.log_end >= self.epoch_start && it.may_join()
        };
        if self.pending.is_none()
            && !self.isr.contains(&id)
            && self.follower(id).is_some_and(can_join)
        {
            let isr: Vec<_> = self.isr.iter().copied().chain([id]).collect();
            self.propose(IsrChange::Expand(id), &isr, leader_epoch);
        }
    }

    /// Proposes to remove the followers that have not caught up within `replica.lag.time.max.ms`
    /// from the in-sync replicas. Does nothing while a proposal is pending.
    pub fn shrink(&mut self, leader_epoch: i32, log_end: i64, rules: &IsrRules, now_ms: i64) {
        if self.pending.is_some() {
            return;
        }
        let is_out = |id: &i32| {
            let follower = self.follower(*id);
            *id != self.me
                && follower.is_none_or(|it| !it.is_caught_up(log_end, now_ms, rules.lag_max_ms))
        };
        let (out, isr): (Vec<_>, Vec<_>) = self.isr.iter().partition(|id| is_out(id));
        if !out.is_empty() {
            if has_bug(Bug::StaleIsr) {
                self.isr = isr.clone();
            }
            self.propose(IsrChange::Shrink(out), &isr, leader_epoch);
        }
    }

    fn propose(&mut self, change: IsrChange, isr: &[i32], leader_epoch: i32) {
        let epoch = |id| self.follower(id).and_then(|it| it.broker_epoch).unwrap_or(-1);
        let isr = isr.iter().map(|id| (*id, epoch(*id))).collect();
        let partition_epoch = self.partition_epoch;
        self.pending = Some(Proposal { leader_epoch, partition_epoch, isr, change });
    }

    /// Applies the controller's answer. Returns false if it changes nothing: the proposal is not
    /// pending any more, or the controller has a newer state, which arrives with the metadata.
    pub fn answered(&mut self, proposal: &Proposal, answer: ProposalAnswer) -> bool {
        if self.pending.as_ref() != Some(proposal) {
            return false;
        }
        match answer {
            ProposalAnswer::Committed { leader_epoch, partition_epoch, isr } => {
                let is_newer = leader_epoch == proposal.leader_epoch
                    && partition_epoch >= self.partition_epoch;
                if is_newer {
                    (self.isr, self.partition_epoch, self.pending) = (isr, partition_epoch, None);
                }
                is_newer
            }
            ProposalAnswer::Refused => {
                self.pending = None;
                true
            }
            ProposalAnswer::Outdated => false,
        }
    }
}

/// The sizes of a leader's replica sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IsrCounts {
    pub replicas: usize,
    pub in_sync: usize,
    /// In-sync replicas, and the one that a pending proposal adds.
    pub maximal: usize,
    /// How many must be in sync for `acks=all`.
    pub min: usize,
}

impl IsrCounts {
    pub fn is_under_replicated(self) -> bool {
        self.in_sync < self.replicas
    }

    pub fn is_under_min(self) -> bool {
        self.in_sync < self.min
    }
}

fn others(me: i32, image: &PartitionImage) -> impl Iterator<Item = i32> {
    image.replicas.iter().copied().filter(move |id| *id != me)
}
