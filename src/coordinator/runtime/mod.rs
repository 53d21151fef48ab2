//! Runs shards: one task per led partition of a coordinator's topic.
//!
//! Owns the table of shards and the way of a call into one. A shard is loaded by replaying its
//! partition, then decides on one event after another; what many events decide is appended as one
//! batch, and their answers leave once the high watermark has passed it.
//!
//! Must not know what a shard decides on.
//!
//! Invariants:
//! - A call is answered exactly once: by its reply, or by being dropped with the shard.
//! - What cannot be appended was never applied to anything that outlives the failure: the shard's
//!   state is thrown away and loaded again.

mod load;
mod task;
mod timers;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::AbortHandle,
};

use self::task::ShardTask;
use super::Shard;
use crate::{
    protocol::WireError,
    records::{Batch, RecordError},
};

/// How many calls may wait for a shard before callers wait to get in.
const MAILBOX_CALLS: usize = 1024;
/// How many shards load at once; each takes a blocking thread and a disk's attention.
const LOADS_AT_ONCE: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum ShardLogError {
    /// Another broker leads the partition; it will be elected anew or not at all.
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error("the partition's log failed: {0}")]
    Failed(String),
    #[error("a record of the partition cannot be read: {0}")]
    Record(#[from] RecordError),
    #[error("a record of the partition cannot be understood: {0}")]
    Wire(#[from] WireError),
}

/// What a shard needs of its partition. The shard is the only one who appends to it.
pub trait ShardLog: Send + Sync + 'static {
    fn end_offset(&self) -> i64;
    fn high_watermark(&self) -> i64;

    /// Appends as leader, and gives the log's new end offset.
    fn append(&self, batch: Batch) -> Result<i64, ShardLogError>;

    /// Waits until the high watermark is at least `end_offset`. False if the replica stopped
    /// leading meanwhile.
    fn wait_committed(&self, end_offset: i64) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;

    /// Calls `each` with every batch from the log's start to its end. Blocks.
    fn read_all(
        &self,
        each: &mut dyn FnMut(Batch) -> Result<(), ShardLogError>,
    ) -> Result<(), ShardLogError>;
}

/// What a shard goes by besides its events.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most that one append may take.
    pub max_batch_bytes: usize,
    /// How long an answer waits for its records to be committed.
    pub commit_timeout: Duration,
}

/// What a reply tells of is written, but was not committed in time; it may be yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotCommitted;

/// What a caller gets; nothing if the shard ends before it answers.
pub type Answered<S> = Result<<S as Shard>::Reply, NotCommitted>;

/// A request on its way to a shard.
struct Call<S: Shard> {
    request: S::Request,
    /// None if nobody waits for the reply.
    reply: Option<oneshot::Sender<Answered<S>>>,
}

/// Why a shard does not take a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    NotHere,
    Loading,
}

struct ShardHandle<S: Shard> {
    calls: mpsc::Sender<Call<S>>,
    ready: Arc<AtomicBool>,
    task: AbortHandle,
}

impl<S: Shard> Drop for ShardHandle<S> {
    fn drop(&mut self) {
        // The shard stops at its next await and drops whoever waits on it.
        self.task.abort();
    }
}

/// The shards that this broker runs, by partition index.
pub struct Shards<S: Shard> {
    shards: RwLock<BTreeMap<i32, ShardHandle<S>>>,
    loads: Arc<Semaphore>,
}

impl<S: Shard> Default for Shards<S> {
    fn default() -> Self {
        Self { shards: RwLock::default(), loads: Arc::new(Semaphore::new(LOADS_AT_ONCE)) }
    }
}

impl<S: Shard> Shards<S> {
    /// Starts the shard of a partition that this broker leads from now on, in the place of an
    /// earlier one. `new_soft` makes the soft state of each load.
    pub fn elect(
        &self,
        partition: i32,
        log: Arc<dyn ShardLog>,
        limits: Limits,
        new_soft: impl Fn() -> S::Soft + Send + 'static,
    ) {
        // An earlier shard of the partition must not append while this one loads.
        self.resign(partition);
        let (calls, mailbox) = mpsc::channel(MAILBOX_CALLS);
        let ready = Arc::new(AtomicBool::new(false));
        let task = ShardTask::<S>::new(partition, log, limits, mailbox);
        let run = task.run(Arc::clone(&ready), Arc::clone(&self.loads), new_soft);
        let task = tokio::spawn(run).abort_handle();
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        shards.insert(partition, ShardHandle { calls, ready, task });
    }

    /// Stops the shard of a partition that another broker leads now.
    pub fn resign(&self, partition: i32) {
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        shards.remove(&partition);
    }

    /// The partitions with shards.
    pub fn partitions(&self) -> Vec<i32> {
        self.read().keys().copied().collect()
    }

    /// Puts a request in a shard's mailbox; returns once it has its place in the order. The
    /// receiver fails if the shard ends before it answers.
    pub async fn call(
        &self,
        partition: i32,
        request: S::Request,
    ) -> Result<oneshot::Receiver<Answered<S>>, Unavailable> {
        let calls = match self.read().get(&partition) {
            None => return Err(Unavailable::NotHere),
            // It ended because another broker leads, and has not been told to resign yet.
            Some(shard) if shard.calls.is_closed() => return Err(Unavailable::NotHere),
            Some(shard) if !shard.ready.load(Ordering::Acquire) => {
                return Err(Unavailable::Loading);
            }
            Some(shard) => shard.calls.clone(),
        };
        let (reply, receiver) = oneshot::channel();
        let call = Call { request, reply: Some(reply) };
        calls.send(call).await.map_err(|_| Unavailable::NotHere)?;
        Ok(receiver)
    }

    /// Puts a request in every shard's mailbox, loading or not, without an answer.
    pub fn notify_all(&self, request: impl Fn() -> S::Request) {
        for shard in self.read().values() {
            let call = Call { request: request(), reply: None };
            if let Err(mpsc::error::TrySendError::Full(call)) = shard.calls.try_send(call) {
                let calls = shard.calls.clone();
                tokio::spawn(async move {
                    let _ = calls.send(call).await; // a shard that ended has nothing to be told
                });
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<i32, ShardHandle<S>>> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
