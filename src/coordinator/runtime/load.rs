//! Loads a shard: applies the records of its partition in order.

use std::collections::HashMap;

use super::{ShardLog, ShardLogError};
use crate::{
    coordinator::Shard,
    records::{Batch, ControlRecordType},
};

/// The most bytes of a batch's records after decompression.
const BATCH_BYTES_MAX: usize = 128 << 20;

/// A load in progress.
struct Load<S: Shard> {
    logged: S::LoggedState,
    /// Records of open transactions with their offsets, by producer id. They are applied when the
    /// transaction commits.
    undecided: HashMap<i64, Vec<(i64, S::Record)>>,
}

/// The state of a loaded partition, and the log end offset that the load reached.
pub struct Loaded<S: Shard> {
    pub logged: S::LoggedState,
    pub end_offset: i64,
}

/// Replays a partition from start to end. Blocks the thread.
pub fn load<S: Shard>(log: &dyn ShardLog) -> Result<Loaded<S>, ShardLogError> {
    let mut load = Load::<S> { logged: S::LoggedState::default(), undecided: HashMap::new() };
    // This value stays if the log has no batch, because all its records were deleted.
    let mut end_offset = log.end_offset();
    log.read_all(&mut |batch| {
        end_offset = batch.header.last_offset() + 1;
        load.take(&batch)
    })?;
    Ok(Loaded { logged: load.logged, end_offset })
}

impl<S: Shard> Load<S> {
    fn take(&mut self, batch: &Batch) -> Result<(), ShardLogError> {
        let header = &batch.header;
        for record in batch.records(BATCH_BYTES_MAX)? {
            let record = record?;
            let Some(key) = record.key else { continue };
            if header.is_control() {
                let committed = ControlRecordType::from_key(&key) == Ok(ControlRecordType::Commit);
                let ended = self.undecided.remove(&header.producer_id).unwrap_or_default();
                for (offset, record) in ended.iter().filter(|_| committed) {
                    S::apply(&mut self.logged, *offset, record);
                }
                continue;
            }
            let Some(decoded) = S::decode(key, record.value)? else { continue };
            if header.is_transactional() {
                let transaction = self.undecided.entry(header.producer_id).or_default();
                transaction.push((record.offset, decoded));
            } else {
                S::apply(&mut self.logged, record.offset, &decoded);
            }
        }
        Ok(())
    }
}
