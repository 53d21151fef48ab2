//! [`PartitionLog`]: the log of a coordinator shard, on a partition of this broker.

use std::sync::Arc;

use futures_core::future::BoxFuture;

use crate::{
    base::environment::now_ms,
    coordinator::{PlannedBatch, ShardLog, ShardLogError, WriteRefused},
    partition::{Acks, AppendError, Partition},
    records::Batch,
};

/// How often a read of the log is retried because the log is truncated or moved meanwhile.
const READS_MAX: usize = 100;

/// The log of a shard. It is valid while this broker's leadership of the partition lasts; afterwards,
/// appends fail and nothing counts as committed.
pub struct PartitionLog {
    partition: Arc<Partition>,
    leadership_generation: u64,
}

impl PartitionLog {
    pub fn new(partition: Arc<Partition>) -> Self {
        let leadership_generation = partition.view().leadership_generation;
        Self { partition, leadership_generation }
    }
}

impl ShardLog for PartitionLog {
    fn end_offset(&self) -> i64 {
        self.partition.view().log.log_end()
    }

    fn high_watermark(&self) -> i64 {
        let view = self.partition.view();
        match view.leadership_generation == self.leadership_generation {
            true => view.high_watermark,
            false => -1, // A later leadership's high watermark commits nothing of this shard.
        }
    }

    fn check(&self, batch: &PlannedBatch, needs_all_replicas: bool) -> Result<(), WriteRefused> {
        let view = self.partition.view();
        if view.leadership_generation != self.leadership_generation {
            return Err(WriteRefused::NotLeader);
        }
        if needs_all_replicas && view.isr.is_under_min() {
            return Err(WriteRefused::NotEnoughReplicas);
        }
        match batch {
            PlannedBatch::Plain => Ok(()),
            // No coordinator writes such batches yet.
            PlannedBatch::Transactional { .. } | PlannedBatch::Marker(_) => {
                Err(WriteRefused::InvalidTxnState)
            }
        }
    }

    fn append(&self, batch: Batch) -> Result<i64, ShardLogError> {
        // `acks=1`: the shard itself waits until the batch is committed.
        let (leadership_generation, now_ms) = (self.leadership_generation, now_ms());
        let appended =
            self.partition.append_in(leadership_generation, &mut [batch], Acks::Leader, now_ms);
        let appended = appended.map_err(|error| match error {
            AppendError::NotLeader => ShardLogError::NotLeader,
            error => ShardLogError::Failed(error.to_string()),
        })?;
        Ok(appended.last_offset + 1)
    }

    fn wait_committed(&self, end_offset: i64) -> BoxFuture<'_, bool> {
        Box::pin(self.partition.wait_committed(end_offset, self.leadership_generation))
    }

    fn read_all(
        &self,
        each: &mut dyn FnMut(Batch) -> Result<(), ShardLogError>,
    ) -> Result<(), ShardLogError> {
        let mut next = 0;
        let mut reads_left = READS_MAX;
        'again: loop {
            let view = self.partition.view();
            for batch in view.log.batches_from(next) {
                match batch {
                    Ok(batch) => {
                        next = batch.header.last_offset() + 1;
                        each(batch)?;
                    }
                    Err(error) => {
                        let failed = ShardLogError::Failed(error.to_string());
                        reads_left -= 1;
                        match self.partition.read_failed(&view, error) && reads_left > 0 {
                            true => continue 'again,
                            false => return Err(failed),
                        }
                    }
                }
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        base::TopicPartition,
        log::{Log, LogConfig, LogStart, faulty::FaultyDisk, testing::batch},
        partition::{Core, PartitionCallbacks, Role},
    };

    /// After this broker has become a follower, its high watermark counts records of the new
    /// leader, not of this shard.
    #[test]
    fn a_shard_counts_on_nothing_after_its_leadership() {
        let start =
            LogStart { recovery_point: 0, settled: 0, log_start: None, clean: true, now_ms: 0 };
        let (disk, config) = (Arc::new(FaultyDisk::default()), Arc::new(LogConfig::default()));
        let dir = Path::new("/data/__consumer_offsets-0");
        let log = Log::open(disk, dir, config, start).expect("opens").0;
        let core = Core::new(log, Role::Leader { epoch: 0 }, 0);
        let id = TopicPartition::new("__consumer_offsets", 0);
        let partition = Arc::new(Partition::new(id, core, PartitionCallbacks::default()));
        let own = PartitionLog::new(Arc::clone(&partition));
        assert_eq!(own.append(batch(0, 1, 20)).expect("leads"), 1);
        assert_eq!(own.high_watermark(), 1);
        for role in [Role::Follower { epoch: 1, leader: 2 }, Role::Leader { epoch: 2 }] {
            partition.update(|core| core.set_role(role));
            assert_eq!(own.high_watermark(), -1);
            let refused = own.append(batch(0, 1, 20));
            assert!(matches!(refused, Err(ShardLogError::NotLeader)), "{role:?}: {refused:?}");
        }
        let next = PartitionLog::new(partition);
        assert_eq!(next.append(batch(0, 1, 20)).expect("leads"), 2);
    }
}
