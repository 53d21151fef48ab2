//! Runs shards: one task per partition of a coordinator's topic that this broker leads.
//!
//! The module owns the table of shards and delivers calls to them. A shard is loaded by replaying
//! its partition. It then decides on one event after another. The records of many events are
//! appended as one batch. The replies and the effects leave once the high watermark has passed the
//! batch.
//!
//! It does not know what a shard decides on.
//!
//! Invariants:
//! - A call gets exactly one reply, or is dropped with its shard.
//! - An effect leaves at most once, after all records that were decided before it are committed, or
//!   is dropped with its shard.
//! - If an append fails, the shard's state, which already includes the records, is discarded and
//!   loaded again.

mod batches;
mod load;
mod task;
mod timers;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::Duration,
};

use futures_core::future::BoxFuture;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use self::task::{ShardClock, ShardTask};
use super::{PlannedBatch, Shard};
use crate::{
    protocol::WireError,
    records::{Batch, RecordError},
};

/// Number of calls that may wait in the mailbox of a shard. If it is full, callers wait until there
/// is room.
const MAILBOX_CALLS: usize = 1024;
/// Number of shards that load at the same time. Each load blocks a thread and reads from disk.
const LOADS_AT_ONCE: usize = 2;

/// Why a shard stops.
#[derive(Debug, thiserror::Error)]
pub enum ShardLogError {
    /// Another broker leads the partition. The shard ends, and is not loaded again unless this
    /// broker is elected again.
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error("the partition's log failed: {0}")]
    Failed(String),
    #[error("a record of the partition cannot be read: {0}")]
    Record(#[from] RecordError),
    #[error("a record of the partition cannot be understood: {0}")]
    Wire(#[from] WireError),
}

/// The log of a shard's partition. The broker implements it. While this broker leads the partition,
/// the shard is the only writer.
pub trait ShardLog: Send + Sync + 'static {
    fn end_offset(&self) -> i64;
    /// The high watermark; -1 once this broker no longer leads.
    fn high_watermark(&self) -> i64;

    /// Whether the log takes such a batch now. `needs_all_replicas` is
    /// [`Shard::NEEDS_ALL_REPLICAS`].
    fn check(&self, batch: &PlannedBatch, needs_all_replicas: bool) -> Result<(), WriteRefused>;

    /// Appends a batch as leader and returns the new log end offset. Fails with `NotLeader` once
    /// another broker leads.
    fn append(&self, batch: Batch) -> Result<i64, ShardLogError>;

    /// Waits until the high watermark is at least `end_offset` and returns true. Returns false if
    /// this broker stops leading the partition.
    fn wait_committed(&self, end_offset: i64) -> BoxFuture<'_, bool>;

    /// Calls `each` with every batch from the start to the end of the log. Stops at the first
    /// error. Blocks the thread.
    fn read_all(
        &self,
        each: &mut dyn FnMut(Batch) -> Result<(), ShardLogError>,
    ) -> Result<(), ShardLogError>;
}

/// Limits of a shard's appends and replies.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes of one append.
    pub max_batch_bytes: usize,
    /// How long a reply waits until its records are committed.
    pub commit_timeout: Duration,
}

/// Why a shard's log does not take a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefused {
    #[error("there are fewer in-sync replicas than min.insync.replicas")]
    NotEnoughReplicas,
    /// Another broker leads the partition, or its log directory is offline.
    #[error("this broker cannot write to the partition")]
    NotLeader,
    #[error("the producer epoch is not the current one")]
    InvalidProducerEpoch,
    #[error("a newer coordinator has ended a transaction of the producer")]
    CoordinatorFenced,
    /// The transaction has ended since its coordinator was asked.
    #[error("the batch belongs to no verified transaction")]
    InvalidTxnState,
}

/// Why a shard does not reply to a call that it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// The records of the reply were appended, but not committed within `commit_timeout`. They may
    /// still be committed later.
    NotCommitted,
    /// The log does not take the records that the request may need. Nothing was decided.
    Refused(WriteRefused),
}

/// What a caller receives. If the shard ends first, the channel closes without it.
pub type Answered<S> = Result<<S as Shard>::Reply, CallError>;

/// A request on its way to a shard.
struct Call<S: Shard> {
    request: S::Request,
    /// `None` if no caller waits for the reply.
    reply: Option<oneshot::Sender<Answered<S>>>,
}

/// Why a shard does not take a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// This broker runs no shard of the partition.
    NotCoordinator,
    Loading,
}

/// Handles the effects of the shards. The arguments are the partition of the shard and the effect.
/// It is called in the shard's task, so it must neither block nor panic.
type EffectHandler<S> = Arc<dyn Fn(i32, <S as Shard>::Effect) + Send + Sync>;

/// What the handle of a shard and its task share.
struct ShardStatus {
    /// Whether the shard is loaded and takes calls.
    ready: AtomicBool,
    /// The leader epoch in which this broker was last elected leader of the partition.
    leader_epoch: AtomicI32,
}

struct ShardHandle<S: Shard> {
    calls: mpsc::Sender<Call<S>>,
    status: Arc<ShardStatus>,
    task: AbortHandle,
}

