//! Tests of the handle to the transaction coordinator.

use std::sync::atomic::AtomicI64;

use tokio::{sync::mpsc, time::Instant};

use super::*;
use crate::coordinator::{
    ProducerIdSource, TxnCoordinator,
    txn::{
        TxnConfig, TxnError,
        messages::{
            AddRequest, Effect, EndRequest, InitRequest, ListRequest, MarkersWritten, TxnOutcome,
            VerifyRequest,
        },
    },
};

/// Producer ids from 1000. Fails if it is -1.
struct Ids(AtomicI64);

impl ProducerIdSource for Ids {
    fn next(&self) -> BoxFuture<'_, Result<i64, ()>> {
        Box::pin(async {
            match self.0.load(Ordering::Relaxed) {
                -1 => Err(()),
                _ => Ok(self.0.fetch_add(1, Ordering::Relaxed)),
            }
        })
    }
}

struct Setup {
    log: Arc<MemoryLog>,
    transactions: TxnCoordinator,
    effects: mpsc::UnboundedReceiver<(i32, Effect)>,
    ids: Ids,
}

impl Setup {
    async fn new(commits_itself: bool) -> Self {
        let config = TxnConfig { topic_num_partitions: 1, ..TxnConfig::default() };
        let (sender, effects) = mpsc::unbounded_channel();
        let transactions = TxnCoordinator::new(config, move |partition, effect| {
            sender.send((partition, effect)).unwrap();
        });
        let log = MemoryLog::new(commits_itself);
        transactions.on_elected(0, 7, Arc::clone(&log) as _);
        let ids = Ids(AtomicI64::new(1000));
        let setup = Self { log, transactions, effects, ids };
        setup.loaded().await;
        setup
    }

    async fn loaded(&self) {
        let list = || self.transactions.list(ListRequest::default());
        while list().await == Err(TxnError::CoordinatorLoadInProgress) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn init(&self, id: &str) -> Result<Producer, TxnError> {
        let request = InitRequest { id: id.into(), timeout_ms: 60_000, expected: None };
        self.transactions.init(request, &self.ids).await
    }

    async fn add(&self, id: &str, producer: Producer) -> Result<(), TxnError> {
        let (partitions, version) = (vec![partition()], TransactionVersion::V2);
        let request = AddRequest { id: id.into(), producer, partitions, version };
        self.transactions.add(request).await
    }

    async fn commit(&self, id: &str, producer: Producer) -> Result<Producer, TxnError> {
        let version = TransactionVersion::V2;
        let request = EndRequest { id: id.into(), producer, commits: true, version };
        self.transactions.end(request, &self.ids).await
    }

    async fn state(&self, id: &str) -> &'static str {
        self.transactions.describe(id.into()).await.unwrap().state
    }

    /// The next markers to write.
    async fn markers(&mut self) -> MarkersWritten {
        let (partition, effect) = self.effects.recv().await.unwrap();
        assert_eq!(partition, 0);
        let Effect::WriteMarkers { id, marker, end_ms, partitions } = effect else {
            panic!("{effect:?}")
        };
        let TxnMarker { producer, coordinator_epoch, .. } = marker;
        MarkersWritten { id, producer, coordinator_epoch, end_ms, partitions }
    }
}

