//! [`Node`]: what all parts of a broker read: its ids, its configuration, and its metadata.
//!
//! Invariants:
//! - Only `apply` and the start of a node change the configuration and the metadata.
//! - The image is published before `applied` reports its offset.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    base::config::{BrokerConfig, Config, ignored_configs, keys},
    metadata::{BrokerImage, ConfigResource, Image},
    peers::{Address, Network},
};

/// A function that takes the settings before and after a change of dynamic broker configs.
pub type OnReconfigured = Box<dyn Fn(&BrokerConfig, &BrokerConfig) + Send + Sync>;

/// The ids, configuration, metadata and environment of this node.
pub struct Node {
    pub id: i32,
    pub cluster_id: Arc<str>,
    config: Arc<ArcSwap<Config>>,
    /// Called when dynamic broker configs have changed the configuration.
    on_reconfigured: OnReconfigured,
    metadata: ArcSwap<Image>,
    /// The last offset of the metadata log that this broker has applied.
    applied: watch::Sender<i64>,
    /// Opens channels to other nodes.
    pub network: Arc<dyn Network>,
    /// The runtime for everything except the tasks of `control`. Blocking threads spawn tasks here.
    pub runtime: Handle,
    /// The runtime of the quorum, the controller and the heartbeats. These must continue while all
    /// workers of `runtime` wait for a disk.
    pub control: Handle,
}

impl Node {
    /// Creates the state of a node whose `runtime` is the current one.
    pub fn new(
        cluster_id: &str,
        (config, on_reconfigured): (Arc<ArcSwap<Config>>, OnReconfigured),
        image: Image,
        network: Arc<dyn Network>,
        control: Handle,
    ) -> Self {
        Self {
            id: config.load().broker.node_id,
            cluster_id: Arc::from(cluster_id),
            config,
            on_reconfigured,
            applied: watch::channel(image.offset).0,
            metadata: ArcSwap::from_pointee(image),
            network,
            runtime: Handle::current(),
            control,
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

    /// The broker epoch of this broker's registration, or -1 before it is registered.
    pub fn epoch(&self) -> i64 {
        self.metadata().broker(self.id).map_or(-1, |registered| registered.broker_epoch)
    }

    /// `broker.session.timeout.ms`. If no heartbeat is answered for longer, the controller has
    /// fenced this broker.
    pub fn session_timeout(&self) -> Duration {
        let session_ms = self.settings().cluster.broker_session_timeout_ms;
        Duration::from_millis(session_ms.max(1) as u64)
    }

    /// The address of a broker's inter-broker listener.
    pub fn address_of(&self, broker: &BrokerImage) -> Option<Address> {
        let name = &self.settings().inter_broker_listener;
        let endpoint = broker.end_points.iter().find(|it| it.name == *name)?;
        Some(Address { host: endpoint.host.clone(), port: endpoint.port })
    }

    /// The last offset of the metadata log that this broker has applied.
    pub fn applied_offset(&self) -> i64 {
        *self.applied.borrow()
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

    /// Replaces the metadata image.
    pub(super) fn publish(&self, image: &Arc<Image>) {
        self.metadata.store(Arc::clone(image));
    }

    /// Reports that this broker has applied the metadata log up to `offset`.
    pub(super) fn set_applied(&self, offset: i64) {
        self.applied.send_replace(offset);
    }

    /// Applies the dynamic broker configs of the image (KIP-226) to the configuration. Returns
    /// whether it has changed.
    pub(super) fn reconfigure(&self, image: &Image) -> bool {
        let config = self.config();
        let cluster_default = image.config(&ConfigResource::default_broker());
        let per_broker = image.config(&ConfigResource::broker(self.id));
        if config.cluster_default() == cluster_default && config.per_broker() == per_broker {
            return false;
        }
        match config.with_stored(cluster_default, per_broker) {
            Ok((changed, clamped)) => {
                if !clamped.is_empty() {
                    tracing::warn!(configs = ?clamped, "dynamic broker configs beyond their limits");
                }
                (self.on_reconfigured)(&config.broker, &changed.broker);
                let set = cluster_default.iter().chain(per_broker);
                let set = set.map(|(name, value)| (name.as_str(), value.as_str()));
                let ignored = ignored_configs(set, keys::find_broker);
                if !ignored.is_empty() {
                    tracing::warn!(configs = ?ignored, "dynamic broker configs have no effect yet");
                }
                self.config.store(Arc::new(changed));
                true
            }
            // The controller validates configs, but a metadata log of another Kafka version may
            // have values that this version rejects.
            Err(error) => {
                tracing::error!(%error, "dynamic broker configs ignored");
                false
            }
        }
    }
}
