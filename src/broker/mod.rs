//! The broker: joins the layers below into the state of one node. Handlers reach everything
//! through [`Broker`].
//!
//! Partitions, topic configurations and coordinator shards are created, changed and removed when
//! `apply` applies committed metadata.

mod apply;
mod controller_isolation;
mod coordinators;
mod disconnect_fencing;
mod discovered_logs;
mod event_log;
mod gauges;
pub mod lifecycle;
mod logs;
mod moves;
mod producer_ids;
mod removals;
pub mod replication;
pub mod sessions;
mod shard_log;
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
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, watch},
};

pub use self::{
    apply::apply_committed, disconnect_fencing::HeartbeatConnection, lifecycle::NotRegistered,
    moves::MoveError, producer_ids::ProducerIds, to_controller::ToControllerError,
};
use self::{
    controller_isolation::ControllerContact, discovered_logs::DiscoveredLogs, moves::Moves,
    replication::Replication, sessions::SessionCache,
};
use crate::{
    base::{
        blocking_limits::BlockingLimits,
        config::{BrokerConfig, Config, GroupSettings, ignored_configs, keys},
    },
    controller::Controller,
    coordinator::{GroupCoordinator, group::GroupConfig},
    log::{
        LogDirs,
        dirs::{DiscoveredLog, SharedLogDirs},
    },
    metadata::{ConfigResource, Image},
    partition::{FlushQueue, PartitionTable},
    peers::{Channel, Network},
    quorum::Quorum,
    telemetry::{Loggers, Metrics, StartProgress},
};

/// The topic with the records of transaction coordinators.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// The number of requests that may look up timestamps in logs at the same time.
const LOOK_UPS_AT_ONCE: usize = 2;
/// The number of fetches of one log directory that may read uncached indexes at the same time.
const FETCH_LOOK_UPS_AT_ONCE: usize = 32;
/// The number of requests that may describe log directories at the same time.
const DIR_DESCRIPTIONS_AT_ONCE: usize = 2;
/// The number of produce requests that may decompress large batches at the same time (the default
/// of Kafka's `num.io.threads`). Each may need 128 MiB for a zstd window.
const DECOMPRESSIONS_AT_ONCE: usize = 8;

/// A function that takes the settings before and after a change of dynamic broker configs.
pub type OnReconfigured = Box<dyn Fn(&BrokerConfig, &BrokerConfig) + Send + Sync>;

/// The parts that [`Broker::new`] joins.
pub struct Parts {
    pub config: Arc<ArcSwap<Config>>,
    pub on_reconfigured: OnReconfigured,
    pub log_dirs: LogDirs,
    /// The partition directories in `log_dirs`.
    pub found: Vec<DiscoveredLog>,
    /// The image of the metadata that this node has received before its start.
    pub image: Image,
    pub quorum: Quorum,
    pub controller: Controller,
    pub network: Arc<dyn Network>,
    /// The channel over which this node sends requests to its own controller.
    pub own_channel: Arc<dyn Channel>,
    pub control: Handle,
    pub metrics: Arc<Metrics>,
    pub loggers: Arc<Loggers>,
    pub progress: Arc<StartProgress>,
}

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
    /// The channel over which this node sends requests to its own controller.
    own_channel: Arc<dyn Channel>,
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
    /// Called when dynamic broker configs have changed the configuration.
    on_reconfigured: OnReconfigured,
    pub producer_ids: ProducerIds,
    /// Topics that are being created automatically, because a request named them.
    auto_creating: Mutex<HashSet<String>>,
    /// The runtime for everything except the tasks of `control`. Blocking threads spawn tasks here.
    pub runtime: Handle,
    /// The runtime of the quorum, the controller and the heartbeats. These must continue while all
    /// workers of `runtime` wait for a disk.
    pub control: Handle,
    pub sessions: Mutex<sessions::SessionCache>,
    progress: Arc<StartProgress>,
    /// The sum of the settled offsets of all logs when their checkpoint was last written.
    settled: AtomicI64,
}

