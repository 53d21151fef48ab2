//! Carries Raft's messages to the other controllers' listeners.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes};
use kafka_protocol::{
    messages::{FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse},
    protocol::Request,
};

use crate::{
    peers::{self, Address, BoxFuture, Channel, Network, PeerError},
    protocol::frame,
    quorum::{Endpoint, Lane, LeaderClient, Peer, RaftTransport, TransportError},
};

/// A channel that is kept for as long as it goes where it is wanted to.
#[derive(Default)]
struct Kept(Option<(Address, Arc<dyn Channel>)>);

impl Kept {
    fn to(&mut self, network: &dyn Network, at: &Endpoint) -> Arc<dyn Channel> {
        let address = Address { host: at.host.clone(), port: at.port };
        match &self.0 {
            Some((known, channel)) if *known == address => Arc::clone(channel),
            // Whom it went to has moved, or somebody else leads.
            _ => {
                let channel = network.channel(&address);
                self.0 = Some((address, Arc::clone(&channel)));
                channel
            }
        }
    }
}

/// A channel per controller and kind of message.
pub(super) struct PeerTransport {
    network: Arc<dyn Network>,
    channels: Mutex<BTreeMap<(i32, Lane), Kept>>,
}

impl PeerTransport {
    pub fn new(network: Arc<dyn Network>) -> Self {
        Self { network, channels: Mutex::default() }
    }

    fn channel(&self, to: &Peer) -> Arc<dyn Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.entry((to.id, to.lane)).or_default().to(&*self.network, &to.at)
    }
}

impl RaftTransport for PeerTransport {
    fn call(
        &self,
        to: Peer,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let channel = self.channel(&to);
        Box::pin(async move {
            let request = frame::raft_request(&message);
            let mut answer = channel.call(request, timeout).await.map_err(failure)?;
            // Its correlation id has been checked.
            answer.advance(4);
            Ok(answer)
        })
    }
}

fn failure(error: PeerError) -> TransportError {
    match error {
        PeerError::Unreachable { source, .. } if source.kind() == ErrorKind::ConnectionRefused => {
            TransportError::Refused(source.to_string())
        }
        error => TransportError::NoAnswer(error.to_string()),
    }
}

/// Follows the metadata log for a node that does not vote.
pub(super) struct PeerLeader {
    network: Arc<dyn Network>,
    /// To whom it talked last.
    channel: Mutex<Kept>,
}

const FETCH_VERSION: i16 = 17;
const FETCH_SNAPSHOT_VERSION: i16 = 1;

impl PeerLeader {
    pub fn new(network: Arc<dyn Network>) -> Self {
        Self { network, channel: Mutex::default() }
    }

    fn send<R: Request + Send + Sync + 'static>(
        &self,
        to: &Endpoint,
        version: i16,
        request: R,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<R::Response, TransportError>> {
        let channel = {
            let mut kept = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
            kept.to(&*self.network, to)
        };
        Box::pin(async move {
            peers::send(&*channel, version, &request, timeout).await.map_err(failure)
        })
    }
}

impl LeaderClient for PeerLeader {
    fn fetch(
        &self,
        to: Endpoint,
        request: FetchRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<FetchResponse, TransportError>> {
        self.send(&to, FETCH_VERSION, request, timeout)
    }

    fn fetch_snapshot(
        &self,
        to: Endpoint,
        request: FetchSnapshotRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<FetchSnapshotResponse, TransportError>> {
        self.send(&to, FETCH_SNAPSHOT_VERSION, request, timeout)
    }
}
