//! This broker's place in the cluster: its registration, and what it tells of its health.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::sleep;
use uuid::Uuid;

use super::{Broker, ServerError};
use crate::{
    base::{
        TopicId,
        config::{BrokerConfig, Listener},
    },
    controller::{ControllerError, Heartbeat, Registration, UNASSIGNED_DIR},
    log::dirs::LogDir,
    metadata::{records::BrokerEndpoint, topics::LOST},
    telemetry::{Health, http::HealthCheck},
};

impl Broker {
    /// Registers this process and waits until its own metadata shows it, and leading.
    pub(super) async fn register(
        &self,
        addresses: &[(String, SocketAddr)],
    ) -> Result<(), ServerError> {
        let settings = self.settings();
        let registration = Registration {
            broker_id: self.node_id,
            incarnation_id: Uuid::new_v4(),
            endpoints: endpoints(&settings, addresses),
            rack: settings.broker_rack.clone(),
            log_dirs: self.online_dirs(),
            previous_broker_epoch: self.previous_epoch(),
            ..Registration::default()
        };
        let registered = self.controller.register_broker(registration).await?;
        registered.value?;
        self.applied(registered.offset).await;
        self.tell_directories().await?;
        let unfenced = self.controller.heartbeat(self.heartbeat(registered.offset)).await?;
        self.applied(unfenced.offset).await;
        Ok(())
    }

    /// Tells the controller from time to time that this broker lives.
    pub(super) async fn keep_alive(self: Arc<Self>) {
        let every = self.config().values().i64("broker.heartbeat.interval.ms");
        let every = Duration::from_millis(every.max(1) as u64);
        loop {
            sleep(every).await;
            let heartbeat = self.heartbeat(self.metadata().offset);
            if let Err(error) = self.controller.heartbeat(heartbeat).await {
                tracing::warn!(%error, "a heartbeat has failed");
            }
        }
    }

    fn heartbeat(&self, current_metadata_offset: i64) -> Heartbeat {
        let image = self.metadata();
        let registered = image.broker(self.node_id);
        let online = self.online_dirs();
        let known = registered.map_or(&[][..], |it| &it.log_dirs).iter().copied();
        Heartbeat {
            broker_id: self.node_id,
            broker_epoch: registered.map_or(-1, |it| it.broker_epoch),
            current_metadata_offset,
            offline_log_dirs: known.filter(|dir| !online.contains(dir)).collect(),
            ..Heartbeat::default()
        }
    }

    fn online_dirs(&self) -> Vec<Uuid> {
        let dirs = self.lock_dirs();
        dirs.dirs().iter().filter(|dir| !dir.is_offline()).map(|dir| dir.id).collect()
    }

    /// Of the incarnation that closed all directories in order.
    fn previous_epoch(&self) -> i64 {
        let dirs = self.lock_dirs();
        let epoch = |dir: &LogDir| dir.clean_shutdown.as_ref().map_or(-1, |it| it.broker_epoch);
        let mut epochs = dirs.dirs().iter().map(epoch);
        let first = epochs.next().unwrap_or(-1);
        if epochs.all(|epoch| epoch == first) { first } else { -1 }
    }

    /// Tells the controller which replicas cannot be used though their directories can, and which
    /// can again.
    async fn tell_directories(&self) -> Result<(), ControllerError> {
        let image = self.metadata();
        let lost = self.offline_replicas();
        let Some(here) = image.broker(self.node_id) else { return Ok(()) };
        let mut found = Vec::new();
        for topic in image.topics.iter() {
            for (partition, at) in topic.partitions.iter().zip(0..) {
                if partition.is_lost(self.node_id) && !lost.contains(&(topic.id, at)) {
                    found.push((topic.id, at));
                }
            }
        }
        let dir = match here.log_dirs[..] {
            [only] => only,
            _ => UNASSIGNED_DIR,
        };
        let one = |(topic, at): (TopicId, i32)| (topic, vec![at]);
        let both = [(LOST, lost), (dir, found)].into_iter();
        let told = both.filter(|(_, replicas)| !replicas.is_empty());
        let told: Vec<_> =
            told.map(|(dir, them)| (dir, them.into_iter().map(one).collect())).collect();
        if told.is_empty() {
            return Ok(());
        }
        let (id, epoch) = (self.node_id, here.broker_epoch);
        let told = self.controller.assign_replicas_to_dirs(id, epoch, told).await?;
        self.applied(told.offset).await;
        Ok(())
    }

    /// Tells the controller which directories are left, and which replicas cannot be used.
    pub(super) fn report_offline(self: &Arc<Self>) {
        let broker = Arc::clone(self);
        self.runtime.spawn(async move {
            let told = async {
                broker.tell_directories().await?;
                let applied = broker.metadata().offset;
                broker.controller.heartbeat(broker.heartbeat(applied)).await
            };
            if let Err(error) = told.await {
                tracing::error!(%error, "the controller does not know of a failed log directory");
            }
        });
    }

    /// Healthy while a log directory is online and this node's metadata is current.
    pub(super) fn health_check(self: &Arc<Self>) -> HealthCheck {
        let broker = Arc::downgrade(self);
        Arc::new(move || {
            let Some(broker) = broker.upgrade() else { return Health::not_ok("stopping") };
            let dirs = broker.lock_dirs();
            match dirs.dirs().iter().any(|dir| !dir.is_offline()) {
                true => Health::ok(),
                false => Health::not_ok("no log directory is online"),
            }
        })
    }
}

/// What clients are told to connect to. A port of 0 is told as the one that the system chose.
fn endpoints(settings: &BrokerConfig, addresses: &[(String, SocketAddr)]) -> Vec<BrokerEndpoint> {
    let endpoint = |listener: &Listener| {
        let bound = addresses.iter().find(|(name, _)| *name == listener.name);
        let port = match (listener.port, bound) {
            (0, Some((_, address))) => address.port(),
            (port, _) => port,
        };
        BrokerEndpoint {
            name: listener.name.clone(),
            host: listener.host.clone(),
            port,
            security_protocol: listener.protocol.id(),
        }
    };
    settings.advertised_listeners.iter().map(endpoint).collect()
}
