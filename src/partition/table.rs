//! Which topics and partitions live on this broker. Changed only by applying metadata; read on
//! every produce and fetch.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use arc_swap::ArcSwap;

use super::Partition;
use crate::{
    base::{TopicId, config::TopicConfig},
    telemetry::TopicMetrics,
};

/// A topic with replicas on this broker, and what its requests need at hand.
pub struct Topic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub config: ArcSwap<TopicConfig>,
    pub metrics: Arc<TopicMetrics>,
    /// By partition index; none where this broker has no replica.
    partitions: RwLock<Vec<Option<Arc<Partition>>>>,
}

impl Topic {
    pub fn new(
        name: Arc<str>,
        id: TopicId,
        config: Arc<TopicConfig>,
        metrics: Arc<TopicMetrics>,
    ) -> Self {
        Self { name, id, config: ArcSwap::new(config), metrics, partitions: RwLock::default() }
    }

    pub fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        usize::try_from(index).ok().and_then(|index| partitions.get(index)?.clone())
    }

    pub fn insert(&self, partition: Arc<Partition>) {
        let index = partition.id.partition as usize;
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        if partitions.len() <= index {
            partitions.resize(index + 1, None);
        }
        partitions[index] = Some(partition);
    }

    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        partitions.iter().flatten().cloned().collect()
    }
}

#[derive(Default)]
pub struct PartitionTable {
    topics: RwLock<Topics>,
}

#[derive(Default)]
struct Topics {
    by_name: HashMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
}

impl PartitionTable {
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().by_name.get(name).cloned()
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.read().by_id.get(&id).cloned()
    }

    pub fn get(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        self.topic(topic)?.partition(index)
    }

    pub fn insert(&self, topic: Arc<Topic>) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.by_id.insert(topic.id, Arc::clone(&topic));
        topics.by_name.insert(Arc::clone(&topic.name), topic);
    }

    pub fn remove(&self, id: TopicId) -> Option<Arc<Topic>> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let topic = topics.by_id.remove(&id)?;
        topics.by_name.remove(&topic.name);
        Some(topic)
    }

    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.read().by_id.values().cloned().collect()
    }

    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics().iter().flat_map(|topic| topic.partitions()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Topics> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner)
    }
}
