//! [`BrokerChannels`]: requests to the brokers of the cluster, this one included.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kafka_protocol::protocol::Request;
use parking_lot::Mutex;

use super::Node;
use crate::{
    metadata::Image,
    peers::{self, Address, Channel, PeerError},
};

/// Why a broker has not answered a request.
#[derive(Debug, thiserror::Error)]
pub enum ToBrokerError {
    #[error("broker {0} is not registered, or fenced")]
    NotAlive(i32),
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

    /// Sends a request to a broker and waits for its response, at most `timeout` and at most until
    /// the controller fences the broker.
    ///
    /// # Errors
    /// The broker may still have handled the request.
    pub async fn send<R: Request>(
        &self,
        broker: i32,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, ToBrokerError> {
        let channel = self.channel_to(&self.node.metadata(), broker);
        let channel = channel.ok_or(ToBrokerError::NotAlive(broker))?;
        tokio::select! {
            biased;
            answered = peers::send(&*channel, version, request, timeout) => Ok(answered?),
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
