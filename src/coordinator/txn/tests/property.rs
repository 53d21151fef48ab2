//! Properties of random runs of requests, reports of markers, timers, elections and reloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;

use super::{
    super::{
        messages::*,
        state::{Transaction, TxnState},
    },
    Effects, LoggedState, Machine, Record, Reply, Request, TxnConfig,
};
use crate::{
    base::TopicPartition,
    records::{Producer, TransactionVersion},
};

/// An event as small numbers. The state of the run decides what they stand for.
#[derive(Debug, Clone)]
struct Step {
    kind: u8,
    id: u8,
    producer: u8,
    value: u8,
    wait_ms: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..20, 0u8..2, 0u8..6, 0u8..8, 0i64..20_000);
    let step = step.prop_map(|(kind, id, producer, value, wait_ms)| {
        let wait_ms = if value < 6 { wait_ms % 10 } else { wait_ms };
        Step { kind, id, producer, value, wait_ms }
    });
    proptest::collection::vec(step, 1..150)
}

fn partition(index: u8) -> TopicPartition {
    TopicPartition::new("t", (index % 3).into())
}

struct Run {
    machine: Machine,
    /// The logged state by decoded records.
    replayed: LoggedState,
    /// The last record of each id.
    last: BTreeMap<Arc<str>, Transaction>,
    /// The highest epoch of each producer id.
    epochs: BTreeMap<i64, i16>,
    /// The markers that are being written.
    jobs: Vec<MarkersWritten>,
    /// Reports that arrive again.
    stale: Vec<MarkersWritten>,
    /// The partitions with the marker of a transaction, by id and time of its end.
    reported: BTreeMap<(Arc<str>, i64), BTreeSet<TopicPartition>>,
    next_id: i64,
    prepared: usize,
    ended: usize,
    completed: usize,
}

impl Run {
    fn new() -> Self {
        let config = TxnConfig { id_expiration_ms: 100_000, ..TxnConfig::default() };
        Self {
            machine: Machine::new(TxnConfig { expiry_interval_ms: 30_000, ..config }),
            replayed: LoggedState::default(),
            last: BTreeMap::new(),
            epochs: BTreeMap::new(),
            jobs: Vec::new(),
            stale: Vec::new(),
            reported: BTreeMap::new(),
            next_id: 1000,
            prepared: 0,
            ended: 0,
            completed: 0,
        }
    }

    /// Checks what an event has led to, and takes its work.
    fn check(&mut self, effects: &Effects) {
        for record in &effects.records {
            self.check_record(record);
            let (key, value) = record.encode();
            self.replayed.apply(&Record::decode(key, value));
        }
        assert_eq!(self.replayed, self.machine.logged);
        for effect in &effects.effects {
            match effect {
                ShardEffect::Broker(Effect::WriteMarkers { id, marker, end_ms, partitions }) => {
                    let logged = &self.machine.logged.transactions[id];
                    assert!(logged.state.is_prepare(), "markers without a Prepare record");
                    assert_eq!(marker.producer, logged.producer);
                    assert_eq!(marker.commits, logged.state == TxnState::PrepareCommit);
                    assert!(partitions.iter().eq(&*logged.partitions));
                    self.jobs.retain(|job| job.id != *id);
                    let written = MarkersWritten {
                        id: id.clone(),
                        producer: marker.producer,
                        coordinator_epoch: marker.coordinator_epoch,
                        end_ms: *end_ms,
                        partitions: partitions.clone(),
                    };
                    self.jobs.push(written);
                }
                ShardEffect::Broker(Effect::AbortTimedOut { id, producer }) => {
                    let (id, producer) = (id.clone(), *producer);
                    self.next_id += 1;
                    let new_producer_id = self.next_id;
                    let request = Request::AbortTimedOut { id, producer, new_producer_id };
                    let effects = self.machine.request(request);
                    self.check(&effects);
                }
                ShardEffect::Ended(_) => self.ended += 1,
                ShardEffect::Completed { .. } => self.completed += 1,
            }
        }
    }

