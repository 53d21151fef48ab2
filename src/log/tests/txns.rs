//! Transactions in a log: compares the transaction index with a plain list through random steps,
//! stops, crashes and damaged files, and checks what readers get.

use proptest::prelude::*;

use super::*;
use crate::{
    log::{AbortedTxn, Disk, disk::OpenMode, index::Entry, names::Kind},
    records::{Compression, ControlRecordType, TimestampType, control::EndTxnMarker},
};

fn in_transaction(mut batch: Batch, producer_id: i64) -> Batch {
    batch.header.attributes |= 1 << 4;
    of_producer(batch, producer_id, 0, NO_SEQUENCE)
}

/// A batch of the transaction coordinator that ends a producer's transaction.
fn marker(base_offset: i64, producer_id: i64, kind: ControlRecordType) -> Batch {
    let value = EndTxnMarker { coordinator_epoch: 3 }.to_value();
    control(base_offset, producer_id, (&kind.to_key(), &value))
}

fn control(base_offset: i64, producer_id: i64, (key, value): (&[u8], &[u8])) -> Batch {
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset,
        leader_epoch: 0,
        producer_id,
        producer_epoch: 0,
        base_sequence: NO_SEQUENCE,
        compression: Compression::None,
        timestamp_type: TimestampType::CreateTime,
        is_transactional: true,
        is_control: true,
        ..BatchOptions::default()
    });
    builder.append(NOW, Some(key), Some(value), &[]);
    builder.build()
}

/// The aborted transactions of a log, computed from its batches alone.
fn aborted_of(batches: &[Batch]) -> Vec<AbortedTxn> {
    let mut open: Vec<(i64, i64)> = Vec::new();
    let mut aborted = Vec::new();
    for batch in batches.iter().filter(|batch| batch.header.is_transactional()) {
        let header = &batch.header;
        let at = open.iter().position(|(producer_id, _)| *producer_id == header.producer_id);
        match (header.is_control(), at) {
            (false, None) => open.push((header.producer_id, header.base_offset)),
            (true, Some(at)) => {
                let (producer_id, first_offset) = open.remove(at);
                let last_offset = header.base_offset;
                let last_stable_offset = open.first().map_or(last_offset + 1, |open| open.1);
                if is_abort(batch) {
                    let ended =
                        AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset };
                    aborted.push(ended);
                }
            }
            _ => {}
        }
    }
    aborted
}

fn is_abort(batch: &Batch) -> bool {
    let record = batch.records(1000).expect("decodes").next().expect("has a record");
    let key = record.expect("decodes").key.expect("has a key");
    ControlRecordType::from_key(&key) == Ok(ControlRecordType::Abort)
}

/// The last stable offset, computed from the batches alone.
fn last_stable_of(batches: &[Batch], high_watermark: i64) -> i64 {
    let mut unstable = Vec::new();
    for batch in batches.iter().filter(|batch| batch.header.is_transactional()) {
        let header = &batch.header;
        let is_open = unstable.iter().any(|(id, _)| *id == header.producer_id);
        match header.is_control() {
            true if header.base_offset < high_watermark => {
                unstable.retain(|(id, _)| *id != header.producer_id);
            }
            // Its producer's later transactions come after this one.
            true => {}
            false if !is_open => unstable.push((header.producer_id, header.base_offset)),
            false => {}
        }
    }
    unstable.iter().map(|(_, first)| *first).chain([high_watermark]).min().expect("is not empty")
}

/// The open transactions, computed from the batches alone.
fn open_of(batches: &[Batch]) -> Vec<(i64, i64)> {
    let mut open: Vec<(i64, i64)> = Vec::new();
    for batch in batches.iter().filter(|batch| batch.header.is_transactional()) {
        let (id, first) = (batch.header.producer_id, batch.header.base_offset);
        match batch.header.is_control() {
            true => open.retain(|(_, other)| *other != id),
            false if open.iter().all(|(_, other)| *other != id) => open.push((first, id)),
            false => {}
        }
    }
    open
}

fn index_path(base_offset: i64, kind: Kind) -> std::path::PathBuf {
    super::super::names::file(Path::new(DIR), base_offset, kind)
}

