//! Implements `peers::Network` over the simulated wire.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use sordini::peers::{Address, Channel, Network, PeerError};
use tokio::{
    sync::{
        Mutex,
        mpsc::{UnboundedReceiver, error::TryRecvError},
    },
    time::timeout,
};

use crate::wire::{ClientEvent, ConnectionId, MachineId, SharedWire};

/// Time limit for opening a connection, the same as over TCP.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// The network of one machine.
#[derive(Clone)]
pub struct SimNetwork {
    pub wire: SharedWire,
    pub machine: MachineId,
}

impl Network for SimNetwork {
    fn channel(&self, to: &Address) -> Arc<dyn Channel> {
        Arc::new(SimChannel {
            wire: self.wire.clone(),
            machine: self.machine,
            to: to.clone(),
            connection: Mutex::new(None),
        })
    }
}

impl SimNetwork {
    /// Opens a connection. The client's end then receives `Accepted` or `Refused`.
    pub fn open(&self, to: &Address) -> ClientEnd {
        let (id, events) = self.wire.lock().open(self.machine, to);
        ClientEnd { wire: self.wire.clone(), id, events }
    }
}

struct SimChannel {
    wire: SharedWire,
    machine: MachineId,
    to: Address,
    /// The idle connection. `None` before the first request, during a request, and after a failure.
    connection: Mutex<Option<ClientEnd>>,
}

/// The client's end of a connection. Dropping it closes the connection.
pub struct ClientEnd {
    wire: SharedWire,
    id: ConnectionId,
    events: UnboundedReceiver<ClientEvent>,
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        self.wire.lock().close_client(self.id);
    }
}

impl ClientEnd {
    fn is_quiet(&mut self) -> bool {
        matches!(self.events.try_recv(), Err(TryRecvError::Empty))
    }

    /// Sends a request. Others may still wait for their responses.
    pub fn send(&self, request: Bytes) {
        self.wire.lock().request(self.id, request);
    }

    /// Delays all packets that are under way to the server by `us` microseconds.
    pub fn hold_back(&self, us: u64) {
        self.wire.lock().hold_back(self.id, us);
    }

    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ClientEvent> {
        self.events.poll_recv(cx).map(|event| event.unwrap_or(ClientEvent::Closed))
    }

    async fn exchange(&mut self, request: Bytes) -> io::Result<Bytes> {
        self.send(request);
        match self.events.recv().await {
            Some(ClientEvent::Frame(response)) => Ok(response),
            _ => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

impl Channel for SimChannel {
    fn call(&self, request: Bytes, after: Duration) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let timed_out = || PeerError::TimedOut { to: self.to.clone(), after };
            timeout(after, self.call_in_time(request, after)).await.map_err(|_| timed_out())?
        })
    }
}

impl SimChannel {
    async fn call_in_time(&self, request: Bytes, after: Duration) -> Result<Bytes, PeerError> {
        let mut place = self.connection.lock().await;
        let known = place.take().and_then(|mut it| it.is_quiet().then_some(it));
        let mut connection = match known {
            Some(connection) => connection,
            None => self.connect(after).await?,
        };
        let broken = |source| PeerError::Broken { to: self.to.clone(), source };
        let response = connection.exchange(request).await.map_err(broken)?;
        *place = Some(connection);
        Ok(response)
    }

    async fn connect(&self, after: Duration) -> Result<ClientEnd, PeerError> {
        let unreachable = |kind: io::ErrorKind| PeerError::Unreachable {
            to: self.to.clone(),
            source: kind.into(),
        };
        let network = SimNetwork { wire: self.wire.clone(), machine: self.machine };
        let mut end = network.open(&self.to);
        match timeout(after.min(CONNECT_MAX), end.events.recv()).await {
            Ok(Some(ClientEvent::Accepted)) => Ok(end),
            Ok(Some(ClientEvent::Refused)) => Err(unreachable(io::ErrorKind::ConnectionRefused)),
            // No machine has this address.
            Ok(None) => Err(unreachable(io::ErrorKind::HostUnreachable)),
            Ok(Some(_)) => Err(unreachable(io::ErrorKind::ConnectionReset)),
            Err(_) => Err(unreachable(io::ErrorKind::TimedOut)),
        }
    }
}
