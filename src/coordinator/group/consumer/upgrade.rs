//! Conversion of a classic group with members to a consumer group, because a member of the consumer
//! protocol joins it (Kafka's `convertToConsumerGroup` and `ConsumerGroup.fromClassicGroup`). The
//! members keep their ids, their generation as epoch, and the partitions of the last assignment.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{
    hash::metadata_hash,
    member::{CurrentAssignment, EpochAssignment, Subscription},
    messages::{Refusal, TopicsSnapshot},
    records::ConsumerChange,
    state::ConsumerGroup,
    values::{
        ClassicMemberMetadata, ClassicProtocol, GroupMetadata, KEY_TEXT_MAX,
        TargetAssignmentMetadata,
    },
};
use crate::{
    base::TopicId,
    coordinator::group::{
        GroupError, Groups, Reply, TimerKey, Turn,
        assignor::Assignment,
        consumer_protocol::{self, ConsumerProtocolAssignment, ConsumerProtocolSubscription},
        messages::{JoinReply, SyncReply},
        state::{ClassicGroup, Member},
    },
    protocol::schema::WireError,
};

/// A consumer group that was a classic group, and the records that make it.
pub struct UpgradedGroup {
    pub group: ConsumerGroup,
    pub changes: Vec<ConsumerChange>,
}

/// Why a group cannot become a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpgradeError {
    Disabled,
    OtherProtocolType,
    TooLarge,
    Malformed,
    /// The members' assignments have data of their own assignor, which would be lost.
    CustomAssignor,
    /// Kafka has no error for this: the group has no protocol yet, a member does not support it, two
    /// members have a partition, or a member id is too long for the key of a record.
    Inconsistent,
}

impl UpgradeError {
    /// The refusal with Kafka's message. An unexpected error has none.
    fn refusal(self, group: &str) -> Refusal {
        let reason = match self {
            Self::Disabled => "online upgrade is disabled.",
            Self::OtherProtocolType => "the group does not use the consumer embedded protocol.",
            Self::TooLarge => "the group size exceeds the consumer group maximum size.",
            Self::Malformed => "the embedded consumer protocol is malformed.",
            Self::CustomAssignor => {
                "an unsupported custom assignor is in use. Please refer to the documentation or \
                 switch to a default assignor before re-attempting the upgrade."
            }
            Self::Inconsistent => return Refusal::new(GroupError::UnknownServerError, ""),
        };
        let message =
            format!("Cannot upgrade classic group {group} to consumer group because {reason}");
        Refusal { error: GroupError::GroupIdNotFound, message }
    }
}

impl From<WireError> for UpgradeError {
    /// Kafka expects only messages that end too early, and versions that do not exist.
    fn from(error: WireError) -> Self {
        match error {
            WireError::Truncated | WireError::UnsupportedVersion(_) => Self::Malformed,
            _ => Self::Inconsistent,
        }
    }
}

impl Turn<'_> {
    /// Makes a consumer group of a classic group that has members. The group stays a classic one
    /// until [`Self::complete_upgrade`].
    ///
    /// # Errors
    /// The group may not or cannot become a consumer group.
    pub(super) fn upgrade(
        &mut self,
        group: &mut ClassicGroup,
        topics: &TopicsSnapshot,
    ) -> Result<UpgradedGroup, Refusal> {
        let upgraded = self.check_upgrade(group).and_then(|()| {
            // As in Kafka, the members must rejoin even if the conversion fails.
            self.refuse_waiting(group);
            convert(group, topics)
        });
        upgraded.map_err(|error| {
            tracing::info!(group = &*group.id, ?error, "classic group not upgraded");
            error.refusal(&group.id)
        })
    }

    fn check_upgrade(&self, group: &ClassicGroup) -> Result<(), UpgradeError> {
        let config = &self.config.consumer;
        if !config.migration_policy.allows_upgrade() {
            Err(UpgradeError::Disabled)
        } else if !group.uses_consumer_protocol() {
            Err(UpgradeError::OtherProtocolType)
        } else if group.members.len() > config.max_size {
            Err(UpgradeError::TooLarge)
        } else {
            Ok(())
        }
    }

    /// Answers all joins and syncs that wait, so that the members rejoin.
    fn refuse_waiting(&mut self, group: &mut ClassicGroup) {
        let error = GroupError::RebalanceInProgress;
        let members: Vec<Arc<str>> = group.members.keys().cloned().collect();
        for id in members {
            if let Some(token) = group.take_awaiting_join(&id) {
                self.reply(token, Reply::Join(JoinReply::refused(id.clone(), error)));
            }
            if let Some(token) = group.members[&id].awaiting_sync.take() {
                self.reply(token, Reply::Sync(SyncReply::refused(error)));
            }
        }
    }

    /// Replaces the classic group by the consumer group that it has become.
    pub(super) fn complete_upgrade(
        &mut self,
        groups: &mut Groups,
        id: &Arc<str>,
        upgraded: &UpgradedGroup,
    ) {
        self.bury_group(groups, id);
        for key in [TimerKey::Join { group: id.clone() }, TimerKey::Sync { group: id.clone() }] {
            self.cancel_timer(key);
        }
        for (member, found) in upgraded.group.members() {
            let Some(classic) = &found.subscription.classic else { continue };
            let key = TimerKey::Session { group: id.clone(), member: member.clone() };
            self.set_timer(key, i64::from(classic.session_timeout_ms));
        }
        self.write_changes(id, upgraded.changes.clone());
        tracing::info!(group = &**id, "classic group became a consumer group");
    }
}

