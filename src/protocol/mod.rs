//! Kafka's wire protocol: framing, headers, the table of APIs and versions, the shape check before
//! the decoders, error codes, and the messages that the message crate lacks.
//!
//! This layer does not know what records contain, what a handler does, or where bytes come from.
//!
//! Invariants:
//! - No input makes this layer panic or reserve more memory than [`shape::memory_limit`].
//! - [`shape::check_request`] runs before any request is decoded, because the message crate's
//!   decoders reserve memory for arrays by the count on the wire.
//! - A version is offered only if its request decodes and its response encodes ([`api`]).

pub mod api;
pub mod checks;
pub mod error_code;
pub mod frame;
pub mod messages;
pub mod principal;
pub mod schema;
pub mod shape;

pub use api::Api;
pub use error_code::ErrorCode;
pub use frame::{DecodeError, Incoming, RequestHeader};
pub use principal::Principal;
pub use schema::WireError;
