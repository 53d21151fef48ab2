//! Tests of the messages against bytes that Kafka 4.3.1's Java classes wrote, and against the
//! message crate in the versions that it has.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages as crates,
    protocol::{Decodable, Encodable, Message, StrBytes},
};
use uuid::Uuid;

use super::*;

/// One message: the bytes, in hex, that Kafka writes for it in some versions.
type Golden = &'static [(i16, &'static str)];

const WRITE_TXN_MARKERS_REQUEST: Golden = &[
    (1, "0200000000000000070003010206746f70696303000000000000000400000000050000"),
    (2, "0200000000000000070003010206746f7069630300000000000000040000000005020000"),
];

const WRITE_TXN_MARKERS_RESPONSE: Golden = &[
    (1, "0200000000000000070206746f7069630200000004003300000000"),
    (2, "0200000000000000070206746f7069630200000004003300000000"),
];

const OFFSET_COMMIT_REQUEST: Golden = &[
    (
        2,
        "00036772700000000500026d31000000000000004d000000010005746f70696300000002000000010000\
        00000000002a00046d65746100000002000000000000002bffff",
    ),
    (
        5,
        "00036772700000000500026d31000000010005746f7069630000000200000001000000000000002a0004\
        6d65746100000002000000000000002bffff",
    ),
    (
        6,
        "00036772700000000500026d31000000010005746f7069630000000200000001000000000000002a0000\
        000300046d65746100000002000000000000002bffffffffffff",
    ),
    (
        7,
        "00036772700000000500026d310004696e7374000000010005746f706963000000020000000100000000\
        0000002a0000000300046d65746100000002000000000000002bffffffffffff",
    ),
    (
        8,
        "0467727000000005036d3105696e73740206746f7069630300000001000000000000002a00000003056d\
        6574610000000002000000000000002bffffffff00000000",
    ),
    (
        9,
        "0467727000000005036d3105696e73740206746f7069630300000001000000000000002a00000003056d\
        6574610000000002000000000000002bffffffff00000000",
    ),
    (
        10,
        "0467727000000005036d3105696e7374020102030405060708090a0b0c0d0e0f10030000000100000000\
        0000002a00000003056d6574610000000002000000000000002bffffffff00000000",
    ),
];

const OFFSET_COMMIT_RESPONSE: Golden = &[
    (2, "000000010005746f70696300000001000000010019"),
    (3, "00000009000000010005746f70696300000001000000010019"),
    (8, "000000090206746f70696302000000010019000000"),
    (10, "00000009020102030405060708090a0b0c0d0e0f1002000000010019000000"),
];

const OFFSET_FETCH_REQUEST: Golden = &[
    (1, "0003677270000000010005746f706963000000020000000000000005"),
    (2, "0003677270000000010005746f706963000000020000000000000005"),
    (6, "046772700206746f7069630300000000000000050000"),
    (7, "046772700206746f706963030000000000000005000100"),
    (8, "030367310206746f706963030000000000000005000003673200000100"),
    (9, "03036731036d31000000040206746f706963030000000000000005000003673200ffffffff00000100"),
    (
        10,
        "03036731036d3100000004020102030405060708090a0b0c0d0e0f100300000000000000050000036732\
        00ffffffff00000100",
    ),
];

const OFFSET_FETCH_REQUEST_NULL: Golden =
    &[(2, "0003677270ffffffff"), (6, "046772700000"), (7, "04677270000000")];

const OFFSET_FETCH_RESPONSE: Golden = &[
    (1, "000000010005746f7069630000000100000001000000000000002a00046d6574610058"),
    (2, "000000010005746f7069630000000100000001000000000000002a00046d6574610058000e"),
    (3, "00000009000000010005746f7069630000000100000001000000000000002a00046d6574610058000e"),
    (
        5,
        "00000009000000010005746f7069630000000100000001000000000000002a0000000300046d65746100\
        58000e",
    ),
    (7, "000000090206746f7069630200000001000000000000002a00000003056d65746100580000000e00"),
    (8, "00000009020367310206746f7069630200000001000000000000002a000000030000580000000e0000"),
    (
        10,
        "0000000902036731020102030405060708090a0b0c0d0e0f100200000001000000000000002a00000003\
        0000580000000e0000",
    ),
];

