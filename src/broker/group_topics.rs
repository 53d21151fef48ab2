//! [`GroupTopics`]: the topics of the cluster, as the group coordinator needs them.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    base::TopicId,
    coordinator::group::{
        consumer::messages::{TopicInfo, TopicsSnapshot},
        metadata_hash::topic_hash,
    },
    metadata::{Change, Image, PartitionImage, TopicImage},
};

/// The topics of the cluster with their hashes (KIP-1101). A change of the metadata costs only the
/// topics that it touches: a topic is hashed again if its partitions or their replicas change, or
/// if one of its replicas is on a broker whose rack changes. Most changes, for example of leaders
/// and in-sync replicas, touch no topic.
#[derive(Default)]
pub struct GroupTopics {
    latest: Arc<TopicsSnapshot>,
}

impl GroupTopics {
    /// All topics of an image, in place of the ones before.
    pub fn replace(&mut self, image: &Image) -> Arc<TopicsSnapshot> {
        let mut all = TopicsSnapshot::default();
        for topic in image.topics.iter() {
            put(&mut all, topic, topic_info(image, topic));
        }
        self.latest = Arc::new(all);
        Arc::clone(&self.latest)
    }

    /// Applies the changes of a metadata batch. `image` contains them already. Returns the topics,
    /// or `None` if they are the same as before. Topics that did not change share their entries
    /// with the last version.
    pub fn apply(&mut self, image: &Image, changes: &[Change]) -> Option<Arc<TopicsSnapshot>> {
        let mut changed = Vec::new();
        for id in touched(image, changes) {
            let topic = image.topic_by_id(id);
            let info = topic.map(|topic| topic_info(image, topic));
            let old = self.latest.names.get(&id).and_then(|name| self.latest.topics.get(name));
            if old.map(|old| &**old) != info.as_ref() {
                changed.push((id, topic.zip(info)));
            }
        }
        if changed.is_empty() {
            return None;
        }
        // Copies parts of the maps, because shards hold the last version.
        let latest = Arc::make_mut(&mut self.latest);
        for (id, found) in changed {
            match found {
                Some((topic, info)) => put(latest, topic, info),
                None => remove(latest, id),
            }
        }
        Some(Arc::clone(&self.latest))
    }
}

fn put(topics: &mut TopicsSnapshot, topic: &TopicImage, info: TopicInfo) {
    topics.names.insert(info.id, Arc::clone(&topic.name));
    topics.topics.insert(Arc::clone(&topic.name), Arc::new(info));
}

fn remove(topics: &mut TopicsSnapshot, id: TopicId) {
    let Some(name) = topics.names.remove(&id) else { return };
    // The name may already belong to a topic that was created after the deletion.
    if topics.topics.get(&name).is_some_and(|info| info.id == id) {
        topics.topics.remove(&name);
    }
}

/// The topics that the changes may change for the group coordinator.
fn touched(image: &Image, changes: &[Change]) -> BTreeSet<TopicId> {
    let (mut topics, mut brokers) = (BTreeSet::new(), BTreeSet::new());
    for change in changes {
        match change {
            Change::TopicCreated { id, .. } | Change::PartitionAdded { id, .. } => {
                topics.insert(*id);
            }
            Change::TopicDeleted { topic } => {
                topics.insert(topic.id);
            }
            Change::PartitionChanged(change) if change.old.replicas != change.new.replicas => {
                topics.insert(change.id);
            }
            Change::BrokerChanged { id, old, new }
                if old.as_ref().and_then(|old| old.rack.as_ref()) != new.rack.as_ref() =>
            {
                brokers.insert(*id);
            }
            Change::BrokerUnregistered { id, old } if old.rack.is_some() => {
                brokers.insert(*id);
            }
            _ => {}
        }
    }
    if !brokers.is_empty() {
        let is_on = |it: &PartitionImage| it.replicas.iter().any(|id| brokers.contains(id));
        let on_brokers = image.topics.iter().filter(|topic| topic.partitions.iter().any(is_on));
        topics.extend(on_brokers.map(|topic| topic.id));
    }
    topics
}

