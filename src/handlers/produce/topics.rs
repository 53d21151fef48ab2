//! The topics of a request: merging those that are named more than once, finding them, and the check
//! of the client's permission.

use std::{collections::HashMap, sync::Arc};

use kafka_protocol::messages::{
    TopicName,
    produce_request::{PartitionProduceData, TopicProduceData},
};
use uuid::Uuid;

use crate::{broker::Broker, handlers::Client, partition::Topic, protocol::checks::TOPIC_WRITE};

/// The first version that names topics by id (KIP-516).
pub const TOPIC_IDS: i16 = 13;

/// The topic, if this broker has a replica of it.
pub fn topic_of(broker: &Broker, version: i16, data: &TopicProduceData) -> Option<Arc<Topic>> {
    match version {
        TOPIC_IDS.. => broker.replicas.partitions.topic_by_id(data.topic_id),
        _ => broker.replicas.partitions.topic(&data.name),
    }
}

/// Whether the client may write to the topic. A request with an unknown topic id has no name to
/// check, and fails anyway. `topic` is the topic if this broker has a replica of it.
pub fn may_write(
    broker: &Broker,
    client: &Client,
    (version, data): (i16, &TopicProduceData),
    topic: Option<&Topic>,
) -> bool {
    let may_write = |name: &str| client.allowed(TOPIC_WRITE, name);
    match topic {
        Some(topic) => may_write(&topic.name),
        None if version < TOPIC_IDS => may_write(&data.name),
        None => {
            let image = broker.metadata();
            image.topic_by_id(data.topic_id).is_none_or(|topic| may_write(&topic.name))
        }
    }
}

/// Merges topics and partitions that the request names more than once. As in Kafka, the last batch
/// of a partition is kept, and topics without partitions are left out.
pub fn merged(topics: Vec<TopicProduceData>) -> Vec<TopicProduceData> {
    let mut merged: Vec<TopicProduceData> = Vec::with_capacity(topics.len());
    let mut places: HashMap<(TopicName, Uuid), usize> = HashMap::new();
    let is_many = topics.len() > 1;
    for mut topic in topics {
        if topic.partition_data.len() > 1 {
            topic.partition_data = last_of_each(std::mem::take(&mut topic.partition_data));
        }
        if topic.partition_data.is_empty() {
            continue;
        }
        let place = match is_many {
            true => *places.entry((topic.name.clone(), topic.topic_id)).or_insert(merged.len()),
            false => merged.len(),
        };
        match merged.get_mut(place) {
            Some(first) => {
                first.partition_data.append(&mut topic.partition_data);
                first.partition_data = last_of_each(std::mem::take(&mut first.partition_data));
            }
            None => merged.push(topic),
        }
    }
    merged
}

/// Keeps the last entry of each partition, in the place of the first.
fn last_of_each(partitions: Vec<PartitionProduceData>) -> Vec<PartitionProduceData> {
    let mut places: HashMap<i32, usize> = HashMap::with_capacity(partitions.len());
    let mut kept: Vec<PartitionProduceData> = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let place = *places.entry(partition.index).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(earlier) => *earlier = partition,
            None => kept.push(partition),
        }
    }
    kept
}
