//! Listeners and connections. A connection reads frames, passes them to the handler table, and
//! writes the responses in the order of the requests. Frames and pending requests are limited. This
//! layer knows no API but ApiVersions, whose unsupported versions need a response (KIP-511).

mod connection;
mod foreign_protocols;
mod limits;
mod listener;
mod output;
mod stream;

pub use connection::{Closed, Connection};
pub use limits::{ConnectionLimits, ConnectionPermit, Limits, UnknownHost};
pub use listener::{Shutdown, serve};
pub use stream::Stream;
