//! The broker: composes the layers below into one node. Handlers reach everything through
//! [`Broker`].
//!
//! Partitions, topic configurations and coordinator shards are created, changed and removed when
//! `apply` applies committed metadata. `server` has the order of a start and of a stop.

mod apply;
mod cluster_bootstrap;
mod controller_isolation;
mod disconnect_fencing;
mod discovered_logs;
mod event_log;
mod gauges;
mod lifecycle;
mod listeners;
mod logs;
mod moves;
mod producer_ids;
mod progress;
mod raft_transport;
mod readiness;
mod removals;
pub mod replication;
mod server;
pub mod sessions;
mod shard_log;
mod signals;
mod tasks;
mod to_controller;
mod voting;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, watch};

pub use self::{
    disconnect_fencing::HeartbeatConnection,
    moves::MoveError,
    producer_ids::ProducerIds,
    server::{Environment, Server, ServerError},
    to_controller::ToControllerError,
};
use crate::{
    base::{
        blocking_limits::BlockingLimits,
        config::{BrokerConfig, Config, ignored_configs, keys},
    },
    controller::Controller,
    coordinator::GroupCoordinator,
    log::dirs::SharedLogDirs,
    metadata::{ConfigResource, Image},
    net::{ConnectionLimits, Limits},
    partition::{FlushQueue, PartitionTable},
    peers::Network,
    quorum::Quorum,
    telemetry::{Loggers, Metrics},
};

/// The topic with the records of group coordinators.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The topic with the records of transaction coordinators.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// The state of one node, which all its tasks share. Each field has its own synchronisation.
pub struct Broker {
    pub node_id: i32,
    pub cluster_id: Arc<str>,
    config: Arc<ArcSwap<Config>>,
    metadata: ArcSwap<Image>,
    /// True once committed metadata can no longer be received or applied. The process then stops.
    metadata_failed: watch::Sender<bool>,
    /// Limits how many requests look up timestamps in logs at the same time.
    pub look_ups: Semaphore,
    /// Threads that read indexes for fetches whose pages are not cached, by the log directory. All
    /// fetches from several directories share the key `None`.
    pub fetch_look_ups: BlockingLimits<Option<Arc<PathBuf>>>,
    /// Threads that ask the file systems for the space in their log directories.
    pub dir_descriptions: BlockingLimits<()>,
    /// Limits how many produce requests decompress large batches at the same time.
    pub decompressions: Semaphore,
    /// The last offset of the metadata log that this broker has applied.
    applied: watch::Sender<i64>,
    pub partitions: PartitionTable,
    /// The queue of partition flushes. It limits how many run at the same time.
    flushes: Arc<FlushQueue>,
    pub log_dirs: SharedLogDirs,
    /// True if replicas were removed but the checkpoints still have their entries. The entries
    /// would be wrong for new logs of the same partitions.
    replicas_left: AtomicBool,
    /// Lock that is held while checkpoint files are written, so that no older values replace newer
    /// ones.
    checkpointing: Mutex<()>,
    found: Mutex<discovered_logs::DiscoveredLogs>,
    moves: moves::Moves,
    /// Replicas whose logs could not be opened, although no disk failed. `open_again` retries them.
    unopened: Mutex<Vec<logs::Replica>>,
    /// Time of the last warning about a transient log failure, in milliseconds.
    last_warned_ms: AtomicI64,
    /// Lock for changes of partitions and coordinator shards. It is held while a metadata batch is
    /// applied, logs are opened, or a move between log directories begins.
    applying: Mutex<()>,
    /// True once no log directory is left.
    all_dirs_failed: watch::Sender<bool>,
    pub quorum: Quorum,
    pub controller: Controller,
    /// Opens channels to other nodes.
    pub network: Arc<dyn Network>,
    idle: to_controller::Idle,
    heartbeat_connections: disconnect_fencing::HeartbeatConnections,
    pub replication: replication::Replication,
    /// When the controller last answered a heartbeat, and the coordinator shards that this broker
    /// has resigned because it did not answer.
    contact: controller_isolation::ControllerContact,
    /// Makes the heartbeat task send the next heartbeat at once.
    heartbeat_now: Notify,
    /// Whether the logs of this broker's partitions are open. They are opened once the metadata
    /// contains this broker's registration.
    serves: AtomicBool,
    /// Whether the controlled shutdown of this broker has begun.
    stopping: AtomicBool,
    /// The broker epoch of the previous process if it stopped cleanly, otherwise -1.
    previous_broker_epoch: i64,
    pub groups: GroupCoordinator,
    pub metrics: Arc<Metrics>,
    pub loggers: Arc<Loggers>,
    pub connection_limits: Arc<ConnectionLimits>,
    pub producer_ids: ProducerIds,
    /// Topics that are being created automatically, because a request named them.
    auto_creating: Mutex<HashSet<String>>,
    /// The runtime for everything except the tasks of `control`. Blocking threads spawn tasks here.
    runtime: tokio::runtime::Handle,
    /// The runtime of the quorum, the controller and the heartbeats. These must continue while all
    /// workers of `runtime` wait for a disk.
    control: tokio::runtime::Handle,
    pub sessions: Mutex<sessions::SessionCache>,
    progress: Arc<progress::Progress>,
    /// The sum of the settled offsets of all logs when their checkpoint was last written.
    settled: AtomicI64,
}

