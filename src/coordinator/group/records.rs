//! The records of `__consumer_offsets` in Kafka's formats (`OffsetCommitKey`, `OffsetCommitValue`,
//! `GroupMetadataKey`, `GroupMetadataValue`). A key begins with its type, a value with its version.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{consumer::ConsumerRecord, group_type::GroupType};
use crate::{
    base::TopicId,
    coordinator::record_value,
    protocol::schema::{Field, Reader, WireError, WireMessage},
    records::{ControlRecordType, Producer, TxnMarker, control::EndTxnMarker},
    wire,
};

/// Key types. They are written where other messages have their version (KIP-915).
const LEGACY_OFFSET_COMMIT: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const GROUP_METADATA: i16 = 2;

/// The value versions that Kafka 4.3 writes.
const OFFSET_COMMIT_VALUE_VERSION: i16 = 4;
const GROUP_METADATA_VALUE_VERSION: i16 = 3;
/// The only version with an expiry time, for clients that set a retention time.
const EXPIRING_OFFSET_COMMIT_VALUE_VERSION: i16 = 1;
/// The newest versions of both values.
const NEWEST_VALUE_VERSION: i16 = 4;

wire! {
    /// The key of a committed offset.
    pub struct OffsetCommitKey (flexible never) {
        group: String, in 0..;
        topic: String, in 0..;
        partition: i32, in 0..;
    }
    /// The value of a committed offset.
    pub struct OffsetCommitValue (flexible 4..) {
        offset: i64, in 0..;
        leader_epoch: i32 = -1, in 3..;
        metadata: String, in 0..;
        commit_timestamp: i64, in 0..;
        expire_timestamp: i64 = -1, in 1..=1;
        topic_id: TopicId, in 4.., tag 0;
    }
    /// The key of a classic group.
    pub struct GroupMetadataKey (flexible never) {
        group: String, in 0..;
    }
    /// The value of a classic group, written when a rebalance has completed.
    pub struct GroupMetadataValue (flexible 4..) {
        protocol_type: String, in 0..;
        generation: i32, in 0..;
        protocol: Option<String>, in 0..;
        leader: Option<String>, in 0..;
        current_state_timestamp: i64 = -1, in 2..;
        members: Vec<MemberMetadata>, in 0..;
    }
    /// A member in the value of a classic group.
    pub struct MemberMetadata (flexible 4..) {
        member_id: String, in 0..;
        group_instance_id: Option<String>, in 3..;
        client_id: String, in 0..;
        client_host: String, in 0..;
        rebalance_timeout: i32 = -1, in 1..;
        session_timeout: i32, in 0..;
        subscription: Bytes, in 0..;
        assignment: Bytes, in 0..;
    }
}

/// A record of `__consumer_offsets`. A value of `None` is a tombstone.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Group {
        group: Arc<str>,
        value: Option<GroupMetadataValue>,
    },
    Offset {
        group: Arc<str>,
        topic: Arc<str>,
        partition: i32,
        value: Option<OffsetCommitValue>,
    },
    /// An offset in a batch of a producer's transaction. If such a batch is read from the log, its
    /// records are `Offset`, because the producer is in the header of the batch.
    OffsetInTransaction {
        producer: Producer,
        group: Arc<str>,
        topic: Arc<str>,
        partition: i32,
        value: OffsetCommitValue,
    },
    /// The marker that ends a producer's transaction. It is only written; markers of the log are
    /// not decoded to records.
    Marker(TxnMarker),
    /// A record of a consumer group.
    Consumer(ConsumerRecord),
    /// Any record of a group whose protocol is not served, with the bytes of the log.
    Unserved {
        group: Arc<str>,
        group_type: GroupType,
        key: Bytes,
        value: Option<Bytes>,
    },
}

