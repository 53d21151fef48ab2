//! Listeners and connections: frame -> handler table -> replies in request order, within byte
//! budgets. Knows no API but ApiVersions, whose unsupported versions must be answered (KIP-511).

mod connection;
mod foreign_protocols;
mod limits;
mod listener;
mod output;

pub use limits::{ConnectionLimits, Limits, UnknownHost};
pub use listener::{Shutdown, serve};
