//! Random histories of keys and transactions: the mapper and the filter against a model that works
//! record by record.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{
    log::clean::{Filtered, KeyMapper, LastRecord, Mapped},
    log::testing::{bytes_of, sealed},
    records::{BatchHeader, Record, TimestampType},
};

const LIMIT: usize = 1 << 20;
const PRODUCERS: i64 = 3;

/// A step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// Records of a producer; of none if the producer is negative. The records of a producer with
    /// an open transaction belong to it.
    Write {
        producer: i64,
        codec: usize,
        by_log: bool,
        records: Vec<(u8, Option<u8>)>,
    },
    /// The producer begins a transaction with its next records.
    Begin {
        producer: i64,
    },
    End {
        producer: i64,
        commits: bool,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let record = (0..8_u8, proptest::option::weighted(0.7, any::<u8>()));
    let records = proptest::collection::vec(record, 1..6);
    let write = (-1..PRODUCERS, 0..Compression::ALL.len(), any::<bool>(), records).prop_map(
        |(producer, codec, by_log, records)| Step::Write { producer, codec, by_log, records },
    );
    let end = (0..PRODUCERS, any::<bool>())
        .prop_map(|(producer, commits)| Step::End { producer, commits });
    prop_oneof![
        5 => write,
        1 => (0..PRODUCERS).prop_map(|producer| Step::Begin { producer }),
        2 => end,
    ]
}

/// A log and what the model says about it.
#[derive(Debug, Default)]
struct History {
    log: Vec<Batch>,
    index: Vec<AbortedTxn>,
    /// The last data offset of each producer.
    last: HashMap<i64, LastRecord>,
    /// Per producer, the first offset of its open transaction, once it has one.
    open: HashMap<i64, Option<i64>>,
}

impl History {
    fn of(steps: &[Step]) -> Self {
        let mut history = Self::default();
        for step in steps {
            history.take(step);
        }
        for producer in 0..PRODUCERS {
            history.take(&Step::End { producer, commits: true });
        }
        history
    }

    fn end(&self) -> i64 {
        self.log.last().map_or(0, |batch| batch.header.last_offset() + 1)
    }

    fn take(&mut self, step: &Step) {
        let base_offset = self.end();
        match step {
            Step::Begin { producer } => {
                self.open.entry(*producer).or_insert(None);
            }
            Step::End { producer, commits } => {
                let Some(first) = self.open.remove(producer) else { return };
                self.last
                    .entry(*producer)
                    .or_insert(LastRecord { last_data_offset: None, epoch: 3 });
                if *commits {
                    self.log.push(commit(base_offset, *producer));
                    return;
                }
                self.log.push(abort(base_offset, *producer));
                self.index.extend(first.map(|first| aborted(*producer, first, base_offset)));
            }
            Step::Write { producer, codec, by_log, records } => {
                let open = self.open.get_mut(producer);
                let is_transactional = open.is_some();
                if let Some(first) = open {
                    first.get_or_insert(base_offset);
                }
                let options = match producer {
                    -1 => BatchOptions { base_offset, ..BatchOptions::default() },
                    id => BatchOptions { is_transactional, ..of_producer(base_offset, *id) },
                };
                let batch = write(options, Compression::ALL[*codec], *by_log, records);
                let last_data_offset = Some(batch.header.last_offset());
                if *producer >= 0 {
                    self.last.insert(*producer, LastRecord { last_data_offset, epoch: 3 });
                }
                self.log.push(batch);
            }
        }
    }

    /// The aborted transactions that overlap the offsets from `from` to before `end`.
    fn aborted(&self, from: i64, end: i64) -> Vec<AbortedTxn> {
        let overlaps = |txn: &&AbortedTxn| txn.last_offset >= from && txn.first_offset < end;
        self.index.iter().filter(overlaps).copied().collect()
    }

    /// The batch is one of an aborted transaction.
    fn is_aborted(&self, header: &BatchHeader) -> bool {
        header.is_transactional()
            && !header.is_control()
            && self.index.iter().any(|txn| {
                txn.producer_id == header.producer_id
                    && (txn.first_offset..txn.last_offset).contains(&header.base_offset)
            })
    }

