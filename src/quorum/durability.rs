//! Tracks which entries of the metadata log are durable, and syncs them on a thread of its own.
//!
//! openraft 0.9 neither sends heartbeats nor answers votes while it waits for an append. So if
//! other voters have to acknowledge an entry anyway, this node reports its own append to openraft
//! as complete at once. The acknowledgements are held back instead:
//! - A follower sends its response once its copy is durable (`acknowledge`).
//! - A leader passes a follower's response to openraft once the entry is durable on the leader, or
//!   on a majority without it (`release`).
//!
//! openraft therefore counts an entry as committed only once it is durable on a majority. A slow
//! disk delays commits, but not heartbeats.

use std::{
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use openraft::{LogId, raft::AppendEntriesResponse};
use parking_lot::Mutex;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, timeout_at},
};

use super::{
    log::BatchState,
    storage::Storage,
    types::{Membership, epoch_of, log_id},
    voters,
};
use crate::base::environment::{DiskThread, Panicked, without_panic};

/// The sync state of one node's log, shared by all handles to it.
#[derive(Debug)]
pub struct Durability {
    pub(super) thread: DiskThread,
    /// True while a queued sync has not begun. That sync covers everything that is in the log now.
    is_queued: AtomicBool,
    /// Incremented when the result of `state_of` or `others_have` may have changed.
    changed: watch::Sender<u64>,
    /// Why the log cannot be written any more.
    failure: watch::Sender<Option<String>>,
    /// The last entry that each other voter has on disk, as it reported to this leader.
    acknowledged: Mutex<BTreeMap<i32, LogId<i32>>>,
}

/// Why entries cannot be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum NotDurable {
    #[error("the disk has not written the entries yet")]
    Yet,
    #[error("the entries were replaced by another leader's")]
    Replaced,
}

