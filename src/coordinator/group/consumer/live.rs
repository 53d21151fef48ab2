//! What a restart loses of a consumer group: whether it has followed the changes of the topics.

use std::sync::Arc;

use super::{messages::TopicsSnapshot, state::ConsumerGroup};
use crate::coordinator::group::{Group, Groups, LoggedState};

/// A consumer group that has been used since the shard was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LiveConsumerGroup {
    /// Whether the metadata hash has been computed since the last change of a subscribed topic.
    pub metadata_checked: bool,
    /// Whether the regular expressions have been resolved since the last creation of a topic, or
    /// are being resolved.
    pub regexes_checked: bool,
    /// The version of the cluster info with which regular expressions are being resolved.
    pub resolving: Option<u64>,
    /// When the last resolution failed, in milliseconds.
    pub resolution_failed_ms: Option<i64>,
}

/// Marks the live groups that must follow the changes between two snapshots of the topics.
pub fn mark_changes(
    groups: &mut Groups,
    logged: &LoggedState,
    old: Option<&Arc<TopicsSnapshot>>,
    new: &TopicsSnapshot,
) {
    if !groups.values().any(|group| matches!(group, Group::Consumer(_))) {
        return; // without a comparison of all topics
    }
    let changed: Option<Vec<_>> = old.map(|old| new.topics.changed_keys(&old.topics).collect());
    let created = match (old, &changed) {
        (Some(old), Some(changed)) => changed.iter().any(|it| !old.topics.contains_key(*it)),
        _ => true,
    };
    for (id, group) in groups {
        let Group::Consumer(live) = group else { continue };
        live.regexes_checked &= !created;
        let follows = |group: &ConsumerGroup| match &changed {
            Some(changed) => changed.iter().any(|topic| group.is_subscribed_to(topic)),
            None => true,
        };
        live.metadata_checked &= !logged.consumer(id).is_some_and(follows);
    }
}