impl Record {
    /// An upper bound of the bytes that the record takes in a batch.
    pub fn size_bound(&self) -> usize {
        /// Bytes of lengths, deltas and versions in the record, its key and its value, and of the
        /// numbers in the value.
        const FIXED: usize = 128;
        const MEMBER: usize = 32;
        match self {
            Self::Offset { group, topic, value, .. } => {
                let metadata = value.as_ref().map_or(0, |value| value.metadata.len());
                FIXED + group.len() + topic.len() + metadata
            }
            Self::OffsetInTransaction { group, topic, value, .. } => {
                FIXED + group.len() + topic.len() + value.metadata.len()
            }
            Self::Marker(_) => FIXED,
            Self::Group { group, value: None } => FIXED + group.len(),
            Self::Consumer(record) => record.size_bound(),
            Self::Unserved { key, value, .. } => {
                FIXED + key.len() + value.as_ref().map_or(0, Bytes::len)
            }
            Self::Group { group, value: Some(value) } => {
                let member = |member: &MemberMetadata| {
                    let instance_id = member.group_instance_id.as_deref().unwrap_or_default();
                    let texts = [&member.member_id, &member.client_id, &member.client_host];
                    MEMBER
                        + texts.iter().map(|text| text.len()).sum::<usize>()
                        + instance_id.len()
                        + member.subscription.len()
                        + member.assignment.len()
                };
                let names = [value.protocol.as_deref(), value.leader.as_deref()];
                FIXED
                    + group.len()
                    + value.protocol_type.len()
                    + names.iter().flatten().map(|name| name.len()).sum::<usize>()
                    + value.members.iter().map(member).sum::<usize>()
            }
        }
    }

    /// Encodes the record as the key and the value of the log.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let mut key = BytesMut::new();
        let value = match self {
            Self::Consumer(record) => return record.encode(),
            Self::Unserved { key, value, .. } => return (key.clone(), value.clone()),
            Self::Group { group, value } => {
                key.put_i16(GROUP_METADATA);
                GroupMetadataKey { group: group.to_string() }.encode(&mut key, 0);
                let version = GROUP_METADATA_VALUE_VERSION;
                value.as_ref().map(|value| record_value::encode(value, version))
            }
            Self::Offset { group, topic, partition, value } => {
                encode_offset_key(&mut key, group, topic, *partition);
                value.as_ref().map(encode_offset_value)
            }
            Self::OffsetInTransaction { group, topic, partition, value, .. } => {
                encode_offset_key(&mut key, group, topic, *partition);
                Some(encode_offset_value(value))
            }
            Self::Marker(marker) => {
                let ends = match marker.commits {
                    true => ControlRecordType::Commit,
                    false => ControlRecordType::Abort,
                };
                key.put_slice(&ends.to_key());
                let coordinator_epoch = marker.coordinator_epoch;
                Some(EndTxnMarker { coordinator_epoch }.to_value().into())
            }
        };
        (key.freeze(), value)
    }

    /// Decodes a record of the log. Returns `None` for a type that Kafka 4.3 does not have. Fails
    /// if the key or the value is invalid. Ignores bytes that follow them.
    pub fn decode(whole_key: Bytes, value: Option<Bytes>) -> Result<Option<Self>, WireError> {
        let mut key = Reader::new(whole_key.clone());
        match key.i16()? {
            LEGACY_OFFSET_COMMIT | OFFSET_COMMIT => {
                let key = OffsetCommitKey::decode_start(key.into_rest(), 0)?;
                let value = value.map(decode_value).transpose()?;
                Ok(Some(Self::Offset {
                    group: key.group.into(),
                    topic: key.topic.into(),
                    partition: key.partition,
                    value,
                }))
            }
            GROUP_METADATA => {
                let key = GroupMetadataKey::decode_start(key.into_rest(), 0)?;
                let value = value.map(decode_value).transpose()?;
                Ok(Some(Self::Group { group: key.group.into(), value }))
            }
            consumer if ConsumerRecord::has_key_type(consumer) => {
                ConsumerRecord::decode(consumer, key, value).map(|it| Some(Self::Consumer(it)))
            }
            other => {
                let Some(group_type) = GroupType::of_record(other) else { return Ok(None) };
                // The keys of all these types begin with the group id.
                let group = String::read(&mut key, false, 0)?.into();
                // Copies, because the key and the value are slices of the batch that was read.
                let copied = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
                let value = value.map(copied);
                Ok(Some(Self::Unserved { group, group_type, key: copied(whole_key), value }))
            }
        }
    }
}

