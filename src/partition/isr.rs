//! What a leader knows of its followers: how far each has come, who is in sync, and the change of
//! the in-sync replicas that is on its way to the controller. The rules are those of Kafka's
//! `Partition`, `PartitionState` and `Replica`.

use crate::{
    base::planted_bugs::{Bug, has_bug},
    metadata::PartitionImage,
};

/// How long a deposed leader may take until its clients know of it.
const UNSURE_MS: i64 = 2_000;
/// How long after the leader has answered a fetch the follower's next one may arrive.
const NEXT_FETCH_MS: i64 = 1_500;

/// Whether what happened then may still be unknown to clients. A request's time is that of its
/// arrival: what it waited for may seem to lie ahead.
pub fn is_recent(then_ms: i64, now_ms: i64) -> bool {
    (-UNSURE_MS..UNSURE_MS).contains(&now_ms.saturating_sub(then_ms))
}

/// What a partition goes by besides its log's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsrRules {
    /// `min.insync.replicas`; never asks for more replicas than there are.
    pub min_in_sync: usize,
    /// `replica.lag.time.max.ms`
    pub lag_max_ms: i64,
}

impl Default for IsrRules {
    fn default() -> Self {
        Self { min_in_sync: 1, lag_max_ms: 30_000 }
    }
}

/// How a broker stands with the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// `None` of a broker that is fenced or unknown.
    pub epoch: Option<i64>,
    pub is_shutting_down: bool,
}

/// A change of the in-sync replicas, as the controller is asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    /// Brokers with the epochs that they fetched with; -1 where it is not known, as of this one.
    pub isr: Vec<(i32, i64)>,
    pub change: IsrChange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsrChange {
    Expand(i32),
    Shrink(Vec<i32>),
}

/// What the controller made of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposalAnswer {
    Committed {
        leader_epoch: i32,
        partition_epoch: i32,
        isr: Vec<i32>,
    },
    /// It was not applied, and will not be.
    Refused,
    /// Another state was committed meanwhile, which metadata will tell.
    Outdated,
}

/// A follower as its fetches show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    pub id: i32,
    /// -1 before its first fetch.
    pub log_end: i64,
    pub log_start: i64,
    /// When it had last all that there was.
    pub caught_up_ms: i64,
    last_fetch_ms: i64,
    /// How long the leader may hold the last fetch back while there is nothing to answer.
    max_wait_ms: i64,
    /// The leader's log end at the last fetch.
    last_leader_end: i64,
    /// The epoch that it fetches with; -1 if it does not tell.
    broker_epoch: Option<i64>,
    standing: Standing,
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
            standing: Standing::default(),
        }
    }

    /// Whether its next fetch is overdue. While there is nothing to fetch, a follower fetches once
    /// in its `replica.fetch.wait.max.ms`. `now_ms` may be the time of a request that arrived
    /// before the last fetch.
    pub fn is_silent(&self, now_ms: i64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(self.last_fetch_ms);
        !(-UNSURE_MS..self.max_wait_ms + NEXT_FETCH_MS).contains(&elapsed_ms)
    }

    fn fetched(&mut self, fetch: &FollowerFetch, leader_end: i64, now_ms: i64) {
        // Whoever fetches what was the end at the fetch before had everything at that time.
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

    /// Whether the controller would take it: a broker that restarted since its last fetch may have
    /// lost what it fetched.
    fn may_join(&self) -> bool {
        let is_same = match (self.broker_epoch, self.standing.epoch) {
            (Some(fetched), Some(known)) => fetched == -1 || fetched == known,
            _ => false,
        };
        is_same && !self.standing.is_shutting_down
    }
}

/// A follower's fetch, as far as it concerns the leader's knowledge of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    pub replica: i32,
    /// -1 before version 15.
    pub broker_epoch: i64,
    pub fetch_offset: i64,
    /// -1 for none.
    pub last_fetched_epoch: i32,
    /// The follower's log start.
    pub log_start: i64,
    /// How long the leader may wait for records before it answers.
    pub max_wait_ms: i64,
}

/// The state of a replica that leads.
#[derive(Clone, Debug)]
pub struct Leading {
    me: i32,
    partition_epoch: i32,
    /// The log's end when its epoch began.
    epoch_start: i64,
    /// When it took over from another broker; `None` of one that did not.
    took_over_ms: Option<i64>,
    /// As committed by the controller.
    isr: Vec<i32>,
    pending: Option<Proposal>,
    followers: Vec<Follower>,
}

impl Leading {
    /// The only replica there is.
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

    /// Begins an epoch at the log's end. `before` is what it knew as the leader of the epoch before.
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

    /// Another broker led until now.
    pub fn take_over(&mut self, now_ms: i64) {
        self.took_over_ms = Some(now_ms);
    }

    /// Whether two may take themselves for the leader, as clients see it: the one before this has yet
    /// to tell them, or this one may have been deposed and has not heard of it.
    pub fn is_unsure(&self, now_ms: i64) -> bool {
        let has_just_taken_over = self.took_over_ms.is_some_and(|ms| is_recent(ms, now_ms));
        let mut in_sync = self.followers.iter().filter(|it| self.isr.contains(&it.id));
        has_just_taken_over || in_sync.any(|it| it.is_silent(now_ms))
    }

    /// Takes a newer state of the same leader epoch. What was proposed to an older one is void: the
    /// controller takes no proposal but to the newest.
    pub fn update(&mut self, (me, image): (i32, &PartitionImage)) {
        let known = |id| self.follower(id).copied().unwrap_or_else(|| Follower::unknown(id));
        self.followers = others(me, image).map(known).collect();
        self.me = me;
        self.isr = image.isr.clone();
        self.partition_epoch = image.partition_epoch;
        self.pending = None;
    }

    pub fn set_standings(&mut self, standing: impl Fn(i32) -> Standing) {
        for follower in &mut self.followers {
            follower.standing = standing(follower.id);
        }
    }

    pub fn set_standing(&mut self, id: i32, standing: Standing) {
        if let Some(follower) = self.followers.iter_mut().find(|it| it.id == id) {
            follower.standing = standing;
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

    /// In-sync replicas, with those that may be soon: the controller may have taken a proposal whose
    /// answer is on its way.
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

    /// Where the high watermark may be by now: at the smallest log end of those in sync, and of
    /// those that are about to be, so that they can join. It stays where it is with less than
    /// `min.insync.replicas` (KIP-966).
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

    /// The smallest log start of the replicas whose brokers live.
    pub fn low_watermark(&self, log_start: i64) -> i64 {
        let alive = self.followers.iter().filter(|it| it.standing.epoch.is_some());
        alive.map(|it| it.log_start).fold(log_start, i64::min)
    }

    /// Takes note of a fetch; false if it is of a broker that has registered anew since.
    pub fn fetched(&mut self, fetch: &FollowerFetch, log_end: i64, now_ms: i64) -> bool {
        let Some(at) = self.followers.iter().position(|it| it.id == fetch.replica) else {
            return false;
        };
        let follower = &mut self.followers[at];
        let is_stale = follower.standing.epoch.is_some_and(|known| known > fetch.broker_epoch);
        if is_stale && fetch.broker_epoch != -1 {
            return false;
        }
        follower.fetched(fetch, log_end, now_ms);
        true
    }

    /// Proposes to take the follower in, if it has come far enough.
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

    /// Proposes to leave out who did not keep up.
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

    /// Takes the controller's answer. False if something else was decided in the meantime.
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

/// How many replicas a leader has, and how many of them are in sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IsrCounts {
    pub replicas: usize,
    pub in_sync: usize,
    /// With one that is about to join.
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
