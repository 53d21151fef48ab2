//! The future replica: a copy of a replica in another log directory of the broker. It takes the
//! place of the replica once it has all records (KIP-113; Kafka's `Partition.futureLog` and
//! `ReplicaAlterLogDirsThread`).
//!
//! All records of the log are copied, committed or not. If the log is truncated, the copy is
//! truncated to match. Locks are taken in the order: future replica, core. No disk sync runs while
//! the core is locked, because producers need that lock.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::{Core, Partition, has_changed};
use crate::{
    base::environment::now_ms,
    log::{
        Epochs, Log, LogConfig, LogError, LogView, ReadError,
        dirs::{DeletedPartition, SharedLogDirs},
    },
};

/// How many rounds of copying an exchange may take to catch up with producers.
const ROUNDS_MAX: usize = 20;

/// The copy of a replica, if the replica is moving.
#[derive(Default)]
pub(super) struct FutureReplica {
    /// The copy's log. The lock is held for a round of copying, and from the last round of an
    /// exchange to its end.
    log: Mutex<Option<Log>>,
    view: ArcSwapOption<FutureView>,
}

/// An immutable snapshot of a future replica, read without a lock.
#[derive(Clone)]
pub struct FutureView {
    /// The log directory that contains the copy.
    pub log_dir: PathBuf,
    pub log: LogView,
    /// Whether the copy has had all records durably. From then on, the broker reports its directory
    /// to the controller as that of the replica.
    pub is_ready: bool,
}

/// The result of a round of copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// There is no future replica, or the replica is out of service.
    Over,
    /// The bytes that were copied, and how far the copy's log end is behind, in offsets.
    Some { bytes: u64, lag: i64 },
}

/// The result of exchanging a replica for its copy.
#[derive(Debug)]
pub enum Replaced {
    /// There is no ready future replica, or the replica is out of service.
    Cancelled,
    /// Too many records have still to be copied. The caller copies them, then tries again.
    NotCaughtUp,
    /// The copy is the replica now. The caller removes the old directory. It is an error if the old
    /// directory could not be renamed.
    Done(Result<DeletedPartition, LogError>),
    /// The copy is the replica now, but the sync of its new name failed, so a crash may undo the
    /// rename. No later flush counts.
    RenameNotDurable(LogError),
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] LogError),
}

impl Partition {
    /// The newest view of the future replica; `None` if the replica is not moving.
    pub fn future_view(&self) -> Option<Arc<FutureView>> {
        self.future.view.load_full()
    }

    /// Starts a move, or resumes it after a restart. `log` is the copy in the target directory.
    pub fn begin_move(&self, log: Log) {
        let mut future = self.lock_future();
        self.publish_future(&log, false);
        *future = Some(log);
    }

    /// Ends a move and returns the log of the copy. The caller decides whether to remove its files.
    pub fn take_future(&self) -> Option<Log> {
        let taken = self.lock_future().take();
        self.future.view.store(None);
        taken
    }

    /// Copies a round of batches: up to `most` bytes, but at least one batch. Blocks on the disk.
    pub fn copy_to_future(&self, most: usize) -> Result<Copied, CopyError> {
        self.copy_to_future_with(most, Rolled::FlushNow)
    }

    fn copy_to_future_with(&self, most: usize, rolled: Rolled) -> Result<Copied, CopyError> {
        let mut slot = self.lock_future();
        let Some(future) = slot.as_mut() else { return Ok(Copied::Over) };
        let source = {
            let core = self.lock();
            if core.role().is_final() {
                return Ok(Copied::Over);
            }
            Source::of(&core)
        };
        let copied = match source.copy_to(future, most, rolled) {
            // The log was truncated or compacted during the read. The next round reads the new one.
            Err(CopyError::Read(error)) if has_changed(self.lock().log(), &source.view, &error) => {
                Ok(Copied::Some { bytes: 0, lag: 1 })
            }
            copied => copied,
        };
        let is_ready = self.future_view().is_some_and(|view| view.is_ready);
        self.publish_future(future, is_ready);
        copied
    }

    /// Makes the copied records durable, then marks the future replica as ready.
    pub fn ready_future(&self) -> Result<(), LogError> {
        self.flush_future()?;
        if let Some(future) = self.lock_future().as_ref() {
            self.publish_future(future, true);
        }
        Ok(())
    }

