//! The next step of a member from its current assignment towards its part of the target assignment
//! (Kafka's `CurrentAssignmentBuilder`). A pure function.
//!
//! A member first revokes the partitions that it loses, and stays in its epoch until it reports
//! that it no longer owns them. It then enters the epoch of the target assignment, and gets each of
//! its new partitions once no other member owns it.

use std::collections::BTreeMap;

use super::member::{CurrentAssignment, EpochAssignment, MemberState};
use crate::{
    base::{
        TopicId,
        planted_bugs::{Bug, has_bug},
    },
    coordinator::group::assignor::Assignment,
};

/// Error: the member is in a state of a later version. It must abandon its partitions and rejoin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MustRejoin;

/// What the next step depends on.
pub struct Reconciliation<'a> {
    pub current: &'a CurrentAssignment,
    /// The epoch of the target assignment.
    pub target_epoch: i32,
    /// The member's part of the target assignment.
    pub target: &'a Assignment,
    /// Whether this heartbeat changes the member's subscription. Partitions of topics that are no
    /// longer subscribed are then revoked at once.
    pub subscription_changed: bool,
    /// The partitions that the member reports to own; `None` if it reports none with this
    /// heartbeat.
    pub reported: Option<&'a [(TopicId, Vec<i32>)]>,
    /// Whether the member is subscribed to a topic.
    pub is_subscribed: &'a dyn Fn(TopicId) -> bool,
    /// Whether a member of the group owns a partition.
    pub is_owned: &'a dyn Fn(TopicId, i32) -> bool,
}

impl Reconciliation<'_> {
    /// The next current assignment; the present one if nothing can change yet.
    ///
    /// # Errors
    /// The state of the member is unknown, and the member still owns partitions.
    pub fn next(&self) -> Result<CurrentAssignment, MustRejoin> {
        let current = self.current;
        match current.state {
            MemberState::Stable if current.epoch != self.target_epoch => {
                Ok(self.approach_target(current.epoch))
            }
            MemberState::UnrevokedPartitions if !self.owns_any(&current.pending_revocation) => {
                Ok(self.approach_target(current.epoch))
            }
            MemberState::Stable | MemberState::UnrevokedPartitions if self.subscription_changed => {
                Ok(self.drop_unsubscribed())
            }
            MemberState::Stable | MemberState::UnrevokedPartitions => Ok(current.clone()),
            MemberState::UnreleasedPartitions => Ok(self.approach_target(current.epoch)),
            MemberState::Unknown => match self.reported {
                Some([]) => Ok(self.approach_target(self.target_epoch)),
                _ => Err(MustRejoin),
            },
        }
    }

    /// Whether the member still owns any of the partitions. It does until it reports otherwise.
    fn owns_any(&self, partitions: &EpochAssignment) -> bool {
        let Some(reported) = self.reported else { return true };
        reported.iter().any(|(topic, indexes)| {
            let partitions = partitions.get(topic);
            partitions.is_some_and(|of_topic| indexes.iter().any(|at| of_topic.contains_key(at)))
        })
    }

    /// Revokes the partitions of topics that the member is no longer subscribed to. The rest of its
    /// assignment stays until the next target assignment.
    fn drop_unsubscribed(&self) -> CurrentAssignment {
        let current = self.current;
        let (assigned, dropped): (EpochAssignment, EpochAssignment) = current
            .assigned
            .clone()
            .into_iter()
            .partition(|(topic, _)| (self.is_subscribed)(*topic));
        if dropped.is_empty() {
            return current.clone();
        }
        let mut pending_revocation = current.pending_revocation.clone();
        for (topic, partitions) in dropped {
            pending_revocation.entry(topic).or_default().extend(partitions);
        }
        let (epoch, previous_epoch) = (current.epoch, current.epoch);
        if self.owns_any(&pending_revocation) {
            let state = MemberState::UnrevokedPartitions;
            return CurrentAssignment {
                epoch,
                previous_epoch,
                state,
                assigned,
                pending_revocation,
            };
        }
        // The member has reported that it does not own them any more.
        CurrentAssignment { epoch, previous_epoch, assigned, ..current.clone() }
    }

    /// Revokes what is not in the target assignment. If the member owns none of that any more, it
    /// enters the epoch of the target assignment and gets the partitions that are free. `epoch` is
    /// its epoch until then.
    fn approach_target(&self, epoch: i32) -> CurrentAssignment {
        let (mut assigned, revoked) = self.split_assigned();
        let previous_epoch = self.current.epoch;
        if self.owns_any_of_revoked(&revoked) {
            return CurrentAssignment {
                epoch,
                previous_epoch,
                state: MemberState::UnrevokedPartitions,
                assigned,
                pending_revocation: revoked,
            };
        }
        let all_released = self.add_free(&mut assigned);
        CurrentAssignment {
            epoch: self.target_epoch,
            previous_epoch,
            state: match all_released {
                true => MemberState::Stable,
                false => MemberState::UnreleasedPartitions,
            },
            assigned,
            pending_revocation: EpochAssignment::new(),
        }
    }

    fn owns_any_of_revoked(&self, revoked: &EpochAssignment) -> bool {
        !revoked.is_empty() && self.owns_any(revoked)
    }

    /// The partitions of the target assignment; none for topics that are no longer subscribed.
    fn target_of(&self, topic: TopicId) -> &[i32] {
        match self.target.get(&topic) {
            Some(partitions) if (self.is_subscribed)(topic) => partitions,
            _ => &[],
        }
    }

    /// Splits the assigned partitions into those of the target assignment and the others.
    fn split_assigned(&self) -> (EpochAssignment, EpochAssignment) {
        let (mut kept, mut revoked) = (EpochAssignment::new(), EpochAssignment::new());
        for (topic, partitions) in &self.current.assigned {
            let target = self.target_of(*topic);
            let (in_target, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
                partitions.iter().partition(|(at, _)| target.binary_search(at).is_ok());
            if !in_target.is_empty() {
                kept.insert(*topic, in_target);
            }
            if !others.is_empty() {
                revoked.insert(*topic, others);
            }
        }
        (kept, revoked)
    }

    /// Adds the partitions of the target assignment that no other member owns. Returns whether
    /// these are all.
    fn add_free(&self, assigned: &mut EpochAssignment) -> bool {
        let mut all_released = true;
        for topic in self.target.keys() {
            let of_topic = assigned.get(topic);
            let is_assigned = |at: &i32| of_topic.is_some_and(|of_topic| of_topic.contains_key(at));
            let missing = self.target_of(*topic).iter().filter(|at| !is_assigned(at));
            let (owned, free): (Vec<i32>, Vec<i32>) =
                missing.partition(|at| self.is_owned_by_other(*topic, **at));
            all_released &= owned.is_empty();
            if !free.is_empty() {
                let of_topic = assigned.entry(*topic).or_default();
                of_topic.extend(free.into_iter().map(|at| (at, self.target_epoch)));
            }
        }
        all_released
    }

    /// Whether another member owns the partition. Partitions that this member has just revoked do
    /// not count, because a partition has one owner.
    fn is_owned_by_other(&self, topic: TopicId, partition: i32) -> bool {
        let pending = self.current.pending_revocation.get(&topic);
        let was_own = pending.is_some_and(|of_topic| of_topic.contains_key(&partition));
        !was_own && (self.is_owned)(topic, partition) && !has_bug(Bug::AssignBeforeRevoke)
    }
}

#[cfg(test)]
mod tests;
