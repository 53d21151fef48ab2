//! Tests of transactions that pass through the filter.

use super::*;
use crate::log::clean::Filtered;

/// The offsets of the records that remain of each batch; `None` if it was dropped.
type Remains = Vec<Option<Vec<i64>>>;

/// Filters a log and returns what remains of it: the batches, and the entries of its index.
fn pass(log: &[Batch], index: &[AbortedTxn], rules: FilterRules) -> (Vec<Batch>, Vec<AbortedTxn>) {
    let map = map_of(&[]);
    let mut filter = Filter::new(&map, rules);
    filter.add_aborted(index);
    let mut remaining = Vec::new();
    for batch in log {
        match filter.apply(batch).expect("can be read") {
            Filtered::Dropped => {}
            Filtered::AsIs => remaining.push(batch.clone()),
            Filtered::Rebuilt(rebuilt) => remaining.push(rebuilt),
        }
    }
    (remaining, filter.take_aborted())
}

fn base_offsets(log: &[Batch]) -> Vec<i64> {
    log.iter().map(|batch| batch.header.base_offset).collect()
}

fn horizons(log: &[Batch]) -> Vec<Option<i64>> {
    log.iter().map(|batch| batch.header.delete_horizon()).collect()
}

#[test]
fn aborted_data_goes_at_once_and_its_marker_after_a_horizon() {
    let log = [in_transaction(0, 4, &["a", "b"]), in_transaction(2, 4, &["c"]), abort(3, 4)];
    let index = [aborted(4, 0, 3)];
    let (log, index) = pass(&log, &index, rules(10));
    assert_eq!(base_offsets(&log), [3]);
    assert_eq!(horizons(&log), [None], "the round that removes the data keeps the marker");
    assert_eq!(index, [aborted(4, 0, 3)]);
    let (log, index) = pass(&log, &index, rules(10));
    assert_eq!(horizons(&log), [Some(NOW + RETENTION)]);
    assert_eq!(offsets(&log[0]), [3]);
    assert_eq!(index, []);
    let (same, _) = pass(&log, &index, rules(10));
    assert_eq!(same, log);
    let later = FilterRules { now_ms: NOW + RETENTION, ..rules(10) };
    assert_eq!(pass(&log, &index, later), (vec![], vec![]));
}

#[test]
fn commit_marker_stays_while_a_record_of_its_transaction_does() {
    let log = [in_transaction(0, 4, &["a"]), commit(1, 4), commit(2, 5)];
    let later = FilterRules { now_ms: NOW + RETENTION, ..rules(10) };
    let (log, _) = pass(&log, &[], rules(10));
    assert_eq!(horizons(&log), [None, None, Some(NOW + RETENTION)]);
    let (log, _) = pass(&log, &[], later);
    assert_eq!(base_offsets(&log), [0, 1]);
    // Without its data, the marker gets a horizon of its own.
    let (log, _) = pass(&log[1..], &[], later);
    assert_eq!(horizons(&log), [Some(NOW + 2 * RETENTION)]);
}

#[test]
fn markers_end_only_the_transaction_of_their_producer() {
    let log = [
        in_transaction(0, 4, &["a"]),
        in_transaction(1, 5, &["b"]),
        in_transaction(2, 6, &["c"]),
        abort(3, 5),
        in_transaction(4, 5, &["d"]),
        commit(5, 4),
        abort(6, 6),
        in_transaction(7, 4, &["e"]),
        commit(8, 5),
        abort(9, 4),
    ];
    let index = [aborted(5, 1, 3), aborted(6, 2, 6), aborted(4, 7, 9)];
    let (log, found) = pass(&log, &index, rules(20));
    assert_eq!(base_offsets(&log), [0, 3, 4, 5, 6, 8, 9]);
    assert_eq!(horizons(&log), [None; 7]);
    assert_eq!(found, index);
}

#[test]
fn records_outside_of_transactions_stay_beside_an_aborted_one() {
    let with_sequence = batch_with(of_producer(1, 4), &[(Some("b"), Some("v"))]);
    let log = [in_transaction(0, 4, &["a"]), with_sequence, abort(2, 4)];
    let (log, _) = pass(&log, &[aborted(4, 0, 2)], rules(10));
    assert_eq!(base_offsets(&log), [1, 2]);
}

#[test]
fn transaction_over_several_segments_is_added_for_each() {
    let map = map_of(&[]);
    let mut filter = Filter::new(&map, rules(100));
    let txn = aborted(4, 0, 20);
    let mut remains: Remains = Vec::new();
    let mut entries = Vec::new();
    for segment in [
        vec![in_transaction(0, 4, &["a"]), batch(1, &[("b", "1")])],
        vec![batch(10, &[("c", "1")]), in_transaction(11, 4, &["d"])],
        vec![abort(20, 4), in_transaction(21, 4, &["e"]), commit(22, 4)],
    ] {
        filter.add_aborted(&[txn]);
        for batch in &segment {
            remains.push(match filter.apply(batch).expect("can be read") {
                Filtered::Dropped => None,
                Filtered::AsIs => Some(offsets(batch)),
                Filtered::Rebuilt(rebuilt) => Some(offsets(&rebuilt)),
            });
        }
        entries.push(filter.take_aborted());
    }
    let kept = |offset| Some(vec![offset]);
    assert_eq!(remains, [None, kept(1), kept(10), None, kept(20), kept(21), kept(22)]);
    assert_eq!(entries, [vec![], vec![], vec![txn]]);
}

#[test]
fn empty_batch_of_an_aborted_transaction_keeps_the_marker_and_the_entry() {
    let map = map_of(&[]);
    let mut log = vec![in_transaction(0, 4, &["a"]), abort(1, 4)];
    for _ in 0..3 {
        let last = crate::log::clean::LastRecord { last_data_offset: Some(0), epoch: 3 };
        let mut filter = Filter::new(&map, rules(100));
        filter.set_last_records([(4, last)].into());
        filter.add_aborted(&[aborted(4, 0, 1)]);
        for batch in &mut log {
            if let Filtered::Rebuilt(rebuilt) = filter.apply(batch).expect("can be read") {
                *batch = rebuilt;
            }
        }
        assert_eq!(filter.take_aborted(), [aborted(4, 0, 1)]);
        assert_eq!((log[0].header.record_count, log[1].header.record_count), (0, 1));
        assert_eq!(horizons(&log), [None; 2]);
    }
}

#[test]
fn other_control_records_stay() {
    let log = [control_batch(0, 4, ControlRecordType::Unknown(77))];
    let (same, _) = pass(&log, &[], FilterRules { now_ms: i64::MAX, ..rules(10) });
    assert_eq!(same, log);
}
