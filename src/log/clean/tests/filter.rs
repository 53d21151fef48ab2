//! Tests of what stays of single batches.

use super::{keys::batch_beyond_the_limit, *};
use crate::log::clean::{FilterStats, Filtered, LastRecord};

/// What becomes of a batch with this map.
fn apply(map: &OffsetMap, rules: FilterRules, batch: &Batch) -> Filtered {
    Filter::new(map, rules).apply(batch).expect("can be read")
}

#[test]
fn only_the_last_record_of_a_key_stays() {
    let map = map_of(&[("a", 2), ("b", 1), ("c", 9)]);
    for compression in Compression::ALL {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let records = ["a", "b", "a", "unknown", "c"].map(|key| (Some(key), Some("v")));
        let old = batch_with(options, &records);
        let mut filter = Filter::new(&map, rules(10));
        let new = rebuilt(&mut filter, &old);
        assert_eq!(offsets(&new), [1, 2, 3]);
        assert_eq!(new.header.compression(), Ok(compression));
        assert_eq!(new.header.last_offset_delta, 4);
        assert_eq!((new.header.base_timestamp, new.header.max_timestamp), (1001, 1003));
        let (bytes_read, bytes_kept) = (old.size() as u64, new.size() as u64);
        let expected = FilterStats {
            messages_read: 5,
            bytes_read,
            messages_kept: 3,
            bytes_kept,
            invalid_messages: 0,
        };
        assert_eq!(filter.stats(), expected);
    }
}

#[test]
fn batch_without_changes_stays_as_it_is() {
    let map = map_of(&[("a", 0), ("b", 1)]);
    for compression in Compression::ALL {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let same = batch_with(options, &[(Some("a"), Some("1")), (Some("b"), Some(""))]);
        let mut filter = Filter::new(&map, rules(10));
        assert_eq!(filter.apply(&same), Ok(Filtered::AsIs));
        assert_eq!(filter.stats().messages_kept, 2);
        assert_eq!(filter.stats().bytes_kept, same.size() as u64);
    }
}

#[test]
fn batch_without_remaining_records_is_dropped() {
    let map = map_of(&[("a", 8), ("b", 9)]);
    let mut filter = Filter::new(&map, rules(10));
    assert_eq!(filter.apply(&batch(0, &[("a", "1"), ("b", "2")])), Ok(Filtered::Dropped));
    let stats = filter.stats();
    assert_eq!((stats.messages_read, stats.messages_kept, stats.bytes_kept), (2, 0, 0));
    let empty = batch(0, &[("a", "1")]).without_records();
    assert_eq!(filter.apply(&empty), Ok(Filtered::Dropped));
}

#[test]
fn records_without_a_key_are_dropped_but_those_with_an_empty_key_stay() {
    let map = map_of(&[("", 1)]);
    let records = [(None, Some("no key")), (Some(""), Some("empty key")), (None, None)];
    let mut filter = Filter::new(&map, rules(10));
    let new = rebuilt(&mut filter, &batch_with(BatchOptions::default(), &records));
    assert_eq!(offsets(&new), [1]);
    assert_eq!(filter.stats().invalid_messages, 2);
}

#[test]
fn batches_from_the_end_offset_on_are_not_changed() {
    let map = map_of(&[("a", 100)]);
    let records = [(Some("a"), None), (None, Some("no key")), (Some("a"), Some("2"))];
    let beyond = batch_with(BatchOptions { base_offset: 50, ..BatchOptions::default() }, &records);
    assert_eq!(apply(&map, rules(50), &beyond), Filtered::AsIs);
    let mut filter = Filter::new(&map, rules(51));
    assert_eq!(offsets(&rebuilt(&mut filter, &beyond)), [51, 52]);
    assert_eq!(filter.stats().invalid_messages, 0);
    // A transaction that was aborted in this part stays, and with it its entry.
    let mut filter = Filter::new(&map, rules(50));
    filter.add_aborted(&[aborted(4, 60, 61)]);
    assert_eq!(filter.apply(&in_transaction(60, 4, &["a"])), Ok(Filtered::AsIs));
    assert_eq!(filter.apply(&abort(61, 4)), Ok(Filtered::AsIs));
    assert_eq!(filter.apply(&abort(62, 5)), Ok(Filtered::AsIs));
    assert_eq!(filter.take_aborted(), [aborted(4, 60, 61)]);
}

