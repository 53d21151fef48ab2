//! A partition's replica on this broker: its role, log, in-sync replicas and high watermark, and
//! the requests that wait for one of these to change.
//!
//! The mutable state is a synchronous `Core` behind a mutex that no task holds across an await.
//! Readers use the published `View` without a lock. Appends and deletions wait for an offset,
//! fetches wait for the next change. This folder does not depend on requests or connections.
//!
//! Invariants:
//! - log start <= high watermark <= log end.
//! - The high watermark falls only if a follower truncates its log below it. The broker logs that
//!   as an error.
//! - Views are published while the core is locked, so a later view never shows an older state.

mod append;
mod clean;
mod core;
mod flush;
mod follower;
mod future;
mod isr;
mod refusals;
mod table;
#[cfg(test)]
mod tests;
mod transactions;
mod waiters;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

pub use self::{
    append::{Acks, AppendError, Appended, Origin},
    core::{Assignment, Core, DeleteRecordsError, EpochEnd, FollowerFetchError, OutOfRange, Role},
    flush::{FlushQueue, Urgency},
    follower::{FetchPosition, Fetched, FollowError, Followed, Truncated},
    future::{Copied, CopyError, FutureView, Replaced},
    isr::{
        BrokerStatus, Follower, FollowerFetch, IsrChange, IsrCounts, IsrRules, Proposal,
        ProposalAnswer,
    },
    table::{PartitionTable, PartitionUnavailable, Topic},
    waiters::FetchWait,
};
use self::{flush::FlushGate, future::FutureReplica, refusals::Refusals, waiters::Waiters};
use crate::{
    base::{
        TopicPartition,
        environment::now_ms,
        planted_bugs::{Bug, has_bug},
    },
    log::{Log, LogError, LogView, ReadError},
    records::Batch,
    telemetry::Histogram,
};

/// An immutable snapshot of a replica, published after each change and read without a lock.
#[derive(Clone)]
pub struct View {
    pub log: LogView,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub role: Role,
    /// How often this replica has stopped leading. If it has changed since an append, the appended
    /// records may have been truncated.
    pub leadership_generation: u64,
    /// The leader's log end when its leader epoch began; 0 on other replicas. The high watermark of
    /// a new leader may be below it for a while.
    pub epoch_start: i64,
    /// Sizes of the leader's replica sets; all 0 on other replicas.
    pub isr: IsrCounts,
    /// How often a copy from another log directory has replaced the log.
    moves: u64,
}

/// Reports a failed flush or read of the partition's log to the broker. Called without a lock.
pub type OnFailure = Box<dyn Fn(&Partition, &LogError) + Send + Sync>;
/// Has the broker send the partition's new [`Proposal`] to the controller. Called without a lock.
pub type OnProposal = Box<dyn Fn(&Arc<Partition>) + Send + Sync>;

/// What a partition uses of its broker: callbacks, a metric and the flush queue.
pub struct PartitionCallbacks {
    pub on_failure: OnFailure,
    pub on_proposal: OnProposal,
    pub flush_seconds: Arc<Histogram>,
    pub flushes: Arc<FlushQueue>,
}

impl Default for PartitionCallbacks {
    fn default() -> Self {
        Self {
            on_failure: Box::new(|_, _| {}),
            on_proposal: Box::new(|_| {}),
            flush_seconds: Arc::default(),
            flushes: FlushQueue::new(1),
        }
    }
}

/// One replica on this broker, shared by all tasks that use it.
pub struct Partition {
    pub id: TopicPartition,
    /// The log directory that contains the replica. A move changes it.
    log_dir: ArcSwap<PathBuf>,
    /// The copy in another log directory, while the replica moves there.
    future: FutureReplica,
    callbacks: PartitionCallbacks,
    /// Protects role, log, in-sync replicas and high watermark. Held for one synchronous operation,
    /// which may write to the log.
    core: Mutex<Core>,
    view: ArcSwap<View>,
    /// Appends with acks=all, and coordinators, which wait for the high watermark.
    committed: Waiters,
    /// Appends with acks=1 that wait for the fdatasync which `flush.messages` requires.
    durable: Waiters,
    /// DeleteRecords requests, which wait for the low watermark.
    deleted: Waiters,
    /// Consumers' fetches that found too few bytes.
    fetches: waiters::FetchWaits,
    /// Followers' fetches that found too few bytes. They also read uncommitted records.
    follower_fetches: waiters::FetchWaits,
    flushes: FlushGate,
    refusals: Refusals,
}

