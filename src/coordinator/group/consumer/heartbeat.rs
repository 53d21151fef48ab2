//! ConsumerGroupHeartbeat: a member joins, changes its subscription, reports what it owns, and gets
//! its assignment (Kafka's `GroupMetadataManager.consumerGroupHeartbeat`). [`Heartbeat`] collects
//! the records of one heartbeat. They are in an order in which every prefix of them can be read: an
//! old target assignment is computed again.

use std::sync::Arc;

use super::{
    live::LiveConsumerGroup,
    member::{CurrentAssignment, JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Member, MemberState},
    messages::{ConsumerHeartbeatReply, ConsumerHeartbeatRequest, Refusal, TopicsSnapshot},
    reconcile::Reconciliation,
    records::{ConsumerChange, ConsumerRecord},
    state::ConsumerGroup,
    upgrade::UpgradedGroup,
    values::KEY_TEXT_MAX,
};
use crate::{
    base::TopicId,
    coordinator::group::{Group, GroupError, Groups, Record, Turn, assignor::Assignment},
};

/// Where a heartbeat goes.
pub enum Place<'a> {
    Consumer(&'a ConsumerGroup),
    /// There is no group with this id, and the member founds one.
    New(ConsumerGroup),
    /// A group of the classic protocol without members, which becomes a consumer group.
    EmptyClassic(ConsumerGroup),
    /// A group of the classic protocol with members, which becomes a consumer group.
    Upgraded(UpgradedGroup),
}

impl Place<'_> {
    /// The group as it is before the heartbeat.
    fn group(&self) -> &ConsumerGroup {
        match self {
            Self::Consumer(group) => group,
            Self::New(group) | Self::EmptyClassic(group) => group,
            Self::Upgraded(upgraded) => &upgraded.group,
        }
    }
}

/// A heartbeat in progress: the member before and after it, and the records to write.
pub struct Heartbeat<'a> {
    pub group: &'a ConsumerGroup,
    pub topics: &'a TopicsSnapshot,
    pub request: &'a ConsumerHeartbeatRequest,
    /// The member that it was in the group; a new one if it was not.
    pub old: Member,
    pub new: Member,
    /// The static member whose place it takes.
    pub replaced: Option<&'a Arc<str>>,
    pub changes: Vec<ConsumerChange>,
}

impl Heartbeat<'_> {
    pub fn member_id(&self) -> &Arc<str> {
        &self.request.member_id
    }

    /// Reconciles the member with the target assignment.
    fn reconcile(
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
            reported: self.request.owned_partitions.as_deref(),
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
            let change = (self.member_id().clone(), Some(self.new.current.clone()));
            self.changes.push(ConsumerChange::Current(change.0, change.1));
        }
        Ok(())
    }

    /// Whether the response has the member's assignment: when it joins, when its request is a full
    /// one, which it sends after an error, and when the assignment has changed.
    fn answers_assignment(&self) -> bool {
        let request = self.request;
        let has_subscription =
            request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some();
        let is_full = request.rebalance_timeout_ms != -1
            && has_subscription
            && request.owned_partitions.is_some();
        request.member_epoch == JOIN_EPOCH
            || is_full
            || self.old.current.assigned != self.new.current.assigned
    }

    fn reply(&self, heartbeat_interval_ms: i32) -> ConsumerHeartbeatReply {
        ConsumerHeartbeatReply {
            member_id: self.member_id().clone(),
            member_epoch: self.new.current.epoch,
            heartbeat_interval_ms,
            assignment: self.answers_assignment().then(|| assigned(&self.new.current)),
        }
    }
}

/// The partitions that a member may use.
fn assigned(current: &CurrentAssignment) -> Assignment {
    let topics = current.assigned.iter();
    topics.map(|(topic, partitions)| (*topic, partitions.keys().copied().collect())).collect()
}

