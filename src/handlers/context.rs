//! What a handler sees besides its request.

use std::{net::SocketAddr, sync::Arc};

use crate::broker::{Broker, Presence};

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

pub struct Context<'a> {
    pub broker: &'a Arc<Broker>,
    pub session: &'a mut Session,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<&'a str>,
}

impl Context<'_> {
    /// The client id, or nothing if there is none.
    pub fn client_id(&self) -> &str {
        self.client_id.unwrap_or_default()
    }

    /// The client's address as Kafka prints it: `/127.0.0.1`.
    pub fn client_host(&self) -> String {
        format!("/{}", self.session.peer.ip())
    }
}