    /// Makes the copied records durable. No lock is held during the sync.
    fn flush_future(&self) -> Result<(), LogError> {
        let (flush, dir) = match self.lock_future().as_mut() {
            Some(future) => (future.begin_flush(), future.dir().to_owned()),
            None => return Ok(()),
        };
        let Some(flush) = flush else { return Ok(()) };
        let ran = flush.run();
        // If the move has ended meanwhile, its files may be gone, and a failed sync does not
        // matter.
        match self.lock_future().as_mut().filter(|future| future.dir() == dir) {
            Some(future) => ran.map(|flushed| future.flushed(flushed)),
            None => Ok(()),
        }
    }

    /// Exchanges the replica for its future replica, if that is ready and has nearly all records.
    /// Producers wait while the last records are copied and the directory is renamed, but not for a
    /// sync. `most` limits the bytes of a round, and `unique` goes into the old directory's new
    /// name.
    ///
    /// The copy's directory gets the name of the replica, durably, before the old directory loses
    /// it. A start after a crash therefore finds at least one of the two, and the one that metadata
    /// names has all acknowledged records.
    pub fn replace_with_future(
        &self,
        most: usize,
        dirs: &SharedLogDirs,
        unique: Uuid,
    ) -> Result<Replaced, CopyError> {
        self.lock().hold_flushes();
        let replaced = self.exchange(most, dirs, unique);
        if !matches!(replaced, Ok(Replaced::RenameNotDurable(_))) {
            self.lock().release_flushes();
            self.flush_now();
        }
        replaced
    }

    fn exchange(
        &self,
        most: usize,
        dirs: &SharedLogDirs,
        unique: Uuid,
    ) -> Result<Replaced, CopyError> {
        if !self.future_view().is_some_and(|view| view.is_ready) {
            return Ok(Replaced::Cancelled);
        }
        if let Some(ended) = self.catch_up(most)? {
            return Ok(ended);
        }
        if !self.is_future_as_durable() {
            self.flush_future()?;
            // Records that were appended during the flush.
            if let Some(ended) = self.catch_up(most)? {
                return Ok(ended);
            }
        }
        let mut slot = self.lock_future();
        let is_ready = self.future_view().is_some_and(|view| view.is_ready);
        let Some(future) = slot.as_mut().filter(|_| is_ready) else {
            return Ok(Replaced::Cancelled);
        };
        let mut core = self.lock();
        if core.role().is_final() {
            return Ok(Replaced::Cancelled);
        }
        let copied = Source::of(&core).copy_to(future, most, Rolled::FlushLater)?;
        let is_durable = future.recovery_point() >= core.log().recovery_point();
        if !matches!(copied, Copied::Some { lag: 0, .. }) || !is_durable {
            drop(core);
            self.publish_future(future, true);
            return Ok(Replaced::NotCaughtUp);
        }
        let path = dirs.promote(future.dir(), &self.id)?;
        future.set_dir(&path);
        let Some(future) = slot.take() else { return Ok(Replaced::Cancelled) };
        self.future.view.store(None);
        let mut old = core.replace_log(future);
        self.set_log_dir(&path);
        let changed = self.publish(&core);
        drop(core);
        self.wake(changed);
        // The slot stays locked, so that a deletion of the partition waits. Otherwise, another
        // replica could be created under the old path before the old directory is renamed.
        if let Err(error) = dirs.sync_above(&path) {
            return Ok(Replaced::RenameNotDurable(error));
        }
        let deleted = dirs.delete_partition(old.dir(), &self.id, unique);
        Ok(Replaced::Done(deleted.and_then(|left| {
            // Slow readers open the files of the old log under its new path.
            old.set_dir(&left.path);
            dirs.sync_above(&left.path).map(|()| left)
        })))
    }

    fn is_future_as_durable(&self) -> bool {
        let durable = self.view().log.recovery_point();
        self.future_view().is_some_and(|view| view.log.recovery_point() >= durable)
    }

    /// Copies the remaining records while producers continue to append. Returns `None` once the
    /// copy has all of them, or the result with which the exchange ends here.
    fn catch_up(&self, most: usize) -> Result<Option<Replaced>, CopyError> {
        for _ in 0..ROUNDS_MAX {
            match self.copy_to_future_with(most, Rolled::FlushLater)? {
                Copied::Over => return Ok(Some(Replaced::Cancelled)),
                Copied::Some { lag: 0, .. } => return Ok(None),
                Copied::Some { .. } => {}
            }
        }
        Ok(Some(Replaced::NotCaughtUp))
    }

