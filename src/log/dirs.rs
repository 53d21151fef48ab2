//! The broker's log directories: the node and cluster that they belong to, the partitions in them,
//! and their checkpoints.
//!
//! A directory that fails goes offline with its partitions. The others continue.

mod checkpoint_file;
mod created_paths;
mod moves;
mod ownership;
mod shared;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use checkpoint_file::CheckpointFile;
use checkpoint_file::{read_checkpoint, read_settled, run_of, settled_name};
pub use ownership::{Owner, metadata_log};
pub use shared::SharedLogDirs;
use uuid::Uuid;

use self::{
    created_paths::CreatedPaths,
    ownership::{check_metadata_location, check_owner, directory_id},
};
use super::{
    LogError,
    checkpoint::{self, Offsets},
    disk::{DirEntry, DirLock, Disk, FileDurability, read_file, replace_file, write_file},
    error::During,
    names,
    properties::{
        CleanShutdown, MetaProperties, decode_partition_metadata, encode_partition_metadata,
    },
};
use crate::base::{BrokerId, METADATA_TOPIC, TopicId, TopicPartition, environment::new_uuid};

/// Why log directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirsError {
    #[error("no log directory is configured")]
    None,
    #[error("log directory {} is listed twice", .0.display())]
    Twice(PathBuf),
    #[error("log directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    #[error("log directory {} belongs to node {found}, but node.id is {configured}", path.display())]
    OtherNode { path: PathBuf, found: BrokerId, configured: BrokerId },
    #[error("log directory {} belongs to cluster {found}, not to {expected}", path.display())]
    OtherCluster { path: PathBuf, found: String, expected: String },
    #[error("log directories {} and {} have the same directory.id", first.display(), second.display())]
    SameId { first: PathBuf, second: PathBuf },
    #[error(
        "{} is outside of the metadata log directory {}: check metadata.log.dir",
        path.display(),
        metadata_dir.display()
    )]
    MetadataElsewhere { path: PathBuf, metadata_dir: PathBuf },
    #[error("no log directory can be used: {0}")]
    AllFailed(#[source] LogError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The directory of a partition that a start has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredLog {
    pub partition: TopicPartition,
    /// Index of its log directory.
    pub dir: usize,
    pub path: PathBuf,
    /// Whether it is a future replica.
    pub is_future: bool,
    /// Offsets from the checkpoints.
    pub recovery_point: i64,
    pub settled: i64,
    pub log_start: Option<i64>,
    /// Whether the last stop marked the log directory as clean.
    pub clean: bool,
}

impl DiscoveredLog {
    /// Path of the log directory that the partition is in.
    pub fn dir_path(&self) -> PathBuf {
        self.path.parent().map(Path::to_owned).unwrap_or_default()
    }
}

/// The offsets in the checkpoints of a log directory.
#[derive(Debug, Clone, Default)]
pub struct Checkpoints {
    pub recovery_points: Offsets,
    /// Settled offsets, only of this run of the machine and this mount of the file system; see
    /// [`super::Log::settle`].
    pub settled: Offsets,
    /// Has entries only of logs that start after the base offset of their first segment.
    pub log_starts: Offsets,
    pub high_watermarks: Offsets,
    /// First dirty offsets of compacted logs.
    pub first_dirty: Offsets,
}

/// One log directory.
#[derive(Debug)]
pub struct LogDir {
    pub path: PathBuf,
    pub id: Uuid,
    /// The marker of the last clean stop; `None` after any other stop.
    pub clean_shutdown: Option<CleanShutdown>,
    pub checkpoints: Checkpoints,
    /// Identifies the run of the machine and the mount of the file system, if both are known.
    run: Option<String>,
    offline: bool,
    partitions: usize,
    /// Directories of deleted partitions that are still to be removed.
    to_remove: Vec<PathBuf>,
    _lock: Option<Box<dyn DirLock>>,
}

impl LogDir {
    pub fn is_offline(&self) -> bool {
        self.offline
    }
}

/// All log directories.
#[derive(Debug)]
pub struct LogDirs {
    disk: Arc<dyn Disk>,
    dirs: Vec<LogDir>,
    cluster_id: String,
    metadata_dir_id: Uuid,
    /// Lock of the metadata log's directory, if that is none of `dirs`.
    _metadata_lock: Option<Box<dyn DirLock>>,
}