#[test]
fn tombstone_stays_until_its_delete_horizon_has_passed() {
    let map = map_of(&[("a", 1), ("b", 2), ("c", 3)]);
    let records = [(Some("a"), Some("old")), (Some("a"), None), (Some("b"), Some("value"))];
    for compression in Compression::ALL {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let old = batch_with(options, &records);
        let first = rebuilt(&mut Filter::new(&map, rules(10)), &old);
        assert_eq!(first.header.delete_horizon(), Some(NOW + RETENTION));
        let expected = [(1, Some("a".into()), None), (2, Some("b".into()), Some("value".into()))];
        assert_eq!(contents(&first), expected);
        let timestamps = first.records(1000).expect("can be read");
        let timestamps: Vec<i64> =
            timestamps.map(|record| record.expect("can be read").timestamp).collect();
        assert_eq!(timestamps, [1001, 1002]);
        let at = |now_ms| FilterRules { now_ms, ..rules(10) };
        let before = apply(&map, at(NOW + RETENTION - 1), &first);
        assert_eq!(before, Filtered::AsIs, "the horizon is set once");
        let second = rebuilt(&mut Filter::new(&map, at(NOW + RETENTION)), &first);
        assert_eq!(offsets(&second), [2]);
        assert_eq!(second.header.delete_horizon(), Some(NOW + RETENTION));
        assert_eq!(second.header.max_timestamp, 1002);
        assert_eq!(apply(&map, at(i64::MAX), &second), Filtered::AsIs);
    }
}

#[test]
fn batch_of_a_tombstone_only_gets_a_horizon_and_goes() {
    let map = map_of(&[("a", 5)]);
    let options = BatchOptions { base_offset: 5, ..BatchOptions::default() };
    let tombstone = batch_with(options, &[(Some("a"), None)]);
    let kept = rebuilt(&mut Filter::new(&map, rules(10)), &tombstone);
    assert_eq!(offsets(&kept), [5]);
    let later = FilterRules { now_ms: NOW + RETENTION, ..rules(10) };
    assert_eq!(apply(&map, later, &kept), Filtered::Dropped);
    // An older tombstone of the key goes at once.
    let older = batch_with(BatchOptions::default(), &[(Some("a"), None)]);
    assert_eq!(apply(&map, rules(10), &older), Filtered::Dropped);
}

#[test]
fn tombstone_without_an_end_of_its_retention_stays() {
    let map = map_of(&[]);
    let tombstone = batch_with(BatchOptions::default(), &[(Some("a"), None)]);
    let forever = FilterRules { delete_retention_ms: i64::MAX, ..rules(10) };
    assert_eq!(apply(&map, forever, &tombstone), Filtered::AsIs);
}

/// A producer can set the attribute. Kafka treats a negative horizon as one that has passed.
#[test]
fn negative_horizon_has_passed_and_is_removed() {
    let map = map_of(&[("a", 0), ("b", 1)]);
    let mut old = batch_with(BatchOptions::default(), &[(Some("a"), None), (Some("b"), Some("1"))]);
    (old.header.attributes, old.header.base_timestamp) = (0x40, -5000);
    let new = rebuilt(&mut Filter::new(&map, rules(10)), &old);
    assert_eq!(offsets(&new), [1]);
    assert_eq!(new.header.delete_horizon(), None);
    let record = new.records(100).expect("can be read").next();
    assert_eq!(record.expect("one record").expect("can be read").timestamp, -4999);
}

#[test]
fn batch_beyond_the_limit_stays_whole_and_so_do_tombstones_after_it() {
    let map = map_of(&[("key", 900)]);
    let huge = batch_beyond_the_limit(0);
    let delete_horizon = Some(NOW);
    let options = BatchOptions { base_offset: 900, delete_horizon, ..BatchOptions::default() };
    let tombstone = batch_with(options, &[(Some("key"), None)]);
    assert_eq!(apply(&map, rules(1000), &tombstone), Filtered::Dropped);
    let mut filter = Filter::new(&map, rules(1000));
    assert_eq!(filter.apply(&huge), Ok(Filtered::AsIs));
    assert_eq!(filter.apply(&tombstone), Ok(Filtered::AsIs), "the value must not come back");
}

