//! Checks names of topics (Kafka's `org.apache.kafka.common.internals.Topic`).

use super::ControllerError;
use crate::metadata::Image;

/// Topics of Kafka itself (`Topic.isInternal`).
pub fn is_internal(topic: &str) -> bool {
    ["__consumer_offsets", "__transaction_state", "__share_group_state"].contains(&topic)
}

const MAX_NAME_LENGTH: usize = 249;
const ALLOWED: &str = "ASCII alphanumerics, '.', '_' and '-'";

fn why_invalid(name: &str) -> Option<String> {
    // As in Java, the length is in UTF-16 units.
    let units = || name.encode_utf16().count();
    match name {
        "" => Some("the empty string is not allowed".into()),
        "." => Some("'.' is not allowed".into()),
        ".." => Some("'..' is not allowed".into()),
        _ if units() > MAX_NAME_LENGTH => Some(format!(
            "the length of '{name}' is longer than the max allowed length {MAX_NAME_LENGTH}"
        )),
        _ if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) => {
            Some(format!("'{name}' contains one or more characters other than {ALLOWED}"))
        }
        _ => None,
    }
}

/// Checks that the name is a valid topic name.
pub fn validate(name: &str) -> Result<(), ControllerError> {
    why_invalid(name).map_or(Ok(()), |why| {
        Err(ControllerError::InvalidTopic(format!("Topic name is invalid: {why}")))
    })
}

/// Checks that no topic has a name that differs only in `.` and `_`, because metric names replace
/// `.` with `_`.
pub fn check_collision(image: &Image, name: &str) -> Result<(), ControllerError> {
    let unified = |name: &str| name.replace('.', "_");
    if !name.contains(['.', '_']) || image.topic(name).is_some() {
        return Ok(());
    }
    let wanted = unified(name);
    let collides = |other: &str| other.len() == name.len() && unified(other) == wanted;
    match image.topics.iter().find(|topic| collides(&topic.name)) {
        Some(topic) => Err(ControllerError::InvalidTopic(format!(
            "Topic '{name}' collides with existing topic: {}",
            topic.name
        ))),
        None => Ok(()),
    }
}
