//! LeaveGroup of one or several members, by member id or by instance id.

use super::{
    Groups, Turn,
    messages::{GroupError, LeaveRequest, LeaveResult, LeavingMember},
    state::{ClassicGroup, State},
};

impl Turn<'_> {
    pub(super) fn leave(
        &mut self,
        groups: &mut Groups,
        request: &LeaveRequest,
    ) -> Result<Vec<LeaveResult>, GroupError> {
        let logged = self.logged;
        if let Some(group) = logged.consumer(&request.group) {
            return Ok(self.leave_consumer_group(groups, group, request));
        }
        let Some(group) = self.group(groups, &request.group) else {
            let unknown = |leaving| result_of(leaving, Err(GroupError::UnknownMemberId));
            return Ok(request.members.iter().map(unknown).collect());
        };
        let mut results = Vec::with_capacity(request.members.len());
        for leaving in &request.members {
            let result = self.leave_one(group, leaving);
            results.push(result_of(leaving, result));
        }
        if results.iter().any(|left| left.result.is_ok()) {
            match group.state {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance(group),
                State::PreparingRebalance => self.complete_join_if_all_joined(group),
                State::Empty => {}
            }
        }
        Ok(results)
    }

    fn leave_one(
        &mut self,
        group: &mut ClassicGroup,
        leaving: &LeavingMember,
    ) -> Result<(), GroupError> {
        let instance_id = leaving.instance_id.as_deref();
        let member_id = if leaving.member_id.is_empty() {
            // An administrator removes a static member by its instance id, without knowing its
            // member id.
            let found = instance_id.and_then(|instance_id| group.static_members.get(instance_id));
            found.cloned().ok_or(GroupError::UnknownMemberId)?
        } else {
            leaving.member_id.clone()
        };
        if !group.pending_joins.contains(&member_id) {
            group.validate_member(&member_id, instance_id)?;
        }
        self.end_session(group, &member_id);
        self.remove_member(group, &member_id);
        Ok(())
    }
}

fn result_of(leaving: &LeavingMember, result: Result<(), GroupError>) -> LeaveResult {
    LeaveResult {
        member_id: leaving.member_id.clone(),
        instance_id: leaving.instance_id.clone(),
        result,
    }
}
