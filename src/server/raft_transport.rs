//! Sends Raft messages to the listeners of the other controllers, and fetches the metadata log for
//! a node that does not vote.

use std::{collections::BTreeMap, io::ErrorKind, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use futures_core::future::BoxFuture;
use kafka_protocol::{
    messages::{FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse},
    protocol::Request,
};
use parking_lot::Mutex;

use crate::{
    peers::{self, Address, Channel, Network, PeerError},
    protocol::frame,
    quorum::{Endpoint, Lane, LeaderClient, Peer, RaftTransport, TransportError},
};

/// A channel that is kept while the address stays the same.
#[derive(Default)]
struct Kept(Option<(Address, Arc<dyn Channel>)>);

impl Kept {
    fn to(&mut self, network: &dyn Network, at: &Endpoint) -> Arc<dyn Channel> {
        let address = Address { host: at.host.clone(), port: at.port };
        match &self.0 {
            Some((known, channel)) if *known == address => Arc::clone(channel),
            // The controller has another address, or another controller leads.
            _ => {
                let channel = network.channel(&address);
                self.0 = Some((address, Arc::clone(&channel)));
                channel
            }
        }
    }
}

/// Sends Raft messages. It has a channel per controller and lane.
pub(super) struct PeerTransport {
    network: Arc<dyn Network>,
    channels: Mutex<BTreeMap<(i32, Lane), Kept>>,
}

impl PeerTransport {
    pub fn new(network: Arc<dyn Network>) -> Self {
        Self { network, channels: Mutex::default() }
    }

    fn channel(&self, to: &Peer) -> Arc<dyn Channel> {
        let mut channels = self.channels.lock();
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
            // Skip the correlation id, which the channel has checked.
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

/// Sends the Fetch requests of a node that does not vote to the leader of the quorum.
pub(super) struct PeerLeader {
    network: Arc<dyn Network>,
    /// The channel of the last request.
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
            let mut kept = self.channel.lock();
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
