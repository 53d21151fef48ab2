//! The handle to the transaction coordinator for handlers and the broker. It routes each request by
//! transactional id to the shard of the id's partition of `__transaction_state`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI16, AtomicI32, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_core::future::BoxFuture;
use tokio::time::Instant;

use super::{
    Coordinator, TRANSACTIONS_TOPIC,
    group::partition_for,
    runtime::{CallError, Limits, ShardLog, Shards, Unavailable, WriteRefused},
    txn::{
        TxnConfig, TxnShard, VolatileState,
        messages::{
            AddRequest, Effect, EndRequest, InitRequest, ListRequest, ListedTxn, MarkersWritten,
            Refused, Reply, Request, ShardEffect, TxnDescription, TxnError, TxnOutcome, TxnSurvey,
            Verified, VerifyRequest,
        },
    },
};
use crate::{
    base::TopicPartition,
    records::{Producer, TransactionVersion},
};

/// Delay before a report of markers that the log refused is handed to the shard again.
const REPORT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Gives out new producer ids.
pub trait ProducerIdSource: Send + Sync {
    /// Returns an id that no producer has had. Fails if there is none for now.
    fn next(&self) -> BoxFuture<'_, Result<i64, ()>>;
}

/// The transactions that have ended since the start of the broker.
#[derive(Debug, Default)]
pub struct TxnCounters {
    ended: [AtomicU64; TxnOutcome::ALL.len()],
    completed: AtomicU64,
    completion_ms: AtomicU64,
}

