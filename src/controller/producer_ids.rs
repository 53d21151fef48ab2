//! Blocks of producer ids (Kafka's `ProducerIdControlManager`).

use super::{Context, ControllerError, Decision, heartbeat::check_epoch};
use crate::metadata::records::ProducerIdsRecord;

/// Ids per block (Kafka's `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_ID_BLOCK: i64 = 1_000;

/// Allocates a block of `PRODUCER_ID_BLOCK` producer ids to a broker and returns the first of them.
/// Fails with `StaleBrokerEpoch` or `ProducerIdsExhausted`.
pub fn allocate(
    cx: &Context<'_>,
    broker_id: i32,
    broker_epoch: i64,
) -> Decision<Result<i64, ControllerError>> {
    let first = cx.image.next_producer_id();
    let refused = match check_epoch(cx, broker_id, broker_epoch) {
        Err(error) => Some(error),
        Ok(_) if first > i64::MAX - PRODUCER_ID_BLOCK => {
            Some(ControllerError::ProducerIdsExhausted)
        }
        Ok(_) => None,
    };
    if let Some(error) = refused {
        return Decision { records: Vec::new(), response: Err(error) };
    }
    let next_producer_id = first + PRODUCER_ID_BLOCK;
    let record = ProducerIdsRecord { broker_id, broker_epoch, next_producer_id };
    Decision { records: vec![record.into()], response: Ok(first) }
}
