//! Replacement of a static member that joins again without its member id (KIP-345, KIP-814).

use std::sync::Arc;

use super::{
    Record, Reply, Turn,
    messages::{GroupError, JoinReply, JoinRequest, SyncReply},
    state::{ClassicGroup, State},
};
use crate::coordinator::Token;

impl Turn<'_> {
    /// Replaces the member id of a static member. Requests that wait under the old id fail with
    /// FENCED_INSTANCE_ID. A stable group continues without a rebalance if its protocol stays the
    /// same.
    pub(super) fn replace_static_member(
        &mut self,
        group: &mut ClassicGroup,
        token: Token,
        request: &JoinRequest,
        (old_id, id): (&Arc<str>, Arc<str>),
    ) {
        let old_leader = group.leader.clone();
        let (join, sync) = group.replace_static_member(old_id, id.clone());
        if let Some(token) = join {
            let reply = JoinReply::refused(old_id.clone(), GroupError::FencedInstanceId);
            self.reply(token, Reply::Join(reply));
        }
        if let Some(token) = sync {
            self.reply(token, Reply::Sync(SyncReply::refused(GroupError::FencedInstanceId)));
        }
        self.end_session(group, old_id);
        // Starts a session with the timeout of the old instance, because the client may never
        // receive the response.
        self.renew_session(group, &id);
        group.update_member(request, &id, token);
        match group.state {
            State::Stable => {
                if group.select_protocol() == group.protocol_name {
                    self.keep_generation(group, request, &id, old_leader);
                } else {
                    self.prepare_rebalance_or_complete_join(group);
                }
            }
            // The leader may be making an assignment for the old id.
            State::CompletingRebalance => self.prepare_rebalance(group),
            State::PreparingRebalance | State::Empty => self.complete_join_if_all_joined(group),
        }
    }

    /// Answers the join with the present generation. A client that does not support
    /// `skip_assignment` gets the leader's old id, so that a returning leader acts as a follower
    /// and makes no assignment.
    fn keep_generation(
        &mut self,
        group: &mut ClassicGroup,
        request: &JoinRequest,
        id: &Arc<str>,
        old_leader: Option<Arc<str>>,
    ) {
        let value = Some(group.to_value());
        self.record(Record::Group { group: group.id.clone(), value });
        let Some(token) = group.take_awaiting_join(id) else { return };
        let mut reply = group.join_reply(id);
        if request.supports_skipping_assignment {
            reply.skip_assignment = group.is_leader(id);
        } else {
            reply.members.clear();
            reply.leader = old_leader.unwrap_or_default();
        }
        self.reply(token, Reply::Join(reply));
    }
}
