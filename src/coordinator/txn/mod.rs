//! The transaction coordinator as a pure shard: transactional ids, their producers and their
//! transactions.
//!
//! The module owns the records of `__transaction_state` ([`records`]), the state that they determine
//! ([`logged_state`]), its transitions ([`state`]) and all rules between a request and its reply. The
//! rules are those of Kafka's `TransactionCoordinator`. It knows neither the clock, nor where
//! producer ids come from (they come with the request), nor how markers reach partitions.
//!
//! A transition is applied when it is decided, and its reply waits until the record is committed.
//! Kafka answers CONCURRENT_TRANSACTIONS while a record is not committed. Here the next request is
//! decided from the state after it.
//!
//! Invariants:
//! - A transaction has one outcome. Markers are requested when its Prepare record is written, and
//!   leave once that record is committed.
//! - The Complete record is written when all partitions have the marker.
//! - The epoch of a producer id never falls.
//! - A record that is too large for one append is never proposed. The request is refused instead.

mod admin;
pub mod config;
mod end;
mod expire;
mod init;
pub mod logged_state;
mod markers;
pub mod messages;
mod partitions;
pub mod records;
pub mod state;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

pub use self::{
    config::TxnConfig,
    logged_state::LoggedState,
    messages::{Reply, Request, TxnError},
    records::Record,
};
use self::{
    markers::Waiting,
    messages::{Effect, Refused, ShardEffect},
    records::{size_bound, value_version},
    state::{Partitions, Transaction},
};
use super::{BatchKind, Outcome, PlannedBatch, Shard, TimerOp, Token};
use crate::{protocol::WireError, records::TransactionVersion};

/// The transaction coordinator as a shard.
#[derive(Debug)]
pub enum TxnShard {}

/// What the shard decides on.
pub type Event = super::Event<Request, TimerKey>;

/// Identifies a timer. One with the same key replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimerKey {
    /// Completes loaded transactions that need no marker.
    Complete,
    /// The next search for transactions that have timed out.
    Abort,
    /// The next search for transactional ids that have expired.
    Expire,
}

/// The fields of a [`Transaction`] that its record does not have.
#[derive(Debug, Clone, PartialEq)]
struct Unlogged {
    last_epoch: i16,
    previous_id: i64,
    next_id: i64,
    version: TransactionVersion,
}

/// The state that a restart loses.
#[derive(Debug, Default)]
pub struct VolatileState {
    pub config: Arc<TxnConfig>,
    /// The finalised level of `transaction.version`. It decides the version of records, and the
    /// protocol by which the coordinator itself aborts.
    pub version: TransactionVersion,
    /// Only ids with a field that differs from the logged state.
    unlogged: BTreeMap<Arc<str>, Unlogged>,
    /// The ended transactions that wait for their markers, by id.
    waiting: BTreeMap<Arc<str>, Waiting>,
}

impl VolatileState {
    pub fn new(config: Arc<TxnConfig>, version: TransactionVersion) -> Self {
        Self { config, version, ..Self::default() }
    }
}

impl Shard for TxnShard {
    type Request = Request;
    type Reply = Reply;
    type Record = Record;
    type Timer = TimerKey;
    type Effect = ShardEffect;
    type LoggedState = LoggedState;
    type VolatileState = VolatileState;

    const NEEDS_ALL_REPLICAS: bool = true;
    const BASE_SEQUENCE: i32 = -1;

    fn planned_batch(request: &Request) -> Option<PlannedBatch> {
        match request {
            Request::Init { .. }
            | Request::Add(_)
            | Request::End { .. }
            | Request::AbortTimedOut { .. }
            | Request::MarkersWritten(_) => Some(PlannedBatch::Plain),
            Request::Verify(_)
            | Request::Describe(_)
            | Request::List(_)
            | Request::SetVersion(_)
            | Request::Survey => None,
        }
    }

    fn decide(
        logged: &LoggedState,
        volatile: &mut VolatileState,
        now_ms: i64,
        leader_epoch: i32,
        event: Event,
    ) -> Outcome<Self> {
        let mut turn = Turn { logged, volatile, now_ms, leader_epoch, out: Outcome::default() };
        match event {
            Event::Loaded => turn.loaded(),
            Event::Request { token, request } => turn.request(token, request),
            Event::Timer(TimerKey::Complete) => turn.complete_loaded(),
            Event::Timer(TimerKey::Abort) => turn.abort_overdue(),
            Event::Timer(TimerKey::Expire) => turn.expire_ids(),
        }
        turn.out
    }

