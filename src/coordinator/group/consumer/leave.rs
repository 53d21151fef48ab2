//! The removal of members, and static members that leave for a while.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    hash::metadata_hash,
    join::{check_instance, unknown_instance, unknown_member},
    member::{CurrentAssignment, EpochAssignment, LEAVE_STATIC_EPOCH},
    messages::{ConsumerHeartbeatReply, ConsumerHeartbeatRequest, Refusal},
    records::ConsumerChange,
    state::ConsumerGroup,
    update::tombstones,
    values::GroupMetadata,
};
use crate::coordinator::group::{
    GroupError, Groups, LoggedGroup, Turn,
    messages::{LeaveRequest, LeaveResult, LeavingMember},
};

impl<'a> Turn<'a> {
    /// A member leaves with epoch -1, or as a static member that will return with epoch -2.
    pub(super) fn consumer_leave(
        &mut self,
        groups: &mut Groups,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<ConsumerHeartbeatReply, Refusal> {
        let group = self.consumer_group(&request.group)?;
        let id = match &request.instance_id {
            None if group.member(&request.member_id).is_some() => &request.member_id,
            None => return Err(unknown_member(request)),
            Some(instance_id) => {
                let holder = group.static_member(instance_id);
                let holder = holder.ok_or_else(|| unknown_instance(instance_id))?;
                check_instance(request, instance_id, holder)?;
                holder
            }
        };
        if request.instance_id.is_some() && request.member_epoch == LEAVE_STATIC_EPOCH {
            self.leave_for_a_while(&request.group, group, id);
        } else {
            self.remove_consumer_member(groups, &request.group, group, id);
        }
        Ok(ConsumerHeartbeatReply {
            member_id: request.member_id.clone(),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    }

    /// The consumer group with this id.
    pub(super) fn consumer_group(&self, id: &Arc<str>) -> Result<&'a ConsumerGroup, Refusal> {
        let message = match self.logged.groups.get(id) {
            Some(LoggedGroup::Consumer(group)) => return Ok(group),
            Some(_) => format!("Group {id} is not a consumer group."),
            None => format!("Group {id} not found."),
        };
        Err(Refusal { error: GroupError::GroupIdNotFound, message })
    }

    /// Keeps the partitions of a static member for the member that takes its place. They count as
    /// assigned to that one in epoch 0. Its session continues.
    fn leave_for_a_while(&mut self, id: &Arc<str>, group: &ConsumerGroup, member: &Arc<str>) {
        let Some(found) = group.member(member) else { return };
        let mut assigned = found.current.assigned.clone();
        let epochs = assigned.values_mut().flat_map(|partitions| partitions.values_mut());
        epochs.for_each(|epoch| *epoch = 0);
        let current = CurrentAssignment {
            epoch: LEAVE_STATIC_EPOCH,
            assigned,
            pending_revocation: EpochAssignment::new(),
            ..CurrentAssignment::clone(&found.current)
        };
        self.cancel_rebalance_timer(id, member);
        let current = ConsumerChange::Current(member.clone(), Some(Arc::new(current)));
        self.write_changes(id, vec![current]);
    }

    /// Removes a member, and begins the next group epoch. The group stays, even without members. If
    /// only members of the classic protocol are left, it can become a classic group.
    pub(super) fn remove_consumer_member(
        &mut self,
        groups: &mut Groups,
        id: &Arc<str>,
        group: &ConsumerGroup,
        member: &Arc<str>,
    ) {
        self.remove_consumer_members(groups, id, group, &BTreeSet::from([member.clone()]));
    }

    fn remove_consumer_members(
        &mut self,
        groups: &mut Groups,
        id: &Arc<str>,
        group: &ConsumerGroup,
        members: &BTreeSet<Arc<str>>,
    ) {
        if members.is_empty() || self.downgrade_if_last(groups, id, group, members) {
            return;
        }
        let mut changes = Vec::new();
        let mut removed = Vec::new();
        for member in members {
            let Some(found) = group.member(member) else { continue };
            changes.extend(tombstones(member));
            removed.push(&*found.subscription);
            self.cancel_member_timers(id, member);
        }
        for regex in group.regexes_dropped(&removed, None) {
            changes.push(ConsumerChange::Regex(regex.clone(), None));
        }
        let metadata_hash = match self.cluster.topics.as_deref() {
            Some(topics) => metadata_hash(group.topics_after(&removed, None), topics),
            None => group.metadata_hash,
        };
        let epoch = group.epoch.saturating_add(1);
        changes.push(ConsumerChange::Group(Some(GroupMetadata { epoch, metadata_hash })));
        self.write_changes(id, changes);
    }

    /// LeaveGroup of the classic protocol, with which administrators remove members.
    pub(in crate::coordinator::group) fn leave_consumer_group(
        &mut self,
        groups: &mut Groups,
        group: &ConsumerGroup,
        request: &LeaveRequest,
    ) -> Vec<LeaveResult> {
        let mut leaving = BTreeSet::new();
        let mut results = Vec::with_capacity(request.members.len());
        for member in &request.members {
            let found = find_leaving(group, member);
            results.push(LeaveResult {
                member_id: member.member_id.clone(),
                instance_id: member.instance_id.clone(),
                result: found.clone().map(|_| ()),
            });
            leaving.extend(found);
        }
        self.remove_consumer_members(groups, &request.group, group, &leaving);
        results
    }
}

/// The id of a member that leaves. An administrator may name a static member by its instance id
/// only.
fn find_leaving(group: &ConsumerGroup, leaving: &LeavingMember) -> Result<Arc<str>, GroupError> {
    let Some(instance_id) = &leaving.instance_id else {
        let found = group.member(&leaving.member_id).map(|_| leaving.member_id.clone());
        return found.ok_or(GroupError::UnknownMemberId);
    };
    match group.static_member(instance_id) {
        None => Err(GroupError::UnknownMemberId),
        Some(id) if leaving.member_id.is_empty() || *id == leaving.member_id => Ok(id.clone()),
        Some(_) => Err(GroupError::FencedInstanceId),
    }
}