impl LogDirs {
    /// Opens and locks all directories. Creates missing ones, and writes a `meta.properties` with
    /// an id from `new_id` where there is none.
    ///
    /// A directory that cannot be read or written is offline from the start. It is an error if all
    /// directories fail, if the one with the metadata log fails, if one belongs to another node or
    /// cluster or is in use by another process, or if another one than `metadata_dir` has a
    /// metadata log. After an error, everything that was created is removed.
    ///
    /// The clean shutdown markers are removed, so that a crash from here on is noticed.
    pub fn open(
        disk: Arc<dyn Disk>,
        paths: &[PathBuf],
        metadata_dir: &Path,
        owner: &Owner,
        mut new_id: impl FnMut() -> Uuid,
    ) -> Result<Self, DirsError> {
        for (index, path) in paths.iter().enumerate() {
            if paths[..index].contains(path) {
                return Err(DirsError::Twice(path.clone()));
            }
        }
        let mut created = CreatedPaths::default();
        let opened = Self::open_all(&disk, paths, metadata_dir, owner, &mut new_id, &mut created);
        opened.inspect_err(|_| created.remove_all(&*disk))
    }

    fn open_all(
        disk: &Arc<dyn Disk>,
        paths: &[PathBuf],
        metadata_dir: &Path,
        owner: &Owner,
        new_id: &mut dyn FnMut() -> Uuid,
        created: &mut CreatedPaths,
    ) -> Result<Self, DirsError> {
        let mut opened = Vec::with_capacity(paths.len());
        let mut failure = None;
        for path in paths {
            match prepare(&**disk, path, created) {
                Ok(prepared) => opened.push(Some(prepared)),
                Err(DirsError::Log(error)) => {
                    tracing::error!(
                        path = %path.display(), %error,
                        "log directory failed, taking it offline"
                    );
                    let has_metadata = path == metadata_dir;
                    if has_metadata || failure.is_none() {
                        failure = Some((has_metadata, error));
                    }
                    opened.push(None);
                }
                Err(error) => return Err(error),
            }
        }
        match failure {
            _ if opened.is_empty() => return Err(DirsError::None),
            Some((_, error)) if opened.iter().all(Option::is_none) => {
                return Err(DirsError::AllFailed(error));
            }
            // A broker cannot run without its metadata log.
            Some((true, error)) => return Err(error.into()),
            Some((false, _)) | None => {}
        }
        let metadata = match paths.iter().any(|path| path == metadata_dir) {
            true => None,
            false => Some(prepare(&**disk, metadata_dir, created)?),
        };
        let all = paths.iter().zip(&opened).map(|(path, it)| (path.as_path(), it.as_ref()));
        let all = all.chain([(metadata_dir, metadata.as_ref())]);
        let all = all.filter_map(|(path, it)| Some((path, it?.meta.as_ref()?)));
        let cluster_id = check_owner(all, owner)?;
        check_metadata_location(&**disk, paths, metadata_dir)?;
        let owner = (owner, &*cluster_id);
        let id_of = |it: &Prepared| {
            directory_id(&**disk, metadata_dir, it.meta.as_ref(), owner, &mut *new_id)
        };
        let separate_id = metadata.as_ref().map(id_of).transpose()?;
        let mut dirs = Vec::with_capacity(paths.len());
        for (path, prepared) in paths.iter().zip(opened) {
            let dir = match prepared {
                Some(prepared) => load_dir(&**disk, path, prepared, owner, new_id)?,
                None => LogDir::offline(path),
            };
            dirs.push(dir);
        }
        let shared_id = dirs.iter().find(|dir| dir.path == metadata_dir).map(|dir| dir.id);
        Ok(Self {
            disk: Arc::clone(disk),
            dirs,
            metadata_dir_id: separate_id.or(shared_id).unwrap_or_default(),
            cluster_id,
            _metadata_lock: metadata.map(|prepared| prepared.lock),
        })
    }

    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The id of the directory with the metadata log. Voters are known by it (KIP-853).
    pub fn metadata_dir_id(&self) -> Uuid {
        self.metadata_dir_id
    }

