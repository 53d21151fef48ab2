//! The log directories while a broker runs. Renames and removals of partition directories take as
//! long as their volume likes, and request workers and probes take the lock of [`LogDirs`]. So no
//! operation on a file runs while that lock is held.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::{DeletedPartition, Disk, During, LogDirs, LogError, NewPlace, names, put_aside};
use crate::base::TopicPartition;

#[derive(Debug)]
pub struct SharedLogDirs {
    disk: Arc<dyn Disk>,
    dirs: Mutex<LogDirs>,
    /// Log directories with an operation under way, each with the time at which that began.
    under_way: Mutex<Vec<(PathBuf, i64)>>,
}

impl SharedLogDirs {
    pub fn new(dirs: LogDirs) -> Self {
        let disk = Arc::clone(&dirs.disk);
        Self { disk, dirs: Mutex::new(dirs), under_way: Mutex::default() }
    }

    /// Locks what is known of the directories. The caller must not wait for a disk meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, LogDirs> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same if it is free.
    #[cfg(test)]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, LogDirs>> {
        self.dirs.try_lock().ok()
    }

    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Renames a partition's directory as Kafka does with that of an unknown topic, and returns its
    /// new path.
    pub fn put_aside(&self, path: &Path, now_ms: i64) -> Result<PathBuf, LogError> {
        self.run(path, now_ms, || put_aside(&*self.disk, path))
    }

    /// Gives a copy the replica's own name and returns its new path. The name is durable after
    /// [`super::sync_above`].
    pub fn promote(
        &self,
        future: &Path,
        partition: &TopicPartition,
        now_ms: i64,
    ) -> Result<PathBuf, LogError> {
        let path = future.with_file_name(partition.to_string());
        self.rename(future, &path, now_ms)?;
        Ok(path)
    }

    /// Renames a partition's directory, so that its name is free at once. The caller removes it
    /// after the delay for readers.
    pub fn delete_partition(
        &self,
        from: &Path,
        partition: &TopicPartition,
        (unique, now_ms): (Uuid, i64),
    ) -> Result<DeletedPartition, LogError> {
        let path = from.with_file_name(names::delete_dir(partition, unique));
        self.rename(from, &path, now_ms)?;
        self.lock().count_out(from);
        Ok(DeletedPartition { disk: Arc::clone(&self.disk), path })
    }

    /// Removes what a failed creation has left.
    pub fn discard(&self, place: &NewPlace, now_ms: i64) {
        // If the removal fails, the next creation empties the directory or puts it aside.
        if self.run(&place.path, now_ms, || self.disk.remove_dir_all(&place.path)).is_ok() {
            self.lock().count_out(&place.path);
        }
    }

    /// Log directories with an operation that began before `before_ms` and has not ended, each once.
    pub fn hung_since(&self, before_ms: i64) -> Vec<PathBuf> {
        let under_way = self.under_way();
        let hung = under_way.iter().filter(|(_, began_ms)| *began_ms < before_ms);
        let mut hung: Vec<_> = hung.map(|(dir, _)| dir.clone()).collect();
        hung.sort_unstable();
        hung.dedup();
        hung
    }

    fn rename(&self, from: &Path, to: &Path, now_ms: i64) -> Result<(), LogError> {
        self.run(from, now_ms, || self.disk.rename(from, to)).during("rename", from)
    }

    /// Runs an operation on a partition's directory. It counts as under way until it ends.
    fn run<T>(&self, path: &Path, now_ms: i64, operation: impl FnOnce() -> T) -> T {
        let entry = (path.parent().unwrap_or(path).to_owned(), now_ms);
        self.under_way().push(entry.clone());
        let result = operation();
        let mut under_way = self.under_way();
        if let Some(index) = under_way.iter().position(|it| *it == entry) {
            under_way.swap_remove(index);
        }
        result
    }

    fn under_way(&self) -> MutexGuard<'_, Vec<(PathBuf, i64)>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
