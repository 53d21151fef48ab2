//! Tests of the transaction coordinator's state machine: golden scripts, values that Kafka has
//! written, and properties of random runs.

mod property;
mod records;
mod script;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Event, LoggedState, Record, Reply, Request, TimerKey, TxnConfig, TxnShard, VolatileState,
    messages::ShardEffect,
};
use crate::{
    coordinator::{Outcome, Shard, TimerOp, Token, golden},
    records::TransactionVersion,
};

#[test]
fn golden_scripts() {
    golden::check_scripts::<script::Script>("src/coordinator/txn/testscripts");
}

/// A shard with its log, whose records are committed at once.
struct Machine {
    logged: LoggedState,
    volatile: VolatileState,
    now_ms: i64,
    leader_epoch: i32,
    timers: BTreeMap<TimerKey, i64>,
    log: Vec<Record>,
    next_token: Token,
}

/// What an event has led to.
#[derive(Debug, Default)]
struct Effects {
    records: Vec<Record>,
    replies: Vec<(Token, Reply)>,
    effects: Vec<ShardEffect>,
}

impl Machine {
    fn new(config: TxnConfig) -> Self {
        let volatile = VolatileState::new(Arc::new(config), TransactionVersion::V2);
        Self {
            logged: LoggedState::default(),
            volatile,
            now_ms: 0,
            leader_epoch: 0,
            timers: BTreeMap::new(),
            log: Vec::new(),
            next_token: 0,
        }
    }

    fn request(&mut self, request: Request) -> Effects {
        self.next_token += 1;
        self.event(Event::Request { token: self.next_token, request })
    }

    fn event(&mut self, event: Event) -> Effects {
        let (volatile, now_ms) = (&mut self.volatile, self.now_ms);
        let Outcome { records, replies, timers, effects } =
            TxnShard::decide(&self.logged, volatile, now_ms, self.leader_epoch, event);
        for record in &records {
            self.append(record.clone());
        }
        for op in timers {
            match op {
                TimerOp::Set { key, at_ms } => self.timers.insert(key, at_ms),
                TimerOp::SetOnce { key, at_ms } => Some(*self.timers.entry(key).or_insert(at_ms)),
                TimerOp::Cancel { key } => self.timers.remove(&key),
            };
        }
        Effects { records, replies, effects }
    }

    fn append(&mut self, record: Record) {
        self.logged.apply(&record);
        self.log.push(record);
    }

    /// Moves the time to the next timer until `until_ms`, and returns what the timer has led to.
    /// `None` if none is due.
    fn next_timer(&mut self, until_ms: i64) -> Option<Effects> {
        let due = self.timers.iter().map(|(key, at_ms)| (*at_ms, key.clone())).min();
        let Some((at_ms, key)) = due.filter(|(at_ms, _)| *at_ms <= until_ms) else {
            self.now_ms = until_ms;
            return None;
        };
        self.now_ms = self.now_ms.max(at_ms);
        self.timers.remove(&key);
        Some(self.event(Event::Timer(key)))
    }

    /// The state that the first records of the log give.
    fn replay(&self, records: usize) -> LoggedState {
        let mut logged = LoggedState::default();
        for record in &self.log[..records] {
            let (key, value) = record.encode();
            let decoded = TxnShard::decode(key, value).unwrap().unwrap();
            logged.apply(&decoded);
        }
        logged
    }

    /// Loads the shard again, as another leader would.
    fn reload(&mut self) -> Effects {
        let replayed = self.replay(self.log.len());
        assert_eq!(replayed, self.logged);
        let VolatileState { config, version, .. } = &self.volatile;
        self.volatile = VolatileState::new(Arc::clone(config), *version);
        self.timers.clear();
        self.event(Event::Loaded)
    }
}
