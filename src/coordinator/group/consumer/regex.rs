//! Subscriptions by regular expressions. The coordinator resolves a regular expression to the names
//! of topics beside the shard, and the shard writes the result. All regular expressions of a group
//! are resolved at once, so that they cause one rebalance.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    hash::metadata_hash,
    live::LiveConsumerGroup,
    messages::Refusal,
    records::{ConsumerChange, ResolvedRegex},
    resolution::{RegexesResolved, ResolveRegexes},
    state::ConsumerGroup,
    update::MemberUpdate,
    values::GroupMetadata,
};
use crate::{
    base::re2::Pattern,
    coordinator::group::{Group, GroupError, Groups, Turn},
};

/// The least time between two resolutions of a group's regular expressions, in milliseconds
/// (Kafka's `REGEX_BATCH_REFRESH_MIN_INTERVAL_MS`).
const MIN_INTERVAL_MS: i64 = 10_000;

/// What an update changes about the member's regular expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegexChange {
    Unchanged,
    /// The topics of the new one are not known yet.
    ToUnresolved,
    /// The topics of the new one are known, or the member has none any more.
    ToResolved,
}

impl RegexChange {
    pub fn is_change(self) -> bool {
        self != Self::Unchanged
    }

    /// Whether the group needs a new target assignment now. If the topics are not known yet, it
    /// needs one later.
    pub fn bumps_epoch(self) -> bool {
        self == Self::ToResolved
    }
}

impl Turn<'_> {
    /// Follows a change of the member's regular expression, and decides whether to resolve those of
    /// the group. Adds a tombstone if the member was the last one with the old one.
    ///
    /// # Errors
    /// The new regular expression is invalid.
    pub(super) fn update_regexes(
        &self,
        update: &mut MemberUpdate,
        live: LiveConsumerGroup,
    ) -> Result<(LiveConsumerGroup, RegexChange, Option<ResolveRegexes>), Refusal> {
        let group = update.group;
        let change = change_regex(update)?;
        let regexes = regexes_after(update);
        if regexes.is_empty() || !self.must_resolve(group, &regexes, live) {
            return Ok((live, change, None));
        }
        let Some(topics) = &self.cluster.topics else { return Ok((live, change, None)) };
        let version = self.cluster.version;
        let work = ResolveRegexes {
            group: update.group_id.clone(),
            regexes: regexes.into_iter().collect(),
            topics: topics.clone(),
            version,
            decided_ms: self.now_ms,
        };
        let live = LiveConsumerGroup { regexes_checked: true, resolving: Some(version), ..live };
        Ok((live, change, Some(work)))
    }

    /// Whether to resolve the regular expressions: because one is not resolved, because topics have
    /// been created, or because the last time was long ago. Not while they are being resolved, and
    /// not again within 10 seconds.
    fn must_resolve(
        &self,
        group: &ConsumerGroup,
        regexes: &BTreeSet<Arc<str>>,
        live: LiveConsumerGroup,
    ) -> bool {
        if live.resolving.is_some() {
            return false;
        }
        let resolved_ms = group.regexes().values().map(|regex| regex.timestamp_ms).max();
        let since_ms = |at_ms: i64| self.now_ms.saturating_sub(at_ms);
        let attempts = resolved_ms.into_iter().chain(live.resolution_failed_ms);
        if attempts.max().is_some_and(|at_ms| since_ms(at_ms) <= MIN_INTERVAL_MS) {
            return false;
        }
        let interval_ms = i64::from(self.config.consumer.regex_refresh_interval_ms);
        regexes.iter().any(|regex| !group.regexes().contains_key(regex))
            || !live.regexes_checked
            || resolved_ms.is_some_and(|at_ms| since_ms(at_ms) > interval_ms)
    }

    /// Writes the topics of regular expressions that still have members, and begins the next group
    /// epoch if they or their metadata have changed.
    pub(in crate::coordinator::group) fn apply_resolved_regexes(
        &mut self,
        groups: &mut Groups,
        outcome: RegexesResolved,
    ) {
        let id = &outcome.group;
        let Some(Group::Consumer(live)) = groups.get_mut(id) else { return };
        if live.resolving != Some(outcome.version) {
            return; // from before a reload of the shard
        }
        live.resolving = None;
        let logged = self.logged;
        let Some(group) = logged.consumer(id) else { return };
        let changes = outcome.resolved.and_then(|resolved| self.regex_changes(group, resolved));
        match changes {
            Some(changes) if self.changes_fit(id, &changes) => {
                live.resolution_failed_ms = None;
                self.write_changes(id, changes);
            }
            _ => {
                live.resolution_failed_ms = Some(self.now_ms);
                tracing::error!(group = &**id, "regular expressions of the group not resolved");
            }
        }
    }

    /// The records of resolved regular expressions. `None` if the topics of the cluster are not
    /// known.
    fn regex_changes(
        &self,
        group: &ConsumerGroup,
        resolved: Vec<(Arc<str>, ResolvedRegex)>,
    ) -> Option<Vec<ConsumerChange>> {
        let topics = self.cluster.topics.as_deref()?;
        let mut regexes = group.regexes().clone();
        let (mut changes, mut bumps) = (Vec::new(), false);
        for (regex, resolved) in resolved {
            if group.regex_members(&regex) == 0 {
                continue;
            }
            let resolved = Arc::new(resolved);
            let old = regexes.insert(regex.clone(), resolved.clone()).unwrap_or_default();
            bumps |= old.topics != resolved.topics;
            changes.push(ConsumerChange::Regex(regex, Some(resolved)));
        }
        let matched = regexes.values().flat_map(|regex| &regex.topics);
        let metadata_hash = metadata_hash(group.topics_by_name().chain(matched), topics);
        if bumps || metadata_hash != group.metadata_hash {
            let epoch = group.epoch.saturating_add(1);
            changes.push(ConsumerChange::Group(Some(GroupMetadata { epoch, metadata_hash })));
        }
        Some(changes)
    }
}

