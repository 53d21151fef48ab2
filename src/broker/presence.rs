//! Brokers whose processes have ended are noticed at once, and not only when their sessions time
//! out: the connections that carry their heartbeats break.

use std::{
    io::ErrorKind,
    sync::{Arc, Weak},
    time::Duration,
};

use kafka_protocol::messages::ApiVersionsRequest;
use tokio::time::sleep;
use tracing::debug;

use super::Broker;
use crate::{
    peers::{self, PeerError},
    quorum::Leadership,
};

/// A broker that is alive answers this quickly, or is taken for alive.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const PROBE_AGAIN: Duration = Duration::from_millis(50);
const PROBES_MAX: u32 = 20;

/// A connection by which a broker's heartbeats come to the active controller. Dropped with it.
pub struct Presence {
    controller: Weak<Broker>,
    id: i32,
    epoch: i64,
}

impl Presence {
    pub fn new(controller: &Arc<Broker>, id: i32, epoch: i64) -> Arc<Self> {
        Arc::new(Self { controller: Arc::downgrade(controller), id, epoch })
    }

    pub fn is_of(&self, id: i32, epoch: i64) -> bool {
        (self.id, self.epoch) == (id, epoch)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let Some(controller) = self.controller.upgrade() else { return };
        let (id, epoch) = (self.id, self.epoch);
        let runtime = controller.runtime.clone();
        runtime.spawn(async move { controller.on_connection_lost(id, epoch).await });
    }
}

/// Probes all brokers whenever this node begins to lead the quorum: it has had no connection from
/// any of them, and one may have ended together with the last leader.
pub(super) async fn watch_quorum(broker: Arc<Broker>) {
    let mut leadership = broker.quorum.leadership();
    loop {
        let Leadership { active, .. } = *leadership.borrow_and_update();
        if active {
            let image = broker.quorum.image();
            let others = image.brokers.values().filter(|it| !it.fenced);
            for other in others.filter(|it| it.broker_id != broker.node_id) {
                let (broker, other) = (Arc::clone(&broker), Arc::clone(other));
                tokio::spawn(async move {
                    broker.on_connection_lost(other.broker_id, other.broker_epoch).await;
                });
            }
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

impl Broker {
    /// Fences a broker of whose process the system says that it is gone. A paused or slow one takes
    /// the connection, and one that cannot be reached is left to its session.
    async fn on_connection_lost(&self, id: i32, epoch: i64) {
        if !self.leads_quorum() {
            return;
        }
        let image = self.quorum.image();
        let Some(broker) = image.broker(id).filter(|it| it.broker_epoch == epoch) else { return };
        let Some(address) = self.broker_address(broker) else { return };
        let channel = self.network.channel(&address);
        let probe = ApiVersionsRequest::default();
        let mut tries = 0;
        loop {
            tries += 1;
            match peers::send(&*channel, 0, &probe, PROBE_TIMEOUT).await {
                Err(PeerError::Unreachable { source, .. })
                    if source.kind() == ErrorKind::ConnectionRefused =>
                {
                    break;
                }
                // A process that ends closes its connections before it is gone.
                Err(PeerError::Broken { .. }) if tries < PROBES_MAX => {
                    sleep(PROBE_AGAIN).await;
                }
                _ => return,
            }
        }
        debug!(broker = id, "the broker's process has ended");
        if let Err(error) = self.controller.broker_gone(id, Some(epoch)).await {
            debug!(%error, broker = id, "not fenced here");
        }
    }
}
