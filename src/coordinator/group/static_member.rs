//! The return of a static member with a new member id (KIP-345, KIP-814).

use std::sync::Arc;

use super::{
    Record, Reply, Turn,
    messages::{GroupError, JoinReply, JoinRequest, SyncReply},
    state::{ClassicGroup, State},
};
use crate::coordinator::Token;

impl Turn<'_> {
    /// Gives a static member's place to its new id, and fences whoever waits under the old one.
    /// A stable group goes on without a rebalance if its protocol stays.
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
        // Its session until now, for the client may never come to hear of the new one.
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
            // The leader may be assigning to the old id at this moment.
            State::CompletingRebalance => self.prepare_rebalance(group),
            State::PreparingRebalance | State::Empty => self.complete_join_if_all_joined(group),
        }
    }

    /// Answers with the generation as it is. A client that cannot skip its assignment is told the
    /// leader's old id, so that a returning leader takes itself for a follower.
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
