//! Which replica a consumer is to read from (KIP-392): with Kafka's `RackAwareReplicaSelector` one
//! in the consumer's own rack, if there is one that has what it wants.

use crate::{broker::Broker, handlers::cluster, metadata::Image, partition::Partition};

const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// Whether `replica.selector.class` asks for it. The other class that Kafka has chooses the leader.
pub fn is_selected(broker: &Broker) -> bool {
    broker.settings().cluster.replica_selector_class.as_deref() == Some(RACK_AWARE)
}

/// Where a consumer is.
pub struct Near<'a> {
    pub rack: &'a str,
    pub listener: &'a str,
    pub image: &'a Image,
}

impl Near<'_> {
    /// `None` for the leader, which is `me`, and where this broker does not lead.
    pub fn select(&self, partition: &Partition, fetch_offset: i64, me: i32) -> Option<i32> {
        if self.is_near(me) {
            return None;
        }
        // Those out of sync may lag behind for ever, and have the consumer lag with them.
        let near = partition.in_sync_followers().into_iter().filter(|follower| {
            follower.log_end >= fetch_offset
                && follower.log_start <= fetch_offset
                && self.is_near(follower.id)
        });
        let best = near.max_by_key(|it| (it.log_end, it.caught_up_ms, it.id));
        best.map(|follower| follower.id)
    }

    fn is_near(&self, id: i32) -> bool {
        let rack = self.image.broker(id).and_then(|broker| broker.rack.as_deref());
        rack == Some(self.rack) && cluster::alive(self.image, id, self.listener).is_some()
    }
}