    /// Makes the future replica's files complete and durable, for a clean stop.
    pub fn close_future(&self) -> Result<(), LogError> {
        match self.lock_future().as_mut() {
            Some(future) => future.close().map(drop),
            None => Ok(()),
        }
    }

    fn publish_future(&self, log: &Log, is_ready: bool) {
        let log_dir = log.dir().parent().map(Path::to_owned).unwrap_or_default();
        self.future.view.store(Some(Arc::new(FutureView { log_dir, log: log.view(), is_ready })));
    }

    fn lock_future(&self) -> MutexGuard<'_, Option<Log>> {
        self.future.log.lock()
    }
}

/// When a closed segment of the copy is flushed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rolled {
    FlushNow,
    /// Together with the rest of the copy, after the round.
    FlushLater,
}

/// A snapshot of the log that is copied.
struct Source {
    view: LogView,
    epochs: Epochs,
    config: Arc<LogConfig>,
    high_watermark: i64,
}

impl Source {
    fn of(core: &Core) -> Self {
        let log = core.log();
        Self {
            view: log.view(),
            epochs: log.epochs_led_by(-1),
            config: Arc::clone(log.config()),
            high_watermark: core.high_watermark(),
        }
    }

    fn copy_to(&self, future: &mut Log, most: usize, rolled: Rolled) -> Result<Copied, CopyError> {
        let (start, now) = (self.view.log_start(), now_ms());
        future.set_config(Arc::clone(&self.config));
        self.cut(future, now)?;
        if future.log_end() < start {
            future.truncate_fully_and_start_at(start, now)?;
        }
        let mut bytes = 0;
        let mut batches = Vec::new();
        for batch in self.view.batches_from(future.log_end()) {
            let batch = batch?;
            if !batches.is_empty() && bytes + batch.size() > most {
                break;
            }
            bytes += batch.size();
            batches.push(batch);
        }
        if let Some(base) = batches.first().map(|batch| batch.header.base_offset) {
            if base < future.log_end() {
                // An empty copy: the log starts within the batch, so the copy starts at its base
                // offset. Any other copy does not match the log, and copying starts again.
                let is_empty = future.log_start() == future.log_end();
                future.truncate_fully_and_start_at(if is_empty { base } else { start }, now)?;
                if !is_empty {
                    return Ok(Copied::Some { bytes: 0, lag: self.view.log_end() - start });
                }
            }
            if future.append_verbatim(&batches, now)?.rolled && rolled == Rolled::FlushNow {
                future.flush()?;
            }
        } else if future.log_end() < self.view.log_end() {
            // Compaction has removed the last batches.
            future.roll(self.view.log_end(), now)?;
        }
        future.advance_log_start(start.min(future.log_end()))?;
        future.note_high_watermark(self.high_watermark);
        if let Some(first_dirty) = self.view.first_dirty() {
            // A round that ends during the move has not cleaned what was copied before.
            let known = future.view().first_dirty().unwrap_or(first_dirty);
            future.restore_first_dirty(Some(known.min(first_dirty)));
        }
        let lag = self.view.log_end() - future.log_end();
        Ok(Copied::Some { bytes: bytes as u64, lag })
    }

    /// Truncates the copy to the records that it has in common with the log.
    fn cut(&self, future: &mut Log, now_ms: i64) -> Result<(), LogError> {
        let start = self.view.log_start();
        if future.log_start() > start {
            return future.truncate_fully_and_start_at(start, now_ms);
        }
        // After a truncation, the last epoch of the copy may still be unknown to the log.
        while let Some(offset) = self.divergence(future) {
            if offset < future.log_start() {
                return future.truncate_fully_and_start_at(start, now_ms);
            }
            future.truncate_to(offset, 0)?;
        }
        Ok(())
    }

    /// The offset to which the copy must be truncated, if any. Below the copy's log start, copying
    /// starts again.
    fn divergence(&self, future: &Log) -> Option<i64> {
        let end = future.log_end();
        let (log_end, latest) = (self.view.log_end(), self.epochs.latest());
        let offset = match (future.latest_epoch(), latest) {
            (None, _) => log_end,
            // The log was deleted and started again.
            (Some(_), None) => -1,
            (Some(epoch), Some(latest)) => {
                let asked = epoch.min(latest.epoch);
                let ours = self.epochs.end_offset_for(asked, log_end);
                let ours = ours.unwrap_or((latest.epoch, log_end));
                if ours.0 == epoch { ours.1 } else { future.truncation_offset(ours) }
            }
        };
        (offset < end).then_some(offset)
    }
}
