//! [`MemberUpdate`]: what a request of one member changes in its group. ConsumerGroupHeartbeat and
//! JoinGroup share these steps: the member's subscription, the group's epoch, and the member's
//! assignment. The records are in an order in which every prefix of them can be read: an old target
//! assignment is computed again.

use std::sync::Arc;

use super::{
    hash::metadata_hash,
    live::LiveConsumerGroup,
    member::{CurrentAssignment, JOIN_EPOCH, Member, Subscription},
    messages::{Refusal, TopicsSnapshot},
    reconcile::Reconciliation,
    records::{ConsumerChange, ConsumerRecord},
    resolution::ResolveRegexes,
    state::ConsumerGroup,
    values::GroupMetadata,
};
use crate::{
    base::TopicId,
    coordinator::group::{Group, GroupError, Groups, Record, Turn, assignor::Assignment},
};

/// A member as it is in its group, or a new one. The second value is the static member whose place
/// it takes.
pub type FoundMember<'a> = (Member, Option<&'a Arc<str>>);

/// An update in progress: the member before and after it, and the records to write.
pub struct MemberUpdate<'a> {
    pub group_id: &'a Arc<str>,
    pub group: &'a ConsumerGroup,
    pub topics: &'a TopicsSnapshot,
    pub member_id: &'a Arc<str>,
    /// The partitions that the member reports to own; `None` if they have not changed.
    pub reported: Option<&'a [(TopicId, Vec<i32>)]>,
    /// The member that it was in the group; a new one if it was not.
    pub old: Member,
    pub new: Member,
    /// The static member whose place it takes.
    pub replaced: Option<&'a Arc<str>>,
    pub changes: Vec<ConsumerChange>,
}

/// What an update of a member changes about its group.
pub struct GroupUpdate {
    /// The group epoch.
    pub epoch: i32,
    /// Whether the topics or the regular expression of the member change.
    pub subscription_changed: bool,
    live: LiveConsumerGroup,
    effect: Option<ResolveRegexes>,
}

impl<'a> MemberUpdate<'a> {
    /// Begins with the records that give the member the place of a static member, if it takes one.
    /// The ids are those of the group and of the member.
    pub fn new(
        (group_id, member_id): (&'a Arc<str>, &'a Arc<str>),
        group: &'a ConsumerGroup,
        topics: &'a TopicsSnapshot,
        (old, replaced): FoundMember<'a>,
        reported: Option<&'a [(TopicId, Vec<i32>)]>,
    ) -> Self {
        let mut changes = Vec::new();
        if let Some(replaced) = replaced {
            changes.extend(tombstones(replaced));
            let (id, target) = (member_id, group.target(replaced));
            changes.push(ConsumerChange::Member(id.clone(), Some(old.subscription.clone())));
            changes.push(ConsumerChange::Target(id.clone(), Some(target)));
            changes.push(ConsumerChange::Current(id.clone(), Some(old.current.clone())));
        }
        let new = old.clone();
        Self { group_id, group, topics, member_id, reported, old, new, replaced, changes }
    }

    /// Updates the member's subscription. Returns whether the names of its topics change.
    pub fn set_subscription(&mut self, updated: Subscription) -> bool {
        if updated == *self.old.subscription {
            return false;
        }
        let names_changed = updated.topic_names != self.old.subscription.topic_names;
        self.new.subscription = Arc::new(updated);
        let subscription = Some(self.new.subscription.clone());
        self.changes.push(ConsumerChange::Member(self.member_id.clone(), subscription));
        names_changed
    }

    /// Computes the hash of the topics' metadata, and begins the next group epoch if the hash
    /// changes or `bumps` is set. Returns the group epoch.
    fn update_epoch(&mut self, bumps: bool) -> i32 {
        let (old, new) = (&*self.old.subscription, &*self.new.subscription);
        let subscribed = self.group.topics_after(&[old], Some(new));
        let metadata_hash = metadata_hash(subscribed, self.topics);
        let mut epoch = self.group.epoch;
        if bumps || metadata_hash != self.group.metadata_hash {
            epoch = epoch.saturating_add(1);
            let value = GroupMetadata { epoch, metadata_hash };
            self.changes.push(ConsumerChange::Group(Some(value)));
        }
        if self.group.has_partition_metadata {
            self.changes.push(ConsumerChange::PartitionMetadata(None));
        }
        epoch
    }

    /// Reconciles the member with the target assignment.
    pub fn reconcile(
        &mut self,
        target_epoch: i32,
        target: &Assignment,
        subscription_changed: bool,
    ) -> Result<(), Refusal> {
        let current = self.new.current.clone();
        if !subscription_changed && current.is_reconciled_to(target_epoch) {
            return Ok(());
        }
        let (group, topics) = (self.group, self.topics);
        let subscription = self.new.subscription.clone();
        let regex = subscription.regex().and_then(|regex| group.regexes().get(regex));
        let is_subscribed = |id: TopicId| {
            let Some(name) = topics.names.get(&id) else { return false };
            subscription.topic_names.contains(name)
                || regex.is_some_and(|resolved| resolved.topics.contains(name))
        };
        let next = Reconciliation {
            current: &current,
            target_epoch,
            target,
            subscription_changed,
            reported: self.reported,
            is_subscribed: &is_subscribed,
            is_owned: &|topic, partition| group.is_owned(topic, partition),
        }
        .next()
        .map_err(|_| {
            let message = "The consumer group member is in an unknown state. The member must \
                           abandon all its partitions and rejoin.";
            Refusal::new(GroupError::FencedMemberEpoch, message)
        })?;
        if next != *current {
            self.new.current = Arc::new(next);
            let change = (self.member_id.clone(), Some(self.new.current.clone()));
            self.changes.push(ConsumerChange::Current(change.0, change.1));
        }
        Ok(())
    }
}