    pub fn dirs(&self) -> &[LogDir] {
        &self.dirs
    }

    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The index of the log directory that `path` is in.
    pub fn dir_of(&self, path: &Path) -> Option<usize> {
        self.dirs.iter().position(|dir| Some(dir.path.as_path()) == path.parent())
    }

    /// Takes a log directory out of use after an I/O error.
    pub fn mark_offline(&mut self, dir: usize) {
        self.dirs[dir].offline = true;
    }

    /// The index of the online directory with the fewest partitions; the first of several. A
    /// cordoned directory is returned only if all online ones are cordoned.
    pub fn pick(&self, cordoned: &[PathBuf]) -> Option<usize> {
        let online = self.dirs.iter().enumerate().filter(|(_, dir)| !dir.offline);
        let load = |dir: &LogDir| (cordoned.contains(&dir.path), dir.partitions);
        online.min_by_key(|(_, dir)| load(dir)).map(|(index, _)| index)
    }

    /// Lists the partitions in all online directories. The directories of deleted partitions go to
    /// [`Self::take_leftovers`].
    pub fn list(&mut self) -> Vec<DiscoveredLog> {
        let mut found = Vec::new();
        for index in 0..self.dirs.len() {
            if self.dirs[index].offline {
                continue;
            }
            match self.list_dir(index) {
                Ok(mut partitions) => {
                    self.dirs[index].partitions = partitions.len();
                    found.append(&mut partitions);
                }
                Err(error) => {
                    let path = self.dirs[index].path.display();
                    tracing::error!(%path, %error, "log directory failed, taking it offline");
                    self.dirs[index].offline = true;
                }
            }
        }
        found
    }

    fn list_dir(&mut self, index: usize) -> Result<Vec<DiscoveredLog>, LogError> {
        let dir = &mut self.dirs[index];
        let mut found = Vec::new();
        for entry in self.disk.list(&dir.path).during("list", &dir.path)? {
            let path = dir.path.join(&entry.name);
            if entry.is_dir && names::is_delete_dir(&entry.name) {
                dir.to_remove.push(path);
            } else if let Some((partition, is_future)) = partition_of(&entry) {
                found.push(DiscoveredLog {
                    is_future,
                    recovery_point: *dir.checkpoints.recovery_points.get(&partition).unwrap_or(&0),
                    settled: *dir.checkpoints.settled.get(&partition).unwrap_or(&0),
                    log_start: dir.checkpoints.log_starts.get(&partition).copied(),
                    clean: dir.clean_shutdown.is_some(),
                    dir: index,
                    partition,
                    path,
                });
            }
        }
        Ok(found)
    }

    /// Returns the directories of deleted partitions that [`Self::list`] has found. The caller
    /// removes them later.
    pub fn take_leftovers(&mut self) -> Vec<DeletedPartition> {
        let disk = &self.disk;
        let dirs = self.dirs.iter_mut();
        dirs.flat_map(|dir| std::mem::take(&mut dir.to_remove))
            .map(|path| DeletedPartition { disk: disk.clone(), path })
            .collect()
    }

    /// Picks the log directory of a new partition: a wanted one if it is online, else that of
    /// [`Self::pick`]. From now on, the partition counts as one of its partitions. `None` if no
    /// directory is online.
    pub fn place(
        &mut self,
        partition: &TopicPartition,
        wanted: impl Fn(&LogDir) -> bool,
        cordoned: &[PathBuf],
    ) -> Option<NewPlace> {
        let wanted = self.dirs.iter().position(|dir| !dir.offline && wanted(dir));
        let dir = wanted.or_else(|| self.pick(cordoned))?;
        Some(self.place_at(dir, partition, partition.to_string()))
    }

    fn place_at(&mut self, dir: usize, partition: &TopicPartition, name: String) -> NewPlace {
        self.dirs[dir].partitions += 1;
        let dir_path = self.dirs[dir].path.clone();
        let path = dir_path.join(name);
        let (disk, partition) = (self.disk.clone(), partition.clone());
        NewPlace { disk, partition, dir_path, path, is_created: false }
    }

