//! Tests with a shard that does what its requests say.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    super::{Answered, CallError, Limits, Shards, Unavailable, WriteRefused},
    MemoryLog,
};
use crate::{
    coordinator::{BatchKind, Event, Outcome, PlannedBatch, Shard},
    protocol::WireError,
    records::{Batch, ControlRecordType, Producer},
};

const PARTITION: i32 = 7;
const PRODUCER: Producer = Producer { id: 5, epoch: 1 };
const OTHER_PRODUCER: Producer = Producer { id: 6, epoch: 0 };

#[derive(Debug)]
enum TestShard {}

/// What the shard is to decide.
#[derive(Default)]
struct Request {
    records: Vec<Record>,
    effects: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct Record {
    kind: BatchKind,
    key: Bytes,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Logged {
    applied: Vec<Bytes>,
    /// Keys of records in open transactions, by producer id.
    undecided: Vec<(i64, Bytes)>,
}

/// The state in which a request was decided.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    leader_epoch: i32,
    /// Number of the request since the last load.
    number: usize,
    logged: Logged,
}

impl Shard for TestShard {
    type Request = Request;
    type Reply = Reply;
    type Record = Record;
    type Timer = ();
    type Effect = String;
    type LoggedState = Logged;
    /// Number of requests.
    type VolatileState = usize;

    fn planned_batch(request: &Request) -> Option<PlannedBatch> {
        (!request.records.is_empty()).then_some(PlannedBatch::Plain)
    }

    fn decide(
        logged: &Logged,
        requests: &mut usize,
        _now_ms: i64,
        leader_epoch: i32,
        event: Event<Request, ()>,
    ) -> Outcome<Self> {
        match event {
            Event::Timer(()) => unreachable!("no timer is set"),
            Event::Loaded => {
                let effects = vec![format!("loaded {}", logged.applied.len())];
                Outcome { effects, ..Outcome::default() }
            }
            Event::Request { token, request } => {
                *requests += 1;
                let reply = Reply { leader_epoch, number: *requests, logged: logged.clone() };
                Outcome {
                    records: request.records,
                    replies: vec![(token, reply)],
                    effects: request.effects.into_iter().map(str::to_owned).collect(),
                    ..Outcome::default()
                }
            }
        }
    }

    fn batch_kind(record: &Record) -> BatchKind {
        record.kind
    }

    fn apply(logged: &mut Logged, _offset: i64, batch_kind: BatchKind, record: &Record) {
        match batch_kind {
            BatchKind::Plain => logged.applied.push(record.key.clone()),
            BatchKind::Transactional(it) => logged.undecided.push((it.id, record.key.clone())),
            BatchKind::Control(_) => panic!("a marker is applied"),
        }
    }

    fn end_transaction(logged: &mut Logged, producer_id: i64, commits: bool) {
        let ended = logged.undecided.extract_if(.., |(id, _)| *id == producer_id);
        logged.applied.extend(ended.filter(|_| commits).map(|(_, key)| key));
    }

    fn encode(record: &Record) -> (Bytes, Option<Bytes>) {
        (record.key.clone(), Some(Bytes::from_static(&[0; 6])))
    }

    fn decode(key: Bytes, _value: Option<Bytes>) -> Result<Option<Record>, WireError> {
        Ok(Some(Record { kind: BatchKind::Plain, key }))
    }
}

fn record(kind: BatchKind, key: &'static str) -> Record {
    Record { kind, key: key.into() }
}

fn marker(producer: Producer, ends: ControlRecordType) -> Record {
    let key = Bytes::copy_from_slice(&ends.to_key());
    Record { kind: BatchKind::Control(producer), key }
}

struct Runtime {
    shards: Shards<TestShard>,
    log: Arc<MemoryLog>,
    effects: mpsc::UnboundedReceiver<(i32, String)>,
}

impl Runtime {
    /// A runtime with one loaded shard.
    async fn new(log: Arc<MemoryLog>) -> Self {
        let (sender, effects) = mpsc::unbounded_channel();
        let shards = Shards::new(move |partition, effect| {
            let _ = sender.send((partition, effect));
        });
        let mut runtime = Self { shards, log, effects };
        runtime.elect().await;
        runtime
    }