impl Durability {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            thread: DiskThread::start("metadata-log")?,
            is_queued: AtomicBool::new(false),
            changed: watch::channel(0).0,
            failure: watch::channel(None).0,
            acknowledged: Mutex::default(),
        })
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Storage {
    /// Marks the log as failed for good. After a failed sync, the content of the disk is unknown.
    pub fn fail(&self, error: &io::Error) {
        self.durability.failure.send_replace(Some(error.to_string()));
    }

    /// Subscribes to the failure of the log: the reason, once it has failed.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.durability.failure.subscribe()
    }

    /// Returns an error with the reason if the log has failed.
    pub fn check_failure(&self) -> io::Result<()> {
        self.durability.failure.borrow().clone().map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    /// Queues work on the log's thread, after the jobs that are queued already. `complete` receives
    /// the result there. If the work fails or panics, the content of the disk is unknown and the
    /// log fails.
    fn queue<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
        complete: impl FnOnce(io::Result<T>) + Send + 'static,
    ) {
        let storage = self.clone();
        let work = || without_panic(work).unwrap_or_else(|| Err(io::Error::other(Panicked)));
        self.durability.thread.spawn(work, move |done| {
            if let Err(error) = &done {
                storage.fail(error);
            }
            if without_panic(|| complete(done)).is_none() {
                storage.fail(&io::Error::other(Panicked));
            }
        });
    }

    fn queue_sync(&self, report: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.durability.is_queued.store(true, Ordering::Release);
        let (storage, synced) = (self.clone(), self.clone());
        let work = move || {
            storage.durability.is_queued.store(false, Ordering::Release);
            let (mark, sync) = storage.log().sync();
            sync().map(|()| mark)
        };
        self.queue(work, move |done| {
            let done = done.map(|mark| {
                synced.log().synced(mark);
                synced.durability.notify();
            });
            report(done);
        });
    }

    /// Queues a sync, unless one is queued already, and does not wait for it.
    pub fn sync_soon(&self) {
        if !self.durability.is_queued.swap(true, Ordering::AcqRel) {
            // `queue` stores the error; `failure` and `check_failure` return it.
            self.queue_sync(drop);
        }
    }

    /// Waits until everything that is in the log is durable.
    pub async fn sync(&self) -> io::Result<()> {
        let (reply, result) = oneshot::channel();
        self.queue_sync(|done| drop(reply.send(done)));
        result.await.map_err(io::Error::other)?
    }

    /// Syncs the log, and then reports the outcome.
    pub fn sync_then(&self, report: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.queue_sync(report);
    }

    /// Queues a write. The returned future waits for its result. The write happens even if the
    /// future is dropped.
    pub fn on_disk_thread<T: Send + 'static, Work>(
        &self,
        work: Work,
    ) -> impl Future<Output = io::Result<T>> + Send + use<T, Work>
    where
        Work: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        self.queue(work, |done| drop(reply.send(done)));
        async { result.await.map_err(io::Error::other)? }
    }

    /// Runs a write after those that are queued already, without waiting for it.
    pub fn on_disk_thread_soon(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) {
        self.queue(work, drop);
    }

    fn state_of(&self, at: LogId<i32>) -> BatchState {
        self.log().state_of((epoch_of(&at), at.index))
    }

    /// Waits until `counts` accepts the state of the entry. Fails with `Yet` at the deadline, and
    /// with `Replaced` if another leader's entry has taken its place.
    async fn wait_until(
        &self,
        at: LogId<i32>,
        deadline: Instant,
        counts: impl Fn(BatchState) -> bool,
    ) -> Result<(), NotDurable> {
        let mut changed = self.durability.changed.subscribe();
        loop {
            let state = self.state_of(at);
            if state == BatchState::Replaced {
                return Err(NotDurable::Replaced);
            }
            if counts(state) {
                return Ok(());
            }
            if !matches!(timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                return Err(NotDurable::Yet);
            }
        }
    }

    /// Returns a follower's response to entries up to `last`, once they are durable on this node.
    /// If that takes longer than `wait`, the response covers what is durable then, so that the
    /// leader gets a response in time.
    pub async fn acknowledge(
        &self,
        (previous, last): (Option<LogId<i32>>, LogId<i32>),
        wait: Duration,
    ) -> Result<AppendEntriesResponse<i32>, NotDurable> {
        let is_durable = |state| state == BatchState::Durable;
        match self.wait_until(last, Instant::now() + wait, is_durable).await {
            Ok(()) => Ok(AppendEntriesResponse::Success),
            Err(NotDurable::Yet) => {
                partial(previous, self.durable_before(last), last).ok_or(NotDurable::Yet)
            }
            Err(replaced) => Err(replaced),
        }
    }

    /// The last durable entry. `None` also if another leader's entry has replaced the one at `at`:
    /// the leader that sent `at` must get no acknowledgement then.
    fn durable_before(&self, at: LogId<i32>) -> Option<LogId<i32>> {
        let log = self.log();
        let is_replaced = log.state_of((epoch_of(&at), at.index)) == BatchState::Replaced;
        let durable = log.last_durable().filter(|_| !is_replaced);
        durable.map(|(epoch, index)| log_id(epoch, index))
    }

    /// Returns a follower's acknowledgement of entries up to `acknowledged`, once openraft may
    /// count it. If that takes until the deadline, the response covers what may be counted by then.
    pub async fn release(
        &self,
        follower: i32,
        (previous, acknowledged): (Option<LogId<i32>>, LogId<i32>),
        deadline: Instant,
    ) -> Result<AppendEntriesResponse<i32>, NotDurable> {
        // If the entry was replaced, the acknowledgement says nothing about this leader's entries.
        if self.state_of(acknowledged) == BatchState::Replaced {
            return Err(NotDurable::Replaced);
        }
        {
            let mut known = self.durability.acknowledged.lock();
            let newest = known.entry(follower).or_insert(acknowledged);
            *newest = acknowledged.max(*newest);
        }
        self.durability.notify();
        let counts = |state| state == BatchState::Durable || self.others_have(acknowledged);
        match self.wait_until(acknowledged, deadline, counts).await {
            Ok(()) => Ok(AppendEntriesResponse::PartialSuccess(Some(acknowledged))),
            Err(NotDurable::Yet) => {
                let durable = self.durable_before(acknowledged);
                partial(previous, durable, acknowledged).ok_or(NotDurable::Yet)
            }
            Err(replaced) => Err(replaced),
        }
    }

    /// Whether the entry may count before this node's own copy is durable: a majority of each
    /// configuration has it on disk, without this node. Also true for a sole voter, whose `append`
    /// waits for the sync.
    fn others_have(&self, at: LogId<i32>) -> bool {
        let known = self.known();
        let membership: &Membership = known.effective().membership();
        if voters::is_alone(membership, self.node_id()) {
            return true;
        }
        let acknowledged = self.durability.acknowledged.lock();
        let has = |id: &&i32| {
            **id != self.node_id() && acknowledged.get(*id).is_some_and(|newest| *newest >= at)
        };
        let configs = membership.get_joint_config();
        configs.iter().all(|config| config.iter().filter(has).count() * 2 > config.len())
    }
}

/// A partial acknowledgement up to `durable`. `None` if `durable` is before `previous`, because
/// openraft does not accept an acknowledgement below the previous entry.
fn partial(
    previous: Option<LogId<i32>>,
    durable: Option<LogId<i32>>,
    last: LogId<i32>,
) -> Option<AppendEntriesResponse<i32>> {
    let durable = durable.filter(|durable| durable.index < last.index)?;
    let is_ahead = Some(durable) >= previous && Some(durable.index) >= previous.map(|it| it.index);
    is_ahead.then_some(AppendEntriesResponse::PartialSuccess(Some(durable)))
}
