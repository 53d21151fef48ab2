//! Random histories with rounds of compaction in between: a `read_committed` consumer that reads
//! from the start always ends with the table that the appended batches describe. A follower copies
//! the log meanwhile.

use std::path::PathBuf;

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};

use super::{
    followers::{catch_up, fetch, new_follower},
    *,
};
use crate::base::planted_bugs::{Bug, plant};

type Records = Vec<(u8, Option<u8>)>;

#[derive(Debug, Clone)]
enum Step {
    Put { records: Records },
    Idempotent { producer: i64, records: Records },
    Transactional { producer: i64, records: Records },
    End { producer: i64, commits: bool },
    Roll,
    Commit,
    Truncate { back: usize },
    Kill { has_snapshots: bool },
    Fetch { bytes: usize },
    CleanStop,
    Resize { segment_bytes: u64 },
    Clean { map_keys: usize, later: bool, from_start: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let records = || prop::collection::vec((0..5u8, prop::option::weighted(0.8, 0..90u8)), 1..4);
    prop_oneof![
        6 => records().prop_map(|records| Step::Put { records }),
        4 => (0..2i64, records())
            .prop_map(|(producer, records)| Step::Idempotent { producer, records }),
        6 => (2..5i64, records())
            .prop_map(|(producer, records)| Step::Transactional { producer, records }),
        6 => (2..5i64, any::<bool>())
            .prop_map(|(producer, commits)| Step::End { producer, commits }),
        4 => Just(Step::Roll),
        1 => Just(Step::Commit),
        1 => (1..4usize).prop_map(|back| Step::Truncate { back }),
        1 => any::<bool>().prop_map(|has_snapshots| Step::Kill { has_snapshots }),
        3 => (1..600usize).prop_map(|bytes| Step::Fetch { bytes }),
        1 => Just(Step::CleanStop),
        1 => (700..3000u64).prop_map(|segment_bytes| Step::Resize { segment_bytes }),
        5 => (1..8usize, any::<bool>(), any::<bool>()).prop_map(|(map_keys, later, from_start)| {
            Step::Clean { map_keys, later, from_start }
        }),
    ]
}

struct Model {
    disk: FaultyDisk,
    log: Option<Log>,
    follower: Log,
    /// All batches that were appended and not truncated.
    batches: Vec<Batch>,
    sequences: BTreeMap<i64, i32>,
    high_watermark: i64,
    first_dirty: i64,
    now_ms: i64,
}

impl Model {
    fn new() -> Self {
        let disk = FaultyDisk::default();
        let (log, _) = open(&disk, small(), start(true, 0));
        Self {
            disk,
            log: Some(log),
            follower: new_follower(),
            batches: Vec::new(),
            sequences: BTreeMap::new(),
            high_watermark: 0,
            first_dirty: 0,
            now_ms: NOW,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("is open")
    }

    fn put(&mut self, batch: Batch) {
        let batch = put(self.log(), batch);
        self.batches.push(batch);
    }

    fn batch(&mut self, producer: Option<i64>, records: &Records, is_transactional: bool) {
        let options = match producer {
            Some(id) => {
                let sequence = self.sequences.entry(id).or_default();
                let base_sequence = *sequence;
                *sequence += records.len() as i32;
                BatchOptions {
                    producer_id: id,
                    producer_epoch: 0,
                    base_sequence,
                    is_transactional,
                    ..BatchOptions::default()
                }
            }
            None => BatchOptions::default(),
        };
        let mut builder = BatchBuilder::new(options);
        for (key, value) in records {
            let value = value.map(|len| vec![len; usize::from(len)]);
            builder.append(NOW, Some(&[*key]), value.as_deref(), &[]);
        }
        self.put(builder.build());
    }

    fn is_open(&self, producer: i64) -> bool {
        let last = self.batches.iter().rfind(|batch| batch.header.producer_id == producer);
        last.is_some_and(|batch| !batch.header.is_control())
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Put { records } => self.batch(None, records, false),
            Step::Idempotent { producer, records } => self.batch(Some(*producer), records, false),
            Step::Transactional { producer, records } => self.batch(Some(*producer), records, true),
            Step::End { producer, commits } => {
                if self.is_open(*producer) {
                    self.put(end_of(*producer, *commits));
                }
            }
            Step::Roll => {
                let log = self.log();
                log.roll(log.log_end(), NOW).expect("rolls");
            }
            Step::Commit => self.commit(),
            Step::Truncate { back } => self.truncate(*back),
            Step::Kill { has_snapshots } => self.kill(*has_snapshots),
            Step::Fetch { bytes } => {
                let view = self.log().view();
                fetch(&view, &mut self.follower, *bytes).expect("is there");
            }
            Step::CleanStop => {
                self.log().close().expect("closes");
                self.reopen(true, self.disk.crash(Crash::LoseUnsynced));
            }
            Step::Resize { segment_bytes } => {
                let config = LogConfig { segment_bytes: *segment_bytes, ..small() };
                self.log().set_config(Arc::new(config));
            }
            Step::Clean { map_keys, later, from_start } => {
                self.clean(*map_keys, *later, *from_start);
            }
        }
        self.check();
    }

    fn commit(&mut self) {
        self.high_watermark = self.log().log_end();
        let high_watermark = self.high_watermark;
        self.log().note_high_watermark(high_watermark);
    }

