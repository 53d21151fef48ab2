//! Tests of mapping the keys of the dirty range.

use super::*;
use crate::{
    log::clean::{BatchProblem, KeyMapper, MapStats, Mapped, ProblemReason},
    log::testing::sealed,
    records::{BatchError, RecordError, compress},
};
use bytes::Bytes;

fn mapper(range: std::ops::Range<i64>) -> KeyMapper {
    KeyMapper::new(map_of(&[]), range)
}

fn small_map(keys: usize) -> OffsetMap {
    OffsetMap::new(24 * (keys + 1), 1.0, [3; 16])
}

#[test]
fn last_offset_of_each_key_is_mapped() {
    for compression in Compression::ALL {
        let mut mapper = mapper(0..30);
        let options = BatchOptions { base_offset: 10, compression, ..BatchOptions::default() };
        let records = [(Some("a"), Some("1")), (None, Some("2")), (Some(""), None)];
        assert_eq!(mapper.add(&batch_with(options, &records)), Ok(true));
        assert_eq!(mapper.add(&batch(20, &[("b", "1"), ("a", "2")])), Ok(true));
        assert_eq!(mapper.stats().messages_read, 5);
        let Mapped { map, end_offset, .. } = mapper.finish();
        assert_eq!(end_offset, 30, "the round ends with the range");
        assert_eq!((map.get(b"a"), map.get(b""), map.get(b"b")), (Some(21), Some(12), Some(20)));
    }
}

#[test]
fn records_before_the_dirty_range_are_not_mapped() {
    let mut mapper = mapper(21..22);
    assert_eq!(mapper.add(&batch(10, &[("a", "1")])), Ok(true));
    assert_eq!(mapper.add(&batch(20, &[("b", "1"), ("c", "1")])), Ok(true));
    let map = mapper.finish().map;
    assert_eq!((map.get(b"a"), map.get(b"b"), map.get(b"c")), (None, None, Some(21)));
}

#[test]
fn aborted_records_do_not_hide_committed_ones() {
    let mut mapper = mapper(0..8);
    mapper.add_aborted(&[aborted(4, 2, 4)]);
    for batch in [
        batch(0, &[("a", "1")]),
        in_transaction(1, 5, &["a"]),
        in_transaction(2, 4, &["a"]),
        batch(3, &[("b", "1")]),
        abort(4, 4),
        commit(5, 5),
        in_transaction(6, 4, &["b"]),
        commit(7, 4),
    ] {
        assert_eq!(mapper.add(&batch), Ok(true));
    }
    assert_eq!(mapper.stats().messages_read, 8);
    let map = mapper.finish().map;
    assert_eq!((map.get(b"a"), map.get(b"b")), (Some(1), Some(6)));
    assert_eq!(map.get(&ControlRecordType::Abort.to_key()), None);
}

#[test]
fn round_ends_before_the_record_that_does_not_fit() {
    let mut mapper = KeyMapper::new(small_map(2), 0..100);
    assert_eq!(mapper.add(&batch(0, &[("a", "1"), ("b", "1")])), Ok(true));
    assert_eq!(mapper.add(&batch(10, &[("a", "2"), ("c", "1"), ("a", "3")])), Ok(false));
    let Mapped { map, end_offset, .. } = mapper.finish();
    assert_eq!(end_offset, 11);
    assert_eq!((map.get(b"a"), map.get(b"b"), map.get(b"c")), (Some(10), Some(1), None));
}

#[test]
fn next_round_continues_where_the_map_was_full() {
    let log: Vec<Batch> =
        (0..10).map(|n| batch(n * 2, &[("a", "1"), (&n.to_string(), "1")])).collect();
    let (mut first_dirty, mut rounds) = (0, 0);
    while first_dirty < 20 {
        let mut mapper = KeyMapper::new(small_map(3), first_dirty..20);
        for batch in &log {
            if !mapper.add(batch).expect("can be read") {
                break;
            }
        }
        let end = mapper.finish().end_offset;
        assert!(end > first_dirty);
        (first_dirty, rounds) = (end, rounds + 1);
    }
    assert_eq!((first_dirty, rounds), (20, 5), "two new keys in each round");
}

