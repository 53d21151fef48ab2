//! The records of consumer groups: their keys, and the conversion of their values to the types of
//! the state machine. The keys are those of Kafka's `ConsumerGroup...Key`.

use std::{collections::BTreeSet, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    member::{CurrentAssignment, EpochAssignment, MemberState, Subscription},
    values::{
        self, CurrentMemberAssignment, CurrentPartitions, GroupMetadata, MemberMetadata,
        RegularExpression, TargetAssignmentMember, TargetAssignmentMetadata, TargetPartitions,
    },
};
use crate::{
    coordinator::group::assignor::Assignment,
    protocol::schema::{Field, Reader, WireError},
};

/// Types of the keys.
const GROUP_METADATA: i16 = 3;
const PARTITION_METADATA: i16 = 4;
const MEMBER_METADATA: i16 = 5;
const TARGET_ASSIGNMENT_METADATA: i16 = 6;
const TARGET_ASSIGNMENT_MEMBER: i16 = 7;
const CURRENT_MEMBER_ASSIGNMENT: i16 = 8;
const REGULAR_EXPRESSION: i16 = 16;

/// A record of a consumer group.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerRecord {
    pub group: Arc<str>,
    pub change: ConsumerChange,
}

/// What a record says of its group. `None` is a tombstone.
#[derive(Debug, Clone, PartialEq)]
pub enum ConsumerChange {
    /// The epoch of the group, and the hash of the metadata of its topics.
    Group(Option<GroupMetadata>),
    /// The metadata of the group's topics, which Kafka wrote before 4.1. The value is not used.
    PartitionMetadata(Option<Bytes>),
    Member(Arc<str>, Option<Arc<Subscription>>),
    TargetEpoch(Option<TargetAssignmentMetadata>),
    Target(Arc<str>, Option<Arc<Assignment>>),
    Current(Arc<str>, Option<Arc<CurrentAssignment>>),
    Regex(Arc<str>, Option<Arc<ResolvedRegex>>),
}

impl ConsumerChange {
    pub fn is_tombstone(&self) -> bool {
        match self {
            Self::Group(value) => value.is_none(),
            Self::PartitionMetadata(value) => value.is_none(),
            Self::Member(_, value) => value.is_none(),
            Self::TargetEpoch(value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
            Self::Regex(_, value) => value.is_none(),
        }
    }
}

/// The topics that a regular expression matches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResolvedRegex {
    pub topics: BTreeSet<Arc<str>>,
    /// The version of the metadata that it was resolved with.
    pub version: i64,
    /// When it was resolved, in milliseconds.
    pub timestamp_ms: i64,
}

impl ConsumerRecord {
    /// Whether records with keys of this type are of consumer groups.
    pub fn has_key_type(key_type: i16) -> bool {
        matches!(key_type, GROUP_METADATA..=CURRENT_MEMBER_ASSIGNMENT | REGULAR_EXPRESSION)
    }

    /// An upper bound of the bytes that the record takes in a batch.
    pub fn size_bound(&self) -> usize {
        /// Lengths, deltas and versions of the record, and the numbers in the value.
        const FIXED: usize = 128;
        let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let texts = |texts: &BTreeSet<Arc<str>>| texts.iter().map(|it| it.len() + 5).sum::<usize>();
        let with_epochs = |assignment: &EpochAssignment| {
            assignment.values().map(|partitions| 48 + 8 * partitions.len()).sum::<usize>()
        };
        let change = match &self.change {
            ConsumerChange::Group(_) | ConsumerChange::TargetEpoch(_) => 0,
            ConsumerChange::PartitionMetadata(value) => value.as_ref().map_or(0, Bytes::len),
            ConsumerChange::Member(id, value) => {
                let value = value.as_ref().map_or(0, |it| {
                    let classic = it.classic.iter().flat_map(|it| &it.supported_protocols);
                    let protocols = classic.map(|it| it.name.len() + it.metadata.len() + 16);
                    let optional = [&it.instance_id, &it.rack_id, &it.topic_regex, &it.assignor];
                    optional.into_iter().map(text).sum::<usize>()
                        + it.client_id.len()
                        + it.client_host.len()
                        + texts(&it.topic_names)
                        + protocols.sum::<usize>()
                });
                id.len() + value
            }
            ConsumerChange::Target(id, value) => {
                let topics = value.iter().flat_map(|it| it.values());
                id.len() + topics.map(|partitions| 32 + 4 * partitions.len()).sum::<usize>()
            }
            ConsumerChange::Current(id, value) => {
                let assignments = |it: &Arc<CurrentAssignment>| {
                    with_epochs(&it.assigned) + with_epochs(&it.pending_revocation)
                };
                id.len() + value.as_ref().map_or(0, assignments)
            }
            ConsumerChange::Regex(regex, value) => {
                regex.len() + value.as_ref().map_or(0, |it| texts(&it.topics))
            }
        };
        FIXED + self.group.len() + change
    }

