//! Values as Kafka 4.3.1's own classes (`ConsumerGroup...Value`) encode them, and a recording.

use super::*;
use crate::coordinator::group::{LoggedState, Record};

const TOPIC_ID: TopicId = TopicId::from_u128(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);

fn group(metadata_hash: i64) -> UnservedValue {
    UnservedValue::GroupMetadata(GroupMetadata { epoch: 7, metadata_hash })
}

fn target_epoch(assignment_timestamp: i64) -> UnservedValue {
    let value = TargetAssignmentMetadata { assignment_epoch: 7, assignment_timestamp };
    UnservedValue::TargetAssignmentMetadata(value)
}

/// A member of the consumer protocol, subscribed by names.
fn consumer_member() -> UnservedValue {
    UnservedValue::MemberMetadata(MemberMetadata {
        instance_id: None,
        rack_id: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        subscribed_topic_names: vec!["foo".into(), "bar".into()],
        subscribed_topic_regex: None,
        rebalance_timeout_ms: 300_000,
        server_assignor: None,
        classic_member_metadata: None,
    })
}

/// A member with every field set.
fn full_member() -> UnservedValue {
    let range = ClassicProtocol { name: "range".into(), metadata: Bytes::from_static(&[0, 1, 2]) };
    UnservedValue::MemberMetadata(MemberMetadata {
        instance_id: Some("i".into()),
        rack_id: Some("r".into()),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        subscribed_topic_names: vec!["foo".into()],
        subscribed_topic_regex: Some("f.*".into()),
        rebalance_timeout_ms: 300_000,
        server_assignor: Some("uniform".into()),
        classic_member_metadata: Some(ClassicMemberMetadata {
            session_timeout_ms: 45_000,
            supported_protocols: vec![range],
        }),
    })
}

/// The member that Kafka encodes if no field is set: empty strings instead of nulls.
fn default_member() -> UnservedValue {
    let empty = Some(String::new());
    UnservedValue::MemberMetadata(MemberMetadata {
        instance_id: empty.clone(),
        rack_id: empty.clone(),
        subscribed_topic_regex: empty.clone(),
        server_assignor: empty,
        ..MemberMetadata::default()
    })
}

fn full_target() -> UnservedValue {
    let topic = TargetPartitions { topic_id: TOPIC_ID, partitions: vec![0, 2] };
    UnservedValue::TargetAssignmentMember(TargetAssignmentMember { topic_partitions: vec![topic] })
}

fn full_assignment() -> UnservedValue {
    let topic = |partitions, assignment_epochs| CurrentPartitions {
        topic_id: TOPIC_ID,
        partitions,
        assignment_epochs,
    };
    UnservedValue::CurrentMemberAssignment(CurrentMemberAssignment {
        member_epoch: 7,
        previous_member_epoch: 6,
        state: 1,
        assigned_partitions: vec![topic(vec![0, 2], Some(vec![5, 7]))],
        partitions_pending_revocation: vec![topic(vec![1], None)],
    })
}

fn full_regex() -> UnservedValue {
    UnservedValue::RegularExpression(RegularExpression {
        topics: vec!["bar".into(), "foo".into()],
        version: 12,
        timestamp: 1_700_000_000_000,
    })
}

