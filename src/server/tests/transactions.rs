//! Transactional batches and markers, on a node without a transaction coordinator.

use std::time::Duration;

use kafka_protocol::{messages::TopicName, protocol::StrBytes};

use super::{
    Node,
    requests::{self, GROUP, TOPIC, create_topic, list_offsets, produce},
};
use crate::{
    handlers::ErrorCode,
    protocol::messages::{WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest},
    records::{BatchBuilder, BatchOptions},
};

const OTHER_TOPIC: &str = "u";
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const NONE: i16 = 0;

async fn start() -> Node {
    let node = Node::start().await;
    for topic in [TOPIC, OTHER_TOPIC] {
        let created = node.ask(7, &create_topic(topic)).await;
        assert_eq!(created.topics[0].error_code, NONE, "{created:?}");
    }
    node
}

fn marker(producer_id: i64, epoch: i16, topics: &[(&'static str, &[i32])]) -> WritableTxnMarker {
    let topic = |(name, indexes): &(&'static str, &[i32])| WritableTxnMarkerTopic {
        name: StrBytes::from_static_str(name),
        partition_indexes: indexes.to_vec(),
    };
    WritableTxnMarker {
        producer_id,
        producer_epoch: epoch,
        transaction_result: true,
        topics: topics.iter().map(topic).collect(),
        coordinator_epoch: 5,
        transaction_version: 2,
    }
}

/// The error codes of the response, in the order of producers, topics and partitions.
async fn write(node: &Node, markers: Vec<WritableTxnMarker>) -> Vec<i16> {
    let response = node.ask(2, &WriteTxnMarkersRequest { markers }).await;
    let topics = response.markers.iter().flat_map(|marker| &marker.topics);
    topics.flat_map(|topic| &topic.partitions).map(|partition| partition.error_code).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_are_answered_by_partition() {
    let node = start().await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let first = marker(7, 3, &[(TOPIC, &[0, 0, 9]), ("missing", &[0]), (OTHER_TOPIC, &[0])]);
    let other = marker(6, 0, &[(TOPIC, &[0])]);
    // By producer and topic: 6 has `t`, 7 has `missing`, `t` and `u`.
    let expected = [NONE, unknown, NONE, unknown, NONE];
    assert_eq!(write(&node, vec![first, other]).await, expected);
    let ends = node.ask(7, &list_offsets(-1)).await;
    assert_eq!(ends.topics[0].partitions[0].offset, 2, "each marker is written once");
    let older_epoch = marker(7, 2, &[(TOPIC, &[0])]);
    let older_coordinator =
        WritableTxnMarker { coordinator_epoch: 4, ..marker(6, 1, &[(TOPIC, &[0])]) };
    let expected = [ErrorCode::TransactionCoordinatorFenced, ErrorCode::InvalidProducerEpoch];
    let codes = write(&node, vec![older_epoch, older_coordinator]).await;
    assert_eq!(codes, expected.map(|code| code.code()));
    assert_eq!(write(&node, vec![]).await, [0; 0]);
    node.stop().await;
}

/// Kafka refuses the whole request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_without_a_producer_are_refused() {
    let node = start().await;
    let refused = ErrorCode::UnknownServerError.code();
    for invalid in [marker(-1, 0, &[(TOPIC, &[0])]), marker(8, -1, &[(TOPIC, &[0])])] {
        let valid = marker(9, 0, &[(TOPIC, &[0])]);
        assert_eq!(write(&node, vec![valid, invalid]).await, [refused; 2]);
    }
    let ends = node.ask(7, &list_offsets(-1)).await;
    assert_eq!(ends.topics[0].partitions[0].offset, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_coordinator_writes_its_markers() {
    let node = start().await;
    let found = node.ask(6, &requests::find_coordinator(0, GROUP)).await;
    assert_eq!(found.coordinators[0].error_code, NONE, "{found:?}");
    let partitions: &[i32] = &[0];
    let loading = ErrorCode::NotLeaderOrFollower.code();
    let mut codes = Vec::new();
    for _ in 0..1_000 {
        codes = write(&node, vec![marker(7, 3, &[(OFFSETS_TOPIC, partitions)])]).await;
        if !codes.contains(&loading) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(codes, [NONE]);
    let older = marker(7, 2, &[(OFFSETS_TOPIC, partitions)]);
    let invalid = ErrorCode::InvalidProducerEpoch.code();
    assert_eq!(write(&node, vec![older]).await, [invalid]);
    node.stop().await;
}

/// The coordinator cannot be asked. Batches of other partitions are appended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unverified_batch_is_refused_alone() {
    let node = start().await;
    let mut request = produce(true);
    let mut plain = produce(false).topic_data.remove(0);
    plain.name = TopicName(StrBytes::from_static_str(OTHER_TOPIC));
    request.topic_data.push(plain);
    let response = node.ask(9, &request).await;
    let [refused, appended] = &response.responses[..] else { panic!("{response:?}") };
    let refused = &refused.partition_responses[0];
    assert_eq!(refused.error_code, ErrorCode::NotEnoughReplicas.code(), "{refused:?}");
    assert_eq!((refused.base_offset, refused.log_start_offset), (-1, -1));
    let message = refused.error_message.as_ref().expect("names the reason");
    assert!(message.ends_with("COORDINATOR_NOT_AVAILABLE"), "{message}");
    let appended = &appended.partition_responses[0];
    assert_eq!((appended.error_code, appended.base_offset), (NONE, 0));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_two_producers_are_refused() {
    const PRODUCER_ID_AT: usize = 43;
    let node = start().await;
    let mut request = produce(true);
    let mut other = request.topic_data[0].clone();
    other.name = TopicName(StrBytes::from_static_str(OTHER_TOPIC));
    let records = other.partition_data[0].records.take().expect("has a batch");
    let mut records = records.to_vec();
    records[PRODUCER_ID_AT] = 1;
    other.partition_data[0].records = Some(records.into());
    let mut plain = produce(false).topic_data.remove(0);
    plain.name = TopicName(StrBytes::from_static_str("missing"));
    request.topic_data.extend([other, plain]);
    let response = node.ask(9, &request).await;
    assert_eq!(response.responses.len(), 3);
    for topic in &response.responses {
        let refused = &topic.partition_responses[0];
        assert_eq!(refused.error_code, ErrorCode::InvalidProducerIdMapping.code(), "{refused:?}");
    }
    node.stop().await;
}

/// Kafka 4.5 refuses a gap at the begin of a partition that never had a record (KAFKA-15591).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_decides_on_a_gap_in_a_new_partition() {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: 7,
        producer_epoch: 0,
        base_sequence: 5,
        ..BatchOptions::default()
    });
    builder.append(1_000, None, Some(b"value"), &[]);
    let batch = builder.build();
    let records = [&batch.header.to_bytes()[..], &batch.payload].concat();
    let mut request = produce(false);
    request.topic_data[0].partition_data[0].records = Some(records.into());
    for (enabled, is_appended) in [("false", true), ("true", false)] {
        let node = Node::start_with([("unstable.api.versions.enable", enabled)]).await;
        node.ask(7, &create_topic(TOPIC)).await;
        let response = node.ask(9, &request).await;
        let code = response.responses[0].partition_responses[0].error_code;
        let refused = ErrorCode::OutOfOrderSequenceNumber.code();
        assert_eq!(code, if is_appended { NONE } else { refused }, "{enabled}");
        node.stop().await;
    }
}