    /// The last committed offset of each key in a range.
    fn last_offsets(&self, range: std::ops::Range<i64>) -> HashMap<Vec<u8>, i64> {
        let mut last = HashMap::new();
        for batch in self.log.iter().filter(|batch| !batch.header.is_control()) {
            if self.is_aborted(&batch.header) {
                continue;
            }
            for record in read(batch).into_iter().filter(|record| range.contains(&record.offset)) {
                last.extend(record.key.map(|key| (key.to_vec(), record.offset)));
            }
        }
        last
    }
}

/// A batch with these keys and values. The key 7 stands for none.
fn write(
    options: BatchOptions,
    compression: Compression,
    by_log: bool,
    records: &[(u8, Option<u8>)],
) -> Batch {
    let timestamp_type =
        if by_log { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
    let base_offset = options.base_offset;
    let options = BatchOptions {
        compression,
        timestamp_type,
        log_append_time: 5000 + base_offset,
        ..options
    };
    let mut builder = BatchBuilder::new(options);
    for (timestamp, (key, value)) in (1000 - base_offset..).zip(records) {
        let header: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(&[*key])), (b"h", None)];
        let headers = &header[..usize::from(key % 3)];
        let (key, value) = ([*key], value.map(|value| [value]));
        let key = Some(&key[..usize::from(key[0] % 6 != 0)]).filter(|_| key[0] != 7);
        builder.append(timestamp, key, value.as_ref().map(|value| &value[..]), headers);
    }
    builder.build()
}

fn read(batch: &Batch) -> Vec<Record> {
    let records = batch.records(LIMIT).expect("can be read");
    records.map(|record| record.expect("can be read")).collect()
}

/// Filters a log after a round has mapped its keys. Checks that what the mapper tells the filter
/// makes no difference.
fn filter_mapped(
    history: &History,
    mapped: &Mapped,
    rules: FilterRules,
) -> (Vec<Batch>, Vec<AbortedTxn>) {
    let mut filter = Filter::new(&mapped.map, rules);
    filter.set_survivors(&mapped.survivors);
    let filtered = filter_with(filter, history);
    assert_eq!(filtered, filter_log(history, &mapped.map, rules));
    filtered
}

/// Filters a log. Also returns the entries of its transaction index.
fn filter_log(
    history: &History,
    map: &OffsetMap,
    rules: FilterRules,
) -> (Vec<Batch>, Vec<AbortedTxn>) {
    filter_with(Filter::new(map, rules), history)
}

fn filter_with(mut filter: Filter, history: &History) -> (Vec<Batch>, Vec<AbortedTxn>) {
    filter.set_last_records(history.last.clone());
    filter.add_aborted(&history.aborted(0, i64::MAX));
    let mut remaining = Vec::new();
    for batch in &history.log {
        match filter.apply(batch).expect("can be read") {
            Filtered::Dropped => {}
            Filtered::AsIs => remaining.push(batch.clone()),
            Filtered::Rebuilt(rebuilt) => {
                assert_ne!(&rebuilt, batch, "a batch without changes is not rebuilt");
                remaining.push(rebuilt);
            }
        }
    }
    let entries = filter.take_aborted();
    let (bytes, count) = (
        remaining.iter().map(Batch::size).sum::<usize>() as u64,
        remaining.iter().map(|batch| batch.header.record_count as u64).sum::<u64>(),
    );
    assert_eq!((filter.stats().bytes_kept, filter.stats().messages_kept), (bytes, count));
    (remaining, entries)
}

/// Maps the dirty part of a log.
fn map_log(history: &History, first_dirty: i64, room: usize) -> Mapped {
    let map = OffsetMap::new(24 * (room + 1), 1.0, [5; 16]);
    let mut mapper = KeyMapper::new(map, first_dirty..history.end());
    mapper.add_aborted(&history.aborted(first_dirty, history.end()));
    for batch in &history.log {
        if !mapper.add(batch).expect("can be read") {
            break;
        }
    }
    mapper.finish()
}

