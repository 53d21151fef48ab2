//! Requests about one topic, partition or group. Callers set what else they need.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, FetchRequest, FindCoordinatorRequest, GroupId,
        IncrementalAlterConfigsRequest, JoinGroupRequest, MetadataRequest, OffsetCommitRequest,
        OffsetFetchRequest, ProduceRequest, SyncGroupRequest, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        fetch_request::{FetchPartition, FetchTopic},
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        join_group_request::JoinGroupRequestProtocol,
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        produce_request::{PartitionProduceData, TopicProduceData},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};

/// Resource types of configs.
pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

pub fn create_topic(
    name: &str,
    partitions: i32,
    replication_factor: i16,
    configs: &[(&str, &str)],
) -> CreateTopicsRequest {
    let configs = configs.iter().map(|(key, value)| {
        CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
        .with_configs(configs.collect());
    CreateTopicsRequest::default().with_topics(vec![topic])
}

/// Sets a config of a topic or a broker, or removes it if `value` is `None`.
pub fn alter_config(
    resource_type: i8,
    resource: &str,
    key: &str,
    value: Option<&str>,
) -> IncrementalAlterConfigsRequest {
    let config = AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(i8::from(value.is_none()))
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configs(vec![config]);
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

pub fn metadata(topic: &str) -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    MetadataRequest::default().with_topics(Some(vec![topic]))
}

/// Produces the records of each partition of one topic.
pub fn produce(
    topic: &str,
    acks: i16,
    records: impl IntoIterator<Item = (i32, Bytes)>,
) -> ProduceRequest {
    let partitions = records.into_iter().map(|(index, records)| {
        PartitionProduceData::default().with_index(index).with_records(Some(records))
    });
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(partitions.collect());
    ProduceRequest::default().with_acks(acks).with_topic_data(vec![topic])
}

/// Fetches from each (partition, offset) of one topic, without a fetch session.
pub fn fetch(
    topic: &str,
    from: impl IntoIterator<Item = (i32, i64)>,
    partition_max_bytes: i32,
) -> FetchRequest {
    let partitions = from.into_iter().map(|(index, offset)| {
        FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(partition_max_bytes)
    });
    let topic =
        FetchTopic::default().with_topic(topic_name(topic)).with_partitions(partitions.collect());
    FetchRequest::default().with_min_bytes(1).with_session_epoch(-1).with_topics(vec![topic])
}

pub fn find_coordinator(group: &str) -> FindCoordinatorRequest {
    FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)])
}

/// Joins a classic group of consumers with one protocol.
pub fn join_group(group: &str, protocol: &str, metadata: &'static [u8]) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text(protocol))
        .with_metadata(Bytes::from_static(metadata));
    JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

pub fn sync_group(
    group: &str,
    (member_id, generation): (&StrBytes, i32),
    protocol: &str,
    assignments: Vec<SyncGroupRequestAssignment>,
) -> SyncGroupRequest {
    SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(generation)
        .with_member_id(member_id.clone())
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text(protocol)))
        .with_assignments(assignments)
}

/// Commits one offset, as no member of the group.
pub fn commit_offset(
    group: &str,
    (topic, partition): (&str, i32),
    offset: i64,
    metadata: &str,
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text(metadata)));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

pub fn committed_offset(group: &str, (topic, partition): (&str, i32)) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(topic_name(topic))
        .with_partition_indexes(vec![partition]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(group_id(group))
        .with_topics(Some(vec![topic]));
    OffsetFetchRequest::default().with_groups(vec![group])
}
