//! The phases of a rebalance: its start, the end of its join phase and of its sync phase, and the
//! removal of members that do not keep up.

use std::sync::Arc;

use super::{
    Record, Reply, TimerKey, Turn,
    messages::{GroupError, JoinReply, SyncReply},
    state::{ClassicGroup, InitialDelay, State},
};

impl Turn<'_> {
    /// Starts a session of this length, or restarts it.
    pub(super) fn restart_session(
        &mut self,
        group: &ClassicGroup,
        member: &Arc<str>,
        timeout_ms: i32,
    ) {
        let key = TimerKey::Session { group: group.id.clone(), member: member.clone() };
        self.set_timer(key, i64::from(timeout_ms));
    }

    /// Restarts the session of a member, if the group has it.
    pub(super) fn renew_session(&mut self, group: &ClassicGroup, member_id: &str) {
        if let Some(member) = group.members.get(member_id) {
            self.restart_session(group, &member.id, member.session_timeout_ms);
        }
    }

    /// Cancels the session of a member.
    pub(super) fn end_session(&mut self, group: &ClassicGroup, member: &Arc<str>) {
        let key = TimerKey::Session { group: group.id.clone(), member: member.clone() };
        self.cancel_timer(key);
    }

    /// Starts a rebalance. If the group is already in a join phase, completes it if all members
    /// have joined.
    pub(super) fn prepare_rebalance_or_complete_join(&mut self, group: &mut ClassicGroup) {
        if group.can_rebalance() {
            self.prepare_rebalance(group);
        } else {
            self.complete_join_if_all_joined(group);
        }
    }

    /// Starts the join phase of a rebalance. It completes at once if all members have joined.
    pub(super) fn prepare_rebalance(&mut self, group: &mut ClassicGroup) {
        if group.state == State::CompletingRebalance {
            self.refuse_syncs(group, GroupError::RebalanceInProgress);
        }
        group.pending_syncs.clear();
        self.cancel_timer(TimerKey::Sync { group: group.id.clone() });
        let is_initial = group.state == State::Empty;
        group.transition_to(State::PreparingRebalance, self.now_ms);
        if is_initial {
            let delay_ms = i64::from(self.config.initial_rebalance_delay_ms);
            let remaining_ms = (group.rebalance_timeout_ms() - delay_ms).max(0);
            group.initial_delay = Some(InitialDelay { delay_ms, remaining_ms });
            self.set_timer(TimerKey::Join { group: group.id.clone() }, delay_ms);
        } else if group.have_all_members_joined() {
            self.complete_join(group);
        } else {
            let timeout_ms = group.rebalance_timeout_ms();
            self.set_timer(TimerKey::Join { group: group.id.clone() }, timeout_ms);
        }
    }

    /// Completes the join phase if all members have rejoined. The first rebalance of a group waits
    /// for its delay.
    pub(super) fn complete_join_if_all_joined(&mut self, group: &mut ClassicGroup) {
        if group.state == State::PreparingRebalance
            && group.previous_state != Some(State::Empty)
            && group.have_all_members_joined()
        {
            self.complete_join(group);
        }
    }

    /// Handles the timer of the join phase. In the first rebalance of a group, the delay is
    /// extended while new members join, up to the rebalance timeout. Otherwise, the join phase
    /// completes.
    pub(super) fn expire_join_phase(&mut self, group: &mut ClassicGroup) {
        if group.state != State::PreparingRebalance {
            return;
        }
        match group.initial_delay {
            Some(delay) if group.new_member_added && delay.remaining_ms != 0 => {
                group.new_member_added = false;
                let most_ms = i64::from(self.config.initial_rebalance_delay_ms);
                let delay_ms = most_ms.min(delay.remaining_ms);
                let remaining_ms = (delay.remaining_ms - delay.delay_ms).max(0);
                group.initial_delay = Some(InitialDelay { delay_ms, remaining_ms });
                self.set_timer(TimerKey::Join { group: group.id.clone() }, delay_ms);
            }
            _ => self.complete_join(group),
        }
    }

    /// Completes the join phase. Dynamic members that have not rejoined are removed; the others
    /// enter the next generation.
    pub(super) fn complete_join(&mut self, group: &mut ClassicGroup) {
        group.initial_delay = None;
        self.cancel_timer(TimerKey::Join { group: group.id.clone() });
        let missing = group.members.values();
        let missing = missing.filter(|m| !m.is_awaiting_join() && m.instance_id.is_none());
        let missing: Vec<Arc<str>> = missing.map(|member| member.id.clone()).collect();
        for member in &missing {
            group.remove(member);
            self.end_session(group, member);
        }
        if !group.elect_joined_leader() && !group.members.is_empty() {
            // Only static members are left, and none of them has rejoined. The join phase continues
            // until one rejoins or their sessions end.
            let timeout_ms = group.rebalance_timeout_ms();
            self.set_timer(TimerKey::Join { group: group.id.clone() }, timeout_ms);
            return;
        }
        group.init_next_generation(self.now_ms);
        if group.state == State::Empty {
            let value = Some(group.to_value());
            self.record(Record::Group { group: group.id.clone(), value });
        } else {
            self.announce_generation(group);
        }
    }

    /// Answers the waiting joins, and starts the sync phase.
    fn announce_generation(&mut self, group: &mut ClassicGroup) {
        let members: Vec<Arc<str>> = group.members.keys().cloned().collect();
        for id in &members {
            if let Some(token) = group.take_awaiting_join(id) {
                self.reply(token, Reply::Join(group.join_reply(id)));
            }
            self.renew_session(group, id);
            group.members[id].is_new = false;
            group.pending_syncs.insert(id.clone());
        }
        let timeout_ms = group.rebalance_timeout_ms();
        self.set_timer(TimerKey::Sync { group: group.id.clone() }, timeout_ms);
    }

    /// Removes members that have not sent SyncGroup in time, and starts a new rebalance.
    pub(super) fn expire_sync_phase(&mut self, group: &mut ClassicGroup) {
        let syncing = matches!(group.state, State::CompletingRebalance | State::Stable);
        if !syncing || group.pending_syncs.is_empty() {
            return;
        }
        for member in std::mem::take(&mut group.pending_syncs) {
            group.remove(&member);
            self.end_session(group, &member);
        }
        self.prepare_rebalance(group);
    }

    /// Removes a member whose session has ended, unless its join or sync waits.
    pub(super) fn expire_session(&mut self, group: &mut ClassicGroup, member_id: &Arc<str>) {
        if group.pending_joins.contains(member_id) {
            group.remove(member_id);
            self.complete_join_after_removal(group);
            return;
        }
        let Some(member) = group.members.get(member_id) else { return };
        if member.has_satisfied_heartbeat() {
            return;
        }
        self.remove_member(group, member_id);
        match group.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(group),
            _ => self.complete_join_after_removal(group),
        }
    }

    fn complete_join_after_removal(&mut self, group: &mut ClassicGroup) {
        if group.state == State::PreparingRebalance && group.have_all_members_joined() {
            self.complete_join(group);
        }
    }

    /// Removes a member. If its join or sync waits, the client gets UNKNOWN_MEMBER_ID and must join
    /// as a new member.
    pub(super) fn remove_member(&mut self, group: &mut ClassicGroup, member_id: &Arc<str>) {
        if let Some(token) = group.take_awaiting_join(member_id) {
            let reply = JoinReply::refused(Arc::default(), GroupError::UnknownMemberId);
            self.reply(token, Reply::Join(reply));
        }
        if let Some(token) = group.members.get_mut(member_id).and_then(|m| m.awaiting_sync.take()) {
            let reply = SyncReply::refused(GroupError::UnknownMemberId);
            self.reply(token, Reply::Sync(reply));
        }
        group.remove(member_id);
    }

    /// Clears all assignments, and answers all waiting syncs with an error, so that their members
    /// rejoin.
    pub(super) fn refuse_syncs(&mut self, group: &mut ClassicGroup, error: GroupError) {
        let mut answered = Vec::new();
        for member in group.members.values_mut() {
            member.assignment.clear();
            if let Some(token) = member.awaiting_sync.take() {
                answered.push((token, member.id.clone()));
            }
        }
        for (token, member) in answered {
            self.reply(token, Reply::Sync(SyncReply::refused(error)));
            self.renew_session(group, &member);
        }
    }
}
