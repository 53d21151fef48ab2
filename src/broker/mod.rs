//! The broker: joins the layers below into the state of one node. Handlers reach everything
//! through [`Broker`].
//!
//! Partitions, topic configurations and coordinator shards are created, changed and removed when
//! `apply` applies committed metadata.

mod apply;
mod broker_channels;
mod cleaner;
mod coordinators;
mod event_log;
mod gauges;
mod group_configs;
mod group_topics;
mod markers;
mod membership;
mod node;
mod replicas;
mod request_limits;
mod shard_log;
mod tasks;
pub mod verify;

use std::{collections::HashSet, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::{runtime::Handle, sync::watch};

pub use self::{
    apply::apply_committed,
    membership::{
        HeartbeatConnection, ToControllerError,
        lifecycle::{self, NotRegistered},
    },
    node::OnReconfigured,
    replicas::MoveError,
};
use self::{
    broker_channels::BrokerChannels,
    cleaner::Cleaner,
    coordinators::Coordinators,
    group_configs::group_config,
    markers::TxnWork,
    membership::{Membership, ToController, previous_broker_epoch},
    node::Node,
    replicas::Replicas,
    request_limits::RequestLimits,
    verify::Verifier,
};
use crate::{
    base::config::{BrokerConfig, Config},
    controller::Controller,
    coordinator::{GroupCoordinator, TxnCoordinator, txn::TxnConfig},
    fetch_sessions::SessionCache,
    log::{LogDirs, dirs::DiscoveredLog},
    metadata::Image,
    peers::{Channel, Network},
    quorum::{Leadership, Quorum},
    telemetry::{Loggers, Metrics, StartProgress},
};

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
    /// The channels over which this node sends requests to its own controller, and to itself as a
    /// broker.
    pub own_controller: Arc<dyn Channel>,
    pub own_broker: Arc<dyn Channel>,
    pub control: Handle,
    pub metrics: Arc<Metrics>,
    pub loggers: Arc<Loggers>,
    pub progress: Arc<StartProgress>,
}

/// The state of one node, which all its tasks share. Each part has its own synchronisation.
pub struct Broker {
    pub node: Arc<Node>,
    pub quorum: Quorum,
    pub controller: Controller,
    pub membership: Membership,
    pub replicas: Arc<Replicas>,
    pub cleaner: Arc<Cleaner>,
    pub coordinators: Arc<Coordinators>,
    /// What the shards of the transaction coordinator request from this broker.
    txn_work: TxnWork,
    /// Asks transaction coordinators about the transactions of producers.
    pub verifier: Verifier,
    pub limits: RequestLimits,
    pub sessions: Mutex<SessionCache>,
    pub metrics: Arc<Metrics>,
    pub loggers: Arc<Loggers>,
    /// True once committed metadata can no longer be received or applied. The process then stops.
    metadata_failed: watch::Sender<bool>,
}

impl Broker {
    /// Creates the state of a node. It belongs to the current runtime.
    pub fn new(parts: Parts) -> Self {
        let Parts { log_dirs, quorum, controller, metrics, .. } = parts;
        let node = Node::new(
            log_dirs.cluster_id(),
            (parts.config, parts.on_reconfigured),
            parts.image,
            parts.network,
            parts.control,
        );
        let node = Arc::new(node);
        let settings = node.settings();
        let groups = GroupCoordinator::new(group_config(&settings));
        let (txn_work, request_work) = TxnWork::new(Arc::clone(&parts.own_broker));
        let transactions = TxnCoordinator::new(txn_config(&settings), request_work);
        let coordinators = Arc::new(Coordinators::new(node.id, groups, transactions));
        let to_controller =
            ToController::new(Arc::clone(&node), quorum.clone(), parts.own_controller);
        let to_controller = Arc::new(to_controller);
        let membership = Membership::new(
            &node,
            Arc::clone(&to_controller),
            (&quorum, &controller),
            previous_broker_epoch(&log_dirs),
        );
        let replicas = Replicas::new(
            Arc::clone(&node),
            to_controller,
            Arc::clone(&coordinators),
            (Arc::clone(&metrics), parts.progress),
            (log_dirs, parts.found),
        );
        let replicas = Arc::new(replicas);
        let cleaner = Cleaner::new(Arc::clone(&node), Arc::clone(&replicas));
        let verifier = Verifier::new(Arc::clone(&node), parts.own_broker);
        let slots = settings.max_incremental_fetch_session_cache_slots.max(0) as usize;
        Self {
            node,
            replicas,
            cleaner,
            membership,
            coordinators,
            txn_work,
            verifier,
            quorum,
            controller,
            limits: RequestLimits::default(),
            sessions: Mutex::new(SessionCache::new(slots)),
            metrics,
            loggers: parts.loggers,
            metadata_failed: watch::channel(false).0,
        }
    }

