//! Properties of the assignors for any members, topics and former assignments.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    sync::Arc,
};

use proptest::{collection::vec, prelude::*};

use super::{
    super::{Assignment, Assignor, AssignorInput, AssignorMember},
    with_assignment,
};
use crate::base::TopicId;

const TOPICS: u32 = 6;

type Partition = (TopicId, i32);

/// A member's topics as bits, and its former partitions, which may be invalid.
#[derive(Debug, Clone)]
struct Member {
    topics: u32,
    assigned: Vec<(u32, i32)>,
    is_static: bool,
}

fn members(topics: impl Strategy<Value = u32>) -> impl Strategy<Value = Vec<Member>> {
    let assigned = vec((0..TOPICS + 1, -1..14), 0..20);
    let member = (topics, assigned, any::<bool>())
        .prop_map(|(topics, assigned, is_static)| Member { topics, assigned, is_static });
    vec(member, 1..9)
}

fn any_topics() -> impl Strategy<Value = u32> {
    // With few distinct subscriptions, members share them.
    prop_oneof![0..1u32 << TOPICS, prop_oneof![Just(0b1011), Just(0b1110)]]
}

/// Numbers of partitions. Topics with -1 do not exist.
fn partitions() -> impl Strategy<Value = Vec<i32>> {
    vec(-1..12, TOPICS as usize)
}

fn id(topic: u32) -> TopicId {
    TopicId::from_u128(topic.into())
}

fn build(members: &[Member], partitions: &[i32]) -> AssignorInput {
    let member = |(at, member): (usize, &Member)| {
        let topics = (0..TOPICS).filter(|topic| member.topics & 1 << topic != 0).map(id);
        let mut assigned: BTreeMap<TopicId, BTreeSet<i32>> = BTreeMap::new();
        for (topic, index) in &member.assigned {
            assigned.entry(id(*topic)).or_default().insert(*index);
        }
        let lists = assigned.into_iter().map(|(topic, set)| (topic, set.into_iter().collect()));
        let member = AssignorMember {
            instance_id: member.is_static.then(|| format!("i{}", 9 - at).into()),
            topics: Arc::new(topics.collect()),
            assigned: Arc::new(lists.collect()),
        };
        (format!("m{at}").into(), member)
    };
    let topics = iter::zip((0..).map(id), partitions.iter().copied());
    AssignorInput {
        members: members.iter().enumerate().map(member).collect(),
        topics: topics.filter(|(_, count)| *count >= 0).collect(),
    }
}

fn partitions_of(assignment: &Assignment) -> BTreeSet<Partition> {
    let flat =
        assignment.iter().flat_map(|(topic, list)| list.iter().map(|index| (*topic, *index)));
    flat.collect()
}

/// The partitions of each member, and the checks that hold for all assignors: each partition of a
/// subscribed topic has one owner, which is a subscriber, and the result is well-formed.
fn assigned(assignor: Assignor, input: &AssignorInput) -> Vec<BTreeSet<Partition>> {
    let output = assignor.assign(input);
    assert!(output.keys().eq(input.members.keys()));
    assert_eq!(output, assignor.assign(input));
    let mut missing: BTreeSet<Partition> = BTreeSet::new();
    for topic in input.members.values().flat_map(|member| member.topics.iter()) {
        let count = input.topics.get(topic).copied().unwrap_or(0);
        missing.extend((0..count).map(|index| (*topic, index)));
    }
    for (member, assignment) in iter::zip(input.members.values(), output.values()) {
        for (topic, indexes) in assignment {
            assert!(member.topics.contains(topic));
            assert!(!indexes.is_empty() && indexes.is_sorted_by(|one, next| one < next));
            assert!(indexes.iter().all(|index| missing.remove(&(*topic, *index))));
        }
    }
    assert_eq!(missing, BTreeSet::new());
    output.values().map(partitions_of).collect()
}

/// The former partitions that each member may keep.
fn former(input: &AssignorInput) -> Vec<BTreeSet<Partition>> {
    let mut taken = BTreeSet::new();
    let mut valid = |member: &AssignorMember| {
        let mut partitions = partitions_of(&member.assigned);
        partitions.retain(|(topic, index)| {
            let count = input.topics.get(topic).copied().unwrap_or(0);
            member.topics.contains(topic)
                && (0..count).contains(index)
                && taken.insert((*topic, *index))
        });
        partitions
    };
    input.members.values().map(&mut valid).collect()
}

/// The number of former partitions that members lose.
fn count_moved(former: &[BTreeSet<Partition>], next: &[BTreeSet<Partition>]) -> usize {
    iter::zip(former, next).map(|(former, next)| former.difference(next).count()).sum()
}

/// The least number of former partitions that members must lose so that all have `total / members`
/// partitions, or one more.
fn count_necessary(former: &[BTreeSet<Partition>], total: usize) -> usize {
    let (quota, mut extra) = (total / former.len(), total % former.len());
    let mut counts: Vec<usize> = former.iter().map(BTreeSet::len).collect();
    counts.sort_unstable_by(|one, other| other.cmp(one));
    let mut necessary = 0;
    for count in counts {
        necessary += count.saturating_sub(quota + usize::from(extra > 0));
        extra = extra.saturating_sub(1);
    }
    necessary
}

