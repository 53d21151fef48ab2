//! Applies committed metadata to this broker, in a fixed order: broker configs, partitions and
//! topics, publication of the image, coordinators, and at last the notification of tasks that wait
//! for the offset. Before the broker serves, only the configs are applied, deleted topics are noted
//! and the image is published.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tracing::error;

use super::Broker;
use crate::{
    base::{TopicPartition, environment::in_place},
    metadata::{Change, ConfigResourceType, Image},
    quorum::{CommittedBatch, CommittedStream},
};

/// Applies committed metadata. Returns only if the quorum has ended or applying a batch panics. The
/// broker's metadata is then out of date, so `metadata_failed` makes the process stop.
pub async fn apply_committed(broker: Arc<Broker>, mut stream: CommittedStream) {
    while let Some(batch) = stream.next().await {
        let apply = AssertUnwindSafe(|| broker.apply(&batch));
        // Applying may wait for the disk, for example to open logs. `in_place` moves the other
        // tasks of this worker to another one.
        if in_place(|| catch_unwind(apply)).is_err() {
            error!(offset = batch.last_offset, "cannot apply committed metadata: the broker stops");
            break;
        }
    }
    broker.metadata_failed.send_replace(true);
}

impl Broker {
    /// Applies one committed batch. The task that reads the committed stream calls this, in the
    /// order of offsets. If a disk fails, its partitions go offline. Nothing else may fail here.
    pub fn apply(self: &Arc<Self>, batch: &CommittedBatch) {
        let _applying = self.replicas.applying();
        self.apply_broker_configs(&batch.image, &batch.changes);
        if self.serves() {
            self.apply_to_served(batch);
        } else {
            self.replicas.note_deleted(&batch.changes);
            self.node.publish(&batch.image);
        }
        self.node.set_applied(batch.last_offset);
    }

    fn apply_to_served(self: &Arc<Self>, batch: &CommittedBatch) {
        self.replicas.apply(&batch.image, &batch.changes);
        self.node.publish(&batch.image);
        self.coordinators.apply(&batch.image, &batch.changes, &self.replicas.partitions);
        self.log_own_changes(batch.last_offset, &batch.changes);
    }

    /// Opens the logs of all replicas that metadata assigns to this broker. The caller has waited
    /// until metadata contains this process's registration. Earlier changes are not applied one by
    /// one: a previous process may have applied them, and a partition that was removed may have
    /// been assigned again since. Later changes are applied to the open partitions. Kafka does the
    /// same with its first published image.
    pub fn begin_to_serve(self: &Arc<Self>) {
        let _applying = self.replicas.applying();
        let image = self.metadata();
        self.replicas.open_all(&image);
        self.coordinators.start(&image, &self.replicas.partitions);
        self.replicas.set_open();
    }

    fn apply_broker_configs(&self, image: &Image, changes: &[Change]) {
        let is_broker = |change: &Change| {
            let Change::ConfigChanged { resource, .. } = change else { return false };
            resource.kind == ConfigResourceType::Broker
        };
        if changes.iter().any(is_broker) {
            self.reconfigure(image);
            self.replicas.configure_all(image);
        }
    }

    /// Retries to open logs that failed to open for lack of disk space or file descriptors.
    pub(super) fn retry_unopened(self: &Arc<Self>) {
        let _applying = self.replicas.applying();
        let image = self.metadata();
        for replica in self.replicas.take_unopened() {
            let Some(topic) = image.topic_by_id(replica.id) else { continue };
            if let Some(partition) = topic.partitions.get(replica.index as usize) {
                self.replicas.open_partition(&image, replica, partition);
                let id = TopicPartition::new(Arc::clone(&topic.name), replica.index);
                self.coordinators.elect(replica.id, &id, partition, &self.replicas.partitions);
            }
        }
    }

    /// Resigns all coordinator shards. The shutdown calls this before it closes the logs.
    pub fn resign_coordinators(&self) {
        self.membership.resign();
        self.coordinators.resign_all(&self.replicas.partitions);
    }
}
