//! The deletion of an empty consumer group.

use std::sync::Arc;

use super::{records::ConsumerChange, state::ConsumerGroup};
use crate::coordinator::group::{GroupError, Groups, Turn};

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
        self.forget_offsets(id);
        self.bury_consumer_group(groups, id, group);
        Ok(())
    }

    /// Writes a tombstone for each record of a group without members, in the order in which Kafka
    /// can replay them. Its offsets stay.
    pub(in crate::coordinator::group) fn bury_consumer_group(
        &mut self,
        groups: &mut Groups,
        id: &Arc<str>,
        group: &ConsumerGroup,
    ) {
        groups.remove(id);
        let mut changes: Vec<ConsumerChange> =
            group.targets().keys().map(|id| ConsumerChange::Target(id.clone(), None)).collect();
        changes.push(ConsumerChange::TargetEpoch(None));
        let regexes = group.regexes().keys();
        changes.extend(regexes.map(|regex| ConsumerChange::Regex(regex.clone(), None)));
        changes.push(ConsumerChange::PartitionMetadata(None));
        changes.push(ConsumerChange::Group(None));
        self.write_changes(id, changes);
    }
}
