//! What clients sent and received, for the checks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};

/// A topic and a partition of it.
pub type Place = (String, i32);

/// An acknowledged batch of records, with the offset of the first one.
pub struct Acked {
    pub place: Place,
    pub base_offset: i64,
    pub values: Vec<String>,
}

/// A batch that a consumer received.
pub struct Read {
    pub place: Place,
    pub base_offset: i64,
    pub last_offset: i64,
    pub crc: u32,
}

/// A request without a response within its time limit.
pub struct Unanswered {
    pub client: String,
    pub host: String,
    /// When the client opened the connection, in milliseconds of the clients' clock.
    pub opened_ms: i64,
    pub waited: Duration,
}

/// An append that a broker answered with REQUEST_TIMED_OUT.
pub struct TimedOut {
    pub host: String,
    pub place: Place,
    /// The first value of the batch.
    pub first: String,
}

/// The committed offsets of a group and a partition. Members never commit an offset twice.
#[derive(Clone, Copy)]
pub struct Commits {
    /// The largest offset that a member sent.
    pub drawn: i64,
    pub acknowledged: i64,
}

impl Default for Commits {
    fn default() -> Self {
        // -1 is also the coordinator's response if no offset is committed.
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

/// What all clients recorded. The checks remove what they have checked.
#[derive(Default)]
pub struct History {
    /// Acknowledged batches since the last check.
    pub acked: Vec<Acked>,
    pub read: Vec<Read>,
    /// Commits by group and partition.
    commits: BTreeMap<(String, Place), Commits>,
    /// Members by group, partition and generation.
    pub owners: BTreeMap<(String, i32, i32), String>,
    pub unanswered: Vec<Unanswered>,
    pub timed_out: Vec<TimedOut>,
    /// Errors that clients found themselves.
    pub wrong: Vec<String>,
    /// Number of successful steps of each client.
    pub progress: BTreeMap<String, u64>,
    /// Number of responses with each error code.
    pub errors: BTreeMap<i16, u64>,
}

#[derive(Clone, Default)]
pub struct SharedHistory(Arc<Mutex<History>>);

impl SharedHistory {
    pub fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock()
    }
}

impl History {
    pub fn note_progress(&mut self, client: &str) {
        *self.progress.entry(client.to_owned()).or_default() += 1;
    }

    pub fn commits(&mut self, group: &str, place: &Place) -> &mut Commits {
        self.commits.entry((group.to_owned(), place.clone())).or_default()
    }

    pub fn refused(&mut self, code: i16) {
        *self.errors.entry(code).or_default() += 1;
    }
}