/// The entries of all index files, in their order.
fn stored(disk: &FaultyDisk, log: &Log) -> Vec<AbortedTxn> {
    let bytes = |segment: &Arc<super::super::segment::Segment>| {
        let path = index_path(segment.base_offset, Kind::TxnIndex);
        super::super::disk::read_file(disk, &path).unwrap_or_default()
    };
    let all: Vec<u8> = log.view().segments.iter().flat_map(bytes).collect();
    all.chunks(AbortedTxn::LEN).map(|entry| AbortedTxn::decode(entry, 0)).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Write { producer_id: i64, size: usize },
    Plain { size: usize },
    End { producer_id: i64, commits: bool },
    Roll,
    Flush,
    Settle,
    Truncate { back: usize },
    CleanStop,
    Kill,
    PowerLoss,
    FullDisk,
    Damage { segment: usize, at: usize, then_clean: bool },
    LoseIndexes { segment: usize, then_clean: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4i64, 0..400usize).prop_map(|(producer_id, size)| Step::Write { producer_id, size }),
        2 => (0..400usize).prop_map(|size| Step::Plain { size }),
        8 => (0..4i64, any::<bool>())
            .prop_map(|(producer_id, commits)| Step::End { producer_id, commits }),
        1 => Just(Step::Roll),
        1 => Just(Step::Flush),
        1 => Just(Step::Settle),
        1 => (0..6usize).prop_map(|back| Step::Truncate { back }),
        1 => Just(Step::CleanStop),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerLoss),
        1 => Just(Step::FullDisk),
        1 => (0..9usize, 0..200usize, any::<bool>())
            .prop_map(|(segment, at, then_clean)| Step::Damage { segment, at, then_clean }),
        1 => (0..9usize, any::<bool>())
            .prop_map(|(segment, then_clean)| Step::LoseIndexes { segment, then_clean }),
    ]
}

struct Model {
    disk: FaultyDisk,
    log: Log,
    batches: Vec<Batch>,
    flushed: i64,
}

impl Model {
    fn new() -> Self {
        let disk = FaultyDisk::default();
        let (log, _) = open(&disk, small(), start(true, 0));
        Self { disk, log, batches: Vec::new(), flushed: 0 }
    }

    fn append(&mut self, batch: Batch) {
        let mut batches = [batch];
        self.log.append(&mut batches, 0, NOW).expect("appends");
        self.batches.extend(batches);
    }

    fn run(&mut self, step: Step) {
        let end = self.log.log_end();
        match step {
            Step::Write { producer_id, size } => {
                self.append(in_transaction(batch(end, 2, size), producer_id));
            }
            Step::Plain { size } => self.append(batch(end, 1, size)),
            Step::End { producer_id, commits: true } => {
                self.append(marker(end, producer_id, ControlRecordType::Commit));
            }
            Step::End { producer_id, commits: false } => {
                self.append(marker(end, producer_id, ControlRecordType::Abort));
            }
            Step::Roll => drop(self.log.roll_if_due(NOW * 1_000_000).expect("rolls")),
            Step::Flush => {
                self.log.flush().expect("flushes");
                self.flushed = end;
            }
            Step::Settle => self.log.settle(),
            Step::Truncate { back } => {
                let kept = self.batches.len().saturating_sub(back);
                let offset = self.batches.get(kept).map_or(end, |batch| batch.header.base_offset);
                self.log.truncate_to(offset, 0).expect("cuts");
                // Otherwise, what was durable before the truncation would come back.
                self.log.flush().expect("flushes");
                self.batches.truncate(kept);
                self.flushed = self.log.log_end();
            }
            Step::CleanStop => self.reopen(true, Crash::LoseUnsynced),
            Step::Kill => self.reopen(false, Crash::Process),
            Step::PowerLoss => self.reopen(false, Crash::LoseUnsynced),
            Step::FullDisk => {
                // Simulates a full disk on which the log's last block has room, but the index file
                // needs a new block.
                self.append(in_transaction(batch(end, 1, 10), 9));
                let ends = marker(self.log.log_end(), 9, ControlRecordType::Abort);
                self.disk.set_room(Some(ends.size() as u64 + 10));
                let mut ends = [ends];
                // A roll needs more room, so that nothing is appended.
                if self.log.append(&mut ends, 0, NOW).is_ok() {
                    self.batches.extend(ends);
                }
                self.check_readers();
                self.disk.set_room(None);
                self.log.settle();
            }
            Step::Damage { segment, at, then_clean } => {
                let path = self.index_of(segment, Kind::TxnIndex);
                self.reopen_after(then_clean, Crash::Process, |disk| {
                    // The version at the start of an entry.
                    let at = at as u64 / 34 * 34;
                    if at < disk.len(&path).unwrap_or(0) {
                        disk.flip(&path, at, 0xff);
                    }
                });
            }
            Step::LoseIndexes { segment, then_clean } => {
                let kinds = [Kind::Index, Kind::TimeIndex, Kind::TxnIndex];
                let paths = kinds.map(|kind| self.index_of(segment, kind));
                self.reopen_after(then_clean, Crash::Process, |disk| {
                    paths.iter().for_each(|path| drop(disk.remove_file(path)));
                });
            }
        }
        self.check();
    }

