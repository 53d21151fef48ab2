//! Periodic tasks of a broker: retention, checkpoints, flushes by time, expiry of producers, checks
//! of the in-sync replicas, and others. Each runs on a blocking thread, because it may use the
//! disk.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tracing::{error, info, warn};

use super::{Broker, controller_isolation};
use crate::{
    base::environment::{blocking, now_ms},
    log::{DeletedSegment, LogError, LogView, checkpoint},
    partition::{Partition, Urgency, View},
    telemetry::LOG_INTERVAL,
};

/// The interval at which unsettled tails of logs are checked. A start after a crash reads them.
const TAILS_EVERY: Duration = Duration::from_secs(2);
/// The most bytes that may be unsettled in all logs together. They take a fraction of a second to
/// read.
const TAILS_BYTES: u64 = 512 << 20;
/// The number of segments that retention deletes while it holds the lock of a partition once.
const DELETED_AT_ONCE: usize = 8;
/// The interval at which logs that could not be opened are tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

impl Broker {
    /// Spawns the periodic tasks. They end at the stop signal.
    pub fn spawn_tasks(self: &Arc<Self>, tasks: &mut JoinSet<()>, stop: &watch::Receiver<bool>) {
        let config = self.settings();
        let millis = |ms: i64| Duration::from_millis(ms.max(1) as u64);
        let mut every = |first: Duration, period: Duration, job: fn(&Arc<Broker>)| {
            tasks.spawn(run_every(Arc::clone(self), first, period, stop.clone(), job));
        };
        let retention = millis(config.log_retention_check_interval_ms);
        every(millis(config.log_initial_task_delay_ms), retention, Self::apply_retention);
        let checkpoint = millis(i64::from(config.log_flush_offset_checkpoint_interval_ms));
        every(checkpoint, checkpoint, |broker| broker.write_checkpoints());
        let watermarks = millis(config.replica_high_watermark_checkpoint_interval_ms);
        every(watermarks, watermarks, |broker| broker.write_high_watermarks());
        let expiry = millis(i64::from(config.producer_id_expiration_check_interval_ms));
        every(expiry, expiry, Self::expire_producers);
        every(OPEN_AGAIN, OPEN_AGAIN, Self::open_again);
        let lag = millis(config.cluster.replica_lag_time_max_ms / 2);
        every(lag, lag, Self::check_isrs);
        every(TAILS_EVERY, TAILS_EVERY, Self::bound_tails);
        if config.log_flush_scheduler_interval_ms < i64::MAX {
            let flush = millis(config.log_flush_scheduler_interval_ms);
            every(flush, flush, Self::flush_by_time);
        }
        tasks.spawn_on(controller_isolation::watch(Arc::clone(self), stop.clone()), &self.control);
    }

    /// Rolls and deletes segments of all logs that have exceeded their time or size.
    fn apply_retention(self: &Arc<Self>) {
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
    fn bound_tails(self: &Arc<Self>) {
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
    fn remove_later(self: &Arc<Self>, partition: &Partition, deleted: Vec<DeletedSegment>) {
        if deleted.is_empty() {
            return;
        }
        info!(partition = %partition.id, segments = deleted.len(), "segments deleted");
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
        self.runtime.spawn(async move {
            sleep(Duration::from_millis(delay_ms.max(0) as u64)).await;
            // An error means that the removal panicked, which has been logged.
            let _ = blocking(move || remove_all(&what, deleted, remove)).await;
        });
    }

    /// Writes the checkpoints of recovery points and log start offsets.
    pub(super) fn write_checkpoints(self: &Arc<Self>) {
        let recovery_point = |_: &View, log: &LogView| Some(log.recovery_point());
        self.write_checkpoint(
            checkpoint::RECOVERY_POINT,
            |before| &before.recovery_points,
            recovery_point,
        );
        self.write_log_starts();
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
    pub(super) fn write_high_watermarks(self: &Arc<Self>) {
        let high_watermark =
            |view: &View, log: &LogView| Some(view.high_watermark.min(log.log_end()));
        self.write_checkpoint(
            checkpoint::REPLICATION,
            |before| &before.high_watermarks,
            high_watermark,
        );
    }

    fn expire_producers(self: &Arc<Self>) {
        let now = now_ms();
        for partition in self.partitions.partitions() {
            partition.update(|core| core.log_mut().expire_producers(now));
        }
    }

    fn flush_by_time(self: &Arc<Self>) {
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

/// Runs a job periodically on a blocking thread, until the stop signal.
async fn run_every(
    broker: Arc<Broker>,
    first: Duration,
    period: Duration,
    mut stop: watch::Receiver<bool>,
    job: fn(&Arc<Broker>),
) {
    let mut ticks = interval_at(Instant::now() + first, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let broker = Arc::clone(&broker);
        if blocking(move || job(&broker)).await.is_err() {
            error!("a periodic task failed");
        }
    }
}