impl<S: Shard> Drop for ShardHandle<S> {
    fn drop(&mut self) {
        // The shard's task ends at its next await. This drops the calls that wait in it.
        self.task.abort();
    }
}

/// The shards that this broker runs, by partition index.
pub struct Shards<S: Shard> {
    /// The lock protects only the table. It is never held across an await.
    shards: RwLock<BTreeMap<i32, ShardHandle<S>>>,
    loads: Arc<Semaphore>,
    on_effect: EffectHandler<S>,
}

impl<S: Shard> Shards<S> {
    /// `on_effect` handles the effects of all shards. Its arguments are the partition of the shard
    /// and the effect. It must neither block nor panic.
    pub fn new(on_effect: impl Fn(i32, S::Effect) + Send + Sync + 'static) -> Self {
        let loads = Arc::new(Semaphore::new(LOADS_AT_ONCE));
        Self { shards: RwLock::default(), loads, on_effect: Arc::new(on_effect) }
    }

    /// Starts the shard of a partition that this broker now leads, and stops an earlier shard of
    /// it. `new_volatile` creates the volatile state after each load. Must be called within a tokio
    /// runtime.
    pub fn elect(
        &self,
        partition: i32,
        leader_epoch: i32,
        log: Arc<dyn ShardLog>,
        limits: Limits,
        new_volatile: impl Fn() -> S::VolatileState + Send + 'static,
    ) {
        // An earlier shard of the partition must not append while this one loads.
        self.resign(partition);
        let (calls, mailbox) = mpsc::channel(MAILBOX_CALLS);
        let (ready, leader_epoch) = (AtomicBool::new(false), AtomicI32::new(leader_epoch));
        let status = Arc::new(ShardStatus { ready, leader_epoch });
        let on_effect = Arc::clone(&self.on_effect);
        let task = ShardTask::<S> {
            partition,
            log,
            limits,
            mailbox,
            status: Arc::clone(&status),
            on_effect,
            clock: ShardClock::new(),
        };
        let run = task.run(Arc::clone(&self.loads), new_volatile);
        let task = tokio::spawn(run).abort_handle();
        let mut shards = self.shards.write();
        shards.insert(partition, ShardHandle { calls, status, task });
    }

    /// Sets the leader epoch of a partition whose shard continues, because no other broker has led
    /// it in between. Calls that come later are decided in this epoch.
    pub fn set_leader_epoch(&self, partition: i32, leader_epoch: i32) {
        if let Some(shard) = self.read().get(&partition) {
            shard.status.leader_epoch.store(leader_epoch, Ordering::Release);
        }
    }

    /// Stops the shard of a partition that this broker no longer leads.
    pub fn resign(&self, partition: i32) {
        let mut shards = self.shards.write();
        shards.remove(&partition);
    }

    /// The partitions with shards.
    pub fn partitions(&self) -> Vec<i32> {
        self.read().keys().copied().collect()
    }

    /// Puts a request in the mailbox of a shard. Returns once the request has its place in the
    /// order. The receiver fails if the shard ends before it answers.
    pub async fn call(
        &self,
        partition: i32,
        request: S::Request,
    ) -> Result<oneshot::Receiver<Answered<S>>, Unavailable> {
        let calls = match self.read().get(&partition) {
            None => return Err(Unavailable::NotCoordinator),
            // The shard ended because another broker leads; `resign` has not been called yet.
            Some(shard) if shard.calls.is_closed() => return Err(Unavailable::NotCoordinator),
            Some(shard) if !shard.status.ready.load(Ordering::Acquire) => {
                return Err(Unavailable::Loading);
            }
            Some(shard) => shard.calls.clone(),
        };
        let (reply, receiver) = oneshot::channel();
        let call = Call { request, reply: Some(reply) };
        calls.send(call).await.map_err(|_| Unavailable::NotCoordinator)?;
        Ok(receiver)
    }

    /// Sends a request to every shard, and returns their replies. Leaves out shards that are loading
    /// or do not answer by the deadline.
    pub async fn ask_all(
        &self,
        request: impl Fn() -> S::Request,
        deadline: Instant,
    ) -> Vec<S::Reply> {
        let mut asked = Vec::new();
        for partition in self.partitions() {
            if let Ok(Ok(answer)) = timeout_at(deadline, self.call(partition, request())).await {
                asked.push(answer);
            }
        }
        let mut replies = Vec::new();
        for answer in asked {
            if let Ok(Ok(Ok(reply))) = timeout_at(deadline, answer).await {
                replies.push(reply);
            }
        }
        replies
    }

    /// Puts a request in the mailbox of every shard, even while it loads, and discards the replies.
    pub fn notify_all(&self, request: impl Fn() -> S::Request) {
        for shard in self.read().values() {
            let call = Call { request: request(), reply: None };
            if let Err(mpsc::error::TrySendError::Full(call)) = shard.calls.try_send(call) {
                let calls = shard.calls.clone();
                tokio::spawn(async move {
                    let _ = calls.send(call).await; // the shard may have ended
                });
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<i32, ShardHandle<S>>> {
        self.shards.read()
    }
}

#[cfg(test)]
mod tests;