    fn index_of(&self, segment: usize, kind: Kind) -> std::path::PathBuf {
        let segments = self.log.view().segments;
        index_path(segments[segment % segments.len()].base_offset, kind)
    }

    fn reopen(&mut self, clean: bool, crash: Crash) {
        self.reopen_after(clean, crash, |_| {});
    }

    fn reopen_after(&mut self, clean: bool, crash: Crash, damage: impl Fn(&FaultyDisk)) {
        let recovery_point = match clean {
            true => self.log.close().expect("closes"),
            false => self.log.recovery_point(),
        };
        self.disk = self.disk.crash(crash);
        damage(&self.disk);
        let settled = match crash {
            Crash::Process => self.log.view().settled(),
            _ => 0,
        };
        let start = LogStart { settled, ..start(clean, recovery_point) };
        self.log = open(&self.disk, small(), start).0;
        let end = self.log.log_end();
        assert!(end >= self.flushed, "{end} {}", self.flushed);
        // The names of later segments may be durable although the content of an earlier one is
        // lost.
        let view = self.log.view();
        let left: Vec<Batch> = view.batches_from(0).map(|batch| batch.expect("is sound")).collect();
        self.batches.retain(|batch| left.contains(batch));
    }

    fn check(&self) {
        assert_eq!(stored(&self.disk, &self.log), aborted_of(&self.batches));
        self.check_readers();
    }

    /// A reader gets all transactions that overlap its slice, and none that end before it.
    fn check_readers(&self) {
        let (view, aborted) = (self.log.view(), aborted_of(&self.batches));
        for (at, batch) in self.batches.iter().enumerate() {
            let offset = batch.header.base_offset;
            let slice = view.read(offset, 400, view.log_end(), true).expect("reads");
            let mut len = 0;
            let read = self.batches[at..].iter().take_while(|batch| {
                len += batch.size();
                len <= slice.len
            });
            let end = read.last().expect("is whole").header.last_offset() + 1;
            let found = view.aborted_transactions(offset, &slice).expect("reads");
            let must = |txn: &&AbortedTxn| txn.last_offset >= offset && txn.first_offset < end;
            assert!(
                aborted.iter().filter(must).all(|txn| found.contains(txn)),
                "{offset} {found:?}"
            );
            let may = |txn: &AbortedTxn| txn.last_offset >= offset && aborted.contains(txn);
            assert!(found.iter().all(may), "{offset} {found:?}");
            assert!(found.is_sorted_by_key(|txn| txn.last_offset), "{found:?}");
        }
    }
}

#[derive(Debug, Clone)]
enum ReplicaStep {
    Write(i64),
    Plain,
    End { producer_id: i64, commits: bool },
    RaiseHighWatermark(i64),
    Roll,
    Truncate(i64),
    Restart { clean: bool },
}

fn replica_step() -> impl Strategy<Value = ReplicaStep> {
    prop_oneof![
        6 => (0..4i64).prop_map(ReplicaStep::Write),
        1 => Just(ReplicaStep::Plain),
        6 => (0..4i64, any::<bool>())
            .prop_map(|(producer_id, commits)| ReplicaStep::End { producer_id, commits }),
        4 => (0..6i64).prop_map(ReplicaStep::RaiseHighWatermark),
        1 => Just(ReplicaStep::Roll),
        2 => (0..8i64).prop_map(ReplicaStep::Truncate),
        1 => any::<bool>().prop_map(|clean| ReplicaStep::Restart { clean }),
    ]
}

/// A log with a high watermark.
struct Replica {
    model: Model,
    high_watermark: i64,
}

impl Replica {
    fn new() -> Self {
        Self { model: Model::new(), high_watermark: 0 }
    }

