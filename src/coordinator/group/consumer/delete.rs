//! The deletion of an empty consumer group, and the tombstones of any.

use std::{collections::BTreeSet, sync::Arc};

use super::{records::ConsumerChange, state::ConsumerGroup};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    coordinator::group::{GroupError, Groups, Turn},
};

impl Turn<'_> {
    /// Deletes a group without members, and its offsets.
    pub(in crate::coordinator::group) fn delete_consumer_group(
        &mut self,
        groups: &mut Groups,
        id: &Arc<str>,
        group: &ConsumerGroup,
    ) -> Result<(), GroupError> {
        if !group.members().is_empty() {
            return Err(GroupError::NonEmptyGroup);
        }
        if !has_bug(Bug::KeptGroupOffsets) {
            self.forget_offsets(id);
        }
        self.bury_consumer_group(groups, id, group);
        Ok(())
    }

    /// Writes a tombstone for each record of a group without members. Its offsets stay.
    pub(in crate::coordinator::group) fn bury_consumer_group(
        &mut self,
        groups: &mut Groups,
        id: &Arc<str>,
        group: &ConsumerGroup,
    ) {
        groups.remove(id);
        self.write_changes(id, tombstones_of(group, None));
    }
}

/// A tombstone for each record of a group, in the order in which Kafka can replay them. If a member
/// has just got another id, `renamed` has the old and the new one.
pub fn tombstones_of(
    group: &ConsumerGroup,
    renamed: Option<(&Arc<str>, &Arc<str>)>,
) -> Vec<ConsumerChange> {
    let present = |id: &Arc<str>| match renamed {
        Some((old, new)) if old == id => new.clone(),
        _ => id.clone(),
    };
    let members: BTreeSet<Arc<str>> = group.members().keys().map(present).collect();
    let targets: BTreeSet<Arc<str>> = group.targets().keys().map(present).collect();
    let regexes = group.regexes().keys().cloned();
    let mut changes = Vec::new();
    changes.extend(members.iter().map(|id| ConsumerChange::Current(id.clone(), None)));
    changes.extend(targets.union(&members).map(|id| ConsumerChange::Target(id.clone(), None)));
    changes.push(ConsumerChange::TargetEpoch(None));
    changes.extend(members.into_iter().map(|id| ConsumerChange::Member(id, None)));
    changes.extend(regexes.map(|regex| ConsumerChange::Regex(regex, None)));
    changes.push(ConsumerChange::PartitionMetadata(None));
    changes.push(ConsumerChange::Group(None));
    changes
}
