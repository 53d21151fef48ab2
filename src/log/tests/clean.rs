//! Rounds of compaction on whole logs.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use parking_lot::Mutex;

use super::*;
use crate::{
    log::{
        DeletedSegment,
        clean::{self, CleanError, CleanOptions, CleanRange, Cleaned, CleanedLog, Pace},
        disk::read_exact_at,
    },
    records::{ControlRecordType, Producer, TimestampType, TransactionVersion, TxnMarker},
};

mod crash;
mod followers;
mod histories;
mod readers;
mod rounds;

/// Runs before the access of a round to the log that has this number.
type Between<'a> = Box<dyn FnMut(u32, &mut Log) + 'a>;

/// A log that a round cleans. Before each access, `between` runs with the number of the access.
struct Shared<'a> {
    log: Mutex<Log>,
    accesses: Cell<u32>,
    between: RefCell<Between<'a>>,
}

impl<'a> Shared<'a> {
    fn new(log: Log) -> Self {
        Self::with(log, |_, _| {})
    }

    fn with(log: Log, between: impl FnMut(u32, &mut Log) + 'a) -> Self {
        let (log, accesses) = (Mutex::new(log), Cell::new(0));
        Self { log, accesses, between: RefCell::new(Box::new(between)) }
    }

    fn into_log(self) -> Log {
        self.log.into_inner()
    }
}

impl CleanedLog for Shared<'_> {
    fn update<R>(&self, change: impl FnOnce(&mut Log) -> R) -> Result<R, CleanError> {
        let mut log = self.log.lock();
        (self.between.borrow_mut())(self.accesses.get(), &mut log);
        self.accesses.set(self.accesses.get() + 1);
        Ok(change(&mut log))
    }
}

/// Collects the segments that a round has replaced.
struct Collected {
    deleted: Vec<DeletedSegment>,
    bytes_left: u64,
    mapped: u32,
}

impl Default for Collected {
    fn default() -> Self {
        Self { deleted: Vec::new(), bytes_left: u64::MAX, mapped: 0 }
    }
}

