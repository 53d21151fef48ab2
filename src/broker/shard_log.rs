//! A partition as a coordinator shard sees it.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    base::world::now_ms,
    coordinator::{ShardLog, ShardLogError},
    partition::{Acks, AppendError, Partition},
    records::Batch,
};

/// The log of a shard, for as long as this broker leads it.
pub struct PartitionLog {
    partition: Arc<Partition>,
    reign: u64,
}

impl PartitionLog {
    pub fn new(partition: Arc<Partition>) -> Self {
        let reign = partition.view().reign;
        Self { partition, reign }
    }
}

impl ShardLog for PartitionLog {
    fn end_offset(&self) -> i64 {
        self.partition.view().log.log_end()
    }

    fn high_watermark(&self) -> i64 {
        self.partition.view().high_watermark
    }

    fn append(&self, batch: Batch) -> Result<i64, ShardLogError> {
        // The shard itself waits until it is committed.
        let appended = self.partition.append(&mut [batch], Acks::Leader, now_ms());
        let appended = appended.map_err(|error| match error {
            AppendError::NotLeader => ShardLogError::NotLeader,
            error => ShardLogError::Failed(error.to_string()),
        })?;
        Ok(appended.last_offset + 1)
    }

    fn wait_committed(&self, end_offset: i64) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(self.partition.wait_committed(end_offset, self.reign))
    }

    fn read_all(
        &self,
        each: &mut dyn FnMut(Batch) -> Result<(), ShardLogError>,
    ) -> Result<(), ShardLogError> {
        let mut next = 0;
        'anew: loop {
            let view = self.partition.view();
            for batch in view.log.batches_from(next) {
                match batch {
                    Ok(batch) => {
                        next = batch.header.last_offset() + 1;
                        each(batch)?;
                    }
                    Err(error) => {
                        let failed = ShardLogError::Failed(error.to_string());
                        match self.partition.read_failed(&view, error) {
                            true => continue 'anew,
                            false => return Err(failed),
                        }
                    }
                }
            }
            return Ok(());
        }
    }
}
