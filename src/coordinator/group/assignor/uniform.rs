//! The assignor `uniform` (Kafka's `UniformAssignor`): balance first, then stickiness.
//!
//! It works on sets of topics with the same subscribers. If all members have the same subscription,
//! there is one set, and the result has these properties (Kafka's homogeneous case):
//! - The numbers of partitions of two members differ by at most 1.
//! - As few partitions as possible move from one member to another.
//!
//! With different subscriptions (Kafka's heterogeneous case):
//! - If a member has at least two partitions more than another, it has none that the other one
//!   could take. Moving one partition therefore cannot improve the balance, but moving several at
//!   once may. Only a limit on the work ([`BALANCING_WORK_MAX`]) can prevent this property.
//! - Of topics with the same subscribers, no member loses one partition and gets another.
//!
//! The steps:
//! 1. Each partition stays with its former owner, if that is still a subscriber.
//! 2. A partition without an owner goes to the subscriber with the fewest partitions.
//! 3. Partitions move from subscribers with many to subscribers with few, set by set, until a round
//!    over all sets moves none.
//! 4. Partitions return to former owners that got others in exchange.

mod balancer;

use std::{collections::BTreeMap, iter, sync::Arc};

use balancer::Balancer;

use super::{
    Assignment, AssignorInput, AssignorMember,
    subscriptions::{Subscriptions, TopicSet},
};
use crate::base::TopicId;

/// Step 3 ends after this number of partitions and subscriptions that it has looked at, even if
/// partitions could still move. Kafka always ends it after 16 rounds. Usually two are enough. Many
/// are needed if members share topics in long chains, each with the next one.
const BALANCING_WORK_MAX: usize = 10_000_000;
const BALANCING_ROUNDS_MIN: usize = 16;

/// The partitions of topics with the same subscribers.
#[derive(Debug)]
struct PartitionSet {
    /// Indexes of the subscriptions that contain the topics. Not empty.
    subscriptions: Vec<usize>,
    /// Ordered by topic id and index. Not empty.
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    topic: TopicId,
    index: i32,
    /// The member that has it in the last assignment, if that is a subscriber.
    former_owner: Option<usize>,
    owner: Option<usize>,
}

/// Computes the target assignment.
pub fn assign(input: &AssignorInput) -> BTreeMap<Arc<str>, Assignment> {
    let members: Vec<_> = input.members.values().collect();
    let subscriptions = Subscriptions::new(&members, &input.topics);
    let mut sets = partition_sets(&subscriptions);
    keep_former_owners(&mut sets, &members);
    let mut balancer = Balancer::new(&subscriptions.members, &sets);
    for set in &mut sets {
        balancer.assign_unowned(set);
    }
    balance(&mut balancer, &mut sets);
    for set in &mut sets {
        return_partitions(&mut set.partitions);
    }
    let mut assignments = vec![Assignment::new(); members.len()];
    for partition in sets.into_iter().flat_map(|set| set.partitions) {
        if let Some(owner) = partition.owner {
            assignments[owner].entry(partition.topic).or_default().push(partition.index);
        }
    }
    iter::zip(input.members.keys().cloned(), assignments).collect()
}

/// The partitions, without owners. Sets with many partitions per subscriber come first, because the
/// partitions of later sets can still even them out. Among equal ones, sets with few subscribers
/// come first, then sets with the smallest topic id. Kafka orders topics like this.
fn partition_sets(subscriptions: &Subscriptions) -> Vec<PartitionSet> {
    let mut sets: Vec<(usize, PartitionSet)> = subscriptions
        .topic_sets
        .iter()
        .map(|set| (subscriptions.count_subscribers(set), partition_set(set)))
        .collect();
    sets.sort_by(|(subscribers, set), (other_subscribers, other)| {
        let product = set.partitions.len() as u128 * *other_subscribers as u128;
        let other_product = other.partitions.len() as u128 * *subscribers as u128;
        let by_topic = || set.partitions[0].topic.cmp(&other.partitions[0].topic);
        let by_subscribers = || subscribers.cmp(other_subscribers);
        other_product.cmp(&product).then_with(by_subscribers).then_with(by_topic)
    });
    sets.into_iter().map(|(_, set)| set).collect()
}

fn partition_set(set: &TopicSet) -> PartitionSet {
    let partitions_of = |(topic, count): &(TopicId, i32)| {
        let topic = *topic;
        (0..*count).map(move |index| Partition { topic, index, former_owner: None, owner: None })
    };
    PartitionSet {
        subscriptions: set.subscriptions.clone(),
        partitions: set.topics.iter().flat_map(partitions_of).collect(),
    }
}

/// Step 1. If two members have the same partition, the first one keeps it.
fn keep_former_owners(sets: &mut [PartitionSet], members: &[&AssignorMember]) {
    let mut by_topic: BTreeMap<TopicId, &mut [Partition]> = BTreeMap::new();
    for set in sets {
        for partitions in set.partitions.chunk_by_mut(|one, next| one.topic == next.topic) {
            by_topic.insert(partitions[0].topic, partitions);
        }
    }
    for (owner, member) in members.iter().enumerate() {
        for (topic, indexes) in member.assigned.iter() {
            let Some(partitions) = by_topic.get_mut(topic) else { continue };
            if !member.topics.contains(topic) {
                continue;
            }
            for index in indexes {
                let index = usize::try_from(*index).unwrap_or(usize::MAX);
                if let Some(partition) = partitions.get_mut(index)
                    && partition.owner.is_none()
                {
                    partition.former_owner = Some(owner);
                    partition.owner = Some(owner);
                }
            }
        }
    }
}

/// Step 3.
fn balance(balancer: &mut Balancer, sets: &mut [PartitionSet]) {
    let work_of = |set: &PartitionSet| set.subscriptions.len() + set.partitions.len();
    let work: usize = sets.iter().map(work_of).sum();
    let rounds = (BALANCING_WORK_MAX / work.max(1)).max(BALANCING_ROUNDS_MIN);
    for _ in 0..rounds {
        let mut has_moved = false;
        for set in &mut *sets {
            has_moved |= balancer.balance(set);
        }
        if !has_moved {
            return;
        }
    }
}

/// Step 4, for the partitions of one set. Members keep their numbers of partitions.
///
/// A partition returns if its former owner got another one of the set, which the present owner
/// takes in exchange.
fn return_partitions(partitions: &mut [Partition]) {
    let has_moved = |partition: &Partition| {
        partition.former_owner.is_some() && partition.former_owner != partition.owner
    };
    if !partitions.iter().any(has_moved) {
        return;
    }
    let mut gained: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, partition) in partitions.iter().enumerate() {
        if let Some(owner) = partition.owner
            && partition.former_owner != Some(owner)
        {
            gained.entry(owner).or_default().push(at);
        }
    }
    for at in 0..partitions.len() {
        let Partition { former_owner: Some(former), owner: Some(owner), .. } = partitions[at]
        else {
            continue;
        };
        while former != owner
            && let Some(other) = gained.get_mut(&former).and_then(Vec::pop)
        {
            // Some partitions in the list have returned since it was made.
            if partitions[other].owner != Some(former) {
                continue;
            }
            partitions[at].owner = Some(former);
            partitions[other].owner = Some(owner);
            if partitions[other].former_owner != Some(owner) {
                gained.entry(owner).or_default().push(other);
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests;
