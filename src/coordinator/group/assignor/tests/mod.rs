mod property;
mod range;
mod uniform;

use std::{fmt::Write, iter};

use super::*;

#[test]
fn assignors_have_the_names_of_kafka() {
    for assignor in [Assignor::Uniform, Assignor::Range] {
        assert_eq!(Assignor::by_name(assignor.name()), Some(assignor));
        assert_eq!(Assignor::by_config_name(assignor.name()), Some(assignor));
    }
    let class = |name| format!("org.apache.kafka.coordinator.group.assignor.{name}");
    assert_eq!(Assignor::by_config_name(&class("UniformAssignor")), Some(Assignor::Uniform));
    assert_eq!(Assignor::by_config_name(&class("RangeAssignor")), Some(Assignor::Range));
    for name in ["", "Uniform", "sticky", "UniformAssignor", "org.apache.kafka.RangeAssignor"] {
        assert_eq!(Assignor::by_config_name(name), None, "{name}");
    }
    for name in ["uniform", "range", "SimpleAssignor", ""] {
        assert_eq!(Assignor::by_config_name(&class(name)), None, "{name}");
    }
    // Members name assignors, not classes.
    assert_eq!(Assignor::by_name(&class("RangeAssignor")), None);
}

#[test]
fn group_without_members_has_an_empty_assignment() {
    for assignor in [Assignor::Uniform, Assignor::Range] {
        assert_eq!(assignor.assign(&input("a=3", "")), BTreeMap::new());
    }
}

#[test]
fn members_without_partitions_have_an_entry() {
    for assignor in [Assignor::Uniform, Assignor::Range] {
        // `d` has no partitions and `x` does not exist.
        let input = input("a=1 d=0", "m1: / m2: x d / m3: a / m4: a");
        assert_eq!(assign(assignor, &input), "m1: / m2: / m3: a0 / m4:");
        assert_eq!(assignor.assign(&input).len(), 4);
    }
}

/// Parses topics with their numbers of partitions, as `a=3 b=2`, and members, separated by slashes.
/// A member is its id, its subscription, and perhaps its partitions, as `m1: a b | a0 a1`. An
/// instance id follows the member id, as `m1@i1`.
fn input(topics: &str, members: &str) -> AssignorInput {
    let topics = topics.split_whitespace().map(|topic| {
        let (name, partitions) = topic.split_once('=').expect("a number of partitions");
        (topic_id(name), partitions.parse().expect("a number"))
    });
    let members = members.split('/').filter(|member| !member.trim().is_empty()).map(member);
    AssignorInput { members: members.collect(), topics: topics.collect() }
}

fn member(text: &str) -> (Arc<str>, AssignorMember) {
    let (id, rest) = text.split_once(':').expect("a member id");
    let (id, instance_id) = match id.trim().split_once('@') {
        Some((id, instance_id)) => (id, Some(instance_id.into())),
        None => (id.trim(), None),
    };
    let (topics, assigned) = rest.split_once('|').unwrap_or((rest, ""));
    let topics = Arc::new(topics.split_whitespace().map(topic_id).collect());
    let mut former = Assignment::new();
    for partition in assigned.split_whitespace() {
        let (topic, index) = partition.split_at(1);
        former.entry(topic_id(topic)).or_default().push(index.parse().expect("an index"));
    }
    (id.into(), AssignorMember { instance_id, topics, assigned: Arc::new(former) })
}

/// The id of a topic whose name is one letter.
fn topic_id(name: &str) -> TopicId {
    assert_eq!(name.len(), 1);
    TopicId::from_u128(name.as_bytes()[0].into())
}

/// The assignment in the format of [`input`], without subscriptions.
fn assign(assignor: Assignor, input: &AssignorInput) -> String {
    let members = assignor.assign(input).into_iter().map(|(id, assignment)| {
        let mut text = format!("{id}:");
        for (topic, indexes) in assignment {
            let name = char::from(topic.as_bytes()[15]);
            for index in indexes {
                write!(text, " {name}{index}").expect("a string takes everything");
            }
        }
        text
    });
    members.collect::<Vec<_>>().join(" / ")
}

/// The input after the group has got this assignment.
fn with_assignment(
    input: &AssignorInput,
    assignment: BTreeMap<Arc<str>, Assignment>,
) -> AssignorInput {
    let mut next = input.clone();
    for (member, (id, assigned)) in iter::zip(next.members.iter_mut(), assignment) {
        assert_eq!(*member.0, id);
        member.1.assigned = Arc::new(assigned);
    }
    next
}