/// The tombstones of a member's records, in the order in which Kafka can replay them.
pub fn tombstones(member: &Arc<str>) -> [ConsumerChange; 3] {
    [
        ConsumerChange::Current(member.clone(), None),
        ConsumerChange::Target(member.clone(), None),
        ConsumerChange::Member(member.clone(), None),
    ]
}

/// The first state of a member that takes the place of a static one: epoch 0, and the subscription
/// and the partitions of that one.
pub fn successor_of(holder: &Member) -> Member {
    let current = CurrentAssignment {
        epoch: JOIN_EPOCH,
        previous_epoch: JOIN_EPOCH,
        ..CurrentAssignment::clone(&holder.current)
    };
    Member { subscription: holder.subscription.clone(), current: Arc::new(current) }
}

impl<'a> Turn<'a> {
    /// The topics of the cluster. Without them, assignments would be empty.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS until the broker has applied the metadata after a restart.
    pub(super) fn known_topics(&self) -> Result<&'a TopicsSnapshot, Refusal> {
        let message = "The coordinator has not received the topics of the cluster yet.";
        let refusal = || Refusal::new(GroupError::CoordinatorLoadInProgress, message);
        self.cluster.topics.as_deref().ok_or_else(refusal)
    }

    /// Refuses new members of a group that has `group.consumer.max.size` members.
    pub(super) fn check_consumer_group_size(
        &self,
        group: &ConsumerGroup,
        member_id: &str,
    ) -> Result<(), Refusal> {
        let max_size = self.config.consumer.max_size;
        if group.members().len() < max_size || group.member(member_id).is_some() {
            return Ok(());
        }
        let message =
            format!("The consumer group has reached its maximum capacity of {max_size} members.");
        Err(Refusal { error: GroupError::GroupMaxSizeReached, message })
    }

    /// Updates the group once the member's subscription is updated: its regular expressions and its
    /// epoch.
    ///
    /// # Errors
    /// The member's regular expression is invalid.
    pub(super) fn update_group(
        &self,
        groups: &Groups,
        update: &mut MemberUpdate,
        names_changed: bool,
    ) -> Result<GroupUpdate, Refusal> {
        let live = match groups.get(update.group_id) {
            Some(Group::Consumer(live)) => *live,
            Some(Group::Classic(_)) | None => LiveConsumerGroup::default(),
        };
        let (live, regex_change, effect) = self.update_regexes(update, live)?;
        let subscription_changed = names_changed || regex_change.is_change();
        let bumps = match update.new.uses_classic_protocol() {
            true => subscription_changed,
            false => names_changed || regex_change.bumps_epoch(),
        };
        let epoch = match bumps || !live.metadata_checked {
            true => update.update_epoch(bumps),
            false => update.group.epoch,
        };
        let live = LiveConsumerGroup { metadata_checked: true, ..live };
        Ok(GroupUpdate { epoch, subscription_changed, live, effect })
    }

    /// Keeps what a restart loses of the group, and requests the work that the update needs.
    pub(super) fn keep_live(&mut self, groups: &mut Groups, group: &Arc<str>, update: GroupUpdate) {
        groups.insert(group.clone(), Group::Consumer(update.live));
        self.out.effects.extend(update.effect);
    }

    /// Cancels the timers of the static member whose place the member takes.
    pub(super) fn cancel_replaced_timers(&mut self, update: &MemberUpdate) {
        if let Some(replaced) = update.replaced.filter(|replaced| *replaced != update.member_id) {
            self.cancel_member_timers(update.group_id, replaced);
        }
    }

    /// Refuses an update if one of its records does not fit in an append.
    pub(super) fn check_record_sizes(
        &self,
        group: &Arc<str>,
        changes: &[ConsumerChange],
    ) -> Result<(), Refusal> {
        if self.changes_fit(group, changes) {
            return Ok(());
        }
        let message = "A record of the group is larger than the coordinator can write.";
        Err(Refusal::new(GroupError::UnknownServerError, message))
    }

    /// Whether each of the records fits in an append.
    pub(super) fn changes_fit(&self, group: &Arc<str>, changes: &[ConsumerChange]) -> bool {
        changes.iter().all(|change| {
            let record = ConsumerRecord { group: group.clone(), change: change.clone() };
            self.fits_one_batch(&[Record::Consumer(record)])
        })
    }

    pub(super) fn write_changes(&mut self, group: &Arc<str>, changes: Vec<ConsumerChange>) {
        for change in changes {
            self.record(Record::Consumer(ConsumerRecord { group: group.clone(), change }));
        }
    }
}
