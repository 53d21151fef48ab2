//! The log directories of a running broker. Renames and removals of partition directories take as
//! long as the disk does, while request workers and probes need the lock of [`LogDirs`]. So no
//! operation on a file runs while that lock is held.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::{DeletedPartition, Disk, During, LogDirs, LogError, NewPlace, names, rename_to_stray};
use crate::base::{TopicId, TopicPartition};

/// The log directories behind a lock, and the operations that run without the lock.
#[derive(Debug)]
pub struct SharedLogDirs {
    disk: Arc<dyn Disk>,
    dirs: Mutex<LogDirs>,
    /// Log directories with a running operation, each with the time at which it began.
    running_operations: Mutex<Vec<(PathBuf, Instant)>>,
}

impl SharedLogDirs {
    pub fn new(dirs: LogDirs) -> Self {
        let disk = Arc::clone(&dirs.disk);
        Self { disk, dirs: Mutex::new(dirs), running_operations: Mutex::default() }
    }

    /// Locks the state of the log directories. The caller must not wait for a disk while it holds
    /// the lock.
    pub fn lock(&self) -> MutexGuard<'_, LogDirs> {
        self.dirs.lock()
    }

    /// Locks the state of the log directories if the lock is free.
    #[cfg(test)]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, LogDirs>> {
        self.dirs.try_lock()
    }

    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Renames the directory of a partition to a stray one, as Kafka does with partitions that
    /// metadata does not have. Returns the new path.
    pub fn rename_to_stray(
        &self,
        path: &Path,
        partition: &TopicPartition,
    ) -> Result<PathBuf, LogError> {
        self.watched(path, || rename_to_stray(&*self.disk, path, partition))
    }

    /// Gives a future replica the directory name of its partition, and returns the new path. The
    /// name is durable after [`Self::sync_above`].
    pub fn promote(&self, future: &Path, partition: &TopicPartition) -> Result<PathBuf, LogError> {
        let path = future.with_file_name(partition.to_string());
        self.rename(future, &path)?;
        Ok(path)
    }

    /// Renames the directory of a partition, so that its name is free at once. The caller removes
    /// the directory once readers have had time to finish.
    pub fn delete_partition(
        &self,
        from: &Path,
        partition: &TopicPartition,
        unique: Uuid,
    ) -> Result<DeletedPartition, LogError> {
        let path = from.with_file_name(names::delete_dir(partition, unique));
        self.rename(from, &path)?;
        self.lock().uncount_partition(from);
        Ok(DeletedPartition { disk: Arc::clone(&self.disk), path })
    }

    /// Syncs the directory above `path`, which makes the name of `path` durable.
    pub fn sync_above(&self, path: &Path) -> Result<(), LogError> {
        let above = path.parent().unwrap_or(path);
        self.watched(path, || self.disk.sync_dir(above)).during("sync", above)
    }

    /// As [`NewPlace::create`].
    pub fn create(&self, place: &mut NewPlace, topic_id: TopicId) -> Result<(), LogError> {
        let path = place.path.clone();
        self.watched(&path, || place.create(topic_id))
    }

    /// Removes the directory that a failed creation has made. If the directory was there before, it
    /// stays, because it can hold a former topic's records.
    pub fn discard(&self, place: &NewPlace) {
        // If the removal fails, the next creation empties the directory or renames it to a stray
        // one.
        let remove = || self.disk.remove_dir_all(&place.path);
        if !place.is_created || self.watched(&place.path, remove).is_ok() {
            self.lock().uncount_partition(&place.path);
        }
    }

    /// Log directories with a watched operation that has run for `time` or longer, each once.
    pub fn hung_for(&self, time: Duration) -> Vec<PathBuf> {
        let running_operations = self.running_operations.lock();
        let hung = running_operations.iter().filter(|(_, began)| began.elapsed() >= time);
        let mut hung: Vec<_> = hung.map(|(dir, _)| dir.clone()).collect();
        hung.sort_unstable();
        hung.dedup();
        hung
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), LogError> {
        self.watched(from, || self.disk.rename(from, to)).during("rename", from)
    }

    /// Runs an operation on a partition's directory. [`Self::hung_for`] counts it until it ends, so
    /// it must be one that a working disk ends soon.
    fn watched<T>(&self, path: &Path, operation: impl FnOnce() -> T) -> T {
        let entry = (path.parent().unwrap_or(path).to_owned(), Instant::now());
        self.running_operations.lock().push(entry.clone());
        let result = operation();
        let mut running_operations = self.running_operations.lock();
        if let Some(index) = running_operations.iter().position(|it| *it == entry) {
            running_operations.swap_remove(index);
        }
        result
    }
}
