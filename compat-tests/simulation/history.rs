//! What clients sent and received, for the checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use sordini::records::{BatchHeader, Producer};

use crate::consumer_history::ConsumerHistory;

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
pub struct Commits {
    /// The largest offset that a member sent.
    pub drawn: i64,
    pub acknowledged: i64,
    /// Offsets of commits that were neither acknowledged nor refused. One may arrive late, after
    /// a newer commit on another connection. The broker cannot detect that (Kafka applies it, too).
    unsettled: BTreeSet<i64>,
    /// The largest offset that a member had sent when the group was deleted.
    deleted: i64,
}

impl Default for Commits {
    fn default() -> Self {
        // -1 is also the coordinator's response if no offset is committed.
        Self { drawn: -1, acknowledged: -1, unsettled: BTreeSet::new(), deleted: -1 }
    }
}

impl Commits {
    pub fn draw(&mut self) -> i64 {
        self.drawn += 1;
        self.drawn
    }

    /// Draws an offset whose commit may arrive late.
    pub fn send(&mut self) -> i64 {
        let offset = self.draw();
        self.unsettled.insert(offset);
        offset
    }

    pub fn acknowledge(&mut self, offset: i64) {
        self.acknowledged = self.acknowledged.max(offset);
        self.unsettled.remove(&offset);
    }

    pub fn refuse(&mut self, offset: i64) {
        self.unsettled.remove(&offset);
    }

    /// Whether the commit of an offset may arrive late.
    pub fn is_unsettled(&self, offset: i64) -> bool {
        self.unsettled.contains(&offset)
    }

    /// Whether an offset may be the committed one (-1: none is), if `least` was acknowledged
    /// before. A deleted group has none.
    pub fn may_find(&self, offset: i64, least: i64) -> bool {
        match offset {
            -1 => least <= self.deleted,
            _ => {
                let is_known = self.deleted < offset && offset <= self.drawn;
                is_known && (offset >= least || self.is_unsettled(offset))
            }
        }
    }
}

/// A transaction as its worker knows it. It writes the numbers of its inputs to each partition of
/// `places`, and commits the offset after the last input.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The transactional id, which is also the name of the group.
    pub worker: String,
    pub producer: Producer,
    /// The producer epoch of its COMMIT marker.
    pub marker_epoch: i16,
    pub places: Vec<Place>,
    pub inputs: Range<i64>,
    /// Whether the worker has sent EndTxn to commit it, and has not ended it with InitProducerId.
    pub may_commit: bool,
    /// Whether the coordinator may abort it: its timeout is short, or the worker has requested it.
    pub may_abort: bool,
    /// Whether the worker has received a response that it is committed.
    pub is_acknowledged: bool,
}

impl Transaction {
    /// The values that the transaction writes to each of its partitions.
    pub fn values(&self, name: &str) -> Vec<String> {
        self.inputs.clone().map(|number| format!("{name}:{number}")).collect()
    }
}

/// A committed offset that is not the one that the client expects.
pub struct WrongOffset {
    /// The broker that returned it.
    pub host: String,
    pub group: String,
    pub found: i64,
    pub expected: i64,
}

/// What a read_committed reader received in one response.
pub struct CommittedRead {
    pub place: Place,
    pub last_stable_offset: i64,
    /// The base offset of each batch, and whether the reader passed its records on.
    pub batches: Vec<(i64, bool)>,
}

/// What workers and readers recorded. The checks remove what they have checked.
#[derive(Default)]
pub struct TransactionHistory {
    /// Transactions by name.
    pub transactions: BTreeMap<String, Transaction>,
    /// The names of transactions whose commit was acknowledged.
    pub acknowledged: Vec<String>,
    pub reads: Vec<CommittedRead>,
    /// The committed offset of each group according to the committed log. The checks set it.
    pub offsets: BTreeMap<String, i64>,
}

impl TransactionHistory {
    /// Notes that the coordinator may abort all transactions of the worker that are not committed,
    /// because the worker sends InitProducerId.
    pub fn allow_abort(&mut self, worker: &str) {
        for it in self.of_worker(worker) {
            it.may_abort |= !it.is_acknowledged;
        }
    }

    /// Notes that all transactions of the worker have ended, because InitProducerId was answered.
    pub fn all_ended(&mut self, worker: &str) {
        self.of_worker(worker).for_each(|it| it.may_commit = false);
    }

    fn of_worker(&mut self, worker: &str) -> impl Iterator<Item = &mut Transaction> {
        self.transactions.values_mut().filter(move |it| it.worker == worker)
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
    pub transactions: TransactionHistory,
    pub consumers: ConsumerHistory,
    /// Offsets of consumer groups whose commit was acknowledged, by group and partition.
    pub acked_commits: Vec<(String, Place, i64)>,
    pub wrong_offsets: Vec<WrongOffset>,
    /// Probes of coordinators that have had an answer, by name.
    pub served: BTreeSet<String>,
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

    /// Notes a batch that a consumer received.
    pub fn note_read(&mut self, client: &str, place: &Place, header: &BatchHeader) {
        self.note_progress(client);
        self.read.push(Read {
            place: place.clone(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            crc: header.crc,
        });
    }

    pub fn commits(&mut self, group: &str, place: &Place) -> &mut Commits {
        self.commits.entry((group.to_owned(), place.clone())).or_default()
    }

    /// Notes that a group was deleted, or may have been deleted if the coordinator does not know it.
    pub fn forget_commits(&mut self, group: &str, is_deleted: bool) {
        for (_, commits) in self.commits.iter_mut().filter(|((of, _), _)| of == group) {
            commits.acknowledged = -1;
            if is_deleted {
                commits.deleted = commits.drawn;
            }
        }
    }

    pub fn refused(&mut self, code: i16) {
        *self.errors.entry(code).or_default() += 1;
    }
}
