//! A consumer group, as its records say (Kafka's `ConsumerGroup`), with indexes over its members.
//! The indexes follow from the members, so they do not depend on the order of the records.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    member::{CurrentAssignment, Member, Subscription},
    records::{ConsumerChange, ResolvedRegex},
};
use crate::{base::TopicId, coordinator::group::assignor::Assignment};

/// The state of a group as tools print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    Empty,
    /// The target assignment is older than the group.
    Assigning,
    /// Some member does not have its part of the target assignment yet.
    Reconciling,
    Stable,
}

impl GroupState {
    pub const ALL: [Self; 4] = [Self::Empty, Self::Assigning, Self::Reconciling, Self::Stable];

    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// How many members are subscribed to a topic by name, and how many resolved regular expressions
/// have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct TopicCount {
    by_name: usize,
    by_regex: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerGroup {
    pub epoch: i32,
    /// The hash of the metadata of the subscribed topics, as of this epoch (KIP-1101).
    pub metadata_hash: i64,
    /// The group epoch that the target assignment was computed for.
    pub target_epoch: i32,
    /// When the target assignment was computed, in milliseconds; 0 if unknown.
    pub target_timestamp_ms: i64,
    /// Whether the log has a record of the topics' metadata from before Kafka 4.1.
    pub has_partition_metadata: bool,
    members: BTreeMap<Arc<str>, Member>,
    targets: BTreeMap<Arc<str>, Arc<Assignment>>,
    regexes: BTreeMap<Arc<str>, Arc<ResolvedRegex>>,
    /// Member ids by instance id.
    static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// The subscribed topics.
    topics: BTreeMap<Arc<str>, TopicCount>,
    /// The number of members by regular expression.
    regex_members: BTreeMap<Arc<str>, usize>,
    /// The number of members by preferred assignor.
    assignors: BTreeMap<Arc<str>, usize>,
    /// The number of members that use the classic protocol.
    classic_members: usize,
    /// The number of classic members by assignor that they support.
    classic_assignors: BTreeMap<String, usize>,
    /// The number of members that own a partition: 1, unless the log is damaged.
    owners: BTreeMap<(TopicId, i32), usize>,
}

impl Default for ConsumerGroup {
    /// A group without records, with Kafka's first epochs.
    fn default() -> Self {
        Self {
            epoch: 1,
            metadata_hash: 0,
            target_epoch: 1,
            target_timestamp_ms: 0,
            has_partition_metadata: false,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            regexes: BTreeMap::new(),
            static_members: BTreeMap::new(),
            topics: BTreeMap::new(),
            regex_members: BTreeMap::new(),
            assignors: BTreeMap::new(),
            classic_members: 0,
            classic_assignors: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }
}

impl ConsumerGroup {
    /// Applies a record. A tombstone of the group itself has no effect here.
    pub fn apply(&mut self, change: &ConsumerChange) {
        match change {
            ConsumerChange::Group(Some(value)) => {
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
            }
            ConsumerChange::Group(None) => {}
            ConsumerChange::PartitionMetadata(value) => {
                self.has_partition_metadata = value.is_some();
            }
            ConsumerChange::Member(id, Some(subscription)) => {
                let current = self.members.get(id).map(|member| member.current.clone());
                let current = current.unwrap_or_default();
                self.insert_member(id, Member { subscription: subscription.clone(), current });
            }
            ConsumerChange::Member(id, None) => self.remove_member(id),
            ConsumerChange::TargetEpoch(Some(value)) => {
                self.target_epoch = value.assignment_epoch;
                self.target_timestamp_ms = value.assignment_timestamp;
            }
            ConsumerChange::TargetEpoch(None) => {
                self.target_epoch = -1;
                self.target_timestamp_ms = 0;
            }
            ConsumerChange::Target(id, Some(target)) => {
                self.targets.insert(id.clone(), target.clone());
            }
            ConsumerChange::Target(id, None) => {
                self.targets.remove(id);
            }
            ConsumerChange::Current(id, Some(current)) => {
                let subscription = self.members.get(id).map(|member| member.subscription.clone());
                let subscription = subscription.unwrap_or_default();
                self.insert_member(id, Member { subscription, current: current.clone() });
            }
            ConsumerChange::Current(id, None) => {
                if let Some(member) = self.members.get(id) {
                    let current = Arc::new(member.current.removed());
                    let subscription = member.subscription.clone();
                    self.insert_member(id, Member { subscription, current });
                }
            }
            ConsumerChange::Regex(regex, resolved) => self.set_regex(regex, resolved.as_ref()),
        }
    }

