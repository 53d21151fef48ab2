//! How one node asks another: requests of Kafka's protocol, and their responses, by channels.
//!
//! Owns the connections that this process opens. Must not know what is asked. Everything between
//! nodes goes through [`Network`], which a simulation replaces.
//!
//! Invariants: a channel has one request on its way at a time, and answers in order; a request that
//! was given up on closes its connection, so that no late response is taken for another's.

mod tcp;

use std::{fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

pub use tcp::Tcp;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a node listens.
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
    /// Nobody listens there: the request did not leave.
    #[error("{to}: cannot connect: {source}")]
    Unreachable { to: Address, source: io::Error },
    /// Whether the request was handled is not known.
    #[error("{to}: {source}")]
    Broken { to: Address, source: io::Error },
    #[error("{to}: no answer within {} ms", .after.as_millis())]
    TimedOut { to: Address, after: Duration },
    #[error("the request does not encode: {0}")]
    Encode(String),
    #[error("the answer does not decode: {0}")]
    Decode(String),
}

/// A way to one node, which connects when it is needed, and again after it broke.
pub trait Channel: Send + Sync {
    /// Sends a request (header and body, without the size before it) and gives the response, header
    /// and body. Callers wait for each other.
    fn call(&self, request: Bytes, timeout: Duration) -> BoxFuture<'_, Result<Bytes, PeerError>>;
}

/// The seam to the other nodes.
pub trait Network: Send + Sync {
    /// A channel of the caller's own.
    fn channel(&self, to: &Address) -> Arc<dyn Channel>;
}

/// One request on a channel needs no number to tell it from others.
const CORRELATION_ID: i32 = 0;

/// Sends a typed request.
pub async fn send<R: Request>(
    channel: &dyn Channel,
    version: i16,
    request: &R,
    timeout: Duration,
) -> Result<R::Response, PeerError> {
    let frame = encode(version, request)?;
    decode::<R>(version, channel.call(frame, timeout).await?)
}

/// A request as it travels.
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

/// The response in a frame.
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
