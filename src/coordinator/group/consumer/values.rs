//! The values of the records of consumer groups in Kafka's formats, which Kafka names
//! `ConsumerGroup...Value`. A value begins with its version.

use bytes::{Bytes, BytesMut};

use crate::{
    base::TopicId,
    coordinator::record_value,
    protocol::schema::{Field, Reader, WireError, WireMessage, put_unsigned_varint},
    wire,
};

/// The only version of all these values.
const VERSION: i16 = 0;
/// The longest text in the key of a record, in bytes.
pub const KEY_TEXT_MAX: usize = i16::MAX as usize;

wire! {
    /// A consumer group.
    pub struct GroupMetadata (flexible 0..) {
        epoch: i32, in 0..;
        metadata_hash: i64, in 0.., tag 0;
    }
    /// A member and its subscription.
    pub struct MemberMetadata (flexible 0..) {
        instance_id: Option<String>, in 0..;
        rack_id: Option<String>, in 0..;
        client_id: String, in 0..;
        client_host: String, in 0..;
        subscribed_topic_names: Vec<String>, in 0..;
        subscribed_topic_regex: Option<String>, in 0..;
        rebalance_timeout_ms: i32 = -1, in 0..;
        server_assignor: Option<String>, in 0..;
        /// `None` for a member of the consumer protocol. Kafka 4.3 writes null, and reads a missing
        /// field as an empty struct, although the schema says that the default is null.
        classic_member_metadata: Option<ClassicMemberMetadata> = Some(Default::default()),
            in 0.., tag 0;
    }
    /// What a member of the classic protocol sent when it joined.
    pub struct ClassicMemberMetadata (flexible 0..) {
        session_timeout_ms: i32, in 0..;
        supported_protocols: Vec<ClassicProtocol>, in 0..;
    }
    /// An assignor of a member of the classic protocol.
    pub struct ClassicProtocol (flexible 0..) {
        name: String, in 0..;
        metadata: Bytes, in 0..;
    }
    /// The epoch of a group's target assignment.
    pub struct TargetAssignmentMetadata (flexible 0..) {
        assignment_epoch: i32, in 0..;
        assignment_timestamp: i64, in 0.., tag 0;
    }
    /// The target assignment of a member.
    pub struct TargetAssignmentMember (flexible 0..) {
        topic_partitions: Vec<TargetPartitions>, in 0..;
    }
    /// The partitions of a topic in a target assignment.
    pub struct TargetPartitions (flexible 0..) {
        topic_id: TopicId, in 0..;
        partitions: Vec<i32>, in 0..;
    }
    /// The current assignment of a member.
    pub struct CurrentMemberAssignment (flexible 0..) {
        member_epoch: i32, in 0..;
        previous_member_epoch: i32, in 0..;
        state: i8, in 0..;
        assigned_partitions: Vec<CurrentPartitions>, in 0..;
        partitions_pending_revocation: Vec<CurrentPartitions>, in 0..;
    }
    /// The partitions of a topic in a current assignment.
    pub struct CurrentPartitions (flexible 0..) {
        topic_id: TopicId, in 0..;
        partitions: Vec<i32>, in 0..;
        assignment_epochs: Option<Vec<i32>>, in 0.., tag 0;
    }
    /// The topics that a regular expression matches.
    pub struct RegularExpression (flexible 0..) {
        topics: Vec<String>, in 0..;
        version: i64, in 0..;
        timestamp: i64, in 0..;
    }
}

/// A nullable struct: 0 for null, or 1 and the struct.
impl Field for Option<ClassicMemberMetadata> {
    fn read(reader: &mut Reader, flexible: bool, version: i16) -> Result<Self, WireError> {
        match reader.unsigned_varint()? {
            0 => Ok(None),
            _ => Ok(Some(ClassicMemberMetadata::read(reader, flexible, version)?)),
        }
    }

    fn write(&self, out: &mut BytesMut, flexible: bool, version: i16) {
        put_unsigned_varint(out, u32::from(self.is_some()));
        if let Some(value) = self {
            value.write(out, flexible, version);
        }
    }
}

/// Decodes the value of a record. As in Kafka, ignores tagged fields that it does not know, and
/// bytes that follow the value.
///
/// # Errors
/// The value is invalid, or has a version that Kafka 4.3 does not have.
pub fn decode<T: WireMessage>(value: Bytes) -> Result<T, WireError> {
    record_value::decode(value, VERSION)
}

pub fn encode(value: &impl WireMessage) -> Bytes {
    record_value::encode(value, VERSION)
}

#[cfg(test)]
mod tests;