    /// Stops counting a partition whose directory has left its log directory.
    fn uncount_partition(&mut self, path: &Path) {
        if let Some(dir) = self.dir_of(path) {
            self.dirs[dir].partitions = self.dirs[dir].partitions.saturating_sub(1);
        }
    }

    /// Returns a checkpoint file, with a name from [`checkpoint`]. The caller writes it without a
    /// lock on the directories, because the disk may take long. `None` for settled offsets if the
    /// run of the machine or the mount is unknown: they hold only until the machine restarts or the
    /// file system is mounted again.
    pub fn checkpoint_file(&self, dir: usize, name: &str) -> Option<CheckpointFile> {
        let LogDir { path: dir, run, .. } = &self.dirs[dir];
        let (path, durability) = match (name, run) {
            (checkpoint::SETTLED, None) => return None,
            (checkpoint::SETTLED, Some(run)) => {
                (dir.join(settled_name(run)), FileDurability::PageCache)
            }
            _ => (dir.join(name), FileDurability::Synced),
        };
        let is_hint = name == checkpoint::SETTLED;
        Some(CheckpointFile { disk: self.disk.clone(), path, durability, is_hint })
    }
}

/// Writes the marker of a clean stop into a log directory. The caller has closed all its logs and
/// written its checkpoints.
pub fn mark_clean(disk: &dyn Disk, dir: &Path, broker_epoch: i64) -> Result<(), LogError> {
    let path = dir.join(names::CLEAN_SHUTDOWN);
    let text = CleanShutdown::new(broker_epoch).encode();
    let written = replace_file(disk, &path, text.as_bytes(), FileDurability::Synced);
    written.during("write", &path)
}

impl LogDir {
    fn offline(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            id: Uuid::nil(),
            clean_shutdown: None,
            checkpoints: Checkpoints::default(),
            run: None,
            offline: true,
            partitions: 0,
            to_remove: Vec::new(),
            _lock: None,
        }
    }
}

fn rename_to_stray(
    disk: &dyn Disk,
    path: &Path,
    partition: &TopicPartition,
) -> Result<PathBuf, LogError> {
    let aside = path.with_file_name(names::stray_dir(partition, new_uuid()));
    disk.rename(path, &aside).during("rename", path)?;
    Ok(aside)
}

/// The place of a new partition. Creating the partition there needs no lock on the directories, so
/// that many can be created at once.
#[derive(Debug)]
pub struct NewPlace {
    pub disk: Arc<dyn Disk>,
    partition: TopicPartition,
    /// The path of its log directory.
    pub dir_path: PathBuf,
    pub path: PathBuf,
    /// Whether [`Self::create`] created the directory. An existing directory can hold records.
    is_created: bool,
}

impl NewPlace {
    /// Creates the partition's directory with its `partition.metadata`. If there is a directory of
    /// another topic with the same name, renames that first.
    pub fn create(&mut self, topic_id: TopicId) -> Result<(), LogError> {
        let Self { disk, partition, path, is_created, .. } = self;
        if read_topic_id(&**disk, path)?.is_some_and(|id| id != topic_id) {
            rename_to_stray(&**disk, path, partition)?;
        }
        // A missing log directory is not created again: its disk has failed.
        *is_created = disk.create_dir(path).during("create", path)?;
        write_topic_id(&**disk, path, topic_id)
    }
}

/// The renamed directory of a deleted partition.
#[derive(Debug)]
pub struct DeletedPartition {
    disk: Arc<dyn Disk>,
    pub path: PathBuf,
}

impl DeletedPartition {
    pub fn remove(self) -> Result<(), LogError> {
        match self.disk.remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.during("remove", &self.path),
        }
    }
}

/// The partition of a directory, and whether it is a future replica.
fn partition_of(entry: &DirEntry) -> Option<(TopicPartition, bool)> {
    let whole = names::parse_partition_dir(&entry.name).map(|partition| (partition, false));
    let found = whole.or_else(|| Some((names::parse_future_dir(&entry.name)?, true)));
    // The metadata log is not listed among the partitions.
    found.filter(|(partition, _)| entry.is_dir && &*partition.topic != METADATA_TOPIC)
}

