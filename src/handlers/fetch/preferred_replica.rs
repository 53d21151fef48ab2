//! Selects the replica from which a consumer should read (KIP-392). With Kafka's
//! `RackAwareReplicaSelector`, this is a replica in the consumer's rack that has the fetch offset.

use crate::{broker::Broker, handlers::brokers, metadata::Image, partition::Partition};

const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// Whether `replica.selector.class` is the rack-aware selector. Kafka's other selector always
/// selects the leader.
pub fn is_selected(broker: &Broker) -> bool {
    broker.settings().cluster.replica_selector_class.as_deref() == Some(RACK_AWARE)
}

/// The location of a consumer.
pub struct Near<'a> {
    pub rack: &'a str,
    pub listener: &'a str,
    pub image: &'a Image,
}

impl Near<'_> {
    /// The in-sync follower from which the consumer should read. `None` if it should stay at this
    /// broker (`me`), or if this broker does not lead the partition.
    pub fn select(&self, partition: &Partition, fetch_offset: i64, me: i32) -> Option<i32> {
        if self.is_near(me) {
            return None;
        }
        // A follower outside the ISR may lag without limit, and the consumer would lag with it.
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
        rack == Some(self.rack) && brokers::alive(self.image, id, self.listener).is_some()
    }
}