    pub fn members(&self) -> &BTreeMap<Arc<str>, Member> {
        &self.members
    }

    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    /// The id of the static member with an instance id.
    pub fn static_member(&self, instance_id: &str) -> Option<&Arc<str>> {
        self.static_members.get(instance_id)
    }

    /// The target assignments of members by id.
    pub fn targets(&self) -> &BTreeMap<Arc<str>, Arc<Assignment>> {
        &self.targets
    }

    /// The target assignment of a member; empty if it has none yet.
    pub fn target(&self, member_id: &str) -> Arc<Assignment> {
        self.targets.get(member_id).cloned().unwrap_or_default()
    }

    /// The resolved regular expressions.
    pub fn regexes(&self) -> &BTreeMap<Arc<str>, Arc<ResolvedRegex>> {
        &self.regexes
    }

    /// The regular expressions that members are subscribed to, with the number of members.
    pub fn subscribed_regexes(&self) -> &BTreeMap<Arc<str>, usize> {
        &self.regex_members
    }

    /// The number of members that are subscribed to a regular expression.
    pub fn regex_members(&self, regex: &str) -> usize {
        self.regex_members.get(regex).copied().unwrap_or(0)
    }

    /// The topics that members are subscribed to, by name or by a resolved regular expression.
    pub fn subscribed_topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    /// The topics that members are subscribed to by name.
    pub fn topics_by_name(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.iter().filter(|(_, count)| count.by_name > 0).map(|(topic, _)| topic)
    }

    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// The subscribed topics once `removed` are no longer subscriptions of members and `added` is
    /// one. A regular expression without members does not count.
    pub fn topics_after<'a>(
        &'a self,
        removed: &[&Subscription],
        added: Option<&'a Subscription>,
    ) -> BTreeSet<&'a Arc<str>> {
        let mut fewer: BTreeMap<&str, TopicCount> = BTreeMap::new();
        for name in removed.iter().flat_map(|removed| &removed.topic_names) {
            fewer.entry(name).or_default().by_name += 1;
        }
        for regex in self.regexes_dropped(removed, added) {
            let topics = self.regexes.get(regex).map(|resolved| &resolved.topics);
            for name in topics.into_iter().flatten() {
                fewer.entry(name).or_default().by_regex += 1;
            }
        }
        let stays = |(topic, count): &(&Arc<str>, &TopicCount)| {
            let fewer = fewer.get(&***topic).copied().unwrap_or_default();
            count.by_name > fewer.by_name || count.by_regex > fewer.by_regex
        };
        let kept = self.topics.iter().filter(stays).map(|(topic, _)| topic);
        kept.chain(added.iter().flat_map(|added| &added.topic_names)).collect()
    }