/// The consumer group with the members of a classic group. Its records are in Kafka's order.
fn convert(classic: &ClassicGroup, topics: &TopicsSnapshot) -> Result<UpgradedGroup, UpgradeError> {
    let protocol = classic.protocol_name.as_deref().ok_or(UpgradeError::Inconsistent)?;
    let epoch = classic.generation;
    let mut owned = BTreeSet::new();
    let (mut members, mut targets, mut currents) = (Vec::new(), Vec::new(), Vec::new());
    for member in classic.members.values() {
        let target = assigned_partitions(member, topics)?;
        let mut partitions =
            target.iter().flat_map(|(topic, at)| at.iter().map(|at| (*topic, *at)));
        if member.id.len() > KEY_TEXT_MAX || !partitions.all(|partition| owned.insert(partition)) {
            return Err(UpgradeError::Inconsistent);
        }
        let (id, subscription) = (&member.id, Arc::new(subscription(member, protocol)?));
        let assigned = in_epoch(&target, epoch);
        let current =
            CurrentAssignment { epoch, previous_epoch: epoch, assigned, ..Default::default() };
        members.push(ConsumerChange::Member(id.clone(), Some(subscription)));
        targets.push(ConsumerChange::Target(id.clone(), Some(Arc::new(target))));
        currents.push(ConsumerChange::Current(id.clone(), Some(Arc::new(current))));
    }

    let mut group = ConsumerGroup::default();
    members.iter().for_each(|change| group.apply(change));
    let metadata_hash = metadata_hash(group.subscribed_topics(), topics);
    let mut changes = members;
    changes.push(ConsumerChange::Group(Some(GroupMetadata { epoch, metadata_hash })));
    changes.extend(targets);
    changes.push(ConsumerChange::TargetEpoch(Some(TargetAssignmentMetadata {
        assignment_epoch: epoch,
        // The next target assignment is computed at once.
        assignment_timestamp: 0,
    })));
    changes.extend(currents);
    changes.iter().for_each(|change| group.apply(change));
    Ok(UpgradedGroup { group, changes })
}

/// The partitions that a member got with the last SyncGroup, without topics that do not exist.
fn assigned_partitions(
    member: &Member,
    topics: &TopicsSnapshot,
) -> Result<Assignment, UpgradeError> {
    if member.assignment.is_empty() {
        return Ok(Assignment::new());
    }
    let decoded: ConsumerProtocolAssignment = consumer_protocol::decode(member.assignment.clone())?;
    if decoded.user_data.is_some_and(|data| !data.is_empty()) {
        return Err(UpgradeError::CustomAssignor);
    }
    let assigned = decoded.assigned_partitions.into_iter().filter_map(|topic| {
        let id = topics.topics.get(&*topic.topic)?.id;
        let partitions: BTreeSet<i32> = topic.partitions.into_iter().collect();
        Some((id, partitions.into_iter().collect::<Vec<_>>()))
    });
    Ok(assigned.filter(|(_, partitions)| !partitions.is_empty()).collect())
}

fn in_epoch(target: &Assignment, epoch: i32) -> EpochAssignment {
    let with_epoch = |(topic, partitions): (&TopicId, &Vec<i32>)| {
        (*topic, partitions.iter().map(|at| (*at, epoch)).collect())
    };
    target.iter().map(with_epoch).collect()
}

/// What the member sent with its last JoinGroup.
fn subscription(member: &Member, protocol: &str) -> Result<Subscription, UpgradeError> {
    let mut protocols = member.protocols.iter();
    let metadata = protocols.find(|(name, _)| **name == *protocol).map(|(_, metadata)| metadata);
    let metadata: Bytes = metadata.cloned().ok_or(UpgradeError::Inconsistent)?;
    let decoded: ConsumerProtocolSubscription = consumer_protocol::decode(metadata)?;
    let supported = member.protocols.iter().map(|(name, metadata)| ClassicProtocol {
        name: name.to_string(),
        metadata: metadata.clone(),
    });
    Ok(Subscription {
        instance_id: member.instance_id.clone(),
        rack_id: decoded.rack_id.filter(|rack| !rack.is_empty()).map(Arc::from),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        topic_names: decoded.topics.into_iter().map(Arc::from).collect(),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        classic: Some(ClassicMemberMetadata {
            session_timeout_ms: member.session_timeout_ms,
            supported_protocols: supported.collect(),
        }),
        ..Subscription::default()
    })
}
