//! The state that one owner changes: role, log, high watermark. Synchronous, no tokio.

use super::{
    View,
    isr::{
        Follower, FollowerFetch, IsrCounts, IsrRules, Leading, Proposal, ProposalAnswer, Standing,
        is_recent,
    },
};
use crate::{
    log::{DeletedSegment, Flush, Flushed, Log, LogError, ProducerCheck, ProducerError},
    metadata::PartitionImage,
    records::Batch,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader {
        epoch: i32,
    },
    Follower {
        epoch: i32,
        leader: i32,
    },
    /// The log directory failed.
    Offline,
    /// The replica is being removed, or the broker stops.
    Closed,
}

impl Role {
    pub fn leader_epoch(self) -> i32 {
        match self {
            Self::Leader { epoch } | Self::Follower { epoch, .. } => epoch,
            Self::Offline | Self::Closed => -1,
        }
    }

    /// Whether the replica is out of service for good: no metadata brings it back.
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Offline | Self::Closed)
    }
}

/// Whose acknowledgement a producer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    Leader,
    /// All replicas in sync, and at least `min.insync.replicas`.
    All,
}

/// What metadata says of a partition and of the brokers with its replicas.
pub struct Assignment<'a> {
    /// This broker.
    pub me: i32,
    pub partition: &'a PartitionImage,
    pub standing: &'a dyn Fn(i32) -> Standing,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub first_offset: i64,
    pub last_offset: i64,
    pub log_start: i64,
    /// The leadership that it was written under: see [`View::reign`].
    pub reign: u64,
    /// `flush.messages` asks for an fdatasync before the high watermark may pass these records.
    pub flush_due: bool,
    /// A segment was closed: it is to be made durable at leisure, so that a start after a crash
    /// need not read it.
    pub rolled: bool,
    /// The batch had been appended before; nothing was written.
    pub duplicate: bool,
    /// The time of a duplicate's first append, for topics with LogAppendTime.
    pub duplicate_timestamp: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("this replica does not lead the partition")]
    NotLeader,
    #[error("the partition's log directory is offline")]
    Offline,
    #[error("{in_sync} replicas are in sync, of {min} that must be")]
    NotEnoughReplicas { in_sync: usize, min: usize },
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why a follower's fetch is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowerFetchError {
    #[error("this replica does not lead the partition in that epoch")]
    NotLeader,
    #[error("the fetching broker has no replica of the partition")]
    UnknownReplica,
    #[error("the fetching broker has registered anew since")]
    StaleBrokerEpoch,
    #[error("the offset or its epoch is not in the log")]
    OutOfRange,
}

/// An epoch and the offset where it ends.
pub type EpochEnd = (i32, i64);

pub struct Core {
    pub(super) log: Log,
    pub(super) role: Role,
    high_watermark: i64,
    /// The high watermark stays below this until an fdatasync has covered it.
    pub(super) flush_before: i64,
    last_flush_ms: i64,
    rules: IsrRules,
    /// Of the newest metadata that was taken.
    partition_epoch: i32,
    /// Counts the times that this replica ceased to lead.
    reign: u64,
    /// Counts the times that the log was replaced.
    moves: u64,
    /// Unless 0, flushes do not count: see [`Self::hold_flushes`].
    flush_holds: u32,
    /// When a batch was last refused that a later one may take.
    refused_ms: i64,
    leading: Option<Leading>,
}

