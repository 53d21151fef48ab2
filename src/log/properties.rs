//! The small text files of a log directory and of a partition: `meta.properties`,
//! `partition.metadata`, `.kafka_cleanshutdown`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FormatError;
use crate::base::{BrokerId, TopicId, kafka_uuid};

/// The node and the cluster that a log directory belongs to (Kafka's `MetaProperties`, version 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaProperties {
    /// A base64 id, or any other text that the cluster was formatted with.
    pub cluster_id: String,
    pub node_id: BrokerId,
    /// Absent in directories that an older Kafka formatted.
    pub directory_id: Option<Uuid>,
}

impl MetaProperties {
    pub fn encode(&self) -> String {
        let mut text = format!("#\nnode.id={}\n", self.node_id);
        if let Some(id) = self.directory_id {
            text += &format!("directory.id={}\n", kafka_uuid::encode(id));
        }
        text + &format!("version=1\ncluster.id={}\n", self.cluster_id)
    }

    /// Also reads version 0, whose node id is called `broker.id`.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let text = text(bytes)?;
        let get = |key: &str| {
            let lines = text.lines().filter(|line| !line.starts_with(['#', '!']));
            let mut pairs = lines.filter_map(|line| line.split_once('='));
            pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
        };
        let version = get("version").unwrap_or("0");
        let node_key = match version {
            "0" => "broker.id",
            "1" => "node.id",
            other => return Err(FormatError::new(format!("has the unknown version {other}"))),
        };
        let missing = |key: &str| FormatError::new(format!("has no {key}"));
        let node_id = get(node_key).ok_or_else(|| missing(node_key))?;
        let bad_id = || FormatError::new(format!("has the bad {node_key} {node_id:?}"));
        let node_id = BrokerId(node_id.parse().map_err(|_| bad_id())?);
        let cluster_id = get("cluster.id").ok_or_else(|| missing("cluster.id"))?.to_owned();
        let directory_id = match get("directory.id") {
            None => None,
            Some(id) => {
                let bad = || FormatError::new(format!("has the bad directory.id {id:?}"));
                Some(kafka_uuid::decode(id).ok_or_else(bad)?)
            }
        };
        Ok(Self { cluster_id, node_id, directory_id })
    }
}

/// The text of a `partition.metadata` file (Kafka's `PartitionMetadataFile`).
pub fn encode_partition_metadata(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {}", kafka_uuid::encode(topic_id))
}

/// The topic id in a `partition.metadata` file.
pub fn decode_partition_metadata(bytes: &[u8]) -> Result<TopicId, FormatError> {
    let text = text(bytes)?;
    let mut lines = text.lines().map(|line| line.split_once(':').unwrap_or_default());
    match lines.next().map(|(key, value)| (key.trim(), value.trim())) {
        Some(("version", "0")) => {}
        _ => return Err(FormatError::new("does not begin with version 0")),
    }
    let id = lines.next().filter(|(key, _)| key.trim() == "topic_id");
    let id = id.and_then(|(_, value)| kafka_uuid::decode(value.trim()));
    id.filter(|id| !id.is_nil()).ok_or_else(|| FormatError::new("has no topic id"))
}

/// The content of the file that marks a clean stop (KIP-966).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanShutdown {
    #[serde(default)]
    pub version: i32,
    /// The broker epoch at the stop; -1 if unknown.
    #[serde(default = "unknown_epoch")]
    pub broker_epoch: i64,
}

fn unknown_epoch() -> i64 {
    -1
}

impl CleanShutdown {
    pub fn new(broker_epoch: i64) -> Self {
        Self { version: 0, broker_epoch }
    }

    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("two numbers make JSON")
    }

    /// Decodes the file. It never fails, because the file's existence is what counts. Content that
    /// cannot be read has no epoch, as in the empty files of older Kafka versions.
    pub fn decode(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_else(|_| Self::new(unknown_epoch()))
    }
}

fn text(bytes: &[u8]) -> Result<&str, FormatError> {
    std::str::from_utf8(bytes).map_err(|_| FormatError::new("is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_kafka_wrote() {
        let text = "#\n#Sat Nov 21 12:45:39 UTC 2026\nnode.id=1\n\
            directory.id=9xrWou7aC2kdKee-GpZbSg\nversion=1\ncluster.id=6J6i1KNHT0q2ybtNyQOGCQ\n";
        let meta = MetaProperties::decode(text.as_bytes()).expect("decodes");
        assert_eq!(meta.cluster_id, "6J6i1KNHT0q2ybtNyQOGCQ");
        assert_eq!(meta.node_id, BrokerId(1));
        assert_eq!(meta.directory_id, kafka_uuid::decode("9xrWou7aC2kdKee-GpZbSg"));
        let old = MetaProperties::decode(b"version=0\nbroker.id=4\ncluster.id=c").expect("decodes");
        assert_eq!((old.node_id, old.directory_id), (BrokerId(4), None));
        let clean = CleanShutdown::decode(br#"{"version":0,"brokerEpoch":12}"#);
        assert_eq!(clean, CleanShutdown::new(12));
        assert_eq!(clean.encode(), r#"{"version":0,"brokerEpoch":12}"#);
        assert_eq!(CleanShutdown::decode(b"").broker_epoch, -1);
    }

    #[test]
    fn damaged_properties_are_rejected() {
        for damaged in ["", "version=2\nnode.id=1\ncluster.id=c", "version=1\nnode.id=x", "\0"] {
            assert!(MetaProperties::decode(damaged.as_bytes()).is_err(), "{damaged:?}");
            assert!(decode_partition_metadata(damaged.as_bytes()).is_err(), "{damaged:?}");
        }
        let nil = encode_partition_metadata(Uuid::nil());
        assert!(decode_partition_metadata(nil.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn round_trips(
            cluster_id in "[a-zA-Z0-9_-]{1,22}", node in 0..i32::MAX, id in 1u128.., epoch: i64
        ) {
            let id = Uuid::from_u128(id);
            let node_id = BrokerId(node);
            let meta = MetaProperties { cluster_id, node_id, directory_id: Some(id) };
            prop_assert_eq!(MetaProperties::decode(meta.encode().as_bytes()), Ok(meta));
            let text = encode_partition_metadata(id);
            prop_assert_eq!(decode_partition_metadata(text.as_bytes()), Ok(id));
            let clean = CleanShutdown::new(epoch);
            prop_assert_eq!(CleanShutdown::decode(clean.encode().as_bytes()), clean);
        }
    }
}
