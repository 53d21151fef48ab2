//! Values as Kafka 4.3.1's own classes (`ConsumerGroup...Value`) encode them, and a recording.

use std::fmt::Debug;

use super::*;
use crate::coordinator::group::{LoggedState, Record};

const TOPIC_ID: TopicId = TopicId::from_u128(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);

fn group(metadata_hash: i64) -> GroupMetadata {
    GroupMetadata { epoch: 7, metadata_hash }
}

fn target_epoch(assignment_timestamp: i64) -> TargetAssignmentMetadata {
    TargetAssignmentMetadata { assignment_epoch: 7, assignment_timestamp }
}

/// A member of the consumer protocol, subscribed by names.
fn consumer_member() -> MemberMetadata {
    MemberMetadata {
        instance_id: None,
        rack_id: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        subscribed_topic_names: vec!["foo".into(), "bar".into()],
        subscribed_topic_regex: None,
        rebalance_timeout_ms: 300_000,
        server_assignor: None,
        classic_member_metadata: None,
    }
}

/// A member with every field set.
fn full_member() -> MemberMetadata {
    let range = ClassicProtocol { name: "range".into(), metadata: Bytes::from_static(&[0, 1, 2]) };
    MemberMetadata {
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
    }
}

/// The member that Kafka encodes if no field is set: empty strings instead of nulls.
fn default_member() -> MemberMetadata {
    let empty = Some(String::new());
    MemberMetadata {
        instance_id: empty.clone(),
        rack_id: empty.clone(),
        subscribed_topic_regex: empty.clone(),
        server_assignor: empty,
        ..MemberMetadata::default()
    }
}

fn full_target() -> TargetAssignmentMember {
    let topic = TargetPartitions { topic_id: TOPIC_ID, partitions: vec![0, 2] };
    TargetAssignmentMember { topic_partitions: vec![topic] }
}

fn full_assignment() -> CurrentMemberAssignment {
    let topic = |partitions, assignment_epochs| CurrentPartitions {
        topic_id: TOPIC_ID,
        partitions,
        assignment_epochs,
    };
    CurrentMemberAssignment {
        member_epoch: 7,
        previous_member_epoch: 6,
        state: 1,
        assigned_partitions: vec![topic(vec![0, 2], Some(vec![5, 7]))],
        partitions_pending_revocation: vec![topic(vec![1], None)],
    }
}

fn full_regex() -> RegularExpression {
    RegularExpression {
        topics: vec!["bar".into(), "foo".into()],
        version: 12,
        timestamp: 1_700_000_000_000,
    }
}

/// Checks a value against the bytes that Kafka writes for it, and that no part of them is accepted.
fn check<T: WireMessage + PartialEq + Debug>(hex: &str, value: T) {
    let bytes = bytes_of(hex);
    assert_eq!(encode(&value), bytes, "{value:?}");
    for len in 0..bytes.len() {
        assert!(decode::<T>(bytes.slice(..len)).is_err(), "{len} of {hex}");
    }
    let followed = Bytes::from([&bytes[..], &[0]].concat());
    assert_eq!(decode::<T>(followed).as_ref(), Ok(&value));
    assert_eq!(decode::<T>(bytes), Ok(value));
}

fn bytes_of(hex: &str) -> Bytes {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn values_of_kafka_are_decoded_and_encoded_to_the_same_bytes() {
    check("00000000000700", group(0));
    check("0000000000070100083ab7dc17403bfe50", group(4_231_092_367_357_902_416));
    check("0000010101010101ffffffff0100", default_member());
    check(
        "0000000002630b2f3132372e302e302e310304666f6f0462617200000493e00001000100",
        consumer_member(),
    );
    check(
        "00000269027202630b2f3132372e302e302e310204666f6f04662e2a000493e008756e69666f726d\
         010012010000afc8020672616e6765040001020000",
        full_member(),
    );
    check("00000000000700", target_epoch(0));
    check("0000000000070100080000018bcfe56800", target_epoch(1_700_000_000_000));
    check("00000100", TargetAssignmentMember::default());
    check("0000020123456789abcdeffedcba98765432100300000000000000020000", full_target());
    check("0000000000000000000000010100", CurrentMemberAssignment::default());
    check(
        "0000000000070000000601020123456789abcdeffedcba9876543210030000000000000002\
         010009030000000500000007020123456789abcdeffedcba987654321002000000010000",
        full_assignment(),
    );
    check("0000010000000000000000000000000000000000", RegularExpression::default());
    check("0000030462617204666f6f000000000000000c0000018bcfe5680000", full_regex());
}

#[test]
fn unknown_tagged_fields_are_ignored_and_unknown_versions_refused() {
    assert_eq!(decode(bytes_of("00000000000701050109")), Ok(group(0))); // tag 5
    for (hex, version) in [("00010000000700", 1), ("ffff0000000700", -1)] {
        let decoded = decode::<GroupMetadata>(bytes_of(hex));
        assert_eq!(decoded, Err(WireError::UnsupportedVersion(version)));
    }
}

#[test]
fn all_records_of_a_recorded_group_are_encoded_to_the_same_bytes() {
    let recording = include_str!("recorded_records.txt");
    let mut logged = LoggedState::default();
    for line in recording.lines().filter(|line| !line.starts_with('#')) {
        let (key, value) = line.split_once(' ').unwrap();
        let (key, value) = (bytes_of(key), (value != "-").then(|| bytes_of(value)));
        let record = Record::decode(key.clone(), value.clone()).unwrap().unwrap();
        assert!(matches!(record, Record::Consumer(_)), "{record:?}");
        assert_eq!(record.encode(), (key, value));
        logged.apply(0, &record);
    }
    let groups: Vec<_> = logged.consumer_groups().map(|(id, group)| (&**id, group.epoch)).collect();
    assert_eq!(groups, [("modern", 3), ("regex", 3)]);
}
