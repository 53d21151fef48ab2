//! Tests of compaction. Helpers that several files use are here.

mod filter;
mod filter_golden;
mod filter_histories;
mod keys;
mod map;
mod survivors;
mod transactions;

use super::{Filter, FilterRules, OffsetMap};
use crate::{
    log::AbortedTxn,
    records::{
        Batch, BatchBuilder, BatchOptions, Compression, ControlRecordType, control::EndTxnMarker,
    },
};

const NOW: i64 = 1_700_000_000_000;
const RETENTION: i64 = 86_400_000;
/// Key and value of a record.
type Pair<'a> = (Option<&'a str>, Option<&'a str>);

/// A batch of records with the offsets from `options.base_offset` on. Their timestamps are 1000
/// plus the offset.
fn batch_with(options: BatchOptions, records: &[Pair]) -> Batch {
    let first = 1000 + options.base_offset;
    let mut builder = BatchBuilder::new(options);
    for (timestamp, (key, value)) in (first..).zip(records) {
        builder.append(timestamp, key.map(str::as_bytes), value.map(str::as_bytes), &[]);
    }
    builder.build()
}

/// A batch without a producer id, of records with a key and a value.
fn batch(base_offset: i64, records: &[(&str, &str)]) -> Batch {
    let records: Vec<Pair> =
        records.iter().map(|(key, value)| (Some(*key), Some(*value))).collect();
    batch_with(BatchOptions { base_offset, ..BatchOptions::default() }, &records)
}

/// The options of a batch of a producer.
fn of_producer(base_offset: i64, producer_id: i64) -> BatchOptions {
    BatchOptions {
        base_offset,
        producer_id,
        producer_epoch: 3,
        base_sequence: 0,
        ..BatchOptions::default()
    }
}

/// A batch of a transaction, with a record for each key.
fn in_transaction(base_offset: i64, producer_id: i64, keys: &[&str]) -> Batch {
    let records: Vec<Pair> = keys.iter().map(|key| (Some(*key), Some("value"))).collect();
    let options = of_producer(base_offset, producer_id);
    batch_with(BatchOptions { is_transactional: true, ..options }, &records)
}

fn control_batch(base_offset: i64, producer_id: i64, kind: ControlRecordType) -> Batch {
    let mut builder = BatchBuilder::new(BatchOptions {
        base_sequence: -1,
        is_transactional: true,
        is_control: true,
        ..of_producer(base_offset, producer_id)
    });
    let value = EndTxnMarker { coordinator_epoch: 8 }.to_value();
    builder.append(1000 + base_offset, Some(&kind.to_key()), Some(&value), &[]);
    builder.build()
}

fn abort(base_offset: i64, producer_id: i64) -> Batch {
    control_batch(base_offset, producer_id, ControlRecordType::Abort)
}

fn commit(base_offset: i64, producer_id: i64) -> Batch {
    control_batch(base_offset, producer_id, ControlRecordType::Commit)
}

fn aborted(producer_id: i64, first_offset: i64, last_offset: i64) -> AbortedTxn {
    AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset: last_offset + 1 }
}

fn map_of(entries: &[(&str, i64)]) -> OffsetMap {
    let mut map = OffsetMap::new(1 << 16, 0.9, [7; 16]);
    for (key, offset) in entries {
        assert!(map.put(key.as_bytes(), *offset));
    }
    map
}

/// The rules of a round that ends at `end_offset`. The cleanable range ends later.
fn rules(end_offset: i64) -> FilterRules {
    FilterRules {
        end_offset,
        range_end: end_offset + 1000,
        now_ms: NOW,
        delete_retention_ms: RETENTION,
    }
}

/// Offset, key and value of each record.
fn contents(batch: &Batch) -> Vec<(i64, Option<String>, Option<String>)> {
    let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).expect("is text");
    let records = batch.records(1 << 20).expect("can be read");
    let records = records.map(|record| record.expect("can be read"));
    records.map(|record| (record.offset, record.key.map(text), record.value.map(text))).collect()
}

/// The offsets of the records.
fn offsets(batch: &Batch) -> Vec<i64> {
    let records = batch.records(1 << 20).expect("can be read");
    records.map(|record| record.expect("can be read").offset).collect()
}

/// Filters a batch that must be rebuilt, and checks its CRC.
fn rebuilt(filter: &mut Filter, batch: &Batch) -> Batch {
    match filter.apply(batch) {
        Ok(super::Filtered::Rebuilt(rebuilt)) => {
            rebuilt.verify_crc().expect("the CRC fits");
            assert_eq!(rebuilt.header.size(), rebuilt.size());
            rebuilt
        }
        other => panic!("{other:?}"),
    }
}
