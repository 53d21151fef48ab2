use super::*;
use crate::coordinator::group::{
    LoggedState, Record,
    consumer::{
        ConsumerRecord,
        member::{EpochAssignment, MemberState},
        values::{ClassicMemberMetadata, GroupMetadata, TargetAssignmentMetadata},
    },
    logged_state::LoggedGroup,
};

const TOPIC: TopicId = TopicId::from_u128(7);

fn apply(logged: &mut LoggedState, change: ConsumerChange) {
    logged.apply(0, &Record::Consumer(ConsumerRecord { group: "g".into(), change }));
}

fn member(topics: &[&str], regex: &str) -> Option<Arc<Subscription>> {
    Some(Arc::new(Subscription {
        topic_names: topics.iter().map(|name| Arc::from(*name)).collect(),
        topic_regex: Some(regex.into()),
        ..Subscription::default()
    }))
}

/// A member with these assigned partitions and those pending revocation.
fn current(epoch: i32, assigned: &[i32], pending: &[i32]) -> Option<Arc<CurrentAssignment>> {
    let partitions = |indexes: &[i32]| {
        let of_topic: std::collections::BTreeMap<_, _> =
            indexes.iter().map(|at| (*at, epoch)).collect();
        EpochAssignment::from([(TOPIC, of_topic)])
    };
    Some(Arc::new(CurrentAssignment {
        epoch,
        previous_epoch: epoch - 1,
        state: MemberState::Stable,
        assigned: partitions(assigned),
        pending_revocation: partitions(pending),
    }))
}

fn epoch(epoch: i32) -> ConsumerChange {
    ConsumerChange::Group(Some(GroupMetadata { epoch, metadata_hash: 0 }))
}

#[test]
fn records_may_come_in_any_order() {
    // Compaction keeps the last record of each key at its place.
    let changes = [
        ConsumerChange::Current("m".into(), current(3, &[0], &[1])),
        ConsumerChange::Target("m".into(), Some(Arc::new([(TOPIC, vec![0])].into()))),
        epoch(3),
        ConsumerChange::Member("m".into(), member(&["t"], "")),
        ConsumerChange::TargetEpoch(Some(TargetAssignmentMetadata {
            assignment_epoch: 3,
            assignment_timestamp: 9,
        })),
    ];
    let mut forwards = ConsumerGroup::default();
    changes.iter().for_each(|change| forwards.apply(change));
    let mut backwards = ConsumerGroup::default();
    changes.iter().rev().for_each(|change| backwards.apply(change));
    assert_eq!(forwards, backwards);
    assert_eq!(forwards.state(), GroupState::Stable);
    assert_eq!(forwards.target("m").get(&TOPIC), Some(&vec![0]));
    assert!(forwards.is_subscribed_to("t"));
    assert!(forwards.is_owned(TOPIC, 0) && forwards.is_owned(TOPIC, 1));
    assert!(!forwards.is_owned(TOPIC, 2));
}

#[test]
fn group_without_members_is_empty_and_a_tombstone_removes_it() {
    let mut logged = LoggedState::default();
    for tombstone in [
        ConsumerChange::Group(None),
        ConsumerChange::PartitionMetadata(None),
        ConsumerChange::Member("m".into(), None),
        ConsumerChange::TargetEpoch(None),
        ConsumerChange::Target("m".into(), None),
        ConsumerChange::Current("m".into(), None),
        ConsumerChange::Regex("r".into(), None),
    ] {
        apply(&mut logged, tombstone);
        assert!(logged.groups.is_empty());
    }
    apply(&mut logged, ConsumerChange::Member("m".into(), member(&["t"], "")));
    let group = logged.consumer("g").unwrap();
    assert_eq!((group.epoch, group.target_epoch), (1, 1));
    apply(&mut logged, ConsumerChange::Current("m".into(), current(2, &[0], &[])));
    apply(&mut logged, ConsumerChange::Current("m".into(), None));
    assert!(!logged.consumer("g").unwrap().is_owned(TOPIC, 0));
    apply(&mut logged, ConsumerChange::Member("m".into(), None));
    let group = logged.consumer("g").unwrap();
    assert_eq!(group.state(), GroupState::Empty);
    assert!(!group.is_subscribed_to("t"));
    apply(&mut logged, ConsumerChange::TargetEpoch(None));
    assert_eq!(logged.consumer("g").unwrap().target_epoch, -1);
    // A tombstone of a classic group is not meant.
    logged.apply(0, &Record::Group { group: "g".into(), value: None });
    assert!(logged.consumer("g").is_some());
    apply(&mut logged, ConsumerChange::Group(None));
    assert!(logged.groups.is_empty());
}

