//! Metadata: brokers and topics as one image has them, with auto-creation of topics.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use kafka_protocol::{
    messages::{
        ApiKey, BrokerId, MetadataRequest, MetadataResponse, TopicName,
        metadata_request::MetadataRequestTopic,
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
    },
    protocol::StrBytes,
};

use super::{Context, ErrorCode, Handler, Reply, errors};
use crate::{
    broker::{Broker, is_internal},
    controller::{NewTopic, names},
    metadata::{Image, PartitionImage, TopicImage},
};

/// What an authorised-operations field says when it was not asked for.
pub const NOT_ASKED: i32 = i32::MIN;
/// Bits of Kafka's `AclOperation`s that a topic supports; without an authorizer all are allowed.
const TOPIC_OPERATIONS: i32 = 0x0df8;
const CLUSTER_OPERATIONS: i32 = 0x1fa0;

pub struct Metadata;

impl Handler for Metadata {
    const API: ApiKey = ApiKey::Metadata;
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    type Request = MetadataRequest;
    type Response = MetadataResponse;

    async fn handle(cx: &mut Context<'_>, request: MetadataRequest) -> Reply<MetadataResponse> {
        let image = cx.broker.metadata();
        let asked = match &request.topics {
            // Version 0 has no null: there an empty list asks for all.
            None => None,
            Some(topics) if topics.is_empty() && cx.version == 0 => None,
            Some(topics) => Some(topics),
        };
        let operations = match request.include_topic_authorized_operations {
            true => TOPIC_OPERATIONS,
            false => NOT_ASKED,
        };
        let describe = |topic: &Arc<TopicImage>| describe(topic, operations);
        let mut missing = Vec::new();
        let topics = match asked {
            None => image.topics.iter().map(describe).collect(),
            Some(asked) if asked.iter().any(|topic| !is_valid(topic, cx.version)) => {
                asked.iter().map(|topic| refusal(topic, ErrorCode::InvalidRequest)).collect()
            }
            Some(asked) => {
                let found = |topic: &MetadataRequestTopic| match find(&image, topic) {
                    Ok(found) => describe(found),
                    Err(code) => {
                        if let Some(name) = topic.name.as_ref().filter(|_| topic.topic_id.is_nil()) {
                            missing.push(name.to_string());
                        }
                        refusal(topic, missing_code(topic, code))
                    }
                };
                asked.iter().map(found).collect()
            }
        };
        if request.allow_auto_topic_creation && !missing.is_empty() {
            create(cx.broker, missing);
        }
        let mut response = MetadataResponse::default()
            .with_brokers(brokers(&image, &cx.session.listener))
            .with_cluster_id(Some(StrBytes::from_string(cx.broker.cluster_id.to_string())))
            .with_controller_id(BrokerId(controller_id(&image)))
            .with_topics(topics)
            .with_cluster_authorized_operations(NOT_ASKED);
        if request.include_cluster_authorized_operations {
            response.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
        Reply::Now(response)
    }
}

fn is_valid(topic: &MetadataRequestTopic, version: i16) -> bool {
    version >= 12 || (topic.name.is_some() && topic.topic_id.is_nil())
}

fn find<'a>(
    image: &'a Image,
    topic: &MetadataRequestTopic,
) -> Result<&'a Arc<TopicImage>, ErrorCode> {
    match &topic.name {
        _ if !topic.topic_id.is_nil() => {
            image.topic_by_id(topic.topic_id).ok_or(ErrorCode::UnknownTopicId)
        }
        Some(name) => image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        None => Err(ErrorCode::UnknownTopicId),
    }
}

fn missing_code(topic: &MetadataRequestTopic, code: ErrorCode) -> ErrorCode {
    match &topic.name {
        Some(name) if topic.topic_id.is_nil() && names::validate(name).is_err() => {
            ErrorCode::InvalidTopicException
        }
        _ => code,
    }
}

fn refusal(topic: &MetadataRequestTopic, code: ErrorCode) -> MetadataResponseTopic {
    let by_id = !topic.topic_id.is_nil();
    let name = topic.name.clone().filter(|_| !by_id);
    let is_internal = name.as_ref().is_some_and(|name| is_internal(name));
    MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(name)
        .with_topic_id(topic.topic_id)
        .with_is_internal(is_internal)
        .with_topic_authorized_operations(NOT_ASKED)
}

fn describe(topic: &Arc<TopicImage>, operations: i32) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().enumerate().map(|(index, partition)| {
        let error_code = match partition.leader {
            0.. => errors::NONE,
            _ => ErrorCode::LeaderNotAvailable.code(),
        };
        MetadataResponsePartition::default()
            .with_error_code(error_code)
            .with_partition_index(index as i32)
            .with_leader_id(BrokerId(partition.leader))
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
            .with_offline_replicas(offline(partition))
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(topic.id)
        .with_is_internal(is_internal(&topic.name))
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(operations)
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// Without a leader every replica is offline; otherwise brokers that are down would be here.
fn offline(partition: &PartitionImage) -> Vec<BrokerId> {
    match partition.leader {
        0.. => Vec::new(),
        _ => ids(&partition.replicas),
    }
}

/// Brokers that are not fenced, by the endpoint of the client's listener.
fn brokers(image: &Image, listener: &str) -> Vec<MetadataResponseBroker> {
    let alive = image.brokers.values().filter(|broker| !broker.fenced);
    let brokers = alive.filter_map(|broker| {
        let endpoint = broker.end_points.iter().find(|endpoint| endpoint.name == listener)?;
        Some(
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(broker.broker_id))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
                .with_rack(broker.rack.clone().map(StrBytes::from_string)),
        )
    });
    brokers.collect()
}

/// KRaft brokers name any broker that is alive: it forwards what the controller decides.
fn controller_id(image: &Image) -> i32 {
    image.brokers.values().find(|broker| !broker.fenced).map_or(-1, |broker| broker.broker_id)
}

/// Has topics made that a client asked for. The client is not kept waiting: as in Kafka, it is told
/// that they do not exist, and asks again.
fn create(broker: &Arc<Broker>, names: Vec<String>) {
    if !broker.settings().auto_create_topics_enable {
        return;
    }
    let valid = names.into_iter().filter(|name| names::validate(name).is_ok());
    // By name, since a request may name a topic twice.
    let topics: BTreeMap<String, NewTopic> =
        valid.map(|name| (name.clone(), broker.new_topic(name))).collect();
    if topics.is_empty() {
        return;
    }
    let controller = broker.controller.clone();
    tokio::spawn(async move {
        match controller.create_topics(topics.into_values().collect(), false).await {
            Ok(created) => {
                for (topic, result) in created.value {
                    if let Err(error) = result {
                        tracing::info!(topic, %error, "topic not auto-created");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "topics not auto-created"),
        }
    });
}
