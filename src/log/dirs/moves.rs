//! A replica's way to another directory of its broker (KIP-113): the copy lies in
//! `<topic>-<n>.<id>-future` until it has all, takes the name, and the old directory is deleted.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{During, LogDirs, LogError, NewPlace, names};
use crate::base::TopicPartition;

impl LogDirs {
    /// Whether a copy's directory can have its name.
    pub fn can_move(partition: &TopicPartition) -> bool {
        names::future_dir(partition, Uuid::nil()).is_some()
    }

    /// The place of a copy in a directory, which counts from now on.
    pub fn place_future(
        &mut self,
        dir: usize,
        partition: &TopicPartition,
        unique: Uuid,
    ) -> Option<NewPlace> {
        let name = names::future_dir(partition, unique)?;
        Some(self.place_at(dir, name))
    }

    /// Gives a copy the replica's own name, durably, and returns its new path. A name that may not
    /// be durable is taken back.
    pub fn promote(&self, future: &Path, partition: &TopicPartition) -> Result<PathBuf, LogError> {
        let path = future.with_file_name(partition.to_string());
        self.disk.rename(future, &path).during("rename", future)?;
        let dir = path.parent().unwrap_or(&path);
        if let Err(error) = self.disk.sync_dir(dir).during("sync", dir) {
            let _ = self.disk.rename(&path, future);
            return Err(error);
        }
        Ok(path)
    }

    /// Deletes the directory that a replica has left, and returns when that is durable: what is
    /// written elsewhere from here on must not be shadowed by it after a crash of the machine.
    pub fn leave(
        &mut self,
        from: &Path,
        partition: &TopicPartition,
        unique: Uuid,
    ) -> Result<super::DeletedPartition, LogError> {
        let left = self.delete_partition(from, partition, unique)?;
        let dir = from.parent().unwrap_or(from);
        self.disk.sync_dir(dir).during("sync", dir)?;
        Ok(left)
    }
}
