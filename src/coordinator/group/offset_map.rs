//! [`OffsetMap`]: values by group, topic and partition. [`CommittedOffset`]: a committed offset.

use std::{collections::BTreeMap, sync::Arc};

use super::records::OffsetCommitValue;

/// A committed offset, and the offset of its record in `__consumer_offsets`.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedOffset {
    pub record_offset: i64,
    pub value: OffsetCommitValue,
}

/// Values by partition, by topic.
pub type Topics<V> = BTreeMap<Arc<str>, BTreeMap<i32, V>>;

/// Values by group, topic and partition. It has no group and no topic without values.
#[derive(Debug, Clone, PartialEq)]
pub struct OffsetMap<V>(BTreeMap<Arc<str>, Topics<V>>);

impl<V> Default for OffsetMap<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> OffsetMap<V> {
    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&V> {
        self.0.get(group)?.get(topic)?.get(&partition)
    }

    pub fn get_mut(&mut self, group: &str, topic: &str, partition: i32) -> Option<&mut V> {
        self.0.get_mut(group)?.get_mut(topic)?.get_mut(&partition)
    }

    /// The partitions of a topic. The caller must insert one if there is none.
    pub fn partitions_mut(&mut self, group: &Arc<str>, topic: &Arc<str>) -> &mut BTreeMap<i32, V> {
        value_of(value_of(&mut self.0, group), topic)
    }

    pub fn remove(&mut self, group: &str, topic: &str, partition: i32) -> Option<V> {
        let topics = self.0.get_mut(group)?;
        let partitions = topics.get_mut(topic)?;
        let removed = partitions.remove(&partition);
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.0.remove(group);
        }
        removed
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.0.contains_key(group)
    }

    /// The topics of a group.
    pub fn topics(&self, group: &str) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<i32, V>)> {
        self.0.get(group).into_iter().flatten()
    }

    pub fn groups(&self) -> impl Iterator<Item = (&Arc<str>, &Topics<V>)> {
        self.0.iter()
    }
}

/// The value of a key, inserted if it is missing. The key is cloned only then.
fn value_of<'a, V: Default>(map: &'a mut BTreeMap<Arc<str>, V>, key: &Arc<str>) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.clone(), V::default());
    }
    map.get_mut(key).expect("inserted above")
}
