//! Server-side assignors of consumer groups (KIP-848).
//!
//! An assignor computes the target assignment of a group from the subscriptions of its members, the
//! number of partitions of their topics, and the last target assignment. The built-in assignors
//! follow the rules of those of Kafka 4.3.1, which are not rack-aware. Where Kafka's depend on the
//! order of a hash map, these depend on the order of member ids and topic ids.

mod range;
mod subscriptions;
mod uniform;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::base::TopicId;

/// Partitions by topic id. The lists are sorted, not empty, and have no duplicates.
pub type Assignment = BTreeMap<TopicId, Vec<i32>>;

/// A member, as an assignor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignorMember {
    pub instance_id: Option<Arc<str>>,
    /// The topics that it is subscribed to. Members with equal subscriptions may share them.
    pub topics: Arc<BTreeSet<TopicId>>,
    /// Its part of the last target assignment.
    pub assigned: Arc<Assignment>,
}

/// The members of a group and the topics that an assignor distributes among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssignorInput {
    /// Members by id.
    pub members: BTreeMap<Arc<str>, AssignorMember>,
    /// The number of partitions of each topic that exists. Topics without an entry are left out.
    pub topics: BTreeMap<TopicId, i32>,
}

/// A built-in assignor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    Uniform,
    Range,
}

/// The Java package of the built-in assignors.
const PACKAGE: &str = "org.apache.kafka.coordinator.group.assignor.";

impl Assignor {
    /// The assignor with the name that members send as their preferred assignor.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "uniform" => Some(Self::Uniform),
            "range" => Some(Self::Range),
            _ => None,
        }
    }

    /// The assignor for an entry of the configuration `group.consumer.assignors`: its name, or the
    /// name of its class in Kafka.
    pub fn by_config_name(name: &str) -> Option<Self> {
        match name.strip_prefix(PACKAGE) {
            Some("UniformAssignor") => Some(Self::Uniform),
            Some("RangeAssignor") => Some(Self::Range),
            _ => Self::by_name(name),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// Computes a target assignment, with an entry for each member. Each partition of a topic that
    /// has subscribers is assigned to one of them. The result depends on nothing but `input`.
    ///
    /// Former assignments may contain anything: partitions and topics that no longer exist or are
    /// no longer subscribed count as unassigned, and of two members with the same partition, the
    /// first one by id is its owner.
    pub fn assign(self, input: &AssignorInput) -> BTreeMap<Arc<str>, Assignment> {
        match self {
            Self::Uniform => uniform::assign(input),
            Self::Range => range::assign(input),
        }
    }
}

#[cfg(test)]
mod tests;
