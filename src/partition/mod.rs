//! A partition's replica on this broker: its role, its log, its high watermark, and who waits on
//! it.
//!
//! The mutable state is a synchronous `Core` behind a plain mutex that is never held across an
//! await; everybody else reads the published `View` without a lock. All waits are by offset. A
//! partition knows neither requests nor connections.
//!
//! Invariants: log start <= high watermark <= log end; the high watermark falls only where a
//! follower's log is cut below it, which is an error that is told; a view is never newer than the
//! state it was made from.

mod core;
mod flush;
mod follower;
mod future;
mod isr;
mod refusals;
mod table;
#[cfg(test)]
mod tests;
mod waiters;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;

pub use self::{
    core::{
        Acks, AppendError, Appended, Assignment, Core, DeleteRecordsError, EpochEnd,
        FollowerFetchError, OutOfRange, Role,
    },
    flush::{FlushQueue, Urgency},
    follower::{Ask, Fetched, FollowError, Followed, Truncated},
    future::{Copied, CopyError, FutureView, Replaced},
    isr::{
        Follower, FollowerFetch, IsrChange, IsrCounts, IsrRules, Proposal, ProposalAnswer, Standing,
    },
    table::{Absent, PartitionTable, Topic},
    waiters::FetchWait,
};
use self::{flush::FlushGate, future::FutureReplica, refusals::Refusals, waiters::Waiters};
use crate::{
    base::{
        TopicPartition,
        planted_bugs::{Bug, has_bug},
        world::now_ms,
    },
    log::{Log, LogError, LogView, ReadError},
    records::Batch,
    telemetry::Histogram,
};

/// What readers see: immutable, published after each change.
#[derive(Clone)]
pub struct View {
    pub log: LogView,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub role: Role,
    /// Counts the times that this replica ceased to lead: what was appended in an earlier reign may
    /// be gone.
    pub reign: u64,
    /// Where the epoch of a leader began; its high watermark may be behind that for a while.
    pub epoch_start: i64,
    /// Of a leader.
    pub isr: IsrCounts,
    /// Counts the times that a copy took the log's place.
    moves: u64,
}

/// Told of a disk that failed where nobody waits for an answer.
pub type OnFailure = Box<dyn Fn(&Partition, &LogError) + Send + Sync>;
/// Told of a partition that has a change of its in-sync replicas to propose.
pub type OnProposal = Box<dyn Fn(&Arc<Partition>) + Send + Sync>;

/// What a partition has of its broker.
pub struct Surroundings {
    pub on_failure: OnFailure,
    pub on_proposal: OnProposal,
    pub flush_seconds: Arc<Histogram>,
    pub flushes: Arc<FlushQueue>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            on_failure: Box::new(|_, _| {}),
            on_proposal: Box::new(|_| {}),
            flush_seconds: Arc::default(),
            flushes: FlushQueue::new(1),
        }
    }
}

pub struct Partition {
    pub id: TopicPartition,
    /// The log directory that it lies in.
    log_dir: ArcSwap<PathBuf>,
    future: FutureReplica,
    around: Surroundings,
    core: Mutex<Core>,
    view: ArcSwap<View>,
    /// Appends with acks=all, and coordinators, until the high watermark has passed their end.
    committed: Waiters,
    /// Appends that `flush.messages` wants durable, until they are.
    durable: Waiters,
    /// Deletions of records, until all replicas have taken them.
    deleted: Waiters,
    /// Fetches that found too little, until there is more.
    fetches: waiters::FetchWaits,
    /// The same of followers, who read what is not committed yet.
    follower_fetches: waiters::FetchWaits,
    flushes: FlushGate,
    refusals: Refusals,
}

/// What a fetch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Records below the high watermark.
    Committed,
    /// Whatever is in the log.
    Appended,
}