    /// Encodes the record as the key and the value of the log.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let key = |key_type, second: Option<&Arc<str>>| encode_key(key_type, &self.group, second);
        match &self.change {
            ConsumerChange::Group(value) => {
                (key(GROUP_METADATA, None), value.as_ref().map(values::encode))
            }
            ConsumerChange::PartitionMetadata(value) => {
                (key(PARTITION_METADATA, None), value.clone())
            }
            ConsumerChange::Member(id, value) => {
                let value = value.as_deref().map(|value| values::encode(&from_member(value)));
                (key(MEMBER_METADATA, Some(id)), value)
            }
            ConsumerChange::TargetEpoch(value) => {
                (key(TARGET_ASSIGNMENT_METADATA, None), value.as_ref().map(values::encode))
            }
            ConsumerChange::Target(id, value) => {
                let value = value.as_deref().map(|value| values::encode(&from_target(value)));
                (key(TARGET_ASSIGNMENT_MEMBER, Some(id)), value)
            }
            ConsumerChange::Current(id, value) => {
                let value = value.as_deref().map(|value| values::encode(&from_current(value)));
                (key(CURRENT_MEMBER_ASSIGNMENT, Some(id)), value)
            }
            ConsumerChange::Regex(regex, value) => {
                let value = value.as_deref().map(|value| values::encode(&from_regex(value)));
                (key(REGULAR_EXPRESSION, Some(regex)), value)
            }
        }
    }

    /// Decodes a record whose key has type `key_type`. `key` is what follows the type.
    ///
    /// # Errors
    /// The key or the value is invalid, or the value has a version that Kafka 4.3 does not have.
    pub fn decode(key_type: i16, mut key: Reader, value: Option<Bytes>) -> Result<Self, WireError> {
        let mut text = || String::read(&mut key, false, 0).map(Arc::from);
        let group = text()?;
        let change = match key_type {
            GROUP_METADATA => ConsumerChange::Group(value.map(values::decode).transpose()?),
            PARTITION_METADATA => {
                // Copies, because the value is a slice of the batch that was read.
                let value = value.map(|value| Bytes::copy_from_slice(&value));
                ConsumerChange::PartitionMetadata(value)
            }
            MEMBER_METADATA => {
                let (id, value) = (text()?, value.map(values::decode).transpose()?);
                ConsumerChange::Member(id, value.map(|value| Arc::new(to_member(value))))
            }
            TARGET_ASSIGNMENT_METADATA => {
                ConsumerChange::TargetEpoch(value.map(values::decode).transpose()?)
            }
            TARGET_ASSIGNMENT_MEMBER => {
                let (id, value) = (text()?, value.map(values::decode).transpose()?);
                ConsumerChange::Target(id, value.map(|value| Arc::new(to_target(value))))
            }
            CURRENT_MEMBER_ASSIGNMENT => {
                let (id, value) = (text()?, value.map(values::decode).transpose()?);
                ConsumerChange::Current(id, value.map(|value| Arc::new(to_current(&value))))
            }
            REGULAR_EXPRESSION => {
                let (regex, value) = (text()?, value.map(values::decode).transpose()?);
                ConsumerChange::Regex(regex, value.map(|value| Arc::new(to_regex(value))))
            }
            other => return Err(WireError::UnsupportedVersion(other)),
        };
        Ok(Self { group, change })
    }
}

/// Encodes a key: its type, the group id, and the member id or the regular expression. Panics if a
/// text is longer than [`KEY_TEXT_MAX`], because a key with a part of it would be another one.
fn encode_key(key_type: i16, group: &str, second: Option<&Arc<str>>) -> Bytes {
    let mut key = BytesMut::with_capacity(6 + group.len() + second.map_or(0, |it| it.len()));
    key.put_i16(key_type);
    for text in [Some(group), second.map(|text| &**text)].into_iter().flatten() {
        key.put_i16(i16::try_from(text.len()).expect("requests with longer texts are refused"));
        key.put_slice(text.as_bytes());
    }
    key.freeze()
}

