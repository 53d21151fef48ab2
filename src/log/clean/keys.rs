//! Maps the keys of the dirty part of a log (Kafka's `Cleaner.buildOffsetMap`).

use super::{
    BatchProblem, OffsetMap, ProblemReason, check_offsets, transactions::Transactions,
    uncompressed_records,
};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    log::AbortedTxn,
    records::{Batch, Frames},
};

/// What a [`KeyMapper`] has read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MapStats {
    pub messages_read: u64,
    pub bytes_read: u64,
}

/// Builds the map of a round from the batches of the dirty range. Leaves out control records,
/// records of aborted transactions and records without a key.
#[derive(Debug)]
pub struct KeyMapper {
    map: OffsetMap,
    first_dirty: i64,
    transactions: Transactions,
    /// The end offset of the round, if the map is full.
    full_at: Option<i64>,
    stats: MapStats,
}

impl KeyMapper {
    /// Records below `first_dirty` are not mapped. Their batches may be added.
    pub fn new(map: OffsetMap, first_dirty: i64) -> Self {
        let (transactions, stats) = Default::default();
        Self { map, first_dirty, transactions, full_at: None, stats }
    }

    /// Adds the aborted transactions that overlap the batches that follow. A transaction may be
    /// added again until its marker was added.
    pub fn add_aborted(&mut self, aborted: &[AbortedTxn]) {
        self.transactions.add_aborted(aborted);
    }

    /// Maps the keys of the next batch. Returns false if the map is full. The round then ends
    /// before the first record that did not fit, and no more batches may be added.
    pub fn add(&mut self, batch: &Batch) -> Result<bool, BatchProblem> {
        let base_offset = batch.header.base_offset;
        self.map_batch(batch).map_err(|reason| BatchProblem { base_offset, reason })
    }

    pub fn stats(&self) -> MapStats {
        self.stats
    }

    /// Returns the map and the end offset of the round: `range_end`, unless the map was full.
    pub fn finish(self, range_end: i64) -> (OffsetMap, i64) {
        (self.map, self.full_at.unwrap_or(range_end))
    }

    fn map_batch(&mut self, batch: &Batch) -> Result<bool, ProblemReason> {
        let header = &batch.header;
        check_offsets(header)?;
        self.stats.bytes_read += batch.size() as u64;
        let has_keys = match header.is_control() {
            true => {
                self.transactions.pass_control(batch)?;
                false
            }
            false => !self.transactions.pass_data(batch) || has_bug(Bug::AbortedInMap),
        };
        if has_keys && header.last_offset() >= self.first_dirty {
            return self.map_records(batch);
        }
        self.stats.messages_read += header.record_count.max(0) as u64;
        Ok(true)
    }

    fn map_records(&mut self, batch: &Batch) -> Result<bool, ProblemReason> {
        let header = &batch.header;
        let Some(payload) = uncompressed_records(batch)? else { return Ok(true) };
        for record in Frames::new(header, &payload)?.with_records() {
            let (frame, record) = record?;
            let offset = header.base_offset.saturating_add(frame.summary.offset_delta.into());
            if let Some(key) = frame.key(record)
                && offset >= self.first_dirty
                && !self.map.put(key, offset)
            {
                // Producers choose the offset deltas of uncompressed records. Each round must end
                // within the batch, and after the end of the round before.
                let end = offset.clamp(header.base_offset, header.last_offset());
                self.full_at = Some(end.max(self.first_dirty.saturating_add(1)));
                return Ok(false);
            }
            self.stats.messages_read += 1;
        }
        Ok(true)
    }
}
