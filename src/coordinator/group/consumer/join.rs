//! Finds the group and the member of a heartbeat, and checks the member's epoch.

use std::sync::Arc;

use super::{
    heartbeat::Place,
    member::{CurrentAssignment, JOIN_EPOCH, LEAVE_STATIC_EPOCH, Member, Subscription},
    messages::{ConsumerHeartbeatRequest, Refusal, TopicsSnapshot},
    state::ConsumerGroup,
    update::{FoundMember, MemberUpdate, successor_of},
};
use crate::coordinator::group::{GroupError, Groups, LoggedGroup, Turn, state::State};

impl<'a> Turn<'a> {
    /// The group of a heartbeat. A member that joins may found it, or make a consumer group of a
    /// classic one.
    pub(super) fn place_of(
        &mut self,
        groups: &mut Groups,
        topics: &TopicsSnapshot,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<Place<'a>, Refusal> {
        let (id, joins) = (&request.group, request.member_epoch == JOIN_EPOCH);
        let message = match self.logged.groups.get(id) {
            Some(LoggedGroup::Consumer(group)) => return Ok(Place::Consumer(group)),
            None if joins => return Ok(Place::New(ConsumerGroup::default())),
            None => format!("Consumer group {id} not found."),
            Some(LoggedGroup::Simple | LoggedGroup::Classic(_)) if joins => {
                return match self.group(groups, id) {
                    Some(group) if group.state != State::Empty => {
                        self.upgrade(group, topics).map(Place::Upgraded)
                    }
                    _ => Ok(Place::EmptyClassic(ConsumerGroup::default())),
                };
            }
            Some(_) => format!("Group {id} is not a consumer group."),
        };
        Err(Refusal { error: GroupError::GroupIdNotFound, message })
    }
}

impl<'a> MemberUpdate<'a> {
    /// Finds the member of a heartbeat. Begins with the records that give it the place of a static
    /// member, if it takes one.
    pub fn of_heartbeat(
        group: &'a ConsumerGroup,
        topics: &'a TopicsSnapshot,
        request: &'a ConsumerHeartbeatRequest,
    ) -> Result<Self, Refusal> {
        let member = find_member(group, request)?;
        let ids = (&request.group, &request.member_id);
        Ok(Self::new(ids, group, topics, member, request.owned_partitions.as_deref()))
    }

    /// Updates the member's subscription with what the heartbeat has. Returns whether the names of
    /// its topics change.
    pub fn update_subscription(&mut self, request: &ConsumerHeartbeatRequest) -> bool {
        self.set_subscription(updated(&self.old.subscription, request))
    }
}

/// The member of a heartbeat as it is in the group, or a new one.
fn find_member<'a>(
    group: &'a ConsumerGroup,
    request: &ConsumerHeartbeatRequest,
) -> Result<FoundMember<'a>, Refusal> {
    let (id, joins) = (&request.member_id, request.member_epoch == JOIN_EPOCH);
    let Some(instance_id) = &request.instance_id else {
        return match group.member(id) {
            Some(member) => {
                check_epoch(&member.current, request)?;
                Ok((member.clone(), None))
            }
            None if joins => Ok((Member::default(), None)),
            None => Err(unknown_member(request)),
        };
    };
    let holder = group.static_member(instance_id);
    let holder = holder.and_then(|id| Some((id, group.member(id)?)));
    match holder {
        None if joins => Ok((group.member(id).cloned().unwrap_or_default(), None)),
        None => Err(unknown_instance(instance_id)),
        Some((holder_id, holder)) if joins => {
            let has_left = holder.current.epoch == LEAVE_STATIC_EPOCH;
            if !has_left && !holder.uses_classic_protocol() {
                return Err(unreleased_instance(request, instance_id, holder_id));
            }
            Ok((successor_of(holder), Some(holder_id)))
        }
        Some((holder_id, holder)) => {
            check_instance(request, instance_id, holder_id)?;
            check_epoch(&holder.current, request)?;
            Ok((holder.clone(), None))
        }
    }
}

/// Checks the epoch of a heartbeat. A member may have the previous epoch if it has not received
/// the response with the present one. It then owns nothing that was not assigned to it before.
fn check_epoch(
    current: &CurrentAssignment,
    request: &ConsumerHeartbeatRequest,
) -> Result<(), Refusal> {
    let (sent, known) = (request.member_epoch, current.epoch);
    if sent == JOIN_EPOCH || sent == known {
        return Ok(());
    }
    if sent < known && sent == current.previous_epoch && owns_only_assigned(current, request) {
        return Ok(());
    }
    let relation = if sent > known { "greater" } else { "smaller" };
    let message = format!(
        "The consumer group member has a {relation} member epoch ({sent}) than the one known by \
         the group coordinator ({known}). The member must abandon all its partitions and rejoin."
    );
    Err(Refusal { error: GroupError::FencedMemberEpoch, message })
}

fn owns_only_assigned(current: &CurrentAssignment, request: &ConsumerHeartbeatRequest) -> bool {
    let Some(owned) = &request.owned_partitions else { return false };
    owned.iter().all(|(topic, partitions)| {
        let assigned = current.assigned.get(topic);
        assigned.is_some_and(|assigned| partitions.iter().all(|at| assigned.contains_key(at)))
    })
}

pub fn unknown_member(request: &ConsumerHeartbeatRequest) -> Refusal {
    let (member, group) = (&request.member_id, &request.group);
    let message = format!("Member {member} is not a member of group {group}.");
    Refusal { error: GroupError::UnknownMemberId, message }
}

pub fn unknown_instance(instance_id: &str) -> Refusal {
    let message = format!("Instance id {instance_id} is unknown.");
    Refusal { error: GroupError::UnknownMemberId, message }
}

/// Checks that the member is the one that holds the instance id.
pub fn check_instance(
    request: &ConsumerHeartbeatRequest,
    instance_id: &str,
    holder: &Arc<str>,
) -> Result<(), Refusal> {
    let member = &request.member_id;
    if holder == member {
        return Ok(());
    }
    let message = format!(
        "Static member {member} with instance id {instance_id} was fenced by member {holder}."
    );
    Err(Refusal { error: GroupError::FencedInstanceId, message })
}

fn unreleased_instance(
    request: &ConsumerHeartbeatRequest,
    instance_id: &str,
    holder: &str,
) -> Refusal {
    let member = &request.member_id;
    let message = format!(
        "Static member {member} with instance id {instance_id} cannot join the group because the \
         instance id is owned by {holder} member."
    );
    Refusal { error: GroupError::UnreleasedInstanceId, message }
}

/// The subscription with what the request has. Fields that the request leaves out keep their
/// values. A member that sends this request uses the consumer protocol.
fn updated(old: &Subscription, request: &ConsumerHeartbeatRequest) -> Subscription {
    let names = request.subscribed_topic_names.as_ref();
    Subscription {
        instance_id: request.instance_id.clone().or_else(|| old.instance_id.clone()),
        rack_id: request.rack_id.clone().or_else(|| old.rack_id.clone()),
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        topic_names: match names {
            Some(names) => names.iter().cloned().collect(),
            None => old.topic_names.clone(),
        },
        topic_regex: request.subscribed_topic_regex.clone().or_else(|| old.topic_regex.clone()),
        rebalance_timeout_ms: match request.rebalance_timeout_ms {
            -1 => old.rebalance_timeout_ms,
            timeout_ms => timeout_ms,
        },
        assignor: request.server_assignor.clone().or_else(|| old.assignor.clone()),
        classic: None,
    }
}