impl Core {
    /// With the role of a leader it is the only replica, until [`Self::assign`] says otherwise.
    /// Where `flush.messages` asks for it, `log` is to be durable already: what it holds may be
    /// read from here on, and a producer that repeats it is told that it is there.
    pub fn new(log: Log, role: Role, high_watermark: i64) -> Self {
        let high_watermark = high_watermark.clamp(log.log_start(), log.log_end());
        let leads = matches!(role, Role::Leader { .. });
        let mut core = Self {
            log,
            role,
            high_watermark,
            flush_before: 0,
            last_flush_ms: 0,
            rules: IsrRules::default(),
            partition_epoch: -1,
            reign: 0,
            moves: 0,
            flush_holds: 0,
            refused_ms: i64::MIN,
            leading: leads.then(Leading::alone),
        };
        core.set_high_watermark(high_watermark);
        core.advance_high_watermark(0);
        core
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Goes on in a log that has all that this one has, and durably what this one has durably.
    /// What it has durably beyond that counts from the next flush on: a crash may undo its new name
    /// until then. Returns the old log.
    pub(super) fn replace_log(&mut self, mut log: Log) -> Log {
        assert_eq!(
            (log.log_start(), log.log_end()),
            (self.log.log_start(), self.log.log_end()),
            "{}: a copy that is not one",
            log.dir().display()
        );
        assert!(log.recovery_point() >= self.log.recovery_point(), "{}", log.dir().display());
        log.lower_recovery_point(self.log.recovery_point());
        let old = std::mem::replace(&mut self.log, log);
        self.moves += 1;
        self.log.note_high_watermark(self.high_watermark);
        old
    }

    /// Ignores the results of flushes until [`Self::release_flushes`]. While a copy replaces the log,
    /// a record that is durable in only one of the two logs must not be acknowledged as durable.
    pub(super) fn hold_flushes(&mut self) {
        self.flush_holds += 1;
    }

    pub(super) fn release_flushes(&mut self) {
        self.flush_holds -= 1;
    }

    pub(super) fn reign(&self) -> u64 {
        self.reign
    }

    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn view(&self) -> View {
        let first_unstable = self.log.first_unstable_offset().unwrap_or(i64::MAX);
        View {
            log: self.log.view(),
            high_watermark: self.high_watermark,
            last_stable_offset: self.high_watermark.min(first_unstable),
            role: self.role,
            reign: self.reign,
            epoch_start: self.leading.as_ref().map_or(0, Leading::epoch_start),
            isr: self.isr_counts(),
            moves: self.moves,
        }
    }

    fn isr_counts(&self) -> IsrCounts {
        self.leading.as_ref().map_or_else(IsrCounts::default, |it| it.counts(&self.rules))
    }

    /// Takes a role without followers. A replica whose disk failed, or that is closed, stays what
    /// it is.
    pub fn set_role(&mut self, role: Role) {
        if self.role.is_final() && role != Role::Closed {
            return;
        }
        let leads = matches!(role, Role::Leader { .. });
        self.take_role(role, leads.then(Leading::alone));
        self.advance_high_watermark(0);
    }

    pub(super) fn take_role(&mut self, role: Role, leading: Option<Leading>) {
        if self.leading.is_some() && leading.is_none() {
            self.reign += 1;
        }
        (self.role, self.leading) = (role, leading);
    }

    /// Takes the state that metadata gives, unless a newer one is known already: the controller's
    /// answer to a proposal may come first.
    pub fn assign(&mut self, assignment: &Assignment, now_ms: i64) {
        let Assignment { me, partition, standing } = *assignment;
        let known = self.leading.as_ref().map_or(self.partition_epoch, Leading::partition_epoch);
        if self.role.is_final() || partition.partition_epoch < known {
            return;
        }
        let epoch = partition.leader_epoch;
        let is_new_epoch = epoch != self.role.leader_epoch();
        self.partition_epoch = partition.partition_epoch;
        if partition.leader != me {
            return self.take_role(Role::Follower { epoch, leader: partition.leader }, None);
        }
        match self.leading.take() {
            Some(mut leading) if !is_new_epoch => {
                if partition.partition_epoch > known {
                    leading.update((me, partition));
                }
                self.leading = Some(leading);
            }
            before => {
                let start = self.log.log_end();
                let led_by_other = match self.role {
                    Role::Follower { leader, .. } => leader >= 0 && leader != me,
                    Role::Leader { epoch: before } => epoch > before + 1,
                    Role::Offline | Role::Closed => false,
                };
                // Its followers have cut off since what they had told of.
                let before = before.filter(|_| !led_by_other);
                let mut leading = Leading::new((me, partition), before.as_ref(), start, now_ms);
                if led_by_other {
                    leading.take_over(now_ms);
                }
                self.take_role(Role::Leader { epoch }, Some(leading));
            }
        }
        self.set_standings(standing, now_ms);
    }

    fn set_standings(&mut self, standing: &dyn Fn(i32) -> Standing, now_ms: i64) {
        if let Some(leading) = &mut self.leading {
            leading.set_standings(standing);
        }
        self.advance_high_watermark(now_ms);
    }

    /// Takes note of how a broker stands with the controller now.
    pub fn set_standing(&mut self, broker: i32, standing: Standing, now_ms: i64) {
        if let Some(leading) = &mut self.leading {
            leading.set_standing(broker, standing);
        }
        self.advance_high_watermark(now_ms);
    }

    pub fn set_rules(&mut self, rules: IsrRules, now_ms: i64) {
        self.rules = rules;
        self.advance_high_watermark(now_ms);
    }

    /// A follower's fetch says how far it has come: it may raise the high watermark, and let the
    /// follower join those in sync. Returns where the follower's log leaves this one; it must
    /// truncate before it reads on (KIP-595).
    pub fn follower_fetched(
        &mut self,
        fetch: &FollowerFetch,
        now_ms: i64,
    ) -> Result<Option<EpochEnd>, FollowerFetchError> {
        let (Some(leading), Role::Leader { epoch }) = (&self.leading, self.role) else {
            return Err(FollowerFetchError::NotLeader);
        };
        leading.follower(fetch.replica).ok_or(FollowerFetchError::UnknownReplica)?;
        let diverging = self.diverging(fetch.fetch_offset, fetch.last_fetched_epoch);
        if let Some(diverging) = diverging.map_err(|OutOfRange| FollowerFetchError::OutOfRange)? {
            return Ok(Some(diverging));
        }
        let (log_end, high_watermark) = (self.log.log_end(), self.high_watermark);
        if let Some(leading) = &mut self.leading {
            if !leading.fetched(fetch, log_end, now_ms) {
                return Err(FollowerFetchError::StaleBrokerEpoch);
            }
            leading.expand(fetch.replica, epoch, high_watermark);
        }
        self.advance_high_watermark(now_ms);
        Ok(None)
    }

    /// Where a fetcher's log leaves this one, if it does. An epoch that this log does not know is
    /// out of range.
    pub fn diverging(
        &self,
        fetch_offset: i64,
        last_fetched_epoch: i32,
    ) -> Result<Option<EpochEnd>, OutOfRange> {
        let is_in_range = self.log.log_start() <= fetch_offset;
        if last_fetched_epoch < 0 {
            let is_in_range = is_in_range && fetch_offset <= self.log.log_end();
            return if is_in_range { Ok(None) } else { Err(OutOfRange) };
        }
        let found = self.end_offset_for_epoch(last_fetched_epoch);
        let (epoch, end_offset) = found.filter(|_| is_in_range).ok_or(OutOfRange)?;
        let diverges = epoch < last_fetched_epoch || end_offset < fetch_offset;
        Ok(diverges.then_some((epoch, end_offset)))
    }

    /// Proposes to leave out of the in-sync replicas who did not keep up.
    pub fn check_isr(&mut self, now_ms: i64) {
        if let (Some(leading), Role::Leader { epoch }) = (&mut self.leading, self.role) {
            leading.shrink(epoch, self.log.log_end(), &self.rules, now_ms);
        }
    }

    /// The change of the in-sync replicas that waits for the controller.
    pub fn proposal(&self) -> Option<&Proposal> {
        self.leading.as_ref()?.pending()
    }

    /// Takes the controller's answer to a proposal. False if it is not, or no longer, of use.
    pub fn answered(&mut self, proposal: &Proposal, answer: ProposalAnswer, now_ms: i64) -> bool {
        let is_taken = self.leading.as_mut().is_some_and(|it| it.answered(proposal, answer));
        self.advance_high_watermark(now_ms);
        is_taken
    }

    /// Before this offset no replica has records that it could serve, but those of brokers that do
    /// not live.
    pub fn low_watermark(&self) -> i64 {
        let log_start = self.log.log_start();
        self.leading.as_ref().map_or(log_start, |it| it.low_watermark(log_start))
    }

    /// The followers of a leader.
    pub fn followers(&self) -> &[Follower] {
        self.leading.as_ref().map_or(&[], Leading::followers)
    }

    /// The in-sync replicas as a leader has them.
    pub fn isr(&self) -> &[i32] {
        self.leading.as_ref().map_or(&[], Leading::isr)
    }

    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Appends the batches of one request; a batch of an idempotent producer that was appended
    /// before is answered with its first offsets.
    pub fn append(
        &mut self,
        batches: &mut [Batch],
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let epoch = self.check_may_append(acks).inspect_err(|_| self.refused_ms = now_ms)?;
        for batch in batches.iter().filter(|batch| batch.header.has_producer_id()) {
            match self.duplicate(batch) {
                Ok(None) => {}
                Ok(Some(duplicate)) => return Ok(duplicate),
                Err(error) => return Err(self.out_of_order(error, now_ms)),
            }
        }
        let appended = self.log.append(batches, epoch, now_ms);
        let appended = appended.inspect_err(|_| self.refused_ms = now_ms)?;
        let flush_due = self.note_flush_due();
        self.advance_high_watermark(now_ms);
        Ok(Appended {
            first_offset: appended.first_offset,
            last_offset: appended.last_offset,
            log_start: self.log.log_start(),
            reign: self.reign,
            flush_due,
            rolled: appended.rolled,
            duplicate: false,
            duplicate_timestamp: -1,
        })
    }

    fn check_may_append(&self, acks: Acks) -> Result<i32, AppendError> {
        let isr = self.isr_counts();
        match self.role {
            Role::Leader { .. } if acks == Acks::All && isr.is_under_min() => {
                Err(AppendError::NotEnoughReplicas { in_sync: isr.in_sync, min: isr.min })
            }
            Role::Leader { epoch } => Ok(epoch),
            Role::Follower { .. } | Role::Closed => Err(AppendError::NotLeader),
            Role::Offline => Err(AppendError::Offline),
        }
    }

    /// What a producer is told of a batch that does not follow its last. Where this replica has just
    /// taken over, batches before it may be under way to the leader that was, which will refuse
    /// them; where it was deposed, another leader may have them; and it may just have refused them
    /// itself. The client is to send all of them again. Told of a gap, as Kafka tells it, it begins
    /// another epoch, and writes those twice that were replicated but not acknowledged.
    fn out_of_order(&self, error: ProducerError, now_ms: i64) -> AppendError {
        let is_unsure = self.leading.as_ref().is_some_and(|it| it.is_unsure(now_ms))
            || is_recent(self.refused_ms, now_ms);
        match is_unsure && error.is_gap() {
            true => AppendError::NotLeader,
            false => error.into(),
        }
    }

    /// Whether `flush.messages` asks for an fdatasync of what is appended.
    pub(super) fn note_flush_due(&mut self) -> bool {
        let unflushed = self.log.log_end() - self.log.recovery_point();
        let flush_due = unflushed >= self.log.config().flush_messages;
        if flush_due {
            self.flush_before = self.log.log_end();
        }
        flush_due
    }

    /// What the batch's producer was answered when it sent the batch before.
    fn duplicate(&self, batch: &Batch) -> Result<Option<Appended>, ProducerError> {
        let ProducerCheck::Duplicate { base_offset, last_offset, timestamp } =
            self.log.check_producer(&batch.header)?
        else {
            return Ok(None);
        };
        Ok(Some(Appended {
            first_offset: base_offset,
            last_offset,
            log_start: self.log.log_start(),
            reign: self.reign,
            // Its first append may still wait for the disk, and so must this answer.
            flush_due: (self.log.recovery_point()..self.flush_before).contains(&last_offset),
            rolled: false,
            duplicate: true,
            duplicate_timestamp: timestamp,
        }))
    }

    /// The largest epoch up to `epoch` and its end offset, `None` if this replica cannot tell.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<EpochEnd> {
        match self.role {
            Role::Leader { epoch: led } if epoch == led => Some((epoch, self.log.log_end())),
            Role::Leader { epoch: led } => {
                self.log.epochs_led_by(led).end_offset_for(epoch, self.log.log_end())
            }
            _ => self.log.end_offset_for_epoch(epoch),
        }
    }