const DESCRIBE_LOG_DIRS_RESPONSE: Golden = &[
    (
        1,
        "0000000900000001003800022f64000000010005746f7069630000000100000001000000000000000700\
        0000000000000801",
    ),
    (2, "00000009020038032f640206746f7069630200000001000000000000000700000000000000080100000000"),
    (
        3,
        "00000009001f020038032f640206746f7069630200000001000000000000000700000000000000080100\
        000000",
    ),
    (
        4,
        "00000009001f020038032f640206746f7069630200000001000000000000000700000000000000080100\
        0000000000000003e800000000000001f40000",
    ),
    (
        5,
        "00000009001f020038032f640206746f7069630200000001000000000000000700000000000000080100\
        0000000000000003e800000000000001f4010000",
    ),
];

const DESCRIBE_LOG_DIRS_REQUEST: Golden = &[
    (1, "000000010005746f706963000000020000000000000005"),
    (2, "0206746f7069630300000000000000050000"),
];

const DESCRIBE_LOG_DIRS_REQUEST_NULL: Golden = &[(1, "ffffffff"), (2, "0000")];

const BROKER_HEARTBEAT_REQUEST: Golden = &[
    (0, "00000003000000000000002a000000000000002b010000"),
    (1, "00000003000000000000002a000000000000002b0100010011020102030405060708090a0b0c0d0e0f10"),
    (
        2,
        "00000003000000000000002a000000000000002b0100020011020102030405060708090a0b0c0d0e0f10\
        0111020102030405060708090a0b0c0d0e0f10",
    ),
];

const BROKER_HEARTBEAT_REQUEST_NONE_CORDONED: Golden = &[(
    2,
    "00000003000000000000002a000000000000002b0100020011020102030405060708090a0b0c0d0e0f10\
    010101",
)];

const BROKER_HEARTBEAT_RESPONSE: Golden =
    &[(0, "00000009001f01000100"), (2, "00000009001f01000100")];

const LIST_OFFSETS_REQUEST: Golden = &[
    (1, "ffffffff000000010005746f7069630000000100000001fffffffffffffffa"),
    (2, "ffffffff01000000010005746f7069630000000100000001fffffffffffffffa"),
    (4, "ffffffff01000000010005746f706963000000010000000100000003fffffffffffffffa"),
    (6, "ffffffff010206746f706963020000000100000003fffffffffffffffa000000"),
    (10, "ffffffff010206746f706963020000000100000003fffffffffffffffa00000000753000"),
    (11, "ffffffff010206746f706963020000000100000003fffffffffffffffa00000000753000"),
];

const LIST_OFFSETS_RESPONSE: Golden = &[
    (1, "000000010005746f706963000000010000000100030000000000000063000000000000002a"),
    (2, "00000009000000010005746f706963000000010000000100030000000000000063000000000000002a"),
    (
        4,
        "00000009000000010005746f706963000000010000000100030000000000000063000000000000002a00\
        000003",
    ),
    (6, "000000090206746f706963020000000100030000000000000063000000000000002a00000003000000"),
    (11, "000000090206746f706963020000000100030000000000000063000000000000002a00000003000000"),
];

const TOPIC_ID: Uuid = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn encoded<T: Encodable>(message: &T, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).expect("encodes");
    assert_eq!(message.compute_size(version).expect("has a size"), out.len());
    out.to_vec()
}

fn decoded<T: Decodable>(bytes: &[u8], version: i16) -> T {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let message = T::decode(&mut bytes, version).expect("decodes");
    assert!(bytes.is_empty(), "bytes are left");
    message
}

/// Checks that a message encodes to Kafka's bytes, and that the bytes decode and encode to
/// themselves. If the message crate has the version, its type must do so, too.
fn check<T, C>(message: &T, golden: Golden)
where
    T: Message + Encodable + Decodable,
    C: Message + Encodable + Decodable,
{
    for (version, hex) in golden {
        let (version, bytes) = (*version, unhex(hex));
        assert_eq!(encoded(message, version), bytes, "version {version}");
        assert_eq!(encoded(&decoded::<T>(&bytes, version), version), bytes, "version {version}");
        if version <= C::VERSIONS.max {
            let theirs = encoded(&decoded::<C>(&bytes, version), version);
            assert_eq!(theirs, bytes, "version {version}");
        }
    }
}

