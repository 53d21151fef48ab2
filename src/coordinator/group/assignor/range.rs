//! The assignor `range` (Kafka's `RangeAssignor`).
//!
//! It splits each topic into contiguous ranges, one for each subscriber. The first subscribers get
//! one partition more if the topic cannot be split evenly. The subscribers of all topics have the
//! same order, so topics with the same subscribers and the same number of partitions are
//! co-partitioned: a member gets the same partitions of each.
//!
//! The former assignment does not matter. Nothing moves while members and topics stay the same.

use std::{collections::BTreeMap, iter, sync::Arc};

use super::{Assignment, AssignorInput, AssignorMember, subscriptions::Subscriptions};

/// Computes the target assignment.
pub fn assign(input: &AssignorInput) -> BTreeMap<Arc<str>, Assignment> {
    let (ids, members): (Vec<_>, Vec<_>) = sorted_members(input).into_iter().unzip();
    let subscriptions = Subscriptions::new(&members, &input.topics);
    let mut assignments = vec![Assignment::new(); members.len()];
    for set in &subscriptions.topic_sets {
        // Further subscribers get no partition of any of these topics.
        let most = set.topics.iter().map(|(_, partitions)| *partitions as usize).max().unwrap_or(0);
        let lists = set.subscriptions.iter().map(|index| &subscriptions.members[*index]);
        let mut subscribers: Vec<usize> =
            lists.flat_map(|list| list.iter().take(most)).copied().collect();
        subscribers.sort_unstable();
        let count = subscriptions.count_subscribers(set);
        for (topic, partitions) in &set.topics {
            let mut start = 0;
            for (member, len) in iter::zip(&subscribers, range_lengths(*partitions, count)) {
                assignments[*member].insert(*topic, (start..start + len).collect());
                start += len;
            }
        }
    }
    iter::zip(ids.into_iter().cloned(), assignments).collect()
}

/// Static members by instance id, then the others by member id. The order of static members stays
/// the same when they restart, although each gets a new member id.
fn sorted_members(input: &AssignorInput) -> Vec<(&Arc<str>, &AssignorMember)> {
    let mut members: Vec<_> = input.members.iter().collect();
    members.sort_by_key(|(id, member)| (member.instance_id.is_none(), &member.instance_id, *id));
    members
}

/// The lengths of the ranges that are not empty.
fn range_lengths(partitions: i32, subscribers: usize) -> impl Iterator<Item = i32> {
    // With more than `i32::MAX` subscribers, the first ones get one partition each, too.
    let subscribers = i32::try_from(subscribers).unwrap_or(i32::MAX);
    let (len, longer) = (partitions / subscribers, partitions % subscribers);
    (0..subscribers).map(move |index| len + i32::from(index < longer)).take_while(|len| *len > 0)
}
