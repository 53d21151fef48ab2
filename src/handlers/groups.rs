//! Shared by the handlers of the group APIs: conversions of texts from and to the wire, and the
//! error codes of the group coordinator's errors.

use std::sync::Arc;

use kafka_protocol::{
    messages::{GroupId, TopicName},
    protocol::StrBytes,
};

use super::errors;
use crate::coordinator::group::GroupError;

/// Copies a text out of the request. A slice would keep the whole frame in memory.
pub fn text(wire: &StrBytes) -> Arc<str> {
    Arc::from(wire.as_str())
}

pub fn optional_text(wire: Option<&StrBytes>) -> Option<Arc<str>> {
    wire.map(text)
}

pub fn wire(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn optional_wire(text: Option<&Arc<str>>) -> Option<StrBytes> {
    text.map(|text| wire(text))
}

pub fn group_id(text: &str) -> GroupId {
    GroupId(wire(text))
}

pub fn topic_name(text: &str) -> TopicName {
    TopicName(wire(text))
}

/// The error code of a result, or `NONE` for `Ok`.
pub fn code_of<T>(result: &Result<T, GroupError>) -> i16 {
    result.as_ref().map_or_else(|error| code(*error), |_| errors::NONE)
}

pub fn code(error: GroupError) -> i16 {
    errors::group(error).code()
}
