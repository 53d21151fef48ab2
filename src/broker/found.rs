//! What a start finds on disk: claimed by the partitions that metadata has, or left alone.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, MutexGuard, PoisonError},
};

use tracing::{error, info, warn};
use uuid::Uuid;

use super::Broker;
use crate::{
    base::{TopicId, TopicPartition, world::now_ms},
    log::{
        LogError,
        dirs::{DeletedPartition, FoundPartition, read_topic_id, sync_above, write_topic_id},
    },
    metadata::{Change, Image},
    partition::{Absent, Partition, Topic},
};

/// Directories of partitions that a start found and metadata has not claimed yet. A replica that
/// was being moved has two.
#[derive(Default)]
pub struct FoundPartitions {
    unclaimed: HashMap<TopicPartition, Vec<FoundPartition>>,
    /// Topics that metadata has deleted since this process began to read it.
    deleted: HashSet<TopicId>,
    /// Whether one was put aside: what the checkpoints say of its name is not true of the next.
    put_aside: bool,
}

impl FoundPartitions {
    pub fn new(all: Vec<FoundPartition>) -> Self {
        let mut found = Self::default();
        all.into_iter().for_each(|it| found.put(it));
        found
    }

    /// Notes what metadata has deleted that is not served yet.
    pub fn note_deleted(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::TopicDeleted { topic } = change {
                self.deleted.insert(topic.id);
            }
        }
    }

    /// Whether one was put aside since this was asked last.
    pub fn take_put_aside(&mut self) -> bool {
        std::mem::take(&mut self.put_aside)
    }

    fn put(&mut self, found: FoundPartition) {
        self.unclaimed.entry(found.partition.clone()).or_default().push(found);
    }

    fn take(&mut self, partition: &TopicPartition) -> Vec<FoundPartition> {
        self.unclaimed.remove(partition).unwrap_or_default()
    }
}

impl Broker {
    /// The directory that a start found for this partition; copies of it stay for
    /// [`Self::resume_move`]. `named` is the log directory that metadata has it in.
    pub(super) fn claim(
        self: &Arc<Self>,
        topic: &Topic,
        name: &TopicPartition,
        named: Option<Uuid>,
    ) -> Result<Option<FoundPartition>, LogError> {
        let (mut all, mut failed) = (Vec::new(), None);
        for found in self.claimed(name) {
            match self.is_of_topic(topic, &found) {
                Ok(true) => all.push(found),
                Ok(false) => self.put_aside(&found, "a former topic's directory"),
                Err(error) => {
                    let is_future = found.is_future;
                    self.keep_found(found, &error);
                    failed = failed.or(Some(error).filter(|_| !is_future));
                }
            }
        }
        let ids: Vec<_> = self.lock_dirs().dirs().iter().map(|dir| dir.id).collect();
        let is_named = |it: &FoundPartition| named == Some(ids[it.dir]);
        // A copy that metadata has in the replica's place is one, where there is none itself.
        all.sort_by_key(|it| (it.is_future, !is_named(it)));
        let is_replica = |it: &FoundPartition| !it.is_future || is_named(it);
        let has_replica = failed.is_none() && all.first().is_some_and(is_replica);
        let replica = has_replica.then(|| all.remove(0));
        for found in all {
            match found.is_future || failed.is_some() {
                true => self.found().put(found),
                // A crash ended a move between its two renames: the copy has all that this has.
                false => self.put_aside(&found, "the directory that a replica has left"),
            }
        }
        match (failed, replica) {
            (Some(error), _) => Err(error),
            (None, Some(copy)) if copy.is_future => self.promote_found(copy).map(Some),
            (None, replica) => Ok(replica),
        }
    }

