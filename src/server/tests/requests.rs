//! Requests for the tests of authorisation that the samples do not contain: their topic, group and
//! configs exist.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterConfigsRequest, BrokerId,
        ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeConfigsRequest, DescribeTransactionsRequest, EndTxnRequest, FetchRequest,
        FindCoordinatorRequest, GroupId, IncrementalAlterConfigsRequest, InitProducerIdRequest,
        ListOffsetsRequest, ListTransactionsRequest, MetadataRequest, OffsetCommitRequest,
        OffsetDeleteRequest, OffsetFetchRequest, ProduceRequest, ProducerId, TopicName,
        TransactionalId, TxnOffsetCommitRequest,
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
        alter_configs_request,
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::CreatableTopic,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        describe_configs_request::DescribeConfigsResource,
        fetch_request::{FetchPartition, FetchTopic},
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        produce_request::{PartitionProduceData, TopicProduceData},
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    },
    protocol::{Request, StrBytes},
};
use uuid::Uuid;

use crate::{
    peers::encode,
    records::{BatchBuilder, BatchOptions},
};

/// The topic that exists. It has one partition with one record.
pub const TOPIC: &str = "t";
/// The group that exists. It has an offset for the topic.
pub const GROUP: &str = "g";
/// Codes of the types of resources with configs.
const TOPIC_CONFIGS: i8 = 2;
const BROKER_CONFIGS: i8 = 4;
const LOG_LEVELS: i8 = 8;
const GROUP_CONFIGS: i8 = 32;

/// A request and the kind of listener to which it is sent.
pub struct Sent {
    pub to_controller_listener: bool,
    /// The whole request without the size field.
    pub frame: Bytes,
}

/// The requests, in an order that leaves the topic and the group until the last ones delete them.
pub fn requests(topic_id: Uuid) -> Vec<Sent> {
    let mut all = data_requests(topic_id);
    // These come first, because InitProducerId aborts the open transaction.
    all.extend(transaction_requests());
    all.extend([
        to_broker(9, &metadata(&[TOPIC, "missing"])),
        to_broker(6, &find_coordinator(0, GROUP)),
        to_broker(6, &find_coordinator(1, "transaction")),
        to_broker(6, &find_coordinator(2, "g:AAAAAAAAAAAAAAAAAAAAAQ:0")),
        to_broker(4, &InitProducerIdRequest::default().with_transactional_id(None)),
        to_broker(7, &create_topic("created")),
        to_broker(2, &create_partitions()),
    ]);
    all.extend(config_requests());
    all.extend(consumer_group_requests());
    all.extend(offset_requests());
    let deleted = DeleteTopicsRequest::default().with_topic_names(vec![topic()]);
    all.extend([
        // It aborts the transaction, so it comes after the requests about it.
        to_broker(4, &init_producer()),
        to_broker(2, &DeleteGroupsRequest::default().with_groups_names(vec![group()])),
        to_broker(5, &deleted.with_timeout_ms(10_000)),
    ]);
    all
}

/// The request that creates [`TOPIC`] or another topic.
pub fn create_topic(name: &'static str) -> CreateTopicsRequest {
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(1)
        .with_replication_factor(1);
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
}

/// A Produce request of version 9 with one record.
pub fn produce(is_transactional: bool) -> ProduceRequest {
    let topic = TopicProduceData::default().with_name(topic());
    produce_to(topic, is_transactional)
}

/// An OffsetCommit request of version 9.
pub fn commit_offset() -> OffsetCommitRequest {
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic())
        .with_partitions(vec![OffsetCommitRequestPartition::default().with_committed_offset(1)]);
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

/// An InitProducerId request of version 4 with a transactional id.
pub fn init_producer() -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(transaction()))
        .with_transaction_timeout_ms(60_000)
}

/// An AddPartitionsToTxn request of version 5 for the topic.
pub fn add_partitions(producer_id: ProducerId) -> AddPartitionsToTxnRequest {
    let added = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(transaction())
        .with_producer_id(producer_id)
        .with_topics(vec![transaction_topic()]);
    AddPartitionsToTxnRequest::default().with_transactions(vec![added])
}

