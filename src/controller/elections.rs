//! Leader elections on request, and reassignments as far as one node needs them
//! (Kafka's `ReplicationControlManager`).

use super::{Context, ControllerError, Decision, topics::is_active};
use crate::metadata::{
    MetadataRecord, PartitionImage, TopicImage, records::PartitionChangeRecord, topics::NO_LEADER,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionType {
    Preferred,
    Unclean,
}

/// Partitions by topic; `None` asks for all.
pub type Partitions = Vec<(String, Vec<i32>)>;
/// A topic's partitions and what became of each.
pub type ElectionResults = Vec<(String, Vec<(i32, Result<(), ControllerError>)>)>;

pub fn elect(
    cx: &Context<'_>,
    kind: ElectionType,
    partitions: Option<&Partitions>,
) -> Decision<ElectionResults> {
    let mut records = Vec::new();
    let mut response = Vec::new();
    let all = partitions.is_none();
    let every = || {
        let mut topics: Vec<_> = cx.image.topics.iter().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let numbers = |topic: &TopicImage| (0..topic.partitions.len() as i32).collect();
        topics.iter().map(|topic| (topic.name.to_string(), numbers(topic))).collect()
    };
    for (topic, numbers) in partitions.cloned().unwrap_or_else(every) {
        let mut results = Vec::with_capacity(numbers.len());
        for partition in numbers {
            let elected = elect_one(cx, kind, &topic, partition);
            let elected = elected.map(|record| records.push(record));
            // Asked for all, Kafka is silent on those that need none.
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
    let Some(state) = cx.image.partition(topic, partition_id) else {
        return unknown(format!("No such partition as {topic}-{partition_id}"));
    };
    let preferred = state.replicas.first().copied().unwrap_or(NO_LEADER);
    let leader = match kind {
        ElectionType::Preferred if state.leader == preferred => None,
        ElectionType::Unclean if state.leader != NO_LEADER => None,
        ElectionType::Preferred => {
            let fit = is_active(cx.image, preferred) && state.isr.contains(&preferred);
            Some(fit.then_some(preferred).ok_or(ControllerError::PreferredLeaderNotAvailable))
        }
        ElectionType::Unclean => {
            let live = state.replicas.iter().copied().find(|id| is_active(cx.image, *id));
            Some(live.ok_or(ControllerError::EligibleLeadersNotAvailable))
        }
    };
    let leader = leader.ok_or(ControllerError::ElectionNotNeeded)??;
    Ok(led_by(found, partition_id, state, leader).into())
}

/// A leader outside the ISR may lack records: the partition recovers from an unclean election.
fn led_by(
    topic: &TopicImage,
    partition_id: i32,
    state: &PartitionImage,
    leader: i32,
) -> PartitionChangeRecord {
    let clean = state.isr.contains(&leader) || state.elr.contains(&leader);
    PartitionChangeRecord {
        partition_id,
        topic_id: topic.id,
        isr: (!state.isr.contains(&leader)).then(|| vec![leader]),
        leader,
        leader_recovery_state: if clean { -1 } else { 1 },
        ..PartitionChangeRecord::default()
    }
}