    /// Goes on with a move that an earlier process has begun.
    pub(super) fn resume_move(self: &Arc<Self>, topic: &Topic, partition: &Arc<Partition>) {
        for found in self.claimed(&partition.id) {
            if *partition.log_dir() == found.dir_path() || partition.future_view().is_some() {
                self.put_aside(&found, "a copy that nobody has a use for");
                continue;
            }
            match self.open_found(topic, &found) {
                Ok((log, _)) => {
                    info!(partition = %partition.id, path = %found.path.display(),
                        "the replica goes on to move");
                    partition.begin_move(log);
                    self.move_on(topic.id, partition);
                }
                Err(error) => {
                    error!(partition = %partition.id, %error, "the replica does not move");
                    self.keep_found(found, &error);
                }
            }
        }
    }

    fn promote_found(self: &Arc<Self>, copy: FoundPartition) -> Result<FoundPartition, LogError> {
        warn!(partition = %copy.partition, path = %copy.path.display(),
            "metadata has the replica where a copy of it lies, which takes its place");
        let promoted = self.log_dirs.promote(&copy.path, &copy.partition, now_ms());
        let disk = self.log_dirs.disk();
        let promoted = promoted.and_then(|path| sync_above(&**disk, &path).map(|()| path));
        match promoted {
            Ok(path) => Ok(FoundPartition { path, is_future: false, ..copy }),
            Err(error) => {
                self.keep_found(copy, &error);
                Err(error)
            }
        }
    }

    /// Whether a directory is this topic's. A former topic of the same name may have left it.
    fn is_of_topic(&self, topic: &Topic, found: &FoundPartition) -> Result<bool, LogError> {
        let disk = &**self.log_dirs.disk();
        match read_topic_id(disk, &found.path)? {
            Some(id) => Ok(id == topic.id),
            None => write_topic_id(disk, &found.path, topic.id).map(|()| true),
        }
    }

    /// Not opened, and not removed.
    fn put_aside(&self, found: &FoundPartition, what: &str) {
        self.found().put_aside = true;
        let partition = &found.partition;
        match self.log_dirs.put_aside(&found.path, now_ms()) {
            Ok(to) => warn!(%partition, to = %to.display(), "{what} is put aside"),
            Err(error) => error!(%partition, %error, "{what} stays in the way"),
        }
    }

    /// A log that could not be opened is still there, for another try and for the checkpoints.
    pub(super) fn keep_found(self: &Arc<Self>, found: FoundPartition, error: &LogError) {
        if error.is_disk_failure() {
            self.fail_dir(&found.dir_path());
        }
        self.found().put(found);
    }

    /// Deletes what metadata has taken from this broker while it was away. Other directories that
    /// nothing has claimed are kept: a metadata log that was lost must not take the data with it.
    pub(super) fn delete_unclaimed(&self, image: &Image) -> Vec<DeletedPartition> {
        let unclaimed = std::mem::take(&mut self.found().unclaimed);
        let mut deleted = Vec::new();
        for found in unclaimed.into_values().flatten() {
            let (name, index) = (&found.partition.topic, found.partition.partition);
            let is_stray = self.partitions.get(name, index).err() == Some(Absent::Unknown);
            if is_stray && self.is_taken_away(image, &found) {
                match self.delete_dir(&found.path, &found.partition) {
                    Ok(it) => {
                        deleted.push(it);
                        continue;
                    }
                    Err(error) => warn!(%error, "what metadata has taken away remains"),
                }
            } else if is_stray {
                let path = found.path.display();
                warn!(%path, "no topic has this partition; it is not served");
            }
            self.found().put(found);
        }
        deleted
    }

    /// Whether metadata has deleted the topic of a directory that nothing here has claimed, or given
    /// the replica to other brokers.
    fn is_taken_away(&self, image: &Image, found: &FoundPartition) -> bool {
        let disk = &**self.log_dirs.disk();
        let Ok(Some(id)) = read_topic_id(disk, &found.path) else { return false };
        let index = found.partition.partition as usize;
        let known = image.topic_by_id(id).and_then(|topic| topic.partitions.get(index));
        known.is_some() || self.found().deleted.contains(&id)
    }

    fn claimed(&self, partition: &TopicPartition) -> Vec<FoundPartition> {
        self.found().take(partition)
    }

    pub(super) fn found(&self) -> MutexGuard<'_, FoundPartitions> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
