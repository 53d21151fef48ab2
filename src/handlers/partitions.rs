//! The partition that a request names: its replica on this broker, its leader, or the error code if
//! this broker cannot serve it.

use std::sync::Arc;

use kafka_protocol::messages::BrokerId;
use uuid::Uuid;

use super::{ErrorCode, brokers::alive};
use crate::{
    base::TopicId,
    broker::Broker,
    controller::has_online_dir,
    metadata::{Image, PartitionImage, TopicImage},
    partition::{Partition, PartitionUnavailable, Role, Topic},
};

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

pub fn has_partition(topic: &TopicImage, index: i32) -> bool {
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