    /// Elects the shard in epoch 3, and waits until it is loaded.
    async fn elect(&mut self) {
        let limits = Limits { max_batch_bytes: 1000, commit_timeout: Duration::from_secs(5) };
        self.shards.elect(PARTITION, 3, Arc::clone(&self.log) as _, limits, || 0);
        self.loaded().await;
    }

    async fn loaded(&mut self) {
        self.log.commit_all();
        let (_, effect) = self.effects.recv().await.unwrap();
        assert!(effect.starts_with("loaded"), "{effect}");
    }

    async fn call(&self, request: Request) -> oneshot::Receiver<Answered<TestShard>> {
        loop {
            match self.shards.call(PARTITION, request_of(&request)).await {
                Err(Unavailable::Loading) => tokio::time::sleep(Duration::from_millis(1)).await,
                called => return called.unwrap(),
            }
        }
    }

    async fn reply(&self, request: Request) -> Reply {
        self.call(request).await.await.unwrap().unwrap()
    }

    /// The next effect; `None` if there is none for a while.
    async fn effect(&mut self) -> Option<String> {
        let (partition, effect) =
            timeout(Duration::from_millis(50), self.effects.recv()).await.ok()??;
        assert_eq!(partition, PARTITION);
        Some(effect)
    }
}

fn request_of(request: &Request) -> Request {
    Request { records: request.records.clone(), effects: request.effects.clone() }
}

fn effects(effects: &[&'static str]) -> Request {
    let records = vec![record(BatchKind::Plain, "a")];
    Request { records, effects: effects.to_vec() }
}

#[tokio::test]
async fn effects_leave_in_order_after_the_commit() {
    let mut runtime = Runtime::new(MemoryLog::new(false)).await;
    let _waits = runtime.call(effects(&["1", "2"])).await;
    // Without records: it waits for those of the earlier request.
    let last = runtime.call(Request { effects: vec!["3"], ..Request::default() }).await;
    assert_eq!(runtime.effect().await, None);
    runtime.log.commit_all();
    last.await.unwrap().unwrap();
    for expected in ["1", "2", "3"] {
        assert_eq!(runtime.effect().await.as_deref(), Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn effects_leave_even_if_their_reply_timed_out() {
    let mut runtime = Runtime::new(MemoryLog::new(false)).await;
    let refused = runtime.call(effects(&["1"])).await.await.unwrap();
    assert!(refused.is_err());
    assert_eq!(runtime.effect().await, None);
    runtime.log.commit_all();
    assert_eq!(runtime.effect().await.as_deref(), Some("1"));
}

#[tokio::test]
async fn request_is_not_decided_if_the_log_does_not_take_its_batch() {
    let runtime = Runtime::new(MemoryLog::new(true)).await;
    *runtime.log.refuses.lock() = Some(WriteRefused::NotEnoughReplicas);
    let refused = runtime.call(effects(&["1"])).await.await.unwrap();
    let expected = CallError::Refused(WriteRefused::NotEnoughReplicas);
    assert_eq!(refused.unwrap_err(), expected);
    assert_eq!(runtime.reply(Request::default()).await.number, 1, "it needs no batch");
    *runtime.log.refuses.lock() = None;
    assert_eq!(runtime.reply(effects(&["2"])).await.number, 2);
}

#[tokio::test]
async fn effects_are_dropped_if_the_append_fails() {
    let mut runtime = Runtime::new(MemoryLog::new(true)).await;
    *runtime.log.fails.lock() = true;
    runtime.call(effects(&["1"])).await.await.unwrap_err();
    *runtime.log.fails.lock() = false;
    runtime.loaded().await;
    assert_eq!(runtime.reply(effects(&["2"])).await.number, 1);
    assert_eq!(runtime.effect().await.as_deref(), Some("2"));
}

#[tokio::test]
async fn effects_are_dropped_if_the_shard_resigns() {
    let mut runtime = Runtime::new(MemoryLog::new(false)).await;
    let answer = runtime.call(effects(&["1"])).await;
    // Its record is appended once it has been decided.
    while runtime.log.batches() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    runtime.shards.resign(PARTITION);
    runtime.log.commit_all();
    answer.await.unwrap_err();
    runtime.elect().await;
    assert_eq!(runtime.effect().await, None);
}

/// The kind of a batch, its base sequence, and its number of records.
fn header(batch: &Batch) -> (BatchKind, i32, i32) {
    let header = &batch.header;
    assert!(header.is_transactional() || !header.is_control());
    (BatchKind::of(header), header.base_sequence, header.record_count)
}

#[tokio::test]
async fn records_of_different_kinds_are_in_different_batches() {
    let mut runtime = Runtime::new(MemoryLog::new(true)).await;
    let (of, of_other) =
        (BatchKind::Transactional(PRODUCER), BatchKind::Transactional(OTHER_PRODUCER));
    let records = vec![
        record(BatchKind::Plain, "a"),
        record(BatchKind::Plain, "b"),
        record(of, "c"),
        record(of, "d"),
        record(of_other, "e"),
        marker(PRODUCER, ControlRecordType::Commit),
        marker(OTHER_PRODUCER, ControlRecordType::Abort),
        record(of_other, "f"),
        record(BatchKind::Plain, "g"),
    ];
    runtime.reply(Request { records, ..Request::default() }).await;
    let batches: Vec<_> = runtime.log.batches.lock().iter().map(header).collect();
    let expected = [
        (BatchKind::Plain, 0, 2),
        (of, 0, 2),
        (of_other, 0, 1),
        (BatchKind::Control(PRODUCER), -1, 1),
        (BatchKind::Control(OTHER_PRODUCER), -1, 1),
        (of_other, 0, 1),
        (BatchKind::Plain, 0, 1),
    ];
    assert_eq!(batches, expected);
    let applied = ["a", "b", "c", "d", "g"].map(Bytes::from).to_vec();
    let undecided = vec![(OTHER_PRODUCER.id, Bytes::from("f"))];
    let logged = Logged { applied, undecided };
    assert_eq!(runtime.reply(Request::default()).await.logged, logged);
    runtime.elect().await;
    assert_eq!(runtime.reply(Request::default()).await.logged, logged, "loaded");
}

#[tokio::test]
async fn records_of_one_kind_are_in_different_batches_if_they_are_too_large() {
    const LARGE: &str = match str::from_utf8(&[b'x'; 600]) {
        Ok(text) => text,
        Err(_) => panic!(),
    };
    let runtime = Runtime::new(MemoryLog::new(true)).await;
    let of = BatchKind::Transactional(PRODUCER);
    let records = vec![record(of, "c"), record(of, LARGE), record(of, LARGE), record(of, "d")];
    runtime.reply(Request { records, ..Request::default() }).await;
    let batches: Vec<_> = runtime.log.batches.lock().iter().map(header).collect();
    assert_eq!(batches, [(of, 0, 2), (of, 0, 2)]);
}

#[tokio::test]
async fn shard_gets_a_new_leader_epoch_without_a_load() {
    let runtime = Runtime::new(MemoryLog::new(true)).await;
    let decided = |reply: Reply| (reply.leader_epoch, reply.number);
    assert_eq!(decided(runtime.reply(Request::default()).await), (3, 1));
    runtime.shards.set_leader_epoch(PARTITION, 4);
    assert_eq!(decided(runtime.reply(Request::default()).await), (4, 2));
}
