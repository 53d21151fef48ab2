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
/// The most channels to a broker that stay open without a request.
const IDLE_MAX: usize = 2;

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

/// Channels to each broker, on its inter-broker listener. Requests to this broker itself go to its
/// handlers, without a socket. A channel to another broker has one request in flight, so each of
/// several requests in flight to a broker has a channel of its own.
pub struct BrokerChannels {
    node: Arc<Node>,
    own: Arc<dyn Channel>,
    others: Mutex<HashMap<i32, IdleChannels>>,
}

/// The channels to a broker that have no request in flight.
struct IdleChannels {
    to: Address,
    channels: Vec<Arc<dyn Channel>>,
}

/// A channel for one request.
struct LentChannel {
    channel: Arc<dyn Channel>,
    /// The address of the other broker. `None` for this broker itself.
    to: Option<Address>,
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
        let lent = self.lend(&self.node.metadata(), broker);
        let lent = lent.ok_or(ToBrokerError::NotAlive(broker))?;
        let frame = peers::encode(version, request)?;
        // In a task of its own, a panic of a handler fails only this request. Dropping the set ends
        // the task.
        let mut call = JoinSet::new();
        call.spawn(async move { (lent.channel.call(frame, timeout).await, lent) });
        tokio::select! {
            biased;
            answered = call.join_next() => {
                let answered = answered.and_then(Result::ok);
                let (answer, lent) = answered.ok_or(ToBrokerError::Failed)?;
                self.give_back(broker, lent);
                Ok(peers::decode::<R>(version, answer?)?)
            }
            () = self.node.metadata_shows(|image| !is_alive(image, broker)) => {
                Err(ToBrokerError::NotAlive(broker))
            }
        }
    }

    /// A channel without a request in flight; `None` if the broker is not alive.
    fn lend(&self, image: &Image, broker: i32) -> Option<LentChannel> {
        if broker == self.node.id {
            return Some(LentChannel { channel: Arc::clone(&self.own), to: None });
        }
        if !is_alive(image, broker) {
            return None;
        }
        let to = self.node.address_of(image.broker(broker)?)?;
        let mut others = self.others.lock();
        let new = || IdleChannels { to: to.clone(), channels: Vec::new() };
        let idle = others.entry(broker).or_insert_with(new);
        if idle.to != to {
            *idle = new();
        }
        let channel = idle.channels.pop().unwrap_or_else(|| self.node.network.channel(&to));
        Some(LentChannel { channel, to: Some(to) })
    }

    fn give_back(&self, broker: i32, lent: LentChannel) {
        let Some(to) = lent.to else { return };
        let mut others = self.others.lock();
        // A channel to an address that the broker no longer has is dropped.
        if let Some(idle) = others.get_mut(&broker).filter(|idle| idle.to == to)
            && idle.channels.len() < IDLE_MAX
        {
            idle.channels.push(lent.channel);
        }
    }
}

fn is_alive(image: &Image, broker: i32) -> bool {
    image.broker(broker).is_some_and(|it| !it.fenced)
}
