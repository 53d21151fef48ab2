//! SyncGroup and Heartbeat.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::{
    Groups, Record, Reply, TimerKey, Turn,
    messages::{GroupError, HeartbeatRequest, SyncReply, SyncRequest},
    state::{ClassicGroup, State},
};
use crate::{coordinator::Token, records::batch::HEADER_LEN};

impl Turn<'_> {
    pub(super) fn sync(&mut self, groups: &mut Groups, token: Token, request: SyncRequest) {
        let logged = self.logged;
        if let Some(group) = logged.consumer(&request.group) {
            let reply = self.sync_of_classic_member(group, &request);
            return self.reply(token, Reply::Sync(reply.unwrap_or_else(SyncReply::refused)));
        }
        let group = match self.group_to_sync(groups, &request) {
            Ok(group) => group,
            Err(error) => return self.reply(token, Reply::Sync(SyncReply::refused(error))),
        };
        match group.state {
            State::CompletingRebalance => {
                self.note_sync(group, &request.member_id);
                let member = &mut group.members[&request.member_id];
                if let Some(earlier) = member.awaiting_sync.replace(token) {
                    let reply = SyncReply::refused(GroupError::RebalanceInProgress);
                    self.reply(earlier, Reply::Sync(reply));
                }
                if group.is_leader(&request.member_id) {
                    self.complete_sync(group, request.assignments);
                }
            }
            State::Stable => {
                self.note_sync(group, &request.member_id);
                let reply = assigned(group, &request.member_id);
                self.reply(token, reply);
            }
            State::PreparingRebalance | State::Empty => {
                let reply = SyncReply::refused(GroupError::RebalanceInProgress);
                self.reply(token, Reply::Sync(reply));
            }
        }
    }

    /// Finds the group of a SyncGroup request, and checks the member, the generation and the
    /// protocol.
    fn group_to_sync<'g>(
        &self,
        groups: &'g mut Groups,
        request: &SyncRequest,
    ) -> Result<&'g mut ClassicGroup, GroupError> {
        let group = self.group(groups, &request.group).filter(|g| g.state != State::Empty);
        let group = group.ok_or(GroupError::UnknownMemberId)?;
        group.validate_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != group.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if differs(request.protocol_type.as_deref(), group.protocol_type.as_deref())
            || differs(request.protocol_name.as_deref(), group.protocol_name.as_deref())
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(group)
    }

    /// Records that a member has sent its SyncGroup. The last one stops the timer of the sync
    /// phase.
    fn note_sync(&mut self, group: &mut ClassicGroup, member_id: &str) {
        group.pending_syncs.remove(member_id);
        if group.pending_syncs.is_empty() {
            self.cancel_timer(TimerKey::Sync { group: group.id.clone() });
        }
    }

    /// Stores the leader's assignments. The group is then stable, and all members that wait get
    /// their assignment.
    fn complete_sync(&mut self, group: &mut ClassicGroup, assignments: Vec<(Arc<str>, Bytes)>) {
        let mut assignments: HashMap<Arc<str>, Bytes> = assignments.into_iter().collect();
        for member in group.members.values_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
        }
        let record = Record::Group { group: group.id.clone(), value: Some(group.to_value()) };
        if !self.fits_one_batch(std::slice::from_ref(&record)) {
            self.refuse_syncs(group, GroupError::UnknownServerError);
            return self.prepare_rebalance_or_complete_join(group);
        }
        self.record(record);
        group.transition_to(State::Stable, self.now_ms);
        let members: Vec<Arc<str>> = group.members.keys().cloned().collect();
        for id in members {
            if let Some(token) = group.members[&id].awaiting_sync.take() {
                let reply = assigned(group, &id);
                self.reply(token, reply);
                self.renew_session(group, &id);
            }
        }
    }

    /// Whether the records fit in one batch.
    pub(super) fn fits_one_batch(&self, records: &[Record]) -> bool {
        let records_len: usize = records.iter().map(Record::size_bound).sum();
        HEADER_LEN + records_len <= self.config.max_batch_bytes
    }

    pub(super) fn heartbeat(
        &mut self,
        groups: &mut Groups,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        let logged = self.logged;
        if let Some(group) = logged.consumer(&request.group) {
            return self.heartbeat_of_classic_member(group, request);
        }
        let group = self.group(groups, &request.group).ok_or(GroupError::UnknownMemberId)?;
        group.validate_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != group.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.renew_session(group, &request.member_id);
        match group.state {
            State::Empty => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }
}

/// Whether both are present and differ.
pub(super) fn differs(sent: Option<&str>, known: Option<&str>) -> bool {
    matches!((sent, known), (Some(sent), Some(known)) if sent != known)
}

/// The SyncGroup response with the member's assignment.
fn assigned(group: &ClassicGroup, member_id: &str) -> Reply {
    Reply::Sync(SyncReply {
        error: None,
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol_name.clone(),
        assignment: group.members[member_id].assignment.clone(),
    })
}