/// An AddOffsetsToTxn request for the group.
pub fn add_offsets() -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default().with_transactional_id(transaction()).with_group_id(group())
}

fn transaction_topic() -> AddPartitionsToTxnTopic {
    AddPartitionsToTxnTopic::default().with_name(topic()).with_partitions(vec![0])
}

/// Requests about the transactional id, which has an open transaction.
fn transaction_requests() -> Vec<Sent> {
    let added = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transaction())
        .with_v3_and_below_topics(vec![transaction_topic()]);
    let described =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![transaction()]);
    vec![
        to_broker(3, &added),
        to_broker(5, &add_partitions(ProducerId(0))),
        to_broker(4, &add_offsets()),
        to_broker(0, &described),
        to_broker(2, &ListTransactionsRequest::default().with_duration_filter(-1)),
        to_broker(5, &EndTxnRequest::default().with_transactional_id(transaction())),
    ]
}

/// A TxnOffsetCommit request of version 5.
pub fn commit_offset_in_transaction() -> TxnOffsetCommitRequest {
    let topic = TxnOffsetCommitRequestTopic::default()
        .with_name(topic())
        .with_partitions(vec![TxnOffsetCommitRequestPartition::default()]);
    TxnOffsetCommitRequest::default()
        .with_transactional_id(transaction())
        .with_group_id(group())
        .with_topics(vec![topic])
}

/// A ListOffsets request of version 7.
pub fn list_offsets(timestamp: i64) -> ListOffsetsRequest {
    let partition =
        ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

/// An OffsetFetch request of version 9 for the topics, or for all topics if `None`.
pub fn fetch_offsets(topics: Option<Vec<OffsetFetchRequestTopics>>) -> OffsetFetchRequest {
    let group = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(topics);
    OffsetFetchRequest::default().with_groups(vec![group])
}

/// The partition of [`TOPIC`] in an OffsetFetch request.
pub fn named_topic() -> OffsetFetchRequestTopics {
    OffsetFetchRequestTopics::default().with_name(topic()).with_partition_indexes(vec![0])
}

/// A Fetch request of version 12.
fn fetch(replica_id: i32, topic: FetchTopic) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    FetchRequest::default()
        .with_replica_id(BrokerId(replica_id))
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic.with_partitions(vec![partition])])
}

/// A member joins a consumer group and gets the partition of the topic. Then the group is described.
fn consumer_group_requests() -> Vec<Sent> {
    let group = || GroupId(text("consumers"));
    let heartbeat = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text("member"))
        .with_rebalance_timeout_ms(10_000)
        .with_subscribed_topic_names(Some(vec![topic()]))
        .with_topic_partitions(Some(Vec::new()));
    let described = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group()]);
    vec![to_broker(1, &heartbeat), to_broker(1, &described)]
}

fn data_requests(topic_id: Uuid) -> Vec<Sent> {
    let records = DeleteRecordsTopic::default()
        .with_name(topic())
        .with_partitions(vec![DeleteRecordsPartition::default().with_offset(1)]);
    let by_id = || FetchTopic::default().with_topic_id(topic_id);
    vec![
        to_broker(9, &produce(false)),
        to_broker(9, &produce(true)),
        to_broker(13, &produce_to(TopicProduceData::default().with_topic_id(topic_id), false)),
        to_broker(12, &fetch(-1, FetchTopic::default().with_topic(topic()))),
        to_broker(13, &fetch(-1, by_id())),
        to_broker(12, &fetch(3, FetchTopic::default().with_topic(topic()))),
        to_controller(12, &fetch(3, FetchTopic::default().with_topic(topic()))),
        to_broker(7, &list_offsets(-1)),
        to_broker(
            2,
            &DeleteRecordsRequest::default().with_topics(vec![records]).with_timeout_ms(10_000),
        ),
    ]
}

fn produce_to(topic: TopicProduceData, is_transactional: bool) -> ProduceRequest {
    let (producer_id, producer_epoch, base_sequence) =
        if is_transactional { (1, 0, 0) } else { (-1, -1, -1) };
    let mut builder = BatchBuilder::new(BatchOptions {
        is_transactional,
        producer_id,
        producer_epoch,
        base_sequence,
        ..BatchOptions::default()
    });
    builder.append(1_000, None, Some(b"value"), &[]);
    let batch = builder.build();
    let records = [&batch.header.to_bytes()[..], &batch.payload].concat();
    let data = PartitionProduceData::default().with_records(Some(records.into()));
    ProduceRequest::default()
        .with_transactional_id(is_transactional.then(transaction))
        .with_acks(1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic.with_partition_data(vec![data])])
}