impl Partition {
    pub fn new(id: TopicPartition, core: Core, around: Surroundings) -> Self {
        let dir = core.log().dir().to_owned();
        let partition = Self {
            id,
            log_dir: ArcSwap::default(),
            future: FutureReplica::default(),
            around,
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

    /// The log directory that it lies in, for as long as it is not moved.
    pub fn log_dir(&self) -> Arc<PathBuf> {
        self.log_dir.load_full()
    }

    fn set_log_dir(&self, partition_dir: &Path) {
        let log_dir = partition_dir.parent().map(Path::to_owned);
        self.log_dir.store(Arc::new(log_dir.unwrap_or_default()));
    }

    /// Whether the log has refused a write since then, and has taken none after it.
    pub fn refuses_writes(&self, since_ms: i64) -> bool {
        self.refusals.any_since(since_ms)
    }

    /// Appends as leader. The records are readable once the high watermark has passed them: see
    /// [`Self::wait_committed`].
    pub fn append(
        self: &Arc<Self>,
        batches: &mut [Batch],
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.append_to(self.lock(), batches, acks, now_ms)
    }

    /// The same of what was decided in a `reign`, and in no other.
    pub fn append_in(
        self: &Arc<Self>,
        reign: u64,
        batches: &mut [Batch],
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let core = self.lock();
        match core.reign() == reign {
            true => self.append_to(core, batches, acks, now_ms),
            false => Err(AppendError::NotLeader),
        }
    }

    fn append_to(
        self: &Arc<Self>,
        mut core: MutexGuard<'_, Core>,
        batches: &mut [Batch],
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let appended = core.append(batches, acks, now_ms);
        self.refusals.note(&appended, now_ms);
        // Also after a failure: its undo may have cut the log.
        let changed = self.publish(&core);
        drop(core);
        let is_awaited = appended.as_ref().is_ok_and(|it| it.flush_due);
        if is_awaited || appended.as_ref().is_ok_and(|it| it.rolled) {
            self.flush(if is_awaited { Urgency::Urgent } else { Urgency::Background });
        }
        self.wake(changed);
        appended
    }

    /// Whether what ends there, written in that `reign`, is committed; a follower's high watermark
    /// says it of what the leader has.
    pub fn has_committed(&self, end_offset: i64, reign: u64) -> bool {
        let view = self.view.load();
        view.reign == reign && view.high_watermark >= end_offset
    }

    /// Waits until the high watermark is at least `end_offset`. False if this replica stopped
    /// leading since it wrote, in that `reign`, what ends there.
    pub async fn wait_committed(&self, end_offset: i64, reign: u64) -> bool {
        let high_watermark = |view: &View| view.high_watermark;
        self.wait_until(&self.committed, high_watermark, (end_offset, reign)).await
    }

    /// The same until what ends there is durable here.
    pub async fn wait_durable(&self, end_offset: i64, reign: u64) -> bool {
        let flushed = |view: &View| view.log.recovery_point();
        self.wait_until(&self.durable, flushed, (end_offset, reign)).await
    }

    async fn wait_until(
        &self,
        waiters: &Waiters,
        reached: fn(&View) -> i64,
        (offset, reign): (i64, u64),
    ) -> bool {
        let view = self.view.load();
        if view.reign != reign || reached(&view) >= offset {
            return view.reign == reign;
        }
        drop(view);
        let passed = waiters.register(offset);
        // Both may have changed between the look and the registration.
        let view = self.view();
        if view.reign != reign || !matches!(view.role, Role::Leader { .. }) {
            return false;
        }
        waiters.pass(reached(&view));
        passed.await.is_ok()
    }

    /// Waits until no replica has records before `offset`. `None` if this replica stopped leading in
    /// the meantime, else the offset that all have deleted up to.
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

    /// Registers a fetch to be woken by the next change of what it can read.
    pub fn wait_for_data(&self, wait: &Arc<FetchWait>, awaited: Awaited) {
        self.waits(awaited).add(wait);
    }

    pub fn forget_wait(&self, wait: &Arc<FetchWait>, awaited: Awaited) {
        self.waits(awaited).remove(wait);
    }

    fn waits(&self, awaited: Awaited) -> &waiters::FetchWaits {
        match awaited {
            Awaited::Committed => &self.fetches,
            Awaited::Appended => &self.follower_fetches,
        }
    }

    /// Takes note of a follower's fetch; see [`Core::follower_fetched`].
    pub fn follower_fetched(
        self: &Arc<Self>,
        fetch: &FollowerFetch,
        now_ms: i64,
    ) -> Result<Option<EpochEnd>, FollowerFetchError> {
        let mut core = self.lock();
        let (high_watermark, proposes) = (core.high_watermark(), core.proposal().is_some());
        let fetched = core.follower_fetched(fetch, now_ms);
        // Most fetches change nothing that others see.
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
            (self.around.on_proposal)(self);
        }
        fetched
    }

    /// Appends what the leader has; see [`Core::append_fetched`].
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

    /// See [`Core::check_isr`].
    pub fn check_isr(self: &Arc<Self>, now_ms: i64) {
        let mut core = self.lock();
        let proposed = core.proposal().is_some();
        core.check_isr(now_ms);
        let proposes = !proposed && core.proposal().is_some();
        drop(core);
        if proposes {
            (self.around.on_proposal)(self);
        }
    }

    /// The change of the in-sync replicas that waits for the controller.
    pub fn proposal(&self) -> Option<Proposal> {
        self.lock().proposal().cloned()
    }

    /// The followers that are in sync, as their leader has them.
    pub fn in_sync_followers(&self) -> Vec<Follower> {
        let core = self.lock();
        let in_sync = core.followers().iter().filter(|it| core.isr().contains(&it.id));
        in_sync.copied().collect()
    }

    /// Whether records wait to be committed while a follower in sync does not fetch.
    pub fn is_stuck(&self, now_ms: i64) -> bool {
        let core = self.lock();
        let is_silent = |it: &Follower| core.isr().contains(&it.id) && it.is_silent(now_ms);
        core.high_watermark() < core.log().log_end() && core.followers().iter().any(is_silent)
    }

    /// Runs `change` on the owned state and publishes what came of it.
    pub fn update<R>(&self, change: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.lock();
        let result = change(&mut core);
        let changed = self.publish(&core);
        drop(core);
        self.wake(changed);
        result
    }

    /// Looks at the log under the lock; for what the view does not show.
    pub fn with_log<R>(&self, look: impl FnOnce(&Log) -> R) -> R {
        look(self.lock().log())
    }

    /// See [`Core::end_offset_for_epoch`].
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        self.lock().end_offset_for_epoch(epoch)
    }

