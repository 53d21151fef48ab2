//! The logs of this broker's partitions: opening, creating, configuring and closing them, their
//! checkpoints, and what happens when a log directory fails.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use tracing::{error, info};
use uuid::Uuid;

use super::Replicas;
use crate::{
    base::{
        TopicId, TopicPartition,
        config::{self, TopicConfig},
        environment::{is_simulated, now_ms},
    },
    log::{
        Log, LogConfig, LogDirs, LogError, LogStart, LogView,
        checkpoint::Offsets,
        dirs::{Checkpoints, DiscoveredLog, LogDir, mark_clean},
    },
    metadata::{ConfigResource, Image, PartitionImage, TopicImage},
    partition::{Core, OnFailure, OnProposal, Partition, PartitionCallbacks, Role, Topic, View},
    records::TimestampType,
};

/// The minimum number of threads that close logs. They mostly wait for the disk, which can handle
/// several syncs at the same time.
const CLOSE_THREADS: usize = 8;
/// If the recovery of a log has read this many bytes or more, it is logged.
const TOLD_BYTES: u64 = 64 << 10;

/// A replica whose log is to be opened here.
#[derive(Clone, Copy)]
pub struct Replica {
    pub id: TopicId,
    pub index: i32,
    /// Whether the replica was just assigned to this broker, so that no directory contains it yet.
    pub is_new: bool,
}

impl Replicas {
    /// The topic's configuration, according to the image and the broker's configuration.
    pub(super) fn topic_config(&self, image: &Image, name: &str) -> Arc<TopicConfig> {
        let overrides = image.config(&ConfigResource::topic(name));
        let config = self.node.config();
        match TopicConfig::resolve(&config, overrides) {
            Ok(resolved) => Arc::new(resolved),
            Err(error) => {
                // The controller validates configs, but a metadata log of another Kafka version may
                // have values that this version rejects.
                error!(topic = name, %error, "topic configuration ignored");
                let resolved = TopicConfig::resolve(&config, &BTreeMap::new());
                Arc::new(resolved.expect("defaults are valid"))
            }
        }
    }

    pub(super) fn configure_topic(&self, image: &Image, topic: &Topic) {
        let config = self.topic_config(image, &topic.name);
        let log_config = self.log_config(&config);
        let rules = self.isr_rules(&config);
        topic.config.store(config);
        let now = now_ms();
        for partition in topic.partitions() {
            partition.update(|core| {
                core.log_mut().set_config(Arc::clone(&log_config));
                core.set_rules(rules, now);
            });
        }
    }

    /// Opens the logs of all replicas that the image assigns to this broker, on several threads.
    /// After a crash of the machine, each log is read from its recovery point. Then deletes the
    /// directories of replicas that were deleted or moved to other brokers while this broker was
    /// down.
    pub(in crate::broker) fn open_all(self: &Arc<Self>, image: &Image) {
        let mut replicas = Vec::new();
        for topic in image.topics.iter() {
            let all = (0..).zip(&topic.partitions);
            let here = all.filter(|(_, partition)| partition.replicas.contains(&self.node.id));
            let before = replicas.len();
            replicas.extend(here.map(|(index, partition)| (topic, index, partition)));
            if replicas.len() > before {
                self.topic_of(image, topic);
            }
        }
        self.progress.logs_found(replicas.len());
        in_parallel(self.recovery_threads(), &replicas, |(topic, index, partition)| {
            self.open_partition(
                image,
                Replica { id: topic.id, index: *index, is_new: false },
                partition,
            );
            self.progress.log_opened();
        });
        self.remove_leftovers(self.delete_unclaimed(image));
        self.forget_former_logs(false);
    }

    /// The number of threads that open logs: as configured for all log directories, but at least
    /// one per worker thread, because most of the work is for the CPU.
    pub(super) fn recovery_threads(&self) -> usize {
        let settings = self.node.settings();
        let per_dir = settings.num_recovery_threads_per_data_dir.max(1) as usize;
        (per_dir * settings.log_dirs.len()).max(self.node.runtime.metrics().num_workers())
    }

    /// The topic in the partition table. Adds it if it is missing.
    fn topic_of(&self, image: &Image, topic: &TopicImage) -> Arc<Topic> {
        self.partitions.topic_by_id(topic.id).unwrap_or_else(|| {
            let config = self.topic_config(image, &topic.name);
            let metrics = self.metrics.topic(&topic.name);
            let topic = Topic::new(Arc::clone(&topic.name), topic.id, config, metrics);
            let topic = Arc::new(topic);
            self.partitions.insert(Arc::clone(&topic));
            topic
        })
    }