fn optional(text: Option<String>) -> Option<Arc<str>> {
    text.map(Arc::from)
}

fn to_member(value: MemberMetadata) -> Subscription {
    Subscription {
        instance_id: optional(value.instance_id),
        rack_id: optional(value.rack_id),
        client_id: value.client_id.into(),
        client_host: value.client_host.into(),
        topic_names: value.subscribed_topic_names.into_iter().map(Arc::from).collect(),
        topic_regex: optional(value.subscribed_topic_regex),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        assignor: optional(value.server_assignor),
        classic: value.classic_member_metadata,
    }
}

fn from_member(member: &Subscription) -> MemberMetadata {
    let optional = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
    MemberMetadata {
        instance_id: optional(&member.instance_id),
        rack_id: optional(&member.rack_id),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        subscribed_topic_names: member.topic_names.iter().map(|name| name.to_string()).collect(),
        subscribed_topic_regex: optional(&member.topic_regex),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        server_assignor: optional(&member.assignor),
        classic_member_metadata: member.classic.clone(),
    }
}

fn to_target(value: TargetAssignmentMember) -> Assignment {
    let topics = value.topic_partitions.into_iter().map(|topic| {
        let mut partitions = topic.partitions;
        partitions.sort_unstable();
        partitions.dedup();
        (topic.topic_id, partitions)
    });
    topics.filter(|(_, partitions)| !partitions.is_empty()).collect()
}

fn from_target(target: &Assignment) -> TargetAssignmentMember {
    let topics = target.iter().map(|(topic_id, partitions)| TargetPartitions {
        topic_id: *topic_id,
        partitions: partitions.clone(),
    });
    TargetAssignmentMember { topic_partitions: topics.collect() }
}

fn to_current(value: &CurrentMemberAssignment) -> CurrentAssignment {
    CurrentAssignment {
        epoch: value.member_epoch,
        previous_epoch: value.previous_member_epoch,
        state: MemberState::from_record(value.state),
        assigned: with_epochs(&value.assigned_partitions, value.member_epoch),
        pending_revocation: with_epochs(&value.partitions_pending_revocation, value.member_epoch),
    }
}

/// The partitions of a record with their assignment epochs. As in Kafka, partitions of an older
/// record, which has no such epochs, count as assigned in the epoch of the member.
fn with_epochs(topics: &[CurrentPartitions], member_epoch: i32) -> EpochAssignment {
    let topics = topics.iter().map(|topic| {
        let epochs = topic.assignment_epochs.as_ref();
        let epochs = epochs.filter(|epochs| epochs.len() == topic.partitions.len());
        let epoch_at = |at: usize| epochs.map_or(member_epoch.max(0), |epochs| epochs[at]);
        let partitions = topic.partitions.iter().enumerate();
        (topic.topic_id, partitions.map(|(at, partition)| (*partition, epoch_at(at))).collect())
    });
    topics
        .filter(|(_, partitions): &(_, std::collections::BTreeMap<_, _>)| !partitions.is_empty())
        .collect()
}

fn from_current(current: &CurrentAssignment) -> CurrentMemberAssignment {
    CurrentMemberAssignment {
        member_epoch: current.epoch,
        previous_member_epoch: current.previous_epoch,
        state: current.state.to_record(),
        assigned_partitions: from_epochs(&current.assigned),
        partitions_pending_revocation: from_epochs(&current.pending_revocation),
    }
}

fn from_epochs(assignment: &EpochAssignment) -> Vec<CurrentPartitions> {
    let topics = assignment.iter().map(|(topic_id, partitions)| CurrentPartitions {
        topic_id: *topic_id,
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
    });
    topics.collect()
}

fn to_regex(value: RegularExpression) -> ResolvedRegex {
    ResolvedRegex {
        topics: value.topics.into_iter().map(Arc::from).collect(),
        version: value.version,
        timestamp_ms: value.timestamp,
    }
}

fn from_regex(regex: &ResolvedRegex) -> RegularExpression {
    RegularExpression {
        topics: regex.topics.iter().map(|name| name.to_string()).collect(),
        version: regex.version,
        timestamp: regex.timestamp_ms,
    }
}

#[cfg(test)]
mod tests;
