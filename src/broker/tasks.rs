//! Schedule of the periodic tasks of a broker: retention, checkpoints, flushes by time, expiry of
//! producers, checks of the in-sync replicas, and others. Each runs on a blocking thread, because
//! it may use the disk.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::error;

use super::{Broker, markers, membership::watch_isolation};
use crate::base::environment::blocking;

/// The interval at which unsettled tails of logs are checked. A start after a crash reads them.
const TAILS_EVERY: Duration = Duration::from_secs(2);
/// The interval at which logs that could not be opened are tried again.
const RETRY_UNOPENED_EVERY: Duration = Duration::from_secs(5);

impl Broker {
    /// Spawns the periodic tasks. They end at the stop signal.
    pub fn spawn_tasks(self: &Arc<Self>, tasks: &mut JoinSet<()>, stop: &watch::Receiver<bool>) {
        let config = self.settings();
        let millis = |ms: i64| Duration::from_millis(ms.max(1) as u64);
        let mut every = |first: Duration, period: Duration, job: fn(&Arc<Broker>)| {
            tasks.spawn(run_every(Arc::clone(self), first, period, stop.clone(), job));
        };
        let retention = millis(config.log_retention_check_interval_ms);
        let first_retention = millis(config.log_initial_task_delay_ms);
        every(first_retention, retention, |broker| broker.replicas.apply_retention());
        let checkpoint = millis(i64::from(config.log_flush_offset_checkpoint_interval_ms));
        every(checkpoint, checkpoint, |broker| broker.replicas.write_checkpoints());
        let watermarks = millis(config.replica_high_watermark_checkpoint_interval_ms);
        every(watermarks, watermarks, |broker| broker.replicas.write_high_watermarks());
        let expiry = millis(i64::from(config.producer_id_expiration_check_interval_ms));
        every(expiry, expiry, |broker| broker.replicas.expire_producers());
        every(RETRY_UNOPENED_EVERY, RETRY_UNOPENED_EVERY, Self::retry_unopened);
        let lag = millis(config.cluster.replica_lag_time_max_ms / 2);
        every(lag, lag, |broker| broker.replicas.check_isrs());
        every(TAILS_EVERY, TAILS_EVERY, |broker| broker.replicas.bound_tails());
        if config.log_flush_scheduler_interval_ms < i64::MAX {
            let flush = millis(config.log_flush_scheduler_interval_ms);
            every(flush, flush, |broker| broker.replicas.flush_by_time());
        }
        tasks.spawn(Arc::clone(&self.cleaner).run(stop.clone()));
        let markers = markers::run(Arc::clone(self), stop.clone());
        tasks.spawn(watch_for_panic(
            "the task that writes transaction markers",
            markers,
            self.txn_work.failed.clone(),
        ));
        let isolation = watch_isolation(Arc::clone(self), stop.clone());
        tasks.spawn_on(isolation, &self.node.control);
    }
}

/// Runs a task without which the broker must not continue. If the task panics, logs its `name` and
/// sets `failed`.
async fn watch_for_panic(
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
    failed: watch::Sender<bool>,
) {
    // Dropping the set ends the task.
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    if let Some(Err(error)) = tasks.join_next().await
        && error.is_panic()
    {
        error!(%error, "{name} panicked: the broker stops");
        failed.send_replace(true);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_of_a_watched_task_is_a_failure() {
        let (failed, failure) = watch::channel(false);
        watch_for_panic("a task", async {}, failed.clone()).await;
        assert!(!*failure.borrow(), "the task ended at a stop");
        watch_for_panic("a task", async { panic!("planted by a test") }, failed).await;
        assert!(*failure.borrow());
    }
}
