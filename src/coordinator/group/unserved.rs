//! Groups of protocols that are not served yet, which Apache Kafka has left in the log: share groups
//! and streams groups.
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
};

/// A group that is not served: its type and its records by key. Keys are the bytes of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct UnservedGroup {
    group_type: GroupType,
    records: BTreeMap<Bytes, Bytes>,
}

impl UnservedGroup {
    pub fn new(group_type: GroupType) -> Self {
        Self { group_type, records: BTreeMap::new() }
    }

    pub fn insert(&mut self, key: Bytes, value: Bytes) {
        self.records.insert(key, value);
    }

    pub fn remove(&mut self, key: &Bytes) {
        self.records.remove(key);
    }

    /// Whether all records of the group have been deleted.
    pub fn is_gone(&self) -> bool {
        self.records.is_empty()
    }

    /// Refuses requests for committed offsets of share groups. Their offsets are in
    /// `__share_group_state`.
    pub(super) fn check_commits_offsets(&self) -> Result<(), GroupError> {
        match self.group_type {
            GroupType::Streams => Ok(()),
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
                "groups of the share or streams protocol were loaded; members of these protocols \
                 are not served, the groups and their offsets are kept"
            );
        }
        for (group, unserved) in self.logged.unserved_groups() {
            let (group_type, records) = (unserved.group_type.name(), unserved.records.len());
            tracing::debug!(
                group = &**group,
                group_type,
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
        // Kafka can replay the tombstones of a streams group only in this order: the assignments of
        // a member, the member, the group.
        for key in unserved.records.keys().rev() {
            let (group, group_type) = (id.clone(), unserved.group_type);
            self.record(Record::Unserved { group, group_type, key: key.clone(), value: None });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::group::{LoggedState, logged_state::LoggedGroup};

    /// A record of the streams group `g`. `rest` follows the group id in the key.
    fn record(key_type: u8, rest: &[u8], value: Option<&'static [u8]>) -> Record {
        let key = [&[0, key_type, 0, 1, b'g'], rest].concat();
        Record::decode(key.into(), value.map(Bytes::from_static)).unwrap().unwrap()
    }

    #[test]
    fn unserved_group_is_kept_until_its_last_tombstone() {
        let mut logged = LoggedState::default();
        let offset = Record::Offset {
            group: "g".into(),
            topic: "t".into(),
            partition: 0,
            value: Some(Default::default()),
        };
        logged.apply(0, &offset);
        assert_eq!(logged.groups["g"], LoggedGroup::Simple);

        logged.apply(1, &record(19, b"\0\x01m", Some(b"any")));
        logged.apply(2, &record(17, b"", Some(b"any")));
        logged.apply(3, &Record::Group { group: "g".into(), value: None });
        logged.apply(4, &record(19, b"\0\x01m", None));
        assert!(logged.unserved("g").is_some());

        logged.apply(5, &record(17, b"", None));
        assert!(logged.groups.is_empty());
    }
}
