//! What a handler gets besides its request: the connection's session and facts from the header.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Client, ErrorCode};
use crate::{
    base::config::{BrokerConfig, SecurityProtocol},
    broker::{Broker, HeartbeatConnection},
    controller::Controller,
    protocol::checks::{CLUSTER_DESCRIBE, CLUSTER_NAME, Check, ResourceType},
};

/// The value of authorized operations if the client did not request them.
pub const NO_OPERATIONS: i32 = i32::MIN;

/// The state of one connection. A handler may change it before its ordering point, because up to
/// there the requests of a connection are handled one after the other.
#[derive(Clone)]
pub struct ConnectionContext {
    pub client: Client,
    /// The listener's name (`PLAINTEXT`, `CONTROLLER`, ...).
    pub listener: Arc<str>,
    /// How the listener's connections are secured. For now it is always `Plaintext`.
    pub security_protocol: SecurityProtocol,
    /// Whether the listener is one of `controller.listener.names`.
    pub on_controller_listener: bool,
    /// The client's software name and version, from its ApiVersions request (KIP-511).
    pub software: Option<(String, String)>,
    /// The broker that sends its heartbeats on this connection. When the session is dropped, the
    /// active controller checks whether that broker has ended.
    pub presence: Option<Arc<HeartbeatConnection>>,
}

impl ConnectionContext {
    /// The context of a connection to the first controller listener. It is used for requests that
    /// arrive in another way.
    pub fn of_controller_listener(settings: &BrokerConfig, client: Client) -> Self {
        let listener = settings.controller_listeners.first();
        Self {
            client,
            listener: Arc::from(listener.map_or("CONTROLLER", |it| it.name.as_str())),
            security_protocol: listener.map_or(SecurityProtocol::Plaintext, |it| it.protocol),
            on_controller_listener: true,
            software: None,
            presence: None,
        }
    }

    /// The context of a connection to the inter-broker listener.
    pub fn of_inter_broker_listener(settings: &BrokerConfig, client: Client) -> Self {
        let name = &settings.inter_broker_listener;
        let listener = settings.listeners.iter().find(|it| it.name == *name);
        Self {
            client,
            listener: Arc::from(name.as_str()),
            security_protocol: listener.map_or(SecurityProtocol::Plaintext, |it| it.protocol),
            on_controller_listener: false,
            software: None,
            presence: None,
        }
    }
}

/// How a request that only the active controller decides (`Scope::Forwarded`) reached this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// From a client of a controller listener. If this node is not the active controller, the
    /// client looks for the active controller itself. Requests that are never forwarded have this
    /// value, too.
    Direct,
    /// From a client of a broker listener, on this broker or another one. If this node is not the
    /// active controller any more, the broker sends the request to the next controller.
    ByBroker,
    /// No controller has answered the request in time. The handler decides nothing, and only builds
    /// the response with REQUEST_TIMED_OUT.
    TimedOut,
}

/// The context of one request.
pub struct Context<'a> {
    pub broker: &'a Arc<Broker>,
    pub session: &'a mut ConnectionContext,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<&'a str>,
    pub forwarding: Forwarding,
}

impl Context<'_> {
    /// The client id, or an empty text if the request has none.
    pub fn client_id(&self) -> &str {
        self.client_id.unwrap_or_default()
    }

    /// The client's authorized operations on the cluster, or 0 if it may not describe the cluster.
    pub fn cluster_operations(&self) -> i32 {
        match self.allowed_on_cluster(CLUSTER_DESCRIBE) {
            true => self.session.client.operations(ResourceType::Cluster, CLUSTER_NAME),
            false => 0,
        }
    }

    /// As [`Client::allowed`].
    pub fn allowed(&self, check: Check, name: &str) -> bool {
        self.session.client.allowed(check, name)
    }

    pub fn allowed_on_cluster(&self, check: Check) -> bool {
        self.allowed(check, CLUSTER_NAME)
    }

    /// As [`Client::check`].
    pub fn check(&self, check: Check, name: &str) -> Result<(), ErrorCode> {
        self.session.client.check(check, name)
    }

    pub fn check_on_cluster(&self, check: Check) -> Result<(), ErrorCode> {
        self.check(check, CLUSTER_NAME)
    }

    /// This node's controller. It refuses a request that has timed out (`Forwarding::TimedOut`).
    pub fn controller(&self) -> Controller {
        match self.forwarding {
            Forwarding::Direct | Forwarding::ByBroker => self.broker.controller.clone(),
            Forwarding::TimedOut => self.broker.controller.until(Instant::now()),
        }
    }

    /// This node's controller, for a request with a timeout of its own. The controller refuses the
    /// request if it cannot begin to decide within `timeout_ms`.
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
        format!("/{}", self.session.client.address.ip())
    }
}