#[test]
fn offset_commit_request() {
    let partition = |partition_index, committed_offset| OffsetCommitRequestPartition {
        partition_index,
        committed_offset,
        ..Default::default()
    };
    let first = OffsetCommitRequestPartition {
        committed_leader_epoch: 3,
        committed_metadata: Some(text("meta")),
        ..partition(1, 42)
    };
    let topic = OffsetCommitRequestTopic {
        name: text("topic"),
        topic_id: TOPIC_ID,
        partitions: vec![first, partition(2, 43)],
    };
    let message = OffsetCommitRequest {
        group_id: text("grp"),
        generation_id_or_member_epoch: 5,
        member_id: text("m1"),
        group_instance_id: Some(text("inst")),
        retention_time_ms: 77,
        topics: vec![topic],
    };
    check::<_, crates::OffsetCommitRequest>(&message, OFFSET_COMMIT_REQUEST);
}

#[test]
fn offset_commit_response() {
    let partition = OffsetCommitResponsePartition { partition_index: 1, error_code: 25 };
    let topic = OffsetCommitResponseTopic {
        name: text("topic"),
        topic_id: TOPIC_ID,
        partitions: vec![partition],
    };
    let message = OffsetCommitResponse { throttle_time_ms: 9, topics: vec![topic] };
    check::<_, crates::OffsetCommitResponse>(&message, OFFSET_COMMIT_RESPONSE);
}

#[test]
fn offset_fetch_request() {
    let old_topic = OffsetFetchRequestTopic { name: text("topic"), partition_indexes: vec![0, 5] };
    let topic = OffsetFetchRequestTopics {
        name: text("topic"),
        topic_id: TOPIC_ID,
        partition_indexes: vec![0, 5],
    };
    let first = OffsetFetchRequestGroup {
        group_id: text("g1"),
        member_id: Some(text("m1")),
        member_epoch: 4,
        topics: Some(vec![topic]),
    };
    let second =
        OffsetFetchRequestGroup { group_id: text("g2"), topics: None, ..Default::default() };
    let message = OffsetFetchRequest {
        group_id: text("grp"),
        topics: Some(vec![old_topic]),
        groups: vec![first, second],
        require_stable: true,
    };
    check::<_, crates::OffsetFetchRequest>(&message, OFFSET_FETCH_REQUEST);
    let all = OffsetFetchRequest { group_id: text("grp"), topics: None, ..Default::default() };
    check::<_, crates::OffsetFetchRequest>(&all, OFFSET_FETCH_REQUEST_NULL);
}

#[test]
fn offset_fetch_response() {
    let old_partition = OffsetFetchResponsePartition {
        partition_index: 1,
        committed_offset: 42,
        committed_leader_epoch: 3,
        metadata: Some(text("meta")),
        error_code: 88,
    };
    let partition = OffsetFetchResponsePartitions {
        partition_index: 1,
        committed_offset: 42,
        committed_leader_epoch: 3,
        metadata: None,
        error_code: 88,
    };
    let old_topic =
        OffsetFetchResponseTopic { name: text("topic"), partitions: vec![old_partition] };
    let topic = OffsetFetchResponseTopics {
        name: text("topic"),
        topic_id: TOPIC_ID,
        partitions: vec![partition],
    };
    let group =
        OffsetFetchResponseGroup { group_id: text("g1"), topics: vec![topic], error_code: 14 };
    let message = OffsetFetchResponse {
        throttle_time_ms: 9,
        topics: vec![old_topic],
        error_code: 14,
        groups: vec![group],
    };
    check::<_, crates::OffsetFetchResponse>(&message, OFFSET_FETCH_RESPONSE);
}

#[test]
fn describe_log_dirs() {
    let partition = DescribeLogDirsPartition {
        partition_index: 1,
        partition_size: 7,
        offset_lag: 8,
        is_future_key: true,
    };
    let result = DescribeLogDirsResult {
        error_code: 56,
        log_dir: text("/d"),
        topics: vec![DescribeLogDirsTopic { name: text("topic"), partitions: vec![partition] }],
        total_bytes: 1000,
        usable_bytes: 500,
        is_cordoned: true,
    };
    let message =
        DescribeLogDirsResponse { throttle_time_ms: 9, error_code: 31, results: vec![result] };
    check::<_, crates::DescribeLogDirsResponse>(&message, DESCRIBE_LOG_DIRS_RESPONSE);

    let topic = DescribableLogDirTopic { topic: text("topic"), partitions: vec![0, 5] };
    let some = DescribeLogDirsRequest { topics: Some(vec![topic]) };
    check::<_, crates::DescribeLogDirsRequest>(&some, DESCRIBE_LOG_DIRS_REQUEST);
    let all = DescribeLogDirsRequest { topics: None };
    check::<_, crates::DescribeLogDirsRequest>(&all, DESCRIBE_LOG_DIRS_REQUEST_NULL);
}