impl Broker {
    /// Creates the state of a node. It belongs to the current runtime.
    pub fn new(parts: Parts) -> Self {
        let settings = Arc::clone(&parts.config.load().broker);
        let previous_broker_epoch = previous_broker_epoch(&parts.log_dirs);
        let slots = settings.max_incremental_fetch_session_cache_slots.max(0) as usize;
        Self {
            node_id: settings.node_id,
            cluster_id: Arc::from(parts.log_dirs.cluster_id()),
            config: parts.config,
            on_reconfigured: parts.on_reconfigured,
            applied: watch::channel(parts.image.offset).0,
            metadata: ArcSwap::from_pointee(parts.image),
            partitions: PartitionTable::default(),
            flushes: FlushQueue::new(settings.background_threads as usize),
            log_dirs: SharedLogDirs::new(parts.log_dirs),
            replicas_left: AtomicBool::new(false),
            checkpointing: Mutex::default(),
            unopened: Mutex::default(),
            last_warned_ms: AtomicI64::new(0),
            applying: Mutex::default(),
            all_dirs_failed: watch::channel(false).0,
            metadata_failed: watch::channel(false).0,
            look_ups: Semaphore::new(LOOK_UPS_AT_ONCE),
            fetch_look_ups: BlockingLimits::new(FETCH_LOOK_UPS_AT_ONCE),
            dir_descriptions: BlockingLimits::new(DIR_DESCRIPTIONS_AT_ONCE),
            decompressions: Semaphore::new(DECOMPRESSIONS_AT_ONCE),
            found: Mutex::new(DiscoveredLogs::new(parts.found)),
            moves: Moves::new(&settings),
            quorum: parts.quorum,
            controller: parts.controller,
            network: parts.network,
            own_channel: parts.own_channel,
            contact: ControllerContact::new(),
            heartbeat_now: Notify::new(),
            serves: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            previous_broker_epoch,
            idle: Default::default(),
            heartbeat_connections: Default::default(),
            replication: Replication::new(&parts.metrics),
            groups: GroupCoordinator::new(group_config(&settings.group)),
            metrics: parts.metrics,
            loggers: parts.loggers,
            producer_ids: ProducerIds::default(),
            auto_creating: Mutex::default(),
            sessions: Mutex::new(SessionCache::new(slots)),
            runtime: Handle::current(),
            control: parts.control,
            progress: parts.progress,
            settled: AtomicI64::new(0),
        }
    }

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

    /// Whether the controlled shutdown of this broker has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether all log directories are offline or metadata can no longer be applied. The process
    /// then stops.
    pub fn has_failed(&self) -> bool {
        *self.all_dirs_failed.borrow() || *self.metadata_failed.borrow()
    }

    /// Becomes true once no log directory is left.
    pub fn all_dirs_failed(&self) -> watch::Receiver<bool> {
        self.all_dirs_failed.subscribe()
    }

    /// Becomes true once committed metadata can no longer be received or applied.
    pub fn metadata_failed(&self) -> watch::Receiver<bool> {
        self.metadata_failed.subscribe()
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
    pub fn reconfigure(&self, image: &Image) {
        let config = self.config();
        let cluster_default = image.config(&ConfigResource::default_broker());
        let per_broker = image.config(&ConfigResource::broker(self.node_id));
        if config.cluster_default() == cluster_default && config.per_broker() == per_broker {
            return;
        }
        match config.with_dynamic(cluster_default, per_broker) {
            Ok(changed) => {
                (self.on_reconfigured)(&config.broker, &changed.broker);
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
}

/// The broker epoch in the clean-shutdown markers, or -1 unless all log directories have the same.
fn previous_broker_epoch(log_dirs: &LogDirs) -> i64 {
    let mut epochs = log_dirs
        .dirs()
        .iter()
        .map(|dir| dir.clean_shutdown.as_ref().map_or(-1, |clean| clean.broker_epoch));
    let first = epochs.next().unwrap_or(-1);
    if epochs.all(|epoch| epoch == first) { first } else { -1 }
}

fn group_config(settings: &GroupSettings) -> GroupConfig {
    GroupConfig {
        min_session_timeout_ms: settings.min_session_timeout_ms,
        max_session_timeout_ms: settings.max_session_timeout_ms,
        initial_rebalance_delay_ms: settings.initial_rebalance_delay_ms,
        max_size: settings.max_size.max(0) as usize,
        commit_timeout_ms: settings.offsets_commit_timeout_ms.max(1) as u64,
        offset_metadata_max_bytes: settings.offset_metadata_max_bytes.max(0) as usize,
        offsets_retention_ms: settings.offsets_retention_ms,
        offsets_retention_check_interval_ms: settings.offsets_retention_check_interval_ms,
        offsets_topic_num_partitions: settings.offsets_topic_num_partitions,
        ..GroupConfig::default()
    }
}
