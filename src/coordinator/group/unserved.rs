//! Groups of the protocols that are not served yet: consumer groups of KIP-848, share groups and
//! streams groups that Apache Kafka has left in the log.
//!
//! Such a group is kept, listed, described to classic tools as Kafka describes it, and its
//! committed offsets are served and never expire. No classic member can join it, because a classic
//! group over it would replace what Kafka has recorded. No member of its own protocol can be alive
//! here, so the group counts as empty.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{
    Record, Turn,
    group_type::GroupType,
    messages::{CommitRequest, GroupError, GroupSurvey, ListedGroup},
    state::State,
};

/// A group that is not served, with the keys of its records.
#[derive(Debug, Clone, PartialEq)]
pub struct UnservedGroup {
    group_type: GroupType,
    keys: BTreeSet<Bytes>,
}

impl UnservedGroup {
    pub fn new(group_type: GroupType) -> Self {
        Self { group_type, keys: BTreeSet::new() }
    }

    pub fn insert(&mut self, key: &Bytes) {
        // A copy, because the key is a slice of the batch that was read.
        self.keys.insert(Bytes::copy_from_slice(key));
    }

    pub fn remove(&mut self, key: &Bytes) {
        self.keys.remove(key);
    }

    /// Whether the log has no record of the group any more.
    pub fn is_gone(&self) -> bool {
        self.keys.is_empty()
    }

    /// A share group has no committed offsets: those of its partitions are in
    /// `__share_group_state`.
    pub(super) fn check_commits_offsets(&self) -> Result<(), GroupError> {
        match self.group_type {
            GroupType::Consumer | GroupType::Streams => Ok(()),
            GroupType::Share => Err(GroupError::GroupIdNotFound),
        }
    }

    /// Only tools commit, without a member id, as while a group is empty.
    pub(super) fn validate_commit(&self, request: &CommitRequest) -> Result<(), GroupError> {
        self.check_commits_offsets()?;
        if request.generation < 0 { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }
}

impl Turn<'_> {
    pub(super) fn list_unserved(&self) -> impl Iterator<Item = ListedGroup> {
        self.hard.unserved.iter().map(|(id, unserved)| ListedGroup {
            group: id.clone(),
            protocol_type: unserved.group_type.name().into(),
            state: State::Empty.name(),
            group_type: unserved.group_type.name(),
        })
    }

    pub(super) fn survey_unserved(&self) -> impl Iterator<Item = GroupSurvey> {
        self.hard.unserved.keys().map(|id| GroupSurvey {
            group: id.clone(),
            state: State::Empty.name(),
            generation: 0,
            members: 0,
            parked: 0,
            sessions: 0,
            offsets: self.surveyed_offsets(id),
        })
    }

    /// Writes a tombstone for each offset and each record of the group. A share group is refused,
    /// because its state in another topic would be left behind.
    pub(super) fn delete_unserved(
        &mut self,
        id: &Arc<str>,
        unserved: &UnservedGroup,
    ) -> Result<(), GroupError> {
        if unserved.group_type == GroupType::Share {
            return Err(GroupError::NonEmptyGroup);
        }
        self.forget_offsets(id);
        // Kafka replays them in this order only: a member's assignments, the member, the group.
        for key in unserved.keys.iter().rev() {
            let (group, group_type) = (id.clone(), unserved.group_type);
            self.record(Record::Unserved { group, group_type, key: key.clone(), value: None });
        }
        Ok(())
    }
}
