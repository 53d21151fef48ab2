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
    core::{AppendError, Appended, Core, DeleteRecordsError, Role},
    table::{Absent, PartitionTable, Topic},
    waiters::FetchWait,
};
use self::{flush::FlushGate, waiters::Waiters};
use crate::{
    base::{TopicPartition, world::spawn_blocking},
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
}

/// Told of a disk that failed where nobody waits for an answer.
pub type OnFailure = Box<dyn Fn(&Partition, &LogError) + Send + Sync>;

pub struct Partition {
    pub id: TopicPartition,
    /// The log directory that it lies in.
    log_dir: PathBuf,
    on_failure: OnFailure,
    core: Mutex<Core>,
    view: ArcSwap<View>,
    /// Appends with acks=all, and coordinators, until the high watermark has passed their end.
    committed: Waiters,
    /// Fetches that found too little, until there is more.
    fetches: waiters::FetchWaits,
    flushes: FlushGate,
    flush_seconds: Arc<Histogram>,
}

impl Partition {
    pub fn new(
        id: TopicPartition,
        core: Core,
        on_failure: OnFailure,
        flush_seconds: Arc<Histogram>,
    ) -> Self {
        Self {
            id,
            log_dir: core.log().dir().parent().map(Path::to_owned).unwrap_or_default(),
            on_failure,
            view: ArcSwap::from_pointee(core.view()),
            core: Mutex::new(core),
            committed: Waiters::default(),
            fetches: waiters::FetchWaits::default(),
            flushes: FlushGate::default(),
            flush_seconds,
        }
    }

    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub fn log_dir(&self) -> &Path {
        &self.log_dir
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
        if appended.flush_due || appended.rolled {
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
        // The high watermark or the role may have changed between the look and the registration.
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

    /// Starts an fdatasync off this task unless one is running, which will then be followed by
    /// another: concurrent producers share it.
    pub fn flush(self: &Arc<Self>) {
        if self.flushes.request() {
            let partition = Arc::clone(self);
            spawn_blocking(move || partition.run_flushes());
        }
    }

    fn run_flushes(&self) {
        loop {
            let flush = self.lock().begin_flush();
            if let Some(flush) = flush {
                let began = Instant::now();
                let ran = flush.run();
                self.flush_seconds.observe(began.elapsed());
                match ran {
                    Ok(flushed) => self.update(|core| core.flushed(flushed)),
                    // The files were renamed or removed meanwhile.
                    Err(_) if self.view().role == Role::Closed => {}
                    Err(error) => {
                        // Nobody knows which pages the disk has now.
                        self.fail();
                        (self.on_failure)(self, &error);
                    }
                }
            }
            if !self.flushes.finish() {
                return;
            }
        }
    }

    /// Tells of a read that failed. A disk that cannot be read is no better than one that cannot
    /// be written.
    pub fn read_failed(&self, error: ReadError) {
        match error {
            ReadError::OffsetOutOfRange { .. } => {}
            // A segment that was removed while a slow reader had it in view.
            ReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {}
            ReadError::Io { path, source } => {
                (self.on_failure)(self, &LogError::Io { operation: "read", path, source });
            }
            ReadError::Corrupt { path, what } => {
                let source = io::Error::new(io::ErrorKind::InvalidData, what);
                (self.on_failure)(self, &LogError::Io { operation: "read", path, source });
            }
        }
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

    fn publish(&self, core: &Core) {
        self.view.store(Arc::new(core.view()));
    }

    fn wake(&self) {
        let view = self.view.load();
        self.committed.pass(view.high_watermark);
        if !matches!(view.role, Role::Leader { .. }) {
            self.committed.clear();
        }
        self.fetches.wake_all();
    }
}
