//! A member of a consumer group, as its records say (Kafka's `ConsumerGroupMember`). Its
//! subscription and its current assignment have a record each, so they are shared and replaced as a
//! whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::values::{ClassicMemberMetadata, KEY_TEXT_MAX};
use crate::base::TopicId;

/// The epoch in a heartbeat of a member that joins.
pub const JOIN_EPOCH: i32 = 0;
/// The epoch in the last heartbeat of a member that leaves.
pub const LEAVE_EPOCH: i32 = -1;
/// The epoch in the last heartbeat of a static member that will return.
pub const LEAVE_STATIC_EPOCH: i32 = -2;

/// Partitions with the member epoch in which each was assigned (KIP-1251), by topic id. No topic is
/// without partitions.
pub type EpochAssignment = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// How far a member is in its reconciliation (Kafka's `MemberState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// The member has its part of the target assignment.
    Stable,
    /// The member must revoke partitions before it enters the next epoch.
    UnrevokedPartitions,
    /// The member has entered the epoch of the target assignment, but other members still own some
    /// of its partitions.
    UnreleasedPartitions,
    /// A state of a later version of Kafka. The member must rejoin.
    Unknown,
}

impl MemberState {
    /// The state of a record.
    pub fn from_record(value: i8) -> Self {
        match value {
            0 => Self::Stable,
            1 => Self::UnrevokedPartitions,
            2 => Self::UnreleasedPartitions,
            _ => Self::Unknown,
        }
    }

    pub fn to_record(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::UnrevokedPartitions => 1,
            Self::UnreleasedPartitions => 2,
            Self::Unknown => 127,
        }
    }
}

/// What a member has sent about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    pub instance_id: Option<Arc<str>>,
    pub rack_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    /// The address as Kafka prints it: `/127.0.0.1`.
    pub client_host: Arc<str>,
    pub topic_names: BTreeSet<Arc<str>>,
    /// Kafka keeps an empty text, unless the member's record has none. See [`Self::regex`].
    pub topic_regex: Option<Arc<str>>,
    /// In milliseconds; -1 if unknown.
    pub rebalance_timeout_ms: i32,
    /// The assignor that the member prefers.
    pub assignor: Option<Arc<str>>,
    /// Set for a member that uses the classic protocol.
    pub classic: Option<ClassicMemberMetadata>,
}

impl Default for Subscription {
    fn default() -> Self {
        Self {
            instance_id: None,
            rack_id: None,
            client_id: Arc::default(),
            client_host: Arc::default(),
            topic_names: BTreeSet::new(),
            topic_regex: Some(Arc::default()),
            rebalance_timeout_ms: -1,
            assignor: None,
            classic: None,
        }
    }
}

impl Subscription {
    /// The regular expression that the member is subscribed to, if any. One that is too long for the
    /// key of a record does not count. Heartbeats with such a one are refused, but Kafka's logs can
    /// have it.
    pub fn regex(&self) -> Option<&Arc<str>> {
        let regex = self.topic_regex.as_ref();
        regex.filter(|regex| !regex.is_empty() && regex.len() <= KEY_TEXT_MAX)
    }
}

/// The partitions of a member, and how far it is in its reconciliation.
#[derive(Debug, Clone, PartialEq)]
pub struct CurrentAssignment {
    pub epoch: i32,
    /// The epoch before it. A member whose last response was lost still has it.
    pub previous_epoch: i32,
    pub state: MemberState,
    /// The partitions that the member may use.
    pub assigned: EpochAssignment,
    /// The partitions that the member must stop using. It owns them until it has reported that it
    /// does not.
    pub pending_revocation: EpochAssignment,
}

impl Default for CurrentAssignment {
    fn default() -> Self {
        Self {
            epoch: 0,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: EpochAssignment::new(),
            pending_revocation: EpochAssignment::new(),
        }
    }
}

impl CurrentAssignment {
    /// The assignment after a tombstone. The member is removed next.
    pub fn removed(&self) -> Self {
        Self {
            epoch: LEAVE_EPOCH,
            previous_epoch: LEAVE_EPOCH,
            state: self.state,
            ..Self::default()
        }
    }

    /// Whether the member has its part of the target assignment of this epoch.
    pub fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    /// All partitions that the member owns.
    pub fn owned(&self) -> impl Iterator<Item = (TopicId, i32)> {
        let partitions = self.assigned.iter().chain(&self.pending_revocation);
        partitions.flat_map(|(topic, partitions)| partitions.keys().map(|at| (*topic, *at)))
    }

    /// The epoch in which a partition was assigned to the member; `None` if the member does not own
    /// it.
    pub fn assignment_epoch(&self, topic: TopicId, partition: i32) -> Option<i32> {
        let of = |assignment: &EpochAssignment| assignment.get(&topic)?.get(&partition).copied();
        of(&self.assigned).or_else(|| of(&self.pending_revocation))
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Member {
    pub subscription: Arc<Subscription>,
    pub current: Arc<CurrentAssignment>,
}

impl Member {
    pub fn uses_classic_protocol(&self) -> bool {
        self.subscription.classic.is_some()
    }
}
