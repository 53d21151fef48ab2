//! Conversions between the types of kafka_protocol and those of the broker.

use std::sync::Arc;

use kafka_protocol::{
    messages::{BrokerId, GroupId, TopicName},
    protocol::StrBytes,
};

/// Copies a text out of the request. A slice would keep the whole frame in memory.
pub fn text(wire: &StrBytes) -> Arc<str> {
    Arc::from(wire.as_str())
}

pub fn optional_text(wire: Option<&StrBytes>) -> Option<Arc<str>> {
    wire.map(text)
}

pub fn str_bytes(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn optional_str_bytes(text: Option<&Arc<str>>) -> Option<StrBytes> {
    text.map(|text| str_bytes(text))
}

pub fn group_id(text: &str) -> GroupId {
    GroupId(str_bytes(text))
}

pub fn topic_name(text: &str) -> TopicName {
    TopicName(str_bytes(text))
}

pub fn ids(brokers: &[i32]) -> Vec<BrokerId> {
    brokers.iter().copied().map(BrokerId).collect()
}
