//! The values of records of groups that are not served. Values of consumer groups (KIP-848) are in
//! Kafka's formats, which Kafka names `ConsumerGroup...Value`. A value begins with its version.

use bytes::{Bytes, BytesMut};

use crate::{
    base::TopicId,
    coordinator::record_value,
    protocol::schema::{Field, Reader, WireError, WireMessage, put_unsigned_varint},
    wire,
};

/// The only version of all these values.
const VERSION: i16 = 0;

/// Types of the keys of a consumer group. Type 4 (`ConsumerGroupPartitionMetadata`) is missing,
/// because Kafka 4.3 does not read its value.
const METADATA: i16 = 3;
const MEMBER_METADATA: i16 = 5;
const TARGET_ASSIGNMENT_METADATA: i16 = 6;
const TARGET_ASSIGNMENT_MEMBER: i16 = 7;
const CURRENT_MEMBER_ASSIGNMENT: i16 = 8;
const REGULAR_EXPRESSION: i16 = 16;

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

/// The value of a record of a group that is not served.
#[derive(Debug, Clone, PartialEq)]
pub enum UnservedValue {
    GroupMetadata(GroupMetadata),
    MemberMetadata(MemberMetadata),
    TargetAssignmentMetadata(TargetAssignmentMetadata),
    TargetAssignmentMember(TargetAssignmentMember),
    CurrentMemberAssignment(CurrentMemberAssignment),
    RegularExpression(RegularExpression),
    /// The bytes of any other value: of share and streams groups, of another version, with unknown
    /// tagged fields, or invalid.
    Raw(Bytes),
}

impl UnservedValue {
    /// Decodes the value of a record whose key has type `key_type`. Never fails: the bytes are kept
    /// unless the decoded value encodes to the same bytes.
    pub fn decode(key_type: i16, bytes: Bytes) -> Self {
        let decoded = match key_type {
            METADATA => decode_as(&bytes, Self::GroupMetadata),
            MEMBER_METADATA => decode_as(&bytes, Self::MemberMetadata),
            TARGET_ASSIGNMENT_METADATA => decode_as(&bytes, Self::TargetAssignmentMetadata),
            TARGET_ASSIGNMENT_MEMBER => decode_as(&bytes, Self::TargetAssignmentMember),
            CURRENT_MEMBER_ASSIGNMENT => decode_as(&bytes, Self::CurrentMemberAssignment),
            REGULAR_EXPRESSION => decode_as(&bytes, Self::RegularExpression),
            _ => None,
        };
        decoded.filter(|value| value.encode() == bytes).unwrap_or(Self::Raw(bytes))
    }

    /// Encodes the value as the bytes of the log.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::GroupMetadata(value) => encode(value),
            Self::MemberMetadata(value) => encode(value),
            Self::TargetAssignmentMetadata(value) => encode(value),
            Self::TargetAssignmentMember(value) => encode(value),
            Self::CurrentMemberAssignment(value) => encode(value),
            Self::RegularExpression(value) => encode(value),
            Self::Raw(bytes) => bytes.clone(),
        }
    }
}

fn decode_as<T: WireMessage>(
    bytes: &Bytes,
    variant: impl FnOnce(T) -> UnservedValue,
) -> Option<UnservedValue> {
    record_value::decode(bytes.clone(), VERSION).ok().map(variant)
}

fn encode(value: &impl WireMessage) -> Bytes {
    record_value::encode(value, VERSION)
}

#[cfg(test)]
mod tests;
