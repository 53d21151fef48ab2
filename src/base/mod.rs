//! Ids, time, randomness, patterns and the configuration table. Independent of all other layers.

pub mod blocking_limits;
pub mod config;
pub mod environment;
pub mod ids;
pub mod kafka_uuid;
pub mod planted_bugs;
pub mod random;
pub mod re2;

pub use ids::{BrokerId, METADATA_TOPIC, TopicId, TopicPartition};