/// Producers choose the offset deltas of uncompressed records.
#[test]
fn round_progresses_despite_invalid_offset_deltas() {
    let with_deltas = |deltas: [i32; 3]| {
        let frames = batch(0, &[("a", "1"), ("b", "1"), ("c", "1")]);
        let mut payload = frames.payload.to_vec();
        let mut at = 0;
        for delta in deltas {
            payload[at + 3] = ((delta << 1) ^ (delta >> 31)) as u8;
            at += frames.payload.len() / 3;
        }
        let mut batch = Batch { payload: payload.into(), ..frames };
        batch.header.base_offset = 50;
        sealed(batch)
    };
    for (deltas, end) in [([0, 0, 0], 51), ([0, 1, 60], 52), ([2, 1, 0], 51), ([0, 5, -40], 51)] {
        let mut mapper = KeyMapper::new(small_map(2), 50..53);
        let fits = mapper.add(&with_deltas(deltas)).expect("can be read");
        let found = mapper.finish().end_offset;
        let expected = if fits { 53 } else { end };
        assert_eq!(found, expected, "{deltas:?}");
        assert!(found > 50 && found <= 53, "{deltas:?}: {found}");
    }
}

#[test]
fn keys_of_a_batch_beyond_the_limit_are_not_mapped() {
    let huge = batch_beyond_the_limit(0);
    let mut mapper = mapper(0..1);
    assert_eq!(mapper.add(&huge), Ok(true));
    let expected = MapStats { messages_read: 0, bytes_read: huge.size() as u64 };
    assert_eq!(mapper.stats(), expected);
    assert_eq!(mapper.finish().map.get(b"key"), None);
}

#[test]
fn damaged_batches_are_a_problem() {
    let problem = |batch: Batch, reason: ProblemReason| {
        let base_offset = batch.header.base_offset;
        let expected = BatchProblem { base_offset, reason };
        assert_eq!(mapper(0..100).add(&batch), Err(expected.clone()));
        let map = map_of(&[]);
        assert_eq!(Filter::new(&map, rules(1000)).apply(&batch), Err(expected));
    };
    let mut cut = batch(7, &[("a", "1"), ("b", "2")]);
    cut.payload.truncate(cut.payload.len() - 3);
    problem(cut, RecordError::BadSize(8).into());
    let mut garbage = batch(7, &[("a", "1")]);
    garbage.header.attributes = Compression::Zstd.attributes();
    assert!(mapper(0..100).add(&garbage).is_err());
    garbage.header.attributes = 7;
    let unknown = RecordError::Batch(BatchError::UnknownCompression(7));
    problem(garbage, unknown.into());
    let mut uncounted = batch(7, &[("a", "1")]);
    uncounted.header.record_count = 0;
    problem(uncounted, RecordError::TrailingBytes.into());
    let mut backwards = batch(7, &[("a", "1")]);
    backwards.header.last_offset_delta = -1;
    problem(backwards, ProblemReason::BadOffsets(-1));
    for base_offset in [-1, i64::MAX] {
        let mut outside = batch(7, &[("a", "1")]);
        outside.header.base_offset = base_offset;
        problem(outside, ProblemReason::BadOffsets(0));
    }
    let control = BatchOptions { is_control: true, ..of_producer(7, 4) };
    problem(batch_with(control.clone(), &[(None, Some("v"))]), ProblemReason::NoControlKey);
    let error = ControlRecordType::from_key(b"x").expect_err("is too short");
    problem(batch_with(control, &[(Some("x"), Some("v"))]), error.into());
}

/// A batch of one record with the key `key`, whose value is larger than the limit for
/// decompression.
pub fn batch_beyond_the_limit(base_offset: i64) -> Batch {
    let mut payload = Vec::with_capacity(crate::records::DECOMPRESSED_MAX + 100);
    let value_len = crate::records::DECOMPRESSED_MAX;
    let varint = |out: &mut Vec<u8>, value: usize| {
        let mut rest = value << 1;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    };
    let mut body = vec![0, 0, 0];
    varint(&mut body, 3);
    body.extend_from_slice(b"key");
    varint(&mut body, value_len);
    varint(&mut payload, body.len() + value_len + 1);
    payload.extend_from_slice(&body);
    payload.resize(payload.len() + value_len + 1, 0);
    let payload = compress(Compression::Zstd, Some(1), &payload).expect("can be compressed");
    let compression = Compression::Zstd;
    let options = BatchOptions { base_offset, compression, ..BatchOptions::default() };
    let mut batch = batch_with(options, &[(Some("key"), None)]);
    batch.payload = Bytes::from(payload);
    batch.header.batch_length = (batch.size() - crate::records::batch::LOG_OVERHEAD) as i32;
    sealed(batch)
}