    /// The start of the log and the epoch that it belongs to.
    pub fn earliest(&self) -> (i64, Option<i32>) {
        let start = self.log.log_start();
        let epochs = match self.role {
            Role::Leader { epoch } => self.log.epochs_led_by(epoch),
            _ => self.log.epochs_led_by(-1),
        };
        let first = epochs.entries().first().filter(|entry| entry.start_offset <= start);
        (start, first.map(|entry| entry.epoch))
    }

    pub fn begin_flush(&mut self) -> Option<Flush> {
        self.log.begin_flush()
    }

    /// An fdatasync has covered what it began with.
    pub fn flushed(&mut self, flushed: Flushed, now_ms: i64) {
        if self.flush_holds == 0 {
            self.log.flushed(flushed);
            self.advance_high_watermark(now_ms);
        }
    }

    /// Whether `flush.ms` asks for an fdatasync; if so, the time counts from now on.
    pub fn is_flush_due_by_time(&mut self, now_ms: i64) -> bool {
        let is_due = !self.role.is_final()
            && self.log.log_end() > self.log.recovery_point()
            && now_ms.saturating_sub(self.last_flush_ms) >= self.log.config().flush_ms;
        if is_due {
            self.last_flush_ms = now_ms;
        }
        is_due
    }

    /// Rolls and deletes segments by time and size, so many at most and never past the high
    /// watermark.
    pub fn apply_retention(
        &mut self,
        now_ms: i64,
        most: usize,
    ) -> Result<Vec<DeletedSegment>, LogError> {
        // The files of a replica out of service are somebody else's, or nobody's.
        match self.role.is_final() {
            true => Ok(Vec::new()),
            false => self.log.apply_retention(now_ms, self.high_watermark, most),
        }
    }

