//! Partition directories that a start finds on disk. Partitions in metadata claim them; the others
//! are deleted if metadata has deleted their topic or moved the replica, otherwise kept.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::MutexGuard;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::Replicas;
use crate::{
    base::{TopicId, TopicPartition},
    log::{
        LogError,
        dirs::{DeletedPartition, DiscoveredLog, read_topic_id, write_topic_id},
    },
    metadata::{Change, Image},
    partition::{Partition, PartitionUnavailable, Topic},
};

/// Partition directories that the start found and that no partition has claimed yet. A replica that
/// was being moved has two.
#[derive(Default)]
pub struct DiscoveredLogs {
    unclaimed: HashMap<TopicPartition, Vec<DiscoveredLog>>,
    /// Topics that were deleted in metadata that this process received before its logs were opened.
    deleted: HashSet<TopicId>,
    /// Whether a directory was renamed as stray. The checkpoints still have entries for its old
    /// name, which would be wrong for the next directory of that name.
    renamed_stray: bool,
}

impl DiscoveredLogs {
    pub fn new(all: Vec<DiscoveredLog>) -> Self {
        let mut found = Self::default();
        all.into_iter().for_each(|it| found.put(it));
        found
    }

    /// Notes deleted topics, while the logs are not open yet.
    pub fn note_deleted(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::TopicDeleted { topic } = change {
                self.deleted.insert(topic.id);
            }
        }
    }

    /// Whether a directory was renamed as stray since the last call.
    pub fn take_renamed_stray(&mut self) -> bool {
        std::mem::take(&mut self.renamed_stray)
    }

    fn put(&mut self, found: DiscoveredLog) {
        self.unclaimed.entry(found.partition.clone()).or_default().push(found);
    }

    fn take(&mut self, partition: &TopicPartition) -> Vec<DiscoveredLog> {
        self.unclaimed.remove(partition).unwrap_or_default()
    }
}

impl Replicas {
    /// Takes the directory that the start found for this partition. Copies stay unclaimed for
    /// [`Self::resume_move`]. `named` is the log directory that metadata has for the replica.
    /// Returns `None` if no directory was found.
    pub(super) fn claim(
        self: &Arc<Self>,
        topic: &Topic,
        name: &TopicPartition,
        named: Option<Uuid>,
    ) -> Result<Option<DiscoveredLog>, LogError> {
        let (mut all, mut failed) = (Vec::new(), None);
        for found in self.claimed(name) {
            match self.is_of_topic(topic, &found) {
                Ok(true) => all.push(found),
                Ok(false) => self.rename_to_stray(&found, "directory of a deleted topic"),
                Err(error) => {
                    let is_future = found.is_future;
                    self.keep_found(found, &error);
                    failed = failed.or(Some(error).filter(|_| !is_future));
                }
            }
        }
        let ids: Vec<_> = self.lock_dirs().dirs().iter().map(|dir| dir.id).collect();
        let is_named = |it: &DiscoveredLog| named == Some(ids[it.dir]);
        // The replica's own directory is first. Without one, a copy in the log directory that
        // metadata names is the replica.
        all.sort_by_key(|it| (it.is_future, !is_named(it)));
        let is_replica = |it: &DiscoveredLog| !it.is_future || is_named(it);
        let has_replica = failed.is_none() && all.first().is_some_and(is_replica);
        let replica = has_replica.then(|| all.remove(0));
        for found in all {
            match found.is_future || failed.is_some() {
                true => self.found().put(found),
                // A crash ended a move between its two renames. The copy has all records of this
                // one.
                false => self.rename_to_stray(&found, "former directory of a moved replica"),
            }
        }
        match (failed, replica) {
            (Some(error), _) => Err(error),
            (None, Some(copy)) if copy.is_future => self.promote_found(copy).map(Some),
            (None, replica) => Ok(replica),
        }
    }

    /// Continues a move that a previous process began, if the start found a copy of the replica.
    pub(super) fn resume_move(self: &Arc<Self>, topic: &Topic, partition: &Arc<Partition>) {
        for found in self.claimed(&partition.id) {
            if *partition.log_dir() == found.dir_path() || partition.future_view().is_some() {
                self.rename_to_stray(&found, "unused copy of a replica");
                continue;
            }
            match self.open_found(topic, &found) {
                Ok((log, _)) => {
                    info!(partition = %partition.id, path = %found.path.display(),
                        "continuing the move of a replica");
                    partition.begin_move(log);
                    self.move_on(topic.id, partition);
                }
                Err(error) => {
                    error!(partition = %partition.id, %error, "cannot continue to move a replica");
                    self.keep_found(found, &error);
                }
            }
        }
    }

