//! A partition as a coordinator shard sees it.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    base::clock::now_ms,
    coordinator::{ShardLog, ShardLogError},
    partition::{AppendError, Partition},
    records::Batch,
};

pub struct PartitionLog(pub Arc<Partition>);

impl ShardLog for PartitionLog {
    fn end_offset(&self) -> i64 {
        self.0.view().log.log_end()
    }

    fn high_watermark(&self) -> i64 {
        self.0.view().high_watermark
    }

    fn append(&self, batch: Batch) -> Result<i64, ShardLogError> {
        let appended = self.0.append(&mut [batch], now_ms());
        let appended = appended.map_err(|error| match error {
            AppendError::NotLeader => ShardLogError::NotLeader,
            error => ShardLogError::Failed(error.to_string()),
        })?;
        Ok(appended.last_offset + 1)
    }

    fn wait_committed(&self, end_offset: i64) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(self.0.wait_committed(end_offset))
    }

    fn read_all(
        &self,
        each: &mut dyn FnMut(Batch) -> Result<(), ShardLogError>,
    ) -> Result<(), ShardLogError> {
        let view = self.0.view();
        for batch in view.log.batches_from(view.log.log_start()) {
            each(batch.map_err(|error| {
                let failed = ShardLogError::Failed(error.to_string());
                self.0.read_failed(error);
                failed
            })?)?;
        }
        Ok(())
    }
}
