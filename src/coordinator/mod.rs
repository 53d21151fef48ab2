//! Coordinators are pure state machines. This broker runs one instance, a shard, for each partition
//! of a coordinator's internal topic that it leads.
//!
//! The module owns the interface of a shard ([`Shard`]), that of a coordinator for the broker
//! ([`Coordinator`]), the group coordinator ([`group`]), the transaction coordinator ([`txn`]) and the
//! runtime that loads, runs and stops shards ([`runtime`]). It knows neither requests, nor
//! connections, nor error codes of the protocol. A shard knows neither tokio nor logs.
//!
//! Invariants:
//! - Logged state is what the log says. Only `apply` changes it, both while loading and while
//!   serving.
//! - Volatile state is lost with the shard: parked requests, and members of an unfinished rebalance.
//!   Clients retry.
//! - Tokens are integers and timers are data, so the events of a shard can be replayed and give the
//!   same outcomes.

#[cfg(test)]
mod golden;
pub mod group;
mod group_coordinator;
mod record_value;
pub mod runtime;
pub mod txn;
mod txn_coordinator;

use std::sync::Arc;

use bytes::Bytes;

pub use self::{
    group_coordinator::{Answer, GroupCoordinator},
    runtime::{ShardLog, ShardLogError, WriteRefused},
    txn_coordinator::{ProducerIdSource, TxnCoordinator, TxnCounters},
};
use crate::{
    base::TopicPartition,
    protocol::WireError,
    records::{Producer, TransactionVersion, TxnMarker, Verification},
};

/// The topic with the records of the group coordinator.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The topic with the records of the transaction coordinator.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// An integer that identifies a parked request until the shard answers it.
pub type Token = u64;

/// A change of a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerOp<K> {
    /// Sets a timer. It replaces the one with the same key.
    Set {
        key: K,
        at_ms: i64,
    },
    /// Sets a timer, unless one with the same key is set.
    SetOnce {
        key: K,
        at_ms: i64,
    },
    Cancel {
        key: K,
    },
}

/// The kind of batch that a record is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// A batch without a producer, which most records are in.
    Plain,
    /// A batch in a transaction of a producer.
    Transactional(Producer),
    /// A batch with one record, the marker that ends a transaction of a producer.
    Control(Producer),
}

/// The batch that the decision on a request may need. The runtime asks the log before the shard
/// decides, because a decision cannot be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlannedBatch {
    /// A batch without a producer.
    Plain,
    /// A batch in a transaction of a producer. If the producer has no open transaction in the
    /// partition, the batch needs a verification that allows to begin one.
    Transactional { producer: Producer, verification: Verification, version: TransactionVersion },
    /// The marker that ends a transaction of a producer.
    Marker(TxnMarker),
}

/// What a shard decides on.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<R, T> {
    /// All records of the log have been applied. It is the first event of a shard.
    Loaded,
    /// A request. A reply must name its token.
    Request { token: Token, request: R },
    /// A timer whose time has come.
    Timer(T),
}

/// What an event leads to. The runtime appends and applies the records, and sets the timers. Once
/// everything appended so far is committed, it sends the replies and hands over the effects.
pub struct Outcome<S: Shard> {
    pub records: Vec<S::Record>,
    pub replies: Vec<(Token, S::Reply)>,
    pub timers: Vec<TimerOp<S::Timer>>,
    /// Work outside the shard, in the order in which it is handed over.
    pub effects: Vec<S::Effect>,
}

impl<S: Shard> Default for Outcome<S> {
    fn default() -> Self {
        Self { records: Vec::new(), replies: Vec::new(), timers: Vec::new(), effects: Vec::new() }
    }
}

