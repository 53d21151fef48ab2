//! Heartbeat of a classic member (Kafka's `classicGroupHeartbeatToConsumerGroup`).

use std::sync::Arc;

use super::member::ClassicMember;
use crate::coordinator::group::{
    GroupError, TimerKey, Turn,
    consumer::{
        member::{Member, MemberState},
        state::ConsumerGroup,
    },
    messages::HeartbeatRequest,
};

impl Turn<'_> {
    /// Restarts the member's session.
    ///
    /// # Errors
    /// REBALANCE_IN_PROGRESS if the member must join again, which it then has its rebalance timeout
    /// to do.
    pub(in crate::coordinator::group) fn heartbeat_of_classic_member(
        &mut self,
        group: &ConsumerGroup,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        let (id, instance_id) = (&request.member_id, request.instance_id.as_deref());
        let found = ClassicMember::find(group, id, instance_id, request.generation)?;
        self.restart_session_of(&request.group, id, found.metadata.session_timeout_ms);
        if !must_join_again(group, id, found.member) {
            return Ok(());
        }
        self.await_join(&request.group, id, found.member);
        Err(GroupError::RebalanceInProgress)
    }

    /// Starts the time in which a member must join again, unless it runs already.
    pub(super) fn await_join(&mut self, group: &Arc<str>, member_id: &Arc<str>, member: &Member) {
        let key = TimerKey::MemberJoin { group: group.clone(), member: member_id.clone() };
        let timeout_ms = member.subscription.rebalance_timeout_ms.max(0);
        self.set_timer_once(key, i64::from(timeout_ms));
    }
}

/// Whether a member must join again: there is a newer target assignment, it must revoke partitions,
/// or all partitions that it waits for are free.
fn must_join_again(group: &ConsumerGroup, id: &str, member: &Member) -> bool {
    let current = &member.current;
    current.epoch < group.target_epoch
        || match current.state {
            MemberState::UnrevokedPartitions => true,
            MemberState::UnreleasedPartitions => !waits_for_partitions(group, id, member),
            MemberState::Stable | MemberState::Unknown => false,
        }
}

/// Whether another member owns a partition of the member's target assignment.
fn waits_for_partitions(group: &ConsumerGroup, id: &str, member: &Member) -> bool {
    group.target(id).iter().any(|(topic, partitions)| {
        let assigned = member.current.assigned.get(topic);
        let is_assigned = |at: &i32| assigned.is_some_and(|assigned| assigned.contains_key(at));
        partitions.iter().any(|at| !is_assigned(at) && group.is_owned(*topic, *at))
    })
}
