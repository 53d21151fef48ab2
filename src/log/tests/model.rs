//! Compares a log with a simple model through random steps, stops and crashes.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append { counts: Vec<i32>, size: usize, producer: bool },
    AppendAhead { gap: i64, size: usize },
    FailToAppend { room: u64 },
    NewEpoch,
    Roll,
    Flush,
    Truncate { back: usize },
    Retention { bytes: i64 },
    AdvanceStart { by: i64 },
    CleanStop,
    Kill,
    PowerLoss,
    TornWrites { percent: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let append = (prop::collection::vec(1..4i32, 1..6), 0..400usize, any::<bool>())
        .prop_map(|(counts, size, producer)| Step::Append { counts, size, producer });
    prop_oneof![
        8 => append,
        1 => (0..9i64, 0..300usize).prop_map(|(gap, size)| Step::AppendAhead { gap, size }),
        1 => (0..1500u64).prop_map(|room| Step::FailToAppend { room }),
        1 => Just(Step::NewEpoch),
        1 => Just(Step::Roll),
        2 => Just(Step::Flush),
        1 => (0..5usize).prop_map(|back| Step::Truncate { back }),
        1 => (0..3000i64).prop_map(|bytes| Step::Retention { bytes }),
        1 => (0..9i64).prop_map(|by| Step::AdvanceStart { by }),
        1 => Just(Step::CleanStop),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerLoss),
        1 => (0..=100u8).prop_map(|percent| Step::TornWrites { percent }),
    ]
}

struct Model {
    disk: FaultyDisk,
    log: Option<Log>,
    batches: Vec<Batch>,
    log_start: i64,
    log_end: i64,
    epoch: i32,
    sequence: i32,
    /// Everything below is durable. It is also the high watermark.
    durable: i64,
}

const PRODUCER: i64 = 4;

