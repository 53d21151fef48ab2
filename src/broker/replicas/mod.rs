//! [`Replicas`]: the replicas of this broker with their logs (Kafka's `ReplicaManager` and
//! `LogManager`): opening, replication, moves between log directories, removal, checkpoints, and
//! the failure of a log directory.
//!
//! This module does not decide which replicas exist and which role they have. `apply` passes it
//! committed metadata.
//!
//! Invariants:
//! - Partitions are added and removed only while the lock `applying` is held.
//! - Metadata names a log directory that has all records of the replica, also during a move.
//! - A log directory that has failed stays offline until the next start.

mod changes;
mod directories;
mod discovered_logs;
mod logs;
mod moves;
mod removals;
mod replication;
mod tasks;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use self::logs::Replica;
pub use self::moves::MoveError;
use self::{discovered_logs::DiscoveredLogs, moves::Moves, replication::Replication};
use super::{coordinators::Coordinators, membership::ToController, node::Node};
use crate::{
    log::{
        LogDirs,
        dirs::{DiscoveredLog, SharedLogDirs},
    },
    partition::{FlushQueue, PartitionTable},
    telemetry::{Metrics, StartProgress},
};

/// The replicas of this broker. Each field has its own synchronisation.
pub struct Replicas {
    node: Arc<Node>,
    to_controller: Arc<ToController>,
    metrics: Arc<Metrics>,
    /// A shard resigns when the log directory of its partition fails.
    coordinators: Arc<Coordinators>,
    pub partitions: PartitionTable,
    pub log_dirs: SharedLogDirs,
    pub replication: Replication,
    /// The queue of partition flushes. It limits how many run at the same time.
    flushes: Arc<FlushQueue>,
    moves: Moves,
    found: Mutex<DiscoveredLogs>,
    /// Replicas whose logs could not be opened, although no disk failed. They are retried.
    unopened: Mutex<Vec<Replica>>,
    /// Lock for changes of partitions and coordinator shards. It is held while a metadata batch is
    /// applied, logs are opened, or a move between log directories begins.
    applying: Mutex<()>,
    /// Whether the logs of this broker's partitions are open. They are opened once the metadata
    /// contains this broker's registration.
    are_open: AtomicBool,
    /// Lock that is held while checkpoint files are written, so that no older values replace newer
    /// ones.
    checkpointing: Mutex<()>,
    /// True if replicas were removed but the checkpoints still have their entries. The entries
    /// would be wrong for new logs of the same partitions.
    replicas_left: AtomicBool,
    /// The sum of the settled offsets of all logs when their checkpoint was last written.
    settled: AtomicI64,
    /// Time of the last warning about a transient log failure, in milliseconds.
    last_warned_ms: AtomicI64,
    /// Notified when the state of a log directory has changed. The next heartbeat reports it.
    dirs_changed: Notify,
    /// True once no log directory is left.
    all_dirs_failed: watch::Sender<bool>,
    progress: Arc<StartProgress>,
}

impl Replicas {
    /// Creates the state of replicas that are not open yet. `found` are the partition directories
    /// in `log_dirs`.
    pub fn new(
        node: Arc<Node>,
        to_controller: Arc<ToController>,
        coordinators: Arc<Coordinators>,
        (metrics, progress): (Arc<Metrics>, Arc<StartProgress>),
        (log_dirs, found): (LogDirs, Vec<DiscoveredLog>),
    ) -> Self {
        let settings = node.settings();
        Self {
            node,
            to_controller,
            coordinators,
            partitions: PartitionTable::default(),
            log_dirs: SharedLogDirs::new(log_dirs),
            replication: Replication::new(&metrics),
            metrics,
            flushes: FlushQueue::new(settings.background_threads as usize),
            moves: Moves::new(&settings),
            found: Mutex::new(DiscoveredLogs::new(found)),
            unopened: Mutex::default(),
            applying: Mutex::default(),
            are_open: AtomicBool::new(false),
            checkpointing: Mutex::default(),
            replicas_left: AtomicBool::new(false),
            settled: AtomicI64::new(0),
            last_warned_ms: AtomicI64::new(0),
            dirs_changed: Notify::new(),
            all_dirs_failed: watch::channel(false).0,
            progress,
        }
    }

    /// Locks the replicas and the coordinator shards for changes.
    pub(super) fn applying(&self) -> MutexGuard<'_, ()> {
        self.applying.lock()
    }

    /// Whether the logs of this broker's partitions are open.
    pub fn are_open(&self) -> bool {
        self.are_open.load(Ordering::Relaxed)
    }

    pub(super) fn set_open(&self) {
        self.are_open.store(true, Ordering::Relaxed);
    }

    /// Becomes true once no log directory is left.
    pub fn all_dirs_failed(&self) -> watch::Receiver<bool> {
        self.all_dirs_failed.subscribe()
    }

    /// Applies a changed limit of flushes that run at the same time (`background.threads`).
    pub(super) fn set_background_threads(&self, threads: i32) {
        self.flushes.set_background_limit(threads as usize);
    }

    /// Waits until the state of a log directory has changed since the last call.
    pub(super) async fn dirs_changed(&self) {
        self.dirs_changed.notified().await;
    }
}