    /// Adds the topic to the partition table if this broker has a replica of `partition`. It must
    /// be there before its partitions are created in parallel.
    pub(super) fn enter_topic(&self, image: &Image, id: TopicId, partition: &PartitionImage) {
        if let Some(topic) = image.topic_by_id(id)
            && partition.replicas.contains(&self.node.id)
        {
            self.topic_of(image, topic);
        }
    }

    /// Opens or creates the log of a replica, and gives the partition the role that metadata has
    /// for it. Does nothing if metadata has no replica here, or if the partition is open. If the
    /// log cannot be opened, the partition is offline.
    pub(in crate::broker) fn open_partition(
        self: &Arc<Self>,
        image: &Image,
        replica: Replica,
        partition: &PartitionImage,
    ) {
        let Replica { id, index, .. } = replica;
        let Some(topic_image) = image.topic_by_id(id) else { return };
        if !partition.replicas.contains(&self.node.id) {
            return;
        }
        let topic = self.topic_of(image, topic_image);
        if topic.partition(index).is_ok() {
            return;
        }
        let name = TopicPartition::new(Arc::clone(&topic.name), index);
        let may_create = replica.is_new || self.lies_here(partition);
        let directory = partition.directory_of(self.node.id);
        match self.open_log(&topic, &name, (directory, may_create)) {
            Ok((log, high_watermark)) => {
                let nobody = Role::Follower { epoch: -1, leader: -1 };
                let mut core = Core::new(log, nobody, high_watermark);
                core.set_rules(self.isr_rules(&topic.config.load()), now_ms());
                let opened = Arc::new(Partition::new(name, core, self.partition_callbacks(id)));
                self.assign(image, (id, &opened), partition);
                topic.insert(Arc::clone(&opened));
                if self.is_offline(&opened.log_dir()) {
                    opened.fail();
                }
                self.resume_move(&topic, &opened);
            }
            Err(error) => {
                error!(partition = %name, %error, "the partition's log is offline");
                topic.insert_offline(index);
                if !error.is_disk_failure() {
                    self.unopened().push(replica);
                }
            }
        }
    }

    /// Takes the replicas whose logs could not be opened for lack of disk space or file
    /// descriptors.
    pub(in crate::broker) fn take_unopened(&self) -> Vec<Replica> {
        std::mem::take(&mut *self.unopened())
    }

