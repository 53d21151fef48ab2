//! A replica's way to another directory of its broker (KIP-113): the copy lies in
//! `<topic>-<n>.<id>-future` until it has all, takes the name, and the old directory is deleted.

use std::path::Path;

use uuid::Uuid;

use super::{Disk, During, LogDirs, LogError, NewPlace, names};
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
}

/// Makes the name of a directory durable.
pub fn sync_above(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    let above = path.parent().unwrap_or(path);
    disk.sync_dir(above).during("sync", above)
}
