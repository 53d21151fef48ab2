//! The logs of this broker's partitions: opened where metadata places them, configured by their
//! topic, removed with it.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use tracing::{error, info, warn};
use uuid::Uuid;

use super::Broker;
use crate::{
    base::{TopicId, TopicPartition, clock::now_ms, config::TopicConfig},
    log::{Log, LogConfig, LogError, LogStart, checkpoint::Offsets, dirs::FoundPartition},
    metadata::{ConfigResource, Image, PartitionImage, TopicImage},
    partition::{Partition, Topic},
};

/// Partitions that a start found on disk and metadata has not claimed yet.
pub type FoundPartitions = HashMap<TopicPartition, FoundPartition>;

impl Broker {
    pub(super) fn topic_config(&self, image: &Image, name: &str) -> Arc<TopicConfig> {
        let overrides = image.config(&ConfigResource::topic(name));
        let config = self.config();
        match TopicConfig::resolve(&config, overrides) {
            Ok(resolved) => Arc::new(resolved),
            Err(error) => {
                // The controller checked it; an adopted log may hold what this version refuses.
                error!(topic = name, %error, "topic configuration ignored");
                let resolved = TopicConfig::resolve(&config, &BTreeMap::new());
                Arc::new(resolved.expect("defaults are valid"))
            }
        }
    }

    pub(super) fn configure_topic(&self, image: &Image, topic: &Topic) {
        let config = self.topic_config(image, &topic.name);
        let log_config = self.log_config(&config);
        topic.config.store(config);
        for partition in topic.partitions() {
            partition.update(|core| core.log_mut().set_config(Arc::clone(&log_config)));
        }
    }

    pub(super) fn open_topic(self: &Arc<Self>, image: &Image, topic: &TopicImage) {
        for (index, partition) in topic.partitions.iter().enumerate() {
            self.open_partition(image, topic.id, index as i32, partition);
        }
    }

    /// Opens the replica's log, new or found on disk, if this broker has a replica.
    pub(super) fn open_partition(
        self: &Arc<Self>,
        image: &Image,
        id: TopicId,
        index: i32,
        partition: &PartitionImage,
    ) {
        let Some(topic_image) = image.topic_by_id(id) else { return };
        if !partition.replicas.contains(&self.node_id) {
            return;
        }
        let topic = self.partitions.topic_by_id(id).unwrap_or_else(|| {
            let config = self.topic_config(image, &topic_image.name);
            let metrics = self.metrics.topic(&topic_image.name);
            let topic = Topic::new(Arc::clone(&topic_image.name), id, config, metrics);
            let topic = Arc::new(topic);
            self.partitions.insert(Arc::clone(&topic));
            topic
        });
        if topic.partition(index).is_some() {
            return;
        }
        let name = TopicPartition::new(Arc::clone(&topic.name), index);
        match self.open_log(&topic, &name) {
            Ok((log, high_watermark)) => {
                let role = self.role(partition);
                topic.insert(Arc::new(Partition::new(name, log, role, high_watermark)));
            }
            Err(error) => error!(partition = %name, %error, "the partition's log is offline"),
        }
    }

    /// The partition's log, with its high watermark: found on disk, or made in the directory with
    /// the fewest partitions.
    fn open_log(&self, topic: &Topic, name: &TopicPartition) -> Result<(Log, i64), LogError> {
        let mut dirs = self.log_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start =
            LogStart { recovery_point: 0, log_start: None, clean: false, now_ms: now_ms() };
        let mut high_watermark = 0;
        let path = match self.claim(topic, name) {
            Some(found) => {
                start.recovery_point = found.recovery_point;
                start.log_start = found.log_start;
                start.clean = found.clean;
                let checkpoints = &dirs.dirs()[found.dir].checkpoints;
                high_watermark = checkpoints.high_watermarks.get(name).copied().unwrap_or(0);
                found.path
            }
            None => {
                let dir = dirs.pick().ok_or_else(|| LogError::Failed { dir: PathBuf::new() })?;
                dirs.create_partition(dir, name, topic.id)?
            }
        };
        let disk = Arc::clone(dirs.disk());
        drop(dirs);
        let config = self.log_config(&topic.config.load());
        let (log, recovery) = Log::open(disk, &path, config, start)?;
        if recovery.scanned_bytes > 0 || recovery.cut_bytes > 0 {
            info!(partition = %name, ?recovery, "log recovered");
        }
        Ok((log, high_watermark))
    }

