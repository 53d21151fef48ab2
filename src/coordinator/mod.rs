//! Coordinators: pure state machines, each run as a shard per led partition of its internal topic.
//!
//! Owns the shape of a shard ([`Shard`]), the group coordinator ([`group`]) and the runtime that
//! loads, drives and unloads shards ([`runtime`]). Must not know requests, connections or error
//! codes on the wire; a shard knows neither tokio nor logs.
//!
//! Invariants:
//! - Hard state is what the log says: only `apply` changes it, and loading is the same `apply`.
//! - Soft state (parked requests, members of an unfinished rebalance) is lost with the shard;
//!   clients retry.
//! - Tokens are integers and timers are data, so that a run is events in, effects out.

pub mod group;
mod group_coordinator;
pub mod runtime;

use bytes::Bytes;

pub use self::{
    group_coordinator::{Answer, GroupCoordinator},
    runtime::{ShardLog, ShardLogError},
};
use crate::protocol::WireError;

/// Names a parked request until it is answered.
pub type Token = u64;

/// What is to happen to a timer. A set timer replaces the one with the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerOp<K> {
    Set { key: K, at_ms: i64 },
    Cancel { key: K },
}

/// What an event leads to. The records are to be appended and applied; the replies leave once
/// everything appended so far is committed.
pub struct Outcome<S: Shard> {
    pub records: Vec<S::Record>,
    pub replies: Vec<(Token, S::Reply)>,
    pub timers: Vec<TimerOp<S::Timer>>,
}

impl<S: Shard> Default for Outcome<S> {
    fn default() -> Self {
        Self { records: Vec::new(), replies: Vec::new(), timers: Vec::new() }
    }
}

/// A coordinator's state machine over one partition of its topic.
pub trait Shard: Sized + 'static {
    type Event: Send;
    type Request: Send;
    type Reply: Send;
    type Record: Send;
    type Timer: Clone + Ord + std::hash::Hash + Send;
    type Hard: Default + Send;
    type Soft: Send;

    /// The event that ends loading.
    fn loaded() -> Self::Event;
    fn requested(token: Token, request: Self::Request) -> Self::Event;
    fn expired(timer: Self::Timer) -> Self::Event;

    /// Decides what an event leads to. If the records cannot be appended the shard must be
    /// unloaded, for the soft state has moved on.
    fn decide(
        hard: &Self::Hard,
        soft: &mut Self::Soft,
        now_ms: i64,
        event: Self::Event,
    ) -> Outcome<Self>;

    /// Takes a record of the log into the hard state.
    fn apply(hard: &mut Self::Hard, offset: i64, record: &Self::Record);

    /// The record's key and value.
    fn encode(record: &Self::Record) -> (Bytes, Option<Bytes>);

    /// Reads a record; `None` is one that belongs to somebody else.
    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Self::Record>, WireError>;
}
