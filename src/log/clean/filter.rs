//! Decides which records of a batch stay (Kafka's `Cleaner.cleanInto` and `MemoryRecords.filterTo`).

use std::collections::HashMap;

use super::{
    BatchProblem, OffsetMap, ProblemReason, Survivors, check_offsets, transactions::Transactions,
    uncompressed_records,
};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    log::AbortedTxn,
    records::{Batch, BatchBuilder, BatchHeader, BatchOptions, Frames, RecordError, RecordSummary},
};

/// Upper bound of the bytes by which a record grows if its timestamp delta changes.
const RECORD_GROWTH_MAX: usize = 16;

/// The last record of a producer in a log (Kafka's `LastRecord`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRecord {
    /// The last offset of the producer's last data batch; `None` if it only has markers.
    pub last_data_offset: Option<i64>,
    pub epoch: i16,
}

/// The numbers that decide what stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterRules {
    /// The end offset of the round (see `KeyMapper::finish`). Records at or above it stay.
    pub end_offset: i64,
    /// The end of the cleanable range. A batch that ends there stays, even without records. It is
    /// above `end_offset` if the map was full.
    pub range_end: i64,
    pub now_ms: i64,
    pub delete_retention_ms: i64,
}

/// What becomes of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    Dropped,
    /// The batch stays as it is, byte for byte.
    AsIs,
    /// The batch that takes its place. It may have no records.
    Rebuilt(Batch),
}

/// What a [`Filter`] has read and kept.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct FilterStats {
    /// Records that were checked one by one. Those of batches that are dropped whole do not count.
    pub messages_read: u64,
    pub bytes_read: u64,
    pub messages_kept: u64,
    pub bytes_kept: u64,
    /// Dropped records without a key.
    pub invalid_messages: u64,
}

/// Filters the batches of a log, from its start to the end of a round.
#[derive(Debug)]
pub struct Filter<'m> {
    map: &'m OffsetMap,
    survivors: Option<&'m Survivors>,
    rules: FilterRules,
    transactions: Transactions,
    last_records: HashMap<i64, LastRecord>,
    /// Whether a batch stays whole because it decompresses to more than the limit.
    has_unread: bool,
    /// Whether each record of the current batch stays.
    stays: Vec<bool>,
    stats: FilterStats,
}

/// What stays of a batch's records.
#[derive(Debug, Default)]
struct Remaining {
    records: usize,
    /// Size of these records in bytes.
    bytes: usize,
    has_tombstone: bool,
}

impl<'m> Filter<'m> {
    pub fn new(map: &'m OffsetMap, rules: FilterRules) -> Self {
        let (transactions, last_records, has_unread, stays, stats) = Default::default();
        let survivors = None;
        Self { map, survivors, rules, transactions, last_records, has_unread, stays, stats }
    }

    /// Sets what the mapper of the map has found out, to spare work. What stays is the same.
    pub fn set_survivors(&mut self, survivors: &'m Survivors) {
        self.survivors = Some(survivors);
    }

    /// Sets the last record of each active producer of the log, by producer id.
    pub fn set_last_records(&mut self, last: HashMap<i64, LastRecord>) {
        self.last_records = last;
    }

    /// Adds the aborted transactions that overlap the batches that follow. A transaction may be
    /// added again until its marker was filtered.
    pub fn add_aborted(&mut self, aborted: &[AbortedTxn]) {
        self.transactions.add_aborted(aborted);
    }

    /// Filters the next batch of the log.
    pub fn apply(&mut self, batch: &Batch) -> Result<Filtered, BatchProblem> {
        let base_offset = batch.header.base_offset;
        let filtered = self.filter(batch).map_err(|reason| BatchProblem { base_offset, reason })?;
        let kept = match &filtered {
            Filtered::Dropped => None,
            Filtered::AsIs => Some(batch),
            Filtered::Rebuilt(rebuilt) => Some(rebuilt),
        };
        self.stats.bytes_read += batch.size() as u64;
        if let Some(kept) = kept {
            self.stats.messages_kept += record_count(&kept.header);
            self.stats.bytes_kept += kept.size() as u64;
        }
        Ok(filtered)
    }

    /// Returns the aborted transactions whose markers have passed since the last call, for the
    /// transaction index of the output segment. Those without a batch in the log are left out.
    pub fn take_aborted(&mut self) -> Vec<AbortedTxn> {
        self.transactions.take_complete()
    }

    pub fn stats(&self) -> FilterStats {
        self.stats
    }

    fn filter(&mut self, batch: &Batch) -> Result<Filtered, ProblemReason> {
        let header = &batch.header;
        check_offsets(header)?;
        let is_control = header.is_control();
        let is_discarded = match is_control {
            true => self.transactions.pass_control(batch)?,
            false => self.transactions.pass_data(batch),
        };
        if header.base_offset >= self.rules.end_offset {
            self.stats.messages_read += record_count(header);
            return Ok(Filtered::AsIs);
        }
        let loses_records = is_discarded && (!is_control || self.is_past_horizon(header));
        let stays_empty = self.stays_empty(header);
        if loses_records && !stays_empty {
            return Ok(Filtered::Dropped);
        }
        self.stats.messages_read += record_count(header);
        if loses_records {
            return Ok(emptied(batch));
        }
        if !is_control && self.is_superseded(header) {
            return Ok(if stays_empty { emptied(batch) } else { Filtered::Dropped });
        }
        let Some(payload) = uncompressed_records(batch)? else {
            self.has_unread = true;
            return Ok(Filtered::AsIs);
        };
        let remaining = self.check_records(header, &payload)?;
        if remaining.records == 0 {
            return Ok(if stays_empty { emptied(batch) } else { Filtered::Dropped });
        }
        let expires = remaining.has_tombstone || (is_discarded && is_control);
        self.rebuild(batch, &payload, &remaining, expires)
    }