    /// The directory that a start found for this partition. One that belongs to a former topic of
    /// the same name is put aside, not opened and not removed.
    fn claim(&self, topic: &Topic, name: &TopicPartition) -> Option<FoundPartition> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let found = found.remove(name)?;
        if found.topic_id.is_none_or(|id| id == topic.id) {
            return Some(found);
        }
        let aside = format!("{name}.{}-stray", Uuid::new_v4().simple());
        let aside = found.path.with_file_name(aside);
        warn!(partition = %name, to = %aside.display(), "a former topic's directory is put aside");
        if let Err(error) = std::fs::rename(&found.path, &aside) {
            error!(partition = %name, %error, "a former topic's directory stays in the way");
        }
        None
    }

    fn log_config(&self, config: &TopicConfig) -> Arc<LogConfig> {
        Arc::new(LogConfig {
            segment_bytes: config.segment_bytes as u64,
            segment_ms: config.segment_ms,
            segment_jitter_ms: config.segment_jitter_ms,
            index_bytes: config.segment_index_bytes as u64,
            index_interval_bytes: config.index_interval_bytes as u64,
            retention_ms: config.retention_ms.unwrap_or(-1),
            retention_bytes: config.retention_bytes.unwrap_or(-1),
            delete: config.cleanup_policy.delete,
            compact: config.cleanup_policy.compact,
            file_delete_delay_ms: config.file_delete_delay_ms,
            preallocate: config.preallocate,
            producer_id_expiration_ms: i64::from(self.settings().producer_id_expiration_ms),
            flush_messages: config.flush_messages,
            flush_ms: config.flush_ms,
        })
    }

    /// Takes a deleted topic's partitions out of service at once and their files away later.
    pub(super) fn delete_topic(self: &Arc<Self>, image: &TopicImage) {
        let Some(topic) = self.partitions.remove(image.id) else { return };
        self.metrics.remove_topic(&image.name);
        let delay_ms = topic.config.load().file_delete_delay_ms;
        for partition in topic.partitions() {
            partition.fail();
            let path = partition.with_log(|log| log.dir().to_owned());
            let mut dirs = self.log_dirs.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(dir) = dirs.dir_of(&path) else { continue };
            match dirs.delete_partition(dir, &partition.id, Uuid::new_v4()) {
                Ok(deleted) => {
                    partition.update(|core| core.log_mut().set_dir(&deleted.path));
                    self.after(delay_ms, "a deleted partition", move || deleted.remove());
                }
                Err(error) => error!(partition = %partition.id, %error, "cannot be deleted"),
            }
        }
    }

    /// Takes a failed disk's directory out of service, with its own partitions and no others.
    pub fn on_log_error(&self, partition: &Partition, error: &LogError) {
        error!(partition = %partition.id, %error, "the log failed");
        if !error.is_disk_failure() {
            return;
        }
        let dir_of = |partition: &Partition| {
            partition.with_log(|log| log.dir().parent().map(Path::to_owned))
        };
        let failed = dir_of(partition);
        let mut dirs = self.log_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        let index = dirs.dirs().iter().position(|dir| Some(&dir.path) == failed.as_ref());
        let Some(index) = index else { return };
        if dirs.dirs()[index].is_offline() {
            return;
        }
        dirs.mark_offline(index);
        drop(dirs);
        error!(dir = ?failed, "log directory is offline");
        for partition in self.partitions.partitions() {
            if dir_of(&partition) == failed {
                partition.fail();
            }
        }
    }

    /// Removes what deletions before this start left behind.
    pub(super) fn remove_leftovers(self: &Arc<Self>) {
        let mut dirs = self.log_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        for leftover in dirs.take_leftovers() {
            self.after(0, "a deleted partition", move || leftover.remove());
        }
    }

    /// Warns of directories that no topic has claimed. They are kept: a metadata log that was lost
    /// must not take the data with it.
    pub(super) fn warn_of_strays(&self) {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in found.values() {
            warn!(path = %partition.path.display(), "no topic has this partition; it is not served");
        }
    }

    /// Replaces the checkpoint files of all directories with what the partitions say.
    pub(super) fn write_checkpoint(&self, name: &str, value: impl Fn(&Partition) -> Option<i64>) {
        let mut by_dir: HashMap<PathBuf, Offsets> = HashMap::new();
        for partition in self.partitions.partitions() {
            let dir = partition.with_log(|log| log.dir().parent().map(Path::to_owned));
            if let (Some(dir), Some(value)) = (dir, value(&partition)) {
                by_dir.entry(dir).or_default().insert(partition.id.clone(), value);
            }
        }
        let dirs = self.log_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, dir) in dirs.dirs().iter().enumerate().filter(|(_, dir)| !dir.is_offline()) {
            let offsets = by_dir.remove(&dir.path).unwrap_or_default();
            if let Err(error) = dirs.write_checkpoint(index, name, &offsets) {
                error!(%error, "checkpoint not written");
            }
        }
    }

    /// Closes all logs for a clean stop and leaves checkpoints and markers.
    pub(super) fn close_logs(&self) {
        let mut failed: Vec<PathBuf> = Vec::new();
        for partition in self.partitions.partitions() {
            if let Err(error) = partition.close() {
                error!(partition = %partition.id, %error, "not closed: the next start recovers it");
                failed.extend(partition.with_log(|log| log.dir().parent().map(Path::to_owned)));
            }
        }
        self.write_checkpoints();
        self.write_high_watermarks();
        let epoch = self.metadata().broker(self.node_id).map_or(-1, |broker| broker.broker_epoch);
        let dirs = self.log_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, dir) in dirs.dirs().iter().enumerate() {
            if dir.is_offline() || failed.contains(&dir.path) {
                continue;
            }
            if let Err(error) = dirs.mark_clean(index, epoch) {
                error!(%error, "the clean shutdown marker is not written");
            }
        }
    }
}
