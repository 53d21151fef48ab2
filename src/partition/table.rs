//! The topics and partitions with a replica on this broker. Every produce and fetch reads the
//! table. Only the code that applies metadata changes it.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::{RwLock, RwLockReadGuard};

use super::{Partition, Role};
use crate::{
    base::{TopicId, config::TopicConfig},
    telemetry::TopicMetrics,
};

/// A topic with replicas on this broker, with the configuration and metrics that requests need.
pub struct Topic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub config: ArcSwap<TopicConfig>,
    pub metrics: Arc<TopicMetrics>,
    /// By partition index.
    partitions: RwLock<Vec<Slot>>,
}

#[derive(Clone, Default)]
enum Slot {
    /// This broker has no replica.
    #[default]
    Empty,
    /// The replica's log could not be opened.
    Offline,
    Here(Arc<Partition>),
}

/// Why this broker has no usable replica of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionUnavailable {
    /// This broker has no replica of the partition.
    Unknown,
    /// Its log could not be opened.
    Offline,
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

    /// The replica of a partition, by its index.
    pub fn partition(&self, index: i32) -> Result<Arc<Partition>, PartitionUnavailable> {
        let partitions = self.partitions.read();
        let slot = usize::try_from(index).ok().and_then(|index| partitions.get(index));
        match slot {
            Some(Slot::Here(partition)) => Ok(Arc::clone(partition)),
            Some(Slot::Offline) => Err(PartitionUnavailable::Offline),
            Some(Slot::Empty) | None => Err(PartitionUnavailable::Unknown),
        }
    }

    pub fn insert(&self, partition: Arc<Partition>) {
        self.set(partition.id.partition, Slot::Here(partition));
    }

    /// Removes the replica from the table and returns it, if its log was open.
    pub fn remove(&self, index: i32) -> Option<Arc<Partition>> {
        let removed = self.partition(index).ok();
        let mut partitions = self.partitions.write();
        if let Some(slot) = partitions.get_mut(index as usize) {
            *slot = Slot::Empty;
        }
        removed
    }

    /// Adds a replica whose log could not be opened.
    pub fn insert_offline(&self, index: i32) {
        self.set(index, Slot::Offline);
    }

    fn set(&self, index: i32, slot: Slot) {
        let index = index as usize;
        let mut partitions = self.partitions.write();
        if partitions.len() <= index {
            partitions.resize(index + 1, Slot::Empty);
        }
        partitions[index] = slot;
    }

    /// Indexes of the partitions whose log could not be opened or has failed.
    pub fn offline(&self) -> Vec<i32> {
        let partitions = self.partitions.read();
        let is_offline = |slot: &Slot| match slot {
            Slot::Empty => false,
            Slot::Offline => true,
            Slot::Here(partition) => partition.view().role == Role::Offline,
        };
        let numbered = (0..).zip(partitions.iter());
        numbered.filter(|(_, slot)| is_offline(slot)).map(|(index, _)| index).collect()
    }

    /// The partitions with an open log, failed ones included.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        let partitions = self.partitions.read();
        let here = partitions.iter().filter_map(|slot| match slot {
            Slot::Here(partition) => Some(Arc::clone(partition)),
            Slot::Empty | Slot::Offline => None,
        });
        here.collect()
    }
}

/// All topics with a replica on this broker.
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

    pub fn get(&self, topic: &str, index: i32) -> Result<Arc<Partition>, PartitionUnavailable> {
        self.topic(topic).ok_or(PartitionUnavailable::Unknown)?.partition(index)
    }

    pub fn insert(&self, topic: Arc<Topic>) {
        let mut topics = self.topics.write();
        topics.by_id.insert(topic.id, Arc::clone(&topic));
        topics.by_name.insert(Arc::clone(&topic.name), topic);
    }

    /// Removes a topic with all its replicas from the table and returns it.
    pub fn remove(&self, id: TopicId) -> Option<Arc<Topic>> {
        let mut topics = self.topics.write();
        let topic = topics.by_id.remove(&id)?;
        // A new topic may have the name already.
        if topics.by_name.get(&topic.name).is_some_and(|named| named.id == id) {
            topics.by_name.remove(&topic.name);
        }
        Some(topic)
    }

    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.read().by_id.values().cloned().collect()
    }

    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics().iter().flat_map(|topic| topic.partitions()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Topics> {
        self.topics.read()
    }
}
