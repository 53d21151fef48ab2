//! Topics and their partitions in the image, with access by name and by id.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    records::{PartitionChangeRecord, PartitionRecord},
    sharded::ShardedMap,
};
use crate::base::TopicId;

/// The leader of a partition without a leader (Kafka's `LeaderConstants.NO_LEADER`).
pub const NO_LEADER: i32 = -1;
/// The leader in a change record that does not change it (Kafka's
/// `LeaderConstants.NO_LEADER_CHANGE`).
pub const NO_LEADER_CHANGE: i32 = -2;

/// The metadata of one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionImage {
    /// Ids of brokers, the preferred leader first.
    pub replicas: Vec<i32>,
    /// The log directory of each replica, in the order of `replicas` (KIP-858).
    pub directories: Vec<Uuid>,
    pub isr: Vec<i32>,
    pub removing_replicas: Vec<i32>,
    pub adding_replicas: Vec<i32>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Vec<i32>,
    pub last_known_elr: Vec<i32>,
    /// `NO_LEADER` if there is none.
    pub leader: i32,
    /// 0 is recovered, 1 is recovering from an unclean election.
    pub leader_recovery_state: i8,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
}

impl Default for PartitionImage {
    fn default() -> Self {
        Self::from(&PartitionRecord::default())
    }
}

impl From<&PartitionRecord> for PartitionImage {
    fn from(record: &PartitionRecord) -> Self {
        let mut directories = record.directories.clone();
        directories.resize(record.replicas.len(), Uuid::nil());
        Self {
            replicas: record.replicas.clone(),
            directories,
            isr: record.isr.clone(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            elr: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: record.last_known_elr.clone().unwrap_or_default(),
            leader: record.leader,
            leader_recovery_state: record.leader_recovery_state,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
        }
    }
}

/// The directory id of a replica whose log directory has failed (Kafka's `DirectoryId.LOST`).
pub const LOST: Uuid = Uuid::from_u128(2);

impl PartitionImage {
    /// The log directory of a broker's replica, if it has one.
    pub fn directory_of(&self, broker: i32) -> Option<Uuid> {
        let mut replicas = self.replicas.iter().zip(&self.directories);
        replicas.find(|(id, _)| **id == broker).map(|(_, directory)| *directory)
    }

    pub fn to_record(&self, topic_id: TopicId, partition_id: i32) -> PartitionRecord {
        let some = |ids: &Vec<i32>| (!ids.is_empty()).then(|| ids.clone());
        PartitionRecord {
            partition_id,
            topic_id,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing_replicas.clone(),
            adding_replicas: self.adding_replicas.clone(),
            leader: self.leader,
            leader_recovery_state: self.leader_recovery_state,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            eligible_leader_replicas: some(&self.elr),
            last_known_elr: some(&self.last_known_elr),
        }
    }

    /// The partition after a change record, as in Kafka's `PartitionRegistration.merge`.
    pub fn changed_by(&self, change: &PartitionChangeRecord) -> Self {
        let or = |new: &Option<Vec<i32>>, old: &Vec<i32>| new.as_ref().unwrap_or(old).clone();
        let replicas = or(&change.replicas, &self.replicas);
        let mut directories = change.directories.as_ref().unwrap_or(&self.directories).clone();
        directories.resize(replicas.len(), Uuid::nil());
        let (leader, leader_epoch) = match change.leader {
            NO_LEADER_CHANGE => (self.leader, self.leader_epoch),
            leader => (leader, self.leader_epoch + 1),
        };
        Self {
            directories,
            isr: or(&change.isr, &self.isr),
            removing_replicas: or(&change.removing_replicas, &self.removing_replicas),
            adding_replicas: or(&change.adding_replicas, &self.adding_replicas),
            elr: or(&change.eligible_leader_replicas, &self.elr),
            last_known_elr: or(&change.last_known_elr, &self.last_known_elr),
            leader,
            leader_recovery_state: match change.leader_recovery_state {
                -1 => self.leader_recovery_state,
                state => state,
            },
            leader_epoch,
            partition_epoch: self.partition_epoch + 1,
            replicas,
        }
    }

    pub fn is_reassigning(&self) -> bool {
        !self.removing_replicas.is_empty() || !self.adding_replicas.is_empty()
    }
}

/// A topic. The index of a partition is its number.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicImage {
    pub id: TopicId,
    pub name: Arc<str>,
    pub partitions: Vec<PartitionImage>,
}

/// All topics. A clone is cheap, and a change copies only the parts that it changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicsImage {
    by_name: ShardedMap<Arc<str>, Arc<TopicImage>>,
    names: ShardedMap<TopicId, Arc<str>>,
}

impl TopicsImage {
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_name.get(name)
    }

    pub fn get_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.get(self.names.get(&id)?)
    }

    /// All topics, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_name.iter().map(|(_, topic)| topic)
    }

    pub(super) fn insert(&mut self, topic: TopicImage) {
        self.names.insert(topic.id, topic.name.clone());
        self.by_name.insert(topic.name.clone(), Arc::new(topic));
    }

    pub(super) fn remove(&mut self, id: TopicId) -> Option<Arc<TopicImage>> {
        let name = self.names.remove(&id)?;
        self.by_name.remove(&name)
    }

    pub(super) fn get_mut(&mut self, id: TopicId) -> Option<&mut TopicImage> {
        let name = self.names.get(&id)?;
        self.by_name.get_mut(name).map(Arc::make_mut)
    }
}
