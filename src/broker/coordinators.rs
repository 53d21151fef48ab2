//! [`Coordinators`]: the coordinators of this broker, and which of their shards run here: those of
//! the partitions that this broker leads in metadata.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    group_configs::{changes_groups, configs_of_groups},
    group_topics::GroupTopics,
    shard_log::PartitionLog,
};
use crate::{
    base::{TopicId, TopicPartition},
    controller::features::TRANSACTION_VERSION,
    coordinator::{Coordinator, GroupCoordinator, TxnCoordinator},
    metadata::{Change, Image, PartitionChange, PartitionImage},
    partition::{Partition, PartitionTable},
    records::TransactionVersion,
};

/// The table of coordinators. It does not hold partitions: callers pass the table of replicas.
pub struct Coordinators {
    node_id: i32,
    pub groups: GroupCoordinator,
    pub transactions: TxnCoordinator,
    /// The topics that the group coordinator knows. Only the task that applies metadata locks it.
    group_topics: Mutex<GroupTopics>,
}

impl Coordinators {
    pub fn new(node_id: i32, groups: GroupCoordinator, transactions: TxnCoordinator) -> Self {
        Self { node_id, groups, transactions, group_topics: Mutex::default() }
    }

    /// All coordinators, each with an internal topic of its own.
    fn all(&self) -> [&dyn Coordinator; 2] {
        [&self.groups, &self.transactions]
    }

    /// The coordinator whose internal topic has this name.
    fn find(&self, topic: &str) -> Option<&dyn Coordinator> {
        self.all().into_iter().find(|coordinator| coordinator.topic() == topic)
    }

    /// Gives the metadata to the coordinators, and starts the shards of the partitions that this
    /// broker leads. Later changes of the metadata go to [`Self::apply`]. Must be called within a
    /// tokio runtime.
    pub fn start(&self, image: &Image, replicas: &PartitionTable) {
        self.configure(image);
        self.groups.set_group_configs(configs_of_groups(image));
        self.groups.set_topics(self.group_topics.lock().replace(image));
        self.elect_all(image, replicas, |_| true);
    }

    /// Applies the changes of a metadata batch to the coordinators. `image` contains them already.
    /// Must be called within a tokio runtime.
    pub fn apply(&self, image: &Image, changes: &[Change], replicas: &PartitionTable) {
        self.configure(image);
        if changes_groups(changes) {
            self.groups.set_group_configs(configs_of_groups(image));
        }
        if let Some(topics) = self.group_topics.lock().apply(image, changes) {
            self.groups.set_topics(topics);
        }
        for change in changes {
            match change {
                Change::PartitionAdded { id, name, partition, new } => {
                    let partition = TopicPartition::new(Arc::clone(name), *partition);
                    self.elect(*id, &partition, new, replicas);
                }
                Change::PartitionChanged(change) => self.change_partition(change, replicas),
                Change::TopicDeleted { topic } => {
                    let partition = |index| TopicPartition::new(Arc::clone(&topic.name), index);
                    let partitions = (0..topic.partitions.len() as i32).map(partition);
                    let partitions: Vec<TopicPartition> = partitions.collect();
                    partitions.iter().for_each(|partition| self.resign(partition));
                    for coordinator in self.all() {
                        coordinator.on_topics_deleted(&partitions);
                    }
                }
                _ => {}
            }
        }
    }

    fn change_partition(&self, change: &PartitionChange, replicas: &PartitionTable) {
        let Some(coordinator) = self.find(&change.name) else { return };
        if leads_without_break(self.node_id, change) {
            // The shard's state still matches the log.
            return coordinator.on_reelected(change.partition, change.new.leader_epoch);
        }
        let partition = TopicPartition::new(Arc::clone(&change.name), change.partition);
        coordinator.on_resigned(change.partition);
        self.elect(change.id, &partition, &change.new, replicas);
    }

    /// Passes the number of partitions of its internal topic to each coordinator, which maps its
    /// keys to partitions with it. The topic may have another number than the configuration says.
    /// Passes on the level of `transaction.version`, too.
    fn configure(&self, image: &Image) {
        let level = image.feature(TRANSACTION_VERSION);
        self.transactions.set_version(TransactionVersion::of_level(level));
        for coordinator in self.all() {
            if let Some(topic) = image.topic(coordinator.topic()) {
                coordinator.set_partition_count(topic.partitions.len() as i32);
            }
        }
    }

    /// Starts the coordinator shards of the partitions that this broker leads, and ends the others,
    /// among those for which `is_wanted` returns true.
    pub fn elect_all(
        &self,
        image: &Image,
        replicas: &PartitionTable,
        is_wanted: impl Fn(&TopicPartition) -> bool,
    ) {
        let topics = self.all().map(|coordinator| image.topic(coordinator.topic()));
        for topic in topics.into_iter().flatten() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                let id = TopicPartition::new(Arc::clone(&topic.name), index);
                if is_wanted(&id) {
                    self.elect(topic.id, &id, partition, replicas);
                }
            }
        }
    }

    /// Starts the coordinator shard of a partition of an internal topic if this broker leads it,
    /// otherwise ends the shard. Does nothing for partitions of other topics.
    pub fn elect(
        &self,
        topic: TopicId,
        id: &TopicPartition,
        image: &PartitionImage,
        replicas: &PartitionTable,
    ) {
        let Some(coordinator) = self.find(&id.topic) else { return };
        let topic = replicas.topic_by_id(topic);
        match topic.and_then(|topic| topic.partition(id.partition).ok()) {
            Some(partition) if image.leader == self.node_id => {
                let log = Arc::new(PartitionLog::new(partition));
                coordinator.on_elected(id.partition, image.leader_epoch, log);
            }
            _ => coordinator.on_resigned(id.partition),
        }
    }

    /// Ends the coordinator shard of a partition, if it has one.
    pub fn resign(&self, id: &TopicPartition) {
        if let Some(coordinator) = self.find(&id.topic) {
            coordinator.on_resigned(id.partition);
        }
    }

    /// Ends all coordinator shards.
    pub fn resign_all(&self, replicas: &PartitionTable) {
        self.partitions(replicas).iter().for_each(|partition| self.resign(&partition.id));
    }

    /// The replicas on this broker of all partitions of internal topics of coordinators.
    pub fn partitions(&self, replicas: &PartitionTable) -> Vec<Arc<Partition>> {
        let topics = self.all().map(|it| replicas.topic(it.topic()));
        topics.iter().flatten().flat_map(|topic| topic.partitions()).collect()
    }
}

/// Whether a broker led a partition before a change and leads it afterwards, and no other broker
/// has led it in between, because the leader epoch rose by at most one.
fn leads_without_break(me: i32, change: &PartitionChange) -> bool {
    let (old, new) = (&change.old, &change.new);
    old.leader == me && new.leader == me && new.leader_epoch <= old.leader_epoch + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_breaks_if_another_broker_led_in_between() {
        let state = |leader, leader_epoch| PartitionImage {
            leader,
            leader_epoch,
            ..PartitionImage::default()
        };
        let change = |old, new| PartitionChange {
            id: TopicId::nil(),
            name: "t".into(),
            partition: 0,
            old,
            new,
        };
        for (old, new, continues) in [
            (state(1, 5), state(1, 5), true),
            (state(1, 5), state(1, 6), true),
            (state(1, 5), state(1, 7), false),
            (state(2, 5), state(1, 6), false),
            (state(1, 5), state(2, 6), false),
        ] {
            assert_eq!(leads_without_break(1, &change(old, new)), continues);
        }
    }
}
