//! Applies committed metadata to this broker. The order is fixed: first partitions and topics
//! change, then the image is published, then coordinators change, and at last waiters for the
//! offset are notified.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use parking_lot::MutexGuard;
use tracing::error;

use super::{
    Broker,
    logs::{Replica, in_parallel},
};
use crate::{
    base::environment::in_place,
    metadata::{Change, ConfigResourceType, Image},
    quorum::{CommittedBatch, CommittedStream},
};

/// Applies committed metadata. Returns only if the quorum has ended or a batch cannot be applied.
/// The broker's metadata is then out of date, so `metadata_failed` makes the process stop.
pub async fn apply_committed(broker: Arc<Broker>, mut stream: CommittedStream) {
    while let Some(batch) = stream.next().await {
        let apply = AssertUnwindSafe(|| broker.apply(&batch));
        // Applying may wait for the disk, for example to open logs. `in_place` moves the other
        // tasks of this worker to another one.
        if in_place(|| catch_unwind(apply)).is_err() {
            error!(offset = batch.last_offset, "committed metadata cannot be applied");
            break;
        }
    }
    broker.metadata_failed.send_replace(true);
}

impl Broker {
    /// Applies one committed batch. The task that reads the committed stream calls this, in the
    /// order of offsets. If a disk fails, its partitions go offline. Nothing else may fail here.
    pub fn apply(self: &Arc<Self>, batch: &CommittedBatch) {
        let _applying = self.applying();
        self.apply_broker_configs(&batch.image, &batch.changes);
        if self.serves() {
            self.apply_to_served(batch);
        } else {
            self.found().note_deleted(&batch.changes);
            self.publish(&batch.image);
        }
        self.applied.send_replace(batch.last_offset);
    }

    fn apply_to_served(self: &Arc<Self>, batch: &CommittedBatch) {
        self.apply_all_to_partitions(&batch.image, &batch.changes);
        let is_deletion = |change: &Change| matches!(change, Change::TopicDeleted { .. });
        self.forget_former_logs(batch.changes.iter().any(is_deletion));
        self.publish(&batch.image);
        self.apply_to_coordinators(&batch.image, &batch.changes);
        self.log_own_changes(batch.last_offset, &batch.changes);
    }

    /// Opens the logs of all replicas that metadata assigns to this broker. The caller has waited
    /// until metadata contains this process's registration. Earlier changes are not applied one by
    /// one: a previous process may have applied them, and a partition that was removed may have
    /// been assigned again since. Later changes are applied to the open partitions. Kafka does the
    /// same with its first published image.
    pub fn begin_to_serve(self: &Arc<Self>) {
        let _applying = self.applying();
        let image = self.metadata();
        self.open_all(&image);
        self.remove_leftovers(self.delete_unclaimed(&image));
        self.forget_former_logs(false);
        self.set_partition_counts(&image);
        self.elect_all(&image, |_| true);
        self.serves.store(true, Ordering::Relaxed);
    }

    /// Removes deleted and stray logs from the checkpoints. Their offsets would be wrong for a new
    /// log of the same name.
    fn forget_former_logs(self: &Arc<Self>, any_deleted: bool) {
        let any_put_aside = self.found().take_put_aside();
        if any_deleted || any_put_aside {
            self.write_checkpoints();
            self.write_settled();
        }
    }

    /// Locks [`Broker`]'s `applying`, for changes of partitions and coordinator shards.
    pub(super) fn applying(&self) -> MutexGuard<'_, ()> {
        self.applying.lock()
    }

    fn publish(&self, image: &Arc<Image>) {
        self.metadata.store(Arc::clone(image));
    }

    fn apply_broker_configs(&self, image: &Image, changes: &[Change]) {
        let is_broker = |change: &Change| {
            let Change::ConfigChanged { resource, .. } = change else { return false };
            resource.kind == ConfigResourceType::Broker
        };
        if changes.iter().any(is_broker) {
            self.reconfigure(image);
            for topic in self.partitions.topics() {
                self.configure_topic(image, &topic);
            }
        }
    }

    /// Applies the changes in order. Consecutive new partitions are created in parallel.
    fn apply_all_to_partitions(self: &Arc<Self>, image: &Image, changes: &[Change]) {
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
