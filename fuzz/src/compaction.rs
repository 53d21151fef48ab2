//! Fuzz target for compaction: what a round keeps of any batches.

use std::collections::HashMap;

use bytes::Bytes;
use sordini::{
    log::{
        AbortedTxn,
        clean::{Filter, FilterRules, Filtered, KeyMapper, LastRecord, Mapped, OffsetMap},
    },
    records::{
        Batch, BatchBuilder, BatchHeader, BatchOptions, Record, TimestampType, batch::LOG_OVERHEAD,
    },
};

use crate::{Input, wire::codec_of};

/// The most bytes that a target decompresses to compare records.
const DECOMPRESSED_MAX: usize = 1 << 20;

/// Maps the keys of batches, or takes an arbitrary map, and filters the batches twice.
pub fn compacted_batches(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let rules = FilterRules {
        end_offset: input.small().max(0) * 2,
        range_end: i64::from(input.byte()),
        now_ms: 1_700_000_000_000 + input.small(),
        delete_retention_ms: if flags & 1 == 0 { i64::from(input.byte()) } else { i64::MAX },
    };
    let aborted: Vec<AbortedTxn> = (0..input.byte() % 4).map(|_| input.aborted()).collect();
    let last_records = (0..input.byte() % 4).map(|_| input.last_record()).collect();
    let map = match flags & 2 == 0 {
        true => input.map(),
        false => OffsetMap::new(24 * usize::from(input.byte()), 0.9, [1; 16]),
    };
    let batches = input.log(flags & 4 == 0);
    let known = (&aborted[..], &last_records);
    if flags & 2 == 0 {
        let Some(kept) = filter(Filter::new(&map, rules), known, &batches) else { return };
        filter(Filter::new(&map, rules), known, &kept).expect("what was kept can be filtered");
        return;
    }
    let Some(mapped) = map_keys(map, &aborted, &batches, rules) else { return };
    let rules = FilterRules { end_offset: mapped.end_offset, ..rules };
    let Some(kept) = filter(Filter::new(&mapped.map, rules), known, &batches) else { return };
    let mut knowing = Filter::new(&mapped.map, rules);
    knowing.set_survivors(&mapped.survivors);
    assert_eq!(filter(knowing, known, &batches).as_ref(), Some(&kept));
    let again = Filter::new(&mapped.map, rules);
    filter(again, known, &kept).expect("what was kept can be filtered");
}

fn map_keys(
    map: OffsetMap,
    aborted: &[AbortedTxn],
    batches: &[Batch],
    rules: FilterRules,
) -> Option<Mapped> {
    let mut mapper = KeyMapper::new(map, rules.end_offset / 2..rules.range_end);
    mapper.add_aborted(aborted);
    for batch in batches {
        if !mapper.add(batch).ok()? {
            break;
        }
    }
    Some(mapper.finish())
}

/// Filters batches and checks what is kept. Returns `None` if a batch cannot be filtered.
fn filter(
    mut filter: Filter,
    (aborted, last_records): (&[AbortedTxn], &HashMap<i64, LastRecord>),
    batches: &[Batch],
) -> Option<Vec<Batch>> {
    filter.add_aborted(aborted);
    filter.set_last_records(last_records.clone());
    let mut kept = Vec::new();
    for batch in batches {
        match filter.apply(batch).ok()? {
            Filtered::Dropped => {}
            Filtered::AsIs => kept.push(batch.clone()),
            Filtered::Rebuilt(rebuilt) => {
                check_rebuilt(batch, &rebuilt);
                kept.push(rebuilt);
            }
        }
    }
    assert!(filter.take_aborted().iter().all(|txn| aborted.contains(txn)));
    Some(kept)
}

fn check_rebuilt(old: &Batch, new: &Batch) {
    new.verify_crc().expect("a rebuilt batch has its CRC");
    let mut bytes = Bytes::from([&new.header.to_bytes()[..], &new.payload].concat());
    assert_eq!(Batch::split_first(&mut bytes).as_ref(), Ok(new));
    assert!(bytes.is_empty());
    let fixed = |header: &BatchHeader| {
        let producer = (header.producer_id, header.producer_epoch, header.base_sequence);
        let kind = (header.is_control(), header.is_transactional(), header.timestamp_type());
        (header.base_offset, header.last_offset_delta, header.leader_epoch, producer, kind)
    };
    assert_eq!(fixed(&new.header), fixed(&old.header));
    let Some(before) = records(old) else { return };
    let after = records(new).expect("a rebuilt batch can be read");
    assert_eq!(after.len(), new.header.record_count as usize);
    let mut before = before.into_iter();
    for record in after {
        assert!(before.any(|it| it == record), "{record:?} is new or in another order");
    }
}