/// Reads a small file; `None` if it does not exist.
fn read_if_there(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, LogError> {
    match read_file(disk, path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).during("read", path),
    }
}

/// Reads the topic id of a partition's directory; `None` if the file is missing or damaged.
pub fn read_topic_id(disk: &dyn Disk, dir: &Path) -> Result<Option<TopicId>, LogError> {
    let path = dir.join(names::PARTITION_METADATA);
    let Some(bytes) = read_if_there(disk, &path)? else { return Ok(None) };
    match decode_partition_metadata(&bytes) {
        Ok(id) => Ok(Some(id)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "partition.metadata is damaged");
            Ok(None)
        }
    }
}

/// Writes a partition's `partition.metadata`. It is not synced, because the metadata log has the
/// id, too.
pub fn write_topic_id(disk: &dyn Disk, dir: &Path, topic_id: TopicId) -> Result<(), LogError> {
    let path = dir.join(names::PARTITION_METADATA);
    let text = encode_partition_metadata(topic_id);
    write_file(disk, &path, text.as_bytes()).during("write", &path)
}

/// A directory that is locked and readable.
struct Prepared {
    lock: Box<dyn DirLock>,
    meta: Option<MetaProperties>,
}

fn prepare(
    disk: &dyn Disk,
    path: &Path,
    created: &mut CreatedPaths,
) -> Result<Prepared, DirsError> {
    created.before_create_dir(disk, path);
    let is_new = disk.list(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    disk.create_dir_all(path).during("create", path)?;
    if let (true, Some(above)) = (is_new, path.parent().filter(|it| !it.as_os_str().is_empty())) {
        disk.sync_dir(above).during("sync", above)?;
    }
    let lock_path = path.join(names::LOCK);
    created.before_create_file(disk, lock_path.clone());
    let lock = match disk.lock(&lock_path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            // The other process may have just created the directory.
            created.forget_dir(path);
            return Err(DirsError::InUse(path.to_owned()));
        }
        Err(error) => return Err(error).during("lock", &lock_path)?,
    };
    let meta_path = path.join(names::META_PROPERTIES);
    created.before_create_file(disk, meta_path.clone());
    let meta = match read_if_there(disk, &meta_path)? {
        Some(bytes) => Some(MetaProperties::decode(&bytes).during("read", &meta_path)?),
        None => None,
    };
    Ok(Prepared { lock, meta })
}

/// Writes a missing `meta.properties`, reads the checkpoints, and removes the clean shutdown marker.
fn load_dir(
    disk: &dyn Disk,
    path: &Path,
    prepared: Prepared,
    owner: (&Owner, &str),
    new_id: &mut dyn FnMut() -> Uuid,
) -> Result<LogDir, DirsError> {
    let id = directory_id(disk, path, prepared.meta.as_ref(), owner, new_id)?;
    let clean_path = path.join(names::CLEAN_SHUTDOWN);
    let clean = read_if_there(disk, &clean_path)?;
    if clean.is_some() {
        disk.remove_file(&clean_path).during("remove", &clean_path)?;
        // Otherwise the marker could be back after a crash of the machine, and torn logs would not
        // be checked.
        disk.sync_dir(path).during("sync", path)?;
    }
    let run = run_of(owner.0.boot_id.as_deref(), disk.mounting(path));
    let checkpoints = Checkpoints {
        recovery_points: read_checkpoint(disk, path, checkpoint::RECOVERY_POINT)?,
        settled: read_settled(disk, path, run.as_deref()).unwrap_or_else(|error| {
            tracing::warn!(%error, "settled offsets not read");
            Offsets::new()
        }),
        log_starts: read_checkpoint(disk, path, checkpoint::LOG_START)?,
        high_watermarks: read_checkpoint(disk, path, checkpoint::REPLICATION)?,
        first_dirty: read_checkpoint(disk, path, checkpoint::CLEANER)?,
    };
    Ok(LogDir {
        path: path.to_owned(),
        id,
        clean_shutdown: clean.map(|bytes| CleanShutdown::decode(&bytes)),
        checkpoints,
        run,
        offline: false,
        partitions: 0,
        to_remove: Vec::new(),
        _lock: Some(prepared.lock),
    })
}
