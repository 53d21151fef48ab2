//! Accepts connections of one listener within the limits, and ends them all at a controlled stop.

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
    limits::Admitted,
};
use crate::{broker::Broker, handlers::Session, telemetry::CloseReason};

/// Tells connections to end, and tells the stopper when they have.
#[derive(Clone)]
pub struct Shutdown {
    pub signal: watch::Receiver<bool>,
    /// Held by every connection; the receiving end closes when the last is gone.
    pub alive: mpsc::Sender<()>,
}

/// Serves one listener until the shutdown signal.
pub async fn serve(
    listener: TcpListener,
    name: Arc<str>,
    broker: Arc<Broker>,
    limits: Arc<ConnectionLimits>,
    shutdown: Shutdown,
) {
    let mut stop = shutdown.signal.clone();
    let foreign = Arc::<ForeignProtocols>::default();
    // As Kafka: brokers reach each other however many clients there are.
    let (is_protected, of_controllers) = {
        let settings = broker.settings();
        let of_controllers = settings.controller_listeners.iter().any(|it| it.name == *name);
        let is_inter_broker = *name == *settings.inter_broker_listener;
        (of_controllers || settings.listeners.len() > 1 && is_inter_broker, of_controllers)
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // A socket of both families shows an IPv4 peer as an IPv6 address.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                // The next ones stay with the system meanwhile, not accepted.
                let admitted = tokio::select! {
                    admitted = limits.admit(peer.ip(), is_protected) => admitted,
                    _ = stop.wait_for(|stop| *stop) => return,
                };
                let Some(admitted) = admitted else {
                    debug!(%peer, "connection refused: its address has too many");
                    broker.metrics.connections.opened();
                    broker.metrics.connections.closed(CloseReason::Limit);
                    continue;
                };
                let listener = Arc::clone(&name);
                let session =
                    Session { peer, listener, of_controllers, software: None, presence: None };
                spawn(stream, session, (&broker, &foreign), admitted, &shutdown);
            }
            Err(error) => {
                // Out of descriptors, most likely: let connections end before trying again.
                warn!(%error, listener = %name, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn spawn(
    stream: TcpStream,
    session: Session,
    (broker, foreign): (&Arc<Broker>, &Arc<ForeignProtocols>),
    admitted: Admitted,
    shutdown: &Shutdown,
) {
    let (peer, listener, foreign) =
        (session.peer, Arc::clone(&session.listener), Arc::clone(foreign));
    // Small replies must not wait for the peer's acknowledgement of earlier ones.
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