fn encode_offset_key(key: &mut BytesMut, group: &str, topic: &str, partition: i32) {
    key.put_i16(OFFSET_COMMIT);
    let (group, topic) = (group.to_owned(), topic.to_owned());
    OffsetCommitKey { group, topic, partition }.encode(key, 0);
}

fn encode_offset_value(value: &OffsetCommitValue) -> Bytes {
    let version = match value.expire_timestamp {
        -1 => OFFSET_COMMIT_VALUE_VERSION,
        _ => EXPIRING_OFFSET_COMMIT_VALUE_VERSION,
    };
    record_value::encode(value, version)
}

fn decode_value<T: WireMessage>(value: Bytes) -> Result<T, WireError> {
    record_value::decode(value, NEWEST_VALUE_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let member = MemberMetadata {
            member_id: "m".into(),
            group_instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout: 5,
            session_timeout: 6,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"ass"),
        };
        let group = GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: Some("range".into()),
            leader: Some("m".into()),
            current_state_timestamp: 9,
            members: vec![member],
        };
        let offset = OffsetCommitValue {
            offset: 7,
            leader_epoch: 2,
            metadata: "note".into(),
            commit_timestamp: 11,
            expire_timestamp: -1,
            topic_id: TopicId::from_u128(1),
        };
        let expiring = OffsetCommitValue {
            leader_epoch: -1,
            expire_timestamp: 50,
            topic_id: TopicId::nil(),
            ..offset.clone()
        };
        let place =
            |value| Record::Offset { group: "g".into(), topic: "t".into(), partition: 4, value };
        for record in [
            Record::Group { group: "g".into(), value: Some(group) },
            Record::Group { group: "g".into(), value: None },
            place(Some(offset)),
            place(Some(expiring)),
            place(None),
            Record::Unserved {
                group: "g".into(),
                group_type: GroupType::Share,
                key: Bytes::from_static(&[0, 11, 0, 1, b'g']),
                value: Some(Bytes::from_static(b"any")),
            },
        ] {
            let (key, value) = record.encode();
            let size = key.len() + value.as_ref().map_or(0, Bytes::len);
            assert!(size < record.size_bound());
            assert_eq!(Record::decode(key, value), Ok(Some(record)));
        }
    }

    #[test]
    fn bytes_after_keys_and_values_are_ignored() {
        let value = OffsetCommitValue { offset: 7, ..OffsetCommitValue::default() };
        let (group, topic) = ("g".into(), "t".into());
        let record = Record::Offset { group, topic, partition: 4, value: Some(value) };
        let followed = |bytes: Bytes| Bytes::from([&bytes[..], b"more"].concat());
        let (key, value) = record.encode();
        assert_eq!(Record::decode(followed(key), value.map(followed)), Ok(Some(record)));
        let record = Record::Group { group: "g".into(), value: None };
        let (key, _) = record.encode();
        assert_eq!(Record::decode(followed(key), None), Ok(Some(record)));
    }

    #[test]
    fn unknown_types_are_passed_over_and_unknown_versions_refused() {
        let key = Bytes::from_static(&[0, 99, 0, 1, b'g']);
        assert_eq!(Record::decode(key, Some(Bytes::from_static(&[0, 0, 0]))), Ok(None));
        let (key, _) = Record::Group { group: "g".into(), value: None }.encode();
        let value = Some(Bytes::from_static(&[0, 9]));
        assert_eq!(Record::decode(key, value), Err(WireError::UnsupportedVersion(9)));
    }
}
