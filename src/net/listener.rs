//! Accepts connections of one listener within the limits, and ends them all at a controlled stop.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tracing::{debug, warn};

use super::{ConnectionLimits, connection::Connection};
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
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let session = Session { peer, listener: Arc::clone(&name), software: None };
                admit(stream, session, &broker, &limits, &shutdown);
            }
            Err(error) => {
                // Out of descriptors, most likely: let connections end before trying again.
                warn!(%error, listener = %name, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    session: Session,
    broker: &Arc<Broker>,
    limits: &Arc<ConnectionLimits>,
    shutdown: &Shutdown,
) {
    let peer = session.peer;
    let Some(admitted) = limits.admit(peer.ip()) else {
        debug!(%peer, "connection refused: a limit of connections is reached");
        broker.metrics.connections.opened();
        broker.metrics.connections.closed(CloseReason::Limit);
        return;
    };
    // Small replies must not wait for the peer's acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let connection = Connection::new(stream, session, Arc::clone(broker));
    let metrics = Arc::clone(&broker.metrics);
    metrics.connections.opened();
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let _held = (admitted, shutdown.alive);
        let reason = connection.run(shutdown.signal).await;
        metrics.connections.closed(reason.reason());
        debug!(%peer, %reason, "connection closed");
    });
}
