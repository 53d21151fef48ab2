//! ConsumerGroupDescribe, and consumer groups in ListGroups and in the list for metrics.

use std::sync::Arc;

use super::{
    member::{CurrentAssignment, Member},
    messages::{ConsumerGroupDescription, ConsumerMemberDescription, Refusal},
    state::ConsumerGroup,
};
use crate::coordinator::group::{
    Turn,
    assignor::Assignment,
    messages::{GroupSurvey, ListedGroup},
    state::CONSUMER_PROTOCOL,
};

impl Turn<'_> {
    pub(in crate::coordinator::group) fn describe_consumer_groups(
        &self,
        ids: Vec<Arc<str>>,
    ) -> Vec<(Arc<str>, Result<ConsumerGroupDescription, Refusal>)> {
        let describe = |id: Arc<str>| {
            let described = self.consumer_group(&id).map(|group| ConsumerGroupDescription {
                group: id.clone(),
                state: group.state().name(),
                group_epoch: group.epoch,
                assignment_epoch: group.target_epoch,
                assignor: self.current_assignor(group).name().into(),
                members: group.members().iter().map(|it| describe_member(group, it)).collect(),
            });
            (id, described)
        };
        ids.into_iter().map(describe).collect()
    }

    pub(in crate::coordinator::group) fn list_consumer_groups(
        &self,
    ) -> impl Iterator<Item = ListedGroup> {
        self.logged.consumer_groups().map(|(id, group)| ListedGroup {
            group: id.clone(),
            protocol_type: CONSUMER_PROTOCOL.into(),
            state: group.state().name(),
            group_type: "consumer",
        })
    }

    pub(in crate::coordinator::group) fn survey_consumer_groups(
        &self,
    ) -> impl Iterator<Item = GroupSurvey> {
        self.logged.consumer_groups().map(|(id, group)| GroupSurvey {
            group: id.clone(),
            state: group.state().name(),
            generation: group.epoch,
            members: group.members().len(),
            parked: 0,
            sessions: group.members().len(),
            offsets: self.surveyed_offsets(id),
        })
    }
}

fn describe_member(
    group: &ConsumerGroup,
    (id, member): (&Arc<str>, &Member),
) -> ConsumerMemberDescription {
    let subscription = &member.subscription;
    ConsumerMemberDescription {
        member_id: id.clone(),
        instance_id: subscription.instance_id.clone(),
        rack_id: subscription.rack_id.clone(),
        member_epoch: member.current.epoch,
        client_id: subscription.client_id.clone(),
        client_host: subscription.client_host.clone(),
        subscribed_topic_names: subscription.topic_names.iter().cloned().collect(),
        subscribed_topic_regex: subscription.topic_regex.clone(),
        assignment: owned(&member.current),
        target_assignment: Assignment::clone(&group.target(id)),
        is_classic: member.uses_classic_protocol(),
    }
}

/// All partitions that a member owns, including those that it must revoke.
fn owned(current: &CurrentAssignment) -> Assignment {
    let mut owned = Assignment::new();
    for (topic, partition) in current.owned() {
        owned.entry(topic).or_default().push(partition);
    }
    for partitions in owned.values_mut() {
        partitions.sort_unstable();
        partitions.dedup();
    }
    owned
}
