//! Channels between nodes: they send a request of Kafka's protocol and return its response.
//!
//! This module owns the connections that this process opens. It does not know the content of
//! requests. All traffic between nodes goes through [`Network`], which a simulation replaces.
//!
//! Invariants:
//! - A channel has at most one request in flight.
//! - If a request times out or is cancelled, its connection is closed. A late response is therefore
//!   never taken for the response to another request.

mod tcp;

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures_core::future::BoxFuture;
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

pub use tcp::Tcp;

/// Host and port where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No connection could be opened, so the request was not sent.
    #[error("{to}: cannot connect: {source}")]
    Unreachable { to: Address, source: io::Error },
    /// The connection failed. The node may have handled the request.
    #[error("{to}: {source}")]
    Broken { to: Address, source: io::Error },
    #[error("{to}: no answer within {} ms", .after.as_millis())]
    TimedOut { to: Address, after: Duration },
    /// As `TimedOut`, for a request of this node to its own controller.
    #[error("the controller of this node has not answered within {0:?}")]
    OwnTimedOut(Duration),
    /// This node cannot handle a request of its own.
    #[error("the request could not be handled here: {0}")]
    NotHandled(String),
    #[error("the request does not encode: {0}")]
    Encode(String),
    #[error("the answer does not decode: {0}")]
    Decode(String),
}

/// A channel to one node. It connects at the first request, and again after the connection broke.
pub trait Channel: Send + Sync {
    /// Sends a request and returns its response. Both are header and body, without the size in
    /// front of them. Concurrent calls wait for each other, which counts towards `timeout`.
    ///
    /// # Errors
    /// After any error except [`PeerError::Unreachable`], the node may have handled the request.
    fn call(&self, request: Bytes, timeout: Duration) -> BoxFuture<'_, Result<Bytes, PeerError>>;
}

/// The network to the other nodes: real ([`Tcp`]) or simulated.
pub trait Network: Send + Sync {
    /// A new channel to this address, which no other caller uses. It does not connect yet.
    fn channel(&self, to: &Address) -> Arc<dyn Channel>;
}

/// All requests have the same correlation id, because a channel has one request in flight.
const CORRELATION_ID: i32 = 0;

/// Encodes a request, sends it on the channel, and decodes the response.
pub async fn send<R: Request>(
    channel: &dyn Channel,
    version: i16,
    request: &R,
    timeout: Duration,
) -> Result<R::Response, PeerError> {
    let frame = encode(version, request)?;
    decode::<R>(version, channel.call(frame, timeout).await?)
}

/// Encodes the header and the body of a request.
pub fn encode<R: Request>(version: i16, request: &R) -> Result<Bytes, PeerError> {
    let failed = |error: anyhow::Error| PeerError::Encode(error.to_string());
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(CORRELATION_ID)
        .with_client_id(Some(StrBytes::from_static_str("sordini")));
    let mut out = BytesMut::new();
    header.encode(&mut out, R::header_version(version)).map_err(failed)?;
    request.encode(&mut out, version).map_err(failed)?;
    Ok(out.freeze())
}

/// Decodes a response of header and body.
pub fn decode<R: Request>(version: i16, mut frame: Bytes) -> Result<R::Response, PeerError> {
    let failed = |error: anyhow::Error| PeerError::Decode(error.to_string());
    if frame.remaining() < 4 {
        return Err(PeerError::Decode("it is shorter than its header".to_owned()));
    }
    ResponseHeader::decode(&mut frame, R::Response::header_version(version)).map_err(failed)?;
    R::Response::decode(&mut frame, version).map_err(failed)
}

#[cfg(test)]
mod tests;