fn topic_info(image: &Image, topic: &TopicImage) -> TopicInfo {
    let rack = |broker: &i32| image.broker(*broker)?.rack.as_deref();
    let racks = topic.partitions.iter().map(|it| it.replicas.iter().filter_map(rack).collect());
    let racks: Vec<Vec<&str>> = racks.collect();
    TopicInfo {
        id: topic.id,
        partitions: topic.partitions.len() as i32,
        hash: topic_hash(topic.id, &topic.name, &racks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{
        MetadataRecord,
        records::{
            FenceBrokerRecord, PartitionChangeRecord, PartitionRecord, RegisterBrokerRecord,
            RemoveTopicRecord, TopicRecord, UnregisterBrokerRecord,
        },
    };

    #[derive(Default)]
    struct Cluster {
        image: Image,
        topics: GroupTopics,
    }

    impl Cluster {
        /// A cluster with broker 1 in rack `a`, broker 2 in rack `b`, and broker 3 without a rack.
        fn new() -> Self {
            let mut cluster = Self::default();
            let racks = [(1, Some("a")), (2, Some("b")), (3, None)];
            let brokers = racks.map(|(id, rack)| broker(id, rack));
            assert_eq!(cluster.apply(brokers), None, "no topics");
            cluster
        }

        fn apply(
            &mut self,
            records: impl IntoIterator<Item = MetadataRecord>,
        ) -> Option<Arc<TopicsSnapshot>> {
            let changes: Vec<Change> =
                records.into_iter().map(|record| self.image.apply(&record)).collect();
            let new = self.topics.apply(&self.image, &changes);
            // The same as if all topics were taken from the image.
            assert_eq!(GroupTopics::default().replace(&self.image), self.topics.latest);
            new
        }

        fn hash(&self, name: &str) -> i64 {
            info(&self.topics.latest, name).hash
        }
    }

    /// What a snapshot says of a topic.
    fn info(topics: &TopicsSnapshot, name: &str) -> Arc<TopicInfo> {
        Arc::clone(topics.topics.get(name).expect("the topic"))
    }

    fn id(topic: u128) -> TopicId {
        TopicId::from_u128(topic)
    }

    fn topic(topic_id: u128, name: &str) -> MetadataRecord {
        TopicRecord { name: name.to_owned(), topic_id: id(topic_id) }.into()
    }

    fn partition(topic: u128, partition_id: i32, replicas: &[i32]) -> MetadataRecord {
        let replicas = replicas.to_vec();
        PartitionRecord { topic_id: id(topic), partition_id, replicas, ..Default::default() }.into()
    }

    fn change(topic: u128, change: PartitionChangeRecord) -> MetadataRecord {
        PartitionChangeRecord { topic_id: id(topic), partition_id: 0, ..change }.into()
    }

    fn broker(broker_id: i32, rack: Option<&str>) -> MetadataRecord {
        let rack = rack.map(str::to_owned);
        RegisterBrokerRecord { broker_id, rack, ..Default::default() }.into()
    }

    #[test]
    fn created_and_deleted_topics_leave_the_entries_of_others() {
        let mut cluster = Cluster::new();
        let t = cluster.apply([topic(1, "t"), partition(1, 0, &[1])]).expect("a new topic");
        assert_eq!((info(&t, "t").id, info(&t, "t").partitions), (id(1), 1));
        assert_eq!(t.names.get(&id(1)).map(|name| &**name), Some("t"));
        let both = cluster.apply([topic(2, "u"), partition(2, 0, &[1])]).expect("a new topic");
        assert!(Arc::ptr_eq(&info(&t, "t"), &info(&both, "t")));
        let grown = cluster.apply([partition(2, 1, &[2])]).expect("a new partition");
        assert_eq!(info(&grown, "u").partitions, 2);
        assert_ne!(info(&grown, "u").hash, info(&both, "u").hash);
        let gone = RemoveTopicRecord { topic_id: id(2) };
        let left = cluster.apply([gone.into()]).expect("a topic is gone");
        assert!(Arc::ptr_eq(&info(&t, "t"), &info(&left, "t")));
        assert_eq!((left.topics.len(), left.names.len()), (1, 1));
    }

    #[test]
    fn topic_that_is_created_again_has_its_new_id() {
        for (old, new) in [(1, 2), (2, 1)] {
            let mut cluster = Cluster::new();
            cluster.apply([topic(old, "t"), partition(old, 0, &[1])]);
            let before = cluster.hash("t");
            let gone = RemoveTopicRecord { topic_id: id(old) };
            let again = cluster.apply([gone.into(), topic(new, "t"), partition(new, 0, &[1])]);
            let again = again.expect("another topic");
            assert_eq!((info(&again, "t").id, again.names.len()), (id(new), 1));
            assert_ne!(cluster.hash("t"), before);
        }
    }

    #[test]
    fn changes_without_meaning_for_groups_give_no_new_version() {
        let mut cluster = Cluster::new();
        cluster.apply([topic(1, "t"), partition(1, 0, &[1, 2])]);
        let leader = PartitionChangeRecord { leader: 2, isr: Some(vec![2]), ..Default::default() };
        assert_eq!(cluster.apply([change(1, leader)]), None);
        let swapped = PartitionChangeRecord { replicas: Some(vec![2, 1]), ..Default::default() };
        assert_eq!(cluster.apply([change(1, swapped)]), None, "the same racks");
        assert_eq!(cluster.apply([broker(1, Some("a"))]), None, "registered again");
        assert_eq!(cluster.apply([FenceBrokerRecord { id: 1, epoch: 0 }.into()]), None);
        assert_eq!(cluster.apply([broker(3, Some("c"))]), None, "without replicas");
    }

    #[test]
    fn changed_racks_change_the_hash_of_topics_on_these_brokers() {
        let mut cluster = Cluster::new();
        cluster.apply([topic(1, "t"), partition(1, 0, &[1, 3]), topic(2, "u")]);
        cluster.apply([partition(2, 0, &[2])]);
        let (t, u) = (cluster.hash("t"), info(&cluster.topics.latest, "u"));
        let mut seen = BTreeSet::from([t]);
        let moved = PartitionChangeRecord { replicas: Some(vec![2, 3]), ..Default::default() };
        for records in [
            vec![broker(3, Some("c"))],
            vec![broker(1, Some("z"))],
            vec![UnregisterBrokerRecord { broker_id: 1, broker_epoch: 0 }.into()],
            vec![change(1, moved)],
        ] {
            let new = cluster.apply(records).expect("another hash");
            assert!(seen.insert(cluster.hash("t")));
            assert!(Arc::ptr_eq(&info(&new, "u"), &u), "not hashed again");
        }
        let gone = UnregisterBrokerRecord { broker_id: 3, broker_epoch: 0 };
        assert!(cluster.apply([gone.into(), broker(1, Some("a"))]).is_some());
        let back = PartitionChangeRecord { replicas: Some(vec![1, 3]), ..Default::default() };
        cluster.apply([change(1, back), broker(3, None)]);
        assert_eq!(cluster.hash("t"), t);
    }
}
