//! [`BrokerChannels`]: requests to the brokers of the cluster, this one included.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kafka_protocol::protocol::Request;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::Node;
use crate::{
    metadata::Image,
    peers::{self, Address, Channel, PeerError},
};

/// A broker answers within `request.timeout.ms`. Its response may take this much longer to arrive.
const ON_THE_WAY_MAX: Duration = Duration::from_secs(5);

/// Why a broker has not answered a request.
#[derive(Debug, thiserror::Error)]
pub enum ToBrokerError {
    #[error("broker {0} is not registered, or fenced")]
    NotAlive(i32),
    /// A handler of this broker has panicked.
    #[error("the request failed here")]
    Failed,
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// One channel to each broker, on its inter-broker listener. Requests to this broker itself go to
/// its handlers, without a socket. A channel to another broker has one request in flight, so users
/// that must not wait for each other have channels of their own.
pub struct BrokerChannels {
    node: Arc<Node>,
    own: Arc<dyn Channel>,
    others: Mutex<HashMap<i32, OtherBroker>>,
}

struct OtherBroker {
    at: Address,
    channel: Arc<dyn Channel>,
}

impl BrokerChannels {
    pub fn new(node: Arc<Node>, own: Arc<dyn Channel>) -> Self {
        Self { node, own, others: Mutex::default() }
    }

    /// Sends a request to a broker and waits for its response, a little longer than
    /// `request.timeout.ms`, and at most until the controller fences the broker.
    ///
    /// # Errors
    /// The broker may still have handled the request.
    pub async fn send<R: Request>(
        &self,
        broker: i32,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ToBrokerError> {
        let timeout_ms = self.node.settings().cluster.request_timeout_ms.max(1) as u64;
        let timeout = Duration::from_millis(timeout_ms) + ON_THE_WAY_MAX;
        let channel = self.channel_to(&self.node.metadata(), broker);
        let channel = channel.ok_or(ToBrokerError::NotAlive(broker))?;
        let frame = peers::encode(version, request)?;
        // In a task of its own, a panic of a handler fails only this request. Dropping the set ends
        // the task.
        let mut call = JoinSet::new();
        call.spawn(async move { channel.call(frame, timeout).await });
        tokio::select! {
            biased;
            answered = call.join_next() => {
                let answer = answered.and_then(Result::ok).ok_or(ToBrokerError::Failed)?;
                Ok(peers::decode::<R>(version, answer?)?)
            }
            () = self.node.metadata_shows(|image| !is_alive(image, broker)) => {
                Err(ToBrokerError::NotAlive(broker))
            }
        }
    }

    fn channel_to(&self, image: &Image, broker: i32) -> Option<Arc<dyn Channel>> {
        if broker == self.node.id {
            return Some(Arc::clone(&self.own));
        }
        if !is_alive(image, broker) {
            return None;
        }
        let address = self.node.address_of(image.broker(broker)?)?;
        let mut others = self.others.lock();
        if let Some(known) = others.get(&broker).filter(|known| known.at == address) {
            return Some(Arc::clone(&known.channel));
        }
        let channel = self.node.network.channel(&address);
        others.insert(broker, OtherBroker { at: address, channel: Arc::clone(&channel) });
        Some(channel)
    }
}

fn is_alive(image: &Image, broker: i32) -> bool {
    image.broker(broker).is_some_and(|it| !it.fenced)
}
