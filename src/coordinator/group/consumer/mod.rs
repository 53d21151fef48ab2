//! Consumer groups (KIP-848).

pub mod messages;
