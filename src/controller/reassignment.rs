//! Reassignment of partitions to other brokers (KIP-455): Kafka's `PartitionReassignmentReplicas`,
//! `PartitionReassignmentRevert` and the code that uses them.
//!
//! A reassignment first adds the new replicas. Once all of them are in the ISR, the old ones are
//! removed by `PartitionChange::build`, which runs at every change of the partition. Until then,
//! the reassignment can be cancelled.

use std::collections::BTreeSet;

use super::{
    Context, ControllerError, Decision,
    partition_change::{Election, PartitionChange},
    topics::{MAX_RECORDS, TOO_LARGE, check_assignment},
};
use crate::metadata::{PartitionImage, TopicImage, records::PartitionChangeRecord};

/// The target replicas of a partition. `None` cancels its reassignment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reassignment {
    pub partition: i32,
    pub replicas: Option<Vec<i32>>,
}

pub type Reassigned = Vec<(String, Vec<(i32, Result<(), ControllerError>)>)>;

/// Starts or cancels reassignments. Once the records reach `MAX_RECORDS`, the remaining partitions
/// are refused.
pub fn alter(
    cx: &Context<'_>,
    topics: &[(String, Vec<Reassignment>)],
    allow_replication_factor_change: bool,
) -> Decision<Reassigned> {
    let mut records = Vec::new();
    let mut response = Vec::with_capacity(topics.len());
    for (name, partitions) in topics {
        let mut results = Vec::with_capacity(partitions.len());
        for asked in partitions {
            let change = reassign(cx, name, asked, allow_replication_factor_change);
            let result = match change {
                Ok(record) if record.is_some() && records.len() == MAX_RECORDS => {
                    Err(ControllerError::PolicyViolation(TOO_LARGE.into()))
                }
                change => change.map(|record| records.extend(record.map(Into::into))),
            };
            results.push((asked.partition, result));
        }
        response.push((name.clone(), results));
    }
    Decision { records, response }
}

fn reassign(
    cx: &Context<'_>,
    name: &str,
    asked: &Reassignment,
    allow_replication_factor_change: bool,
) -> Result<Option<PartitionChangeRecord>, ControllerError> {
    let unknown = |why: String| ControllerError::UnknownTopicOrPartition(Some(why));
    let topic = cx.image.topic(name);
    let topic = topic.ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
    let at = asked.partition;
    let change = PartitionChange::new(cx, topic, at);
    let (Some(change), Some(state)) = (change, cx.image.partition(name, at)) else {
        return Err(unknown(format!("Unable to find partition {name}:{at}.")));
    };
    match &asked.replicas {
        None => cancel(cx, topic, at, state, change),
        Some(target) => {
            check_assignment(cx.image, target, None)?;
            if !allow_replication_factor_change {
                check_factor(state, target)?;
            }
            Ok(begin(state, target, change))
        }
    }
}

fn begin(
    state: &PartitionImage,
    target: &[i32],
    mut change: PartitionChange<'_>,
) -> Option<PartitionChangeRecord> {
    let missing = |from: &[i32], of: &[i32]| -> Vec<i32> {
        let of: BTreeSet<i32> = of.iter().copied().collect();
        of.into_iter().filter(|id| !from.contains(id)).collect()
    };
    let removing = missing(target, &state.replicas);
    let adding = missing(&state.replicas, target);
    change.replicas = [target, &removing].concat();
    // If this request adds or removes no replica, those of the reassignment in progress stay.
    if !removing.is_empty() {
        change.removing = removing;
    }
    if !adding.is_empty() {
        change.adding = adding;
    }
    change.election = Election::Online;
    change.build()
}

/// Checks that a reassignment keeps the replication factor.
fn check_factor(state: &PartitionImage, target: &[i32]) -> Result<(), ControllerError> {
    let stays = |id: &&i32| !state.removing_replicas.contains(id);
    let current = state.replicas.iter().filter(stays).count();
    if current == target.len() {
        return Ok(());
    }
    Err(ControllerError::InvalidReplicationFactor(format!(
        "The replication factor is changed from {current} to {}",
        target.len()
    )))
}

/// Reverts a reassignment: removes the added replicas. If no other replica is in the ISR, this
/// needs an unclean election, which the topic must allow.
fn cancel(
    cx: &Context<'_>,
    topic: &TopicImage,
    at: i32,
    state: &PartitionImage,
    mut change: PartitionChange<'_>,
) -> Result<Option<PartitionChangeRecord>, ControllerError> {
    if !state.is_reassigning() {
        return Err(ControllerError::NoReassignmentInProgress);
    }
    let without = |ids: &[i32]| -> Vec<i32> {
        ids.iter().copied().filter(|id| !state.adding_replicas.contains(id)).collect()
    };
    change.replicas = without(&state.replicas);
    change.isr = without(&state.isr);
    change.removing.clear();
    change.adding.clear();
    if change.isr.is_empty() {
        let refuse = |why: String| Err(ControllerError::InvalidReplicaAssignment(why));
        let Some(first) = change.replicas.first().copied() else {
            return refuse(
                "Invalid replica assignment: addingReplicas contains all replicas.".into(),
            );
        };
        if !cx.allows_unclean_election(&topic.name) {
            return refuse(format!(
                "Unable to revert partition assignment for {}:{at} because it would require an \
                 unclean leader election.",
                topic.name
            ));
        }
        change.isr = vec![first];
    }
    Ok(change.build())
}