/// The state machine of a coordinator for one partition of its topic. Only the runtime calls it,
/// and never concurrently. All functions are pure: they have no clock, no randomness and no I/O.
pub trait Shard: Sized + 'static {
    type Request: Send;
    type Reply: Send;
    type Record: Send;
    type Timer: Clone + Ord + std::hash::Hash + Send;
    /// Work that a decision requests from the rest of the broker. Effects are lost with the shard,
    /// so [`Event::Loaded`] must request again what the logged state still demands.
    type Effect: Send;
    /// The state that the log determines. It begins with the default.
    type LoggedState: Default + Send;
    /// The state that is lost with the shard.
    type VolatileState: Send;

    /// Whether the shard's records must reach all in-sync replicas, of which there must be
    /// `min.insync.replicas` (acks=all). Timers then wait while there are too few.
    const NEEDS_ALL_REPLICAS: bool = false;

    /// The base sequence of batches without a producer. Kafka's coordinators differ in it.
    const BASE_SEQUENCE: i32 = 0;

    /// The batch that the decision on a request may need. If the log does not take such a batch, the
    /// caller gets the reason and the shard does not see the request. `None` if the decision writes
    /// nothing, or only what the log takes in any case.
    fn planned_batch(_request: &Self::Request) -> Option<PlannedBatch> {
        None
    }

    /// Decides what an event leads to, and changes the volatile state. `leader_epoch` is that of
    /// the shard's partition (Kafka's coordinator epoch). It rises when this broker is elected
    /// again. If the records cannot be appended, the runtime discards the shard and loads it again,
    /// because the volatile state already includes them.
    fn decide(
        logged: &Self::LoggedState,
        volatile: &mut Self::VolatileState,
        now_ms: i64,
        leader_epoch: i32,
        event: Event<Self::Request, Self::Timer>,
    ) -> Outcome<Self>;

    /// The kind of batch that a record must be written in. Records of one event that need different
    /// batches are appended in their order, but one batch may be written without the next.
    fn batch_kind(_record: &Self::Record) -> BatchKind {
        BatchKind::Plain
    }

    /// Applies a record at `offset` of the log to the logged state. A record in a transactional
    /// batch counts only once [`Self::end_transaction`] commits it. Markers are not applied.
    fn apply(
        logged: &mut Self::LoggedState,
        offset: i64,
        batch_kind: BatchKind,
        record: &Self::Record,
    );

    /// Whether a reply is sent before its records are committed. Only a planted bug does that.
    fn answers_early(_reply: &Self::Reply) -> bool {
        false
    }

    /// Commits or aborts the records of a producer's transaction, because the log has its marker.
    fn end_transaction(_logged: &mut Self::LoggedState, _producer_id: i64, _commits: bool) {}

    /// Encodes a record as the key and the value of the log. A value of `None` is a tombstone.
    fn encode(record: &Self::Record) -> (Bytes, Option<Bytes>);

    /// Decodes a record of the log; `None` if the shard does not use records of this type. An error
    /// fails the load of the shard.
    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Self::Record>, WireError>;
}

/// A coordinator, as the broker sees it. The broker tells it which partitions of its internal topic
/// this broker leads, and the coordinator runs a shard for each.
pub trait Coordinator: Send + Sync {
    /// The name of the internal topic.
    fn topic(&self) -> &'static str;

    /// Sets the number of partitions of the internal topic. The broker calls this after each change
    /// of metadata, once the topic exists.
    fn set_partition_count(&self, partitions: i32);

    /// Starts the shard of a partition that this broker now leads, and replaces an earlier one.
    /// Must be called within a tokio runtime, which then runs the shard's task.
    fn on_elected(&self, partition: i32, leader_epoch: i32, log: Arc<dyn ShardLog>);

    /// Passes a new leader epoch to the shard of a partition that this broker leads without a
    /// break. The shard is not loaded again.
    fn on_reelected(&self, partition: i32, leader_epoch: i32);

    /// Stops the shard of a partition that this broker no longer leads. Requests that wait in it
    /// fail, and its effects are dropped.
    fn on_resigned(&self, partition: i32);

    /// Called with the partitions of any deleted topics. Must be called within a tokio runtime.
    fn on_topics_deleted(&self, partitions: &[TopicPartition]);
}