/// Which records a fetch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Records below the high watermark.
    Committed,
    /// Records below the log end.
    Appended,
}

impl Partition {
    pub fn new(id: TopicPartition, core: Core, callbacks: PartitionCallbacks) -> Self {
        let dir = core.log().dir().to_owned();
        let partition = Self {
            id,
            log_dir: ArcSwap::default(),
            future: FutureReplica::default(),
            callbacks,
            view: ArcSwap::from_pointee(core.view()),
            core: Mutex::new(core),
            committed: Waiters::default(),
            durable: Waiters::default(),
            deleted: Waiters::default(),
            fetches: waiters::FetchWaits::default(),
            follower_fetches: waiters::FetchWaits::default(),
            flushes: FlushGate::default(),
            refusals: Refusals::default(),
        };
        partition.set_log_dir(&dir);
        partition
    }

    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// The log directory that contains the replica now.
    pub fn log_dir(&self) -> Arc<PathBuf> {
        self.log_dir.load_full()
    }

    fn set_log_dir(&self, partition_dir: &Path) {
        let log_dir = partition_dir.parent().map(Path::to_owned);
        self.log_dir.store(Arc::new(log_dir.unwrap_or_default()));
    }

    /// Whether the log refused an append at or after `since_ms` and has accepted none since.
    pub fn refuses_writes(&self, since_ms: i64) -> bool {
        self.refusals.any_since(since_ms)
    }

    /// Appends the batches of one produce request as leader. Consumers can read them once the high
    /// watermark has passed them; [`Self::wait_committed`] waits for that. A transactional batch
    /// needs an open transaction; [`Self::append_verified`] can begin one.
    ///
    /// Fails if this replica is not the leader or its log directory is offline, if `acks=all` needs
    /// more in-sync replicas, if a producer's epoch, sequence number or transaction does not fit,
    /// or if the write fails.
    pub fn append(
        self: &Arc<Self>,
        batches: &mut [Batch],
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.append_with(self.lock(), now_ms, |core| core.append(batches, acks, now_ms))
    }

    /// Appends a coordinator's batches, but fails with [`AppendError::NotLeader`] unless the replica
    /// still leads in the given generation ([`View::leadership_generation`]): a coordinator's
    /// records are valid only in the leadership in which it loaded its state. The coordinator has
    /// called [`Self::check_transaction`] or [`Self::check_marker`] for the batches of a producer.
    pub fn append_in(
        self: &Arc<Self>,
        leadership_generation: u64,
        batches: &mut [Batch],
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let core = self.lock_in(leadership_generation)?;
        self.append_with(core, now_ms, |core| {
            core.append_from(Origin::Coordinator, batches, acks, now_ms)
        })
    }

