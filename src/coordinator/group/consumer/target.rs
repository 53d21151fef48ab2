//! Computes the target assignment of a group (Kafka's `TargetAssignmentBuilder`). Only the parts of
//! members that change are written, and then the epoch. If the records are torn, the epoch is
//! missing, and the target assignment is computed again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    member::Subscription,
    messages::TopicsSnapshot,
    records::{ConsumerChange, ResolvedRegex},
    state::ConsumerGroup,
    update::MemberUpdate,
    values::TargetAssignmentMetadata,
};
use crate::{
    base::TopicId,
    coordinator::group::{
        Turn,
        assignor::{Assignment, Assignor, AssignorInput, AssignorMember},
    },
};

impl Turn<'_> {
    /// Computes a target assignment if the last one is of an older group epoch, and not too recent.
    /// Returns the epoch of the target assignment and the member's part.
    pub(super) fn update_target(
        &self,
        update: &mut MemberUpdate,
        group_epoch: i32,
    ) -> (i32, Arc<Assignment>) {
        let group = update.group;
        let interval_ms = self.assignment_interval_ms(update.group_id);
        if group.target_epoch >= group_epoch || !self.may_compute(group, interval_ms) {
            let holder = update.replaced.unwrap_or(update.member_id);
            return (group.target_epoch, group.target(holder));
        }
        let assignor = self.preferred_assignor(group, update);
        let targets = assignor.assign(&assignor_input(update));
        let own = targets.get(update.member_id).cloned().unwrap_or_default();
        for (id, target) in targets {
            if group.targets().get(&id).map(|old| &**old) != Some(&target) {
                update.changes.push(ConsumerChange::Target(id, Some(Arc::new(target))));
            }
        }
        let value = TargetAssignmentMetadata {
            assignment_epoch: group_epoch,
            assignment_timestamp: self.now_ms,
        };
        update.changes.push(ConsumerChange::TargetEpoch(Some(value)));
        tracing::debug!(
            group = &**update.group_id,
            epoch = group_epoch,
            assignor = assignor.name(),
            "target assignment computed"
        );
        (group_epoch, Arc::new(own))
    }

    /// Whether enough time has passed since the last target assignment. If its time is not known,
    /// or if there is no interval, the next one is computed at once.
    fn may_compute(&self, group: &ConsumerGroup, interval_ms: i32) -> bool {
        let last_ms = group.target_timestamp_ms;
        last_ms == 0
            || interval_ms == 0
            || self.now_ms >= last_ms.saturating_add(i64::from(interval_ms))
    }

    /// The assignor that most members prefer once the update is applied. If several have the
    /// most votes, or none has any, the one that is configured first.
    fn preferred_assignor(&self, group: &ConsumerGroup, update: &MemberUpdate) -> Assignor {
        let votes = |assignor: &Assignor| {
            let name = assignor.name();
            let prefers = |it: &Subscription| usize::from(it.assignor.as_deref() == Some(name));
            let (old, new) = (&update.old.subscription, &update.new.subscription);
            let votes = group.assignors().get(name).copied().unwrap_or(0);
            votes.saturating_sub(prefers(old)) + prefers(new)
        };
        first_with_most(&self.config.consumer.assignors, votes)
    }

    /// The assignor of the group as it is, for descriptions.
    pub(super) fn current_assignor(&self, group: &ConsumerGroup) -> Assignor {
        let votes = |assignor: &Assignor| group.assignors().get(assignor.name()).copied();
        first_with_most(&self.config.consumer.assignors, |assignor| votes(assignor).unwrap_or(0))
    }
}

fn first_with_most(assignors: &[Assignor], votes: impl Fn(&Assignor) -> usize) -> Assignor {
    // `max_by_key` returns the last of equals.
    let most = assignors.iter().rev().max_by_key(|assignor| votes(assignor));
    most.copied().unwrap_or(Assignor::Uniform)
}

/// The members as they are once the update is applied, and the topics that they are subscribed
/// to.
fn assignor_input(update: &MemberUpdate) -> AssignorInput {
    let group = update.group;
    let mut subscriptions = SubscribedIds::new(group.regexes(), update.topics);
    let mut members = BTreeMap::new();
    for (id, other) in group.members() {
        if id != update.member_id && Some(id) != update.replaced {
            let member = subscriptions.member(&other.subscription, group.target(id));
            members.insert(id.clone(), member);
        }
    }
    let id = update.member_id;
    let assigned = group.target(update.replaced.unwrap_or(id));
    members.insert(id.clone(), subscriptions.member(&update.new.subscription, assigned));
    let topics = subscriptions.partitions();
    AssignorInput { members, topics }
}

type TopicIds = Arc<BTreeSet<TopicId>>;
type NamesAndRegex<'a> = (&'a BTreeSet<Arc<str>>, Option<&'a Arc<str>>);

/// The ids of subscribed topics. Members with equal subscriptions share a set.
struct SubscribedIds<'a> {
    regexes: &'a BTreeMap<Arc<str>, Arc<ResolvedRegex>>,
    topics: &'a TopicsSnapshot,
    sets: BTreeMap<NamesAndRegex<'a>, TopicIds>,
}

impl<'a> SubscribedIds<'a> {
    fn new(
        regexes: &'a BTreeMap<Arc<str>, Arc<ResolvedRegex>>,
        topics: &'a TopicsSnapshot,
    ) -> Self {
        Self { regexes, topics, sets: BTreeMap::new() }
    }

    fn member(
        &mut self,
        subscription: &'a Subscription,
        assigned: Arc<Assignment>,
    ) -> AssignorMember {
        let (instance_id, topics) = (subscription.instance_id.clone(), self.of(subscription));
        AssignorMember { instance_id, topics, assigned }
    }

    /// The topics of a subscription that exist.
    fn of(&mut self, subscription: &'a Subscription) -> TopicIds {
        let key = (&subscription.topic_names, subscription.regex());
        let (regexes, topics) = (self.regexes, self.topics);
        let set = self.sets.entry(key).or_insert_with(|| {
            let resolved = subscription.regex().and_then(|regex| regexes.get(regex));
            let matched = resolved.iter().flat_map(|resolved| &resolved.topics);
            let names = subscription.topic_names.iter().chain(matched);
            Arc::new(names.filter_map(|name| Some(topics.topics.get(name)?.id)).collect())
        });
        set.clone()
    }

    /// The number of partitions of each subscribed topic.
    fn partitions(&self) -> BTreeMap<TopicId, i32> {
        let ids = self.sets.values().flat_map(|set| set.iter());
        let partitions = |id: &TopicId| {
            let name = self.topics.names.get(id)?;
            Some((*id, self.topics.topics.get(name)?.partitions))
        };
        ids.filter_map(partitions).collect()
    }
}
