//! [`Cleaner`]: the threads that compact logs (Kafka's `LogCleaner`).
//!
//! Each thread compacts the dirtiest log, one round at a time, and rests if no log is due. All
//! replicas are compacted, leaders and followers, by their own brokers.
//!
//! Invariants:
//! - One thread at most compacts a log.
//! - The first dirty offset of a log is checkpointed after the compacted segments are durable.
//! - A log that cannot be compacted is left alone until the next start. The others are compacted.
//! - A round ends soon after the thread, the log or its policy have ended it.

mod choice;
mod round;
mod stats;
mod throttle;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::sleep,
};
use tracing::{error, info, warn};

use self::{
    choice::Taken,
    stats::{Stats, collect_uncleanable},
    throttle::Throttle,
};
use super::{node::Node, replicas::Replicas};
use crate::{
    base::{
        config::CleanerSettings,
        environment::{blocking_long, now_ms, without_panic},
    },
    telemetry::Scrape,
};

/// The longest time that a pausing thread does not look whether its round has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The state that the cleaner threads share.
pub struct Cleaner {
    node: Arc<Node>,
    replicas: Arc<Replicas>,
    /// Held while a thread looks at all logs and claims one, so that no thread claims a log that
    /// another one has compacted since the look.
    choosing: Mutex<()>,
    taken: Mutex<Taken>,
    throttle: Mutex<Throttle>,
    stats: Mutex<Stats>,
    /// Notified when the configuration of the broker has changed.
    reconfigured: Notify,
    /// The number of threads that look for a dirty log or compact one.
    busy: watch::Sender<usize>,
}

/// What a cleaner thread works with until its end.
#[derive(Clone)]
struct Thread {
    index: usize,
    settings: CleanerSettings,
    stop: watch::Receiver<bool>,
    /// True once threads with other settings take over.
    superseded: watch::Receiver<bool>,
}

impl Thread {
    fn is_ended(&self) -> bool {
        is_set(&self.stop) || is_set(&self.superseded)
    }

    /// Waits for `log.cleaner.backoff.ms`, or for the end of the thread.
    async fn rest(&mut self) {
        let backoff = Duration::from_millis(self.settings.log_cleaner_backoff_ms.max(0) as u64);
        tokio::select! {
            () = sleep(backoff) => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
            _ = self.superseded.wait_for(|superseded| *superseded) => {}
        }
    }
}

/// Whether a signal is set, or can no longer be.
fn is_set(signal: &watch::Receiver<bool>) -> bool {
    *signal.borrow() || signal.has_changed().is_err()
}

impl Cleaner {
    pub fn new(node: Arc<Node>, replicas: Arc<Replicas>) -> Arc<Self> {
        Arc::new(Self {
            node,
            replicas,
            choosing: Mutex::default(),
            taken: Mutex::default(),
            throttle: Mutex::default(),
            stats: Mutex::new(Stats::new(now_ms())),
            reconfigured: Notify::new(),
            busy: watch::channel(0).0,
        })
    }

    /// Runs the cleaner threads until the stop signal. If their settings change, new threads
    /// replace them, and running rounds are aborted, as in Kafka.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        while !is_set(&stop) {
            let settings = self.settings();
            if !settings.log_cleaner_enable {
                warn!(
                    "log.cleaner.enable=false is deprecated: logs with cleanup.policy=compact grow \
                     without limit"
                );
                return;
            }
            let (supersede, superseded) = watch::channel(false);
            let threads = settings.log_cleaner_threads.max(0) as usize;
            self.stats.lock().threads_started(threads);
            *self.throttle.lock() = Throttle::default();
            let mut running = JoinSet::new();
            for index in 0..threads {
                let (settings, stop) = (settings.clone(), stop.clone());
                let superseded = superseded.clone();
                running.spawn(Arc::clone(&self).work(Thread { index, settings, stop, superseded }));
            }
            tokio::select! {
                () = self.changed_from(&settings) => info!("cleaner threads get new settings"),
                _ = stop.wait_for(|stop| *stop) => {}
            }
            supersede.send_replace(true);
            while running.join_next().await.is_some() {}
        }
    }

    fn settings(&self) -> CleanerSettings {
        self.node.settings().cleaner.clone()
    }

    async fn changed_from(&self, settings: &CleanerSettings) {
        while self.settings() == *settings {
            self.reconfigured.notified().await;
        }
    }

    /// Applies changed settings of the broker.
    pub fn reconfigure(&self) {
        self.reconfigured.notify_one();
    }

    /// Waits until no thread works any more. The caller has sent the stop signal, so none begins to
    /// work again.
    pub async fn stopped(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.busy.subscribe().wait_for(|busy| *busy == 0).await;
    }

    async fn work(self: Arc<Self>, mut thread: Thread) {
        while !thread.is_ended() {
            let (cleaner, of_round) = (Arc::clone(&self), thread.clone());
            match blocking_long(move || cleaner.work_once(&of_round)).await {
                Ok(Some(true)) => {}
                Ok(Some(false)) => thread.rest().await,
                Ok(None) | Err(_) => {
                    self.stats.lock().dead_threads += 1;
                    error!(thread = thread.index, "cleaner thread panicked and has ended");
                    return;
                }
            }
        }
    }

    /// Compacts a log if one is due, and returns whether it did. `None` after a panic.
    fn work_once(self: &Arc<Self>, thread: &Thread) -> Option<bool> {
        self.busy.send_modify(|busy| *busy += 1);
        let worked = match thread.is_ended() {
            true => Some(false),
            false => without_panic(|| self.clean_dirtiest(thread)),
        };
        self.busy.send_modify(|busy| *busy -= 1);
        worked
    }

    /// Adds the cleaner's metrics.
    pub fn collect(&self, scrape: &mut Scrape) {
        self.stats.lock().collect(now_ms(), scrape);
        collect_uncleanable(&self.uncleanable_by_dir(), scrape);
    }
}

#[cfg(test)]
mod tests;