#[test]
fn broker_heartbeat() {
    let mut request = BrokerHeartbeatRequest {
        broker_id: 3,
        broker_epoch: 42,
        current_metadata_offset: 43,
        want_fence: true,
        want_shut_down: false,
        offline_log_dirs: vec![TOPIC_ID],
        cordoned_log_dirs: Some(vec![TOPIC_ID]),
    };
    check::<_, crates::BrokerHeartbeatRequest>(&request, BROKER_HEARTBEAT_REQUEST);
    request.cordoned_log_dirs = Some(vec![]);
    let none = BROKER_HEARTBEAT_REQUEST_NONE_CORDONED;
    check::<_, crates::BrokerHeartbeatRequest>(&request, none);
    let response = BrokerHeartbeatResponse {
        throttle_time_ms: 9,
        error_code: 31,
        is_caught_up: true,
        is_fenced: false,
        should_shut_down: true,
    };
    check::<_, crates::BrokerHeartbeatResponse>(&response, BROKER_HEARTBEAT_RESPONSE);
}

#[test]
fn list_offsets() {
    let partition =
        ListOffsetsPartition { partition_index: 1, current_leader_epoch: 3, timestamp: -6 };
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level: 1,
        topics: vec![ListOffsetsTopic { name: text("topic"), partitions: vec![partition] }],
        timeout_ms: 30_000,
    };
    check::<_, crates::ListOffsetsRequest>(&request, LIST_OFFSETS_REQUEST);

    let partition = ListOffsetsPartitionResponse {
        partition_index: 1,
        error_code: 3,
        timestamp: 99,
        offset: 42,
        leader_epoch: 3,
    };
    let topic = ListOffsetsTopicResponse { name: text("topic"), partitions: vec![partition] };
    let response = ListOffsetsResponse { throttle_time_ms: 9, topics: vec![topic] };
    check::<_, crates::ListOffsetsResponse>(&response, LIST_OFFSETS_RESPONSE);
}

#[test]
fn write_txn_markers() {
    let topic = WritableTxnMarkerTopic { name: text("topic"), partition_indexes: vec![0, 4] };
    let marker = WritableTxnMarker {
        producer_id: 7,
        producer_epoch: 3,
        transaction_result: true,
        topics: vec![topic],
        coordinator_epoch: 5,
        transaction_version: 2,
    };
    let request = WriteTxnMarkersRequest { markers: vec![marker] };
    check::<_, crates::WriteTxnMarkersRequest>(&request, WRITE_TXN_MARKERS_REQUEST);

    let partition = WritableTxnMarkerPartitionResult { partition_index: 4, error_code: 51 };
    let topic = WritableTxnMarkerTopicResult { name: text("topic"), partitions: vec![partition] };
    let marker = WritableTxnMarkerResult { producer_id: 7, topics: vec![topic] };
    let response = WriteTxnMarkersResponse { markers: vec![marker] };
    check::<_, crates::WriteTxnMarkersResponse>(&response, WRITE_TXN_MARKERS_RESPONSE);
}

/// The strings of a decoded request share the bytes of its frame.
#[test]
fn nothing_is_copied_from_the_frame() {
    let (version, hex) = OFFSET_COMMIT_REQUEST[6];
    let frame = Bytes::from(unhex(hex));
    let request: OffsetCommitRequest =
        Decodable::decode(&mut frame.clone(), version).expect("decodes");
    let group_id = request.group_id.as_str().as_ptr();
    assert!(frame.as_ptr_range().contains(&group_id));
}

#[test]
fn other_versions_are_errors() {
    let message = OffsetCommitRequest::default();
    for version in [-1, 1, 11] {
        assert!(Encodable::encode(&message, &mut BytesMut::new(), version).is_err());
        let mut bytes = Bytes::from_static(&[0; 64]);
        assert!(<OffsetCommitRequest as Decodable>::decode(&mut bytes, version).is_err());
    }
}
