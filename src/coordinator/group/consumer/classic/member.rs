//! Finds the classic member of a SyncGroup or Heartbeat.

use crate::coordinator::group::{
    GroupError,
    consumer::{member::Member, state::ConsumerGroup, values::ClassicMemberMetadata},
};

/// A member that uses the classic protocol.
#[derive(Clone, Copy)]
pub struct ClassicMember<'a> {
    pub member: &'a Member,
    pub metadata: &'a ClassicMemberMetadata,
}

impl<'a> ClassicMember<'a> {
    /// Finds the member, and checks its instance id, its protocol and its generation.
    pub fn find(
        group: &'a ConsumerGroup,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<Self, GroupError> {
        if let Some(instance_id) = instance_id {
            let holder = group.static_member(instance_id).ok_or(GroupError::UnknownMemberId)?;
            if **holder != *member_id {
                return Err(GroupError::FencedInstanceId);
            }
        }
        let member = group.member(member_id).ok_or(GroupError::UnknownMemberId)?;
        let metadata = member.subscription.classic.as_ref().ok_or(GroupError::UnknownMemberId)?;
        match member.current.epoch == generation {
            true => Ok(Self { member, metadata }),
            false => Err(GroupError::IllegalGeneration),
        }
    }
}