    fn check_record(&mut self, record: &Record) {
        let (id, value) = match record {
            Record::State { id, value, .. } => (id, value),
            Record::Expired { id } => {
                let expired = self.last.remove(id).unwrap();
                assert!(expired.state != TxnState::Ongoing && !expired.state.is_prepare());
                return;
            }
            Record::Unreadable { .. } => panic!("never written"),
        };
        let before = self.last.insert(id.clone(), value.clone());
        let state_before = before.as_ref().map(|before| before.state);
        match value.state {
            TxnState::Empty => {
                assert!(state_before != Some(TxnState::Ongoing), "an open transaction is lost");
                assert!(!state_before.is_some_and(TxnState::is_prepare));
            }
            TxnState::Ongoing => assert!(!state_before.unwrap().is_prepare()),
            TxnState::PrepareCommit | TxnState::PrepareAbort => {
                self.prepared += 1;
                self.check_prepared(value, &before.unwrap());
            }
            TxnState::CompleteCommit => {
                assert_eq!(state_before, Some(TxnState::PrepareCommit));
                self.check_has_markers(id, &before.unwrap());
            }
            TxnState::CompleteAbort => {
                assert_eq!(state_before, Some(TxnState::PrepareAbort));
                self.check_has_markers(id, &before.unwrap());
            }
        }
        let epoch = self.epochs.entry(value.producer.id).or_insert(-1);
        assert!(value.producer.epoch >= *epoch, "the epoch falls");
        *epoch = value.producer.epoch;
    }

    fn check_prepared(&self, prepared: &Transaction, before: &Transaction) {
        assert!(!before.state.is_prepare(), "two outcomes");
        let commits = prepared.state == TxnState::PrepareCommit;
        assert!(!commits || before.state == TxnState::Ongoing, "a commit without a transaction");
        assert_eq!(prepared.partitions, before.partitions);
        let has_next_epoch = prepared.producer.epoch > before.producer.epoch;
        let needs_next = prepared.version.bumps_epoch() && before.producer.epoch != i16::MAX;
        assert!(has_next_epoch || !needs_next, "two transactions have the same epoch");
    }

    fn check_has_markers(&self, id: &Arc<str>, ended: &Transaction) {
        let reported = self.reported.get(&(id.clone(), ended.last_update_ms));
        let has_marker = |partition| reported.is_some_and(|it| it.contains(partition));
        assert!(ended.partitions.iter().all(has_marker), "a partition has no marker");
    }

    /// Lets the id `a` begin with a producer whose epoch is nearly exhausted.
    fn exhaust_epoch(&mut self) {
        let txn = Transaction::new(500).initialized(
            Producer { id: 500, epoch: i16::MAX - 3 },
            -1,
            25_000,
            self.machine.now_ms,
        );
        let record = Record::State { id: "a".into(), value: txn, version: 1 };
        self.check_record(&record);
        self.replayed.apply(&record);
        self.machine.append(record);
    }

    fn request(&mut self, request: Request) -> Reply {
        let mut effects = self.machine.request(request);
        self.check(&effects);
        assert_eq!(effects.replies.len(), 1);
        effects.replies.remove(0).1
    }

    /// Sends a request, and once more with a new producer id if it needs one.
    fn with_producer_id(&mut self, request: impl Fn(Option<i64>) -> Request) -> Reply {
        let reply = self.request(request(None));
        if reply != Reply::Producer(Err(Refused::NeedsProducerId)) {
            return reply;
        }
        self.next_id += 1;
        let reply = self.request(request(Some(self.next_id)));
        assert_ne!(reply, Reply::Producer(Err(Refused::NeedsProducerId)));
        reply
    }

    /// A producer that is likely to be the current one of an id.
    fn producer(&self, step: &Step, id: &str) -> Producer {
        let current = self.last.get(id).map_or(Producer { id: 1001, epoch: 0 }, |it| it.producer);
        match step.producer {
            0..=3 => current,
            4 => Producer { epoch: current.epoch.saturating_sub(1), ..current },
            _ => Producer { id: current.id - 1, epoch: i16::MAX - 1 },
        }
    }

