//! Moves of replicas between the log directories of this broker (KIP-113, KIP-858; Kafka's
//! `ReplicaManager.alterReplicaLogDirs` and `ReplicaAlterLogDirsThread`).
//!
//! Steps of a move:
//! - The replica is copied until the copy has all records and is durable.
//! - The new directory is reported to the controller.
//! - The copy replaces the replica.
//!
//! Metadata therefore always names a directory that has all records, and a start can resolve
//! whatever a crash leaves.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{Replicas, replication::throttle::Throttle};
use crate::{
    base::{
        TopicId, TopicPartition,
        config::BrokerConfig,
        environment::{blocking, new_uuid, now_ms},
    },
    log::{
        Log, LogDirs, LogError, LogStart,
        dirs::{DeletedPartition, LogDir},
    },
    metadata::Image,
    partition::{Copied, CopyError, Partition, PartitionUnavailable, Replaced, Role, Topic},
};

/// The pause of a move that is throttled, has failed, or waits for the controller.
const REST: Duration = Duration::from_millis(200);
/// The largest number of wanted directories that are kept for replicas that are not here. It is
/// limited, because a request may name any partition.
const WANTED_MAX: usize = 100_000;
/// The longest time that a move waits for the controller before it copies new records again.
const AGREED_WITHIN: Duration = Duration::from_secs(1);

/// The moves in progress, and the directories that were requested for future replicas.
pub struct Moves {
    /// Limits how many replicas are copied at the same time.
    turns: Semaphore,
    throttle: Throttle,
    /// The requested log directories of replicas that this broker does not have yet.
    wanted: Mutex<HashMap<TopicPartition, PathBuf>>,
    tasks: Mutex<JoinSet<()>>,
}

/// The reason why a replica cannot move to the requested log directory.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error("the topic's name is too long for the directory name of a copy")]
    NameTooLong,
    #[error("no such log directory is configured")]
    UnknownDir,
    #[error("the log directory is cordoned")]
    Cordoned,
    #[error("a log directory is offline")]
    Offline,
    #[error("this broker has no replica of the partition")]
    ReplicaNotAvailable,
    #[error("there is no such partition")]
    UnknownPartition,
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The next step of a move.
enum Next {
    Copy,
    /// The move has failed or waits for the controller. Other moves go first.
    Rest,
    Nothing,
}

impl Moves {
    pub fn new(settings: &BrokerConfig) -> Self {
        let threads = settings.num_replica_alter_log_dirs_threads;
        let turns = threads.map_or(settings.log_dirs.len(), |threads| threads.max(1) as usize);
        Self {
            turns: Semaphore::new(turns),
            throttle: Throttle::default(),
            wanted: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    fn want(&self, partition: &TopicPartition, dir: PathBuf) {
        let mut wanted = self.wanted();
        if wanted.len() < WANTED_MAX || wanted.contains_key(partition) {
            wanted.insert(partition.clone(), dir);
        }
    }

    /// The requested log directory of a replica that is being created. Forgets the request.
    pub(super) fn take_wanted(&self, partition: &TopicPartition) -> Option<PathBuf> {
        self.wanted().remove(partition)
    }

    fn wanted(&self) -> MutexGuard<'_, HashMap<TopicPartition, PathBuf>> {
        self.wanted.lock()
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock()
    }

    /// Stops all moves. The next start continues them.
    pub(super) fn stop(&self) {
        self.tasks().abort_all();
    }
}

impl Replicas {
    /// Begins to move a replica to another log directory. If this broker has no replica of the
    /// partition, the directory is noted for when it gets one. If `dir` is the replica's current
    /// directory, a move in progress is cancelled.
    ///
    /// # Errors
    /// Also if this broker has no replica yet ([`MoveError::ReplicaNotAvailable`]), although the
    /// request is noted.
    pub fn alter_log_dir(
        self: &Arc<Self>,
        name: &TopicPartition,
        dir: &str,
    ) -> Result<(), MoveError> {
        let _applying = self.applying();
        if !LogDirs::can_move(name) {
            return Err(MoveError::NameTooLong);
        }
        let target = self.online_dir(dir)?;
        if self.node.settings().cordoned_log_dirs.contains(&target) {
            return Err(MoveError::Cordoned);
        }
        let topic = self.partitions.topic(&name.topic);
        let found = topic.as_ref().map(|topic| topic.partition(name.partition));
        let (Some(topic), Some(partition)) = (&topic, self.served(found)?) else {
            self.moves.want(name, target);
            return Err(match self.node.metadata().partition(&name.topic, name.partition) {
                Some(_) => MoveError::ReplicaNotAvailable,
                None => MoveError::UnknownPartition,
            });
        };
        if partition.future_view().is_some_and(|future| future.log_dir != target) {
            self.cancel_move(topic, &partition);
        }
        if *partition.log_dir() == target || partition.future_view().is_some() {
            return Ok(());
        }
        // An offline directory may already contain a copy of this replica.
        if self.any_offline() {
            return Err(MoveError::Offline);
        }
        partition.begin_move(self.create_future(topic, &partition, &target)?);
        info!(partition = %name, to = %target.display(), "replica move started");
        self.move_on(topic.id, &partition);
        Ok(())
    }

