//! Counts of requests that wait for a condition (Kafka's `DelayedOperationPurgatory`).

use super::Registry;
use ::metrics::Gauge;

/// Gauges of waiting requests. Kafka's `PurgatorySize` counts a request once for each partition
/// that it waits for. Here, each request counts once.
pub struct PurgatoryMetrics {
    produce: Gauge,
    fetch: Gauge,
    rebalance: Gauge,
    heartbeat: Gauge,
}

/// Counts one waiting request until it is dropped.
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

    /// Counts a produce request that waits for its records to be committed.
    pub fn park_produce(&self) -> Parked {
        Parked::new(&self.produce)
    }

    /// Counts a fetch request that waits for more records.
    pub fn park_fetch(&self) -> Parked {
        Parked::new(&self.fetch)
    }

    /// Sets the number of JoinGroup and SyncGroup requests that wait for their group, and of
    /// members with a session timeout.
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