    /// Whether each record has a later one of its key.
    fn is_superseded(&self, header: &BatchHeader) -> bool {
        let has_any = |it: &Survivors| it.has_any(header.base_offset, header.last_offset());
        self.survivors.is_some_and(|survivors| !has_any(survivors))
    }

    fn is_past_horizon(&self, header: &BatchHeader) -> bool {
        header.delete_horizon().is_some_and(|horizon| horizon <= self.rules.now_ms)
    }

    /// Whether the batch stays even without records: it has the last sequence number or epoch of
    /// an active producer, or it ends the cleanable range.
    fn stays_empty(&self, header: &BatchHeader) -> bool {
        let is_last_of_producer = match self.last_records.get(&header.producer_id) {
            _ if !header.has_producer_id() || has_bug(Bug::ForgottenSequence) => false,
            None => false,
            Some(LastRecord { last_data_offset: Some(last), .. }) => header.last_offset() == *last,
            Some(last) => header.is_control() && header.producer_epoch == last.epoch,
        };
        let ends_range = header.last_offset() + 1 == self.rules.range_end;
        is_last_of_producer || (ends_range && !has_bug(Bug::ForgottenRoundEnd))
    }

    /// Decides for each record whether it stays.
    fn check_records(
        &mut self,
        header: &BatchHeader,
        payload: &[u8],
    ) -> Result<Remaining, ProblemReason> {
        let mut remaining = Remaining::default();
        self.stays.clear();
        for record in Frames::new(header, payload)?.with_records() {
            let (frame, record) = record?;
            let stays =
                header.is_control() || self.keeps_record(header, &frame.summary, frame.key(record));
            self.stays.push(stays);
            if stays {
                remaining.records += 1;
                remaining.bytes += record.len();
                remaining.has_tombstone |= frame.summary.value_len().is_none();
            }
        }
        Ok(remaining)
    }

    fn keeps_record(
        &mut self,
        header: &BatchHeader,
        record: &RecordSummary,
        key: Option<&[u8]>,
    ) -> bool {
        let offset = header.base_offset.saturating_add(record.offset_delta.into());
        if offset >= self.rules.end_offset {
            return true;
        }
        let Some(key) = key else {
            self.stats.invalid_messages += 1;
            return false;
        };
        // A batch that was not read may have values of the key, which must not come back.
        let is_expired =
            record.value_len().is_none() && self.is_past_horizon(header) && !self.has_unread;
        !is_expired && self.is_last(key, offset)
    }

    fn is_last(&self, key: &[u8], offset: i64) -> bool {
        let marked = self.survivors.and_then(|survivors| survivors.is_last(offset));
        marked.unwrap_or_else(|| self.map.get(key).is_none_or(|last| offset >= last))
    }

    /// Builds the batch again from the records that stay. If all stay and the batch needs no new
    /// delete horizon, it stays as it is. `expires` says that it must have a delete horizon.
    fn rebuild(
        &self,
        batch: &Batch,
        payload: &[u8],
        remaining: &Remaining,
        expires: bool,
    ) -> Result<Filtered, ProblemReason> {
        let header = &batch.header;
        let new_horizon = match expires && !header.has_delete_horizon() {
            // A sum above the range means that the tombstones stay for ever.
            true => self.rules.now_ms.checked_add(self.rules.delete_retention_ms),
            false => None,
        };
        if remaining.records == self.stays.len() && new_horizon.is_none() {
            return Ok(Filtered::AsIs);
        }
        let size_max = remaining.bytes + remaining.records * RECORD_GROWTH_MAX;
        if size_max > i32::MAX as usize / 2 {
            return Ok(Filtered::AsIs);
        }
        let options = BatchOptions::of(header).map_err(RecordError::from)?;
        let delete_horizon = new_horizon.or(options.delete_horizon);
        let mut builder = BatchBuilder::new(BatchOptions { delete_horizon, ..options });
        builder.reserve(remaining.bytes);
        for (record, stays) in Frames::new(header, payload)?.with_records().zip(&self.stays) {
            let (frame, record) = record?;
            if *stays {
                builder.append_frame(&frame, record);
            }
        }
        Ok(Filtered::Rebuilt(builder.build_ending_at(header.last_offset_delta)))
    }
}

/// The header of a batch, without its records.
fn emptied(batch: &Batch) -> Filtered {
    let empty = batch.without_records();
    match empty == *batch {
        true => Filtered::AsIs,
        false => Filtered::Rebuilt(empty),
    }
}

fn record_count(header: &BatchHeader) -> u64 {
    header.record_count.max(0) as u64
}
