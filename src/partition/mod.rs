//! A partition's replica on this broker: its role, its log, its high watermark, and who waits on
//! it.
//!
//! The mutable state is a synchronous `Core` behind a plain mutex that is never held across an
//! await; everybody else reads the published `View` without a lock. All waits are by offset. A
//! partition knows neither requests nor connections.
//!
//! Invariants: log start <= high watermark <= log end; the high watermark never falls; a view is
//! never newer than the state it was made from.

mod core;
mod flush;
mod table;
mod waiters;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

pub use self::{
    core::{AppendError, Appended, Core, DeleteRecordsError, Role},
    table::{PartitionTable, Topic},
    waiters::FetchWait,
};
use self::{flush::FlushGate, waiters::Waiters};
use crate::{
    base::TopicPartition,
    log::{Log, LogError, LogView},
    records::Batch,
};

/// What readers see: immutable, published after each change.
#[derive(Clone)]
pub struct View {
    pub log: LogView,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub role: Role,
}

pub struct Partition {
    pub id: TopicPartition,
    core: Mutex<Core>,
    view: ArcSwap<View>,
    /// Appends with acks=all, and coordinators, until the high watermark has passed their end.
    committed: Waiters,
    /// Fetches that found too little, until there is more.
    fetches: waiters::FetchWaits,
    flushes: FlushGate,
}

impl Partition {
    pub fn new(id: TopicPartition, log: Log, role: Role, high_watermark: i64) -> Self {
        let core = Core::new(log, role, high_watermark);
        Self {
            id,
            view: ArcSwap::from_pointee(core.view()),
            core: Mutex::new(core),
            committed: Waiters::default(),
            fetches: waiters::FetchWaits::default(),
            flushes: FlushGate::default(),
        }
    }

    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Appends as leader. The records are readable once the high watermark has passed them: see
    /// [`Self::wait_committed`].
    pub fn append(
        self: &Arc<Self>,
        batches: &mut [Batch],
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let mut core = self.lock();
        let appended = core.append(batches, now_ms)?;
        self.publish(&core);
        drop(core);
        if appended.flush_due {
            self.flush();
        }
        self.wake();
        Ok(appended)
    }

    /// Waits until the high watermark is at least `end_offset`. False if this replica stopped
    /// leading.
    pub async fn wait_committed(&self, end_offset: i64) -> bool {
        if self.view.load().high_watermark >= end_offset {
            return true;
        }
        let passed = self.committed.register(end_offset);
        // The high watermark may have moved between the look and the registration.
        self.wake();
        passed.await.is_ok()
    }

    /// Registers a fetch to be woken by the next change of what can be read.
    pub fn wait_for_data(&self, wait: &Arc<FetchWait>) {
        self.fetches.add(wait);
    }

    pub fn forget_wait(&self, wait: &Arc<FetchWait>) {
        self.fetches.remove(wait);
    }

    /// Runs `change` on the owned state and publishes what came of it.
    pub fn update<R>(&self, change: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.lock();
        let result = change(&mut core);
        self.publish(&core);
        drop(core);
        self.wake();
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

    /// See [`Core::earliest`].
    pub fn earliest(&self) -> (i64, Option<i32>) {
        self.lock().earliest()
    }

    /// Stops serving: waiters are released, the files are closed by a clean stop.
    pub fn close(&self) -> Result<(), LogError> {
        self.committed.clear();
        let closed = self.update(|core| {
            core.set_role(Role::Offline);
            core.log_mut().close().map(drop)
        });
        self.fetches.wake_all();
        closed
    }

    /// Starts an fdatasync off this task unless one is running, which will then be followed by
    /// another: concurrent producers share it.
    pub fn flush(self: &Arc<Self>) {
        if self.flushes.request() {
            let partition = Arc::clone(self);
            tokio::task::spawn_blocking(move || partition.run_flushes());
        }
    }

    fn run_flushes(&self) {
        loop {
            let flush = self.lock().begin_flush();
            if let Some(flush) = flush {
                match flush.run() {
                    Ok(flushed) => self.update(|core| core.flushed(flushed)),
                    Err(error) => {
                        tracing::error!(partition = %self.id, %error, "flush failed");
                        self.fail();
                    }
                }
            }
            if !self.flushes.finish() {
                return;
            }
        }
    }

    /// Takes the partition offline after its disk failed.
    pub fn fail(&self) {
        self.committed.clear();
        self.update(|core| core.set_role(Role::Offline));
        self.fetches.wake_all();
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic while the core was held is our bug; its state is still the one that was
        // published.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, core: &Core) {
        self.view.store(Arc::new(core.view()));
    }

    fn wake(&self) {
        self.committed.pass(self.view.load().high_watermark);
        self.fetches.wake_all();
    }
}