    /// The regular expressions that have no members once `removed` are no longer subscriptions of
    /// members and `added` is one.
    pub fn regexes_dropped<'a>(
        &self,
        removed: &[&'a Subscription],
        added: Option<&Subscription>,
    ) -> BTreeSet<&'a Arc<str>> {
        let regexes = || removed.iter().filter_map(|removed| removed.regex());
        let is_dropped = |regex: &&Arc<str>| {
            let fewer = regexes().filter(|other| other == regex).count();
            added.and_then(Subscription::regex) != Some(*regex)
                && self.regex_members(regex) == fewer
        };
        regexes().filter(is_dropped).collect()
    }

    /// Whether a member owns the partition.
    pub fn is_owned(&self, topic: TopicId, partition: i32) -> bool {
        self.owners.contains_key(&(topic, partition))
    }

    /// The number of members by preferred assignor.
    pub fn assignors(&self) -> &BTreeMap<Arc<str>, usize> {
        &self.assignors
    }

    /// The number of members that use the classic protocol.
    pub fn classic_members(&self) -> usize {
        self.classic_members
    }

    /// Whether all members that use the classic protocol support an assignor.
    pub fn is_supported_by_classic_members(&self, assignor: &str) -> bool {
        self.classic_assignors.get(assignor).copied().unwrap_or(0) == self.classic_members
    }

    pub fn state(&self) -> GroupState {
        let is_reconciled = |member: &Member| member.current.is_reconciled_to(self.target_epoch);
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.epoch > self.target_epoch {
            GroupState::Assigning
        } else if self.members.values().all(is_reconciled) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    fn insert_member(&mut self, id: &Arc<str>, member: Member) {
        let old = self.members.insert(id.clone(), member.clone());
        let same = |old: &Member| Arc::ptr_eq(&old.subscription, &member.subscription);
        if !old.as_ref().is_some_and(same) {
            if let Some(old) = &old {
                self.unsubscribe(id, &old.subscription);
            }
            self.subscribe(id, &member.subscription);
        }
        if let Some(old) = &old {
            self.release(&old.current);
        }
        self.own(&member.current);
    }

    fn remove_member(&mut self, id: &Arc<str>) {
        if let Some(old) = self.members.remove(id) {
            self.unsubscribe(id, &old.subscription);
            self.release(&old.current);
        }
    }

    fn subscribe(&mut self, id: &Arc<str>, subscription: &Subscription) {
        if let Some(instance_id) = &subscription.instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        for topic in &subscription.topic_names {
            self.topics.entry(topic.clone()).or_default().by_name += 1;
        }
        if let Some(regex) = subscription.regex() {
            *self.regex_members.entry(regex.clone()).or_default() += 1;
        }
        if let Some(assignor) = &subscription.assignor {
            *self.assignors.entry(assignor.clone()).or_default() += 1;
        }
        if let Some(classic) = &subscription.classic {
            self.classic_members += 1;
            for protocol in &classic.supported_protocols {
                *self.classic_assignors.entry(protocol.name.clone()).or_default() += 1;
            }
        }
    }

    fn unsubscribe(&mut self, id: &Arc<str>, subscription: &Subscription) {
        if let Some(instance_id) = &subscription.instance_id
            && self.static_members.get(instance_id) == Some(id)
        {
            self.static_members.remove(instance_id);
        }
        for topic in &subscription.topic_names {
            self.count_topic(topic, |count| count.by_name -= 1);
        }
        if let Some(regex) = subscription.regex() {
            decrement(&mut self.regex_members, regex);
        }
        if let Some(assignor) = &subscription.assignor {
            decrement(&mut self.assignors, assignor);
        }
        if let Some(classic) = &subscription.classic {
            self.classic_members -= 1;
            for protocol in &classic.supported_protocols {
                decrement(&mut self.classic_assignors, &protocol.name);
            }
        }
    }

    fn set_regex(&mut self, regex: &Arc<str>, resolved: Option<&Arc<ResolvedRegex>>) {
        let old = match resolved {
            Some(resolved) => self.regexes.insert(regex.clone(), resolved.clone()),
            None => self.regexes.remove(regex),
        };
        for topic in old.iter().flat_map(|old| &old.topics) {
            self.count_topic(topic, |count| count.by_regex -= 1);
        }
        for topic in resolved.iter().flat_map(|resolved| &resolved.topics) {
            self.topics.entry(topic.clone()).or_default().by_regex += 1;
        }
    }

    /// Changes the count of a subscribed topic, and removes a topic that is no longer subscribed.
    fn count_topic(&mut self, topic: &Arc<str>, change: impl FnOnce(&mut TopicCount)) {
        let Some(count) = self.topics.get_mut(topic) else { return };
        change(count);
        if *count == TopicCount::default() {
            self.topics.remove(topic);
        }
    }

    fn own(&mut self, current: &CurrentAssignment) {
        for partition in current.owned() {
            *self.owners.entry(partition).or_default() += 1;
        }
    }

    fn release(&mut self, current: &CurrentAssignment) {
        for partition in current.owned() {
            decrement(&mut self.owners, &partition);
        }
    }
}

/// Decrements a count, and removes it if it is then 0.
fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    let Some(count) = counts.get_mut(key) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
    }
}

#[cfg(test)]
mod tests;
