//! JoinGroup of new and known members.

use std::sync::Arc;

use super::{
    Group, Groups, Record, Reply, TimerKey, Turn, classic_mut,
    messages::{GroupError, JoinReply, JoinRequest},
    state::{ClassicGroup, Member, State},
};
use crate::coordinator::Token;

impl Turn<'_> {
    pub(super) fn join(&mut self, groups: &mut Groups, token: Token, request: &JoinRequest) {
        if self.logged.unserved(&request.group).is_some() {
            let error = GroupError::InconsistentGroupProtocol;
            return self.refuse_join(token, &Arc::default(), error);
        }
        let is_unknown = request.member_id.is_empty();
        let logged = self.logged;
        match logged.consumer(&request.group) {
            Some(group) if !group.members().is_empty() => {
                let reply = self.join_as_classic_member(groups, group, request);
                return self.reply(token, Reply::Join(reply));
            }
            Some(group) if is_unknown => {
                tracing::info!(
                    group = &*request.group,
                    "empty consumer group became a classic group"
                );
                self.bury_consumer_group(groups, &request.group, group);
            }
            _ => {}
        }
        let is_new_group = self.group(groups, &request.group).is_none();
        if is_new_group {
            if !is_unknown {
                let error = GroupError::UnknownMemberId;
                return self.refuse_join(token, &request.member_id, error);
            }
            let group = ClassicGroup::new(request.group.clone(), Some(self.now_ms));
            groups.insert(request.group.clone(), Group::Classic(Box::new(group)));
        }
        let group = classic_mut(groups, &request.group).expect("found or made");
        if is_new_group {
            // The group exists from now on, even if its first member is refused.
            let value = Some(group.to_value());
            self.record(Record::Group { group: group.id.clone(), value });
        }
        if !self.has_room_for(group, &request.member_id) {
            group.remove(&request.member_id);
            self.refuse_join(token, &Arc::default(), GroupError::GroupMaxSizeReached);
        } else if is_unknown {
            self.join_new_member(group, token, request);
        } else {
            self.join_known_member(group, token, request);
        }
    }

    fn refuse_join(&mut self, token: Token, member_id: &Arc<str>, error: GroupError) {
        self.reply(token, Reply::Join(JoinReply::refused(member_id.clone(), error)));
    }

    /// Whether the group may have the member under `group.max.size`. During a join phase, only
    /// members whose join waits count. So if the group has become too large, the last members to
    /// rejoin are refused.
    fn has_room_for(&self, group: &ClassicGroup, member_id: &str) -> bool {
        let member = group.members.get(member_id);
        match group.state {
            State::Empty => true,
            State::PreparingRebalance => {
                member.is_some_and(Member::is_awaiting_join)
                    || group.awaiting_joins() < self.config.max_size
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || group.members.len() < self.config.max_size
            }
        }
    }

    /// A member without an id. A static member replaces the one with its instance id. A dynamic
    /// member gets an id, and must join again with it if its client supports that (KIP-394).
    fn join_new_member(&mut self, group: &mut ClassicGroup, token: Token, request: &JoinRequest) {
        if !group.supports(&request.protocol_type, &request.protocols) {
            let error = GroupError::InconsistentGroupProtocol;
            return self.refuse_join(token, &Arc::default(), error);
        }
        let prefix = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let id: Arc<str> = format!("{prefix}-{}", request.fresh_id).into();
        if let Some(instance_id) = &request.instance_id {
            match group.static_members.get(instance_id).cloned() {
                Some(old_id) => self.replace_static_member(group, token, request, (&old_id, id)),
                None => self.add_member(group, token, request, id),
            }
        } else if request.requires_known_member_id {
            group.pending_joins.insert(id.clone());
            self.restart_session(group, &id, request.session_timeout_ms);
            self.refuse_join(token, &id, GroupError::MemberIdRequired);
        } else {
            self.add_member(group, token, request, id);
        }
    }

    fn join_known_member(&mut self, group: &mut ClassicGroup, token: Token, request: &JoinRequest) {
        let id = &request.member_id;
        if !group.supports(&request.protocol_type, &request.protocols) {
            return self.refuse_join(token, id, GroupError::InconsistentGroupProtocol);
        }
        if group.pending_joins.contains(id) {
            if request.instance_id.is_some() {
                // Only dynamic members get MEMBER_ID_REQUIRED.
                return self.refuse_join(token, &Arc::default(), GroupError::UnknownServerError);
            }
            return self.add_member(group, token, request, id.clone());
        }
        if let Err(error) = group.validate_member(id, request.instance_id.as_deref()) {
            return self.refuse_join(token, id, error);
        }
        let unchanged = group.members[id].protocols == request.protocols;
        match group.state {
            State::PreparingRebalance => self.rejoin(group, token, request),
            // The member may not have received the response to its first join.
            State::CompletingRebalance if unchanged => {
                self.reply(token, Reply::Join(group.join_reply(id)));
            }
            // If the leader rejoins, it wants a new assignment, for example because a topic has got
            // more partitions.
            State::Stable if unchanged && !group.is_leader(id) => {
                self.reply(token, Reply::Join(group.join_reply(id)));
            }
            State::CompletingRebalance | State::Stable => self.rejoin(group, token, request),
            State::Empty => self.refuse_join(token, id, GroupError::UnknownMemberId),
        }
    }

    fn rejoin(&mut self, group: &mut ClassicGroup, token: Token, request: &JoinRequest) {
        self.supersede_join(group, &request.member_id);
        group.update_member(request, &request.member_id, token);
        self.prepare_rebalance_or_complete_join(group);
    }

    /// Refuses the member's earlier join that still waits. A client that joins again no longer
    /// waits for it.
    fn supersede_join(&mut self, group: &mut ClassicGroup, member_id: &Arc<str>) {
        if let Some(token) = group.take_awaiting_join(member_id) {
            self.refuse_join(token, member_id, GroupError::RebalanceInProgress);
        }
    }

    fn add_member(
        &mut self,
        group: &mut ClassicGroup,
        token: Token,
        request: &JoinRequest,
        id: Arc<str>,
    ) {
        if group.members.is_empty() {
            group.protocol_type = Some(request.protocol_type.clone());
        }
        if group.state == State::PreparingRebalance && group.previous_state == Some(State::Empty) {
            group.new_member_added = true;
        }
        group.add(Member::new(request, id.clone()), Some(token));
        // A new member sends no heartbeats before its first response. If its client stops waiting
        // and joins again, it becomes another member. So this timer ends a join that waits too
        // long.
        let timeout_ms = self.config.new_member_join_timeout_ms;
        let key = TimerKey::Session { group: group.id.clone(), member: id };
        self.set_timer(key, i64::from(timeout_ms));
        self.prepare_rebalance_or_complete_join(group);
    }
}