    /// The configured log directory with this absolute path.
    ///
    /// # Errors
    /// If there is none, or if it is offline.
    fn online_dir(&self, path: &str) -> Result<PathBuf, MoveError> {
        let dirs = self.lock_dirs();
        // The path must be exactly as in a DescribeLogDirs response.
        let is_it =
            |dir: &&LogDir| std::path::absolute(&dir.path).is_ok_and(|it| it.as_os_str() == path);
        let dir = dirs.dirs().iter().find(is_it).ok_or(MoveError::UnknownDir)?;
        if dir.is_offline() { Err(MoveError::Offline) } else { Ok(dir.path.clone()) }
    }

    fn served(
        &self,
        found: Option<Result<Arc<Partition>, PartitionUnavailable>>,
    ) -> Result<Option<Arc<Partition>>, MoveError> {
        match found {
            Some(Ok(partition)) => match partition.view().role {
                Role::Offline => Err(MoveError::Offline),
                Role::Closed => Ok(None),
                Role::Leader { .. } | Role::Follower { .. } => Ok(Some(partition)),
            },
            Some(Err(PartitionUnavailable::Offline)) => Err(MoveError::Offline),
            Some(Err(PartitionUnavailable::Unknown)) | None => Ok(None),
        }
    }

    fn create_future(
        self: &Arc<Self>,
        topic: &Topic,
        partition: &Partition,
        target: &Path,
    ) -> Result<Log, MoveError> {
        let mut place = {
            let mut dirs = self.lock_dirs();
            let dir = dirs.dirs().iter().position(|dir| dir.path == target);
            let place = dir.and_then(|dir| dirs.place_future(dir, &partition.id, new_uuid()));
            place.ok_or(MoveError::UnknownDir)?
        };
        let config = partition.with_log(|log| Arc::clone(log.config()));
        let start = LogStart::of_new(now_ms());
        let created = self.log_dirs.create(&mut place, topic.id);
        let open = |()| Log::open(Arc::clone(&place.disk), &place.path, config, start);
        let opened = created.and_then(open);
        opened.map(|(log, _)| log).map_err(|error| {
            self.log_dirs.discard(&place);
            error!(partition = %partition.id, %error, "cannot create the copy for a move");
            if error.is_disk_failure() {
                self.fail_dir(target);
            }
            error.into()
        })
    }

    fn cancel_move(self: &Arc<Self>, topic: &Topic, partition: &Partition) {
        let deleted = self.delete_future(partition);
        info!(partition = %partition.id, "move of a replica cancelled");
        let (delay_ms, what) = (topic.config.load().file_delete_delay_ms, &partition.id);
        let removed = deleted.into_iter().collect();
        self.remove_after(delay_ms, format!("copy of {what}"), removed, DeletedPartition::remove);
        // The controller may have recorded the new directory already.
        self.report_directories();
    }

    /// Ends a move and renames the copy's directory. The caller removes the directory later.
    pub(super) fn delete_future(
        self: &Arc<Self>,
        partition: &Partition,
    ) -> Option<DeletedPartition> {
        let future = partition.take_future()?;
        let deleted = self.delete_dir(future.dir(), &partition.id);
        deleted.inspect_err(|error| warn!(%error, "cannot delete a copy's directory")).ok()
    }

    /// Spawns the task that copies the replica and then replaces it with the copy.
    pub(super) fn move_on(self: &Arc<Self>, topic_id: TopicId, partition: &Arc<Partition>) {
        let mut tasks = self.moves.tasks();
        while tasks.try_join_next().is_some() {}
        let (replicas, partition) = (Arc::clone(self), Arc::clone(partition));
        tasks.spawn_on(replicas.run_move(topic_id, partition), &self.node.runtime);
    }

    async fn run_move(self: Arc<Self>, topic_id: TopicId, partition: Arc<Partition>) {
        while let Ok(turn) = self.moves.turns.acquire().await {
            loop {
                let limit =
                    self.node.settings().cluster.replica_alter_log_dirs_io_max_bytes_per_second;
                if self.moves.throttle.is_exceeded(limit, now_ms()) {
                    sleep(REST).await;
                    continue;
                }
                match self.advance_move(topic_id, &partition).await {
                    Next::Copy => {}
                    Next::Rest => break,
                    Next::Nothing => return,
                }
            }
            drop(turn);
            sleep(REST).await;
        }
    }

