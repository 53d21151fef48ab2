//! Server-side assignors of consumer groups (KIP-848).

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

/// What an assignor distributes, and to whom.
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
