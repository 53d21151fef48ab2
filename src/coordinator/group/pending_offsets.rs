//! [`PendingOffsets`]: the offsets of transactions that have not ended yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::offset_map::{CommittedOffset, OffsetMap};

/// A group, a topic and a partition.
type Place = (Arc<str>, Arc<str>, i32);

/// The last offset of each open transaction for each partition (Kafka's
/// `pendingTransactionalOffsets` and `OpenTransactions`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PendingOffsets {
    /// Offsets by producer id. No partition is without offsets.
    by_partition: OffsetMap<BTreeMap<i64, CommittedOffset>>,
    /// The same places by producer id. No producer is without places.
    by_producer: BTreeMap<i64, BTreeSet<Place>>,
}

impl PendingOffsets {
    /// Adds an offset to a producer's transaction, and replaces an earlier one of the partition.
    pub fn insert(
        &mut self,
        producer_id: i64,
        (group, topic, partition): Place,
        offset: CommittedOffset,
    ) {
        let partitions = self.by_partition.partitions_mut(&group, &topic);
        partitions.entry(partition).or_default().insert(producer_id, offset);
        self.by_producer.entry(producer_id).or_default().insert((group, topic, partition));
    }

    /// Removes and returns the offsets of a producer's transaction, because it ends.
    pub fn take(&mut self, producer_id: i64) -> Vec<(Place, CommittedOffset)> {
        let places = self.by_producer.remove(&producer_id).unwrap_or_default();
        let mut taken = Vec::with_capacity(places.len());
        for place in places {
            let (group, topic, partition) = (&*place.0, &*place.1, place.2);
            let Some(offsets) = self.by_partition.get_mut(group, topic, partition) else {
                continue;
            };
            let offset = offsets.remove(&producer_id);
            if offsets.is_empty() {
                self.by_partition.remove(group, topic, partition);
            }
            taken.extend(offset.map(|offset| (place, offset)));
        }
        taken
    }

    /// Removes the offsets of all transactions for a partition, because its offset is deleted.
    pub fn forget(&mut self, group: &Arc<str>, topic: &Arc<str>, partition: i32) {
        let offsets = self.by_partition.remove(group, topic, partition).unwrap_or_default();
        let place = (group.clone(), topic.clone(), partition);
        for producer_id in offsets.keys() {
            let Some(places) = self.by_producer.get_mut(producer_id) else { continue };
            places.remove(&place);
            if places.is_empty() {
                self.by_producer.remove(producer_id);
            }
        }
    }

    /// Whether an open transaction has an offset of the group.
    pub fn has_group(&self, group: &str) -> bool {
        self.by_partition.has_group(group)
    }

    /// Whether an open transaction has an offset of the partition.
    pub fn contains(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.by_partition.get(group, topic, partition).is_some()
    }

    /// The partitions of a group of which open transactions have offsets.
    pub fn partitions(&self, group: &str) -> impl Iterator<Item = (&Arc<str>, i32)> {
        let topics = self.by_partition.topics(group);
        topics.flat_map(|(topic, partitions)| partitions.keys().map(move |at| (topic, *at)))
    }

    pub fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_partition.groups().map(|(group, _)| group)
    }
}
