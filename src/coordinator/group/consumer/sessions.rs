//! Timers of the members of consumer groups, and the settings of a group. A member is removed if it
//! sends no heartbeat within its session timeout, or does not revoke partitions within its
//! rebalance timeout.

use std::sync::Arc;

use super::member::MemberState;
use crate::coordinator::group::{
    Groups, TimerKey, Turn,
    config::{Bounded, ConsumerGroupConfig},
};

impl Turn<'_> {
    /// Starts the timers of all loaded members.
    pub(in crate::coordinator::group) fn start_consumer_sessions(&mut self) {
        let logged = self.logged;
        for (id, group) in logged.consumer_groups() {
            for (member_id, member) in group.members() {
                self.restart_consumer_session(id, member_id);
                if member.current.state == MemberState::UnrevokedPartitions {
                    let timeout_ms = member.subscription.rebalance_timeout_ms;
                    self.restart_rebalance_timer(id, member_id, timeout_ms);
                }
            }
        }
    }

    /// Removes a member because its time for something is up.
    pub(in crate::coordinator::group) fn expire_consumer_member(
        &mut self,
        groups: &mut Groups,
        group: &Arc<str>,
        member: &Arc<str>,
        reason: &'static str,
    ) {
        let logged = self.logged;
        let Some(found) = logged.consumer(group) else { return };
        if found.member(member).is_some() {
            tracing::info!(group = &**group, member = &**member, reason, "member removed");
            self.remove_consumer_member(groups, group, found, member);
        }
    }

    /// Removes a member that has not revoked its partitions in time.
    pub(in crate::coordinator::group) fn expire_rebalance(
        &mut self,
        groups: &mut Groups,
        group: &Arc<str>,
        member: &Arc<str>,
    ) {
        let logged = self.logged;
        let Some(found) = logged.consumer(group) else { return };
        let state = found.member(member).map(|member| member.current.state);
        if state == Some(MemberState::UnrevokedPartitions) {
            let reason = "did not revoke its partitions in time";
            self.expire_consumer_member(groups, group, member, reason);
        }
    }

    /// Restarts the session of a member that uses the consumer protocol.
    pub(super) fn restart_consumer_session(&mut self, group: &Arc<str>, member: &Arc<str>) {
        let timeout_ms = self.setting(group, |config| {
            (config.session_timeout_ms, self.config.consumer.session_timeout_ms)
        });
        self.restart_session_of(group, member, timeout_ms);
    }

    pub(super) fn restart_session_of(
        &mut self,
        group: &Arc<str>,
        member: &Arc<str>,
        timeout_ms: i32,
    ) {
        let key = TimerKey::Session { group: group.clone(), member: member.clone() };
        self.set_timer(key, i64::from(timeout_ms));
    }

    pub(super) fn restart_rebalance_timer(
        &mut self,
        group: &Arc<str>,
        member: &Arc<str>,
        timeout_ms: i32,
    ) {
        let key = TimerKey::Rebalance { group: group.clone(), member: member.clone() };
        self.set_timer(key, i64::from(timeout_ms.max(0)));
    }

    pub(super) fn cancel_rebalance_timer(&mut self, group: &Arc<str>, member: &Arc<str>) {
        let (group, member) = (group.clone(), member.clone());
        self.cancel_timer(TimerKey::Rebalance { group, member });
    }

    pub(super) fn cancel_member_timers(&mut self, group: &Arc<str>, member: &Arc<str>) {
        self.cancel_rebalance_timer(group, member);
        let (group, member) = (group.clone(), member.clone());
        self.cancel_timer(TimerKey::MemberJoin { group: group.clone(), member: member.clone() });
        self.cancel_timer(TimerKey::MemberSync { group: group.clone(), member: member.clone() });
        self.cancel_timer(TimerKey::Session { group, member });
    }

    pub(super) fn heartbeat_interval_ms(&self, group: &str) -> i32 {
        self.setting(group, |config| {
            (config.heartbeat_interval_ms, self.config.consumer.heartbeat_interval_ms)
        })
    }

    pub(super) fn assignment_interval_ms(&self, group: &str) -> i32 {
        self.setting(group, |config| {
            (config.assignment_interval_ms, self.config.consumer.assignment_interval_ms)
        })
    }

    /// A setting of the group if it has one, or else of the broker. `read` returns both.
    fn setting(
        &self,
        group: &str,
        read: impl FnOnce(ConsumerGroupConfig) -> (Option<i32>, Bounded),
    ) -> i32 {
        let config = self.cluster.group_configs.get(group).copied().unwrap_or_default();
        let (of_group, of_broker) = read(config);
        of_broker.or_config(of_group)
    }
}