    fn run(&mut self, step: ReplicaStep) {
        let model = &mut self.model;
        let end = model.log.log_end();
        match step {
            ReplicaStep::Write(id) => model.append(in_transaction(batch(end, 1, 60), id)),
            ReplicaStep::Plain => model.append(batch(end, 1, 60)),
            ReplicaStep::End { producer_id, commits } => {
                let kind = match commits {
                    true => ControlRecordType::Commit,
                    false => ControlRecordType::Abort,
                };
                model.append(marker(end, producer_id, kind));
            }
            ReplicaStep::RaiseHighWatermark(by) => {
                self.high_watermark = end.min(self.high_watermark + by);
            }
            ReplicaStep::Roll => drop(model.log.roll_if_due(NOW * 1_000_000).expect("rolls")),
            ReplicaStep::Truncate(back) => {
                let offset = self.high_watermark.max(end - back);
                model.log.truncate_to(offset, self.high_watermark).expect("truncates");
                model.batches.retain(|batch| batch.header.base_offset < offset);
            }
            // The snapshot of a stop does not have markers above the high watermark.
            ReplicaStep::Restart { clean } => {
                self.high_watermark = end;
                model.reopen(clean, Crash::Process);
            }
        }
        self.model.log.note_high_watermark(self.high_watermark);
        self.check();
    }

    fn check(&self) {
        let Model { disk, log, batches, .. } = &self.model;
        let first_unstable = log.first_unstable_offset().unwrap_or(i64::MAX);
        let last_stable = self.high_watermark.min(first_unstable);
        assert_eq!(last_stable, last_stable_of(batches, self.high_watermark));
        assert_eq!(log.open_transactions().collect::<Vec<_>>(), open_of(batches));
        assert_eq!(stored(disk, log), aborted_of(batches));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn transaction_indexes_are_those_of_the_batches(steps in prop::collection::vec(step(), 1..50)) {
        let mut model = Model::new();
        for step in steps {
            model.run(step);
        }
    }

    #[test]
    fn stable_offsets_are_those_of_the_batches(
        steps in prop::collection::vec(replica_step(), 1..60),
    ) {
        let mut replica = Replica::new();
        for step in steps {
            replica.run(step);
        }
    }
}

/// The list of a slice in the first segment has entries from all segments that its transactions
/// span.
#[test]
fn aborted_list_spans_segments() {
    let disk = FaultyDisk::default();
    let config = LogConfig { segment_bytes: 300, ..small() };
    let (mut log, _) = open(&disk, config.clone(), start(true, 0));
    for producer_id in 0..5 {
        let end = log.log_end();
        log.append(&mut [in_transaction(batch(end, 1, 100), producer_id)], 0, NOW)
            .expect("appends");
    }
    for producer_id in (0..5).rev() {
        append(&mut log, 1, 200);
        let end = log.log_end();
        log.append(&mut [marker(end, producer_id, ControlRecordType::Abort)], 0, NOW)
            .expect("appends");
    }
    let view = log.view();
    assert!(view.segment_count() > 5, "{}", view.segment_count());
    let slice = view.read(0, 1, view.log_end(), true).expect("reads");
    let found = view.aborted_transactions(0, &slice).expect("reads");
    assert!(found.iter().any(|txn| txn.producer_id == 0 && txn.first_offset == 0));
    let slice = view.read(4, 1, view.log_end(), true).expect("reads");
    let found = view.aborted_transactions(4, &slice).expect("reads");
    let ids: Vec<i64> = found.iter().map(|txn| txn.producer_id).collect();
    assert_eq!(ids, [4, 3, 2, 1, 0], "in the order of the markers");
    // A reader with deleted segments in its view still gets their lists.
    log.set_config(Arc::new(LogConfig { retention_bytes: 0, ..config }));
    let deleted = log.apply_retention(NOW, log.log_end(), usize::MAX).expect("runs");
    assert!(deleted.len() > 5);
    let is_txn_index = |path: &std::path::PathBuf| path.to_string_lossy().contains(".txnindex");
    let left: Vec<_> = disk.paths().into_iter().filter(is_txn_index).collect();
    assert!(left.iter().all(|path| path.extension().is_some_and(|it| it == "deleted")), "{left:?}");
    assert_eq!(view.aborted_transactions(4, &slice).expect("reads"), found);
    // New segments of the same names have other lists.
    log.truncate_fully_and_start_at(0, NOW).expect("starts again");
    for producer_id in 10..20 {
        let end = log.log_end();
        log.append(&mut [in_transaction(batch(end, 1, 100), producer_id)], 0, NOW)
            .expect("appends");
        log.append(&mut [marker(end + 1, producer_id, ControlRecordType::Abort)], 0, NOW)
            .expect("appends");
    }
    assert_eq!(view.aborted_transactions(4, &slice).expect("reads"), found);
    deleted.into_iter().for_each(|segment| segment.remove().expect("removes"));
    assert!(view.aborted_transactions(4, &slice).is_err());
}

/// Apache Kafka 4.3.1 wrote this entry.
#[test]
fn entries_are_kafkas() {
    let entry =
        AbortedTxn { producer_id: 1, first_offset: 11, last_offset: 21, last_stable_offset: 22 };
    let mut bytes = Vec::new();
    entry.encode(&mut bytes, 0);
    let fields: Vec<u8> = [1i64, 11, 21, 22].iter().flat_map(|it| it.to_be_bytes()).collect();
    assert_eq!(bytes, [&[0, 0][..], &fields].concat());
    assert_eq!(AbortedTxn::decode(&bytes, 0), entry);
}

/// If the disk accepts a batch but not its index entry, neither the recovery point nor a clean stop
/// may pass the marker. A start after a crash restores the entry.
#[test]
fn unwritten_entry_holds_the_recovery_point() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    log.append(&mut [in_transaction(batch(0, 1, 10), 7)], 0, NOW).expect("appends");
    let ends = marker(1, 7, ControlRecordType::Abort);
    disk.set_room(Some(ends.size() as u64 + 10));
    log.append(&mut [ends], 0, NOW).expect("appends");
    assert_eq!(disk.len(&index_path(0, Kind::TxnIndex)).unwrap_or(0) / 34, 0, "has no entry");
    log.settle();
    assert_eq!(log.view().settled(), 0);
    if let Some(flush) = log.begin_flush() {
        let flushed = flush.run().expect("syncs");
        log.flushed(flushed);
    }
    assert_eq!(log.recovery_point(), 1, "the marker's offset");
    log.close().expect_err("is not clean");
    let after = disk.crash(Crash::LoseUnsynced);
    after.set_room(None);
    let (log, recovery) = open(&after, small(), start(false, 1));
    assert_eq!(recovery.rebuilt_txn_indexes, [0]);
    assert_eq!(stored(&after, &log).len(), 1);
    drop(after.open(&index_path(0, Kind::TxnIndex), OpenMode::Read).expect("is there"));
}

