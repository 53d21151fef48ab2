//! Changes of partitions when a broker is fenced, unfenced, shut down, restarted or unregistered,
//! or when its log directories fail (Kafka's
//! `ReplicationControlManager.generateLeaderAndIsrUpdates` and its callers).

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Context,
    partition_change::{Candidates, PartitionChange},
};
use crate::metadata::{
    BrokerImage, Image, MetadataRecord, PartitionImage, TopicImage, records::*, topics::NO_LEADER,
};

/// The topics sorted by name. The image has no order, and the same request must always lead to the
/// same records.
pub fn in_order(image: &Image) -> Vec<&Arc<TopicImage>> {
    let mut topics: Vec<_> = image.topics.iter().collect();
    topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    topics
}

/// For each partition for which `concerned` is true: removes the leaving or unclean broker from the
/// ISR, and elects a leader if there is none or the present one cannot lead.
pub fn update(
    cx: &Context<'_>,
    candidates: Candidates,
    concerned: impl Fn(&TopicImage, i32, &PartitionImage) -> bool,
    records: &mut Vec<MetadataRecord>,
) {
    let goes = [candidates.leaving, candidates.unclean];
    for topic in in_order(cx.image) {
        for (state, at) in topic.partitions.iter().zip(0..) {
            if !concerned(topic, at, state) {
                continue;
            }
            let Some(mut change) = PartitionChange::new(cx, topic, at) else { continue };
            change.isr.retain(|id| !goes.contains(&Some(*id)));
            change.candidates = candidates;
            records.extend(change.build().map(MetadataRecord::from));
        }
    }
}

/// Whether the broker leads any partition.
pub fn leads_any(image: &Image, broker: i32) -> bool {
    let mut partitions = image.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.any(|partition| partition.leader == broker)
}

/// A record that changes nothing of the broker's registration yet.
fn change(broker: &BrokerImage) -> BrokerRegistrationChangeRecord {
    BrokerRegistrationChangeRecord {
        broker_id: broker.broker_id,
        broker_epoch: broker.broker_epoch,
        ..BrokerRegistrationChangeRecord::default()
    }
}

/// Fences a broker: it leaves all ISRs and loses its leaderships.
pub fn fenced(cx: &Context<'_>, broker: &BrokerImage) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    leave_isr(cx, broker.broker_id, &mut records);
    records.push(BrokerRegistrationChangeRecord { fenced: 1, ..change(broker) }.into());
    records
}

/// Unfences a broker. It may become the leader of partitions that have none.
pub fn unfenced(cx: &Context<'_>, broker: &BrokerImage) -> Vec<MetadataRecord> {
    let unfence = BrokerRegistrationChangeRecord { fenced: -1, ..change(broker) };
    let mut records = vec![unfence.into()];
    let back = Candidates { returning: Some(broker.broker_id), ..Candidates::default() };
    update(cx, back, |_, _, state| state.leader == NO_LEADER, &mut records);
    records
}

/// Begins a controlled shutdown: the broker leaves all ISRs and loses its leaderships before it
/// stops.
pub fn shutting_down(cx: &Context<'_>, broker: &BrokerImage) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    if !broker.in_controlled_shutdown {
        let began = BrokerRegistrationChangeRecord { in_controlled_shutdown: 1, ..change(broker) };
        records.push(began.into());
    }
    leave_isr(cx, broker.broker_id, &mut records);
    records
}

/// Removes a restarted broker from all ISRs. If its previous incarnation did not stop cleanly, its
/// disk may lack acknowledged records, so the broker also leaves the eligible leader replicas
/// (KIP-966).
pub fn restarted(cx: &Context<'_>, broker: i32, was_clean: bool) -> Vec<MetadataRecord> {
    let is_unclean = cx.elr_enabled() && !was_clean;
    let candidates = match is_unclean {
        true => Candidates { unclean: Some(broker), ..Candidates::default() },
        false => Candidates::leaving(broker),
    };
    let has = |state: &PartitionImage| {
        state.isr.contains(&broker) || is_unclean && state.elr.contains(&broker)
    };
    let mut records = Vec::new();
    update(cx, candidates, |_, _, state| has(state), &mut records);
    records
}

/// Removes a broker's registration. It also leaves all ISRs and ELRs.
pub fn unregistered(cx: &Context<'_>, broker: &BrokerImage) -> Vec<MetadataRecord> {
    let (broker_id, broker_epoch) = (broker.broker_id, broker.broker_epoch);
    let mut records = Vec::new();
    let has =
        |state: &PartitionImage| state.isr.contains(&broker_id) || state.elr.contains(&broker_id);
    let gone = Candidates::leaving(broker_id);
    update(cx, gone, |_, _, state| has(state), &mut records);
    records.push(UnregisterBrokerRecord { broker_id, broker_epoch }.into());
    records
}

/// Removes failed log directories from the broker's registration. Replicas in them leave the ISR
/// and lose the leadership.
pub fn directories_offline(
    cx: &Context<'_>,
    broker: &BrokerImage,
    offline: &[Uuid],
) -> Vec<MetadataRecord> {
    let (failed, left): (Vec<Uuid>, Vec<Uuid>) =
        broker.log_dirs.iter().partition(|dir| offline.contains(dir));
    if failed.is_empty() {
        return Vec::new();
    }
    let mut records = Vec::new();
    let is_there = |state: &PartitionImage| {
        let mut replicas = state.replicas.iter().zip(&state.directories);
        replicas.any(|(id, dir)| *id == broker.broker_id && failed.contains(dir))
    };
    let leaving = Candidates::leaving(broker.broker_id);
    update(cx, leaving, |_, _, state| is_there(state), &mut records);
    records.push(BrokerRegistrationChangeRecord { log_dirs: left, ..change(broker) }.into());
    records
}

/// Changes the directories that get no new replicas (KIP-1066). `None` leaves them as they are.
pub fn directories_cordoned(
    broker: &BrokerImage,
    cordoned: Option<&Vec<Uuid>>,
) -> Option<MetadataRecord> {
    let new = cordoned?;
    let same = broker.cordoned_log_dirs.as_ref().is_some_and(|old| {
        old.iter().all(|dir| new.contains(dir)) && new.iter().all(|dir| old.contains(dir))
    });
    let cordoned_log_dirs = Some(new.clone());
    let record = BrokerRegistrationChangeRecord { cordoned_log_dirs, ..change(broker) };
    (!same).then(|| record.into())
}

fn leave_isr(cx: &Context<'_>, broker: i32, records: &mut Vec<MetadataRecord>) {
    let leaving = Candidates::leaving(broker);
    update(cx, leaving, |_, _, state| state.isr.contains(&broker), records);
}
