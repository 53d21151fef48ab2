//! Finds the group and the member of a heartbeat, checks the member's epoch, and updates its
//! subscription and the group's epoch.

use std::sync::Arc;

use super::{
    hash::metadata_hash,
    heartbeat::{Heartbeat, Place},
    member::{CurrentAssignment, JOIN_EPOCH, LEAVE_STATIC_EPOCH, Member, Subscription},
    messages::{ConsumerHeartbeatRequest, Refusal, TopicsSnapshot},
    records::ConsumerChange,
    state::ConsumerGroup,
    values::GroupMetadata,
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

    /// Refuses new members of a group that has `group.consumer.max.size` members.
    pub(super) fn check_consumer_group_size(
        &self,
        group: &ConsumerGroup,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<(), Refusal> {
        let max_size = self.config.consumer.max_size;
        if group.members().len() < max_size || group.member(&request.member_id).is_some() {
            return Ok(());
        }
        let message =
            format!("The consumer group has reached its maximum capacity of {max_size} members.");
        Err(Refusal { error: GroupError::GroupMaxSizeReached, message })
    }
}

impl<'a> Heartbeat<'a> {
    /// Finds the member. Begins with the records that give it the place of a static member which
    /// has left, if it takes one.
    pub fn new(
        group: &'a ConsumerGroup,
        topics: &'a TopicsSnapshot,
        request: &'a ConsumerHeartbeatRequest,
    ) -> Result<Self, Refusal> {
        let (old, replaced) = find_member(group, request)?;
        let mut changes = Vec::new();
        if let Some(replaced) = replaced {
            changes.extend(tombstones(replaced));
            let id = &request.member_id;
            changes.push(ConsumerChange::Member(id.clone(), Some(old.subscription.clone())));
            changes.push(ConsumerChange::Target(id.clone(), Some(group.target(replaced))));
            changes.push(ConsumerChange::Current(id.clone(), Some(old.current.clone())));
        }
        Ok(Self { group, topics, request, new: old.clone(), old, replaced, changes })
    }

    /// Updates the member's subscription with what the request has. Returns whether the names of
    /// its topics change.
    pub fn update_subscription(&mut self) -> bool {
        let Some(updated) = updated(&self.old.subscription, self.request) else { return false };
        let names_changed = updated.topic_names != self.old.subscription.topic_names;
        self.new.subscription = Arc::new(updated);
        let subscription = Some(self.new.subscription.clone());
        self.changes.push(ConsumerChange::Member(self.member_id().clone(), subscription));
        names_changed
    }

    /// Computes the hash of the topics' metadata, and begins the next group epoch if the hash
    /// changes or `bumps` is set. Returns the group epoch.
    pub fn update_epoch(&mut self, bumps: bool) -> i32 {
        let (old, new) = (&*self.old.subscription, &*self.new.subscription);
        let subscribed = self.group.topics_after(&[old], Some(new));
        let metadata_hash = metadata_hash(subscribed, self.topics);
        let mut epoch = self.group.epoch;
        if bumps || metadata_hash != self.group.metadata_hash {
            epoch = epoch.saturating_add(1);
            let value = GroupMetadata { epoch, metadata_hash };
            self.changes.push(ConsumerChange::Group(Some(value)));
        }
        if self.group.has_partition_metadata {
            self.changes.push(ConsumerChange::PartitionMetadata(None));
        }
        epoch
    }
}

/// The tombstones of a member's records, in the order in which Kafka can replay them.
pub fn tombstones(member: &Arc<str>) -> [ConsumerChange; 3] {
    [
        ConsumerChange::Current(member.clone(), None),
        ConsumerChange::Target(member.clone(), None),
        ConsumerChange::Member(member.clone(), None),
    ]
}

/// The member of a heartbeat as it is in the group, or a new one. The second value is the static
/// member whose place it takes.
fn find_member<'a>(
    group: &'a ConsumerGroup,
    request: &ConsumerHeartbeatRequest,
) -> Result<(Member, Option<&'a Arc<str>>), Refusal> {
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
            let current = CurrentAssignment {
                epoch: JOIN_EPOCH,
                previous_epoch: JOIN_EPOCH,
                ..CurrentAssignment::clone(&holder.current)
            };
            let subscription = holder.subscription.clone();
            Ok((Member { subscription, current: Arc::new(current) }, Some(holder_id)))
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

/// The subscription with what the request has; `None` if nothing changes. Fields that the request
/// leaves out keep their values. A member that sends this request uses the consumer protocol.
fn updated(old: &Subscription, request: &ConsumerHeartbeatRequest) -> Option<Subscription> {
    let names = request.subscribed_topic_names.as_ref();
    let updated = Subscription {
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
    };
    (updated != *old).then_some(updated)
}
