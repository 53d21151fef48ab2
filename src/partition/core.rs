//! The synchronous state of a replica: role, log, in-sync replicas and high watermark. It uses no
//! tokio and no clock: callers pass the time. The caller holds the lock of the partition.

use super::{
    View,
    isr::{
        BrokerStatus, Follower, FollowerFetch, IsrCounts, IsrRules, LeaderState, Proposal,
        ProposalAnswer,
    },
};
use crate::{
    log::{DeletedSegment, Flush, Flushed, Log, LogError},
    metadata::PartitionImage,
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
    /// The leader epoch of the role; -1 for a replica out of service.
    pub fn leader_epoch(self) -> i32 {
        match self {
            Self::Leader { epoch } | Self::Follower { epoch, .. } => epoch,
            Self::Offline | Self::Closed => -1,
        }
    }

    /// Whether the replica is out of service for good. Metadata does not change this.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Offline | Self::Closed)
    }
}

/// The state of a partition in metadata, and of the brokers that have its replicas.
pub struct Assignment<'a> {
    /// This broker.
    pub me: i32,
    pub partition: &'a PartitionImage,
    pub status: &'a dyn Fn(i32) -> BrokerStatus,
}

/// Why a leader refuses a follower's fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowerFetchError {
    #[error("this replica does not lead the partition in that epoch")]
    NotLeader,
    #[error("the fetching broker has no replica of the partition")]
    UnknownReplica,
    #[error("the fetch has an older broker epoch than the broker's registration")]
    StaleBrokerEpoch,
    #[error("the offset or its epoch is not in the log")]
    OutOfRange,
}

/// A leader epoch and its end offset.
pub type EpochEnd = (i32, i64);

pub struct Core {
    pub(super) log: Log,
    pub(super) role: Role,
    high_watermark: i64,
    /// The log end when `flush.messages` last required an fdatasync. Until the recovery point
    /// reaches it, the high watermark does not pass the recovery point.
    pub(super) flush_before: i64,
    /// When `flush.ms` last required a flush.
    last_flush_ms: i64,
    rules: IsrRules,
    /// Partition epoch of the newest metadata that was applied.
    partition_epoch: i32,
    /// How often this replica has stopped leading.
    pub(super) leadership_generation: u64,
    /// How often a copy has replaced the log.
    moves: u64,
    /// Unless 0, the results of flushes are ignored; see [`Self::hold_flushes`].
    flush_holds: u32,
    /// When an append was last refused for a reason other than the producer's sequence number.
    pub(super) refused_ms: i64,
    /// The leader's state; `None` in other roles.
    pub(super) leading: Option<LeaderState>,
}

impl Core {
    /// Creates the state of a replica. A leader has no followers until [`Self::assign`] adds them.
    /// If `flush.messages` requires durable records, the caller must have flushed `log`: consumers
    /// can read its records from now on, and duplicates of them are acknowledged.
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
            leadership_generation: 0,
            moves: 0,
            flush_holds: 0,
            refused_ms: i64::MIN,
            leading: leads.then(LeaderState::alone),
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

    /// Replaces the log with a copy that has the same records and at least as many durable ones.
    /// Records that were not durable in the old log become so with the next flush, because until
    /// then a crash may undo the rename of the copy's directory. Returns the old log.
    pub(super) fn replace_log(&mut self, mut log: Log) -> Log {
        assert_eq!(
            (log.log_start(), log.log_end()),
            (self.log.log_start(), self.log.log_end()),
            "{}: the copy does not match the log",
            log.dir().display()
        );
        assert!(log.recovery_point() >= self.log.recovery_point(), "{}", log.dir().display());
        log.lower_recovery_point(self.log.recovery_point());
        let old = std::mem::replace(&mut self.log, log);
        self.moves += 1;
        self.log.note_high_watermark(self.high_watermark);
        old
    }

    /// Ignores the results of flushes until [`Self::release_flushes`]. While a copy replaces the
    /// log, a record that is durable in only one of the two does not count as durable.
    pub(super) fn hold_flushes(&mut self) {
        self.flush_holds += 1;
    }