    fn step(&mut self, step: &Step) {
        self.wait(step.wait_ms);
        let id: Arc<str> = ["a", "b"][usize::from(step.id)].into();
        let producer = self.producer(step, &id);
        let version = TransactionVersion::of_level((step.value % 3).into());
        match step.kind {
            0..=2 => {
                let expected = (step.value > 3 && producer.epoch >= 0).then_some(producer);
                self.with_producer_id(|new_producer_id| Request::Init {
                    request: InitRequest { id: id.clone(), timeout_ms: 25_000, expected },
                    new_producer_id,
                });
            }
            3..=7 => {
                let partitions = vec![partition(step.value), partition(step.value / 3)];
                self.request(Request::Add(AddRequest { id, producer, partitions, version }));
            }
            8..=12 => self.end(&id, producer, step.value > 3, version),
            13..=15 => self.report(step),
            16 => {
                let at = self.stale.len().wrapping_sub(1 + usize::from(step.value));
                if let Some(written) = self.stale.get(at).cloned() {
                    self.request(Request::MarkersWritten(written));
                }
            }
            17 => {
                self.machine.leader_epoch += i32::from(step.value % 2);
                // The runtime waits before it loads a shard again.
                self.machine.now_ms += 1_000;
                let effects = self.machine.reload();
                self.check(&effects);
            }
            18 => self.machine.leader_epoch += 1,
            _ => {
                self.request(Request::SetVersion(version));
            }
        }
    }

    fn end(
        &mut self,
        id: &Arc<str>,
        producer: Producer,
        commits: bool,
        version: TransactionVersion,
    ) {
        let reply = self.with_producer_id(|new_producer_id| Request::End {
            request: EndRequest { id: id.clone(), producer, commits, version },
            new_producer_id,
        });
        if let Reply::Producer(Ok(_)) = reply {
            let state = self.last[id].state;
            let expected = match commits {
                true => [TxnState::PrepareCommit, TxnState::CompleteCommit],
                false => [TxnState::PrepareAbort, TxnState::CompleteAbort],
            };
            assert!(expected.contains(&state), "{state:?}");
        }
    }

    /// Reports some partitions of a job, or all.
    fn report(&mut self, step: &Step) {
        if self.jobs.is_empty() {
            return;
        }
        let at = usize::from(step.producer) % self.jobs.len();
        let job = &mut self.jobs[at];
        let reported = match step.value {
            0..=3 => vec![job.partitions.remove(0)],
            _ => std::mem::take(&mut job.partitions),
        };
        let written = MarkersWritten { partitions: reported, ..job.clone() };
        if job.partitions.is_empty() {
            self.jobs.remove(at);
        }
        self.stale.push(written.clone());
        self.report_written(written);
    }

    fn report_written(&mut self, written: MarkersWritten) {
        let reported = self.reported.entry((written.id.clone(), written.end_ms)).or_default();
        reported.extend(written.partitions.iter().cloned());
        self.request(Request::MarkersWritten(written));
    }

    fn wait(&mut self, ms: i64) {
        let until_ms = self.machine.now_ms + ms;
        while let Some(effects) = self.machine.next_timer(until_ms) {
            self.check(&effects);
        }
    }

    /// Reports all markers. Then no transaction waits.
    fn finish_markers(&mut self) {
        while let Some(written) = self.jobs.pop() {
            self.report_written(written);
        }
        self.wait(0);
        let survey = self.machine.request(Request::Survey);
        let Some((_, Reply::Survey(survey))) = survey.replies.first() else { panic!() };
        assert_eq!(survey.waiting_markers, 0);
        for (id, txn) in &self.machine.logged.transactions {
            assert!(!txn.state.is_prepare(), "{id} waits without markers");
        }
    }
}

proptest! {
    #[test]
    fn transactions_have_one_outcome_and_complete(steps in steps(), exhausted in any::<bool>()) {
        let mut run = Run::new();
        if exhausted {
            run.exhaust_epoch();
        }
        let effects = run.machine.event(super::Event::Loaded);
        run.check(&effects);
        for step in &steps {
            run.step(step);
        }
        // A coordinator can start from any part of the log.
        for records in 0..run.machine.log.len() {
            let mut other = Run::new();
            other.machine.logged = run.machine.replay(records);
            other.replayed = other.machine.logged.clone();
            other.last = other.machine.logged.transactions.clone();
            other.machine.now_ms = run.machine.now_ms;
            let effects = other.machine.event(super::Event::Loaded);
            other.check(&effects);
            other.finish_markers();
        }
        run.finish_markers();
        prop_assert_eq!(run.prepared, run.ended);
        prop_assert_eq!(run.prepared, run.completed);
        // Transactions that stay open time out.
        run.wait(60_000);
        run.finish_markers();
        let open = |txn: &Transaction| txn.state == TxnState::Ongoing;
        prop_assert!(!run.machine.logged.transactions.values().any(open));
    }
}
