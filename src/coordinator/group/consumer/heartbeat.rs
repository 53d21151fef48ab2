//! ConsumerGroupHeartbeat: a member joins, changes its subscription, reports what it owns, and gets
//! its assignment (Kafka's `GroupMetadataManager.consumerGroupHeartbeat`).

use std::sync::Arc;

use super::{
    member::{CurrentAssignment, JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, MemberState},
    messages::{ConsumerHeartbeatReply, ConsumerHeartbeatRequest, Refusal},
    state::ConsumerGroup,
    update::MemberUpdate,
    upgrade::UpgradedGroup,
    values::KEY_TEXT_MAX,
};
use crate::coordinator::group::{GroupError, Groups, Turn, assignor::Assignment};

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

/// Whether the response has the member's assignment: when it joins, when its request is a full one,
/// which it sends after an error, and when the assignment has changed.
fn answers_assignment(request: &ConsumerHeartbeatRequest, update: &MemberUpdate) -> bool {
    let has_subscription =
        request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some();
    let is_full = request.rebalance_timeout_ms != -1
        && has_subscription
        && request.owned_partitions.is_some();
    request.member_epoch == JOIN_EPOCH
        || is_full
        || update.old.current.assigned != update.new.current.assigned
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
        let topics = self.known_topics()?;
        let place = self.place_of(groups, topics, request)?;
        let group = place.group();
        self.check_consumer_group_size(group, &request.member_id)?;
        let mut update = MemberUpdate::of_heartbeat(group, topics, request)?;
        let names_changed = update.update_subscription(request);
        let group_update = self.update_group(groups, &mut update, names_changed)?;
        let (target_epoch, target) = self.update_target(&mut update, group_update.epoch);
        update.reconcile(target_epoch, &target, group_update.subscription_changed)?;
        self.check_record_sizes(&request.group, &update.changes)?;
        self.leave_classic_protocol(groups, &request.group, &place)?;
        self.keep_live(groups, &request.group, group_update);
        self.set_member_timers(&update);
        let reply = ConsumerHeartbeatReply {
            member_id: request.member_id.clone(),
            member_epoch: update.new.current.epoch,
            heartbeat_interval_ms: self.heartbeat_interval_ms(&request.group),
            assignment: answers_assignment(request, &update).then(|| assigned(&update.new.current)),
        };
        self.write_changes(&request.group, update.changes);
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
    fn set_member_timers(&mut self, update: &MemberUpdate) {
        self.cancel_replaced_timers(update);
        let (group, member) = (update.group_id, update.member_id);
        self.restart_consumer_session(group, member);
        if Arc::ptr_eq(&update.old.current, &update.new.current) {
            return;
        }
        match update.new.current.state {
            MemberState::UnrevokedPartitions => {
                let timeout_ms = update.new.subscription.rebalance_timeout_ms;
                self.restart_rebalance_timer(group, member, timeout_ms);
            }
            _ => self.cancel_rebalance_timer(group, member),
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
