//! [`Throttle`]: keeps the bytes that all cleaner threads read and write below
//! `log.cleaner.io.max.bytes.per.second` (Kafka's `Throttler`).

use std::time::Duration;

use tokio::time::Instant;

/// After a slower time, a thread may catch up on this much of it.
const CREDIT: Duration = Duration::from_millis(300);
/// Shorter pauses are added to the next one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause. A change of the rate ends a pause earlier.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// The schedule of the bytes of all threads.
#[derive(Debug, Default)]
pub struct Throttle {
    /// The time at which the bytes so far have the allowed rate.
    on_schedule: Option<Instant>,
}

impl Throttle {
    /// Counts bytes, and returns how long the thread must pause. A negative rate (in bytes per
    /// second) or NaN sets no limit.
    pub fn note(&mut self, bytes: u64, rate: f64, now: Instant) -> Duration {
        if rate.is_nan() || rate < 0.0 {
            return Duration::ZERO;
        }
        let seconds = (bytes as f64 / rate).min(LONGEST_PAUSE.as_secs_f64());
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        let from = self.on_schedule.unwrap_or(now).max(earliest);
        let to = from + Duration::from_secs_f64(seconds);
        self.on_schedule = Some(to);
        let pause = to.saturating_duration_since(now).min(LONGEST_PAUSE);
        if pause < SHORTEST_PAUSE { Duration::ZERO } else { pause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: u64 = 256 << 10;

    /// The rate of threads that each need `work` for a buffer and then pause, over a minute.
    fn rate_of(threads: usize, work: Duration, limit: f64) -> f64 {
        let (mut throttle, began) = (Throttle::default(), Instant::now());
        let mut ready = vec![began; threads];
        let mut bytes = 0;
        loop {
            let next = ready.iter().copied().min().expect("has a thread");
            if next.duration_since(began) >= Duration::from_secs(60) {
                return bytes as f64 / 60.0;
            }
            let thread = ready.iter().position(|time| *time == next).expect("has it");
            let done = next + work;
            bytes += BUFFER;
            ready[thread] = done + throttle.note(BUFFER, limit, done);
        }
    }

    #[test]
    fn the_rate_of_all_threads_holds_within_a_tenth() {
        let fast = Duration::from_micros(200);
        for limit in [1e6, 1e7, 1e8] {
            for threads in [1, 2, 5] {
                let rate = rate_of(threads, fast, limit);
                assert!((0.9 * limit..=1.1 * limit).contains(&rate), "{threads}: {rate}");
            }
        }
        let slow = Duration::from_millis(100);
        let natural = BUFFER as f64 * 10.0;
        assert!(rate_of(1, slow, 1e9) > 0.99 * natural, "a slower thread does not pause");
        assert!(rate_of(1, slow, f64::MAX) > 0.99 * natural);
    }

    #[test]
    fn a_slow_minute_allows_no_burst_after_it() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.note(1000, 1000.0, now);
        let later = now + Duration::from_secs(60);
        let pause = throttle.note(1000, 1000.0, later);
        assert_eq!(pause, Duration::from_millis(700));
    }

    #[test]
    fn any_configured_rate_is_safe() {
        let now = Instant::now();
        for (rate, pause) in [
            (0.0, LONGEST_PAUSE),
            (f64::MIN_POSITIVE, LONGEST_PAUSE),
            (-1.0, Duration::ZERO),
            (f64::NAN, Duration::ZERO),
            (f64::INFINITY, Duration::ZERO),
            (f64::MAX, Duration::ZERO),
        ] {
            let mut throttle = Throttle::default();
            for _ in 0..3 {
                assert_eq!(throttle.note(BUFFER, rate, now), pause, "{rate}");
            }
        }
    }
}
