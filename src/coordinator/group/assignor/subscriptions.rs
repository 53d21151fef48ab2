//! [`Subscriptions`]: which members are subscribed to which topics, without a list per member and
//! without a list of members per topic.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::AssignorMember;
use crate::base::TopicId;

/// The subscriptions of a group's members. Members are known by their index.
///
/// Members that are subscribed to the same topics are kept together, and so are topics with the
/// same subscribers. Most groups have one subscription. The size is at most that of the distinct
/// subscriptions, however many members there are.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// The members of each distinct subscription, in ascending order.
    pub members: Vec<Vec<usize>>,
    pub topic_sets: Vec<TopicSet>,
}

/// Topics with the same subscribers.
#[derive(Debug, PartialEq, Eq)]
pub struct TopicSet {
    /// Indexes of the subscriptions that contain these topics, in ascending order. Not empty.
    pub subscriptions: Vec<usize>,
    /// Each topic and its number of partitions, which is at least 1, in ascending order.
    pub topics: Vec<(TopicId, i32)>,
}

impl Subscriptions {
    /// The index of a member is its position in `members`. Topics that are not in `topics`, and
    /// topics without partitions, are left out.
    pub fn new(members: &[&AssignorMember], topics: &BTreeMap<TopicId, i32>) -> Self {
        let (distinct, members) = distinct_subscriptions(members);
        let mut pairs: Vec<(TopicId, usize)> = Vec::new();
        for (index, subscribed) in distinct.into_iter().enumerate() {
            pairs.extend(subscribed.iter().map(|topic| (*topic, index)));
        }
        // It is a concatenation of sorted lists, which the stable sort merges.
        pairs.sort();
        let mut topic_sets: BTreeMap<Vec<usize>, Vec<(TopicId, i32)>> = BTreeMap::new();
        for pairs in pairs.chunk_by(|(topic, _), (next, _)| topic == next) {
            let (topic, _) = pairs[0];
            let partitions = topics.get(&topic).copied().unwrap_or(0);
            if partitions > 0 {
                let subscriptions = pairs.iter().map(|(_, index)| *index).collect();
                topic_sets.entry(subscriptions).or_default().push((topic, partitions));
            }
        }
        let topic_sets = topic_sets
            .into_iter()
            .map(|(subscriptions, topics)| TopicSet { subscriptions, topics })
            .collect();
        Self { members, topic_sets }
    }

    /// The number of members that are subscribed to the topics of a set.
    pub fn count_subscribers(&self, set: &TopicSet) -> usize {
        set.subscriptions.iter().map(|index| self.members[*index].len()).sum()
    }
}

/// The distinct subscriptions, numbered as they first appear, and the members of each.
fn distinct_subscriptions<'a>(
    members: &[&'a AssignorMember],
) -> (Vec<&'a BTreeSet<TopicId>>, Vec<Vec<usize>>) {
    let mut distinct = Vec::new();
    let mut members_of: Vec<Vec<usize>> = Vec::new();
    // Sets that members share are compared only once. The order of addresses has no influence.
    let mut by_address = BTreeMap::new();
    let mut by_topics = BTreeMap::new();
    for (member, topics) in members.iter().map(|member| &member.topics).enumerate() {
        let index = *by_address.entry(Arc::as_ptr(topics)).or_insert_with(|| {
            *by_topics.entry(&**topics).or_insert_with(|| {
                distinct.push(&**topics);
                members_of.push(Vec::new());
                distinct.len() - 1
            })
        });
        members_of[index].push(member);
    }
    (distinct, members_of)
}
