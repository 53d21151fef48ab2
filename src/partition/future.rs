//! The future replica: a copy of this one in another log directory of the broker, which takes its
//! place once it has all (KIP-113; Kafka's `Partition.futureLog` and `ReplicaAlterLogDirsThread`).
//!
//! It copies what is in the log, committed or not, and is cut where the log was cut since. Locks
//! are taken in the order: future replica, core. No sync of a disk runs with the core's lock held:
//! producers need it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwapOption;
use uuid::Uuid;

use super::{Core, Partition};
use crate::{
    base::world::now_ms,
    log::{
        Epochs, Log, LogConfig, LogError, LogView, ReadError,
        dirs::{DeletedPartition, SharedLogDirs, sync_above},
    },
};

/// So often an exchange copies what producers have written meanwhile before it is put off.
const ROUNDS_MAX: usize = 20;

#[derive(Default)]
pub(super) struct FutureReplica {
    log: Mutex<Option<Log>>,
    view: ArcSwapOption<FutureView>,
}

/// A future replica as others see it.
#[derive(Clone)]
pub struct FutureView {
    /// The log directory that it lies in.
    pub log_dir: PathBuf,
    pub log: LogView,
    /// It had all, durably, so that the controller is to know its directory as the replica's.
    pub is_ready: bool,
}

/// What a round of copying did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// There is no future replica, or the replica is out of service.
    Over,
    /// So many bytes, and so many records more to go.
    Some { bytes: u64, lag: i64 },
}

/// How an exchange ended.
#[derive(Debug)]
pub enum Replaced {
    Over,
    /// There is more to copy than producers could wait for.
    Behind,
    /// The future replica is the replica. The directory that it has left is to be removed, unless
    /// its disk has failed.
    Done(Result<DeletedPartition, LogError>),
    /// The future replica is the replica, but a crash may undo its new name. No flush of it counts.
    Unnamed(LogError),
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] LogError),
}

impl Partition {
    pub fn future_view(&self) -> Option<Arc<FutureView>> {
        self.future.view.load_full()
    }

    /// Begins, or goes on, to move to where `log` lies.
    pub fn begin_move(&self, log: Log) {
        let mut future = self.lock_future();
        self.publish_future(&log, false);
        *future = Some(log);
    }

    /// Ends a move. The log is the caller's to remove, or to leave.
    pub fn take_future(&self) -> Option<Log> {
        let taken = self.lock_future().take();
        self.future.view.store(None);
        taken
    }

