//! Deletes expired offsets (KIP-211), and groups that have neither members nor offsets.

use std::sync::Arc;

use super::{
    Group, Groups, TimerKey, Turn,
    records::OffsetCommitValue,
    state::{ClassicGroup, State},
};

/// The time from which the retention of a group's offsets counts.
enum RetainedSince {
    /// The time at which the group became empty, or the commit if that time is unknown.
    GroupEmpty(Option<i64>),
    Commit,
    /// The offsets do not expire.
    Forever,
}

impl RetainedSince {
    fn of(group: &ClassicGroup) -> Self {
        if group.protocol_type.is_none() {
            return Self::Commit; // a simple group
        }
        match group.state {
            State::Empty => Self::GroupEmpty(group.state_timestamp_ms),
            State::Stable
                if group.uses_consumer_protocol() && group.subscribed_topics.is_some() =>
            {
                Self::Commit
            }
            _ => Self::Forever,
        }
    }

    fn is_expired(&self, offset: &OffsetCommitValue, now_ms: i64, retention_ms: i64) -> bool {
        let since_ms = match self {
            Self::Forever => return false,
            _ if offset.expire_timestamp != -1 => return now_ms >= offset.expire_timestamp,
            Self::GroupEmpty(at_ms) => at_ms.unwrap_or(offset.commit_timestamp),
            Self::Commit => offset.commit_timestamp,
        };
        now_ms.saturating_sub(since_ms) >= retention_ms
    }
}

impl Turn<'_> {
    /// Deletes expired offsets of all groups, and groups that are then without members and offsets.
    /// Sets the timer of the next run.
    pub(super) fn expire_offsets(&mut self, groups: &mut Groups) {
        let logged = self.logged;
        for (id, group) in logged.consumer_groups() {
            let is_subscribed = |topic: &str| group.is_subscribed_to(topic);
            let all_expired = self.expire_offsets_of(id, &RetainedSince::Commit, is_subscribed);
            if all_expired && group.members().is_empty() {
                self.bury_consumer_group(groups, id, group);
            }
        }
        for id in logged.groups.keys() {
            let loaded;
            let group = match groups.get(id) {
                Some(Group::Classic(group)) => group,
                Some(Group::Consumer(_)) => continue,
                None => {
                    let Some(group) = logged.group(id) else { continue };
                    loaded = group;
                    &loaded
                }
            };
            let is_empty = group.state == State::Empty;
            let (since, is_subscribed) =
                (RetainedSince::of(group), |topic: &str| group.is_subscribed_to(topic));
            if self.expire_offsets_of(id, &since, is_subscribed) && is_empty {
                self.bury_group(groups, id);
            }
        }
        self.set_timer(TimerKey::Expire, self.config.offsets_retention_check_interval_ms);
    }

    /// Deletes a group's expired offsets, except those of partitions with an offset in an open
    /// transaction. Returns whether none is left, neither committed nor in an open transaction.
    fn expire_offsets_of(
        &mut self,
        id: &Arc<str>,
        since: &RetainedSince,
        is_subscribed: impl Fn(&str) -> bool,
    ) -> bool {
        let (now_ms, retention_ms) = (self.now_ms, self.config.offsets_retention_ms);
        let mut all_expired = true;
        let logged = self.logged;
        for (topic, partitions) in logged.offsets.topics(id) {
            let subscribed = is_subscribed(topic);
            for (partition, committed) in partitions {
                if !subscribed
                    && since.is_expired(&committed.value, now_ms, retention_ms)
                    && !logged.pending.contains(id, topic, *partition)
                {
                    self.forget_offset(id, topic, *partition);
                } else {
                    all_expired = false;
                }
            }
        }
        all_expired && !logged.pending.has_group(id)
    }
}