    pub(super) fn release_flushes(&mut self) {
        self.flush_holds -= 1;
    }

    pub(super) fn leadership_generation(&self) -> u64 {
        self.leadership_generation
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
            leadership_generation: self.leadership_generation,
            epoch_start: self.leading.as_ref().map_or(0, LeaderState::epoch_start),
            isr: self.isr_counts(),
            moves: self.moves,
        }
    }

    pub(super) fn isr_counts(&self) -> IsrCounts {
        self.leading.as_ref().map_or_else(IsrCounts::default, |it| it.counts(&self.rules))
    }

    /// Sets a role without followers. An offline or closed replica only accepts [`Role::Closed`].
    pub fn set_role(&mut self, role: Role) {
        if self.role.is_final() && role != Role::Closed {
            return;
        }
        let leads = matches!(role, Role::Leader { .. });
        self.take_role(role, leads.then(LeaderState::alone));
        self.advance_high_watermark(0);
    }

    pub(super) fn take_role(&mut self, role: Role, leading: Option<LeaderState>) {
        if self.leading.is_some() && leading.is_none() {
            self.leadership_generation += 1;
        }
        (self.role, self.leading) = (role, leading);
    }

    /// Applies the partition's state from metadata. A state with an older partition epoch is
    /// ignored: the controller's answer to a proposal may arrive before the metadata.
    pub fn assign(&mut self, assignment: &Assignment, now_ms: i64) {
        let Assignment { me, partition, status } = *assignment;
        let known =
            self.leading.as_ref().map_or(self.partition_epoch, LeaderState::partition_epoch);
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
                // If another broker led in between, the followers may have truncated their logs, so
                // the offsets that they reported before do not count.
                let before = before.filter(|_| !led_by_other);
                let mut leading = LeaderState::new((me, partition), before.as_ref(), start, now_ms);
                if led_by_other {
                    leading.take_over(now_ms);
                }
                self.take_role(Role::Leader { epoch }, Some(leading));
            }
        }
        self.set_broker_statuses(status, now_ms);
    }

    fn set_broker_statuses(&mut self, status: &dyn Fn(i32) -> BrokerStatus, now_ms: i64) {
        if let Some(leading) = &mut self.leading {
            leading.set_broker_statuses(status);
        }
        self.advance_high_watermark(now_ms);
    }

    /// Applies the state of one broker from metadata.
    pub fn set_broker_status(&mut self, broker: i32, status: BrokerStatus, now_ms: i64) {
        if let Some(leading) = &mut self.leading {
            leading.set_broker_status(broker, status);
        }
        self.advance_high_watermark(now_ms);
    }

    pub fn set_rules(&mut self, rules: IsrRules, now_ms: i64) {
        self.rules = rules;
        self.advance_high_watermark(now_ms);
    }

    /// Applies a follower's fetch to the state of the leader. Its offset may raise the high
    /// watermark and cause a proposal to add the follower to the in-sync replicas.
    ///
    /// If the logs diverge, changes nothing and returns what [`Self::diverging`] found: the
    /// follower must truncate before it fetches again (KIP-595).
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

    /// Compares a fetch position, given as offset and epoch of the record before it, with this log.
    /// If this log does not contain it, returns the largest epoch here that is not above
    /// `last_fetched_epoch`, and its end offset. Fails if the offset is outside the log, or if the
    /// log cannot find the epoch.
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

    /// Proposes to remove followers that have not kept up from the in-sync replicas.
    pub fn check_isr(&mut self, now_ms: i64) {
        if let (Some(leading), Role::Leader { epoch }) = (&mut self.leading, self.role) {
            leading.shrink(epoch, self.log.log_end(), &self.rules, now_ms);
        }
    }

    /// The proposed change of the in-sync replicas that the controller has not answered yet.
    pub fn proposal(&self) -> Option<&Proposal> {
        self.leading.as_ref()?.pending()
    }

    /// Applies the controller's answer to a proposal. Returns false if the answer changes nothing,
    /// for example because newer metadata was applied first.
    pub fn answered(&mut self, proposal: &Proposal, answer: ProposalAnswer, now_ms: i64) -> bool {
        let is_taken = self.leading.as_mut().is_some_and(|it| it.answered(proposal, answer));
        self.advance_high_watermark(now_ms);
        is_taken
    }

    /// The smallest log start of this replica and, on a leader, of its followers on brokers that
    /// are registered and not fenced.
    pub fn low_watermark(&self) -> i64 {
        let log_start = self.log.log_start();
        self.leading.as_ref().map_or(log_start, |it| it.low_watermark(log_start))
    }

    /// The leader's followers; empty in other roles.
    pub fn followers(&self) -> &[Follower] {
        self.leading.as_ref().map_or(&[], LeaderState::followers)
    }

    /// The in-sync replicas as the leader uses them; empty in other roles.
    pub fn isr(&self) -> &[i32] {
        self.leading.as_ref().map_or(&[], LeaderState::isr)
    }

    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// The largest leader epoch up to `epoch` and its end offset. `None` if the log has neither.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<EpochEnd> {
        match self.role {
            Role::Leader { epoch: led } if epoch == led => Some((epoch, self.log.log_end())),
            Role::Leader { epoch: led } => {
                self.log.epochs_led_by(led).end_offset_for(epoch, self.log.log_end())
            }
            _ => self.log.end_offset_for_epoch(epoch),
        }
    }

    /// The log start, and the leader epoch of the record there, if the log has it.
    pub fn earliest(&self) -> (i64, Option<i32>) {
        let start = self.log.log_start();
        let epochs = match self.role {
            Role::Leader { epoch } => self.log.epochs_led_by(epoch),
            _ => self.log.epochs_led_by(-1),
        };
        let first = epochs.entries().first().filter(|entry| entry.start_offset <= start);
        (start, first.map(|entry| entry.epoch))
    }

    /// Prepares a flush of the records so far. The caller runs it without the lock and passes the
    /// result to [`Self::flushed`].
    pub fn begin_flush(&mut self) -> Option<Flush> {
        self.log.begin_flush()
    }

    /// Applies a successful flush: the recovery point and the high watermark may rise.
    pub fn flushed(&mut self, flushed: Flushed, now_ms: i64) {
        if self.flush_holds == 0 {
            self.log.flushed(flushed);
            self.advance_high_watermark(now_ms);
        }
    }

    /// Whether `flush.ms` requires an fdatasync now. If so, the next interval starts at `now_ms`.
    pub fn is_flush_due_by_time(&mut self, now_ms: i64) -> bool {
        let is_due = !self.role.is_final()
            && self.log.log_end() > self.log.recovery_point()
            && now_ms.saturating_sub(self.last_flush_ms) >= self.log.config().flush_ms;
        if is_due {
            self.last_flush_ms = now_ms;
        }
        is_due
    }

    /// Rolls and deletes segments by time and size: at most `most` of them, and none with records
    /// above the high watermark. Returns the deleted segments, whose files the caller removes.
    pub fn apply_retention(
        &mut self,
        now_ms: i64,
        most: usize,
    ) -> Result<Vec<DeletedSegment>, LogError> {
        // Out of service, the replica's files may be removed or belong to another replica.
        match self.role.is_final() {
            true => Ok(Vec::new()),
            false => self.log.apply_retention(now_ms, self.high_watermark, most),
        }
    }

    /// Moves the log start to `offset`, as DeleteRecords requests; -1 means the high watermark.
    /// Fails if the offset is above the high watermark. Returns the new log start.
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

    /// Sets the high watermark, and with it the last stable offset. Nothing else may assign it.
    pub(super) fn set_high_watermark(&mut self, high_watermark: i64) {
        self.high_watermark = high_watermark;
        self.log.note_high_watermark(high_watermark);
    }

    /// Raises a leader's high watermark to the offset that all in-sync replicas have reached. If
    /// `flush.messages` requires it, this replica must also have the records durably.
    pub(super) fn advance_high_watermark(&mut self, now_ms: i64) {
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

/// The offset of a fetch is outside the log, or its epoch is unknown here.
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
