//! The numbers of the cleaner, with the meaning of Kafka's `LogCleaner` and `LogCleanerManager`.

use std::time::Duration;

use crate::telemetry::{Kind, Scrape};

/// The numbers of a finished round.
#[derive(Debug, Default, Clone, Copy)]
pub struct RoundStats {
    /// The used share of the map's slots, from 0 to 1.
    pub map_utilization: f64,
    pub bytes_read: u64,
    pub bytes_kept: u64,
    pub duration: Duration,
    /// By how much a log exceeded `max.compaction.lag.ms` when the round was chosen.
    pub compaction_delay_ms: i64,
}

/// The numbers of all cleaner threads.
#[derive(Debug)]
pub struct Stats {
    /// The last round of each thread.
    rounds: Vec<RoundStats>,
    /// Threads that have ended by a panic.
    pub dead_threads: usize,
    /// The largest dirty part of a log, from 0 to 1.
    pub max_dirty_ratio: f64,
    /// When a thread last looked for a dirty log.
    pub last_run_ms: i64,
}

impl Stats {
    pub fn new(now_ms: i64) -> Self {
        Self { rounds: Vec::new(), dead_threads: 0, max_dirty_ratio: 0.0, last_run_ms: now_ms }
    }

    /// Resets what belongs to single threads, because new ones start.
    pub fn threads_started(&mut self, threads: usize) {
        self.rounds = vec![RoundStats::default(); threads];
        self.dead_threads = 0;
    }

    pub fn note_round(&mut self, thread: usize, round: RoundStats) {
        if let Some(last) = self.rounds.get_mut(thread) {
            *last = round;
        }
    }

    fn max(&self, number: impl Fn(&RoundStats) -> f64) -> f64 {
        self.rounds.iter().map(number).fold(0.0, f64::max)
    }

    fn recopy_ratio(&self) -> f64 {
        let sum = |bytes: fn(&RoundStats) -> u64| self.rounds.iter().map(bytes).sum::<u64>() as f64;
        sum(|round| round.bytes_kept) / sum(|round| round.bytes_read).max(1.0)
    }

    /// Adds the metrics, except those of uncleanable partitions.
    pub fn collect(&self, now_ms: i64, scrape: &mut Scrape) {
        let mut gauge = |name, help, value| scrape.gauge(name, help, &[], value);
        gauge(
            "kafka_log_cleaner_max_buffer_utilization_ratio",
            "Largest used share of a cleaner thread's map in its last round",
            self.max(|round| round.map_utilization),
        );
        gauge(
            "kafka_log_cleaner_recopy_ratio",
            "Kept share of the bytes that the last round of each cleaner thread read",
            self.recopy_ratio(),
        );
        gauge(
            "kafka_log_cleaner_max_clean_seconds",
            "Longest of the last rounds of the cleaner threads",
            self.max(|round| round.duration.as_secs_f64()),
        );
        gauge(
            "kafka_log_cleaner_max_compaction_delay_seconds",
            "Longest time by which records exceeded max.compaction.lag.ms before a last round",
            self.max(|round| round.compaction_delay_ms as f64 / 1000.0),
        );
        gauge(
            "kafka_log_cleaner_dead_threads",
            "Cleaner threads that have ended by a panic",
            self.dead_threads as f64,
        );
        gauge(
            "kafka_log_cleaner_max_dirty_ratio",
            "Largest dirty part of a compacted log",
            self.max_dirty_ratio,
        );
        gauge(
            "kafka_log_cleaner_seconds_since_last_run",
            "Time since a cleaner thread last looked for a dirty log",
            now_ms.saturating_sub(self.last_run_ms).max(0) as f64 / 1000.0,
        );
    }
}

/// Adds the metrics of partitions that cannot be compacted: for each log directory, their number
/// and their dirty bytes.
pub fn collect_uncleanable(by_dir: &[(String, usize, u64)], scrape: &mut Scrape) {
    let name = "kafka_log_cleaner_uncleanable_partitions";
    let mut family = scrape.family(name, "Partitions that compaction has given up", Kind::Gauge);
    for (dir, partitions, _) in by_dir {
        family.sample(&[("log_dir", dir)], *partitions as f64);
    }
    let name = "kafka_log_cleaner_uncleanable_bytes";
    let help = "Dirty bytes of partitions that compaction has given up";
    let mut family = scrape.family(name, help, Kind::Gauge);
    for (dir, _, bytes) in by_dir {
        family.sample(&[("log_dir", dir)], *bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_last_round_of_each_thread() {
        let mut stats = Stats::new(1000);
        stats.threads_started(2);
        let round = |map_utilization, bytes_kept, ms, compaction_delay_ms| RoundStats {
            map_utilization,
            bytes_read: 1000,
            bytes_kept,
            duration: Duration::from_millis(ms),
            compaction_delay_ms,
        };
        stats.note_round(0, round(0.9, 1000, 9000, 90_000));
        stats.note_round(0, round(0.5, 100, 2500, 0));
        stats.note_round(1, round(0.25, 200, 500, 1500));
        stats.note_round(2, round(1.0, 0, 99_000, 99_000));
        stats.max_dirty_ratio = 0.75;
        let mut scrape = Scrape::default();
        stats.collect(3000, &mut scrape);
        collect_uncleanable(&[("/a".to_owned(), 2, 70), ("/b".to_owned(), 0, 0)], &mut scrape);
        let text = scrape.into_text();
        for expected in [
            "max_buffer_utilization_ratio 0.5",
            "recopy_ratio 0.15",
            "max_clean_seconds 2.5",
            "max_compaction_delay_seconds 1.5",
            "dead_threads 0",
            "max_dirty_ratio 0.75",
            "seconds_since_last_run 2",
            "uncleanable_partitions{log_dir=\"/a\"} 2",
            "uncleanable_partitions{log_dir=\"/b\"} 0",
            "uncleanable_bytes{log_dir=\"/a\"} 70",
        ] {
            assert!(text.contains(&format!("\nkafka_log_cleaner_{expected}\n")), "{text}");
        }
        stats.threads_started(1);
        let mut scrape = Scrape::default();
        stats.collect(3000, &mut scrape);
        assert!(scrape.into_text().contains("max_clean_seconds 0\n"));
    }
}
