//! What consumers of the classic protocol put into JoinGroup and SyncGroup: their subscription and
//! their assignment (Kafka's `ConsumerProtocol`). Both begin with their version. A version that is
//! not known is read as the newest one that is, because new versions only add fields.

use bytes::Bytes;

use crate::{
    protocol::schema::{Reader, WireError, WireMessage},
    wire,
};

const NEWEST_VERSION: i16 = 3;

wire! {
    /// The subscription of a consumer: the metadata of a protocol in JoinGroup.
    pub struct ConsumerProtocolSubscription (flexible never) {
        topics: Vec<String>, in 0..;
        user_data: Option<Bytes>, in 0..;
        owned_partitions: Vec<TopicPartitions>, in 1..;
        generation_id: i32 = -1, in 2..;
        rack_id: Option<String>, in 3..;
    }
    /// The assignment of a consumer in SyncGroup.
    pub struct ConsumerProtocolAssignment (flexible never) {
        assigned_partitions: Vec<TopicPartitions>, in 0..;
        user_data: Option<Bytes>, in 0..;
    }
    /// Partitions of a topic.
    pub struct TopicPartitions (flexible never) {
        topic: String, in 0..;
        partitions: Vec<i32>, in 0..;
    }
}

/// The version of a subscription or an assignment.
///
/// # Errors
/// There is no version, or it is negative.
pub fn version_of(bytes: &Bytes) -> Result<i16, WireError> {
    match Reader::new(bytes.clone()).i16()? {
        version if version < 0 => Err(WireError::UnsupportedVersion(version)),
        version => Ok(version.min(NEWEST_VERSION)),
    }
}

/// Decodes a subscription or an assignment. Ignores bytes that follow it.
pub fn decode<T: WireMessage>(bytes: Bytes) -> Result<T, WireError> {
    let version = version_of(&bytes)?;
    T::decode_start(bytes.slice(size_of::<i16>()..), version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::record_value::encode;

    fn subscription() -> ConsumerProtocolSubscription {
        let owned = TopicPartitions { topic: "t".into(), partitions: vec![1, 2] };
        ConsumerProtocolSubscription {
            topics: vec!["t".into(), "u".into()],
            user_data: Some(Bytes::from_static(b"data")),
            owned_partitions: vec![owned],
            generation_id: 5,
            rack_id: Some("r".into()),
        }
    }

    #[test]
    fn every_version_is_read_and_newer_ones_as_the_newest() {
        let whole = subscription();
        let without_rack = ConsumerProtocolSubscription { rack_id: None, ..whole.clone() };
        let without_generation =
            ConsumerProtocolSubscription { generation_id: -1, ..without_rack.clone() };
        let oldest = ConsumerProtocolSubscription {
            owned_partitions: Vec::new(),
            ..without_generation.clone()
        };
        let versions = [oldest, without_generation, without_rack, whole.clone()];
        for (version, expected) in (0..).zip(versions) {
            assert_eq!(decode(encode(&whole, version)), Ok(expected), "version {version}");
        }
        let newer = [&9i16.to_be_bytes(), &encode(&whole, 3)[2..], b"more"].concat();
        assert_eq!(decode(newer.into()), Ok(whole));
    }

    #[test]
    fn versions_before_the_first_and_cut_messages_are_refused() {
        let bytes = encode(&subscription(), 3);
        for len in 0..bytes.len() {
            assert!(decode::<ConsumerProtocolSubscription>(bytes.slice(..len)).is_err(), "{len}");
        }
        let negative = Bytes::from_static(&[0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(version_of(&negative), Err(WireError::UnsupportedVersion(-1)));
    }
}
