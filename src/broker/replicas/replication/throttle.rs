//! [`Throttle`]: the replication rate of throttled replicas (KIP-73), so that a reassignment leaves
//! bandwidth to clients. As in Kafka's `ReplicationQuotaManager`, the rate is measured over eleven
//! windows of one second.

use std::collections::VecDeque;

use parking_lot::Mutex;

const WINDOWS: i64 = 11;
const WINDOW_MS: i64 = 1000;

/// Counts the bytes of throttled replicas in one direction.
#[derive(Debug, Default)]
pub struct Throttle {
    /// The start times of the windows in milliseconds, in ascending order, with their bytes.
    windows: Mutex<VecDeque<(i64, u64)>>,
}

impl Throttle {
    /// Counts bytes that were sent or received now.
    pub fn note(&self, bytes: u64, now_ms: i64) {
        let begin = now_ms - now_ms.rem_euclid(WINDOW_MS);
        let mut windows = self.windows.lock();
        match windows.back_mut() {
            Some((last, sum)) if *last >= begin => *sum += bytes,
            _ => windows.push_back((begin, bytes)),
        }
        while windows.front().is_some_and(|(begin, _)| *begin <= now_ms - WINDOWS * WINDOW_MS) {
            windows.pop_front();
        }
    }

    /// Whether the rate is above `limit` (bytes per second). Always false without a limit.
    pub fn is_exceeded(&self, limit: Option<i64>, now_ms: i64) -> bool {
        let Some(limit) = limit else { return false };
        let windows = self.windows.lock();
        let recent = windows.iter().filter(|(begin, _)| *begin > now_ms - WINDOWS * WINDOW_MS);
        let (mut oldest, mut bytes) = (now_ms, 0);
        for (begin, sum) in recent {
            oldest = oldest.min(*begin);
            bytes += sum;
        }
        let elapsed = (now_ms - oldest).max(WINDOW_MS);
        bytes as f64 * 1000.0 / elapsed as f64 > limit as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let throttle = Throttle::default();
        assert!(!throttle.is_exceeded(Some(100), 5000));
        throttle.note(100, 5000);
        throttle.note(50, 5900);
        assert!(throttle.is_exceeded(Some(149), 5900));
        assert!(!throttle.is_exceeded(Some(150), 5900));
        assert!(!throttle.is_exceeded(None, 5900));
        assert!(!throttle.is_exceeded(Some(75), 7000), "150 bytes in two seconds");
        throttle.note(1000, 15_900);
        assert!(throttle.is_exceeded(Some(104), 15_999), "1150 bytes in eleven");
        assert!(!throttle.is_exceeded(Some(105), 15_999));
        assert!(throttle.is_exceeded(Some(999), 16_000), "the first window is over");
        assert!(!throttle.is_exceeded(Some(1), 40_000));
    }
}
