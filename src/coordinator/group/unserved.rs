//! Groups of protocols that are not served yet, which Apache Kafka has left in the log: consumer
//! groups (KIP-848), share groups and streams groups.
//!
//! Such a group is kept, listed, and described to tools for classic groups as Kafka describes it.
//! Its committed offsets are served and never expire. No classic member can join it, because a
//! classic group would replace the records that Kafka wrote. Its own members cannot be alive here,
//! so the group counts as empty.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{
    Record, Turn,
    group_type::GroupType,
    messages::{CommitRequest, GroupError, GroupSurvey, ListedGroup},
    state::State,
};

/// A group that is not served: its type and the keys of its records.
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

    /// Whether all records of the group have been deleted.
    pub fn is_gone(&self) -> bool {
        self.keys.is_empty()
    }

    /// Refuses requests for committed offsets of share groups. Their offsets are in
    /// `__share_group_state`.
    pub(super) fn check_commits_offsets(&self) -> Result<(), GroupError> {
        match self.group_type {
            GroupType::Consumer | GroupType::Streams => Ok(()),
            GroupType::Share => Err(GroupError::GroupIdNotFound),
        }
    }

    /// Allows only commits without a generation, as in an empty group. Tools send these.
    pub(super) fn validate_commit(&self, request: &CommitRequest) -> Result<(), GroupError> {
        self.check_commits_offsets()?;
        if request.generation < 0 { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }
}

impl Turn<'_> {
    pub(super) fn list_unserved(&self) -> impl Iterator<Item = ListedGroup> {
        self.logged.unserved_groups().map(|(id, unserved)| ListedGroup {
            group: id.clone(),
            protocol_type: unserved.group_type.name().into(),
            state: State::Empty.name(),
            group_type: unserved.group_type.name(),
        })
    }

    pub(super) fn survey_unserved(&self) -> impl Iterator<Item = GroupSurvey> {
        self.logged.unserved_groups().map(|(id, _)| GroupSurvey {
            group: id.clone(),
            state: State::Empty.name(),
            generation: 0,
            members: 0,
            parked: 0,
            sessions: 0,
            offsets: self.surveyed_offsets(id),
        })
    }

    /// Deletes a group: writes a tombstone for each of its offsets and records. A share group is
    /// refused, because its state in `__share_group_state` would remain.
    pub(super) fn delete_unserved(
        &mut self,
        id: &Arc<str>,
        unserved: &UnservedGroup,
    ) -> Result<(), GroupError> {
        if unserved.group_type == GroupType::Share {
            return Err(GroupError::NonEmptyGroup);
        }
        self.forget_offsets(id);
        // Kafka can replay the tombstones only in this order: the assignments of a member, the
        // member, the group.
        for key in unserved.keys.iter().rev() {
            let (group, group_type) = (id.clone(), unserved.group_type);
            self.record(Record::Unserved { group, group_type, key: key.clone(), value: None });
        }
        Ok(())
    }
}
