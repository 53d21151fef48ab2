//! Coordinators are pure state machines. This broker runs one instance, a shard, for each partition
//! of a coordinator's internal topic that it leads.
//!
//! The module owns the interface of a shard ([`Shard`]), the group coordinator ([`group`]) and the
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

pub mod group;
mod group_coordinator;
pub mod runtime;

use bytes::Bytes;

pub use self::{
    group_coordinator::{Answer, GroupCoordinator},
    runtime::{ShardLog, ShardLogError},
};
use crate::protocol::WireError;

/// An integer that identifies a parked request until the shard answers it.
pub type Token = u64;

/// A change of a timer. Setting a timer replaces the one with the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerOp<K> {
    Set { key: K, at_ms: i64 },
    Cancel { key: K },
}

/// What an event leads to. The runtime appends and applies the records, sets the timers, and sends
/// the replies once everything appended so far is committed.
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

/// The state machine of a coordinator for one partition of its topic. Only the runtime calls it,
/// and never concurrently. All functions are pure: they have no clock, no randomness and no I/O.
pub trait Shard: Sized + 'static {
    type Event: Send;
    type Request: Send;
    type Reply: Send;
    type Record: Send;
    type Timer: Clone + Ord + std::hash::Hash + Send;
    /// The state that the log determines. It begins with the default.
    type LoggedState: Default + Send;
    /// The state that is lost with the shard.
    type VolatileState: Send;

    /// The event after all records of the log have been applied. It is the first of a shard.
    fn loaded() -> Self::Event;
    /// The event of a request. A reply must name its token.
    fn requested(token: Token, request: Self::Request) -> Self::Event;
    /// The event of a timer whose time has come.
    fn expired(timer: Self::Timer) -> Self::Event;

    /// Decides what an event leads to, and changes the volatile state. If the records cannot be
    /// appended, the runtime discards the shard and loads it again, because the volatile state already
    /// includes them.
    fn decide(
        logged: &Self::LoggedState,
        volatile: &mut Self::VolatileState,
        now_ms: i64,
        event: Self::Event,
    ) -> Outcome<Self>;

    /// Applies a record at `offset` of the log to the logged state.
    fn apply(logged: &mut Self::LoggedState, offset: i64, record: &Self::Record);

    /// Encodes a record as the key and the value of the log. A value of `None` is a tombstone.
    fn encode(record: &Self::Record) -> (Bytes, Option<Bytes>);

    /// Decodes a record of the log; `None` if the shard does not use records of this type. An error
    /// fails the load of the shard.
    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Self::Record>, WireError>;
}