/// Compares the member's regular expression before and after the update.
fn change_regex(update: &mut MemberUpdate) -> Result<RegexChange, Refusal> {
    let (group, old, new) =
        (update.group, update.old.subscription.clone(), &update.new.subscription);
    if old.topic_regex == new.topic_regex {
        return Ok(RegexChange::Unchanged);
    }
    let change = match (old.regex(), new.regex()) {
        (_, Some(regex)) if group.regex_members(regex) == 0 => {
            check_regex(regex)?;
            RegexChange::ToUnresolved
        }
        (_, Some(regex)) if group.regexes().contains_key(regex) => RegexChange::ToResolved,
        (Some(_), None) => RegexChange::ToResolved,
        (_, Some(_)) | (None, None) => RegexChange::ToUnresolved,
    };
    if let Some(regex) = old.regex().filter(|regex| group.regex_members(regex) == 1) {
        update.changes.push(ConsumerChange::Regex(regex.clone(), None));
    }
    Ok(change)
}

fn check_regex(regex: &str) -> Result<(), Refusal> {
    let Err(error) = Pattern::new(regex) else { return Ok(()) };
    let message =
        format!("SubscribedTopicRegex `{regex}` is not a valid regular expression: {error}.");
    Err(Refusal { error: GroupError::InvalidRegularExpression, message })
}

/// The regular expressions with members once the update is applied.
fn regexes_after(update: &MemberUpdate) -> BTreeSet<Arc<str>> {
    let group = update.group;
    let (old, new) = (update.old.subscription.regex(), update.new.subscription.regex());
    let stays = |(regex, members): &(&Arc<str>, &usize)| old != Some(*regex) || **members > 1;
    let mut regexes: BTreeSet<_> =
        group.subscribed_regexes().iter().filter(stays).map(|(regex, _)| regex.clone()).collect();
    regexes.extend(new.cloned());
    regexes
}
