//! The state that the log determines: the last record of each group, committed offsets, and the
//! offsets of open transactions.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    consumer::{ConsumerChange, ConsumerGroup, ConsumerRecord},
    group_type::GroupType,
    offset_map::{CommittedOffset, OffsetMap},
    pending_offsets::PendingOffsets,
    records::{GroupMetadataValue, OffsetCommitValue, Record},
    state::ClassicGroup,
    unserved::UnservedGroup,
};
use crate::base::planted_bugs::{Bug, has_bug};

/// A group as its records say.
#[derive(Debug, Clone, PartialEq)]
pub enum LoggedGroup {
    /// A group without a record of its own. It exists because it has committed offsets.
    Simple,
    Classic(GroupMetadataValue),
    Consumer(ConsumerGroup),
    /// A group whose protocol is not served.
    Unserved(UnservedGroup),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoggedState {
    /// Groups by id.
    pub groups: BTreeMap<Arc<str>, LoggedGroup>,
    /// Committed offsets.
    pub offsets: OffsetMap<CommittedOffset>,
    /// Offsets of open transactions. They become committed offsets when the transaction commits.
    pub pending: PendingOffsets,
}

impl LoggedState {
    pub fn apply(&mut self, record_offset: i64, record: &Record) {
        match record {
            Record::Group { group, value: None } => {
                if matches!(
                    self.groups.get(group),
                    Some(LoggedGroup::Simple | LoggedGroup::Classic(_))
                ) {
                    self.groups.remove(group);
                }
            }
            Record::Group { group, value: Some(value) } => {
                self.groups.insert(group.clone(), LoggedGroup::Classic(value.clone()));
            }
            Record::Offset { group, topic, partition, value: Some(value) } => {
                self.insert_simple_group(group);
                let committed = CommittedOffset { record_offset, value: value.clone() };
                self.offsets.partitions_mut(group, topic).insert(*partition, committed);
            }
            Record::Offset { group, topic, partition, value: None } => {
                self.offsets.remove(group, topic, *partition);
                self.pending.forget(group, topic, *partition);
            }
            Record::OffsetInTransaction { producer, group, topic, partition, value } => {
                let place = (group.clone(), topic.clone(), *partition);
                self.apply_pending(producer.id, record_offset, place, value);
            }
            Record::Consumer(record) => self.apply_consumer(record),
            Record::Marker(marker) => self.end_transaction(marker.producer.id, marker.commits),
            Record::Unserved { group, group_type, key, value: Some(value) } => {
                let unserved = self.unserved_or_new(group, *group_type);
                unserved.insert(key.clone(), value.clone());
            }
            Record::Unserved { group, key, value: None, .. } => {
                if let Some(LoggedGroup::Unserved(unserved)) = self.groups.get_mut(group) {
                    unserved.remove(key);
                    if unserved.is_gone() {
                        self.groups.remove(group);
                    }
                }
            }
        }
    }

    /// Applies a record of a consumer group, which the first record that is not a tombstone
    /// creates.
    fn apply_consumer(&mut self, ConsumerRecord { group: id, change }: &ConsumerRecord) {
        if matches!(change, ConsumerChange::Group(None)) {
            if let Some(group) = self.consumer(id) {
                if !group.members().is_empty() {
                    tracing::error!(group = &**id, "the log deletes a consumer group with members");
                }
                self.groups.remove(id);
            }
            return;
        }
        if self.consumer(id).is_none() {
            if change.is_tombstone() {
                return;
            }
            let replaced =
                self.groups.insert(id.clone(), LoggedGroup::Consumer(Default::default()));
            // After compaction, offsets of the group can come before its records.
            if !matches!(replaced, None | Some(LoggedGroup::Simple)) {
                tracing::error!(group = &**id, "the log has records of two groups with this id");
            }
        }
        if let Some(LoggedGroup::Consumer(group)) = self.groups.get_mut(id) {
            group.apply(change);
        }
    }

