//! [`Membership`] holds the state of this broker's registration, heartbeats and connection to the
//! active controller. On a controller node, it also fences brokers whose process has ended and
//! updates this node's own voter entry.
//!
//! Invariants:
//! - A heartbeat that counts as alive is sent only after the controller has answered another
//!   request.
//! - The controller fences a broker early only if the broker's process has ended. A slow or paused
//!   broker is fenced when its session times out.

mod controller_isolation;
mod disconnect_fencing;
pub mod lifecycle;
mod producer_ids;
mod to_controller;
mod voting;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use self::{controller_isolation::ControllerContact, disconnect_fencing::DisconnectFencing};
pub use self::{
    controller_isolation::watch as watch_isolation,
    disconnect_fencing::HeartbeatConnection,
    producer_ids::ProducerIds,
    to_controller::{ToController, ToControllerError},
};
use super::{Broker, event_log, node::Node};
use crate::{controller::Controller, log::LogDirs, quorum::Quorum};

/// The state of this node's membership in the cluster.
pub struct Membership {
    pub disconnect_fencing: Arc<DisconnectFencing>,
    pub to_controller: Arc<ToController>,
    pub producer_ids: ProducerIds,
    /// Time of the last heartbeat response, and the coordinator shards that this broker resigned
    /// because the controller sent none.
    contact: ControllerContact,
    /// Whether the controlled shutdown of this broker has begun.
    stopping: AtomicBool,
    /// The broker epoch of the previous process if it stopped cleanly, otherwise -1.
    previous_broker_epoch: i64,
}

impl Membership {
    /// Creates the state of a broker that is not registered yet. `previous_broker_epoch` is the
    /// result of [`previous_broker_epoch`].
    pub fn new(
        node: &Arc<Node>,
        to_controller: Arc<ToController>,
        (quorum, controller): (&Quorum, &Controller),
        previous_broker_epoch: i64,
    ) -> Self {
        Self {
            producer_ids: ProducerIds::new(Arc::clone(node), Arc::clone(&to_controller)),
            disconnect_fencing: Arc::new(DisconnectFencing::new(
                Arc::clone(node),
                quorum.clone(),
                controller.clone(),
            )),
            to_controller,
            contact: ControllerContact::new(),
            stopping: AtomicBool::new(false),
            previous_broker_epoch,
        }
    }

    /// Whether the controlled shutdown of this broker has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The time since the controller last answered a heartbeat.
    pub fn since_heartbeat_response(&self) -> Duration {
        self.contact.silence()
    }

    /// Prevents the restart of coordinator shards that this broker resigned while it was isolated.
    pub(super) fn resign(&self) {
        self.contact.resign();
    }
}

/// The broker epoch in the clean shutdown markers. -1 if a log directory has no marker or the
/// epochs differ.
pub fn previous_broker_epoch(log_dirs: &LogDirs) -> i64 {
    let mut epochs = log_dirs
        .dirs()
        .iter()
        .map(|dir| dir.clean_shutdown.as_ref().map_or(-1, |clean| clean.broker_epoch));
    let first = epochs.next().unwrap_or(-1);
    if epochs.all(|epoch| epoch == first) { first } else { -1 }
}
