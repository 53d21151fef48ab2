//! SyncGroup of a classic member (Kafka's `classicGroupSyncToConsumerGroup`).

use bytes::Bytes;

use super::member::ClassicMember;
use crate::coordinator::{
    group::{
        GroupError, TimerKey, Turn,
        consumer::{
            member::{CurrentAssignment, MemberState},
            messages::TopicsSnapshot,
            state::ConsumerGroup,
        },
        consumer_protocol::{self, ConsumerProtocolAssignment, TopicPartitions},
        messages::{SyncReply, SyncRequest},
        state::CONSUMER_PROTOCOL,
        sync::differs,
    },
    record_value,
};

impl Turn<'_> {
    /// Returns the partitions that the member may use, and restarts its session.
    ///
    /// # Errors
    /// REBALANCE_IN_PROGRESS if the member must join again, because there is a newer target
    /// assignment. A member that must revoke partitions first gets those that it keeps.
    pub(in crate::coordinator::group) fn sync_of_classic_member(
        &mut self,
        group: &ConsumerGroup,
        request: &SyncRequest,
    ) -> Result<SyncReply, GroupError> {
        let (id, instance_id) = (&request.member_id, request.instance_id.as_deref());
        let found = ClassicMember::find(group, id, instance_id, request.generation)?;
        // A record can be without protocols, although a JoinGroup cannot.
        let protocol = found.metadata.supported_protocols.first();
        let protocol = protocol.ok_or(GroupError::UnknownServerError)?;
        if differs(request.protocol_type.as_deref(), Some(CONSUMER_PROTOCOL))
            || differs(request.protocol_name.as_deref(), Some(&protocol.name))
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let current = &found.member.current;
        let revokes = current.state == MemberState::UnrevokedPartitions;
        if group.target_epoch > current.epoch && !revokes {
            self.await_join(&request.group, id, found.member);
            return Err(GroupError::RebalanceInProgress);
        }
        // Without topics, the client looks for the coordinator, and joins again.
        let topics = self.cluster.topics.as_deref().ok_or(GroupError::CoordinatorNotAvailable)?;
        let version = consumer_protocol::version_of(&protocol.metadata);
        let version = version.map_err(|_| GroupError::UnknownServerError)?;

        let key = TimerKey::MemberSync { group: request.group.clone(), member: id.clone() };
        self.cancel_timer(key);
        self.restart_session_of(&request.group, id, found.metadata.session_timeout_ms);
        Ok(SyncReply {
            error: None,
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment: encode(current, topics, version),
        })
    }
}

/// The partitions that a member may use, in a version of the consumer protocol. Topics that do not
/// exist any more are left out.
fn encode(current: &CurrentAssignment, topics: &TopicsSnapshot, version: i16) -> Bytes {
    let partitions = current.assigned.iter().filter_map(|(topic, partitions)| {
        let topic = topics.names.get(topic)?.to_string();
        Some(TopicPartitions { topic, partitions: partitions.keys().copied().collect() })
    });
    let assigned_partitions = partitions.collect();
    let assignment = ConsumerProtocolAssignment { assigned_partitions, user_data: None };
    record_value::encode(&assignment, version)
}
