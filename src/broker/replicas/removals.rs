//! Removal of replicas from this broker: they stop serving at once, and their files are removed
//! later.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use tracing::{debug, warn};

use super::Replicas;
use crate::{
    base::{TopicId, TopicPartition, environment::new_uuid},
    log::{LogError, dirs::DeletedPartition},
    metadata::TopicImage,
    partition::{Partition, Topic},
};

impl Replicas {
    /// Stops serving the partitions of a deleted topic and deletes their logs.
    pub(super) fn delete_topic(self: &Arc<Self>, image: &TopicImage) {
        let Some(topic) = self.partitions.remove(image.id) else { return };
        self.metrics.remove_topic(&image.name);
        let partitions = topic.partitions();
        for partition in &partitions {
            self.unfollow(topic.id, partition.id.partition);
        }
        self.delete_logs(&topic, &partitions, format!("partitions of {}", image.name));
    }

    /// Stops serving a replica that metadata has assigned to other brokers, and deletes its log.
    pub(super) fn remove_replica(self: &Arc<Self>, id: TopicId, index: i32) {
        let Some(topic) = self.partitions.topic_by_id(id) else { return };
        self.unfollow(id, index);
        if let Some(partition) = topic.remove(index) {
            debug!(partition = %partition.id, "replica removed from this broker");
            let what = format!("replica of {}", partition.id);
            self.delete_logs(&topic, &[partition], what);
            self.replicas_left.store(true, Ordering::Relaxed);
        }
    }

    fn delete_logs(self: &Arc<Self>, topic: &Topic, partitions: &[Arc<Partition>], what: String) {
        let delay_ms = topic.config.load().file_delete_delay_ms;
        let mut removed = Vec::new();
        for partition in partitions {
            partition.retire();
            removed.extend(self.delete_future(partition));
            let path = partition.with_log(|log| log.dir().to_owned());
            if !self.is_in_online_dir(&path) {
                continue;
            }
            match self.delete_dir(&path, &partition.id) {
                Ok(deleted) => {
                    // Must happen before a new log gets the directory name that is now free.
                    partition.update(|core| core.log_mut().set_dir(&deleted.path));
                    removed.push(deleted);
                }
                Err(error) => self.on_log_error(partition, &error),
            }
        }
        let above = |deleted: &DeletedPartition| deleted.path.parent().map(Path::to_owned);
        let mut synced = HashSet::new();
        for deleted in removed.iter().filter(|deleted| synced.insert(above(deleted))) {
            if let Err(error) = self.log_dirs.sync_above(&deleted.path) {
                warn!(%error, "deleted directories may come back after a crash of the machine");
            }
        }
        self.remove_after(delay_ms, what, removed, DeletedPartition::remove);
    }

    fn is_in_online_dir(&self, path: &Path) -> bool {
        let dirs = self.lock_dirs();
        dirs.dir_of(path).is_some_and(|dir| !dirs.dirs()[dir].is_offline())
    }

    /// Renames a partition's directory for deletion, so that a new log can use the name at once.
    pub(super) fn delete_dir(
        &self,
        path: &Path,
        partition: &TopicPartition,
    ) -> Result<DeletedPartition, LogError> {
        self.log_dirs.delete_partition(path, partition, new_uuid())
    }

    /// Removes directories that a previous process had renamed for deletion, and those in
    /// `deleted`.
    pub(super) fn remove_leftovers(&self, deleted: Vec<DeletedPartition>) {
        let mut leftovers = self.lock_dirs().take_leftovers();
        leftovers.extend(deleted);
        if !leftovers.is_empty() {
            self.remove_after(0, "partitions".to_owned(), leftovers, DeletedPartition::remove);
        }
    }
}