/// Kafka's followers reject these, too (`ProducerAppendInfo.append`).
#[test]
fn control_batch_that_ends_no_transaction_is_refused() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    append_verbatim(&mut log, in_transaction(batch(0, 1, 10), 7)).expect("appends");
    let value = EndTxnMarker { coordinator_epoch: 3 }.to_value();
    let abort = ControlRecordType::Abort.to_key();
    let leader_change = ControlRecordType::LeaderChange.to_key();
    let unknown = ControlRecordType::Unknown(99).to_key();
    let mut damaged = marker(1, 7, ControlRecordType::Abort);
    damaged.payload = vec![0xff; damaged.payload.len()].into();
    let refused = [
        control(1, 7, (&abort[..1], &value)),
        control(1, 7, (&[0xff, 0xff, 0, 0], &value)),
        control(1, 7, (&leader_change, &value)),
        control(1, 7, (&unknown, &value)),
        control(1, 7, (&abort, &value[..3])),
        control(1, 7, (&abort, &[0xff; 6])),
        damaged,
    ];
    for batch in refused {
        let result = append_verbatim(&mut log, sealed(batch));
        assert!(matches!(result, Err(LogError::BadBatch { base_offset: 1, .. })), "{result:?}");
        assert_eq!((log.log_end(), log.first_unstable_offset()), (1, Some(0)));
    }
    // Compaction empties control batches.
    let mut emptied = marker(1, 7, ControlRecordType::Abort);
    emptied.header.record_count = 0;
    emptied.header.batch_length -= emptied.payload.len() as i32;
    emptied.payload = Default::default();
    append_verbatim(&mut log, sealed(emptied)).expect("appends");
    assert_eq!((log.log_end(), log.first_unstable_offset()), (2, Some(0)));
}

/// The age of a producer counts from the timestamp of the marker's record, as in Kafka, and not
/// from the batch header.
#[test]
fn marker_has_the_timestamp_of_its_record() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    let mut ahead = marker(0, 7, ControlRecordType::Commit);
    ahead.header.max_timestamp = NOW + 3_600_000;
    append_verbatim(&mut log, sealed(ahead)).expect("appends");
    let (_, entry) = log.producers.iter().next().expect("the producer is known");
    assert_eq!(entry.last_timestamp, NOW);
}

/// Appends as a follower does.
fn append_verbatim(log: &mut Log, batch: Batch) -> Result<(), LogError> {
    log.append_verbatim(&[batch], NOW).map(drop)
}
