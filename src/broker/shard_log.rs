//! [`PartitionLog`]: the log of a coordinator shard, on a partition of this broker.

use std::sync::Arc;

use futures_core::future::BoxFuture;

use crate::{
    base::environment::now_ms,
    coordinator::{PlannedBatch, ShardLog, ShardLogError, WriteRefused},
    log::ProducerError,
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
        let (partition, generation) = (&self.partition, self.leadership_generation);
        let view = partition.view();
        if view.leadership_generation != generation {
            return Err(WriteRefused::NotLeader);
        }
        if needs_all_replicas && view.isr.is_under_min() {
            return Err(WriteRefused::NotEnoughReplicas);
        }
        let checked = match batch {
            PlannedBatch::Plain => Ok(()),
            PlannedBatch::Transactional { producer, verification, .. } => {
                partition.check_transaction(generation, *producer, *verification)
            }
            PlannedBatch::Marker(marker) => partition.check_marker(generation, marker),
        };
        checked.map_err(|error| refused(&error))
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

/// The reason for which a shard cannot write.
fn refused(error: &AppendError) -> WriteRefused {
    match error {
        AppendError::Producer(error) => match error {
            ProducerError::InvalidEpoch { .. } | ProducerError::InvalidMarkerEpoch { .. } => {
                WriteRefused::InvalidProducerEpoch
            }
            ProducerError::CoordinatorFenced { .. } => WriteRefused::CoordinatorFenced,
            ProducerError::NotVerified { .. }
            | ProducerError::TransactionOpen { .. }
            | ProducerError::AfterUnverified { .. }
            | ProducerError::OutOfOrderSequence { .. } => WriteRefused::InvalidTxnState,
        },
        AppendError::NotEnoughReplicas { .. } => WriteRefused::NotEnoughReplicas,
        AppendError::NotLeader | AppendError::Offline | AppendError::Log(_) => {
            WriteRefused::NotLeader
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
        records::{
            BatchBuilder, BatchOptions, Producer, TransactionVersion, TxnMarker, VerificationGuard,
        },
    };

    fn partition() -> Arc<Partition> {
        let start =
            LogStart { recovery_point: 0, settled: 0, log_start: None, clean: true, now_ms: 0 };
        let (disk, config) = (Arc::new(FaultyDisk::default()), Arc::new(LogConfig::default()));
        let dir = Path::new("/data/__consumer_offsets-0");
        let log = Log::open(disk, dir, config, start).expect("opens").0;
        let core = Core::new(log, Role::Leader { epoch: 0 }, 0);
        let id = TopicPartition::new("__consumer_offsets", 0);
        Arc::new(Partition::new(id, core, PartitionCallbacks::default()))
    }

    const V2: TransactionVersion = TransactionVersion::V2;

    fn offsets_of(producer: Producer) -> Batch {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: 0,
            is_transactional: true,
            ..BatchOptions::default()
        });
        builder.append(0, Some(b"key"), Some(b"value"), &[]);
        builder.build()
    }

    fn marker(producer: Producer, coordinator_epoch: i32) -> TxnMarker {
        TxnMarker { producer, commits: true, coordinator_epoch, version: V2 }
    }

    /// A shard writes in a transaction only if it is open or was verified. All its batches have
    /// sequence 0, which is no repetition.
    #[test]
    fn shard_writes_only_in_verified_transactions() {
        let partition = partition();
        let own = PartitionLog::new(Arc::clone(&partition));
        let producer = Producer { id: 7, epoch: 3 };
        let check = |guard: Option<VerificationGuard>| {
            let verification = guard.into();
            own.check(&PlannedBatch::Transactional { producer, verification, version: V2 }, false)
        };
        assert_eq!(check(None), Err(WriteRefused::InvalidTxnState));
        assert_eq!(check(Some(VerificationGuard(0))), Err(WriteRefused::InvalidTxnState));
        let obtain = || partition.verification_guard(producer, -1, V2).expect("leads");
        let guard = obtain();
        assert_eq!(check(guard), Ok(()));
        assert_eq!(own.append(offsets_of(producer)).expect("leads"), 1);
        assert_eq!(check(None), Ok(()), "the transaction is open");
        assert_eq!(obtain(), None);
        assert_eq!(own.append(offsets_of(producer)).expect("leads"), 2);
        let ends = marker(Producer { epoch: 4, ..producer }, 5);
        assert_eq!(own.check(&PlannedBatch::Marker(ends), false), Ok(()));
        let batch = ends.to_batch(crate::records::TimestampType::CreateTime, 0);
        assert_eq!(own.append(batch).expect("leads"), 3);
        assert_eq!(check(guard), Err(WriteRefused::InvalidProducerEpoch));
        let planned = PlannedBatch::Marker(ends);
        assert_eq!(own.check(&planned, false), Ok(()), "a repeated marker");
        let late = PlannedBatch::Marker(marker(producer, 5));
        assert_eq!(own.check(&late, false), Err(WriteRefused::InvalidProducerEpoch));
        let older = PlannedBatch::Marker(marker(Producer { epoch: 5, ..producer }, 4));
        assert_eq!(own.check(&older, false), Err(WriteRefused::CoordinatorFenced));
        partition.update(|core| core.set_role(Role::Follower { epoch: 1, leader: 2 }));
        assert_eq!(own.check(&planned, false), Err(WriteRefused::NotLeader));
    }

    /// After this broker has become a follower, its high watermark counts records of the new
    /// leader, not of this shard.
    #[test]
    fn a_shard_counts_on_nothing_after_its_leadership() {
        let partition = partition();
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
