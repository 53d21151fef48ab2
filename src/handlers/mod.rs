//! One file per Kafka API, and the one table of them all. The table yields dispatch, ApiVersions,
//! metric names and the README's list of APIs; adding an API is one file and one line here.
//!
//! A handler runs to its ordering point before its connection reads on (that is the back-pressure)
//! and may leave the rest as a future; replies leave in request order. Handlers hold no state, and
//! `errors` alone maps domain errors to Kafka's error codes.

mod api_versions;
pub mod context;
pub mod errors;
pub mod reply;

use std::{future::Future, ops::RangeInclusive, pin::Pin};

use bytes::Bytes;
use kafka_protocol::{
    messages::ApiKey,
    protocol::{Decodable, HeaderVersion},
};

pub use context::{Context, Session};
pub use errors::ErrorCode;
pub use reply::{Part, Reply, ReplyBuffer, WireReply};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How one Kafka API is answered.
pub trait Handler: 'static {
    const API: ApiKey;
    /// The versions that the request decodes and the response encodes.
    const VERSIONS: RangeInclusive<i16>;
    type Request: Decodable + HeaderVersion + Send + 'static;
    type Response: WireReply;

    fn handle(
        cx: &mut Context<'_>,
        request: Self::Request,
    ) -> impl Future<Output = Reply<Self::Response>> + Send;
}

/// What a connection does with a request once its handler has passed the ordering point.
pub enum Outcome {
    Now(ReplyBuffer),
    Later(BoxFuture<'static, Result<ReplyBuffer, HandlerError>>),
    /// The protocol wants no answer (Produce with acks=0).
    Silent,
}

/// Either way the connection is closed, as Kafka closes it.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    #[error("request does not decode: {0}")]
    Decode(anyhow::Error),
    #[error("response does not encode: {0}")]
    Encode(anyhow::Error),
    #[error("the connection is to be closed")]
    Close,
}

/// A row of the table: what the connection needs to know of an API.
pub struct Entry {
    pub api: ApiKey,
    /// The versions that requests may have.
    pub min: i16,
    pub max: i16,
    pub request_header_version: fn(i16) -> i16,
    pub dispatch: for<'a> fn(Context<'a>, Bytes) -> BoxFuture<'a, Result<Outcome, HandlerError>>,
}

impl Entry {
    /// Produce is advertised from 0, though served from 3: librdkafka takes codecs from it
    /// (KAFKA-18659).
    pub fn advertised_min(&self) -> i16 {
        match self.api {
            ApiKey::Produce => 0,
            _ => self.min,
        }
    }
}

const fn entry<H: Handler>() -> Entry {
    Entry {
        api: H::API,
        min: *H::VERSIONS.start(),
        max: *H::VERSIONS.end(),
        request_header_version: <H::Request as HeaderVersion>::header_version,
        dispatch: dispatch::<H>,
    }
}

/// Every API that this broker serves, by key.
pub static TABLE: &[Entry] = &[entry::<api_versions::ApiVersions>()];

/// The row of an API, if it is served.
pub fn find(api_key: i16) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.api as i16 == api_key)
}

fn dispatch<H: Handler>(
    mut cx: Context<'_>,
    mut body: Bytes,
) -> BoxFuture<'_, Result<Outcome, HandlerError>> {
    Box::pin(async move {
        let (version, correlation_id) = (cx.version, cx.correlation_id);
        let request = H::Request::decode(&mut body, version).map_err(HandlerError::Decode)?;
        let encode = move |response: H::Response| {
            ReplyBuffer::encode(response, version, correlation_id).map_err(HandlerError::Encode)
        };
        match H::handle(&mut cx, request).await {
            Reply::Now(response) => Ok(Outcome::Now(encode(response)?)),
            Reply::Later(rest) => Ok(Outcome::Later(Box::pin(async move { encode(rest.await) }))),
            Reply::None => Ok(Outcome::Silent),
            Reply::Close => Err(HandlerError::Close),
        }
    })
}