impl TxnCounters {
    fn count(&self, outcome: TxnOutcome) {
        self.ended[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn count_completed(&self, took_ms: i64) {
        self.completed.fetch_add(1, Ordering::Relaxed);
        self.completion_ms.fetch_add(took_ms as u64, Ordering::Relaxed);
    }

    /// The number of transactions with an outcome.
    pub fn ended(&self, outcome: TxnOutcome) -> u64 {
        self.ended[outcome as usize].load(Ordering::Relaxed)
    }

    /// The number of ended transactions that have all markers.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// The time from the end to the last marker of all completed transactions, in milliseconds.
    pub fn completion_ms(&self) -> u64 {
        self.completion_ms.load(Ordering::Relaxed)
    }
}

struct Inner {
    shards: Shards<TxnShard>,
    config: Arc<TxnConfig>,
    /// The finalised level of `transaction.version`.
    level: AtomicI16,
    partitions: AtomicI32,
    counters: Arc<TxnCounters>,
}

/// Handle to the transaction coordinator; clones share it. A request fails with `NotCoordinator` if
/// this broker does not lead the id's partition, and with `CoordinatorLoadInProgress` while its shard
/// loads. It fails with `CoordinatorNotAvailable` if its records cannot be committed now, or are not
/// committed in time.
///
/// A request has its place in the order of its shard once its future has been polled.
#[derive(Clone)]
pub struct TxnCoordinator(Arc<Inner>);

impl TxnCoordinator {
    /// `on_effect` does the work that the partition's shard requests. It is called in the shard's
    /// task, so it must neither block nor panic.
    pub fn new(config: TxnConfig, on_effect: impl Fn(i32, Effect) + Send + Sync + 'static) -> Self {
        let counters = Arc::new(TxnCounters::default());
        let counted = Arc::clone(&counters);
        let shards = Shards::new(move |partition, effect| match effect {
            ShardEffect::Broker(effect) => on_effect(partition, effect),
            ShardEffect::Ended(outcome) => counted.count(outcome),
            ShardEffect::Completed { took_ms } => counted.count_completed(took_ms),
        });
        let partitions = AtomicI32::new(config.topic_num_partitions);
        let (config, level) = (Arc::new(config), AtomicI16::new(0));
        Self(Arc::new(Inner { shards, config, level, partitions, counters }))
    }

    /// The transactions that have ended since the start of the broker.
    pub fn counters(&self) -> &TxnCounters {
        &self.0.counters
    }

    /// The partition of `__transaction_state` that stores a transactional id.
    pub fn partition_of(&self, id: &str) -> i32 {
        partition_for(id, self.0.partitions.load(Ordering::Acquire))
    }

    /// The partition of the shard that decides on a transactional id, which must not be empty.
    fn shard_of(&self, id: &str) -> Result<i32, TxnError> {
        match id.is_empty() {
            true => Err(TxnError::InvalidRequest),
            false => Ok(self.partition_of(id)),
        }
    }

    /// Sets the finalised level of `transaction.version`. Must be called within a tokio runtime.
    pub fn set_version(&self, version: TransactionVersion) {
        if self.0.level.swap(version.level(), Ordering::AcqRel) != version.level() {
            self.0.shards.notify_all(|| Request::SetVersion(version));
        }
    }

    /// InitProducerId. Returns the client's producer.
    pub async fn init(
        &self,
        request: InitRequest,
        ids: &dyn ProducerIdSource,
    ) -> Result<Producer, TxnError> {
        let partition = self.shard_of(&request.id)?;
        if !(1..=self.0.config.max_timeout_ms).contains(&request.timeout_ms) {
            return Err(TxnError::InvalidTransactionTimeout);
        }
        self.with_producer_id(partition, ids, |new_producer_id| Request::Init {
            request: request.clone(),
            new_producer_id,
        })
        .await
    }

    /// AddPartitionsToTxn.
    pub async fn add(&self, request: AddRequest) -> Result<(), TxnError> {
        let partition = self.shard_of(&request.id)?;
        match self.call(partition, Request::Add(request)).await? {
            Reply::Done(result) => result,
            _ => Err(TxnError::UnknownServerError),
        }
    }

    /// AddPartitionsToTxn with `verifyOnly`.
    pub async fn verify(&self, request: VerifyRequest) -> Result<Verified, TxnError> {
        let partition = self.shard_of(&request.id)?;
        match self.call(partition, Request::Verify(request)).await? {
            Reply::Verified(result) => result,
            _ => Err(TxnError::UnknownServerError),
        }
    }

    /// EndTxn. In transaction version 2, it returns the producer of the client's next transaction.
    /// In lower versions, id and epoch are -1.
    pub async fn end(
        &self,
        request: EndRequest,
        ids: &dyn ProducerIdSource,
    ) -> Result<Producer, TxnError> {
        let partition = self.shard_of(&request.id)?;
        self.with_producer_id(partition, ids, |new_producer_id| Request::End {
            request: request.clone(),
            new_producer_id,
        })
        .await
    }

    /// Does what [`Effect::AbortTimedOut`] of a partition's shard requests.
    pub async fn abort_timed_out(
        &self,
        partition: i32,
        id: Arc<str>,
        producer: Producer,
        ids: &dyn ProducerIdSource,
    ) -> Result<(), TxnError> {
        let new_producer_id = ids.next().await.map_err(|()| TxnError::CoordinatorLoadInProgress)?;
        let request = Request::AbortTimedOut { id, producer, new_producer_id };
        match self.call(partition, request).await? {
            Reply::Done(result) => result,
            _ => Err(TxnError::UnknownServerError),
        }
    }

    /// Reports markers to the shard of a partition. While there are too few in-sync replicas, the
    /// report is repeated. Returns once the shard has taken it, or has ended.
    pub async fn markers_written(&self, partition: i32, written: MarkersWritten) {
        let report = || self.0.shards.call(partition, Request::MarkersWritten(written.clone()));
        // If the shard ends or loads, it requests the markers again.
        while let Ok(answer) = report().await
            && let Ok(Err(CallError::Refused(WriteRefused::NotEnoughReplicas))) = answer.await
        {
            tokio::time::sleep(REPORT_RETRY_DELAY).await;
        }
    }

    /// The state of a transactional id.
    pub async fn describe(&self, id: Arc<str>) -> Result<TxnDescription, TxnError> {
        match self.call(self.shard_of(&id)?, Request::Describe(id)).await? {
            Reply::Description(result) => result,
            _ => Err(TxnError::UnknownServerError),
        }
    }

    /// ListTransactions: the transactional ids of all partitions that this broker leads. Fails if
    /// one of their shards is loading.
    pub async fn list(&self, request: ListRequest) -> Result<Vec<ListedTxn>, TxnError> {
        let mut listed = Vec::new();
        for partition in self.0.shards.partitions() {
            match self.call(partition, Request::List(request.clone())).await {
                Ok(Reply::List(transactions)) => listed.extend(transactions),
                Ok(_) => return Err(TxnError::UnknownServerError),
                Err(TxnError::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }

    /// The numbers of transactions of this broker, for metrics. Leaves out shards that are loading
    /// or do not answer by the deadline.
    pub async fn survey(&self, deadline: Instant) -> TxnSurvey {
        let mut total = TxnSurvey::default();
        for reply in self.0.shards.ask_all(|| Request::Survey, deadline).await {
            if let Reply::Survey(survey) = reply {
                total.add(&survey);
            }
        }
        total
    }

    /// Sends a request, and once more with a new producer id if the decision needs one.
    async fn with_producer_id(
        &self,
        partition: i32,
        ids: &dyn ProducerIdSource,
        request: impl Fn(Option<i64>) -> Request,
    ) -> Result<Producer, TxnError> {
        let mut new_producer_id = None;
        loop {
            match self.call(partition, request(new_producer_id)).await? {
                Reply::Producer(Ok(producer)) => return Ok(producer),
                Reply::Producer(Err(Refused::Error(error))) => return Err(error),
                Reply::Producer(Err(Refused::NeedsProducerId)) if new_producer_id.is_none() => {
                    let next = ids.next().await;
                    let next = next.map_err(|()| TxnError::CoordinatorLoadInProgress)?;
                    new_producer_id = Some(next);
                }
                _ => return Err(TxnError::UnknownServerError),
            }
        }
    }

    /// Sends a request to the shard of a partition, and waits for the reply.
    async fn call(&self, partition: i32, request: Request) -> Result<Reply, TxnError> {
        let answer = self.0.shards.call(partition, request).await.map_err(unavailable)?;
        answer.await.map_err(|_| TxnError::NotCoordinator)?.map_err(not_done)
    }
}

impl Coordinator for TxnCoordinator {
    fn topic(&self) -> &'static str {
        TRANSACTIONS_TOPIC
    }

    /// Before the topic exists, the number is `transaction.state.log.num.partitions`.
    fn set_partition_count(&self, partitions: i32) {
        self.0.partitions.store(partitions, Ordering::Release);
    }

    fn on_elected(&self, partition: i32, leader_epoch: i32, log: Arc<dyn ShardLog>) {
        let config = Arc::clone(&self.0.config);
        let commit_timeout = Duration::from_millis(config.commit_timeout_ms);
        let limits = Limits { max_batch_bytes: config.max_batch_bytes, commit_timeout };
        let inner = Arc::downgrade(&self.0);
        let new_volatile = move || {
            let level = inner.upgrade().map_or(0, |inner| inner.level.load(Ordering::Acquire));
            VolatileState::new(Arc::clone(&config), TransactionVersion::of_level(level))
        };
        self.0.shards.elect(partition, leader_epoch, log, limits, new_volatile);
    }

    fn on_reelected(&self, partition: i32, leader_epoch: i32) {
        self.0.shards.set_leader_epoch(partition, leader_epoch);
    }

    /// Requests that wait in the shard fail with `NotCoordinator`.
    fn on_resigned(&self, partition: i32) {
        self.0.shards.resign(partition);
    }

    /// The sender of markers reports deleted partitions as written.
    fn on_topics_deleted(&self, _partitions: &[TopicPartition]) {}
}

fn unavailable(unavailable: Unavailable) -> TxnError {
    match unavailable {
        Unavailable::NotCoordinator => TxnError::NotCoordinator,
        Unavailable::Loading => TxnError::CoordinatorLoadInProgress,
    }
}

fn not_done(error: CallError) -> TxnError {
    match error {
        CallError::NotCommitted | CallError::Refused(WriteRefused::NotEnoughReplicas) => {
            TxnError::CoordinatorNotAvailable
        }
        CallError::Refused(_) => TxnError::NotCoordinator,
    }
}