/// Checks that the records of a batch are those of the model, with everything that must stay.
fn check_batch(
    history: &History,
    last: &HashMap<Vec<u8>, i64>,
    rules: &FilterRules,
    old: &Batch,
    new: Option<&Batch>,
) -> Result<(), TestCaseError> {
    let header = &old.header;
    if header.base_offset >= rules.end_offset {
        prop_assert_eq!(new.map(bytes_of), Some(bytes_of(old)));
        return Ok(());
    }
    let horizon = header.delete_horizon();
    let has_expired = horizon.is_some_and(|horizon| horizon <= rules.now_ms);
    let stays = |record: &Record| {
        if header.is_control() || record.offset >= rules.end_offset {
            return true;
        }
        let Some(key) = &record.key else { return false };
        let is_last = last.get(&key[..]).is_none_or(|last| record.offset >= *last);
        is_last && !history.is_aborted(header) && !(record.value.is_none() && has_expired)
    };
    let expected: Vec<Record> = read(old).into_iter().filter(stays).collect();
    let found = new.map_or(vec![], read);
    // Markers are the subject of the transaction tests.
    if !header.is_control() {
        prop_assert_eq!(&found, &expected);
    }
    let Some(new) = new else { return Ok(()) };
    prop_assert_eq!(new.verify_crc(), Ok(()));
    prop_assert_eq!(new.header.size(), new.size());
    prop_assert_eq!(new.header.record_count as usize, found.len());
    let fixed = |header: &BatchHeader| {
        let offsets = (header.base_offset, header.last_offset(), header.leader_epoch);
        let producer = (header.producer_id, header.producer_epoch, header.base_sequence);
        let kind = (header.is_control(), header.is_transactional(), header.timestamp_type());
        (offsets, producer, kind)
    };
    prop_assert_eq!(fixed(&new.header), fixed(header));
    if !found.is_empty() {
        prop_assert_eq!(new.header.compression(), header.compression());
        let max = found.iter().map(|record| record.timestamp).max();
        prop_assert_eq!(Some(new.header.max_timestamp), max);
        let is_tombstone =
            !header.is_control() && found.iter().any(|record| record.value.is_none());
        if is_tombstone {
            let new_horizon = horizon.unwrap_or(rules.now_ms + RETENTION);
            prop_assert_eq!(new.header.delete_horizon(), Some(new_horizon));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn rounds_keep_what_the_model_keeps(
        steps in proptest::collection::vec(any_step(), 1..40),
        rooms in proptest::collection::vec(1..12_usize, 1..6),
        waits in proptest::collection::vec(0..RETENTION, 6),
    ) {
        let mut history = History::of(&steps);
        let (mut first_dirty, mut now_ms) = (0, NOW);
        let range_end = history.end();
        for (room, wait) in rooms.into_iter().zip(waits) {
            let mapped = map_log(&history, first_dirty, room);
            let end_offset = mapped.end_offset;
            prop_assert!(end_offset > first_dirty || first_dirty == range_end);
            let last = history.last_offsets(first_dirty..end_offset);
            let rules = FilterRules { end_offset, range_end, now_ms, delete_retention_ms: RETENTION };
            let (remaining, entries) = filter_mapped(&history, &mapped, rules);
            for old in &history.log {
                let base_offset = old.header.base_offset;
                let new = remaining.iter().find(|new| new.header.base_offset == base_offset);
                check_batch(&history, &last, &rules, old, new)?;
            }
            check_transactions(&history, &remaining, &entries)?;
            let newest = remaining.last().map(|batch| batch.header.last_offset());
            prop_assert_eq!(newest.unwrap_or(-1), range_end - 1);
            (history.log, history.index) = (remaining, entries);
            (first_dirty, now_ms) = (end_offset, now_ms + wait);
        }
        // Without new data, one round removes aborted data, the next one sets the horizon of its
        // markers, and then nothing changes.
        let mapped = map_log(&history, 0, 100);
        let rules =
            FilterRules { end_offset: range_end, range_end, now_ms, delete_retention_ms: RETENTION };
        for _ in 0..2 {
            (history.log, history.index) = filter_mapped(&history, &mapped, rules);
        }
        prop_assert_eq!(&filter_mapped(&history, &mapped, rules).0, &history.log);
        let empty = OffsetMap::new(0, 0.9, [0; 16]);
        prop_assert_eq!(&filter_log(&history, &empty, rules).0, &history.log);
    }

    #[test]
    fn damaged_batches_cause_no_panic(
        step in any_step(),
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
        attributes: Option<i16>,
        count in proptest::option::of(any::<i32>()),
        base_offset in prop_oneof![Just(0), any::<i64>()],
        delta in prop_oneof![Just(5), any::<i32>()],
    ) {
        let mut history = History::default();
        history.take(&Step::Begin { producer: 1 });
        history.take(&step);
        history.take(&Step::End { producer: 1, commits: false });
        let map = map_of(&[("", 900), ("\u{1}", 3)]);
        for batch in &history.log {
            let mut payload = batch.payload.to_vec();
            for (at, byte) in &damage {
                let at = usize::from(*at) % payload.len();
                payload[at] = *byte;
            }
            let mut batch = Batch { payload: payload.into(), ..batch.clone() };
            batch.header.attributes = attributes.unwrap_or(batch.header.attributes);
            batch.header.record_count = count.unwrap_or(batch.header.record_count);
            (batch.header.base_offset, batch.header.last_offset_delta) = (base_offset, delta);
            let batch = sealed(batch);
            let mut mapper = KeyMapper::new(map_of(&[]), 0..i64::MAX);
            let mapped = mapper.add(&batch);
            let filtered = Filter::new(&map, rules(i64::MAX - 2000)).apply(&batch);
            // The filter can read what the mapper could read. It reads control batches completely.
            let is_control = batch.header.is_control();
            prop_assert!(is_control || mapped.is_err() || filtered.is_ok(), "{filtered:?}");
            if let Ok(Filtered::Rebuilt(rebuilt)) = filtered {
                prop_assert_eq!(rebuilt.verify_crc(), Ok(()));
                let mut again = KeyMapper::new(map_of(&[]), 0..i64::MAX);
                prop_assert!(again.add(&rebuilt).is_ok(), "{batch:?} {rebuilt:?}");
            }
        }
    }
}

/// Checks which markers stay, and that the index has the aborted transactions whose data was there.
fn check_transactions(
    history: &History,
    remaining: &[Batch],
    entries: &[AbortedTxn],
) -> Result<(), TestCaseError> {
    let has_data = |txn: &AbortedTxn| {
        history.log.iter().any(|batch| {
            let header = &batch.header;
            let offsets = txn.first_offset..txn.last_offset;
            history.is_aborted(header)
                && header.producer_id == txn.producer_id
                && offsets.contains(&header.base_offset)
        })
    };
    let expected: Vec<AbortedTxn> =
        history.index.iter().filter(|txn| has_data(txn)).copied().collect();
    prop_assert_eq!(entries, expected);
    for txn in entries {
        let is_marker = |batch: &&Batch| batch.header.base_offset == txn.last_offset;
        let marker = remaining.iter().find(is_marker);
        prop_assert!(marker.is_some_and(|marker| marker.header.record_count == 1), "{txn:?}");
    }
    // The records of a committed transaction always have their marker.
    for batch in remaining.iter().filter(|batch| {
        let header = &batch.header;
        header.is_transactional() && !header.is_control() && header.record_count > 0
    }) {
        let header = &batch.header;
        let ends = |marker: &&Batch| {
            let other = &marker.header;
            other.is_control()
                && other.producer_id == header.producer_id
                && other.base_offset > header.base_offset
        };
        let marker = remaining.iter().find(ends);
        prop_assert!(marker.is_some_and(|marker| marker.header.record_count == 1), "{batch:?}");
    }
    Ok(())
}