    /// DeleteRecords: moves the log start, at most to the high watermark.
    pub fn delete_records(&mut self, offset: i64) -> Result<i64, DeleteRecordsError> {
        if !matches!(self.role, Role::Leader { .. }) {
            return Err(DeleteRecordsError::NotLeader);
        }
        let offset = if offset == -1 { self.high_watermark } else { offset };
        if offset < 0 || offset > self.high_watermark {
            return Err(DeleteRecordsError::OutOfRange);
        }
        self.log.advance_log_start(offset)?;
        Ok(self.log.log_start())
    }

    /// All changes of the high watermark come here, because the last stable offset follows it.
    pub(super) fn set_high_watermark(&mut self, high_watermark: i64) {
        self.high_watermark = high_watermark;
        self.log.note_high_watermark(high_watermark);
    }

    /// Takes the high watermark up to what all replicas in sync have, and this one durably where
    /// that is asked for.
    fn advance_high_watermark(&mut self, now_ms: i64) {
        let Some(leading) = &self.leading else { return };
        let log_end = self.log.log_end();
        let Some(end) = leading.committed_end(log_end, &self.rules, now_ms) else { return };
        let end = match self.log.recovery_point() < self.flush_before {
            true => end.min(self.log.recovery_point()),
            false => end,
        };
        self.set_high_watermark(self.high_watermark.max(end).max(self.log.log_start()));
        assert!(self.high_watermark <= log_end, "high watermark past the log end");
    }
}

/// A fetch from where this log has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

#[derive(Debug, thiserror::Error)]
pub enum DeleteRecordsError {
    #[error("this replica does not lead the partition")]
    NotLeader,
    #[error("the offset is negative or past the high watermark")]
    OutOfRange,
    #[error(transparent)]
    Log(#[from] LogError),
}
