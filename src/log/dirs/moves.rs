//! Moving a replica to another log directory of its broker (KIP-113). The future replica is in
//! `<topic>-<n>.<id>-future` until it has all records. Then it gets the partition's name, and the
//! old directory is deleted.

use uuid::Uuid;

use super::{LogDirs, NewPlace, names};
use crate::base::TopicPartition;

impl LogDirs {
    /// Whether the directory name of a future replica would be short enough.
    pub fn can_move(partition: &TopicPartition) -> bool {
        names::future_dir(partition, Uuid::nil()).is_some()
    }

    /// The place of a future replica in a log directory, which counts it as a partition from now
    /// on. `None` if its name would be too long.
    pub fn place_future(
        &mut self,
        dir: usize,
        partition: &TopicPartition,
        unique: Uuid,
    ) -> Option<NewPlace> {
        let name = names::future_dir(partition, unique)?;
        Some(self.place_at(dir, partition, name))
    }
}