    /// Locks the core. Fails unless the replica still leads in the given generation.
    fn lock_in(&self, leadership_generation: u64) -> Result<MutexGuard<'_, Core>, AppendError> {
        let core = self.lock();
        match core.leadership_generation() == leadership_generation {
            true => Ok(core),
            false => Err(AppendError::NotLeader),
        }
    }

    fn append_with(
        self: &Arc<Self>,
        mut core: MutexGuard<'_, Core>,
        now_ms: i64,
        append: impl FnOnce(&mut Core) -> Result<Appended, AppendError>,
    ) -> Result<Appended, AppendError> {
        let appended = append(&mut core);
        self.refusals.note(&appended, now_ms);
        // Also after a failure: undoing the append may have truncated the log.
        let changed = self.publish(&core);
        drop(core);
        let is_awaited = appended.as_ref().is_ok_and(|it| it.flush_due);
        if is_awaited || appended.as_ref().is_ok_and(|it| it.rolled) {
            self.flush(if is_awaited { Urgency::Urgent } else { Urgency::Background });
        }
        self.wake(changed);
        appended
    }

    /// Whether the records before `end_offset`, appended in `leadership_generation`, are committed.
    /// False in any other generation: the high watermark then counts records of another leader.
    pub fn has_committed(&self, end_offset: i64, leadership_generation: u64) -> bool {
        let view = self.view.load();
        view.leadership_generation == leadership_generation && view.high_watermark >= end_offset
    }

    /// Waits until the high watermark is at least `end_offset`. Returns false if this replica has
    /// stopped leading since it appended the records in `leadership_generation`.
    pub async fn wait_committed(&self, end_offset: i64, leadership_generation: u64) -> bool {
        let high_watermark = |view: &View| view.high_watermark;
        self.wait_until(&self.committed, high_watermark, (end_offset, leadership_generation)).await
    }

    /// Waits until the records before `end_offset` are durable on this broker. Returns false if
    /// this replica has stopped leading since it appended the records in `leadership_generation`.
    pub async fn wait_durable(&self, end_offset: i64, leadership_generation: u64) -> bool {
        let flushed = |view: &View| view.log.recovery_point();
        self.wait_until(&self.durable, flushed, (end_offset, leadership_generation)).await
    }

    async fn wait_until(
        &self,
        waiters: &Waiters,
        reached: fn(&View) -> i64,
        (offset, leadership_generation): (i64, u64),
    ) -> bool {
        let view = self.view.load();
        if view.leadership_generation != leadership_generation || reached(&view) >= offset {
            return view.leadership_generation == leadership_generation;
        }
        drop(view);
        let passed = waiters.register(offset);
        // The leadership and the offset may have changed before the registration.
        let view = self.view();
        if view.leadership_generation != leadership_generation
            || !matches!(view.role, Role::Leader { .. })
        {
            return false;
        }
        waiters.pass(reached(&view));
        passed.await.is_ok()
    }

    /// Waits until the low watermark is at least `offset` ([`Core::low_watermark`]) and returns it,
    /// or `None` if this replica does not lead any more.
    pub async fn wait_deleted(&self, offset: i64) -> Option<i64> {
        let passed = self.deleted.register(offset);
        let (is_leader, low_watermark) = {
            let core = self.lock();
            (matches!(core.role(), Role::Leader { .. }), core.low_watermark())
        };
        if !is_leader {
            return None;
        }
        self.deleted.pass(low_watermark);
        passed.await.ok()?;
        Some(self.lock().low_watermark())
    }

    /// Registers a fetch. Each change of the records that it may read wakes it, until the caller
    /// calls [`Self::forget_wait`].
    pub fn wait_for_data(&self, wait: &Arc<FetchWait>, awaited: Awaited) {
        self.waits(awaited).add(wait);
    }

    /// Removes a fetch that [`Self::wait_for_data`] registered.
    pub fn forget_wait(&self, wait: &Arc<FetchWait>, awaited: Awaited) {
        self.waits(awaited).remove(wait);
    }

    fn waits(&self, awaited: Awaited) -> &waiters::FetchWaits {
        match awaited {
            Awaited::Committed => &self.fetches,
            Awaited::Appended => &self.follower_fetches,
        }
    }

    /// Applies a follower's fetch to the state of the leader, as [`Core::follower_fetched`] does,
    /// wakes waiters, and reports a new proposal to the broker.
    pub fn follower_fetched(
        self: &Arc<Self>,
        fetch: &FollowerFetch,
        now_ms: i64,
    ) -> Result<Option<EpochEnd>, FollowerFetchError> {
        let mut core = self.lock();
        let (high_watermark, proposes) = (core.high_watermark(), core.proposal().is_some());
        let fetched = core.follower_fetched(fetch, now_ms);
        // A view is published only if the high watermark rises. Most fetches change nothing else
        // that readers see.
        let changed = core.high_watermark() != high_watermark;
        let changed = changed.then(|| self.publish(&core));
        let proposes = !proposes && core.proposal().is_some();
        let low_watermark = core.low_watermark();
        drop(core);
        self.deleted.pass(low_watermark);
        if let Some(changed) = changed {
            self.wake(changed);
        }
        if proposes {
            (self.callbacks.on_proposal)(self);
        }
        fetched
    }

    /// Appends records from the leader to this follower, as [`Core::append_fetched`] does. If that
    /// closes a segment, a background flush follows.
    pub fn append_fetched(
        self: &Arc<Self>,
        fetched: &Fetched,
        now_ms: i64,
    ) -> Result<Followed, FollowError> {
        let followed = self.update(|core| core.append_fetched(fetched, now_ms))?;
        if followed.rolled {
            self.flush(Urgency::Background);
        }
        Ok(followed)
    }

    /// Proposes to remove followers that lag from the in-sync replicas, as [`Core::check_isr`]
    /// does, and reports a new proposal to the broker. The broker calls this periodically.
    pub fn check_isr(self: &Arc<Self>, now_ms: i64) {
        let mut core = self.lock();
        let proposed = core.proposal().is_some();
        core.check_isr(now_ms);
        let proposes = !proposed && core.proposal().is_some();
        drop(core);
        if proposes {
            (self.callbacks.on_proposal)(self);
        }
    }

    /// The proposed change of the in-sync replicas that the controller has not answered yet.
    pub fn proposal(&self) -> Option<Proposal> {
        self.lock().proposal().cloned()
    }

    /// The followers in the in-sync replicas, with their fetch state. Empty unless this replica
    /// leads.
    pub fn in_sync_followers(&self) -> Vec<Follower> {
        let core = self.lock();
        let in_sync = core.followers().iter().filter(|it| core.isr().contains(&it.id));
        in_sync.copied().collect()
    }

    /// Whether records are not committed yet while the next fetch of an in-sync follower is
    /// overdue. `None` if another thread holds the lock, for example while it waits for the disk.
    pub fn is_stuck(&self, now_ms: i64) -> Option<bool> {
        let core = self.core.try_lock()?;
        let is_silent = |it: &Follower| core.isr().contains(&it.id) && it.is_silent(now_ms);
        let has_uncommitted = core.high_watermark() < core.log().log_end();
        Some(has_uncommitted && core.followers().iter().any(is_silent))
    }

    /// Runs `change` on the locked core, publishes the new view, and wakes waiters.
    pub fn update<R>(&self, change: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.lock();
        let result = change(&mut core);
        let changed = self.publish(&core);
        drop(core);
        self.wake(changed);
        result
    }

    /// Runs `look` on the log with the core locked, for state that the view does not have.
    pub fn with_log<R>(&self, look: impl FnOnce(&Log) -> R) -> R {
        look(self.lock().log())
    }

    /// Finds the end of a leader epoch; see [`Core::end_offset_for_epoch`].
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        self.lock().end_offset_for_epoch(epoch)
    }

    /// Compares a fetch position with this log; see [`Core::diverging`].
    pub fn diverging(
        &self,
        fetch_offset: i64,
        last_fetched_epoch: i32,
    ) -> Result<Option<EpochEnd>, OutOfRange> {
        self.lock().diverging(fetch_offset, last_fetched_epoch)
    }

    /// The log start and its leader epoch; see [`Core::earliest`].
    pub fn earliest(&self) -> (i64, Option<i32>) {
        self.lock().earliest()
    }

    /// Takes the replica out of service before it is removed: all waiters end, and nothing is
    /// written to its files any more.
    pub fn retire(&self) {
        self.update(|core| core.set_role(Role::Closed));
    }

    /// Takes the replica out of service for a clean stop and makes its files complete and durable.
    /// Fails if the replica is offline or a write fails; then the stop is not clean.
    pub fn close(&self) -> Result<(), LogError> {
        let was_offline = self.view().role == Role::Offline;
        self.update(|core| {
            core.set_role(Role::Closed);
            match was_offline {
                true => Err(LogError::Failed { dir: core.log().dir().to_owned() }),
                false => core.log_mut().close().map(drop),
            }
        })
    }

    /// Requests an fdatasync of the log on a blocking thread and returns at once. Requests that
    /// arrive while one is running share the next one.
    pub fn flush(self: &Arc<Self>, urgency: Urgency) {
        self.callbacks.flushes.submit(self, urgency);
    }

    /// Makes the log durable, on the calling thread. If that fails, takes the replica offline and
    /// reports the failure to the broker.
    pub fn flush_now(&self) {
        let (flush, moves) = {
            let mut core = self.lock();
            (core.begin_flush(), core.moves())
        };
        let Some(flush) = flush else { return };
        let began = Instant::now();
        let ran = flush.run();
        self.callbacks.flush_seconds.observe(began.elapsed());
        match ran {
            Ok(flushed) => self.update(|core| {
                // A flush of the old log says nothing about the copy that has replaced it.
                if core.moves() == moves {
                    core.flushed(flushed, now_ms());
                }
            }),
            // The files were renamed or removed during the flush.
            Err(_) if self.view().role == Role::Closed || self.lock().moves() != moves => {}
            Err(error) => {
                // After a failed fdatasync, any page may be missing on disk.
                self.fail();
                (self.callbacks.on_failure)(self, &error);
            }
        }
    }

    /// Handles the error of a read through the view `seen`. Returns true if the log was truncated,
    /// replaced or compacted since; the caller then reads again from a new view. Otherwise reports
    /// I/O errors and corrupt data to the broker, and returns false.
    pub fn read_failed(&self, seen: &View, error: ReadError) -> bool {
        // The lock waits for the end of a truncation, an exchange of the log or a compaction.
        let is_other = {
            let core = self.lock();
            core.moves() != seen.moves || has_changed(core.log(), &seen.log, &error)
        };
        if is_other {
            return true;
        }
        match error {
            ReadError::OffsetOutOfRange { .. } => {}
            // The segment was deleted while a slow reader still had it in its view.
            ReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {}
            ReadError::Io { path, source } => {
                (self.callbacks.on_failure)(
                    self,
                    &LogError::Io { operation: "read", path, source },
                );
            }
            ReadError::Corrupt { path, what } => self.report_bad_data(path, what),
            ReadError::Records { path, position, source } => {
                self.report_bad_data(path, format!("position {position}: {source}"));
            }
        }
        false
    }

    fn report_bad_data(&self, path: PathBuf, what: String) {
        let source = io::Error::new(io::ErrorKind::InvalidData, what);
        (self.callbacks.on_failure)(self, &LogError::Io { operation: "read", path, source });
    }

    /// Takes the replica offline after its disk failed.
    pub fn fail(&self) {
        self.update(|core| core.set_role(Role::Offline));
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    /// Publishes a view of the core, which the caller has locked.
    fn publish(&self, core: &Core) -> Changed {
        let view = core.view();
        let before = self.view.swap(Arc::new(view));
        let now = self.view.load();
        let is_other_log = before.role != now.role || before.log.log_start() != now.log.log_start();
        Changed {
            appended: is_other_log || before.log.log_end() != now.log.log_end(),
            committed: is_other_log
                || before.high_watermark != now.high_watermark
                || before.last_stable_offset != now.last_stable_offset,
        }
    }

    /// Wakes the waiters that the published view concerns. If this replica does not lead, all
    /// appends and deletions end without success.
    fn wake(&self, changed: Changed) {
        let view = self.view.load();
        self.committed.pass(view.high_watermark);
        self.durable.pass(view.log.recovery_point());
        if !matches!(view.role, Role::Leader { .. }) && !has_bug(Bug::LostWaiter) {
            self.committed.clear();
            self.durable.clear();
            self.deleted.clear();
        }
        if changed.committed {
            self.fetches.wake_all();
        }
        if changed.appended {
            self.follower_fetches.wake_all();
        }
    }
}

/// Whether a read may have failed because the log was truncated or compacted after the view `seen`
/// was taken.
fn has_changed(log: &Log, seen: &LogView, error: &ReadError) -> bool {
    log.generation() != seen.generation()
        // Segments that were compacted are complete until their files are removed.
        || error.is_not_found() && log.replacements() != seen.replacements()
}

/// Which fetches a change concerns.
#[derive(Clone, Copy)]
struct Changed {
    /// Fetches of followers.
    appended: bool,
    /// Fetches of consumers.
    committed: bool,
}
