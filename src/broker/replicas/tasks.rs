//! Periodic work on logs: retention, checkpoints, flushes by time, and expiry of producers. It may
//! use the disk, so it runs on blocking threads.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::Replicas;
use crate::{
    base::environment::{blocking, now_ms},
    log::{DeletedSegment, LogError, LogView, checkpoint},
    partition::{Partition, Urgency, View},
    telemetry::LOG_INTERVAL,
};

/// The most bytes that may be unsettled in all logs together. They take a fraction of a second to
/// read.
const TAILS_BYTES: u64 = 512 << 20;
/// The number of segments that retention deletes while it holds the lock of a partition once.
const DELETED_AT_ONCE: usize = 8;

impl Replicas {
    /// Rolls and deletes segments of all logs that have exceeded their time or size.
    pub(in crate::broker) fn apply_retention(self: &Arc<Self>) {
        let now = now_ms();
        for partition in self.partitions.partitions() {
            if let Err(error) = self.apply_retention_to(&partition, now) {
                self.on_log_error(&partition, &error);
            }
        }
    }

    /// Applies retention to one log. It first looks up the ages of segments without the lock of the
    /// partition, because this may read from disk. It then deletes a few segments each time that it
    /// holds the lock, because producers wait for the lock.
    fn apply_retention_to(
        self: &Arc<Self>,
        partition: &Partition,
        now: i64,
    ) -> Result<(), LogError> {
        let view = partition.view();
        view.log.close_idle_files();
        let config = partition.with_log(|log| Arc::clone(log.config()));
        if config.delete && config.retention_ms >= 0 {
            view.log.look_up_ages(now.saturating_sub(config.retention_ms));
        }
        drop(view);
        loop {
            let deleted = partition.update(|core| core.apply_retention(now, DELETED_AT_ONCE))?;
            let is_last = deleted.len() < DELETED_AT_ONCE;
            if !deleted.is_empty() {
                info!(partition = %partition.id, segments = deleted.len(), "segments deleted");
            }
            self.remove_later(partition, deleted);
            if is_last {
                return Ok(());
            }
        }
    }

    /// Settles logs, those with the most unsettled bytes first, until all logs together have at
    /// most [`TAILS_BYTES`]. This bounds what a start reads after a crash of the process. Flushing
    /// would bound it after a crash of the machine, too, but producers would wait for the busy
    /// disk.
    pub(in crate::broker) fn bound_tails(self: &Arc<Self>) {
        let partitions = self.partitions.partitions();
        let tail = |it: &Arc<Partition>| (it.view().log.unsettled(), Arc::clone(it));
        let mut tails: Vec<_> =
            partitions.iter().map(tail).filter(|(bytes, _)| *bytes > 0).collect();
        tails.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let mut left: u64 = tails.iter().map(|(bytes, _)| bytes).sum();
        for (bytes, partition) in tails {
            if left <= TAILS_BYTES {
                break;
            }
            partition.update(|core| core.log_mut().settle());
            left -= bytes;
        }
        let settled =
            partitions.iter().fold(0, |sum: i64, it| sum.wrapping_add(it.view().log.settled()));
        if self.settled.swap(settled, Ordering::Relaxed) != settled {
            self.write_settled();
        }
        if self.replicas_left.swap(false, Ordering::Relaxed) {
            self.write_checkpoints();
        }
    }

    /// Removes the files of deleted segments after `file.delete.delay.ms`, so that slow readers can
    /// finish.
    pub(in crate::broker) fn remove_later(
        self: &Arc<Self>,
        partition: &Partition,
        deleted: Vec<DeletedSegment>,
    ) {
        if deleted.is_empty() {
            return;
        }
        let delay_ms = partition.with_log(|log| log.config().file_delete_delay_ms);
        let what = format!("segments of {}", partition.id);
        self.remove_after(delay_ms, what, deleted, DeletedSegment::remove);
    }

