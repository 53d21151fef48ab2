//! Compaction of a replica's log. Records are read and written without the lock of the core, which
//! is held only while files are renamed and segments are exchanged.

use super::Partition;
use crate::log::{
    Log,
    clean::{self, CleanError, CleanOptions, CleanRange, Cleaned, CleanedLog, Pace},
};

/// The log of a partition as it was when a round began.
struct PartitionLog<'p> {
    partition: &'p Partition,
    /// How often a copy from another log directory had replaced the log.
    moves: u64,
}

impl CleanedLog for PartitionLog<'_> {
    fn update<R>(&self, change: impl FnOnce(&mut Log) -> R) -> Result<R, CleanError> {
        self.partition.update(|core| match core.role().is_final() || core.moves() != self.moves {
            true => Err(CleanError::Aborted),
            false => Ok(change(core.log_mut())),
        })
    }
}

impl Partition {
    /// Runs a round of compaction on the calling thread, which blocks on the disk. At most one round
    /// per partition may run at a time.
    ///
    /// When this returns without an error, all that the round has changed is durable. The round is
    /// aborted if the log is truncated, moved, closed or taken offline meanwhile. After an error of
    /// a file, the caller decides by [`LogError::is_disk_failure`](crate::log::LogError) whether
    /// the log directory must go offline.
    pub fn clean(
        &self,
        range: CleanRange,
        options: &CleanOptions,
        pace: &mut dyn Pace,
    ) -> Result<Cleaned, CleanError> {
        let log = PartitionLog { partition: self, moves: self.lock().moves() };
        clean::clean(&log, range, options, pace)
    }
}
