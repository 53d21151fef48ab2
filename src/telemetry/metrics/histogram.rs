//! A histogram of durations in fixed buckets, as an array of atomics. The exporter's own histogram
//! keeps every sample (16 bytes) until it is drained.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of buckets in microseconds, each with its text for Prometheus. The last bucket has
/// no bound.
pub(super) const BOUNDS: [(u64, &str); 17] = [
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
];

#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

/// Cumulative counts by bound, the total count, and the sum in seconds.
pub(super) struct Snapshot {
    pub(super) up_to: [u64; BOUNDS.len()],
    pub(super) count: u64,
    pub(super) sum_seconds: f64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|(micros, _)| micros * 1000 < nanos);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Reads the histogram. The total count is the sum of the buckets, so that a scrape is
    /// consistent.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut count = 0;
        let mut up_to = [0; BOUNDS.len()];
        for (at, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            if let Some(up_to) = up_to.get_mut(at) {
                *up_to = count;
            }
        }
        let sum_seconds = self.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9;
        Snapshot { up_to, count, sum_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 30_000_000, 30_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        histogram.observe(Duration::from_nanos(250_001));
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.up_to[..3], [2, 3, 4]);
        assert_eq!((snapshot.up_to[16], snapshot.count), (5, 6));
        assert!((snapshot.sum_seconds - 60.000_452_001).abs() < 1e-9);
    }

    #[test]
    fn the_bounds_are_what_they_are_called() {
        for (micros, text) in BOUNDS {
            assert_eq!(text.parse::<f64>().unwrap(), micros as f64 / 1e6);
        }
        assert!(BOUNDS.is_sorted());
    }
}