    fn truncate(&mut self, back: usize) {
        let Some(index) = self.batches.len().checked_sub(back) else { return };
        let offset = self.batches[index].header.base_offset;
        if offset < self.high_watermark {
            return;
        }
        let high_watermark = self.high_watermark;
        self.log().truncate_to(offset, high_watermark).expect("cuts");
        if self.follower.log_end() > offset {
            self.follower.truncate_to(offset, high_watermark).expect("cuts");
        }
        self.batches.truncate(index);
        self.sequences.clear();
        for batch in self.batches.iter().filter(|batch| batch.header.base_sequence >= 0) {
            self.sequences.insert(batch.header.producer_id, batch.header.last_sequence() + 1);
        }
    }

    fn kill(&mut self, has_snapshots: bool) {
        let disk = self.disk.crash(Crash::Process);
        let is_snapshot = |path: &&PathBuf| path.to_string_lossy().ends_with(".snapshot");
        for path in disk.paths().iter().filter(|path| is_snapshot(path) && !has_snapshots) {
            disk.remove_file(path).expect("is there");
        }
        self.reopen(false, disk);
    }

    fn reopen(&mut self, clean: bool, disk: FaultyDisk) {
        let log = self.log.take().expect("is open");
        self.disk = disk;
        let at = start(clean, log.recovery_point());
        self.log = Some(open(&self.disk, (**log.config()).clone(), at).0);
        let high_watermark = self.high_watermark;
        self.log().note_high_watermark(high_watermark);
    }

    fn clean(&mut self, map_keys: usize, later: bool, from_start: bool) {
        self.commit();
        if later {
            // As in Kafka, a follower that is behind for longer than `delete.retention.ms` may miss
            // a tombstone.
            let log = self.log.as_ref().expect("is open");
            catch_up(log, &mut self.follower).unwrap_or_else(|what| panic!("{what}"));
            self.now_ms += RETENTION_MS + 1;
        }
        let first_dirty = if from_start { 0 } else { self.first_dirty };
        let shared = Shared::new(self.log.take().expect("is open"));
        let range = cleanable(&shared.log.lock(), first_dirty);
        if first_dirty < range.end {
            let map = CleanOptions { map_bytes: map_keys * 24, load_factor: 1.0, ..options(NOW) };
            let options = CleanOptions { now_ms: self.now_ms, ..map };
            let mut pace = Collected::default();
            let cleaned = clean::clean(&shared, range, &options, &mut pace).expect("cleans");
            assert!(cleaned.end_offset <= range.end);
            self.first_dirty = self.first_dirty.max(cleaned.end_offset);
            pace.deleted.into_iter().for_each(|segment| segment.remove().expect("removes"));
        }
        self.log = Some(shared.into_log());
    }

    /// The table that the appended batches describe.
    fn table(&self) -> Table {
        let mut table = Table::new();
        for (index, batch) in self.batches.iter().enumerate() {
            let header = &batch.header;
            if header.is_control() {
                continue;
            }
            if header.is_transactional() {
                let is_end = |it: &&Batch| {
                    it.header.is_control() && it.header.producer_id == header.producer_id
                };
                match self.batches[index..].iter().find(is_end) {
                    Some(end) if is_abort(end) => continue,
                    Some(_) => {}
                    // The last stable offset.
                    None => break,
                }
            }
            for record in batch.records(1 << 20).expect("decodes") {
                let record = record.expect("decodes");
                let key = record.key.expect("has a key").to_vec();
                match record.value {
                    Some(value) => table.insert(key, (record.offset, value.to_vec())),
                    None => table.remove(&key),
                };
            }
        }
        table
    }

    fn check(&self) {
        let log = self.log.as_ref().expect("is open");
        let end = self.batches.last().map_or(0, |last| last.header.last_offset() + 1);
        assert_eq!(log.log_end(), end);
        assert_eq!(committed_table(log), self.table());
        for id in 0..5 {
            let is_own = |it: &&Batch| it.header.producer_id == id && !it.header.is_control();
            let Some(last) = self.batches.iter().rfind(is_own) else { continue };
            let checked = log.check_producer(&last.header);
            assert!(matches!(checked, Ok(ProducerCheck::Duplicate { .. })), "{id}: {checked:?}");
        }
        let open: BTreeSet<i64> = log.open_transactions().map(|(_, id)| id).collect();
        assert_eq!(open, (2..5).filter(|id| self.is_open(*id)).collect());
    }
}

fn is_abort(marker: &Batch) -> bool {
    let record = marker.records(1000).expect("decodes").next().expect("has a record");
    let key = record.expect("decodes").key.expect("has a key");
    ControlRecordType::from_key(&key) == Ok(ControlRecordType::Abort)
}

fn run_all(steps: &[Step]) {
    let mut model = Model::new();
    for step in steps {
        model.run(step);
    }
    let Model { log, mut follower, .. } = model;
    catch_up(&log.expect("is open"), &mut follower).unwrap_or_else(|what| panic!("{what}"));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn consumers_see_the_same_table_as_without_compaction(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        run_all(&steps);
    }
}

/// The same histories in each run.
#[test]
fn planted_bugs_are_found() {
    for bug in [Bug::AbortedInMap, Bug::ForgottenSequence] {
        let config = ProptestConfig {
            cases: 150,
            max_shrink_iters: 0,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        plant(Some(bug));
        let found = TestRunner::new_with_rng(config, rng).run(
            &prop::collection::vec(step(), 1..60),
            |it| {
                run_all(&it);
                Ok(())
            },
        );
        plant(None);
        assert!(matches!(found, Err(TestError::Fail(..))), "{bug:?}: {found:?}");
    }
}
