//! Fencing of brokers whose process has ended, before their session times out. The active
//! controller detects the end of a process: the connection with its heartbeats breaks, and its
//! listener refuses connections.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    sync::{Arc, Weak},
    time::Duration,
};

use kafka_protocol::messages::ApiVersionsRequest;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{super::leads, Broker, Node};
use crate::{
    controller::Controller,
    peers::{self, Address, PeerError},
    quorum::{Leadership, Quorum},
};

/// The time limit of a probe. A broker that does not answer in it counts as alive but slow.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a probe of a broker that may have ended, and of one that is alive.
const PROBE_AGAIN: Duration = Duration::from_millis(50);
const PROBE_ALIVE: Duration = Duration::from_millis(200);
/// How long all probes must be refused before the broker is fenced. A live broker connects within
/// this time, because it sends a heartbeat as soon as it learns of a new controller.
const REFUSED_MIN: Duration = Duration::from_millis(100);
/// As [`REFUSED_MIN`], for a broker that is not a voter and has not sent a heartbeat to this
/// controller yet. It may still be looking for the new controller.
const REFUSED_OBSERVER_MIN: Duration = Duration::from_secs(1);

/// Fences the brokers whose process has ended, while this node is the active controller.
pub struct DisconnectFencing {
    node: Arc<Node>,
    quorum: Quorum,
    controller: Controller,
    connections: HeartbeatConnections,
}

/// The number of open connections with heartbeats of each broker, by broker id and epoch.
#[derive(Default)]
struct HeartbeatConnections {
    open: Mutex<BTreeMap<(i32, i64), usize>>,
}

impl HeartbeatConnections {
    fn open(&self) -> MutexGuard<'_, BTreeMap<(i32, i64), usize>> {
        self.open.lock()
    }

    fn has(&self, id: i32, epoch: i64) -> bool {
        self.open().contains_key(&(id, epoch))
    }

    fn add(&self, id: i32, epoch: i64) {
        *self.open().entry((id, epoch)).or_default() += 1;
    }

    /// Removes a connection. Returns whether it was the broker's last one.
    fn remove(&self, id: i32, epoch: i64) -> bool {
        let mut open = self.open();
        let left = open.get(&(id, epoch)).map_or(0, |count| count - 1);
        match left {
            0 => drop(open.remove(&(id, epoch))),
            left => drop(open.insert((id, epoch), left)),
        }
        left == 0
    }
}

/// A connection over which a broker sends heartbeats to this controller. The connection owns this
/// value. When the last one of a broker is dropped, the controller starts to probe the broker.
pub struct HeartbeatConnection {
    fencing: Weak<DisconnectFencing>,
    id: i32,
    epoch: i64,
}

impl HeartbeatConnection {
    pub fn new(fencing: &Arc<DisconnectFencing>, id: i32, epoch: i64) -> Arc<Self> {
        fencing.connections.add(id, epoch);
        Arc::new(Self { fencing: Arc::downgrade(fencing), id, epoch })
    }

    pub fn is_of(&self, id: i32, epoch: i64) -> bool {
        (self.id, self.epoch) == (id, epoch)
    }
}

impl Drop for HeartbeatConnection {
    fn drop(&mut self) {
        let Some(fencing) = self.fencing.upgrade() else { return };
        let (id, epoch) = (self.id, self.epoch);
        if fencing.connections.remove(id, epoch) {
            let runtime = fencing.node.control.clone();
            runtime.spawn(async move { fencing.watch_unconnected(id, epoch, REFUSED_MIN).await });
        }
    }
}

/// Watches all brokers whenever this node becomes the active controller, because none is connected
/// to it yet. A broker may have ended together with the previous controller, or may end before its
/// first heartbeat to this one.
pub(super) async fn watch_quorum(broker: Arc<Broker>) {
    let mut leadership = broker.quorum.leadership();
    loop {
        let Leadership { active, .. } = *leadership.borrow_and_update();
        if active {
            broker.membership.disconnect_fencing.watch_all_unconnected();
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// The result of probing a broker's listener.
enum Probe {
    /// The system at the broker's address says that no process listens there.
    Refused,
    /// The connection broke. A process that ends closes its connections before it is gone.
    Broken,
    /// The broker answered, was too slow, or cannot be reached. A broker that is paused, slow or
    /// cut off is only fenced when its session times out.
    Alive,
}

impl DisconnectFencing {
    pub fn new(node: Arc<Node>, quorum: Quorum, controller: Controller) -> Self {
        Self { node, quorum, controller, connections: HeartbeatConnections::default() }
    }

    fn watch_all_unconnected(self: &Arc<Self>) {
        let voters = self.quorum.status().voters;
        let image = self.quorum.image();
        let others = image.brokers.values().filter(|it| !it.fenced && it.broker_id != self.node.id);
        for other in others {
            let (id, epoch) = (other.broker_id, other.broker_epoch);
            let refused_min = match voters.iter().any(|voter| voter.replica_id == id) {
                true => REFUSED_MIN,
                false => REFUSED_OBSERVER_MIN,
            };
            let fencing = Arc::clone(self);
            tokio::spawn(async move { fencing.watch_unconnected(id, epoch, refused_min).await });
        }
    }

    /// Watches a broker while it has no heartbeat connection to this controller, and fences it if
    /// its process has ended. One refused connection does not prove that: a firewall or a load
    /// balancer may have refused it. All probes must be refused for `refused_min`, and the broker
    /// must not connect in that time.
    async fn watch_unconnected(&self, id: i32, epoch: i64, refused_min: Duration) {
        let mut refused_since = None;
        while let Some(address) = self.address_of_unconnected(id, epoch) {
            match self.probe(&address).await {
                Probe::Alive => {
                    refused_since = None;
                    sleep(PROBE_ALIVE).await;
                }
                Probe::Broken => sleep(PROBE_AGAIN).await,
                Probe::Refused => {
                    let since = *refused_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= refused_min {
                        return self.fence_ended(id, epoch).await;
                    }
                    sleep(PROBE_AGAIN).await;
                }
            }
        }
    }

    /// The address of a broker, if it is to be watched: this node is the active controller, the
    /// broker has this epoch and is not fenced, and no connection carries its heartbeats.
    fn address_of_unconnected(&self, id: i32, epoch: i64) -> Option<Address> {
        if !leads(&self.quorum, self.node.id) || self.connections.has(id, epoch) {
            return None;
        }
        let image = self.quorum.image();
        let broker = image.broker(id).filter(|it| it.broker_epoch == epoch && !it.fenced)?;
        self.node.address_of(broker)
    }

    async fn probe(&self, address: &Address) -> Probe {
        let channel = self.node.network.channel(address);
        let request = ApiVersionsRequest::default();
        match peers::send(&*channel, 0, &request, PROBE_TIMEOUT).await {
            Err(PeerError::Unreachable { source, .. })
                if source.kind() == ErrorKind::ConnectionRefused =>
            {
                Probe::Refused
            }
            Err(PeerError::Broken { .. }) => Probe::Broken,
            _ => Probe::Alive,
        }
    }

    async fn fence_ended(&self, id: i32, epoch: i64) {
        if self.address_of_unconnected(id, epoch).is_none() {
            return;
        }
        debug!(broker = id, "the broker's process has ended");
        if let Err(error) = self.controller.broker_gone(id, Some(epoch)).await {
            debug!(%error, broker = id, "not fenced here");
        }
    }
}