impl Pace for Collected {
    fn passed(&mut self, bytes: u64) -> ControlFlow<()> {
        assert!(bytes > 0);
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        if self.bytes_left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn mapped(&mut self) {
        self.mapped += 1;
    }

    fn replaced(&mut self, old: Vec<DeletedSegment>) {
        assert!(!old.is_empty());
        self.deleted.extend(old);
    }
}

const RETENTION_MS: i64 = 1000;

fn options(now_ms: i64) -> CleanOptions {
    CleanOptions {
        map_bytes: 1 << 20,
        load_factor: 0.9,
        io_buffer_bytes: 700,
        hash_key: [7; 16],
        now_ms,
        delete_retention_ms: RETENTION_MS,
    }
}

/// The last stable offset if all records are committed.
fn stable_end(log: &Log) -> i64 {
    log.open_transactions().map(|(first, _)| first).min().unwrap_or(log.log_end())
}

/// Everything up to the active segment or the last stable offset, in whole segments.
fn cleanable(log: &Log, first_dirty: i64) -> CleanRange {
    let stable = stable_end(log);
    let view = log.view();
    let bases = view.segments.iter().map(|segment| segment.base_offset);
    let end = bases.filter(|base| *base <= stable).max().expect("has a segment");
    CleanRange { first_dirty, end, generation: log.generation() }
}

fn run(shared: &Shared, first_dirty: i64, now_ms: i64) -> Result<Cleaned, CleanError> {
    let range = cleanable(&shared.log.lock(), first_dirty);
    clean::clean(shared, range, &options(now_ms), &mut Collected::default())
}

/// Runs a round over the whole log, and returns its end offset.
fn clean_all(log: Log, now_ms: i64) -> (Log, i64) {
    let shared = Shared::new(log);
    let cleaned = run(&shared, 0, now_ms).expect("cleans");
    (shared.into_log(), cleaned.end_offset)
}

type Pairs<'a> = &'a [(&'a str, Option<&'a str>)];

fn keyed(options: BatchOptions, records: Pairs) -> Batch {
    let mut builder = BatchBuilder::new(options);
    for (key, value) in records {
        builder.append(NOW, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
    }
    builder.build()
}

fn plain(records: Pairs) -> Batch {
    keyed(BatchOptions::default(), records)
}

fn of(producer_id: i64, base_sequence: i32, records: Pairs) -> Batch {
    let ids = BatchOptions { producer_id, producer_epoch: 0, base_sequence, ..Default::default() };
    keyed(ids, records)
}

fn transactional(producer_id: i64, base_sequence: i32, records: Pairs) -> Batch {
    let ids = BatchOptions { producer_id, producer_epoch: 0, base_sequence, ..Default::default() };
    keyed(BatchOptions { is_transactional: true, ..ids }, records)
}

fn end_of(producer_id: i64, commits: bool) -> Batch {
    let producer = Producer { id: producer_id, epoch: 0 };
    let version = TransactionVersion::V1;
    TxnMarker { producer, commits, coordinator_epoch: 1, version }
        .to_batch(TimestampType::CreateTime, NOW)
}

fn put(log: &mut Log, batch: Batch) -> Batch {
    let mut batches = [batch];
    log.append(&mut batches, 0, NOW).expect("appends");
    let [batch] = batches;
    batch
}

/// A consumer's result: the last value of each key, with its offset. Tombstones remove keys.
type Table = BTreeMap<Vec<u8>, (i64, Vec<u8>)>;

/// Reads the log as a `read_committed` consumer does, in small fetches.
fn committed_table(log: &Log) -> Table {
    let view = log.view();
    let end = stable_end(log);
    let (mut table, mut next) = (Table::new(), log.log_start());
    while next < end {
        let slice = view.read(next, 400, end, true).expect("reads");
        if slice.len == 0 {
            break;
        }
        let mut aborted = view.aborted_transactions(next, &slice).expect("reads");
        aborted.sort_by_key(|txn| txn.first_offset);
        let mut bytes = vec![0; slice.len];
        read_exact_at(&*slice.file, &mut bytes, slice.position).expect("reads");
        next = consume(bytes.into(), &aborted, log.log_start(), &mut table);
    }
    table
}

/// Adds the records of a response to the table, without those of aborted transactions. Returns the
/// offset of the next fetch.
fn consume(
    mut response: bytes::Bytes,
    aborted: &[crate::log::AbortedTxn],
    from: i64,
    table: &mut Table,
) -> i64 {
    let (mut next, mut waiting, mut dropped) = (0, aborted.iter().peekable(), BTreeSet::new());
    while let Ok(batch) = Batch::split_first(&mut response) {
        batch.verify_crc().expect("is sound");
        let header = &batch.header;
        next = header.last_offset() + 1;
        while let Some(txn) = waiting.next_if(|txn| txn.first_offset <= header.last_offset()) {
            dropped.insert(txn.producer_id);
        }
        let mut records = batch.records(1 << 20).expect("decodes").map(|it| it.expect("decodes"));
        if header.is_control() {
            let key = records.next().and_then(|record| record.key);
            if key.is_some_and(|key| {
                ControlRecordType::from_key(&key) == Ok(ControlRecordType::Abort)
            }) {
                dropped.remove(&header.producer_id);
            }
            continue;
        }
        if header.is_transactional() && dropped.contains(&header.producer_id) {
            continue;
        }
        for record in records.filter(|record| record.offset >= from) {
            let Some(key) = record.key else { continue };
            match record.value {
                Some(value) => table.insert(key.to_vec(), (record.offset, value.to_vec())),
                None => table.remove(&key[..]),
            };
        }
    }
    next
}

fn batches_of(log: &Log) -> Vec<Batch> {
    log.view().batches_from(0).map(|batch| batch.expect("is sound")).collect()
}

/// A log of several segments with all kinds of records.
fn write_history(log: &mut Log) {
    let long = "v".repeat(120);
    for round in 0..4 {
        let value = format!("{long}{round}");
        let value = Some(value.as_str());
        put(log, plain(&[("a", value), ("b", value)]));
        put(log, of(1, 2 * round, &[("c", value), ("a", value)]));
        put(log, transactional(2, round, &[("d", value)]));
        put(log, transactional(3, 2 * round, &[("e", value), ("d", value)]));
        put(log, end_of(2, round % 2 == 0));
        put(log, plain(&[("b", None), ("f", value)]));
        put(log, end_of(3, round % 2 == 1));
        put(log, plain(&[("g", if round == 3 { None } else { value })]));
    }
    put(log, of(4, 0, &[("h", Some("1")), ("c", Some("2"))]));
    log.roll(log.log_end(), NOW).expect("rolls");
    put(log, plain(&[("a", Some("active"))]));
}
