//! Groups of protocols that are not served yet, which Apache Kafka has left in the log: consumer
//! groups (KIP-848), share groups and streams groups.
//!
//! Such a group is kept, listed, and described to tools for classic groups as Kafka describes it.
//! Its committed offsets are served and never expire. No classic member can join it, because a
//! classic group would replace the records that Kafka wrote. Its own members cannot be alive here,
//! so the group counts as empty.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    Record, Turn,
    group_type::GroupType,
    messages::{CommitRequest, GroupError, GroupSurvey, ListedGroup},
    state::State,
    unserved_value::UnservedValue,
};

/// A group that is not served: its type and its records by key. Keys are the bytes of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct UnservedGroup {
    group_type: GroupType,
    records: BTreeMap<Bytes, UnservedValue>,
}

impl UnservedGroup {
    pub fn new(group_type: GroupType) -> Self {
        Self { group_type, records: BTreeMap::new() }
    }

    pub fn insert(&mut self, key: Bytes, value: UnservedValue) {
        self.records.insert(key, value);
    }

    pub fn remove(&mut self, key: &Bytes) {
        self.records.remove(key);
    }

    /// Whether all records of the group have been deleted.
    pub fn is_gone(&self) -> bool {
        self.records.is_empty()
    }

    /// The epoch of a consumer group; `None` if the log does not have it, and for other types.
    fn epoch(&self) -> Option<i32> {
        self.records.values().find_map(|value| match value {
            UnservedValue::GroupMetadata(group) => Some(group.epoch),
            _ => None,
        })
    }

    /// The number of members that a consumer group has in the log; 0 for other types.
    fn member_count(&self) -> usize {
        let is_member = |value: &&UnservedValue| matches!(value, UnservedValue::MemberMetadata(_));
        self.records.values().filter(is_member).count()
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
    /// Logs the groups that were loaded but are not served.
    pub(super) fn log_unserved(&self) {
        let groups = self.logged.unserved_groups().count();
        if groups > 0 {
            tracing::warn!(
                groups,
                "groups of the consumer, share or streams protocol were loaded; members of these \
                 protocols are not served, the groups and their offsets are kept"
            );
        }
        for (group, unserved) in self.logged.unserved_groups() {
            let (group_type, epoch) = (unserved.group_type.name(), unserved.epoch());
            let (members, records) = (unserved.member_count(), unserved.records.len());
            tracing::debug!(
                group = &**group,
                group_type,
                epoch,
                members,
                records,
                "group of a protocol that is not served was loaded"
            );
        }
    }

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
        for key in unserved.records.keys().rev() {
            let (group, group_type) = (id.clone(), unserved.group_type);
            self.record(Record::Unserved { group, group_type, key: key.clone(), value: None });
        }
        Ok(())
    }
}
