//! [`OwnChannel`]: the channel over which a node sends requests to itself.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use tokio::time::timeout;

use super::{Client, ConnectionContext, Forwarding, answer};
use crate::{
    base::config::BrokerConfig,
    broker::Broker,
    peers::{Channel, PeerError},
};

/// A channel to this node itself. The handlers answer without a socket, as on one of the node's
/// listeners for other nodes.
pub struct OwnChannel {
    broker: Weak<Broker>,
    /// The context of the listener on which another node would send its requests.
    context: fn(&BrokerConfig, Client) -> ConnectionContext,
}

impl OwnChannel {
    /// The channel to this node's controller.
    pub fn to_controller(broker: Weak<Broker>) -> Self {
        Self { broker, context: ConnectionContext::of_controller_listener }
    }

    /// The channel to this node as a broker.
    pub fn to_broker(broker: Weak<Broker>) -> Self {
        Self { broker, context: ConnectionContext::of_inter_broker_listener }
    }

    async fn answer(&self, request: Bytes) -> Result<Bytes, PeerError> {
        let stopped = || PeerError::NotHandled("the broker has stopped".to_owned());
        let broker: Arc<Broker> = self.broker.upgrade().ok_or_else(stopped)?;
        let client = Client::this_node();
        let mut session = (self.context)(&broker.settings(), client);
        let answered = answer(&broker, &mut session, request, Forwarding::Direct).await;
        answered.map_err(|error| PeerError::NotHandled(error.to_string()))
    }
}

impl Channel for OwnChannel {
    fn call(&self, request: Bytes, after: Duration) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let answered = timeout(after, self.answer(request)).await;
            answered.map_err(|_| PeerError::OwnTimedOut(after))?
        })
    }
}
