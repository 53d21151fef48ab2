//! Requests that are parked until something happens (Kafka's `DelayedOperationPurgatory`).

use super::Registry;
use ::metrics::Gauge;

/// Kafka's `PurgatorySize` counts a request once for each partition it waits on; here it counts
/// once.
pub struct PurgatoryMetrics {
    produce: Gauge,
    fetch: Gauge,
    rebalance: Gauge,
    heartbeat: Gauge,
}

/// A parked request, counted until this is dropped.
pub struct Parked(Gauge);

impl PurgatoryMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let (name, help) = ("kafka_server_purgatory_size", "Requests and sessions that wait");
        let gauge = |operation| registry.gauge(name, help, &[("operation", operation)]);
        Self {
            produce: gauge("Produce"),
            fetch: gauge("Fetch"),
            rebalance: gauge("Rebalance"),
            heartbeat: gauge("Heartbeat"),
        }
    }

    /// A produce request waits for its records to be committed.
    pub fn park_produce(&self) -> Parked {
        Parked::new(&self.produce)
    }

    /// A fetch waits for more to read.
    pub fn park_fetch(&self) -> Parked {
        Parked::new(&self.fetch)
    }

    /// Joins and syncs that wait for their group, and members whose sessions are watched.
    pub fn set_groups(&self, rebalances: usize, sessions: usize) {
        self.rebalance.set(rebalances as f64);
        self.heartbeat.set(sessions as f64);
    }
}

impl Parked {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
