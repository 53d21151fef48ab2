//! What a broker does from time to time: retention, checkpoints, flushes by time, expiry of
//! producers. Each runs on a blocking thread, since it touches the disk.

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

use super::{Broker, contact, progress::TOLD_EVERY};
use crate::{
    base::world::{blocking, now_ms},
    log::{DeletedSegment, LogError, LogView, checkpoint},
    partition::{Partition, Urgency, View},
};

/// How often the tails of logs are looked at that a start after a crash would read.
const TAILS_EVERY: Duration = Duration::from_secs(2);
/// So much may be unsettled in all logs together: a fraction of a second to read.
const TAILS_BYTES: u64 = 512 << 20;
/// How many segments retention takes from a log at once.
const DELETED_AT_ONCE: usize = 8;
/// How often logs are tried again that could not be opened.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

impl Broker {
    /// Starts the periodic tasks; they end at the stop signal.
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
        tasks.spawn_on(contact::watch(Arc::clone(self), stop.clone()), &self.control);
    }

    /// Rolls and deletes segments that are past their time or size.
    fn apply_retention(self: &Arc<Self>) {
        let now = now_ms();
        for partition in self.partitions.partitions() {
            if let Err(error) = self.apply_retention_to(&partition, now) {
                self.on_log_error(&partition, &error);
            }
        }
    }

    /// Looks at the segments without the lock, which may mean to read them, and takes it for a few
    /// at a time: producers wait meanwhile.
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

    /// Settles logs, those with the most to settle first, until all together have little: what a
    /// start after a crash of the process has to read is bounded by it. To flush them instead would
    /// bound it after a crash of the machine too, but producers wait while the disk is busy.
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

    /// Removes the files of deleted segments after `file.delete.delay.ms`, when slow readers have
    /// had their time.
    fn remove_later(self: &Arc<Self>, partition: &Partition, deleted: Vec<DeletedSegment>) {
        if deleted.is_empty() {
            return;
        }
        info!(partition = %partition.id, segments = deleted.len(), "segments deleted");
        let delay_ms = partition.with_log(|log| log.config().file_delete_delay_ms);
        let what = format!("segments of {}", partition.id);
        self.remove_after(delay_ms, what, deleted, DeletedSegment::remove);
    }

    /// Removes files later, one after the other on one blocking thread.
    pub(super) fn remove_after<T: Send + 'static>(
        &self,
        delay_ms: i64,
        what: String,
        deleted: Vec<T>,
        remove: fn(T) -> Result<(), LogError>,
    ) {
        self.runtime.spawn(async move {
            sleep(Duration::from_millis(delay_ms.max(0) as u64)).await;
            // It fails only if it panics, and has told so then.
            let _ = blocking(move || remove_all(&what, deleted, remove)).await;
        });
    }

    /// Recovery points and log start offsets, per log directory.
    pub(super) fn write_checkpoints(self: &Arc<Self>) {
        let recovery_point = |_: &View, log: &LogView| Some(log.recovery_point());
        self.write_checkpoint(
            checkpoint::RECOVERY_POINT,
            |before| &before.recovery_points,
            recovery_point,
        );
        self.write_log_starts();
    }

    pub(super) fn write_settled(self: &Arc<Self>) {
        let settled = |_: &View, log: &LogView| Some(log.settled());
        self.write_checkpoint(checkpoint::SETTLED, |before| &before.settled, settled);
    }

    /// Records that were deleted must not come back: to be called before a deletion is answered.
    /// Returns the log directories where they still may.
    pub fn write_log_starts(self: &Arc<Self>) -> HashSet<PathBuf> {
        let log_start = |view: &View, log: &LogView| {
            // A copy learns of it later, but may be the replica when that is to be read.
            let start = view.log.log_start().min(log.log_end()).max(log.log_start());
            // Only what the first segment's name does not say.
            Some(start).filter(|start| *start > log.first_base_offset())
        };
        self.write_checkpoint(checkpoint::LOG_START, |before| &before.log_starts, log_start)
    }

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

/// Says how far it is if that takes long.
fn remove_all<T>(what: &str, deleted: Vec<T>, remove: fn(T) -> Result<(), LogError>) {
    let (count, began) = (deleted.len(), Instant::now());
    let mut told = began;
    for (at, it) in deleted.into_iter().enumerate() {
        if let Err(error) = remove(it) {
            warn!(%error, "files of deleted {what} remain");
        }
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            info!("removed {} of {count} deleted {what}", at + 1);
        }
    }
    if told > began {
        info!("removed all {count} deleted {what} in {} s", began.elapsed().as_secs());
    }
}

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