fn metadata(names: &[&'static str]) -> MetadataRequest {
    let names = names.iter().map(|name| Some(TopicName(text(name))));
    let topics = names.map(|name| MetadataRequestTopic::default().with_name(name));
    MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(true)
        .with_include_cluster_authorized_operations(true)
        .with_include_topic_authorized_operations(true)
}

/// A FindCoordinator request of version 6.
pub fn find_coordinator(key_type: i8, key: &'static str) -> FindCoordinatorRequest {
    FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(vec![text(key)])
}

fn create_partitions() -> CreatePartitionsRequest {
    let topic = CreatePartitionsTopic::default().with_name(topic()).with_count(2);
    let topic = topic.with_assignments(None);
    CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
}

/// Brokers check only changes of log levels. The controller checks all changes of configs.
fn config_requests() -> Vec<Sent> {
    let configs = [
        (TOPIC_CONFIGS, TOPIC, "retention.ms", "1000"),
        (BROKER_CONFIGS, "", "message.max.bytes", "2000000"),
        (GROUP_CONFIGS, GROUP, "consumer.session.timeout.ms", "46000"),
    ];
    let levels = [(LOG_LEVELS, "3", "root", "INFO")];
    let described = configs.map(|(kind, name, ..)| {
        let resource = DescribeConfigsResource::default().with_resource_type(kind);
        resource.with_resource_name(text(name)).with_configuration_keys(None)
    });
    vec![
        to_broker(4, &DescribeConfigsRequest::default().with_resources(described.into())),
        to_controller(1, &incremental_alter_configs(&configs)),
        to_controller(2, &alter_configs(&configs)),
        to_broker(1, &incremental_alter_configs(&levels)),
        to_controller(1, &incremental_alter_configs(&levels)),
    ]
}

/// The type and the name of a resource, and the name and the value of its config.
type ConfigValue = (i8, &'static str, &'static str, &'static str);

fn incremental_alter_configs(configs: &[ConfigValue]) -> IncrementalAlterConfigsRequest {
    let resources = configs.iter().map(|(kind, resource, name, value)| {
        let config = AlterableConfig::default().with_name(text(name));
        AlterConfigsResource::default()
            .with_resource_type(*kind)
            .with_resource_name(text(resource))
            .with_configs(vec![config.with_value(Some(text(value)))])
    });
    IncrementalAlterConfigsRequest::default().with_resources(resources.collect())
}

fn alter_configs(configs: &[ConfigValue]) -> AlterConfigsRequest {
    let resources = configs.iter().map(|(kind, resource, name, value)| {
        let config = alter_configs_request::AlterableConfig::default().with_name(text(name));
        alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(*kind)
            .with_resource_name(text(resource))
            .with_configs(vec![config.with_value(Some(text(value)))])
    });
    AlterConfigsRequest::default().with_resources(resources.collect())
}

/// Requests about offsets of the group. The last one deletes its offset.
pub fn offset_requests() -> Vec<Sent> {
    let deleted = OffsetDeleteRequestTopic::default()
        .with_name(topic())
        .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
    vec![
        to_broker(9, &commit_offset()),
        to_broker(5, &commit_offset_in_transaction()),
        to_broker(9, &fetch_offsets(Some(vec![named_topic()]))),
        to_broker(9, &fetch_offsets(None)),
        to_broker(
            0,
            &OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![deleted]),
        ),
    ]
}

pub fn to_broker<R: Request>(version: i16, request: &R) -> Sent {
    let frame = encode(version, request).expect("encodes");
    Sent { to_controller_listener: false, frame }
}

pub fn to_controller<R: Request>(version: i16, request: &R) -> Sent {
    Sent { to_controller_listener: true, ..to_broker(version, request) }
}

pub fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text(TOPIC))
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

fn transaction() -> TransactionalId {
    TransactionalId(text("transaction"))
}
