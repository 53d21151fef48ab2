//! DescribeGroups, ListGroups, DeleteGroups, and the list of groups for metrics.

use std::sync::Arc;

use super::{
    Group, Groups, Record, Turn,
    messages::{GroupDescription, GroupError, GroupSurvey, ListRequest, ListedGroup},
    state::State,
};
use crate::base::TopicPartition;

const CLASSIC: &str = "classic";

impl Turn<'_> {
    pub(super) fn describe(&self, groups: &Groups, ids: Vec<Arc<str>>) -> Vec<GroupDescription> {
        let describe = |id: Arc<str>| {
            let described = self.look(groups, &id, |group| group.describe());
            let error = match self.logged.groups.contains_key(&id) {
                true => GroupError::NotClassicGroup,
                false => GroupError::GroupIdNotFound,
            };
            described.unwrap_or(GroupDescription {
                group: id,
                error: Some(error),
                state: "Dead",
                protocol_type: Arc::default(),
                protocol: Arc::default(),
                members: Vec::new(),
            })
        };
        ids.into_iter().map(describe).collect()
    }

    pub(super) fn list(&self, groups: &Groups, request: &ListRequest) -> Vec<ListedGroup> {
        let named = |names: &[Arc<str>], name: &str| {
            names.is_empty() || names.iter().any(|it| it.eq_ignore_ascii_case(name))
        };
        let classic = self.logged.groups.keys().filter_map(|id| {
            self.look(groups, id, |group| ListedGroup {
                group: id.clone(),
                protocol_type: group.protocol_type.clone().unwrap_or_default(),
                state: group.state.name(),
                group_type: CLASSIC,
            })
        });
        let listed = classic.chain(self.list_consumer_groups()).chain(self.list_unserved());
        let is_asked_for = |listed: &ListedGroup| {
            named(&request.types, listed.group_type) && named(&request.states, listed.state)
        };
        listed.filter(is_asked_for).collect()
    }

    pub(super) fn delete_groups(
        &mut self,
        groups: &mut Groups,
        ids: Vec<Arc<str>>,
    ) -> Vec<(Arc<str>, Result<(), GroupError>)> {
        let logged = self.logged;
        let delete = |id: Arc<str>| {
            if let Some(unserved) = logged.unserved(&id) {
                let result = self.delete_unserved(&id, unserved);
                return (id, result);
            }
            if let Some(group) = logged.consumer(&id) {
                let result = self.delete_consumer_group(groups, &id, group);
                return (id, result);
            }
            let result = match self.look(groups, &id, |group| group.state) {
                None => Err(GroupError::GroupIdNotFound),
                Some(State::Empty) => {
                    self.forget_group(groups, &id);
                    Ok(())
                }
                Some(_) => Err(GroupError::NonEmptyGroup),
            };
            (id, result)
        };
        ids.into_iter().map(delete).collect()
    }

    fn forget_group(&mut self, groups: &mut Groups, id: &Arc<str>) {
        self.forget_offsets(id);
        self.bury_group(groups, id);
    }

    /// Deletes a group that has neither members nor offsets.
    pub(super) fn bury_group(&mut self, groups: &mut Groups, id: &Arc<str>) {
        if let Some(Group::Classic(group)) = groups.remove(id) {
            for member in &group.pending_joins {
                self.end_session(&group, member);
            }
        }
        self.record(Record::Group { group: id.clone(), value: None });
    }

    pub(super) fn survey(&self, groups: &Groups) -> Vec<GroupSurvey> {
        let surveys = self.logged.groups.keys().filter_map(|id| {
            self.look(groups, id, |group| GroupSurvey {
                group: id.clone(),
                state: group.state.name(),
                generation: group.generation,
                members: group.members.len(),
                parked: group.awaiting_joins() + group.awaiting_syncs(),
                sessions: group.members.len() + group.pending_joins.len(),
                offsets: self.surveyed_offsets(id),
            })
        });
        surveys.chain(self.survey_consumer_groups()).chain(self.survey_unserved()).collect()
    }

    pub(super) fn surveyed_offsets(&self, group: &str) -> Vec<(TopicPartition, i64)> {
        let topics = self.logged.offsets.topics(group);
        let offsets = topics.flat_map(|(topic, partitions)| {
            partitions.iter().map(|(partition, committed)| {
                (TopicPartition::new(topic.clone(), *partition), committed.value.offset)
            })
        });
        offsets.collect()
    }
}