    /// The group whose protocol is not served, created if it does not exist. It replaces a simple
    /// group, because after compaction, offsets of the group can come before its records.
    fn unserved_or_new(&mut self, id: &Arc<str>, group_type: GroupType) -> &mut UnservedGroup {
        if self.unserved(id).is_none() {
            let group = LoggedGroup::Unserved(UnservedGroup::new(group_type));
            self.groups.insert(id.clone(), group);
        }
        match self.groups.get_mut(id) {
            Some(LoggedGroup::Unserved(unserved)) => unserved,
            _ => unreachable!("inserted above"),
        }
    }

    /// Applies a record in a batch of a producer's transaction. An offset is pending until the
    /// transaction ends. As in Kafka, all other records count at once.
    pub fn apply_in_transaction(&mut self, producer_id: i64, record_offset: i64, record: &Record) {
        match record {
            Record::Offset { .. } if has_bug(Bug::LostPendingOffset) => {}
            Record::Offset { group, topic, partition, value: Some(value) } => {
                let place = (group.clone(), topic.clone(), *partition);
                self.apply_pending(producer_id, record_offset, place, value);
            }
            record => self.apply(record_offset, record),
        }
    }

    /// Adds an offset to a producer's transaction. As in Kafka, it creates its group at once.
    fn apply_pending(
        &mut self,
        producer_id: i64,
        record_offset: i64,
        (group, topic, partition): (Arc<str>, Arc<str>, i32),
        value: &OffsetCommitValue,
    ) {
        self.insert_simple_group(&group);
        let offset = CommittedOffset { record_offset, value: value.clone() };
        self.pending.insert(producer_id, (group, topic, partition), offset);
    }

    /// Ends a producer's transaction. If it commits, its offsets become committed offsets, unless
    /// the log has a later offset of the same partition.
    pub fn end_transaction(&mut self, producer_id: i64, commits: bool) {
        let ended = self.pending.take(producer_id);
        for ((group, topic, partition), offset) in ended.into_iter().filter(|_| commits) {
            let committed = self.offsets.get(&group, &topic, partition);
            if committed.is_none_or(|it| it.record_offset < offset.record_offset) {
                self.offsets.partitions_mut(&group, &topic).insert(partition, offset);
            }
        }
    }

    fn insert_simple_group(&mut self, group: &Arc<str>) {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.clone(), LoggedGroup::Simple);
        }
    }

    /// The classic or simple group from its record; `None` if there is none with this id.
    pub fn group(&self, id: &Arc<str>) -> Option<ClassicGroup> {
        match self.groups.get(id)? {
            LoggedGroup::Classic(value) => Some(ClassicGroup::loaded(id.clone(), value)),
            LoggedGroup::Simple => Some(ClassicGroup::new(id.clone(), None)),
            LoggedGroup::Consumer(_) | LoggedGroup::Unserved(_) => None,
        }
    }

    /// The consumer group with this id; `None` if there is none.
    pub fn consumer(&self, id: &str) -> Option<&ConsumerGroup> {
        match self.groups.get(id)? {
            LoggedGroup::Consumer(group) => Some(group),
            _ => None,
        }
    }

    /// The consumer groups, by id.
    pub fn consumer_groups(&self) -> impl Iterator<Item = (&Arc<str>, &ConsumerGroup)> {
        self.groups.iter().filter_map(|(id, group)| match group {
            LoggedGroup::Consumer(group) => Some((id, group)),
            _ => None,
        })
    }

    /// The group of an unserved protocol; `None` if there is none with this id.
    pub fn unserved(&self, id: &str) -> Option<&UnservedGroup> {
        match self.groups.get(id)? {
            LoggedGroup::Unserved(unserved) => Some(unserved),
            _ => None,
        }
    }

    /// The groups of unserved protocols, by id.
    pub fn unserved_groups(&self) -> impl Iterator<Item = (&Arc<str>, &UnservedGroup)> {
        self.groups.iter().filter_map(|(id, group)| match group {
            LoggedGroup::Unserved(unserved) => Some((id, unserved)),
            _ => None,
        })
    }
}
