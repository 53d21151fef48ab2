//! Replicas that are this broker's no longer: out of service at once, their files away later.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use tracing::{info, warn};

use super::Broker;
use crate::{
    base::{TopicId, world::new_uuid},
    log::dirs::DeletedPartition,
    metadata::TopicImage,
    partition::{Partition, Topic},
};

impl Broker {
    /// Takes a deleted topic's partitions out of service.
    pub(super) fn delete_topic(self: &Arc<Self>, image: &TopicImage) {
        let Some(topic) = self.partitions.remove(image.id) else { return };
        self.metrics.remove_topic(&image.name);
        let partitions = topic.partitions();
        for partition in &partitions {
            self.unfollow(topic.id, partition.id.partition);
        }
        self.delete_logs(&topic, &partitions, format!("partitions of {}", image.name));
    }

    /// Takes a replica out of service that metadata has given to other brokers. Metadata of before the
    /// registration was told to an earlier process already: what lies here may have come back since.
    pub(super) fn remove_replica(self: &Arc<Self>, id: TopicId, index: i32) {
        if self.replication.put_off(id, index) {
            return;
        }
        let Some(topic) = self.partitions.topic_by_id(id) else { return };
        self.unfollow(id, index);
        if let Some(partition) = topic.remove(index) {
            info!(partition = %partition.id, "this broker has no replica any more");
            let what = format!("replica of {}", partition.id);
            self.delete_logs(&topic, &[partition], what);
        }
    }

    /// Removes those of the replicas that did not come back.
    pub(super) fn remove_given_away(self: &Arc<Self>, given_away: Vec<(TopicId, i32)>) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let image = self.metadata();
        for (id, index) in given_away {
            let topic = image.topic_by_id(id);
            let partition = topic.and_then(|topic| topic.partitions.get(index as usize));
            if !partition.is_some_and(|it| it.replicas.contains(&self.node_id)) {
                self.remove_replica(id, index);
            }
        }
    }

    fn delete_logs(self: &Arc<Self>, topic: &Topic, partitions: &[Arc<Partition>], what: String) {
        let delay_ms = topic.config.load().file_delete_delay_ms;
        let (mut changed, mut removed) = (BTreeSet::new(), Vec::new());
        for partition in partitions {
            partition.retire();
            removed.extend(self.delete_future(partition));
            let path = partition.with_log(|log| log.dir().to_owned());
            let mut dirs = self.lock_dirs();
            let dir = dirs.dir_of(&path);
            let Some(dir) = dir.filter(|dir| !dirs.dirs()[*dir].is_offline()) else { continue };
            let deleted = dirs.delete_partition(&path, &partition.id, new_uuid());
            drop(dirs);
            match deleted {
                Ok(deleted) => {
                    // Before anything else comes to the name that is free now.
                    partition.update(|core| core.log_mut().set_dir(&deleted.path));
                    removed.push(deleted);
                    changed.insert(dir);
                }
                Err(error) => self.on_log_error(partition, &error),
            }
        }
        self.remove_after(delay_ms, what, removed, DeletedPartition::remove);
        let dirs = self.lock_dirs();
        for dir in changed {
            if let Err(error) = dirs.sync(dir) {
                warn!(%error, "a deletion may come back after a crash of the machine");
            }
        }
    }

    /// Removes what deletions before this start left behind.
    pub(super) fn remove_leftovers(self: &Arc<Self>) {
        let mut dirs = self.lock_dirs();
        let leftovers = dirs.take_leftovers();
        if !leftovers.is_empty() {
            self.remove_after(0, "partitions".to_owned(), leftovers, DeletedPartition::remove);
        }
    }
}
