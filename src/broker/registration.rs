//! This broker's place in the cluster: its registration, and what it tells of its health.

use std::{net::SocketAddr, sync::Arc};

use uuid::Uuid;

use super::{Broker, ServerError};
use crate::{
    base::config::{BrokerConfig, Listener},
    controller::{DirsFailure, Registration},
    metadata::records::BrokerEndpoint,
    telemetry::{Health, http::HealthCheck},
};

impl Broker {
    /// Registers this process and waits until its own metadata shows it.
    pub(super) async fn register(
        &self,
        addresses: &[(String, SocketAddr)],
    ) -> Result<(), ServerError> {
        let settings = self.settings();
        let incarnation_id = Uuid::new_v4();
        let log_dirs = {
            let dirs = self.lock_dirs();
            dirs.dirs().iter().filter(|dir| !dir.is_offline()).map(|dir| dir.id).collect()
        };
        let registration = Registration {
            broker_id: self.node_id,
            incarnation_id,
            endpoints: endpoints(&settings, addresses),
            rack: settings.broker_rack.clone(),
            log_dirs,
            offline: self.offline_replicas(),
        };
        let registered = self.controller.register_broker(registration).await?;
        registered.value?;
        self.applied(registered.offset).await;
        Ok(())
    }

    /// Tells the controller which directories are left, and which replicas cannot be used.
    pub(super) fn report_offline(self: &Arc<Self>) {
        let broker = Arc::clone(self);
        self.runtime.spawn(async move {
            let log_dirs = {
                let dirs = broker.lock_dirs();
                dirs.dirs().iter().filter(|dir| !dir.is_offline()).map(|dir| dir.id).collect()
            };
            let offline = broker.offline_replicas();
            let failure = DirsFailure { broker_id: broker.node_id, log_dirs, offline };
            if let Err(error) = broker.controller.directories_failed(failure).await {
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
