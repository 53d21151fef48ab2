//! Ids, time and the configuration table. Knows nothing of files, sockets or the protocol.

pub mod config;
pub mod ids;
pub mod kafka_uuid;
pub mod planted_bugs;
pub mod random;
pub mod world;

pub use ids::{BrokerId, TopicId, TopicPartition};
