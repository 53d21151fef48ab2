//! Leader elections on request (Kafka's `ReplicationControlManager.electLeaders`).

use super::{
    Context, ControllerError, Decision,
    leadership::in_order,
    partition_change::{Election, PartitionChange},
    topics::{MAX_RECORDS, TOO_LARGE},
};
use crate::metadata::{MetadataRecord, TopicImage, topics::NO_LEADER};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionType {
    Preferred,
    Unclean,
}

/// Partitions by topic.
pub type Partitions = Vec<(String, Vec<i32>)>;
/// The partitions of each topic, each with its result.
pub type ElectionResults = Vec<(String, Vec<(i32, Result<(), ControllerError>)>)>;

/// Elects leaders of the partitions; `None` means all partitions. Once the records reach
/// `MAX_RECORDS`, the remaining partitions are refused.
pub fn elect(
    cx: &Context<'_>,
    kind: ElectionType,
    partitions: Option<&Partitions>,
) -> Decision<ElectionResults> {
    let mut records = Vec::new();
    let mut response = Vec::new();
    let all = partitions.is_none();
    let every = || {
        let topics = in_order(cx.image);
        let numbers = |topic: &TopicImage| (0..topic.partitions.len() as i32).collect();
        topics.iter().map(|topic| (topic.name.to_string(), numbers(topic))).collect()
    };
    for (topic, numbers) in partitions.cloned().unwrap_or_else(every) {
        let mut results = Vec::with_capacity(numbers.len());
        for partition in numbers {
            let elected = elect_one(cx, kind, &topic, partition);
            let elected = match elected {
                Ok(_) if records.len() == MAX_RECORDS => {
                    Err(ControllerError::PolicyViolation(TOO_LARGE.into()))
                }
                elected => elected.map(|record| records.push(record)),
            };
            // If all partitions were requested, Kafka leaves out those that need no election.
            if !(all && elected == Err(ControllerError::ElectionNotNeeded)) {
                results.push((partition, elected));
            }
        }
        response.push((topic, results));
    }
    Decision { records, response }
}

fn elect_one(
    cx: &Context<'_>,
    kind: ElectionType,
    topic: &str,
    partition_id: i32,
) -> Result<MetadataRecord, ControllerError> {
    let unknown = |what: String| Err(ControllerError::UnknownTopicOrPartition(Some(what)));
    let Some(found) = cx.image.topic(topic) else {
        return unknown(format!("No such topic as {topic}"));
    };
    let state = cx.image.partition(topic, partition_id);
    let change = PartitionChange::new(cx, found, partition_id);
    let (Some(state), Some(mut change)) = (state, change) else {
        return unknown(format!("No such partition as {topic}-{partition_id}"));
    };
    let is_needed = match kind {
        ElectionType::Preferred => state.replicas.first() != Some(&state.leader),
        ElectionType::Unclean => state.leader == NO_LEADER,
    };
    if !is_needed {
        return Err(ControllerError::ElectionNotNeeded);
    }
    let (election, unavailable) = match kind {
        ElectionType::Preferred => {
            (Election::Preferred, ControllerError::PreferredLeaderNotAvailable)
        }
        ElectionType::Unclean => (Election::Unclean, ControllerError::EligibleLeadersNotAvailable),
    };
    change.election = election;
    change.build().map(MetadataRecord::from).ok_or(unavailable)
}