impl Model {
    fn new() -> Self {
        let disk = FaultyDisk::default();
        let (log, _) = open(&disk, small(), start(true, 0));
        Self {
            disk,
            log: Some(log),
            batches: Vec::new(),
            log_start: 0,
            log_end: 0,
            epoch: 0,
            sequence: 0,
            durable: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("is open")
    }

    fn took(&mut self, batches: Vec<Batch>) {
        for batch in batches {
            self.log_end = batch.header.last_offset() + 1;
            if batch.header.has_producer_id() {
                self.sequence = batch.header.last_sequence() + 1;
            }
            self.batches.push(batch);
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append { counts, size, producer } => {
                let mut sequence = self.sequence;
                let mut batches = Vec::new();
                for count in counts {
                    let plain = batch(0, count, size);
                    batches.push(match producer {
                        true => of_producer(plain, PRODUCER, 0, sequence),
                        false => plain,
                    });
                    sequence += count;
                }
                let epoch = self.epoch;
                self.log().append(&mut batches, epoch, NOW).expect("appends");
                self.took(batches);
            }
            Step::AppendAhead { gap, size } => {
                let mut ahead = batch(self.log_end + gap, 2, size);
                ahead.header.leader_epoch = self.epoch;
                self.log().append_verbatim(std::slice::from_ref(&ahead), NOW).expect("appends");
                self.took(vec![ahead]);
            }
            Step::FailToAppend { room } => {
                self.disk.set_room(Some(room));
                let mut batches: Vec<Batch> = (0..9).map(|_| batch(0, 1, 200)).collect();
                let epoch = self.epoch;
                self.log().append(&mut batches, epoch, NOW).expect_err("has no room");
                self.disk.set_room(None);
            }
            Step::NewEpoch => self.epoch += 1,
            Step::Roll => {
                let now = NOW * 1_000_000;
                self.log().roll_if_due(now).expect("rolls");
            }
            Step::Flush => {
                self.log().flush().expect("flushes");
                self.durable = self.log_end;
            }
            Step::Truncate { back } => self.truncate(back),
            Step::Retention { bytes } => self.retain(bytes),
            Step::AdvanceStart { by } => {
                let offset = (self.log_start + by).min(self.log_end);
                self.log().advance_log_start(offset).expect("moves");
                self.log_start = offset;
                self.durable = self.durable.max(offset);
            }
            Step::CleanStop => {
                let recovery_point = self.log.take().expect("is open").close().expect("closes");
                assert_eq!(recovery_point, self.log_end);
                self.durable = self.log_end;
                self.reopen(true, self.disk.crash(Crash::LoseUnsynced));
            }
            Step::Kill => self.reopen(false, self.disk.crash(Crash::Process)),
            Step::PowerLoss => self.crash(Crash::LoseUnsynced),
            Step::TornWrites { percent } => self.crash(Crash::Tear(percent)),
        }
        self.check();
    }

    fn truncate(&mut self, back: usize) {
        let Some(index) = self.batches.len().checked_sub(back) else { return };
        // A gap at the end is not in the files, so a start cannot restore it.
        let Some(last) = index.checked_sub(1).map(|last| &self.batches[last]) else { return };
        let offset = last.header.last_offset() + 1;
        if offset < self.durable.max(self.log_start) {
            return;
        }
        let high_watermark = self.durable;
        self.log().truncate_to(offset, high_watermark).expect("cuts");
        // Otherwise, what was durable before the truncation would come back.
        self.log().flush().expect("flushes");
        self.durable = offset;
        self.batches.truncate(index);
        self.log_end = offset;
        self.find_sequence();
    }

    fn find_sequence(&mut self) {
        let last = self.batches.iter().rfind(|batch| batch.header.has_producer_id());
        self.sequence = last.map_or(self.sequence, |last| last.header.last_sequence() + 1);
    }

    fn retain(&mut self, bytes: i64) {
        let config = LogConfig { retention_bytes: bytes, retention_ms: -1, ..small() };
        let high_watermark = self.durable;
        let log = self.log();
        log.set_config(Arc::new(config));
        let deleted = log.apply_retention(NOW, high_watermark, usize::MAX).expect("runs");
        log.set_config(Arc::new(small()));
        let log_start = log.log_start();
        for segment in deleted {
            segment.remove().expect("removes");
        }
        assert!(log_start <= self.durable.max(self.log_start));
        self.log_start = log_start;
    }

    /// After this, everything that was flushed must exist. Later batches may exist, in order.
    fn crash(&mut self, crash: Crash) {
        let durable = self.durable;
        self.reopen(false, self.disk.crash(crash));
        let log_end = self.log().log_end();
        assert!(
            (durable..=self.log_end).contains(&log_end),
            "{durable} {log_end} {}",
            self.log_end
        );
        self.log_end = log_end;
        let view = self.log().view();
        let left: Vec<Batch> = view.batches_from(0).map(|batch| batch.expect("is sound")).collect();
        let (durable, log_start) = (self.durable, self.log_start);
        // Files are torn independently, so a later segment may have its batches although an earlier
        // one lost some.
        self.batches.retain(|batch| {
            let must = (log_start..durable).contains(&batch.header.last_offset());
            let is_left = left.contains(batch);
            assert!(is_left || !must, "lost {batch:?}");
            is_left
        });
        assert_eq!(left, self.batches);
        self.find_sequence();
    }

    fn reopen(&mut self, clean: bool, disk: FaultyDisk) {
        let recovery_point = match &self.log {
            Some(log) => log.recovery_point(),
            None => self.durable,
        };
        let log_start = Some(self.log_start);
        self.disk = disk;
        let start = LogStart { log_start, ..start(clean, recovery_point) };
        let (log, _) = open(&self.disk, small(), start);
        self.log = Some(log);
    }

    fn check(&mut self) {
        let (log_start, log_end) = (self.log_start, self.log_end);
        let visible = |batch: &&Batch| batch.header.last_offset() >= log_start;
        let expected: Vec<Batch> = self.batches.iter().filter(visible).cloned().collect();
        let log = self.log.as_ref().expect("is open");
        assert_eq!((log.log_start(), log.log_end()), (log_start, log_end));
        let view = log.view();
        let read: Vec<Batch> = view.batches_from(0).map(|batch| batch.expect("is sound")).collect();
        assert_eq!(read, expected);
        let bytes: Vec<u8> = expected.iter().flat_map(bytes_of).collect();
        assert_eq!(read_all(log, log_start), bytes);
        for batch in &expected {
            for offset in [batch.header.base_offset, batch.header.last_offset()] {
                let slice = view.read(offset.max(log_start), 1, log_end, true).expect("reads");
                assert_eq!(slice.len, batch.size(), "at {offset}");
            }
            let epoch = log.epoch_for_offset(batch.header.last_offset());
            assert_eq!(epoch, Some(batch.header.leader_epoch), "of {batch:?}");
        }
        let timestamps = expected.iter().map(|batch| batch.header.max_timestamp);
        let largest = view.segments.iter().filter_map(|at| at.largest().expect("reads"));
        let largest = largest.map(|entry| entry.timestamp).max();
        assert!(largest >= timestamps.max(), "{largest:?}");
        self.check_producer();
    }

    /// The producer continues its sequence if any of its batches are left.
    fn check_producer(&self) {
        let log = self.log.as_ref().expect("is open");
        let own = self.batches.iter().rfind(|batch| {
            batch.header.has_producer_id() && batch.header.base_offset >= self.log_start
        });
        let Some(last) = own else { return };
        let check = log.check_producer(&last.header).expect("is known");
        assert!(matches!(check, ProducerCheck::Duplicate { .. }), "{check:?}");
        let next = of_producer(batch(0, 1, 1), PRODUCER, 0, self.sequence);
        assert_eq!(log.check_producer(&next.header), Ok(ProducerCheck::Append));
        let gap = of_producer(batch(0, 1, 1), PRODUCER, 0, self.sequence + 1);
        log.check_producer(&gap.header).expect_err("leaves a gap");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_log_behaves_like_a_list(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        for step in steps {
            model.run(step);
        }
    }
}

/// The second loss of power comes before any flush, and after the log start has passed the cut.
#[test]
fn power_loss_does_not_bring_back_what_recovery_cut() {
    let plain =
        |counts: &[i32], size| Step::Append { counts: counts.to_vec(), size, producer: false };
    let mut model = Model::new();
    for step in [
        plain(&[2, 1, 1, 2, 3, 1], 140),
        Step::TornWrites { percent: 65 },
        plain(&[3, 1], 0),
        Step::AdvanceStart { by: 7 },
        Step::PowerLoss,
    ] {
        model.run(step);
    }
}
