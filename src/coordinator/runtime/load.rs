//! Loads a shard: applies the records of its partition in order.

use super::{ShardLog, ShardLogError, batches::end_transaction};
use crate::{
    coordinator::{BatchKind, Shard},
    records::{Batch, DECOMPRESSED_MAX},
};

/// The state of a loaded partition, and the log end offset that the load reached.
pub struct Loaded<S: Shard> {
    pub logged: S::LoggedState,
    pub end_offset: i64,
}

/// Replays a partition from start to end. Blocks the thread.
pub fn load<S: Shard>(log: &dyn ShardLog) -> Result<Loaded<S>, ShardLogError> {
    let mut logged = S::LoggedState::default();
    // This value stays if the log has no batch, because all its records were deleted.
    let mut end_offset = log.end_offset();
    log.read_all(&mut |batch| {
        end_offset = batch.header.last_offset() + 1;
        apply_batch::<S>(&mut logged, &batch)
    })?;
    Ok(Loaded { logged, end_offset })
}

fn apply_batch<S: Shard>(logged: &mut S::LoggedState, batch: &Batch) -> Result<(), ShardLogError> {
    let kind = BatchKind::of(&batch.header);
    for record in batch.records(DECOMPRESSED_MAX)? {
        let record = record?;
        let Some(key) = record.key else { continue };
        if let BatchKind::Control(producer) = kind {
            end_transaction::<S>(logged, producer.id, &key);
        } else if let Some(decoded) = S::decode(key, record.value)? {
            S::apply(logged, record.offset, kind, &decoded);
        }
    }
    Ok(())
}
