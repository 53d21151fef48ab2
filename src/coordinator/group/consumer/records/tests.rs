use std::collections::BTreeMap;

use super::*;
use crate::{
    base::TopicId,
    coordinator::group::{
        Record,
        consumer::values::{ClassicMemberMetadata, ClassicProtocol},
    },
};

const TOPIC: TopicId = TopicId::from_u128(7);

fn record(change: ConsumerChange) -> Record {
    Record::Consumer(ConsumerRecord { group: "g".into(), change })
}

/// A member with every field set.
fn member() -> Subscription {
    let protocol = ClassicProtocol { name: "range".into(), metadata: Bytes::from_static(b"meta") };
    Subscription {
        instance_id: Some("i".into()),
        rack_id: Some("r".into()),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        topic_names: ["t", "u"].map(Arc::from).into(),
        topic_regex: Some("x.*".into()),
        rebalance_timeout_ms: 5,
        assignor: Some("uniform".into()),
        classic: Some(ClassicMemberMetadata {
            session_timeout_ms: 6,
            supported_protocols: vec![protocol],
        }),
    }
}

fn current() -> CurrentAssignment {
    CurrentAssignment {
        epoch: 7,
        previous_epoch: 6,
        state: MemberState::UnrevokedPartitions,
        assigned: BTreeMap::from([(TOPIC, BTreeMap::from([(0, 5), (2, 7)]))]),
        pending_revocation: BTreeMap::from([(TOPIC, BTreeMap::from([(1, 6)]))]),
    }
}

#[test]
fn records_round_trip() {
    let id: Arc<str> = "m".into();
    let regex = ResolvedRegex { topics: ["t"].map(Arc::from).into(), version: 1, timestamp_ms: 2 };
    let changes = [
        ConsumerChange::Group(Some(GroupMetadata { epoch: 3, metadata_hash: 4 })),
        ConsumerChange::Group(None),
        ConsumerChange::PartitionMetadata(Some(Bytes::from_static(&[0, 0, 1, 0]))),
        ConsumerChange::PartitionMetadata(None),
        ConsumerChange::Member(id.clone(), Some(Arc::new(member()))),
        ConsumerChange::Member(id.clone(), Some(Arc::new(Subscription::default()))),
        ConsumerChange::Member(id.clone(), None),
        ConsumerChange::TargetEpoch(Some(TargetAssignmentMetadata {
            assignment_epoch: 3,
            assignment_timestamp: 4,
        })),
        ConsumerChange::TargetEpoch(None),
        ConsumerChange::Target(id.clone(), Some(Arc::new([(TOPIC, vec![0, 2])].into()))),
        ConsumerChange::Target(id.clone(), None),
        ConsumerChange::Current(id.clone(), Some(Arc::new(current()))),
        ConsumerChange::Current(id.clone(), None),
        ConsumerChange::Regex("x.*".into(), Some(Arc::new(regex))),
        ConsumerChange::Regex("x.*".into(), None),
    ];
    for record in changes.map(record) {
        let (key, value) = record.encode();
        let size = key.len() + value.as_ref().map_or(0, Bytes::len);
        assert!(size < record.size_bound(), "{record:?}");
        assert_eq!(Record::decode(key, value), Ok(Some(record)));
    }
}

#[test]
fn size_bound_grows_with_the_record() {
    let many = |from: i32| (from..from + 1000).map(|at| (at, i32::MAX)).collect::<BTreeMap<_, _>>();
    let names = (0..1000).map(|at| Arc::from(format!("topic-{at}"))).collect::<BTreeSet<_>>();
    let changes = [
        ConsumerChange::Member(
            "m".into(),
            Some(Arc::new(Subscription { topic_names: names.clone(), ..member() })),
        ),
        ConsumerChange::Target(
            "m".into(),
            Some(Arc::new([(TOPIC, many(0).into_keys().collect())].into())),
        ),
        ConsumerChange::Current(
            "m".into(),
            Some(Arc::new(CurrentAssignment {
                assigned: BTreeMap::from([(TOPIC, many(0))]),
                pending_revocation: BTreeMap::from([(TOPIC, many(1000))]),
                ..current()
            })),
        ),
        ConsumerChange::Regex(
            "x".into(),
            Some(Arc::new(ResolvedRegex { topics: names, ..ResolvedRegex::default() })),
        ),
    ];
    for record in changes.map(record) {
        let (key, value) = record.encode();
        let size = key.len() + value.as_ref().map_or(0, Bytes::len);
        assert!(size < record.size_bound() && record.size_bound() < 2 * size, "{size}");
    }
}

#[test]
fn partitions_of_older_records_count_as_assigned_in_the_member_epoch() {
    let topic = |assignment_epochs| CurrentPartitions {
        topic_id: TOPIC,
        partitions: vec![2, 0],
        assignment_epochs,
    };
    let assigned = |topic, member_epoch| {
        let assigned_partitions = vec![topic];
        let value = CurrentMemberAssignment {
            member_epoch,
            assigned_partitions,
            ..CurrentMemberAssignment::default()
        };
        to_current(&value).assigned
    };
    let of = |pairs| EpochAssignment::from([(TOPIC, BTreeMap::from(pairs))]);
    assert_eq!(assigned(topic(None), 7), of([(0, 7), (2, 7)]));
    assert_eq!(assigned(topic(None), -2), of([(0, 0), (2, 0)]));
    assert_eq!(assigned(topic(Some(vec![5, 6])), 7), of([(0, 6), (2, 5)]));
    assert_eq!(assigned(topic(Some(vec![5])), 7), of([(0, 7), (2, 7)])); // a wrong number
    let empty = CurrentPartitions { topic_id: TOPIC, ..CurrentPartitions::default() };
    assert_eq!(assigned(empty, 7), EpochAssignment::new());
}

#[test]
fn states_of_later_versions_are_unknown() {
    for state in [3, 99, -1, 127] {
        let value = CurrentMemberAssignment { state, ..CurrentMemberAssignment::default() };
        assert_eq!(to_current(&value).state, MemberState::Unknown);
    }
    assert_eq!(from_current(&to_current(&CurrentMemberAssignment::default())).state, 0);
}

#[test]
fn partitions_of_targets_are_sorted() {
    let topic = |partitions| TargetPartitions { topic_id: TOPIC, partitions };
    let target = |partitions| {
        to_target(TargetAssignmentMember { topic_partitions: vec![topic(partitions)] })
    };
    assert_eq!(target(vec![2, 0, 2]), Assignment::from([(TOPIC, vec![0, 2])]));
    assert_eq!(target(vec![]), Assignment::new());
}

#[test]
fn invalid_keys_and_values_are_refused() {
    let (key, value) =
        record(ConsumerChange::Current("m".into(), Some(Arc::new(current())))).encode();
    for len in 2..key.len() {
        assert!(Record::decode(key.slice(..len), value.clone()).is_err());
    }
    let damaged = value.map(|value| value.slice(..value.len() - 1));
    assert!(Record::decode(key, damaged).is_err());
}
