//! Progress of a start, for `/health`, `/metrics` and the log: the duration of each stage, and how
//! many logs are not open yet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing::info;

use super::{Health, Kind, NotReady, Scrape};

/// The interval at which long operations log their progress.
pub const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The progress of a start. Tasks of the start update it, probes and scrapes read it.
#[derive(Debug)]
pub struct StartProgress {
    /// The time when the last stage ended.
    since: Mutex<Instant>,
    stages: Mutex<Vec<(&'static str, Duration)>>,
    is_ready: AtomicBool,
    logs: AtomicU64,
    opened: AtomicU64,
    /// Bytes that log recovery has read and checked, because they were not known to be flushed.
    checked_bytes: Arc<AtomicU64>,
}

impl Default for StartProgress {
    fn default() -> Self {
        Self {
            since: Mutex::new(Instant::now()),
            stages: Mutex::default(),
            is_ready: AtomicBool::default(),
            logs: AtomicU64::default(),
            opened: AtomicU64::default(),
            checked_bytes: Arc::default(),
        }
    }
}

impl StartProgress {
    /// Ends a stage of the start and begins the next one.
    pub fn stage_ended(&self, name: &'static str) {
        let mut since = self.since.lock();
        let took = since.elapsed();
        *since = Instant::now();
        self.stages.lock().push((name, took));
    }

    pub fn logs_found(&self, logs: usize) {
        self.logs.store(logs as u64, Relaxed);
    }

    pub fn log_opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    /// The counter of bytes that log recovery has read and checked. The caller adds to it.
    pub fn checked_bytes(&self) -> &Arc<AtomicU64> {
        &self.checked_bytes
    }

    /// Marks the start as complete and logs the duration of its stages.
    pub fn ready(&self) {
        self.is_ready.store(true, Relaxed);
        let stages = self.stages.lock();
        let total: Duration = stages.iter().map(|(_, took)| *took).sum();
        let stages: Vec<_> =
            stages.iter().map(|(name, took)| format!("{name} {}", took.as_millis())).collect();
        info!(
            "ready in {} ms ({}): {} logs, {} MiB checked",
            total.as_millis(),
            stages.join(", "),
            self.logs.load(Relaxed),
            self.checked_bytes.load(Relaxed) >> 20,
        );
    }

    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    fn remaining(&self) -> u64 {
        self.logs.load(Relaxed).saturating_sub(self.opened.load(Relaxed))
    }

    /// Logs the progress of log recovery every second. Never returns.
    pub async fn tell(&self) {
        loop {
            tokio::time::sleep(LOG_INTERVAL).await;
            let (logs, remaining) = (self.logs.load(Relaxed), self.remaining());
            if remaining > 0 {
                let mib = self.checked_bytes.load(Relaxed) >> 20;
                info!("recovered {} of {logs} logs, {mib} MiB", logs - remaining);
            }
        }
    }

    /// The answer of `/health` and `/readyz` before the start is complete.
    pub fn health(&self) -> Health {
        let stage = match self.stages.lock().len() {
            0 => "log_dirs",
            1 => "metadata",
            2 => "register",
            3 => "logs",
            _ => "unfence",
        };
        let reason = NotReady::new("starting").with([
            ("stage", stage.into()),
            ("logs", self.logs.load(Relaxed).into()),
            ("logs_remaining", self.remaining().into()),
            ("bytes_checked", self.checked_bytes.load(Relaxed).into()),
        ]);
        Health::unhealthy(reason)
    }

    pub fn collect(&self, scrape: &mut Scrape) {
        let ready = f64::from(u8::from(self.is_ready()));
        scrape.gauge("kafka_server_ready", "1 once the broker serves", &[], ready);
        let (name, help) = ("kafka_server_startup_seconds", "What each stage of the start took");
        let stages = self.stages.lock().clone();
        let mut family = scrape.family(name, help, Kind::Gauge);
        for (stage, took) in stages {
            family.sample(&[("stage", stage)], took.as_secs_f64());
        }
        let logs = self.logs.load(Relaxed) as f64;
        scrape.gauge("kafka_log_recovery_logs", "Logs to open at this start", &[], logs);
        let (name, help) = ("kafka_log_recovery_logs_remaining", "Logs that are not open yet");
        scrape.gauge(name, help, &[], self.remaining() as f64);
        scrape.counter(
            "kafka_log_recovery_bytes_total",
            "Bytes that log recovery has read and checked at this start",
            &[],
            self.checked_bytes.load(Relaxed) as f64,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn health_and_metrics_show_the_progress_of_a_start() {
        let progress = Arc::new(StartProgress::default());
        let (metrics, collected) = (Metrics::new(), Arc::clone(&progress));
        metrics.add_collector(Box::new(move |scrape| collected.collect(scrape)));
        progress.stage_ended("log_dirs");
        progress.logs_found(3);
        progress.log_opened();
        progress.checked_bytes().fetch_add(17, Relaxed);
        let health = progress.health();
        assert!(!health.is_healthy);
        let reason = NotReady::new("starting").with([
            ("stage", "metadata".into()),
            ("logs", 3.into()),
            ("logs_remaining", 2.into()),
            ("bytes_checked", 17.into()),
        ]);
        assert_eq!(health.reasons, [reason]);
        let text = metrics.scrape().await.expect("renders");
        for line in [
            "kafka_server_ready 0\n",
            "kafka_server_startup_seconds{stage=\"log_dirs\"} ",
            "kafka_log_recovery_logs 3\n",
            "kafka_log_recovery_logs_remaining 2\n",
            "kafka_log_recovery_bytes_total 17\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        progress.ready();
        let text = metrics.scrape().await.expect("renders");
        assert!(progress.is_ready() && text.contains("kafka_server_ready 1\n"), "{text}");
    }
}