    /// Copies some batches, up to `most` bytes and one batch at least.
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
            // What was read is not the log any more.
            Err(CopyError::Read(_))
                if self.lock().log().generation() != source.view.generation() =>
            {
                Ok(Copied::Some { bytes: 0, lag: 1 })
            }
            copied => copied,
        };
        let is_ready = self.future_view().is_some_and(|view| view.is_ready);
        self.publish_future(future, is_ready);
        copied
    }

    /// Makes all that is copied durable, and then known as ready.
    pub fn ready_future(&self) -> Result<(), LogError> {
        self.flush_future()?;
        if let Some(future) = self.lock_future().as_ref() {
            self.publish_future(future, true);
        }
        Ok(())
    }

    /// Makes all that is copied durable. No lock is held meanwhile.
    fn flush_future(&self) -> Result<(), LogError> {
        let (flush, dir) = match self.lock_future().as_mut() {
            Some(future) => (future.begin_flush(), future.dir().to_owned()),
            None => return Ok(()),
        };
        let Some(flush) = flush else { return Ok(()) };
        let ran = flush.run();
        // The move may have ended, and its files be gone.
        match self.lock_future().as_mut().filter(|future| future.dir() == dir) {
            Some(future) => ran.map(|flushed| future.flushed(flushed)),
            None => Ok(()),
        }
    }

    /// Puts the future replica in the place of this one, if that is ready and has nearly all:
    /// producers wait while the rest is copied and the directory is renamed, and for no sync. The
    /// copy has the replica's name, durably, before the old directory gives it up, so that a start
    /// finds one of them at least, and the one that metadata names has all that was answered.
    pub fn replace_with_future(
        &self,
        most: usize,
        dirs: &SharedLogDirs,
        unique: Uuid,
    ) -> Result<Replaced, CopyError> {
        self.lock().hold_flushes();
        let replaced = self.exchange(most, dirs, unique);
        if !matches!(replaced, Ok(Replaced::Unnamed(_))) {
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
            return Ok(Replaced::Over);
        }
        if let Some(ended) = self.catch_up(most)? {
            return Ok(ended);
        }
        if !self.is_future_as_durable() {
            self.flush_future()?;
            // What was written during the flush.
            if let Some(ended) = self.catch_up(most)? {
                return Ok(ended);
            }
        }
        let mut slot = self.lock_future();
        let is_ready = self.future_view().is_some_and(|view| view.is_ready);
        let Some(future) = slot.as_mut().filter(|_| is_ready) else { return Ok(Replaced::Over) };
        let mut core = self.lock();
        if core.role().is_final() {
            return Ok(Replaced::Over);
        }
        let copied = Source::of(&core).copy_to(future, most, Rolled::FlushLater)?;
        let is_durable = future.recovery_point() >= core.log().recovery_point();
        if !matches!(copied, Copied::Some { lag: 0, .. }) || !is_durable {
            drop(core);
            self.publish_future(future, true);
            return Ok(Replaced::Behind);
        }
        let path = dirs.promote(future.dir(), &self.id, now_ms())?;
        future.set_dir(&path);
        let Some(future) = slot.take() else { return Ok(Replaced::Over) };
        self.future.view.store(None);
        let mut old = core.replace_log(future);
        self.set_log_dir(&path);
        let changed = self.publish(&core);
        drop(core);
        self.wake(changed);
        // The slot stays locked: a deletion of the partition waits for it, so that nothing else
        // comes to the old name before it is given up.
        if let Err(error) = sync_above(&**dirs.disk(), &path) {
            return Ok(Replaced::Unnamed(error));
        }
        let deleted = dirs.delete_partition(old.dir(), &self.id, (unique, now_ms()));
        Ok(Replaced::Done(deleted.and_then(|left| {
            // Slow readers find its files there.
            old.set_dir(&left.path);
            left.sync().map(|()| left)
        })))
    }

    fn is_future_as_durable(&self) -> bool {
        let durable = self.view().log.recovery_point();
        self.future_view().is_some_and(|view| view.log.recovery_point() >= durable)
    }

    /// Copies what is left, while producers go on. Returns how the exchange ends if it does.
    fn catch_up(&self, most: usize) -> Result<Option<Replaced>, CopyError> {
        for _ in 0..ROUNDS_MAX {
            match self.copy_to_future_with(most, Rolled::FlushLater)? {
                Copied::Over => return Ok(Some(Replaced::Over)),
                Copied::Some { lag: 0, .. } => return Ok(None),
                Copied::Some { .. } => {}
            }
        }
        Ok(Some(Replaced::Behind))
    }

    /// Leaves the future replica whole and durable, as a clean stop does.
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
        self.future.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a segment of the copy that was closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rolled {
    FlushNow,
    FlushLater,
}

/// A log as it was at some moment, to be copied.
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
                // The log starts within the batch; anything else is no copy, and begun anew.
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
            // Compaction has taken the last batches.
            future.roll(self.view.log_end(), now)?;
        }
        future.advance_log_start(start.min(future.log_end()))?;
        future.note_high_watermark(self.high_watermark);
        let lag = self.view.log_end() - future.log_end();
        Ok(Copied::Some { bytes: bytes as u64, lag })
    }

    /// Cuts off what the log does not have, or has no more.
    fn cut(&self, future: &mut Log, now_ms: i64) -> Result<(), LogError> {
        let start = self.view.log_start();
        if future.log_start() > start {
            return future.truncate_fully_and_start_at(start, now_ms);
        }
        // Where the one before a cut is unknown too, the next is to be compared.
        while let Some(offset) = self.divergence(future) {
            if offset < future.log_start() {
                return future.truncate_fully_and_start_at(start, now_ms);
            }
            future.truncate_to(offset, 0)?;
        }
        Ok(())
    }

    /// Where the future replica is to be cut, if it is.
    fn divergence(&self, future: &Log) -> Option<i64> {
        let end = future.log_end();
        let (log_end, latest) = (self.view.log_end(), self.epochs.latest());
        let offset = match (future.latest_epoch(), latest) {
            (None, _) => log_end,
            // It was begun anew since.
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
