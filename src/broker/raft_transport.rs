//! Carries Raft's messages to the other controllers' listeners.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes};

use crate::{
    peers::{Address, BoxFuture, Channel, Network, PeerError},
    protocol::frame,
    quorum::{Lane, Peer, RaftTransport, TransportError},
};

/// A channel per controller and kind of message.
pub(super) struct PeerTransport {
    network: Arc<dyn Network>,
    channels: Mutex<BTreeMap<(i32, Lane), (Address, Arc<dyn Channel>)>>,
}

impl PeerTransport {
    pub fn new(network: Arc<dyn Network>) -> Self {
        Self { network, channels: Mutex::default() }
    }

    fn channel(&self, to: &Peer) -> Arc<dyn Channel> {
        let address = Address { host: to.at.host.clone(), port: to.at.port };
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        match channels.get(&(to.id, to.lane)) {
            Some((known, channel)) if *known == address => Arc::clone(channel),
            // A controller that has moved.
            _ => {
                let channel = self.network.channel(&address);
                channels.insert((to.id, to.lane), (address, Arc::clone(&channel)));
                channel
            }
        }
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