    /// The current configuration, with dynamic broker configs applied.
    pub fn config(&self) -> Arc<Config> {
        self.node.config()
    }

    /// The typed settings of the current configuration.
    pub fn settings(&self) -> Arc<BrokerConfig> {
        self.node.settings()
    }

    /// The current metadata image. A request should call this once and use one image throughout.
    pub fn metadata(&self) -> Arc<Image> {
        self.node.metadata()
    }

    /// Whether the logs of this broker's partitions are open, so that it can serve requests.
    pub fn serves(&self) -> bool {
        self.replicas.are_open()
    }

    /// Whether this node is the active controller.
    pub fn leads_quorum(&self) -> bool {
        leads(&self.quorum, self.node.id)
    }

    /// Whether all log directories are offline, metadata can no longer be applied, or transactions
    /// can no longer be completed. The process then stops.
    pub fn has_failed(&self) -> bool {
        *self.replicas.all_dirs_failed().borrow()
            || *self.metadata_failed.borrow()
            || *self.txn_work.failed.borrow()
    }

    /// Becomes true once committed metadata can no longer be received or applied.
    pub fn metadata_failed(&self) -> watch::Receiver<bool> {
        self.metadata_failed.subscribe()
    }

    /// Becomes true once transactions that this broker coordinates can no longer be completed.
    pub fn transactions_failed(&self) -> watch::Receiver<bool> {
        self.txn_work.failed.subscribe()
    }

    /// Locks the set of topics whose automatic creation is in progress. Do not hold the lock across
    /// an await.
    pub fn auto_creating(&self) -> MutexGuard<'_, HashSet<String>> {
        self.limits.auto_creating.lock()
    }

    /// Applies the dynamic broker configs of the image (KIP-226) to the configuration.
    pub fn reconfigure(&self, image: &Image) {
        let before = self.settings().cordoned_log_dirs.clone();
        if self.node.reconfigure(image) {
            self.replicas.set_background_threads(self.settings().background_threads);
            self.cleaner.reconfigure();
            self.coordinators.groups.set_config(group_config(&self.settings()));
            if self.settings().cordoned_log_dirs != before {
                self.replicas.report_cordoned_dirs();
            }
        }
    }
}

/// Whether the node is the active controller.
fn leads(quorum: &Quorum, node_id: i32) -> bool {
    let Leadership { active, leader, .. } = *quorum.leadership().borrow();
    active && leader == Some(node_id)
}

fn txn_config(settings: &BrokerConfig) -> TxnConfig {
    let txn = &settings.transaction;
    TxnConfig {
        max_timeout_ms: txn.transaction_max_timeout_ms,
        id_expiration_ms: txn.transactional_id_expiration_ms.into(),
        abort_interval_ms: txn.transaction_abort_timed_out_transaction_cleanup_interval_ms.into(),
        expiry_interval_ms: txn.transaction_remove_expired_transaction_cleanup_interval_ms.into(),
        topic_num_partitions: txn.transaction_state_log_num_partitions,
        commit_timeout_ms: settings.cluster.request_timeout_ms.max(1) as u64,
        ..TxnConfig::default()
    }
}