impl Turn<'_> {
    pub(in crate::coordinator::group) fn consumer_heartbeat(
        &mut self,
        groups: &mut Groups,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<ConsumerHeartbeatReply, Refusal> {
        check_texts(request)?;
        match request.member_epoch {
            LEAVE_EPOCH | LEAVE_STATIC_EPOCH => self.consumer_leave(groups, request),
            _ => self.join_or_continue(groups, request),
        }
    }

    fn join_or_continue(
        &mut self,
        groups: &mut Groups,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<ConsumerHeartbeatReply, Refusal> {
        let cluster = self.cluster;
        let Some(topics) = cluster.topics.as_deref() else {
            // After a restart, assignments would be empty.
            let message = "The coordinator has not received the topics of the cluster yet.";
            return Err(Refusal::new(GroupError::CoordinatorLoadInProgress, message));
        };
        let place = self.place_of(groups, topics, request)?;
        let group = place.group();
        self.check_consumer_group_size(group, request)?;
        let mut heartbeat = Heartbeat::new(group, topics, request)?;
        let names_changed = heartbeat.update_subscription();
        let live = match groups.get(&request.group) {
            Some(Group::Consumer(live)) => *live,
            Some(Group::Classic(_)) | None => LiveConsumerGroup::default(),
        };
        let (live, regex_change, effect) = self.update_regexes(&mut heartbeat, live)?;
        let bumps = names_changed || regex_change.bumps_epoch();
        let epoch = match bumps || !live.metadata_checked {
            true => heartbeat.update_epoch(bumps),
            false => group.epoch,
        };
        let (target_epoch, target) = self.update_target(&mut heartbeat, epoch);
        let changed = names_changed || regex_change.is_change();
        heartbeat.reconcile(target_epoch, &target, changed)?;
        self.check_record_sizes(&request.group, &heartbeat.changes)?;
        self.leave_classic_protocol(groups, &request.group, &place)?;
        let live = LiveConsumerGroup { metadata_checked: true, ..live };
        groups.insert(request.group.clone(), Group::Consumer(live));
        self.out.effects.extend(effect);
        self.set_member_timers(&heartbeat);
        let reply = heartbeat.reply(self.heartbeat_interval_ms(&request.group));
        self.write_changes(&request.group, heartbeat.changes);
        Ok(reply)
    }

    /// Replaces the classic group that becomes a consumer group, if there is one.
    fn leave_classic_protocol(
        &mut self,
        groups: &mut Groups,
        id: &Arc<str>,
        place: &Place,
    ) -> Result<(), Refusal> {
        match place {
            Place::Consumer(_) | Place::New(_) => {}
            Place::EmptyClassic(_) => {
                tracing::info!(group = &**id, "empty classic group became a consumer group");
                self.bury_group(groups, id);
            }
            Place::Upgraded(upgraded) => {
                self.check_record_sizes(id, &upgraded.changes)?;
                self.complete_upgrade(groups, id, upgraded);
            }
        }
        Ok(())
    }

    /// Restarts the member's session, and starts its rebalance timer if it must revoke partitions.
    fn set_member_timers(&mut self, heartbeat: &Heartbeat) {
        let (group, member) = (&heartbeat.request.group, heartbeat.member_id());
        if let Some(replaced) = heartbeat.replaced.filter(|replaced| *replaced != member) {
            self.cancel_member_timers(group, replaced);
        }
        self.restart_consumer_session(group, member);
        if Arc::ptr_eq(&heartbeat.old.current, &heartbeat.new.current) {
            return;
        }
        match heartbeat.new.current.state {
            MemberState::UnrevokedPartitions => {
                let timeout_ms = heartbeat.new.subscription.rebalance_timeout_ms;
                self.restart_rebalance_timer(group, member, timeout_ms);
            }
            _ => self.cancel_rebalance_timer(group, member),
        }
    }

    /// Refuses a heartbeat if one of its records does not fit in an append.
    fn check_record_sizes(
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

/// Refuses texts that a key of a record cannot have.
fn check_texts(request: &ConsumerHeartbeatRequest) -> Result<(), Refusal> {
    let ids = [("GroupId", &request.group), ("MemberId", &request.member_id)];
    for (name, id) in ids {
        if id.len() > KEY_TEXT_MAX {
            let message = format!("{name} is longer than {KEY_TEXT_MAX} bytes.");
            return Err(Refusal { error: GroupError::InvalidRequest, message });
        }
    }
    let regex = request.subscribed_topic_regex.as_ref();
    if regex.is_some_and(|regex| regex.len() > KEY_TEXT_MAX) {
        let message = format!("SubscribedTopicRegex is longer than {KEY_TEXT_MAX} bytes.");
        return Err(Refusal { error: GroupError::InvalidRegularExpression, message });
    }
    Ok(())
}
