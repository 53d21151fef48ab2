//! Applies committed metadata to the replicas.

use std::sync::Arc;

use super::{
    Replicas,
    logs::{Replica, in_parallel},
};
use crate::metadata::{Change, ConfigResourceType, Image};

impl Replicas {
    /// Applies the changes of one committed batch, whose result is `image`. The logs are open. The
    /// caller holds the lock `applying`.
    pub(in crate::broker) fn apply(self: &Arc<Self>, image: &Image, changes: &[Change]) {
        self.apply_all(image, changes);
        let is_deletion = |change: &Change| matches!(change, Change::TopicDeleted { .. });
        self.forget_former_logs(changes.iter().any(is_deletion));
    }

    /// Notes which topics were deleted, while the logs are not open yet.
    pub(in crate::broker) fn note_deleted(&self, changes: &[Change]) {
        self.found().note_deleted(changes);
    }

    /// Applies the configuration of the broker and of the topics to all logs.
    pub(in crate::broker) fn configure_all(&self, image: &Image) {
        for topic in self.partitions.topics() {
            self.configure_topic(image, &topic);
        }
    }

    /// Removes deleted and stray logs from the checkpoints. Their offsets would be wrong for a new
    /// log of the same name.
    pub(super) fn forget_former_logs(self: &Arc<Self>, any_deleted: bool) {
        let any_renamed_stray = self.found().take_renamed_stray();
        if any_deleted || any_renamed_stray {
            self.write_checkpoints();
            self.write_settled();
        }
    }

    /// Applies the changes in order. Consecutive new partitions are created in parallel.
    fn apply_all(self: &Arc<Self>, image: &Image, changes: &[Change]) {
        for run in changes.chunk_by(|a, b| is_addition(a) == is_addition(b)) {
            if !is_addition(&run[0]) {
                run.iter().for_each(|change| self.apply_to_partitions(image, change));
                continue;
            }
            for change in run {
                if let Change::PartitionAdded { id, new, .. } = change {
                    self.enter_topic(image, *id, new);
                }
            }
            in_parallel(self.recovery_threads(), run, |change| {
                self.apply_to_partitions(image, change);
            });
        }
    }

    fn apply_to_partitions(self: &Arc<Self>, image: &Image, change: &Change) {
        match change {
            Change::PartitionAdded { id, partition, new, .. } => {
                let replica = Replica { id: *id, index: *partition, is_new: true };
                self.open_partition(image, replica, new);
            }
            Change::PartitionChanged(change) => self.change_partition(image, change),
            Change::BrokerChanged { new, .. } => self.change_standing(new),
            Change::TopicDeleted { topic } => self.delete_topic(topic),
            Change::ConfigChanged { resource, .. }
                if resource.kind == ConfigResourceType::Topic =>
            {
                if let Some(topic) = self.partitions.topic(&resource.name) {
                    self.configure_topic(image, &topic);
                }
            }
            _ => {}
        }
    }
}

/// Whether a change only adds a topic or a partition. Such changes do not depend on each other, so
/// they are applied in parallel.
fn is_addition(change: &Change) -> bool {
    matches!(change, Change::TopicCreated { .. } | Change::PartitionAdded { .. })
}
