#![doc = include_str!("ARCHITECTURE.md")]
#![deny(unsafe_code)]

pub mod base;
pub mod broker;
pub mod controller;
pub mod coordinator;
pub mod fetch_sessions;
pub mod handlers;
pub mod log;
pub mod metadata;
pub mod net;
pub mod partition;
pub mod peers;
pub mod protocol;
pub mod quorum;
pub mod records;
pub mod server;
pub mod telemetry;
#[cfg(test)]
mod tidy;