    fn apply(logged: &mut LoggedState, _offset: i64, _batch_kind: BatchKind, record: &Record) {
        logged.apply(record);
    }

    fn encode(record: &Record) -> (Bytes, Option<Bytes>) {
        record.encode()
    }

    /// Records that cannot be read are decoded as such, so that [`Event::Loaded`] logs their number.
    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Record>, WireError> {
        Ok(Some(Record::decode(key, value)))
    }
}

/// One decision in progress. `out` collects what it leads to.
struct Turn<'a> {
    logged: &'a LoggedState,
    volatile: &'a mut VolatileState,
    now_ms: i64,
    leader_epoch: i32,
    out: Outcome<TxnShard>,
}

impl Turn<'_> {
    fn request(&mut self, token: Token, request: Request) {
        let reply = match request {
            Request::Init { request, new_producer_id } => {
                Reply::Producer(self.init(&request, new_producer_id))
            }
            Request::Add(request) => Reply::Done(self.add(&request)),
            Request::Verify(request) => Reply::Verified(self.verify(request)),
            Request::End { request, new_producer_id } => {
                Reply::Producer(self.end(&request, new_producer_id))
            }
            Request::AbortTimedOut { id, producer, new_producer_id } => {
                Reply::Done(self.abort_timed_out(&id, producer, new_producer_id))
            }
            Request::MarkersWritten(written) => {
                self.markers_written(&written);
                Reply::Done(Ok(()))
            }
            Request::Describe(id) => Reply::Description(self.describe(&id)),
            Request::List(request) => Reply::List(self.list(&request)),
            Request::SetVersion(version) => {
                self.volatile.version = version;
                Reply::Done(Ok(()))
            }
            Request::Survey => Reply::Survey(self.survey()),
        };
        self.out.replies.push((token, reply));
    }

    /// Requests the markers of all ended transactions again, because another coordinator may not
    /// have written all of them.
    fn loaded(&mut self) {
        if let Some((records, reason)) = self.logged.unreadable {
            let topic = super::TRANSACTIONS_TOPIC;
            tracing::warn!(topic, records, first_reason = %reason, "skipped unreadable records");
        }
        let logged = self.logged;
        for (id, txn) in logged.transactions.iter().filter(|(_, txn)| txn.state.is_prepare()) {
            if txn.partitions.is_empty() {
                self.set_timer(TimerKey::Complete, 0);
            } else {
                self.request_markers(id, txn);
            }
        }
        self.set_timer(TimerKey::Abort, self.volatile.config.abort_interval_ms);
        self.set_timer(TimerKey::Expire, self.volatile.config.expiry_interval_ms);
    }

    /// A transactional id with the fields that its record does not have.
    fn current(&self, id: &str) -> Option<Transaction> {
        let logged = self.logged.transactions.get(id)?.clone();
        Some(match self.volatile.unlogged.get(id) {
            Some(&Unlogged { last_epoch, previous_id, next_id, version }) => {
                Transaction { last_epoch, previous_id, next_id, version, ..logged }
            }
            None => logged,
        })
    }

    fn write(&mut self, id: &Arc<str>, value: Transaction) {
        let version = value_version(self.volatile.version);
        let unlogged = &mut self.volatile.unlogged;
        match value.as_logged(version) == value {
            true => {
                unlogged.remove(id);
            }
            false => {
                let Transaction { last_epoch, previous_id, next_id, version, .. } = value;
                let of_id = Unlogged { last_epoch, previous_id, next_id, version };
                unlogged.insert(id.clone(), of_id);
            }
        }
        self.out.records.push(Record::State { id: id.clone(), value, version });
    }

    /// Refuses a transaction whose record would be too large for one append.
    fn check_size(&self, id: &str, partitions: &Partitions) -> Result<(), TxnError> {
        let (bytes, limit) = (size_bound(id, partitions), self.volatile.config.max_batch_bytes);
        if bytes.is_some_and(|bytes| bytes <= limit) {
            return Ok(());
        }
        let partitions = partitions.len();
        tracing::warn!(?bytes, limit, partitions, "the record of a transaction is too large");
        Err(TxnError::UnknownServerError)
    }

    fn effect(&mut self, effect: Effect) {
        self.out.effects.push(ShardEffect::Broker(effect));
    }

    fn set_timer(&mut self, key: TimerKey, delay_ms: i64) {
        let at_ms = self.now_ms.saturating_add(delay_ms);
        self.out.timers.push(TimerOp::Set { key, at_ms });
    }
}

#[cfg(test)]
mod tests;