/// The records of a batch, without a timestamp if it is that of the batch.
fn records(batch: &Batch) -> Option<Vec<Record>> {
    let by_log = batch.header.timestamp_type() == TimestampType::LogAppendTime;
    let records = batch.records(DECOMPRESSED_MAX).ok()?;
    let records = records.map(|record| {
        let record = record.ok()?;
        Some(Record { timestamp: if by_log { 0 } else { record.timestamp }, ..record })
    });
    records.collect()
}

impl Input<'_> {
    fn aborted(&mut self) -> AbortedTxn {
        let first_offset = i64::from(self.byte());
        let last_offset = first_offset + i64::from(self.byte() % 32);
        let producer_id = i64::from(self.byte() % 4);
        AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset: last_offset }
    }

    fn last_record(&mut self) -> (i64, LastRecord) {
        let offset = self.small();
        let last_data_offset = (offset >= 0).then_some(offset);
        (i64::from(self.byte() % 4), LastRecord { last_data_offset, epoch: self.small() as i16 })
    }

    /// A map of keys of at most one byte to any offsets.
    fn map(&mut self) -> OffsetMap {
        let mut map = OffsetMap::new(1 << 12, 0.9, [1; 16]);
        for _ in 0..self.byte() % 16 {
            let key = [self.byte() % 8];
            map.put(&key[..usize::from(key[0] != 0)], self.small());
        }
        map
    }

    /// The batches of a log: well-formed ones with a few keys, of which some are damaged, or any.
    fn log(mut self, is_well_formed: bool) -> Vec<Batch> {
        let mut batches = Vec::new();
        if is_well_formed {
            let mut next_offset = 0;
            while !self.0.is_empty() {
                let batch = self.keyed_batch(next_offset);
                next_offset = batch.header.last_offset().max(0) + 1;
                batches.push(batch);
            }
        } else {
            let mut bytes = Bytes::from(self.batches());
            batches.extend(std::iter::from_fn(|| Batch::split_first(&mut bytes).ok()));
        }
        batches
    }

    fn keyed_batch(&mut self, next_offset: i64) -> Batch {
        let (flags, codec) = (self.byte(), self.byte());
        let is_set = |bit: u8| flags & (1 << bit) != 0;
        let producer_id = if is_set(0) { i64::from(codec >> 6) } else { -1 };
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: next_offset + i64::from(flags >> 6),
            producer_id,
            producer_epoch: if is_set(0) { 0 } else { -1 },
            base_sequence: if is_set(0) && !is_set(2) { 0 } else { -1 },
            compression: codec_of(codec),
            is_transactional: is_set(0) && is_set(1),
            is_control: is_set(0) && is_set(2),
            delete_horizon: is_set(3).then_some(1_700_000_000_000 + self.small()),
            ..BatchOptions::default()
        });
        for _ in 0..1 + self.byte() % 6 {
            let (key, value) = (self.byte(), self.byte());
            let key = match is_set(2) {
                true => vec![0, 0, 0, key % 3],
                false => vec![key % 8; usize::from(!key.is_multiple_of(8))],
            };
            let key = (value % 16 != 1).then_some(&key[..]);
            let bytes = [value; 16];
            let value_bytes = (value % 4 != 0).then_some(&bytes[..usize::from(value % 16)]);
            let header: [(&[u8], Option<&[u8]>); 1] = [(b"h", None)];
            let headers = &header[..usize::from(value >> 7)];
            builder.append(1_700_000_000_000 + self.small(), key, value_bytes, headers);
        }
        let mut batch = builder.build();
        if is_set(4) && is_set(5) {
            self.damage(&mut batch);
        }
        batch
    }

    /// Changes some bytes after the length of the batch.
    fn damage(&mut self, batch: &mut Batch) {
        let mut bytes = [&batch.header.to_bytes()[..], &batch.payload].concat();
        for _ in 0..self.byte() % 4 {
            let at = usize::from(u16::from_be_bytes([self.byte(), self.byte()]));
            let len = bytes.len() - LOG_OVERHEAD;
            bytes[LOG_OVERHEAD + at % len] = self.byte();
        }
        crate::seal_batches(&mut bytes);
        if let Ok(damaged) = Batch::split_first(&mut bytes.into()) {
            *batch = damaged;
        }
    }
}
