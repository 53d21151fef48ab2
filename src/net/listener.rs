//! Accepts the connections of one listener within the limits, and ends all of them at a stop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tracing::{debug, warn};

use super::{
    ConnectionLimits,
    connection::{Closed, Connection},
    foreign_protocols::ForeignProtocols,
    limits::ConnectionPermit,
};
use crate::{
    base::config::SecurityProtocol,
    broker::Broker,
    handlers::{Client, ConnectionContext},
    telemetry::CloseReason,
};

/// The two channels of a stop: one ends all connections, the other shows when all have ended.
#[derive(Clone)]
pub struct Shutdown {
    /// Becomes true when the stop begins.
    pub signal: watch::Receiver<bool>,
    /// Every connection holds a clone. The channel closes when the last connection has ended.
    pub alive: mpsc::Sender<()>,
}

/// Accepts the connections of a listener until the stop signal. Each connection is a task of its
/// own.
pub async fn serve(
    listener: TcpListener,
    name: Arc<str>,
    broker: Arc<Broker>,
    limits: Arc<ConnectionLimits>,
    shutdown: Shutdown,
) {
    let mut stop = shutdown.signal.clone();
    let foreign = Arc::<ForeignProtocols>::default();
    // As in Kafka, clients cannot take all places, so that nodes can always connect to each other.
    // This protects controller listeners. It protects the inter-broker listener only if there is
    // another listener for clients.
    let settings = broker.settings();
    let on_controller_listener = settings.controller_listeners.iter().any(|it| it.name == *name);
    let is_inter_broker = *name == *settings.inter_broker_listener;
    let is_protected = on_controller_listener || settings.listeners.len() > 1 && is_inter_broker;
    let mut listeners = settings.listeners.iter().chain(&settings.controller_listeners);
    let security_protocol =
        listeners.find(|it| it.name == *name).map_or(SecurityProtocol::Plaintext, |it| it.protocol);
    drop(settings);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // A socket for IPv6 and IPv4 reports the address of an IPv4 peer in its IPv6 form.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                // While this waits, new connections stay in the backlog of the system.
                let admitted = tokio::select! {
                    admitted = limits.admit(peer.ip(), is_protected) => admitted,
                    _ = stop.wait_for(|stop| *stop) => return,
                };
                let Some(admitted) = admitted else {
                    debug!(%peer, "connection refused: too many from its address");
                    broker.metrics.connections.opened();
                    broker.metrics.connections.closed(CloseReason::Limit);
                    continue;
                };
                let session = ConnectionContext {
                    client: Client::anonymous(peer),
                    listener: Arc::clone(&name),
                    security_protocol,
                    on_controller_listener,
                    software: None,
                    presence: None,
                };
                spawn(stream, session, (&broker, &foreign), admitted, &shutdown);
            }
            Err(error) => {
                // Most likely there are no file descriptors left. Wait for connections to end.
                warn!(%error, listener = %name, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Starts the task that serves a connection, counts it, and logs why it was closed.
fn spawn(
    stream: TcpStream,
    session: ConnectionContext,
    (broker, foreign): (&Arc<Broker>, &Arc<ForeignProtocols>),
    admitted: ConnectionPermit,
    shutdown: &Shutdown,
) {
    let (peer, listener, foreign) =
        (session.client.address, Arc::clone(&session.listener), Arc::clone(foreign));
    // Small responses must not wait for the peer's TCP acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let admitted = Arc::new(admitted);
    let connection = Connection::new(stream, session, Arc::clone(broker), Arc::clone(&admitted));
    let metrics = Arc::clone(&broker.metrics);
    metrics.connections.opened();
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let _alive = shutdown.alive;
        let reason = tokio::select! {
            reason = connection.run(shutdown.signal) => reason,
            () = admitted.told_to_leave() => Closed::Excess,
        };
        metrics.connections.closed(reason.reason());
        foreign.note(&listener, peer.ip(), &reason);
        debug!(%peer, %reason, "connection closed");
    });
}