fn last(last_data_offset: Option<i64>, epoch: i16) -> Option<LastRecord> {
    Some(LastRecord { last_data_offset, epoch })
}

/// Applies a batch of producer 4 with its last record in the log.
fn apply_with(last: Option<LastRecord>, rules: FilterRules, batch: &Batch) -> Filtered {
    let map = map_of(&[("a", 900), ("b", 901)]);
    let mut filter = Filter::new(&map, rules);
    filter.set_last_records(last.into_iter().map(|last| (4, last)).collect());
    filter.apply(batch).expect("can be read")
}

#[test]
fn batch_with_the_last_sequence_of_a_producer_stays_without_records() {
    for compression in Compression::ALL {
        let options = BatchOptions { compression, base_sequence: 40, ..of_producer(10, 4) };
        let old = batch_with(options, &[(Some("a"), Some("1")), (Some("b"), Some("2"))]);
        let rules = rules(1000);
        let kept = apply_with(last(Some(11), 3), rules, &old);
        let Filtered::Rebuilt(empty) = kept else { panic!("{kept:?}") };
        empty.verify_crc().expect("the CRC fits");
        assert_eq!((empty.size(), empty.header.size(), empty.header.record_count), (61, 61, 0));
        assert_eq!((empty.header.last_offset(), empty.header.last_sequence()), (11, 41));
        let rest = (empty.header.producer_id, empty.header.producer_epoch, empty.header.attributes);
        assert_eq!(rest, (4, 3, 0));
        assert_eq!((empty.header.base_timestamp, empty.header.max_timestamp), (-1, 1011));
        assert_eq!(apply_with(last(Some(11), 3), rules, &empty), Filtered::AsIs);
        for other in [None, last(Some(10), 3), last(Some(12), 3), last(None, 3)] {
            assert_eq!(apply_with(other, rules, &old), Filtered::Dropped, "{other:?}");
            assert_eq!(apply_with(other, rules, &empty), Filtered::Dropped, "{other:?}");
        }
    }
    let without_producer = batch(10, &[("a", "1")]);
    let map = map_of(&[("a", 900)]);
    let mut filter = Filter::new(&map, rules(1000));
    filter.set_last_records([(-1, last(Some(10), -1).expect("is set"))].into());
    assert_eq!(filter.apply(&without_producer), Ok(Filtered::Dropped));
}

#[test]
fn last_marker_of_a_producer_without_data_stays() {
    let rules = FilterRules { now_ms: NOW + RETENTION, ..rules(1000) };
    let marker = abort(10, 4);
    let Filtered::Rebuilt(with_horizon) =
        apply_with(None, FilterRules { now_ms: NOW, ..rules }, &marker)
    else {
        panic!("gets a horizon")
    };
    assert_eq!(apply_with(None, rules, &with_horizon), Filtered::Dropped);
    assert_eq!(apply_with(last(None, 2), rules, &with_horizon), Filtered::Dropped);
    assert_eq!(apply_with(last(Some(8), 3), rules, &with_horizon), Filtered::Dropped);
    let kept = apply_with(last(None, 3), rules, &with_horizon);
    let Filtered::Rebuilt(empty) = kept else { panic!("{kept:?}") };
    assert!(empty.header.is_control() && empty.header.is_transactional());
    assert_eq!((empty.header.record_count, empty.header.last_offset()), (0, 10));
    assert_eq!(apply_with(last(None, 3), rules, &empty), Filtered::AsIs);
    assert_eq!(apply_with(None, rules, &empty), Filtered::Dropped);
}

#[test]
fn last_batch_of_the_range_stays_without_records() {
    let old = batch(10, &[("a", "1"), ("b", "2")]);
    let at_end = FilterRules { range_end: 12, ..rules(12) };
    let kept = apply_with(None, at_end, &old);
    let Filtered::Rebuilt(empty) = kept else { panic!("{kept:?}") };
    assert_eq!((empty.header.record_count, empty.header.last_offset()), (0, 11));
    assert_eq!(apply_with(None, at_end, &empty), Filtered::AsIs);
    let in_the_middle = FilterRules { range_end: 13, ..rules(12) };
    assert_eq!(apply_with(None, in_the_middle, &old), Filtered::Dropped);
    assert_eq!(apply_with(None, in_the_middle, &empty), Filtered::Dropped);
}