/// Waits until the log has this many batches.
async fn appended(log: &MemoryLog, batches: usize) {
    while log.batches() < batches {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

#[tokio::test(start_paused = true)]
async fn transaction_commits_and_completes() {
    let mut setup = Setup::new(true).await;
    let producer = setup.init("a").await.unwrap();
    assert_eq!(producer, Producer { id: 1000, epoch: 0 });
    assert_eq!(setup.init("b").await, Ok(Producer { id: 1001, epoch: 0 }));
    assert_eq!(setup.add("a", producer).await, Ok(()));
    let request = VerifyRequest { id: "a".into(), producer, partitions: vec![partition()] };
    assert_eq!(setup.transactions.verify(request).await, Ok(vec![(partition(), true)]));
    let next = Producer { epoch: 1, ..producer };
    assert_eq!(setup.commit("a", producer).await, Ok(next));
    let written = setup.markers().await;
    assert_eq!((written.producer, written.coordinator_epoch), (next, 7));
    assert_eq!(written.partitions, [partition()]);
    assert_eq!(setup.add("a", next).await, Err(TxnError::ConcurrentTransactions));
    setup.transactions.markers_written(0, written).await;
    assert_eq!(setup.state("a").await, "CompleteCommit");
    let counters = setup.transactions.counters();
    assert_eq!((counters.ended(TxnOutcome::Committed), counters.completed()), (1, 1));
    let survey = setup.transactions.survey(Instant::now() + Duration::from_secs(1)).await;
    assert_eq!(survey.states, [("CompleteCommit", 1), ("Empty", 1)].into());
}

#[tokio::test(start_paused = true)]
async fn replies_and_markers_wait_for_the_commit() {
    let mut setup = Setup::new(false).await;
    let log = Arc::clone(&setup.log);
    let committer = tokio::spawn(async move {
        for batches in 1..=2 {
            appended(&log, batches).await;
            log.commit_all();
        }
    });
    let producer = setup.init("a").await.unwrap();
    assert_eq!(setup.add("a", producer).await, Ok(()));
    committer.await.unwrap();
    // The record is not committed in time. The transaction is ended nevertheless.
    let started = Instant::now();
    let commit = setup.commit("a", producer).await;
    assert_eq!(commit, Err(TxnError::CoordinatorNotAvailable));
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    assert!(setup.effects.try_recv().is_err());
    assert_eq!(setup.transactions.counters().ended(TxnOutcome::Committed), 0);
    setup.log.commit_all();
    let written = setup.markers().await;
    assert_eq!(setup.commit("a", producer).await, Err(TxnError::ConcurrentTransactions));
    setup.transactions.markers_written(0, written).await;
    appended(&setup.log, 4).await;
    setup.log.commit_all();
    assert_eq!(setup.commit("a", producer).await, Ok(Producer { epoch: 1, ..producer }));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_with_too_few_replicas() {
    let mut setup = Setup::new(true).await;
    let producer = setup.init("a").await.unwrap();
    setup.add("a", producer).await.unwrap();
    let next = setup.commit("a", producer).await.unwrap();
    let written = setup.markers().await;
    let batches = setup.log.batches();
    *setup.log.refuses.lock() = Some(WriteRefused::NotEnoughReplicas);
    assert_eq!(setup.init("b").await, Err(TxnError::CoordinatorNotAvailable));
    assert_eq!(setup.add("a", next).await, Err(TxnError::CoordinatorNotAvailable));
    assert_eq!(setup.commit("a", next).await, Err(TxnError::CoordinatorNotAvailable));
    assert_eq!(setup.state("a").await, "PrepareCommit");
    // The report is repeated until the log takes its record.
    let transactions = setup.transactions.clone();
    tokio::spawn(async move { transactions.markers_written(0, written).await });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(setup.log.batches(), batches);
    *setup.log.refuses.lock() = None;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.state("a").await, "CompleteCommit");
    *setup.log.refuses.lock() = Some(WriteRefused::NotLeader);
    assert_eq!(setup.add("a", next).await, Err(TxnError::NotCoordinator));
}

#[tokio::test(start_paused = true)]
async fn new_coordinator_requests_markers_again() {
    let mut setup = Setup::new(true).await;
    let producer = setup.init("a").await.unwrap();
    setup.add("a", producer).await.unwrap();
    setup.commit("a", producer).await.unwrap();
    let before = setup.markers().await;
    setup.transactions.on_resigned(0);
    assert_eq!(setup.init("a").await, Err(TxnError::NotCoordinator));
    assert_eq!(setup.transactions.list(ListRequest::default()).await, Ok(Vec::new()));
    setup.transactions.on_elected(0, 8, Arc::clone(&setup.log) as _);
    setup.loaded().await;
    let after = setup.markers().await;
    assert_eq!(after, MarkersWritten { coordinator_epoch: 8, ..before });
}

#[tokio::test(start_paused = true)]
async fn producer_ids_may_be_missing() {
    let setup = Setup::new(true).await;
    setup.ids.0.store(-1, Ordering::Relaxed);
    assert_eq!(setup.init("a").await, Err(TxnError::CoordinatorLoadInProgress));
    assert_eq!(setup.log.batches(), 0);
    setup.ids.0.store(50, Ordering::Relaxed);
    assert_eq!(setup.init("a").await, Ok(Producer { id: 50, epoch: 0 }));
    // The second epoch needs no id.
    setup.ids.0.store(-1, Ordering::Relaxed);
    assert_eq!(setup.init("a").await, Ok(Producer { id: 50, epoch: 1 }));
}

#[tokio::test(start_paused = true)]
async fn requests_are_checked_before_the_coordinator_is_looked_for() {
    let setup = Setup::new(true).await;
    setup.transactions.on_resigned(0);
    let producer = Producer { id: 1, epoch: 0 };
    assert_eq!(setup.init("").await, Err(TxnError::InvalidRequest));
    assert_eq!(setup.add("", producer).await, Err(TxnError::InvalidRequest));
    assert_eq!(setup.commit("", producer).await, Err(TxnError::InvalidRequest));
    assert_eq!(setup.transactions.describe("".into()).await, Err(TxnError::InvalidRequest));
    for timeout_ms in [i32::MIN, -1, 0, 900_001, i32::MAX] {
        let request = InitRequest { id: "a".into(), timeout_ms, expected: None };
        let result = setup.transactions.init(request, &setup.ids).await;
        assert_eq!(result, Err(TxnError::InvalidTransactionTimeout));
    }
    assert_eq!(setup.init("a").await, Err(TxnError::NotCoordinator));
}

#[tokio::test(start_paused = true)]
async fn shards_get_the_finalised_level() {
    let setup = Setup::new(true).await;
    let value_version = || {
        let batches = setup.log.batches.lock();
        // As `MemoryRecords.withRecords` of Kafka writes it.
        assert!(batches.iter().all(|batch| batch.header.base_sequence == -1));
        let record = batches.last().unwrap().records(1000).unwrap().next().unwrap().unwrap();
        i16::from_be_bytes(record.value.unwrap()[..2].try_into().unwrap())
    };
    setup.init("a").await.unwrap();
    assert_eq!(value_version(), 0);
    setup.transactions.set_version(TransactionVersion::V2);
    setup.init("a").await.unwrap();
    assert_eq!(value_version(), 1);
    setup.transactions.on_elected(0, 8, Arc::clone(&setup.log) as _);
    setup.loaded().await;
    setup.init("a").await.unwrap();
    assert_eq!(value_version(), 1);
}
