//! What several answers say of topics, brokers and rights.

use kafka_protocol::{
    messages::{BrokerId, TopicName},
    protocol::StrBytes,
};

use crate::metadata::{BrokerImage, Image, PartitionImage, records::BrokerEndpoint};

/// What a client may do to a topic: everything, while there is no authorizer. Bits are the codes of
/// Kafka's `AclOperation`: read, write, create, delete, alter, describe, and both for configs.
pub const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// The same for the cluster: create, alter, describe, cluster action, both for configs, and
/// idempotent write.
pub const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
/// "Not asked for".
pub const NO_OPERATIONS: i32 = i32::MIN;

const fn bits(codes: &[u8]) -> i32 {
    let (mut set, mut at) = (0, 0);
    while at < codes.len() {
        set |= 1 << codes[at];
        at += 1;
    }
    set
}

pub fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(string(name))
}

pub fn ids(brokers: &[i32]) -> Vec<BrokerId> {
    brokers.iter().copied().map(BrokerId).collect()
}

/// Topics of Kafka itself (`Topic.isInternal`).
pub fn is_internal(topic: &str) -> bool {
    ["__consumer_offsets", "__transaction_state", "__share_group_state"].contains(&topic)
}

/// Where a broker listens for clients of a listener.
pub fn endpoint<'a>(broker: &'a BrokerImage, listener: &str) -> Option<&'a BrokerEndpoint> {
    broker.end_points.iter().find(|endpoint| endpoint.name == listener)
}

/// A broker's place, if it lives and has the listener.
pub fn alive<'a>(image: &'a Image, id: i32, listener: &str) -> Option<&'a BrokerEndpoint> {
    image.broker(id).filter(|broker| !broker.fenced).and_then(|it| endpoint(it, listener))
}

/// Replicas that clients of the listener cannot reach, or whose log directory failed.
pub fn offline(image: &Image, partition: &PartitionImage, listener: &str) -> Vec<BrokerId> {
    let replicas = partition.replicas.iter();
    let is_offline = |id: &&i32| alive(image, **id, listener).is_none() || partition.is_lost(**id);
    replicas.filter(is_offline).copied().map(BrokerId).collect()
}
