//! What clients did and heard, for the checks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A topic and a partition of it.
pub type Place = (String, i32);

/// Records whose append was acknowledged, with the offset of the first.
pub struct Acked {
    pub place: Place,
    pub base_offset: i64,
    pub values: Vec<String>,
}

/// A batch as a consumer was given it.
pub struct Read {
    pub place: Place,
    pub base_offset: i64,
    pub last_offset: i64,
    pub crc: u32,
}

/// A request that was not answered for longer than it allows.
pub struct Silence {
    pub client: String,
    pub host: String,
    /// When the connection was asked for, by the clients' clock.
    pub opened_ms: i64,
    pub waited: Duration,
}

/// An append of which a broker said that it is not acknowledged in time.
pub struct TimedOut {
    pub host: String,
    pub place: Place,
    /// The first value.
    pub first: String,
}

/// What a group's members have committed of a partition. No offset is committed twice.
#[derive(Clone, Copy)]
pub struct Commits {
    /// The largest that was sent.
    pub drawn: i64,
    pub acknowledged: i64,
}

impl Default for Commits {
    fn default() -> Self {
        // As the coordinator answers where nothing is committed.
        Self { drawn: -1, acknowledged: -1 }
    }
}

impl Commits {
    pub fn draw(&mut self) -> i64 {
        self.drawn += 1;
        self.drawn
    }

    pub fn acknowledge(&mut self, offset: i64) {
        self.acknowledged = self.acknowledged.max(offset);
    }
}

#[derive(Default)]
pub struct History {
    /// Since the last check.
    pub acked: Vec<Acked>,
    pub read: Vec<Read>,
    /// By group and place.
    commits: BTreeMap<(String, Place), Commits>,
    /// Members by group, partition and generation.
    pub owners: BTreeMap<(String, i32, i32), String>,
    pub silences: Vec<Silence>,
    pub timed_out: Vec<TimedOut>,
    /// What clients have found by themselves.
    pub wrong: Vec<String>,
    /// How often each client has got on.
    pub progress: BTreeMap<String, u64>,
    /// How often each error was answered.
    pub errors: BTreeMap<i16, u64>,
}

#[derive(Clone, Default)]
pub struct SharedHistory(Arc<Mutex<History>>);

impl SharedHistory {
    pub fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    pub fn got_on(&mut self, client: &str) {
        *self.progress.entry(client.to_owned()).or_default() += 1;
    }

    pub fn commits(&mut self, group: &str, place: &Place) -> &mut Commits {
        self.commits.entry((group.to_owned(), place.clone())).or_default()
    }

    pub fn refused(&mut self, code: i16) {
        *self.errors.entry(code).or_default() += 1;
    }
}
