//! DescribeGroups, ListGroups, DeleteGroups, and the survey that metrics take.

use std::sync::Arc;

use super::{
    Groups, Record, Turn,
    messages::{GroupDescription, GroupError, GroupSurvey, ListRequest, ListedGroup},
    state::State,
};
use crate::base::TopicPartition;

const CLASSIC: &str = "classic";

impl Turn<'_> {
    pub(super) fn describe(&self, groups: &Groups, ids: Vec<Arc<str>>) -> Vec<GroupDescription> {
        let describe = |id: Arc<str>| {
            let described = self.look(groups, &id, |group| group.describe());
            described.unwrap_or(GroupDescription {
                group: id,
                error: Some(GroupError::GroupIdNotFound),
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
        if !named(&request.types, CLASSIC) {
            return Vec::new();
        }
        let listed = self.hard.groups.keys().filter_map(|id| {
            self.look(groups, id, |group| ListedGroup {
                group: id.clone(),
                protocol_type: group.protocol_type.clone().unwrap_or_default(),
                state: group.state.name(),
                group_type: CLASSIC,
            })
        });
        listed.filter(|listed| named(&request.states, listed.state)).collect()
    }

    pub(super) fn delete_groups(
        &mut self,
        groups: &mut Groups,
        ids: Vec<Arc<str>>,
    ) -> Vec<(Arc<str>, Result<(), GroupError>)> {
        let delete = |id: Arc<str>| {
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
        let hard = self.hard;
        for (topic, partitions) in hard.offsets.get(id).into_iter().flatten() {
            for partition in partitions.keys() {
                self.forget_offset(id, topic, *partition);
            }
        }
        self.bury_group(groups, id);
    }

    /// Ends a group that has neither members nor offsets any more.
    pub(super) fn bury_group(&mut self, groups: &mut Groups, id: &Arc<str>) {
        if let Some(group) = groups.remove(id) {
            for member in &group.pending_joins {
                self.end_session(&group, member);
            }
        }
        self.record(Record::Group { group: id.clone(), value: None });
    }

    pub(super) fn survey(&self, groups: &Groups) -> Vec<GroupSurvey> {
        let surveys = self.hard.groups.keys().filter_map(|id| {
            let offsets = self.hard.offsets.get(id).into_iter().flatten();
            let offsets = offsets.flat_map(|(topic, partitions)| {
                partitions.iter().map(|(partition, committed)| {
                    (TopicPartition::new(topic.clone(), *partition), committed.value.offset)
                })
            });
            self.look(groups, id, |group| GroupSurvey {
                group: id.clone(),
                state: group.state.name(),
                generation: group.generation,
                members: group.members.len(),
                parked: group.awaiting_joins() + group.awaiting_syncs(),
                sessions: group.members.len() + group.pending_joins.len(),
                offsets: offsets.collect(),
            })
        });
        surveys.collect()
    }
}
