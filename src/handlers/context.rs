//! What a handler sees besides its request.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    broker::{Broker, Presence},
    controller::Controller,
};

/// One connection's own state; safe to change because handlers of a connection run one at a time.
#[derive(Clone)]
pub struct Session {
    pub peer: SocketAddr,
    /// The listener's name (`PLAINTEXT`, `CONTROLLER`, ...).
    pub listener: Arc<str>,
    /// Whether the listener is one of `controller.listener.names`.
    pub of_controllers: bool,
    /// `client.software.name` and version, as ApiVersions told them (KIP-511).
    pub software: Option<(String, String)>,
    /// The broker whose heartbeats come by this connection.
    pub presence: Option<Arc<Presence>>,
}

/// How a request that only the active controller decides (`Scope::Forwarded`) has come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// From a client of the controllers' listener, which finds the next controller itself. Every
    /// other request, too.
    Direct,
    /// From a broker, which sends it to the next controller if this one is not active any more.
    ByBroker,
    /// No controller has answered it in time.
    TimedOut,
}

pub struct Context<'a> {
    pub broker: &'a Arc<Broker>,
    pub session: &'a mut Session,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<&'a str>,
    pub forwarding: Forwarding,
}

impl Context<'_> {
    /// The client id, or nothing if there is none.
    pub fn client_id(&self) -> &str {
        self.client_id.unwrap_or_default()
    }

    /// This node's controller. It refuses a request whose time is up.
    pub fn controller(&self) -> Controller {
        match self.forwarding {
            Forwarding::Direct | Forwarding::ByBroker => self.broker.controller.clone(),
            Forwarding::TimedOut => self.broker.controller.until(Instant::now()),
        }
    }

    /// This node's controller, for a request that says within which time the controller has to
    /// begin.
    pub fn controller_within(&self, timeout_ms: i32) -> Controller {
        let timeout = Duration::from_millis(timeout_ms.max(0) as u64);
        match self.forwarding {
            Forwarding::Direct | Forwarding::ByBroker => {
                self.broker.controller.until(Instant::now() + timeout)
            }
            Forwarding::TimedOut => self.controller(),
        }
    }

    /// The client's address as Kafka prints it: `/127.0.0.1`.
    pub fn client_host(&self) -> String {
        format!("/{}", self.session.peer.ip())
    }
}
