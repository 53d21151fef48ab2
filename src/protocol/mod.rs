//! The wire: framing, headers, the API and version table, the guard in front of the decoders, error
//! codes, and the messages that the message crate lacks.
//!
//! Must not know: what records contain, what a handler does, where bytes come from.
//!
//! Invariants:
//! - No bytes make anything in here panic or reserve more memory than [`shape::memory_limit`].
//! - [`shape::check_request`] runs before any request is decoded: the message crate's decoders
//!   reserve arrays by the count on the wire.
//! - A version is offered only if its request decodes and its response encodes ([`api`]).

pub mod api;
pub mod error_code;
pub mod frame;
pub mod messages;
pub mod schema;
pub mod shape;

pub use api::Api;
pub use error_code::ErrorCode;
pub use frame::{DecodeError, Incoming, RequestHeader};
pub use schema::WireError;
