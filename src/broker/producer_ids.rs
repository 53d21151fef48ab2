//! Producer ids for idempotent producers, drawn from blocks that the controller hands out
//! (AllocateProducerIds, `ProducerIdsRecord`).

use std::ops::Range;

use tokio::sync::Mutex;

use crate::controller::{Controller, ControllerError, PRODUCER_ID_BLOCK};

#[derive(Default)]
pub struct ProducerIds {
    /// An async mutex, because one caller fetches the next block while the others wait for it.
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    /// An id that no producer of this cluster has had.
    pub async fn next(
        &self,
        controller: &Controller,
        broker_id: i32,
        broker_epoch: i64,
    ) -> Result<i64, ControllerError> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            let first = controller.allocate_producer_ids(broker_id, broker_epoch).await?.value;
            *block = first..first + PRODUCER_ID_BLOCK;
        }
        let id = block.start;
        block.start += 1;
        Ok(id)
    }
}