#[test]
fn offsets_may_come_before_the_group() {
    let mut logged = LoggedState::default();
    let (group, topic, value) = ("g".into(), "t".into(), Some(Default::default()));
    logged.apply(0, &Record::Offset { group, topic, partition: 0, value });
    assert_eq!(logged.groups["g"], LoggedGroup::Simple);
    apply(&mut logged, epoch(5));
    assert_eq!(logged.consumer("g").map(|group| group.epoch), Some(5));
    assert!(logged.offsets.has_group("g"));
}

#[test]
fn subscriptions_are_counted() {
    let mut group = ConsumerGroup::default();
    let resolved = |topics: &[&str]| {
        let topics = topics.iter().map(|name| Arc::from(*name)).collect();
        Some(Arc::new(ResolvedRegex { topics, ..ResolvedRegex::default() }))
    };
    let topics = |group: &ConsumerGroup| {
        group.subscribed_topics().map(|name| name.to_string()).collect::<Vec<_>>().join("+")
    };
    group.apply(&ConsumerChange::Member("m".into(), member(&["a", "b"], "r")));
    group.apply(&ConsumerChange::Member("n".into(), member(&["b"], "r")));
    group.apply(&ConsumerChange::Regex("r".into(), resolved(&["b", "c"])));
    assert_eq!((topics(&group).as_str(), group.regex_members("r")), ("a+b+c", 2));

    let (m, n) = (group.member("m").unwrap(), group.member("n").unwrap());
    let after = |removed: &[&Subscription]| {
        let topics = group.topics_after(removed, None);
        topics.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join("+")
    };
    assert_eq!(after(&[&m.subscription]), "b+c");
    assert_eq!(after(&[&n.subscription]), "a+b+c");
    assert_eq!(after(&[&m.subscription, &n.subscription]), "");

    group.apply(&ConsumerChange::Regex("r".into(), resolved(&["d"])));
    assert_eq!(topics(&group), "a+b+d");
    group.apply(&ConsumerChange::Member("m".into(), member(&["b"], "")));
    assert_eq!((topics(&group).as_str(), group.regex_members("r")), ("b+d", 1));
    group.apply(&ConsumerChange::Regex("r".into(), None));
    assert_eq!(topics(&group), "b");
}

#[test]
fn states_follow_the_epochs() {
    let mut group = ConsumerGroup::default();
    assert_eq!(group.state(), GroupState::Empty);
    group.apply(&epoch(2));
    group.apply(&ConsumerChange::Current("m".into(), current(1, &[], &[])));
    assert_eq!(group.state(), GroupState::Assigning);
    let value = TargetAssignmentMetadata { assignment_epoch: 2, assignment_timestamp: 0 };
    group.apply(&ConsumerChange::TargetEpoch(Some(value)));
    assert_eq!(group.state(), GroupState::Reconciling);
    group.apply(&ConsumerChange::Current("m".into(), current(2, &[], &[])));
    assert_eq!(group.state(), GroupState::Stable);
}

#[test]
fn members_of_the_classic_protocol_are_kept() {
    let mut group = ConsumerGroup::default();
    let classic = Some(ClassicMemberMetadata::default());
    let subscription = Some(Arc::new(Subscription { classic, ..Subscription::default() }));
    group.apply(&ConsumerChange::Member("m".into(), subscription));
    assert!(group.member("m").unwrap().uses_classic_protocol());
}
