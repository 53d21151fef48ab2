//! Helpers that several handlers share: authorized operations, the addresses of brokers, and the
//! leaders of partitions.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::{
    messages::{BrokerId, TopicName},
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{Context, ErrorCode};
use crate::{
    base::TopicId,
    broker::Broker,
    controller::has_online_dir,
    metadata::{BrokerImage, Image, PartitionImage, TopicImage, records::BrokerEndpoint},
    partition::{Partition, PartitionUnavailable, Role, Topic},
    protocol::checks::{CLUSTER_DESCRIBE, CLUSTER_NAME, ResourceType},
};

/// The value of authorized operations if the client did not request them.
pub const NO_OPERATIONS: i32 = i32::MIN;

/// The client's authorized operations on the cluster, or 0 if it may not describe the cluster.
pub fn cluster_operations(cx: &Context<'_>) -> i32 {
    match cx.allowed_on_cluster(CLUSTER_DESCRIBE) {
        true => cx.session.client.operations(ResourceType::Cluster, CLUSTER_NAME),
        false => 0,
    }
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

/// The endpoint of a broker on a listener.
pub fn endpoint<'a>(broker: &'a BrokerImage, listener: &str) -> Option<&'a BrokerEndpoint> {
    broker.end_points.iter().find(|endpoint| endpoint.name == listener)
}

/// The endpoint of a broker on a listener. `None` if the broker is fenced or not registered, or
/// does not have the listener.
pub fn alive<'a>(image: &'a Image, id: i32, listener: &str) -> Option<&'a BrokerEndpoint> {
    image.broker(id).filter(|broker| !broker.fenced).and_then(|it| endpoint(it, listener))
}

/// The replicas that are offline for clients of a listener, because their broker is fenced or does
/// not have the listener, or because their log directory is offline.
pub fn offline(image: &Image, partition: &PartitionImage, listener: &str) -> Vec<BrokerId> {
    let replicas = partition.replicas.iter().zip(&partition.directories);
    let is_offline = |(id, dir): &(&i32, &Uuid)| {
        let has_dir = image.broker(**id).is_some_and(|broker| has_online_dir(broker, **dir));
        !has_dir || alive(image, **id, listener).is_none()
    };
    replicas.filter(is_offline).map(|(id, _)| BrokerId(*id)).collect()
}

/// The replica of a partition on this broker, or the error code if there is none.
pub fn partition(broker: &Broker, name: &str, index: i32) -> Result<Arc<Partition>, ErrorCode> {
    let elsewhere = || elsewhere(broker, Some(name), TopicId::nil(), index);
    let topic = broker.replicas.partitions.topic(name).ok_or_else(elsewhere)?;
    topic.partition(index).map_err(|missing| absent(broker, &topic, index, missing))
}

/// The error code for a partition without a usable replica on this broker. `topic` is the topic of
/// other replicas on this broker.
pub fn absent(
    broker: &Broker,
    topic: &Topic,
    index: i32,
    absent: PartitionUnavailable,
) -> ErrorCode {
    match absent {
        PartitionUnavailable::Offline => ErrorCode::KafkaStorageError,
        PartitionUnavailable::Unknown => match elsewhere(broker, None, topic.id, index) {
            // The metadata does not have the topic any more, so it is being deleted here.
            ErrorCode::UnknownTopicId => ErrorCode::UnknownTopicOrPartition,
            code => code,
        },
    }
}

/// The error code for a partition without a replica on this broker: NOT_LEADER_OR_FOLLOWER if the
/// partition exists, otherwise that it is unknown (`ReplicaManager.getPartitionOrError`). The topic
/// is looked up by name, or by id if there is no name.
pub fn elsewhere(broker: &Broker, name: Option<&str>, id: TopicId, index: i32) -> ErrorCode {
    let image = broker.metadata();
    let topic = match name {
        Some(name) => image.topic(name),
        None => image.topic_by_id(id),
    };
    match topic {
        None if name.is_none() => ErrorCode::UnknownTopicId,
        Some(topic) if has_partition(topic, index) => ErrorCode::NotLeaderOrFollower,
        _ => ErrorCode::UnknownTopicOrPartition,
    }
}

fn has_partition(topic: &TopicImage, index: i32) -> bool {
    usize::try_from(index).is_ok_and(|index| index < topic.partitions.len())
}

/// The leader of a partition as far as this broker knows.
#[derive(Clone, Copy)]
pub struct LeaderHint {
    pub leader: i32,
    pub epoch: i32,
}

/// The leader of a partition: from this broker's replica if it has one, otherwise from the
/// metadata. The topic is looked up by id, or by name if the id is nil.
pub fn leader(broker: &Broker, name: &str, id: TopicId, index: i32) -> Option<LeaderHint> {
    let topic = match id.is_nil() {
        true => broker.replicas.partitions.topic(name),
        false => broker.replicas.partitions.topic_by_id(id),
    };
    if let Some(partition) = topic.and_then(|topic| topic.partition(index).ok()) {
        match partition.view().role {
            Role::Leader { epoch } => return Some(LeaderHint { leader: broker.node.id, epoch }),
            Role::Follower { epoch, leader } => return Some(LeaderHint { leader, epoch }),
            Role::Offline | Role::Closed => {}
        }
    }
    let image = broker.metadata();
    let topic = match id.is_nil() {
        true => image.topic(name),
        false => image.topic_by_id(id),
    };
    let partition = topic?.partitions.get(usize::try_from(index).ok()?)?;
    Some(LeaderHint { leader: partition.leader, epoch: partition.leader_epoch })
}

/// The address of a broker on one listener, with its rack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

/// Adds the address of a broker to `nodes`, unless the broker is fenced or lacks the listener.
pub fn add_endpoint(image: &Image, id: i32, listener: &str, nodes: &mut BTreeMap<i32, Node>) {
    if let Some(endpoint) = alive(image, id, listener) {
        let rack = image.broker(id).and_then(|broker| broker.rack.clone());
        let node = Node { host: endpoint.host.clone(), port: endpoint.port.into(), rack };
        nodes.insert(id, node);
    }
}