    /// See [`Core::diverging`].
    pub fn diverging(
        &self,
        fetch_offset: i64,
        last_fetched_epoch: i32,
    ) -> Result<Option<EpochEnd>, OutOfRange> {
        self.lock().diverging(fetch_offset, last_fetched_epoch)
    }

    /// See [`Core::earliest`].
    pub fn earliest(&self) -> (i64, Option<i32>) {
        self.lock().earliest()
    }

    /// Stops serving, as when the replica is removed: waiters are released, nothing is written any
    /// more.
    pub fn retire(&self) {
        self.update(|core| core.set_role(Role::Closed));
    }

    /// The same for a clean stop, which leaves the files whole and durable.
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

    /// Has an fdatasync done off this task. If one is under way, another will follow: concurrent
    /// producers share it.
    pub fn flush(self: &Arc<Self>, urgency: Urgency) {
        self.around.flushes.submit(self, urgency);
    }

    /// Makes what is in the log durable, on this thread.
    pub fn flush_now(&self) {
        let (flush, moves) = {
            let mut core = self.lock();
            (core.begin_flush(), core.moves())
        };
        let Some(flush) = flush else { return };
        let began = Instant::now();
        let ran = flush.run();
        self.around.flush_seconds.observe(began.elapsed());
        match ran {
            Ok(flushed) => self.update(|core| {
                // Of the log that there was before a move it says nothing.
                if core.moves() == moves {
                    core.flushed(flushed, now_ms());
                }
            }),
            // The files were renamed or removed meanwhile.
            Err(_) if self.view().role == Role::Closed || self.lock().moves() != moves => {}
            Err(error) => {
                // Nobody knows which pages the disk has now.
                self.fail();
                (self.around.on_failure)(self, &error);
            }
        }
    }

    /// Tells of a read that failed, of what a reader has seen. A disk that cannot be read is no
    /// better than one that cannot be written. True if the log is another by now, which can be read.
    pub fn read_failed(&self, seen: &View, error: ReadError) -> bool {
        // A follower's log is cut, and a copy takes its place, while others read it; the lock waits
        // for either.
        let is_other = {
            let core = self.lock();
            (core.moves(), core.log().generation()) != (seen.moves, seen.log.generation())
        };
        if is_other {
            return true;
        }
        match error {
            ReadError::OffsetOutOfRange { .. } => {}
            // A segment that was removed while a slow reader had it in view.
            ReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {}
            ReadError::Io { path, source } => {
                (self.around.on_failure)(self, &LogError::Io { operation: "read", path, source });
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
        (self.around.on_failure)(self, &LogError::Io { operation: "read", path, source });
    }

    /// Takes the partition offline after its disk failed.
    pub fn fail(&self) {
        self.update(|core| core.set_role(Role::Offline));
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic while the core was held is our bug; its state is still the one that was
        // published.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

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

/// Whom a change concerns.
#[derive(Clone, Copy)]
struct Changed {
    appended: bool,
    committed: bool,
}
