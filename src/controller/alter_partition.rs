//! Changes of an ISR by the leader (AlterPartition; KIP-497, KIP-841, KIP-903).

use super::{
    Context, ControllerError, Decision,
    heartbeat::check_epoch,
    partition_change::{PartitionChange, RECOVERING},
};
use crate::{
    base::TopicId,
    metadata::{MetadataRecord, PartitionImage, TopicImage, topics::NO_LEADER_CHANGE},
};

/// The ISR that a leader requests for one of its partitions, with the epochs that the leader has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AlterPartition {
    pub partition: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    /// Broker ids, each with the broker epoch in which it caught up; -1 if the leader does not have
    /// it.
    pub isr: Vec<(i32, i64)>,
    pub leader_recovery_state: i8,
}

/// By topic, each partition with its state after the change.
pub type AlteredPartitions = Vec<(TopicId, Vec<(i32, Result<PartitionImage, ControllerError>)>)>;

/// Changes the ISRs of partitions that the broker leads. Fails with `StaleBrokerEpoch` if another
/// incarnation of the broker is registered. Other errors concern one partition each.
pub fn alter(
    cx: &Context<'_>,
    broker_id: i32,
    broker_epoch: i64,
    topics: &[(TopicId, Vec<AlterPartition>)],
) -> Decision<Result<AlteredPartitions, ControllerError>> {
    if let Err(error) = check_epoch(cx, broker_id, broker_epoch) {
        return Decision { records: Vec::new(), response: Err(error) };
    }
    let mut records = Vec::new();
    let mut altered = Vec::with_capacity(topics.len());
    for (id, partitions) in topics {
        let topic = cx.image.topic_by_id(*id);
        let one = |asked: &AlterPartition| {
            let topic = topic.ok_or(ControllerError::UnknownTopicId);
            let result = topic.and_then(|it| alter_one(cx, broker_id, it, asked, &mut records));
            (asked.partition, result)
        };
        altered.push((*id, partitions.iter().map(one).collect()));
    }
    Decision { records, response: Ok(altered) }
}

fn alter_one(
    cx: &Context<'_>,
    broker_id: i32,
    topic: &TopicImage,
    asked: &AlterPartition,
    records: &mut Vec<MetadataRecord>,
) -> Result<PartitionImage, ControllerError> {
    let unknown = || ControllerError::UnknownTopicOrPartition(None);
    let state = cx.image.partition(&topic.name, asked.partition).ok_or_else(unknown)?;
    check(cx, broker_id, state, asked)?;
    let mut change = PartitionChange::new(cx, topic, asked.partition).ok_or_else(unknown)?;
    change.isr = asked.isr.iter().map(|(id, _)| *id).collect();
    change.leader_recovery_state = asked.leader_recovery_state;
    let Some(record) = change.build() else { return Ok(state.clone()) };
    let (new, leader) = (state.changed_by(&record), record.leader);
    records.push(record.into());
    // The change can complete a reassignment that removes the leader. It must learn about that
    // before it sends another request.
    match leader != NO_LEADER_CHANGE && leader != broker_id {
        true => Err(ControllerError::NewLeaderElected),
        false => Ok(new),
    }
}

fn check(
    cx: &Context<'_>,
    broker_id: i32,
    state: &PartitionImage,
    asked: &AlterPartition,
) -> Result<(), ControllerError> {
    use ControllerError as E;
    // The leader has newer metadata than this controller, so another controller has been elected.
    if asked.leader_epoch > state.leader_epoch || asked.partition_epoch > state.partition_epoch {
        return Err(E::NotController("The leader knows of a later epoch.".into()));
    }
    if asked.leader_epoch < state.leader_epoch {
        return Err(E::FencedLeaderEpoch);
    }
    let refuse = |why: &str| Err(E::InvalidRequest(why.into()));
    if broker_id != state.leader {
        return refuse("The broker does not lead the partition.");
    }
    if asked.partition_epoch < state.partition_epoch {
        let (now, then) = (state.partition_epoch, asked.partition_epoch);
        return Err(E::InvalidUpdateVersion(format!("The partition epoch is {now}, not {then}.")));
    }
    let ids: Vec<i32> = asked.isr.iter().map(|(id, _)| *id).collect();
    let is_twice = |at: usize| ids[..at].contains(&ids[at]);
    let is_replica = |id: &i32| state.replicas.contains(id);
    if ids.is_empty() || !ids.iter().all(is_replica) || (0..ids.len()).any(is_twice) {
        return refuse("The ISR is not made of replicas.");
    }
    if !ids.contains(&state.leader) {
        return refuse("The ISR does not include the leader.");
    }
    if !(0..=RECOVERING).contains(&asked.leader_recovery_state) {
        return refuse("The leader recovery state is unknown.");
    }
    let recovering = asked.leader_recovery_state == RECOVERING;
    if recovering && (ids.len() > 1 || state.leader_recovery_state != RECOVERING) {
        return refuse("The leader recovery state cannot be RECOVERING.");
    }
    match asked.isr.iter().find_map(|(id, epoch)| why_ineligible(cx, *id, *epoch)) {
        Some(why) => Err(E::IneligibleReplica(why)),
        None => Ok(()),
    }
}

fn why_ineligible(cx: &Context<'_>, id: i32, epoch: i64) -> Option<String> {
    let Some(broker) = cx.image.broker(id) else {
        return Some(format!("{id} (not registered)"));
    };
    if broker.in_controlled_shutdown {
        return Some(format!("{id} (shutting down)"));
    }
    if broker.fenced {
        return Some(format!("{id} (fenced)"));
    }
    let known = broker.broker_epoch;
    (epoch != -1 && epoch != known)
        .then(|| format!("{id} (broker epoch mismatch: requested={epoch} VS expected={known})"))
}