/// The key type, the bytes that Kafka writes, and the value.
fn samples() -> Vec<(i16, Bytes, UnservedValue)> {
    let samples = [
        (METADATA, "00000000000700", group(0)),
        (METADATA, "0000000000070100083ab7dc17403bfe50", group(4_231_092_367_357_902_416)),
        (MEMBER_METADATA, "0000010101010101ffffffff0100", default_member()),
        (
            MEMBER_METADATA,
            "0000000002630b2f3132372e302e302e310304666f6f0462617200000493e00001000100",
            consumer_member(),
        ),
        (
            MEMBER_METADATA,
            "00000269027202630b2f3132372e302e302e310204666f6f04662e2a000493e008756e69666f726d\
             010012010000afc8020672616e6765040001020000",
            full_member(),
        ),
        (TARGET_ASSIGNMENT_METADATA, "00000000000700", target_epoch(0)),
        (
            TARGET_ASSIGNMENT_METADATA,
            "0000000000070100080000018bcfe56800",
            target_epoch(1_700_000_000_000),
        ),
        (
            TARGET_ASSIGNMENT_MEMBER,
            "00000100",
            UnservedValue::TargetAssignmentMember(TargetAssignmentMember::default()),
        ),
        (
            TARGET_ASSIGNMENT_MEMBER,
            "0000020123456789abcdeffedcba98765432100300000000000000020000",
            full_target(),
        ),
        (
            CURRENT_MEMBER_ASSIGNMENT,
            "0000000000000000000000010100",
            UnservedValue::CurrentMemberAssignment(CurrentMemberAssignment::default()),
        ),
        (
            CURRENT_MEMBER_ASSIGNMENT,
            "0000000000070000000601020123456789abcdeffedcba9876543210030000000000000002\
             010009030000000500000007020123456789abcdeffedcba987654321002000000010000",
            full_assignment(),
        ),
        (
            REGULAR_EXPRESSION,
            "0000010000000000000000000000000000000000",
            UnservedValue::RegularExpression(RegularExpression::default()),
        ),
        (
            REGULAR_EXPRESSION,
            "0000030462617204666f6f000000000000000c0000018bcfe5680000",
            full_regex(),
        ),
    ];
    samples.map(|(key_type, hex, value)| (key_type, bytes_of(hex), value)).into()
}

fn bytes_of(hex: &str) -> Bytes {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn values_of_kafka_are_decoded_and_encoded_to_the_same_bytes() {
    for (key_type, bytes, value) in samples() {
        assert_eq!(UnservedValue::decode(key_type, bytes.clone()), value);
        assert_eq!(value.encode(), bytes, "{value:?}");
    }
}

#[test]
fn truncated_and_too_long_values_keep_their_bytes() {
    for (key_type, bytes, _) in samples() {
        for len in 0..bytes.len() {
            let prefix = bytes.slice(..len);
            let value = UnservedValue::decode(key_type, prefix.clone());
            assert_eq!(value, UnservedValue::Raw(prefix));
        }
        let too_long = Bytes::from([&bytes[..], &[0]].concat());
        let value = UnservedValue::decode(key_type, too_long.clone());
        assert_eq!(value, UnservedValue::Raw(too_long));
    }
}

#[test]
fn damaged_values_encode_to_the_same_bytes() {
    for (key_type, bytes, _) in samples() {
        for at in 0..bytes.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] = byte;
                let value = UnservedValue::decode(key_type, damaged.clone().into());
                assert_eq!(value.encode(), damaged);
            }
        }
    }
}

#[test]
fn values_of_unknown_versions_tags_and_types_keep_their_bytes() {
    let unknown = [
        (METADATA, "00010000000700"),                     // version 1
        (METADATA, "ffff0000000700"),                     // version -1
        (METADATA, "00000000000701050109"),               // tag 5
        (METADATA, "0000000000070100080000000000000000"), // a default that is written
        (METADATA, "00000000000701000400000000000000ff"), // a wrong size of a tagged field
        (4, "00000100"),                                  // ConsumerGroupPartitionMetadataValue
        (11, "00000000000700"),                           // a share group
        (17, "00000000000700"),                           // a streams group
    ];
    for (key_type, hex) in unknown {
        let bytes = bytes_of(hex);
        assert_eq!(UnservedValue::decode(key_type, bytes.clone()), UnservedValue::Raw(bytes));
    }
}

#[test]
fn all_records_of_a_recorded_group_are_decoded() {
    let recording = include_str!("recorded_records.txt");
    let mut logged = LoggedState::default();
    let mut values = 0;
    for line in recording.lines().filter(|line| !line.starts_with('#')) {
        let (key, value) = line.split_once(' ').unwrap();
        let (key, value) = (bytes_of(key), (value != "-").then(|| bytes_of(value)));
        let record = Record::decode(key.clone(), value.clone()).unwrap().unwrap();
        assert_eq!(record.encode(), (key, value));
        let Record::Unserved { value, .. } = &record else { panic!("{record:?}") };
        assert!(!matches!(value, Some(UnservedValue::Raw(_))), "{line}");
        values += usize::from(value.is_some());
        logged.apply(0, &record);
    }
    assert_eq!(values, 14);
    let groups: Vec<_> = logged.unserved_groups().map(|(id, _)| &**id).collect();
    assert_eq!(groups, ["modern", "regex"]);
}