/// Checks that no member has a partition that a subscriber with two fewer partitions could take.
fn assert_no_move_improves(input: &AssignorInput, next: &[BTreeSet<Partition>]) {
    for owned in next {
        for (topic, _) in owned {
            for (member, other) in iter::zip(input.members.values(), next) {
                let improves = member.topics.contains(topic) && owned.len() > other.len() + 1;
                assert!(!improves, "{topic}: {owned:?}, {other:?}");
            }
        }
    }
}

/// Checks that no member loses a partition and gets one of a topic with the same subscribers.
fn assert_no_exchange(
    input: &AssignorInput,
    former: &[BTreeSet<Partition>],
    next: &[BTreeSet<Partition>],
) {
    let subscribers = |topic: &TopicId| -> Vec<bool> {
        input.members.values().map(|member| member.topics.contains(topic)).collect()
    };
    for (former, next) in iter::zip(former, next) {
        let lost: BTreeSet<_> =
            former.difference(next).map(|(topic, _)| subscribers(topic)).collect();
        let gained = next.difference(former).map(|(topic, _)| subscribers(topic));
        assert!(gained.into_iter().all(|subscribers| !lost.contains(&subscribers)));
    }
}

proptest! {
    #[test]
    fn uniform_is_balanced_and_sticky_with_equal_subscriptions(
        mut members in members(Just(0)),
        topics in 1..1u32 << TOPICS,
        partitions in partitions(),
    ) {
        members.iter_mut().for_each(|member| member.topics = topics);
        let input = build(&members, &partitions);
        let next = assigned(Assignor::Uniform, &input);
        let counts = || next.iter().map(BTreeSet::len);
        prop_assert!(counts().max().unwrap() - counts().min().unwrap() <= 1);
        let former = former(&input);
        prop_assert_eq!(count_moved(&former, &next), count_necessary(&former, counts().sum()));
    }

    #[test]
    fn uniform_cannot_be_improved_by_one_move(
        members in members(any_topics()),
        partitions in partitions(),
    ) {
        let input = build(&members, &partitions);
        let next = assigned(Assignor::Uniform, &input);
        assert_no_move_improves(&input, &next);
        assert_no_exchange(&input, &former(&input), &next);
    }

    #[test]
    fn nothing_moves_while_the_group_stays_the_same(
        members in members(any_topics()),
        partitions in partitions(),
    ) {
        let input = build(&members, &partitions);
        for assignor in [Assignor::Uniform, Assignor::Range] {
            let output = assignor.assign(&input);
            let next = with_assignment(&input, output.clone());
            prop_assert_eq!(assignor.assign(&next), output);
        }
    }

    #[test]
    fn uniform_moves_only_what_a_joining_or_leaving_member_needs(
        mut members in members(Just(0)),
        topics in 1..1u32 << TOPICS,
        partitions in partitions(),
    ) {
        members.iter_mut().for_each(|member| member.topics = topics);
        let mut input = build(&members, &partitions);
        let joining = input.members.pop_last().expect("a member");
        let before = with_assignment(&input, Assignor::Uniform.assign(&input));

        input = before.clone();
        input.members.insert(joining.0, AssignorMember { assigned: Arc::default(), ..joining.1 });
        let after = assigned(Assignor::Uniform, &input);
        let total: usize = after.iter().map(BTreeSet::len).sum();
        prop_assert!(after.last().unwrap().len() == total / after.len() || members.len() == 1);
        for (former, next) in iter::zip(former(&before), &after) {
            prop_assert!(former.is_superset(next));
        }

        let mut input = with_assignment(&input, Assignor::Uniform.assign(&input));
        input.members.pop_first();
        for (former, next) in iter::zip(former(&input), assigned(Assignor::Uniform, &input)) {
            prop_assert!(former.is_subset(&next));
        }
    }

    #[test]
    fn range_gives_each_subscriber_a_range_of_nearly_equal_length(
        members in members(any_topics()),
        partitions in partitions(),
    ) {
        let input = build(&members, &partitions);
        let next = assigned(Assignor::Range, &input);
        let mut order: Vec<_> = iter::zip(&input.members, &next).collect();
        order.sort_by_key(|((id, member), _)| {
            (member.instance_id.is_none(), member.instance_id.clone(), (*id).clone())
        });
        for (topic, count) in &input.topics {
            let mut end = 0;
            let mut lengths = Vec::new();
            for ((_, member), next) in &order {
                let range = next.range((*topic, 0)..=(*topic, i32::MAX));
                let indexes: Vec<i32> = range.map(|(_, index)| *index).collect();
                prop_assert!(indexes.iter().copied().eq(end..end + indexes.len() as i32));
                end += indexes.len() as i32;
                if member.topics.contains(topic) {
                    lengths.push(indexes.len());
                }
            }
            prop_assert!(lengths.is_empty() || end == *count);
            let is_falling = lengths.is_sorted_by(|one, next| one >= next);
            prop_assert!(is_falling);
            prop_assert!(lengths.first() <= lengths.last().map(|len| len + 1).as_ref());
        }
    }
}