    async fn advance_move(self: &Arc<Self>, topic_id: TopicId, partition: &Arc<Partition>) -> Next {
        let most = self.node.settings().cluster.replica_fetch_max_bytes.max(1) as usize;
        match self.on_disk(partition, move |_, it| it.copy_to_future(most)).await {
            Ok(Copied::Over) => return Next::Nothing,
            Ok(Copied::Some { bytes, lag }) => {
                self.moves.throttle.note(bytes, now_ms());
                if lag > 0 {
                    return Next::Copy;
                }
            }
            Err(next) => return next,
        }
        let Some(future) = partition.future_view() else { return Next::Nothing };
        if !future.is_ready
            && let Err(next) = self.on_disk(partition, Self::make_ready).await
        {
            return next;
        }
        if !self.is_agreed((topic_id, partition.id.partition), &future.log_dir).await {
            return Next::Rest;
        }
        let replace = move |replicas: &Arc<Self>, it: &Arc<Partition>| {
            it.replace_with_future(most, &replicas.log_dirs, new_uuid())
        };
        match self.on_disk(partition, replace).await {
            Ok(Replaced::Cancelled) => Next::Nothing,
            Ok(Replaced::NotCaughtUp) => Next::Copy,
            Ok(Replaced::RenameNotDurable(error)) => {
                let (replicas, partition) = (Arc::clone(self), Arc::clone(partition));
                let _ = blocking(move || replicas.moved(&partition, Err(error))).await;
                Next::Nothing
            }
            Ok(Replaced::Done(left)) => {
                info!(partition = %partition.id, to = %future.log_dir.display(), "moved");
                let replicas = Arc::clone(self);
                let partition = Arc::clone(partition);
                let _ = blocking(move || replicas.moved(&partition, left)).await;
                Next::Nothing
            }
            Err(next) => next,
        }
    }

    /// Makes the copy durable and writes the checkpoints. Their entries for the copy must be
    /// correct before it replaces the replica.
    fn make_ready(self: &Arc<Self>, partition: &Arc<Partition>) -> Result<(), CopyError> {
        partition.ready_future()?;
        self.write_checkpoints();
        self.write_settled();
        self.write_high_watermarks();
        Ok(())
    }

    /// Cleans up after a move: writes the checkpoints, so that no old entry applies to a later copy
    /// in the former directory, and removes that directory.
    fn moved(self: &Arc<Self>, partition: &Partition, left: Result<DeletedPartition, LogError>) {
        self.write_checkpoints();
        self.write_settled();
        self.write_high_watermarks();
        match left {
            Ok(left) => {
                let delay_ms = partition.with_log(|log| log.config().file_delete_delay_ms);
                let what = format!("former directory of {}", partition.id);
                self.remove_after(delay_ms, what, vec![left], DeletedPartition::remove);
            }
            Err(error) => self.on_log_error(partition, &error),
        }
        // If the move was cancelled and restarted, metadata may name another directory.
        self.report_directories();
    }

    /// Reports the new directory to the controller, and waits up to [`AGREED_WITHIN`] until
    /// metadata has it. Returns whether it does.
    async fn is_agreed(self: &Arc<Self>, (topic_id, index): (TopicId, i32), dir: &Path) -> bool {
        let id = self.lock_dirs().dirs().iter().find(|it| it.path == dir).map(|it| it.id);
        let Some(id) = id else { return false };
        let shows = |image: &Image| self.directory_of(image, topic_id, index) == Some(id);
        let told = async {
            tokio::select! {
                biased;
                () = self.node.metadata_shows(shows) => {}
                () = self.tell_directories() => {}
            }
        };
        let _ = timeout(AGREED_WITHIN, told).await;
        shows(&self.node.metadata())
    }

    fn directory_of(&self, image: &Image, topic_id: TopicId, index: i32) -> Option<Uuid> {
        let topic = image.topic_by_id(topic_id)?;
        topic.partitions.get(index as usize)?.directory_of(self.node.id)
    }

    /// Runs a step of a move on a blocking thread. If the step fails, handles the failure and
    /// returns the next step.
    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        step: impl FnOnce(&Arc<Self>, &Arc<Partition>) -> Result<T, CopyError> + Send + 'static,
    ) -> Result<T, Next> {
        let (replicas, moving) = (Arc::clone(self), Arc::clone(partition));
        let seen = partition.view();
        let worked = blocking(move || step(&replicas, &moving)).await;
        let error = match worked {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(_) => return Err(Next::Nothing),
        };
        if self.may_warn() {
            error!(partition = %partition.id, %error, "move of a replica failed, will be retried");
        }
        match error {
            CopyError::Read(error) => {
                partition.read_failed(&seen, error);
            }
            CopyError::Write(error) if error.is_disk_failure() => {
                if let Some(future) = partition.future_view() {
                    self.fail_dir(&future.log_dir);
                }
            }
            // For example a full disk, which may have space later.
            CopyError::Write(_) => {}
        }
        Err(Next::Rest)
    }
}
