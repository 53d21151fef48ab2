//! Tests of what the mapper tells the filter about whole batches.

use super::{keys::batch_beyond_the_limit, *};
use crate::{
    log::clean::{Filtered, KeyMapper, Mapped, Survivors},
    log::testing::sealed,
};

fn mapped(range: std::ops::Range<i64>, batches: &[&Batch]) -> Mapped {
    let mut mapper = KeyMapper::new(OffsetMap::new(1 << 16, 0.9, [7; 16]), range);
    mapper.add_aborted(&[aborted(4, 0, 40)]);
    for batch in batches {
        assert_eq!(mapper.add(batch), Ok(true));
    }
    mapper.finish()
}

/// Whether the filter may drop the batch without reading it.
fn is_superseded(mapped: &Mapped, batch: &Batch) -> bool {
    !mapped.survivors.has_any(batch.header.base_offset, batch.header.last_offset())
}

#[test]
fn only_batches_without_a_last_record_are_superseded() {
    let (old, mixed) = (batch(10, &[("a", "1"), ("b", "1")]), batch(20, &[("a", "2"), ("c", "1")]));
    let new = batch(30, &[("b", "2"), ("a", "3")]);
    let mapped = mapped(10..32, &[&old, &mixed, &new]);
    let found = [&old, &mixed, &new].map(|batch| is_superseded(&mapped, batch));
    assert_eq!(found, [true, false, false]);
}

/// Keys in a superseded batch were read by the mapper, so the filter does not read them again.
#[test]
fn records_of_superseded_batches_are_not_read_again() {
    let (old, new) = (batch(10, &[("a", "1")]), batch(20, &[("a", "2")]));
    let mapped = mapped(10..21, &[&old, &new]);
    let damaged = sealed(Batch { payload: vec![0xff; old.payload.len()].into(), ..old });
    let mut filter = Filter::new(&mapped.map, rules(21));
    filter.set_survivors(&mapped.survivors);
    assert_eq!(filter.apply(&damaged), Ok(Filtered::Dropped));
    assert_eq!(filter.stats().messages_read, 1);
    let mut reading = Filter::new(&mapped.map, rules(21));
    assert!(reading.apply(&damaged).is_err());
}

/// What the map does not have, the filter must look at.
#[test]
fn batches_with_records_that_are_not_in_the_map_are_not_superseded() {
    let last = batch(50, &[("a", "9")]);
    let of_aborted = in_transaction(10, 4, &["a"]);
    let keyless = batch_with(
        BatchOptions { base_offset: 12, ..BatchOptions::default() },
        &[(None, Some("v")), (Some("a"), Some("v"))],
    );
    let huge = batch_beyond_the_limit(15);
    let mut beyond_its_offsets = batch(20, &[("a", "1")]);
    let mut payload = beyond_its_offsets.payload.to_vec();
    payload[3] = 30 << 1;
    beyond_its_offsets.payload = payload.into();
    let beyond_its_offsets = sealed(beyond_its_offsets);
    for batch in [of_aborted, keyless, huge, beyond_its_offsets] {
        let mapped = mapped(10..51, &[&batch, &last]);
        assert!(!is_superseded(&mapped, &batch), "{batch:?}");
    }
    let dirty = batch(9, &[("a", "1"), ("a", "2")]);
    assert!(
        !is_superseded(&mapped(10..51, &[&dirty, &last]), &dirty),
        "it begins before the range"
    );
}

#[test]
fn no_batch_of_a_log_without_order_is_superseded() {
    let (first, second) = (batch(20, &[("a", "1")]), batch(10, &[("a", "2")]));
    let mapped = mapped(0..50, &[&first, &second]);
    assert!(!is_superseded(&mapped, &first));
}

/// A batch that has the end of the round is only mapped up to there.
#[test]
fn batch_at_the_end_of_the_round_is_not_superseded() {
    let mut mapper = KeyMapper::new(OffsetMap::new(24 * 2, 1.0, [7; 16]), 0..100);
    let end = batch(10, &[("a", "1"), ("b", "1")]);
    assert_eq!(mapper.add(&batch(0, &[("a", "1")])), Ok(true));
    assert_eq!(mapper.add(&end), Ok(false));
    let mapped = mapper.finish();
    assert_eq!(mapped.end_offset, 11);
    assert!(mapped.survivors.has_any(11, 11) && mapped.survivors.has_any(99, 99));
}

#[test]
fn large_ranges_share_bits() {
    let (start, end) = (1_i64 << 40, (1 << 40) + (1 << 34));
    let mut survivors = Survivors::new(start..end);
    survivors.mark(end - 1, end - 1);
    survivors.mark(start - 5, start + 10);
    for (first, last, expected) in [
        (start, start, true),
        (start + 10, start + 10, true),
        (start + 11, start + 20, true),
        (start + 5000, start + 9000, false),
        (end - 9000, end - 5000, false),
        (end - 9000, end - 1, true),
        (start - 1, start - 1, true),
        (end, end, true),
        (start + 9000, start + 5000, true),
    ] {
        assert_eq!(survivors.has_any(first, last), expected, "{first} to {last}");
    }
}

#[test]
fn ranges_at_the_ends_of_the_numbers_are_no_problem() {
    let (min, max) = (i64::MIN, i64::MAX);
    for (start, end) in [(0, 0), (min, max), (max, min), (min, min), (5, 3)] {
        let range = start..end;
        let mut survivors = Survivors::new(range.clone());
        for offset in [i64::MIN, -1, 0, i64::MAX] {
            survivors.mark(offset, offset);
            survivors.mark(i64::MIN, offset);
            assert!(survivors.has_any(offset, offset), "{range:?} {offset}");
        }
    }
}
