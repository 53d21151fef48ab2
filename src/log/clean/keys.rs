//! Maps the keys of the dirty part of a log (Kafka's `Cleaner.buildOffsetMap`).

use std::ops::{Range, RangeInclusive};

use super::{
    BatchProblem, OffsetMap, ProblemReason, check_offsets, map::KeyHash, survivors::Survivors,
    transactions::Transactions, uncompressed_records,
};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    log::AbortedTxn,
    records::{Batch, Frames},
};

/// The most keys that are looked up in the map at once.
const KEYS_AT_ONCE: usize = 64;

/// What a [`KeyMapper`] has read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MapStats {
    pub messages_read: u64,
    pub bytes_read: u64,
}

/// What a [`KeyMapper`] has found.
#[derive(Debug)]
pub struct Mapped {
    pub map: OffsetMap,
    /// The end offset of the round: that of the dirty range, unless the map was full.
    pub end_offset: i64,
    /// The offsets in the map, and those whose records are not in it.
    pub survivors: Survivors,
}

/// Builds the map of a round from the batches of the dirty range. Leaves out control records,
/// records of aborted transactions and records without a key.
#[derive(Debug)]
pub struct KeyMapper {
    map: OffsetMap,
    survivors: Survivors,
    range: Range<i64>,
    /// The offset after the last batch.
    next_offset: i64,
    transactions: Transactions,
    /// The end offset of the round, if the map is full.
    full_at: Option<i64>,
    stats: MapStats,
}

impl KeyMapper {
    /// `range` is the dirty range. Records before it are not mapped. Their batches may be added.
    pub fn new(map: OffsetMap, range: Range<i64>) -> Self {
        let (survivors, next_offset) = (Survivors::new(range.clone()), i64::MIN);
        let (transactions, stats) = Default::default();
        Self { map, survivors, range, next_offset, transactions, full_at: None, stats }
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

    pub fn finish(mut self) -> Mapped {
        let end_offset = self.full_at.unwrap_or(self.range.end);
        self.survivors.mark(end_offset, self.range.end);
        self.survivors.mark_all(&self.map);
        Mapped { map: self.map, end_offset, survivors: self.survivors }
    }

    fn map_batch(&mut self, batch: &Batch) -> Result<bool, ProblemReason> {
        let header = &batch.header;
        check_offsets(header)?;
        if header.base_offset < self.next_offset {
            // In a damaged log, a record before this batch may have a larger offset than the last
            // one of its key.
            self.survivors = Survivors::new(0..0);
        }
        self.next_offset = header.last_offset().saturating_add(1);
        self.stats.bytes_read += batch.size() as u64;
        let has_keys = match header.is_control() {
            true => {
                self.transactions.pass_control(batch)?;
                false
            }
            false => !self.transactions.pass_data(batch) || has_bug(Bug::AbortedInMap),
        };
        if has_keys && header.last_offset() >= self.range.start {
            return self.map_records(batch);
        }
        self.survivors.mark(header.base_offset, header.last_offset());
        self.stats.messages_read += header.record_count.max(0) as u64;
        Ok(true)
    }

    fn map_records(&mut self, batch: &Batch) -> Result<bool, ProblemReason> {
        let header = &batch.header;
        let offsets = header.base_offset..=header.last_offset();
        let Some(payload) = uncompressed_records(batch)? else {
            self.survivors.mark(*offsets.start(), *offsets.end());
            return Ok(true);
        };
        let (mut next_offset, mut keys) = (header.base_offset, Vec::with_capacity(KEYS_AT_ONCE));
        for record in Frames::new(header, &payload)?.with_records() {
            let (frame, record) = record?;
            let offset = header.base_offset.saturating_add(frame.summary.offset_delta.into());
            let key = frame.key(record);
            // Producers choose the offset deltas of uncompressed records.
            if key.is_none() || offset < next_offset || offset > *offsets.end() {
                self.survivors.mark_vaguely(*offsets.start(), *offsets.end());
            }
            next_offset = offset.saturating_add(1);
            match key {
                Some(key) if offset >= self.range.start => {
                    keys.push((self.map.hash(key), offset));
                }
                _ => self.stats.messages_read += 1,
            }
            if keys.len() == KEYS_AT_ONCE && !self.put_keys(&mut keys, &offsets) {
                return Ok(false);
            }
        }
        Ok(self.put_keys(&mut keys, &offsets))
    }

    /// Takes keys of a batch with these offsets into the map. Returns false if the map is full.
    fn put_keys(&mut self, keys: &mut Vec<(KeyHash, i64)>, offsets: &RangeInclusive<i64>) -> bool {
        let count = self.map.put_all(keys);
        self.stats.messages_read += count as u64;
        if let Some((_, offset)) = keys.get(count) {
            // Each round must end within the batch, and after the end of the round before.
            let end = offset.clamp(offsets.start(), offsets.end());
            self.full_at = Some((*end).max(self.range.start.saturating_add(1)));
            return false;
        }
        keys.clear();
        true
    }
}
