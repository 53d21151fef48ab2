//! The state that the log determines: the last record of each group, and committed offsets.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    group_type::GroupType,
    records::{GroupMetadataValue, OffsetCommitValue, Record},
    state::ClassicGroup,
    unserved::UnservedGroup,
};

/// A committed offset, and the offset of its record in `__consumer_offsets`.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedOffset {
    pub record_offset: i64,
    pub value: OffsetCommitValue,
}

pub type PartitionOffsets = BTreeMap<i32, CommittedOffset>;
pub type TopicOffsets = BTreeMap<Arc<str>, PartitionOffsets>;

/// A group as its records say.
#[derive(Debug, Clone, PartialEq)]
pub enum LoggedGroup {
    /// A group without a record of its own. It exists because it has committed offsets.
    Simple,
    Classic(GroupMetadataValue),
    /// A group whose protocol is not served.
    Unserved(UnservedGroup),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoggedState {
    /// Groups by id.
    pub groups: BTreeMap<Arc<str>, LoggedGroup>,
    /// Committed offsets by group id.
    pub offsets: BTreeMap<Arc<str>, TopicOffsets>,
    /// Records of open transactions with their offsets, by producer id. They are applied when the
    /// transaction commits.
    undecided: BTreeMap<i64, Vec<(i64, Record)>>,
}

impl LoggedState {
    pub fn apply(&mut self, record_offset: i64, record: &Record) {
        match record {
            Record::Group { group, value: None } => {
                if self.unserved(group).is_none() {
                    self.groups.remove(group);
                }
            }
            Record::Group { group, value: Some(value) } => {
                self.groups.insert(group.clone(), LoggedGroup::Classic(value.clone()));
            }
            Record::Offset { group, topic, partition, value: Some(value) } => {
                if !self.groups.contains_key(group) {
                    self.groups.insert(group.clone(), LoggedGroup::Simple);
                }
                let committed = CommittedOffset { record_offset, value: value.clone() };
                let topics = entry(&mut self.offsets, group);
                entry(topics, topic).insert(*partition, committed);
            }
            Record::Offset { group, topic, partition, value: None } => {
                self.forget(group, topic, *partition);
            }
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

    /// Keeps a record in a batch of a producer's transaction until the transaction ends.
    pub fn apply_in_transaction(&mut self, producer_id: i64, record_offset: i64, record: &Record) {
        self.undecided.entry(producer_id).or_default().push((record_offset, record.clone()));
    }

    /// Applies the records of a producer's transaction if it commits, otherwise drops them.
    pub fn end_transaction(&mut self, producer_id: i64, commits: bool) {
        let ended = self.undecided.remove(&producer_id).unwrap_or_default();
        for (offset, record) in ended.iter().filter(|_| commits) {
            self.apply(*offset, record);
        }
    }

    fn forget(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(topics) = self.offsets.get_mut(group) else { return };
        let Some(partitions) = topics.get_mut(topic) else { return };
        partitions.remove(&partition);
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.offsets.remove(group);
        }
    }

    /// The classic or simple group from its record; `None` if there is none with this id.
    pub fn group(&self, id: &Arc<str>) -> Option<ClassicGroup> {
        match self.groups.get(id)? {
            LoggedGroup::Classic(value) => Some(ClassicGroup::loaded(id.clone(), value)),
            LoggedGroup::Simple => Some(ClassicGroup::new(id.clone(), None)),
            LoggedGroup::Unserved(_) => None,
        }
    }

    /// The group of an unserved protocol; `None` if there is none with this id.
    pub fn unserved(&self, id: &str) -> Option<&UnservedGroup> {
        match self.groups.get(id)? {
            LoggedGroup::Unserved(unserved) => Some(unserved),
            LoggedGroup::Simple | LoggedGroup::Classic(_) => None,
        }
    }

    /// The groups of unserved protocols, by id.
    pub fn unserved_groups(&self) -> impl Iterator<Item = (&Arc<str>, &UnservedGroup)> {
        self.groups.iter().filter_map(|(id, group)| match group {
            LoggedGroup::Unserved(unserved) => Some((id, unserved)),
            LoggedGroup::Simple | LoggedGroup::Classic(_) => None,
        })
    }

    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.offsets.get(group)?.get(topic)?.get(&partition)
    }
}

/// The value of a key, inserted if it is missing. The key is cloned only then.
fn entry<'a, V: Default>(map: &'a mut BTreeMap<Arc<str>, V>, key: &Arc<str>) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.clone(), V::default());
    }
    map.get_mut(key).expect("inserted above")
}