    /// Makes a copy the replica by renaming its directory, and makes the new name durable.
    fn promote_found(self: &Arc<Self>, copy: DiscoveredLog) -> Result<DiscoveredLog, LogError> {
        warn!(partition = %copy.partition, path = %copy.path.display(),
            "metadata names the log directory of a copy: the copy becomes the replica");
        let promoted = self.log_dirs.promote(&copy.path, &copy.partition);
        let promoted = promoted.and_then(|path| self.log_dirs.sync_above(&path).map(|()| path));
        match promoted {
            Ok(path) => Ok(DiscoveredLog { path, is_future: false, ..copy }),
            Err(error) => {
                self.keep_found(copy, &error);
                Err(error)
            }
        }
    }

    /// Whether a directory belongs to this topic, by its topic id. It may belong to a deleted topic
    /// of the same name. If the directory has no topic id, it gets this topic's.
    fn is_of_topic(&self, topic: &Topic, found: &DiscoveredLog) -> Result<bool, LogError> {
        let disk = &**self.log_dirs.disk();
        match read_topic_id(disk, &found.path)? {
            Some(id) => Ok(id == topic.id),
            None => write_topic_id(disk, &found.path, topic.id).map(|()| true),
        }
    }

    /// Renames a directory as Kafka renames stray ones. Its files are kept, but not opened.
    fn rename_to_stray(&self, found: &DiscoveredLog, what: &str) {
        self.found().renamed_stray = true;
        let partition = &found.partition;
        match self.log_dirs.rename_to_stray(&found.path, partition) {
            Ok(to) => warn!(%partition, to = %to.display(), "{what} renamed as stray"),
            Err(error) => error!(%partition, %error, "{what} cannot be renamed as stray"),
        }
    }

    /// Returns a directory whose log could not be opened to the unclaimed ones, for a later
    /// attempt. If its disk has failed, the log directory goes offline.
    pub(super) fn keep_found(self: &Arc<Self>, found: DiscoveredLog, error: &LogError) {
        if error.is_disk_failure() {
            self.fail_dir(&found.dir_path());
        }
        self.found().put(found);
    }

    /// Deletes the unclaimed directories whose topic was deleted, or whose replica was moved to
    /// other brokers, while this broker was down. Other unclaimed directories are kept: if the
    /// metadata log was lost, the data must survive.
    pub(super) fn delete_unclaimed(&self, image: &Image) -> Vec<DeletedPartition> {
        let unclaimed = std::mem::take(&mut self.found().unclaimed);
        let mut deleted = Vec::new();
        for found in unclaimed.into_values().flatten() {
            let (name, index) = (&found.partition.topic, found.partition.partition);
            let is_stray =
                self.partitions.get(name, index).err() == Some(PartitionUnavailable::Unknown);
            if is_stray && self.is_taken_away(image, &found) {
                match self.delete_dir(&found.path, &found.partition) {
                    Ok(it) => {
                        deleted.push(it);
                        continue;
                    }
                    Err(error) => warn!(%error, "cannot delete stray partition directory"),
                }
            } else if is_stray {
                let path = found.path.display();
                warn!(%path, "partition directory of an unknown topic, kept but not served");
            }
            self.found().put(found);
        }
        deleted
    }

    /// Whether metadata has deleted the topic of an unclaimed directory, or assigned its replica to
    /// other brokers.
    fn is_taken_away(&self, image: &Image, found: &DiscoveredLog) -> bool {
        let disk = &**self.log_dirs.disk();
        let Ok(Some(id)) = read_topic_id(disk, &found.path) else { return false };
        let index = found.partition.partition as usize;
        let known = image.topic_by_id(id).and_then(|topic| topic.partitions.get(index));
        known.is_some() || self.found().deleted.contains(&id)
    }

    fn claimed(&self, partition: &TopicPartition) -> Vec<DiscoveredLog> {
        self.found().take(partition)
    }

    pub(super) fn found(&self) -> MutexGuard<'_, DiscoveredLogs> {
        self.found.lock()
    }
}
