//! What a broker does from time to time: retention, checkpoints, flushes by time, expiry of
//! producers. Each runs on a blocking thread, since it touches the disk.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tracing::{error, info, warn};

use super::Broker;
use crate::{
    base::clock::now_ms,
    log::{DeletedSegment, LogError, checkpoint},
    partition::Partition,
};

/// How often logs are tried again that could not be opened.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

impl Broker {
    /// Starts the periodic tasks; they end at the stop signal.
    pub fn spawn_tasks(self: &Arc<Self>, stop: &watch::Receiver<bool>) -> JoinSet<()> {
        let config = self.settings();
        let millis = |ms: i64| Duration::from_millis(ms.max(1) as u64);
        let mut tasks = JoinSet::new();
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
        if config.log_flush_scheduler_interval_ms < i64::MAX {
            let flush = millis(config.log_flush_scheduler_interval_ms);
            every(flush, flush, Self::flush_by_time);
        }
        tasks
    }

    /// Rolls and deletes segments that are past their time or size.
    fn apply_retention(self: &Arc<Self>) {
        let now = now_ms();
        for partition in self.partitions.partitions() {
            let result = partition.update(|core| core.apply_retention(now));
            match result {
                Ok(deleted) => self.remove_later(&partition, deleted),
                Err(error) => {
                    self.on_log_error(&partition, &error);
                }
            }
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
        self.after(delay_ms, "a deleted segment", move || {
            deleted.into_iter().try_for_each(DeletedSegment::remove)
        });
    }

    /// Removes files later, on a blocking thread.
    pub(super) fn after(
        self: &Arc<Self>,
        delay_ms: i64,
        what: &'static str,
        remove: impl FnOnce() -> Result<(), LogError> + Send + 'static,
    ) {
        self.runtime.spawn(async move {
            sleep(Duration::from_millis(delay_ms.max(0) as u64)).await;
            if let Ok(Err(error)) = tokio::task::spawn_blocking(remove).await {
                warn!(%error, "files of {what} remain");
            }
        });
    }

    /// Recovery points and log start offsets, per log directory.
    pub(super) fn write_checkpoints(self: &Arc<Self>) {
        let recovery_point = |it: &Partition| Some(it.view().log.recovery_point());
        self.write_checkpoint(
            checkpoint::RECOVERY_POINT,
            |before| &before.recovery_points,
            recovery_point,
        );
        self.write_log_starts();
    }

    /// Records that were deleted must not come back: to be called before a deletion is answered.
    /// Returns the log directories where they still may.
    pub fn write_log_starts(self: &Arc<Self>) -> HashSet<PathBuf> {
        let log_start = |partition: &Partition| {
            // Only what the first segment's name does not say.
            let view = partition.view();
            Some(view.log.log_start()).filter(|start| *start > view.log.first_base_offset())
        };
        self.write_checkpoint(checkpoint::LOG_START, |before| &before.log_starts, log_start)
    }

    pub(super) fn write_high_watermarks(self: &Arc<Self>) {
        let high_watermark = |it: &Partition| Some(it.view().high_watermark);
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
                partition.flush();
            }
        }
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
        if tokio::task::spawn_blocking(move || job(&broker)).await.is_err() {
            error!("a periodic task failed");
        }
    }
}
