//! Composition: one broker out of the layers below. Handlers reach everything through it.
//!
//! `apply` is the only place that creates, changes or removes partitions, topics' settings and
//! coordinator shards; `server` starts and stops it all in a written order.

mod apply;
mod contact;
mod event_log;
mod formation;
mod found;
mod gauges;
mod lifecycle;
mod listeners;
mod logs;
mod moves;
mod presence;
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
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};

pub use self::{
    moves::MoveError,
    presence::Presence,
    producer_ids::ProducerIds,
    server::{Server, ServerError, Surroundings},
    to_controller::ToControllerError,
};
use crate::{
    base::config::{BrokerConfig, Config, ignored_configs, keys},
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

/// Where group coordinators keep their records.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Where transaction coordinators keep theirs.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// All handles; what changes is inside of them.
pub struct Broker {
    pub node_id: i32,
    pub cluster_id: Arc<str>,
    config: Arc<ArcSwap<Config>>,
    metadata: ArcSwap<Image>,
    /// Set when committed metadata can no longer be had or applied.
    metadata_failed: watch::Sender<bool>,
    /// Held while a request looks times up in logs.
    pub look_ups: Semaphore,
    /// Held while a produce request decompresses large batches.
    pub decompressions: Semaphore,
    /// The offset of the published image.
    applied: watch::Sender<i64>,
    pub partitions: PartitionTable,
    /// Flushes of partitions, a bounded number at a time.
    flushes: Arc<FlushQueue>,
    pub log_dirs: SharedLogDirs,
    /// Replicas were removed that the checkpoints still name: they may come back as other logs.
    replicas_left: AtomicBool,
    /// Held while checkpoints are written, one after the other.
    checkpointing: Mutex<()>,
    found: Mutex<found::FoundPartitions>,
    moves: moves::Moves,
    /// Replicas whose logs are to be tried again.
    unopened: Mutex<Vec<logs::Replica>>,
    /// When a log's passing failure was last told of, in milliseconds.
    told_ms: AtomicI64,
    /// Held while metadata changes what is served, by whoever does it.
    applying: Mutex<()>,
    /// True once no log directory is left.
    all_dirs_failed: watch::Sender<bool>,
    pub quorum: Quorum,
    pub controller: Controller,
    /// To the other nodes.
    pub network: Arc<dyn Network>,
    idle: to_controller::Idle,
    heartbeat_connections: presence::HeartbeatConnections,
    pub replication: replication::Replication,
    /// With the controller.
    contact: contact::Contact,
    /// Has the next heartbeat sent at once.
    heartbeat_now: Notify,
    /// Whether the partitions here are open: not before metadata shows the registration.
    serves: AtomicBool,
    /// Whether this broker has asked the controller for its shutdown.
    stopping: AtomicBool,
    /// The epoch of the registration before a clean stop; -1 after any other stop.
    previous_broker_epoch: i64,
    pub groups: GroupCoordinator,
    pub metrics: Arc<Metrics>,
    pub loggers: Arc<Loggers>,
    pub connection_limits: Arc<ConnectionLimits>,
    pub producer_ids: ProducerIds,
    /// Topics that are being created because somebody asked for them.
    auto_creating: Mutex<HashSet<String>>,
    /// Where blocking threads start tasks that outlive them.
    runtime: tokio::runtime::Handle,
    /// The runtime of what must go on while all workers of `runtime` wait for a disk.
    control: tokio::runtime::Handle,
    pub sessions: Mutex<sessions::SessionCache>,
    progress: Arc<progress::Progress>,
    /// The sum of all logs' `settled` when recovery points were last written.
    settled: AtomicI64,
}

impl Broker {
    /// The configuration, dynamic changes included.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The typed view of the configuration.
    pub fn settings(&self) -> Arc<BrokerConfig> {
        Arc::clone(&self.config.load().broker)
    }

    /// The cluster's metadata: one consistent image for all of a request.
    pub fn metadata(&self) -> Arc<Image> {
        self.metadata.load_full()
    }

    /// Whether this broker has what clients and other brokers ask for.
    pub fn serves(&self) -> bool {
        self.serves.load(Ordering::Relaxed)
    }

    /// Whether nothing is left to serve, or metadata cannot be followed: the process is to end.
    pub fn has_failed(&self) -> bool {
        *self.all_dirs_failed.borrow() || *self.metadata_failed.borrow()
    }

    /// The epoch of this broker's registration; -1 before it has one.
    pub fn epoch(&self) -> i64 {
        self.metadata().broker(self.node_id).map_or(-1, |registered| registered.broker_epoch)
    }

    /// Waits until this broker has applied the metadata log up to `offset`.
    pub async fn applied(&self, offset: i64) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = applied.wait_for(|applied| *applied >= offset).await;
    }

    /// Waits until this broker's metadata is as asked for.
    pub async fn metadata_shows(&self, is_shown: impl Fn(&Image) -> bool) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = applied.wait_for(|_| is_shown(&self.metadata())).await;
    }

    /// The topics whose automatic creation is on its way. Never held across an await.
    pub fn auto_creating(&self) -> MutexGuard<'_, HashSet<String>> {
        self.auto_creating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the dynamic broker configs of the image (KIP-226) into the configuration.
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
            // The controller checked them; an adopted log may hold what this version refuses.
            Err(error) => tracing::error!(%error, "dynamic broker configs ignored"),
        }
    }

    /// Hosts are looked up only when the limits have changed, since the name service may be slow.
    fn limit_connections(&self, before: &BrokerConfig, now: &BrokerConfig) {
        if before.max_connections == now.max_connections
            && before.max_connections_per_ip == now.max_connections_per_ip
        {
            return;
        }
        match Limits::resolve(now) {
            Ok(limits) => self.connection_limits.set(limits),
            Err(error) => tracing::error!(%error, "the limits of connections stay as they were"),
        }
    }
}
