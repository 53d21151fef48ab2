//! Applies the roles that metadata assigns to this broker's replicas.

use std::sync::Arc;

use super::super::{Replicas, logs::Replica};
use crate::{
    base::{TopicId, config::TopicConfig, environment::now_ms},
    metadata::{BrokerImage, Image, PartitionChange, PartitionImage},
    partition::{Assignment, BrokerStatus, IsrRules, Partition},
};

impl Replicas {
    /// Gives a replica the role that metadata assigns to it. A follower is fetched from its leader.
    pub(in crate::broker) fn assign(
        self: &Arc<Self>,
        image: &Image,
        (topic_id, partition): (TopicId, &Arc<Partition>),
        assigned: &PartitionImage,
    ) {
        let status = |id| image.broker(id).map(|it| status(it)).unwrap_or_default();
        let assignment = Assignment { me: self.node.id, partition: assigned, status: &status };
        partition.update(|core| core.assign(&assignment, now_ms()));
        self.follow(topic_id, partition);
    }

    /// Applies a changed partition: its replicas, leader or in-sync replicas. Opens the log of a
    /// new replica, and removes a replica that is no longer assigned to this broker.
    pub(in crate::broker) fn change_partition(
        self: &Arc<Self>,
        image: &Image,
        change: &PartitionChange,
    ) {
        let (id, index) = (change.id, change.partition);
        if !change.new.replicas.contains(&self.node.id) {
            return self.remove_replica(id, index);
        }
        let known = self.partitions.topic_by_id(id).and_then(|topic| topic.partition(index).ok());
        match known {
            Some(partition) => self.assign(image, (id, &partition), &change.new),
            // The log of the replica could not be opened, so it stays offline.
            None if change.old.replicas.contains(&self.node.id) => {}
            None => self.open_partition(image, Replica { id, index, is_new: true }, &change.new),
        }
    }

    /// Passes the changed state of a broker to the partitions led here. A replica on a fenced
    /// broker cannot join the in-sync replicas.
    pub(in crate::broker) fn change_standing(&self, broker: &BrokerImage) {
        let id = broker.broker_id;
        let now = now_ms();
        for partition in self.partitions.partitions() {
            if partition.view().isr.replicas > 1 {
                partition.update(|core| core.set_broker_status(id, status(broker), now));
            }
        }
    }

    pub(in crate::broker) fn isr_rules(&self, config: &TopicConfig) -> IsrRules {
        IsrRules {
            min_in_sync: config.min_insync_replicas.max(1) as usize,
            lag_max_ms: self.node.settings().cluster.replica_lag_time_max_ms,
        }
    }

    /// Removes followers that have not kept up (`replica.lag.time.max.ms`) from the in-sync
    /// replicas of partitions led here, by proposals to the controller.
    pub(in crate::broker) fn check_isrs(self: &Arc<Self>) {
        let now = now_ms();
        for partition in self.partitions.partitions() {
            if partition.view().isr.replicas > 1 {
                partition.check_isr(now);
            }
        }
    }
}

fn status(broker: &BrokerImage) -> BrokerStatus {
    BrokerStatus {
        epoch: (!broker.fenced).then_some(broker.broker_epoch),
        is_shutting_down: broker.in_controlled_shutdown,
    }
}
