//! Types for the ids of topics, brokers and partitions.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// A topic's id (KIP-516). The nil id means "none".
pub type TopicId = uuid::Uuid;

/// The name of the topic of the metadata log.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// A broker's or controller's `node.id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BrokerId(pub i32);

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition of a topic. It is printed like the name of its directory: `topic-0`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// The partition indexes of each topic, in the order of `partitions`.
    pub fn by_topic<'a>(
        partitions: impl IntoIterator<Item = &'a Self>,
    ) -> BTreeMap<&'a str, Vec<i32>> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for Self { topic, partition } in partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        topics
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}
