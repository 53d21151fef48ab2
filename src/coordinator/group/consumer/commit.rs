//! Checks OffsetCommit, TxnOffsetCommit and OffsetFetch of the members of a consumer group (Kafka's
//! `ConsumerGroup.validateOffsetCommit`).

use super::{member::Member, state::ConsumerGroup};
use crate::{
    base::TopicId,
    coordinator::group::{CommitRequest, GroupError, messages::FetchRequest},
};

/// Whether the partitions of a commit may be committed.
pub enum CommitCheck<'a> {
    AllAllowed,
    /// The member's epoch in the request is older than the present one. It may commit a partition
    /// that was assigned to it in that epoch or before (KIP-1251).
    OlderEpoch {
        member: &'a Member,
        epoch: i32,
        error: GroupError,
    },
}

impl CommitCheck<'_> {
    /// Checks a partition. As in Kafka, the whole request is refused if it has one that may not be
    /// committed.
    pub fn check(&self, topic: TopicId, partition: i32) -> Result<(), GroupError> {
        match self {
            Self::AllAllowed => Ok(()),
            Self::OlderEpoch { member, epoch, error } => {
                let assigned_in = member.current.assignment_epoch(topic, partition);
                assigned_in.filter(|assigned_in| assigned_in <= epoch).map(|_| ()).ok_or(*error)
            }
        }
    }
}

impl ConsumerGroup {
    /// Checks the member of a commit and its epoch. A commit without a member is allowed while the
    /// group is empty, and in a transaction, because TxnOffsetCommit has the member only from
    /// version 3 on.
    pub fn check_commit(&self, request: &CommitRequest) -> Result<CommitCheck<'_>, GroupError> {
        let epoch = request.generation;
        if epoch < 0 && self.members().is_empty() {
            return Ok(CommitCheck::AllAllowed);
        }
        let in_transaction = request.transaction.is_some();
        let has_identity = !request.member_id.is_empty() || request.instance_id.is_some();
        if in_transaction && epoch == -1 && !has_identity {
            return Ok(CommitCheck::AllAllowed);
        }
        let member = self.member(&request.member_id).ok_or(GroupError::UnknownMemberId)?;
        if !in_transaction && !member.uses_classic_protocol() && !request.knows_group_id_not_found {
            return Err(GroupError::UnsupportedVersion);
        }
        let error = stale_epoch(member, in_transaction);
        match member.current.epoch {
            known if known == epoch => Ok(CommitCheck::AllAllowed),
            known if known < epoch => Err(error),
            _ => Ok(CommitCheck::OlderEpoch { member, epoch, error }),
        }
    }

    /// Checks the member of an OffsetFetch and its epoch. A client that is not in a group has
    /// neither.
    pub fn check_fetch(&self, request: &FetchRequest) -> Result<(), GroupError> {
        let Some(member_id) = &request.member_id else {
            return match request.member_epoch < 0 {
                true => Ok(()),
                false => Err(GroupError::UnknownMemberId),
            };
        };
        let member = self.member(member_id).ok_or(GroupError::UnknownMemberId)?;
        match member.current.epoch == request.member_epoch {
            true => Ok(()),
            false => Err(stale_epoch(member, false)),
        }
    }
}

/// The error for an epoch that is not the member's. The classic protocol and transactions have no
/// error of their own for it.
fn stale_epoch(member: &Member, in_transaction: bool) -> GroupError {
    match in_transaction || member.uses_classic_protocol() {
        true => GroupError::IllegalGeneration,
        false => GroupError::StaleMemberEpoch,
    }
}