    /// Removes files after a delay, one after the other on a blocking thread. `what` describes them
    /// in log lines.
    pub(super) fn remove_after<T: Send + 'static>(
        &self,
        delay_ms: i64,
        what: String,
        deleted: Vec<T>,
        remove: fn(T) -> Result<(), LogError>,
    ) {
        self.node.runtime.spawn(async move {
            sleep(Duration::from_millis(delay_ms.max(0) as u64)).await;
            // An error means that the removal panicked, which has been logged.
            let _ = blocking(move || remove_all(&what, deleted, remove)).await;
        });
    }

    /// Writes the checkpoints of recovery points, log start offsets and first dirty offsets.
    pub(in crate::broker) fn write_checkpoints(self: &Arc<Self>) {
        let recovery_point = |_: &View, log: &LogView| Some(log.recovery_point());
        self.write_checkpoint(
            checkpoint::RECOVERY_POINT,
            |before| &before.recovery_points,
            recovery_point,
        );
        self.write_log_starts();
        self.write_first_dirty();
    }

    /// Writes the checkpoint of first dirty offsets. The cleaner calls this after a round.
    pub(in crate::broker) fn write_first_dirty(self: &Arc<Self>) {
        let first_dirty = |_: &View, log: &LogView| log.first_dirty();
        self.write_checkpoint(checkpoint::CLEANER, |before| &before.first_dirty, first_dirty);
    }

    /// Writes the checkpoint of settled offsets.
    pub(super) fn write_settled(self: &Arc<Self>) {
        let settled = |_: &View, log: &LogView| Some(log.settled());
        self.write_checkpoint(checkpoint::SETTLED, |before| &before.settled, settled);
    }

    /// Writes the checkpoint of log start offsets. DeleteRecords calls this before it responds, so
    /// that deleted records do not come back after a crash. Returns the log directories where the
    /// checkpoint could not be written.
    pub fn write_log_starts(self: &Arc<Self>) -> HashSet<PathBuf> {
        let log_start = |view: &View, log: &LogView| {
            // A copy gets the log start offset of its replica later, but may have replaced the
            // replica when the checkpoint is read. So its entry is the replica's, limited to its
            // own log.
            let start = view.log.log_start().min(log.log_end()).max(log.log_start());
            // An entry is only needed if the name of the first segment does not say it.
            Some(start).filter(|start| *start > log.first_base_offset())
        };
        self.write_checkpoint(checkpoint::LOG_START, |before| &before.log_starts, log_start)
    }

    /// Writes the checkpoint of high watermarks.
    pub(in crate::broker) fn write_high_watermarks(self: &Arc<Self>) {
        let high_watermark =
            |view: &View, log: &LogView| Some(view.high_watermark.min(log.log_end()));
        self.write_checkpoint(
            checkpoint::REPLICATION,
            |before| &before.high_watermarks,
            high_watermark,
        );
    }

    pub(in crate::broker) fn expire_producers(self: &Arc<Self>) {
        let now = now_ms();
        for partition in self.partitions.partitions() {
            partition.update(|core| core.log_mut().expire_producers(now));
        }
    }

    pub(in crate::broker) fn flush_by_time(self: &Arc<Self>) {
        let now = now_ms();
        for partition in self.partitions.partitions() {
            if partition.update(|core| core.is_flush_due_by_time(now)) {
                partition.flush(Urgency::Background);
            }
        }
    }
}

/// Removes files one by one. Logs the progress if it takes long.
fn remove_all<T>(what: &str, deleted: Vec<T>, remove: fn(T) -> Result<(), LogError>) {
    let (count, began) = (deleted.len(), Instant::now());
    let mut told = began;
    for (at, it) in deleted.into_iter().enumerate() {
        if let Err(error) = remove(it) {
            warn!(%error, "cannot remove files of deleted {what}");
        }
        if told.elapsed() >= LOG_INTERVAL {
            told = Instant::now();
            info!("removed {} of {count} deleted {what}", at + 1);
        }
    }
    if told > began {
        info!("removed all {count} deleted {what} in {} s", began.elapsed().as_secs());
    }
}