impl Broker {
    /// The current configuration, with dynamic broker configs applied.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The typed settings of the current configuration.
    pub fn settings(&self) -> Arc<BrokerConfig> {
        Arc::clone(&self.config.load().broker)
    }

    /// The current metadata image. A request should call this once and use one image throughout.
    pub fn metadata(&self) -> Arc<Image> {
        self.metadata.load_full()
    }

    /// Whether the logs of this broker's partitions are open, so that it can serve requests.
    pub fn serves(&self) -> bool {
        self.serves.load(Ordering::Relaxed)
    }

    /// Whether all log directories are offline or metadata can no longer be applied. The process
    /// then stops.
    pub fn has_failed(&self) -> bool {
        *self.all_dirs_failed.borrow() || *self.metadata_failed.borrow()
    }

    /// The broker epoch of this broker's registration, or -1 before it is registered.
    pub fn epoch(&self) -> i64 {
        self.metadata().broker(self.node_id).map_or(-1, |registered| registered.broker_epoch)
    }

    /// Waits until this broker has applied the metadata log up to `offset`.
    pub async fn applied(&self, offset: i64) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = applied.wait_for(|applied| *applied >= offset).await;
    }

    /// Waits until `is_shown` returns true for this broker's metadata image.
    pub async fn metadata_shows(&self, is_shown: impl Fn(&Image) -> bool) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = applied.wait_for(|_| is_shown(&self.metadata())).await;
    }

    /// Locks the set of topics whose automatic creation is in progress. Do not hold the lock across
    /// an await.
    pub fn auto_creating(&self) -> MutexGuard<'_, HashSet<String>> {
        self.auto_creating.lock()
    }

    /// Applies the dynamic broker configs of the image (KIP-226) to the configuration.
    fn reconfigure(&self, image: &Image) {
        let config = self.config();
        let cluster_default = image.config(&ConfigResource::default_broker());
        let per_broker = image.config(&ConfigResource::broker(self.node_id));
        if config.cluster_default() == cluster_default && config.per_broker() == per_broker {
            return;
        }
        match config.with_dynamic(cluster_default, per_broker) {
            Ok(changed) => {
                self.limit_connections(&config.broker, &changed.broker);
                let set = cluster_default.iter().chain(per_broker);
                let set = set.map(|(name, value)| (name.as_str(), value.as_str()));
                let ignored = ignored_configs(set, keys::find_broker);
                if !ignored.is_empty() {
                    tracing::warn!(configs = ?ignored, "dynamic broker configs have no effect yet");
                }
                self.flushes.set_background_limit(changed.broker.background_threads as usize);
                self.config.store(Arc::new(changed));
            }
            // The controller validates configs, but a metadata log of another Kafka version may
            // have values that this version rejects.
            Err(error) => tracing::error!(%error, "dynamic broker configs ignored"),
        }
    }

    /// Applies changed connection limits. Host names in `max.connections.per.ip.overrides` are
    /// resolved only if a limit has changed, because the name service may be slow.
    fn limit_connections(&self, before: &BrokerConfig, now: &BrokerConfig) {
        if before.max_connections == now.max_connections
            && before.max_connections_per_ip == now.max_connections_per_ip
        {
            return;
        }
        match Limits::resolve(now) {
            Ok(limits) => self.connection_limits.set(limits),
            Err(error) => tracing::error!(%error, "changed connection limits are not applied"),
        }
    }
}