    fn unopened(&self) -> MutexGuard<'_, Vec<Replica>> {
        self.unopened.lock()
    }

    /// The replicas whose logs cannot be used, except those that `retry_unopened` retries.
    pub(super) fn offline_replicas(&self) -> Vec<(TopicId, i32)> {
        let unopened: HashSet<_> = self.unopened().iter().map(|it| (it.id, it.index)).collect();
        let topics = self.partitions.topics();
        let offline = topics
            .iter()
            .flat_map(|topic| topic.offline().into_iter().map(move |index| (topic.id, index)));
        offline.filter(|replica| !unopened.contains(replica)).collect()
    }

    fn partition_callbacks(self: &Arc<Self>, topic_id: TopicId) -> PartitionCallbacks {
        let replicas = Arc::downgrade(self);
        let on_proposal: OnProposal = Box::new(move |partition| {
            if let Some(replicas) = replicas.upgrade() {
                replicas.propose(topic_id, partition);
            }
        });
        PartitionCallbacks {
            on_failure: self.on_failure(),
            on_proposal,
            flush_seconds: Arc::clone(&self.metrics.log_flush_seconds),
            flushes: Arc::clone(&self.flushes),
        }
    }

    fn on_failure(self: &Arc<Self>) -> OnFailure {
        let replicas = Arc::downgrade(self);
        Box::new(move |partition, error| {
            if let Some(replicas) = replicas.upgrade() {
                replicas.on_log_error(partition, error);
            }
        })
    }

    /// Opens the log of a replica, or creates it. Returns it with its checkpointed high watermark.
    /// `directory` is the log directory that metadata names.
    ///
    /// # Errors
    /// [`LogError::NoDirectory`] if no log was found that may be in an offline directory.
    fn open_log(
        self: &Arc<Self>,
        topic: &Topic,
        name: &TopicPartition,
        (directory, may_create): (Option<Uuid>, bool),
    ) -> Result<(Log, i64), LogError> {
        let Some(found) = self.claim(topic, name, directory)? else {
            // The log may be in an offline directory. A new, empty one would replace it.
            if !may_create && self.any_offline() {
                return Err(LogError::NoDirectory);
            }
            return self.create_log(topic, name, directory).map(|log| (log, 0));
        };
        let opened = self.open_found(topic, &found);
        if let Err(error) = &opened {
            self.keep_found(found, error);
        }
        opened
    }

    /// Opens a log that a start found on disk. Returns it with its checkpointed high watermark.
    pub(super) fn open_found(
        &self,
        topic: &Topic,
        found: &DiscoveredLog,
    ) -> Result<(Log, i64), LogError> {
        let (high_watermark, first_dirty) = {
            let dirs = self.lock_dirs();
            let Checkpoints { high_watermarks, first_dirty, .. } =
                &dirs.dirs()[found.dir].checkpoints;
            let high_watermark = high_watermarks.get(&found.partition).copied().unwrap_or(0);
            (high_watermark, first_dirty.get(&found.partition).copied())
        };
        let disk = Arc::clone(self.log_dirs.disk());
        let start = LogStart {
            recovery_point: found.recovery_point,
            settled: found.settled,
            log_start: found.log_start,
            clean: found.clean,
            now_ms: now_ms(),
        };
        let config = self.log_config(&topic.config.load());
        let flush_messages = config.flush_messages;
        let checked = self.progress.checked_bytes();
        let (mut log, recovery) = Log::open_counted(disk, &found.path, config, start, checked)?;
        log.restore_first_dirty(first_dirty);
        // After a crash, nearly every log has some bytes to check; these are not all logged.
        if recovery.scanned_bytes >= TOLD_BYTES || recovery.cut_bytes > 0 {
            info!(partition = %found.partition, ?recovery, "log recovered");
        }
        log_open_transactions(&found.partition, &log);
        // With `flush.messages`, acknowledged records are durable. Recovered records can now be
        // read by consumers, or acknowledged when the producer repeats them, so they must be
        // durable, too.
        if log.log_end() - log.recovery_point() >= flush_messages {
            log.flush()?;
        }
        Ok((log, high_watermark))
    }

    /// Creates a log in the directory that AlterReplicaLogDirs asked for, or that metadata names,
    /// or that has the fewest partitions. If the disk fails, its directory goes offline, and the
    /// next directory is tried.
    fn create_log(
        self: &Arc<Self>,
        topic: &Topic,
        name: &TopicPartition,
        directory: Option<Uuid>,
    ) -> Result<Log, LogError> {
        let start = LogStart::of_new(now_ms());
        let wanted = self.moves.take_wanted(name);
        let is_wanted = |dir: &LogDir| match &wanted {
            Some(wanted) => dir.path == *wanted,
            None => directory == Some(dir.id),
        };
        loop {
            let cordoned = &self.node.settings().cordoned_log_dirs;
            let place = self.lock_dirs().place(name, is_wanted, cordoned);
            let mut place = place.ok_or(LogError::NoDirectory)?;
            let config = self.log_config(&topic.config.load());
            let created = self.log_dirs.create(&mut place, topic.id);
            let open = |()| Log::open(Arc::clone(&place.disk), &place.path, config, start);
            match created.and_then(open) {
                Ok((log, _)) => return Ok(log),
                Err(error) => {
                    self.log_dirs.discard(&place);
                    if !error.is_disk_failure() {
                        return Err(error);
                    }
                    error!(partition = %name, %error, "cannot create the partition's log");
                    self.fail_dir(&place.dir_path);
                }
            }
        }
    }

    pub fn lock_dirs(&self) -> MutexGuard<'_, LogDirs> {
        self.log_dirs.lock()
    }

    fn log_config(&self, config: &TopicConfig) -> Arc<LogConfig> {
        let settings = self.node.settings();
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
            min_cleanable_dirty_ratio: config.min_cleanable_dirty_ratio,
            min_compaction_lag_ms: config.min_compaction_lag_ms,
            max_compaction_lag_ms: config.max_compaction_lag_ms,
            delete_retention_ms: config.delete_retention_ms,
            file_delete_delay_ms: config.file_delete_delay_ms,
            producer_id_expiration_ms: i64::from(settings.producer_id_expiration_ms),
            requires_first_sequence_zero: settings.unstable_api_versions_enable,
            timestamp_type: match config.message_timestamp_type {
                config::TimestampType::CreateTime => TimestampType::CreateTime,
                config::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
            },
            flush_messages: config.flush_messages,
            flush_ms: config.flush_ms,
        })
    }

    /// Handles a failed operation on a partition's log. If the disk has failed, its log directory
    /// goes offline with all partitions in it. If the disk is full, the directory also goes offline
    /// if the partition has other replicas. Other failures do not affect other partitions.
    pub fn on_log_error(self: &Arc<Self>, partition: &Partition, error: &LogError) {
        if error.is_disk_failure() || self.may_warn() {
            error!(partition = %partition.id, %error, "the log failed");
        }
        if error.is_disk_failure() || error.is_refusal() && self.is_replicated(partition) {
            let dir = self.dir_of_error(error);
            self.fail_dir(&dir.unwrap_or_else(|| partition.log_dir().to_path_buf()));
        } else if partition.view().role == Role::Offline {
            self.report_directories();
        }
    }

    /// The log directory of the path in an error. The replica may have moved to another one since.
    fn dir_of_error(&self, error: &LogError) -> Option<PathBuf> {
        let (LogError::Io { path, .. } | LogError::Failed { dir: path }) = error else {
            return None;
        };
        let dirs = self.lock_dirs();
        let above = dirs.dirs().iter().filter(|dir| path.starts_with(&dir.path));
        above.map(|dir| dir.path.clone()).max_by_key(|dir| dir.as_os_str().len())
    }

    /// Whether the partition has other replicas. If the disk is full, one of them can lead, so the
    /// log directory goes offline, as in Kafka. A partition without other replicas waits for space.
    fn is_replicated(&self, partition: &Partition) -> bool {
        let image = self.node.metadata();
        let state = image.partition(&partition.id.topic, partition.id.partition);
        state.is_some_and(|state| state.replicas.len() > 1)
    }

    /// Whether a transient log failure may be logged now: once per second for all logs, because a
    /// full disk rejects every batch.
    pub(super) fn may_warn(&self) -> bool {
        let now = now_ms();
        let last = self.last_warned_ms.load(Ordering::Relaxed);
        let may = now.saturating_sub(last) >= 1000;
        if may {
            self.last_warned_ms.store(now, Ordering::Relaxed);
        }
        may
    }

    /// Whether metadata says that this broker's replica is in a log directory that is online.
    fn lies_here(&self, partition: &PartitionImage) -> bool {
        let directory = partition.directory_of(self.node.id);
        let dirs = self.lock_dirs();
        dirs.dirs().iter().any(|dir| !dir.is_offline() && directory == Some(dir.id))
    }

    /// Whether any log directory is offline.
    pub(super) fn any_offline(&self) -> bool {
        let dirs = self.lock_dirs();
        dirs.dirs().iter().any(LogDir::is_offline)
    }

    fn is_offline(&self, path: &Path) -> bool {
        let dirs = self.lock_dirs();
        dirs.dirs().iter().any(|dir| dir.path == path && dir.is_offline())
    }

    /// Takes a log directory offline, with its replicas, their coordinator shards, and the copies
    /// in it. Reports it to the controller. If it was the last one, the process stops.
    pub(super) fn fail_dir(self: &Arc<Self>, path: &Path) {
        let mut dirs = self.lock_dirs();
        let index = dirs.dirs().iter().position(|dir| dir.path == path && !dir.is_offline());
        let Some(index) = index else { return };
        dirs.mark_offline(index);
        let is_last = dirs.dirs().iter().all(LogDir::is_offline);
        drop(dirs);
        error!(path = %path.display(), "log directory failed, taking it offline");
        for partition in self.partitions.partitions() {
            if *partition.log_dir() == path {
                partition.fail();
                self.coordinators.resign(&partition.id);
            } else if partition.future_view().is_some_and(|future| future.log_dir == path) {
                // Ends the move. The files of the copy stay in the offline directory.
                drop(partition.take_future());
            }
        }
        self.report_directories();
        if is_last {
            self.all_dirs_failed.send_replace(true);
        }
    }

    /// Replaces a checkpoint file in all log directories. `value` returns the offset of a replica
    /// or copy, if it has an entry. Directories of partitions that are not open keep the entry that
    /// they had at the start (`before`). Returns the log directories whose file was not replaced.
    pub(super) fn write_checkpoint(
        self: &Arc<Self>,
        name: &str,
        before: impl Fn(&Checkpoints) -> &Offsets,
        value: impl Fn(&View, &LogView) -> Option<i64>,
    ) -> HashSet<PathBuf> {
        // The offsets are read with this lock held, so that no older ones overwrite them. The log
        // directories are not locked while files are written, because a disk may be slow.
        let _turn = self.checkpointing.lock();
        let mut by_dir: HashMap<PathBuf, Offsets> = HashMap::new();
        let mut served = HashSet::new();
        for partition in self.partitions.partitions() {
            let view = partition.view();
            let mut enter = |dir: &Path, log: &LogView| {
                let offsets = by_dir.entry(dir.to_owned()).or_default();
                offsets.extend(value(&view, log).map(|value| (partition.id.clone(), value)));
            };
            enter(&partition.log_dir(), &view.log);
            if let Some(future) = partition.future_view() {
                enter(&future.log_dir, &future.log);
            }
            served.insert(partition.id.clone());
        }
        let (mut unwritten, mut to_write) = (HashSet::new(), Vec::new());
        {
            let dirs = self.lock_dirs();
            for (index, dir) in dirs.dirs().iter().enumerate() {
                if dir.is_offline() {
                    unwritten.insert(dir.path.clone());
                } else if let Some(file) = dirs.checkpoint_file(index, name) {
                    let known = before(&dir.checkpoints).iter();
                    let others = known.filter(|(partition, _)| !served.contains(*partition));
                    let others: Offsets =
                        others.map(|(it, offset)| (it.clone(), *offset)).collect();
                    to_write.push((dir.path.clone(), file, others));
                }
            }
        }
        for (dir, file, others) in to_write {
            let mut offsets = by_dir.remove(&dir).unwrap_or_default();
            let is_there = |(it, _): &(TopicPartition, i64)| dir.join(it.to_string()).exists();
            offsets.extend(others.into_iter().filter(is_there));
            if let Err(error) = file.replace(&offsets) {
                error!(%error, "checkpoint not written");
                if error.is_disk_failure() {
                    self.fail_dir(&dir);
                }
                unwritten.insert(dir);
            }
        }
        unwritten
    }

    /// Closes all logs for a clean stop, and writes checkpoints and clean-shutdown markers.
    pub fn close_logs(self: &Arc<Self>) {
        let failed: Mutex<Vec<PathBuf>> = Mutex::default();
        let threads = self.recovery_threads().max(CLOSE_THREADS);
        in_parallel(threads, &self.partitions.partitions(), |partition| {
            let check = |closed: Result<(), LogError>, dir: &Path| {
                if let Err(error) = closed {
                    error!(partition = %partition.id, %error, "not closed, next start recovers it");
                    let mut failed = failed.lock();
                    failed.push(dir.to_owned());
                }
            };
            check(partition.close(), &partition.log_dir());
            if let Some(future) = partition.future_view() {
                check(partition.close_future(), &future.log_dir);
            }
        });
        let failed = failed.into_inner();
        self.write_checkpoints();
        self.write_high_watermarks();
        if !self.unopened().is_empty() {
            // Logs that could not be opened were not recovered, so no directory gets a marker.
            info!("some logs could not be opened, the next start recovers all logs");
            return;
        }
        let epoch = self.node.epoch();
        let clean: Vec<_> = {
            let dirs = self.lock_dirs();
            let online = dirs.dirs().iter().filter(|dir| !dir.is_offline());
            online.map(|dir| dir.path.clone()).filter(|dir| !failed.contains(dir)).collect()
        };
        for dir in clean {
            if let Err(error) = mark_clean(&**self.log_dirs.disk(), &dir, epoch) {
                error!(%error, "the clean shutdown marker is not written");
            }
        }
    }
}

/// Runs `each` on every item, on up to `threads` threads. Returns when all are done. A simulation
/// has only one thread, so that a run can be repeated.
pub fn in_parallel<T: Sync>(threads: usize, items: &[T], each: impl Fn(&T) + Sync) {
    let threads = if is_simulated() { 1 } else { threads };
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            each(item);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(work);
        }
        work();
    });
}

/// Logs the number of open transactions of a log, and the oldest one. Consumers with
/// `read_committed` wait at it until its coordinator ends it.
fn log_open_transactions(partition: &TopicPartition, log: &Log) {
    let mut open = log.open_transactions();
    let transactions = open.len();
    if let Some((first_offset, producer_id)) = open.next() {
        info!(
            %partition,
            transactions,
            producer_id,
            first_offset,
            "open transaction holds the last stable offset until its coordinator ends it"
        );
    }
}
