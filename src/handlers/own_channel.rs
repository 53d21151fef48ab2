//! [`OwnChannel`]: the channel over which a node sends requests to its own controller.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use tokio::time::timeout;

use super::{Client, ConnectionContext, Forwarding, answer};
use crate::{
    broker::Broker,
    peers::{Channel, PeerError},
};

/// A channel to this node itself. The handlers answer as on the first controller listener, without
/// a socket.
pub struct OwnChannel {
    broker: Weak<Broker>,
}

impl OwnChannel {
    pub fn new(broker: Weak<Broker>) -> Self {
        Self { broker }
    }

    async fn answer(&self, request: Bytes) -> Result<Bytes, PeerError> {
        let stopped = || PeerError::NotHandled("the broker has stopped".to_owned());
        let broker: Arc<Broker> = self.broker.upgrade().ok_or_else(stopped)?;
        let client = Client::this_node();
        let mut session = ConnectionContext::of_controller_listener(&broker.settings(), client);
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
