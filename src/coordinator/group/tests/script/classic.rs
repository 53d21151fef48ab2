//! The subscriptions and assignments of consumers that use the classic protocol, in scripts.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::coordinator::{
    golden::{Words, places},
    group::consumer_protocol::{
        self, ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartitions,
    },
    record_value,
};

/// The subscription to topics such as `t+u`. The words can have the version (`subscription=0`), the
/// partitions that the member owns (`owned=t:0+1,u:0`), and a rack.
pub fn subscription_to(topics: &str, words: &Words) -> Bytes {
    let owned = words.named.get("owned").copied().unwrap_or_default();
    let owned = owned.split_terminator(',').map(|word| {
        let (topic, partitions) = places(word);
        TopicPartitions { topic: topic.to_string(), partitions }
    });
    let subscription = ConsumerProtocolSubscription {
        topics: topics.split('+').filter(|topic| !topic.is_empty()).map(Into::into).collect(),
        user_data: None,
        owned_partitions: owned.collect(),
        generation_id: words.number("generation", -1),
        rack_id: words.option("rack").map(|rack| rack.to_string()),
    };
    record_value::encode(&subscription, words.number("subscription", 3))
}

/// The protocols of words such as `protocols=range:t+u,sticky:t`.
pub fn protocols(words: &Words, protocol_type: &str) -> Vec<(Arc<str>, Bytes)> {
    let protocols = words.text("protocols", "range:t");
    let protocols = protocols.split_terminator(',').map(|protocol| {
        let (name, metadata) = protocol.split_once(':').unwrap_or((protocol, ""));
        let metadata = match (protocol_type, metadata) {
            ("consumer", "malformed") => Bytes::from_static(&[0, 0, 0, 0, 0, 9]),
            ("consumer", "cut") => Bytes::from_static(b"?"),
            ("consumer", topics) => subscription_to(topics, words),
            _ => Bytes::copy_from_slice(metadata.as_bytes()),
        };
        (name.into(), metadata)
    });
    protocols.collect()
}

/// An assignment such as `t-0+t-1`, in version 1. It has user data in `t-0!data`. Any other text is
/// the bytes of an assignment.
pub fn assignment(text: &str) -> Bytes {
    let (partitions, user_data) = match text.split_once('!') {
        Some((partitions, data)) => (partitions, Some(Bytes::copy_from_slice(data.as_bytes()))),
        None => (text, None),
    };
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions.split('+') {
        let Some((topic, at)) = partition.split_once('-') else {
            return Bytes::copy_from_slice(text.as_bytes());
        };
        topics.entry(topic).or_default().push(at.parse().unwrap());
    }
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| TopicPartitions { topic: topic.into(), partitions });
    let assigned_partitions = topics.collect();
    record_value::encode(&ConsumerProtocolAssignment { assigned_partitions, user_data }, 1)
}

/// The partitions of an assignment. Members of classic groups get any text in scripts.
pub fn print_partitions(assignment: &Bytes) -> String {
    let Ok(decoded) = consumer_protocol::decode::<ConsumerProtocolAssignment>(assignment.clone())
    else {
        return String::from_utf8_lossy(assignment).into_owned();
    };
    let partitions = decoded.assigned_partitions.iter().flat_map(|of_topic| {
        of_topic.partitions.iter().map(|at| format!("{}-{at}", of_topic.topic))
    });
    partitions.collect::<Vec<_>>().join("+")
}

/// The assignment of a SyncGroup response.
pub fn print_assignment(assignment: &Bytes) -> String {
    let partitions = print_partitions(assignment);
    match consumer_protocol::decode::<ConsumerProtocolAssignment>(assignment.clone()) {
        Ok(_) => {
            let version = consumer_protocol::version_of(assignment).unwrap();
            format!("'{partitions}' in version {version}")
        }
        Err(_) => format!("'{partitions}'"),
    }
}
