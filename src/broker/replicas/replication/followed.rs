//! [`Followed`]: a replica that a fetcher fetches, with its progress and the time of its next
//! fetch.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::partition::Partition;

/// The pause after a first failure. It is short, because most failures end soon: two brokers apply
/// the same metadata change at slightly different times.
pub(super) const FIRST_REST: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub(super) struct Followed {
    pub partition: Arc<Partition>,
    pub leader_epoch: i32,
    /// Epoch of the log's last record, once known. Only the fetcher's own appends change it.
    pub last_epoch: Option<i32>,
    /// Number of records that the replica is behind its leader, once known.
    pub lag: Option<i64>,
    /// The replica is not fetched before this time.
    pub resumes: Option<Instant>,
    failures: u32,
}

/// The outcome of the leader's response for one partition.
pub(super) enum Progress {
    Went,
    /// The log was cut, so the epoch of its last record is not known.
    Truncated,
    Failed,
}

impl Followed {
    pub fn new(partition: Arc<Partition>, leader_epoch: i32) -> Self {
        Self { partition, leader_epoch, last_epoch: None, lag: None, resumes: None, failures: 0 }
    }

    /// The offsets of the log that a truncation may lower while checkpoints have the old ones: the
    /// recovery point and the first dirty offset.
    pub fn checkpointed(&self) -> (i64, Option<i64>) {
        let view = self.partition.view();
        (view.log.recovery_point(), view.log.first_dirty())
    }

    /// Takes over the progress of a copy of this value that has processed an answer.
    pub fn went(&mut self, taken: &Self) {
        (self.last_epoch, self.lag) = (taken.last_epoch, taken.lag);
        self.failures = 0;
    }

    pub fn truncated(&mut self) {
        self.last_epoch = None;
        self.failures = 0;
    }

    pub fn failed(&mut self, longest_rest_ms: i32) {
        self.failures += 1;
        self.resumes = Some(Instant::now() + rest(self.failures, longest_rest_ms));
    }
}

/// The pause after a number of consecutive failures: it doubles, up to `longest_ms`.
pub(super) fn rest(failures: u32, longest_ms: i32) -> Duration {
    let longest = Duration::from_millis(longest_ms.max(0) as u64);
    (FIRST_REST * 2u32.pow(failures.saturating_sub(1).min(10))).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_up_to_the_configured_one() {
        let rests = [1, 2, 3, 6, 7, 90].map(|failures| rest(failures, 1000).as_millis());
        assert_eq!(rests, [20, 40, 80, 640, 1000, 1000]);
        assert_eq!(rest(5, 0), Duration::ZERO);
    }
}
