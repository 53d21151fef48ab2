//! Registration of brokers (Kafka's `ClusterControlManager`) and blocks of producer ids
//! (`ProducerIdControlManager`).

use std::collections::HashSet;

use uuid::Uuid;

use super::{Context, ControllerError, Decision, features::SUPPORTED, topics};
use crate::{
    base::TopicId,
    metadata::{
        MetadataRecord,
        records::*,
        topics::{LOST, NO_LEADER, NO_LEADER_CHANGE},
    },
};

/// Ids per block (Kafka's `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_ID_BLOCK: i64 = 1_000;

#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    pub broker_id: i32,
    /// Chosen anew by each process.
    pub incarnation_id: Uuid,
    pub endpoints: Vec<BrokerEndpoint>,
    pub rack: Option<String>,
    pub log_dirs: Vec<Uuid>,
    /// Its replicas whose logs it could not open.
    pub offline: Vec<(TopicId, i32)>,
}

/// What a broker tells when a log directory has failed.
#[derive(Debug, Clone, PartialEq)]
pub struct DirsFailure {
    pub broker_id: i32,
    /// Of the directories that are left.
    pub log_dirs: Vec<Uuid>,
    /// All its replicas whose logs cannot be used.
    pub offline: Vec<(TopicId, i32)>,
}

/// Registers a broker, makes its partitions lead again, and answers its epoch: the offset of its
/// registration. One batch does what Kafka does over heartbeats, so the broker is never seen
/// fenced; on one node there is nobody to see it.
pub fn register(
    cx: &Context<'_>,
    registration: &Registration,
) -> Decision<Result<i64, ControllerError>> {
    if let Err(why) = check(cx, registration) {
        return Decision { records: Vec::new(), response: Err(why) };
    }
    let id = registration.broker_id;
    let same = cx.image.broker(id).filter(|it| it.incarnation_id == registration.incarnation_id);
    let broker_epoch = same.map_or(cx.image.offset + 1, |it| it.broker_epoch);
    let mut records: Vec<MetadataRecord> = vec![
        RegisterBrokerRecord {
            broker_id: id,
            incarnation_id: registration.incarnation_id,
            broker_epoch,
            end_points: registration.endpoints.clone(),
            features: SUPPORTED
                .map(|feature| BrokerFeature {
                    name: feature.name.into(),
                    min_supported_version: feature.min,
                    max_supported_version: feature.max,
                })
                .into(),
            rack: registration.rack.clone(),
            fenced: true,
            log_dirs: registration.log_dirs.clone(),
            ..RegisterBrokerRecord::default()
        }
        .into(),
        unfence(id, broker_epoch),
    ];
    records.extend(leadership_regained(cx, registration));
    Decision { records, response: Ok(broker_epoch) }
}

fn unfence(broker_id: i32, broker_epoch: i64) -> MetadataRecord {
    BrokerRegistrationChangeRecord {
        broker_id,
        broker_epoch,
        fenced: -1,
        ..BrokerRegistrationChangeRecord::default()
    }
    .into()
}

fn check(cx: &Context<'_>, registration: &Registration) -> Result<(), ControllerError> {
    let refuse = |why: String| Err(ControllerError::InvalidRegistration(why));
    let dirs = &registration.log_dirs;
    if dirs.is_empty() {
        return refuse("No directories specified in request".into());
    }
    // The first hundred ids are Kafka's own (`DirectoryId.reserved`).
    if dirs.iter().any(|dir| dir.as_u128() < 100) {
        return refuse("Reserved directory ID in request".into());
    }
    if dirs.iter().enumerate().any(|(at, dir)| dirs[..at].contains(dir)) {
        return refuse("Duplicate directory ID in request".into());
    }
    let others = cx.image.brokers.values().filter(|it| it.broker_id != registration.broker_id);
    for other in others {
        if let Some(dir) = dirs.iter().find(|dir| other.log_dirs.contains(dir)) {
            return refuse(format!(
                "Broker {} is already registered with directory {dir}",
                other.broker_id
            ));
        }
    }
    Ok(())
}

/// A new incarnation leads what it led, in a new leader epoch, and what has no leader but can be
/// led by it: the end of what Kafka writes when a broker stops and comes back.
fn leadership_regained(cx: &Context<'_>, registration: &Registration) -> Vec<MetadataRecord> {
    let broker = registration.broker_id;
    let directory = match registration.log_dirs[..] {
        [only] => only,
        _ => topics::UNASSIGNED_DIR,
    };
    let offline: HashSet<_> = registration.offline.iter().collect();
    let mut records: Vec<_> =
        offline.iter().filter_map(|(id, index)| leadership_lost(cx, broker, *id, *index)).collect();
    for topic in cx.image.topics.iter() {
        for (at, partition) in topic.partitions.iter().enumerate() {
            let leads = partition.leader == broker;
            let can_lead = partition.leader == NO_LEADER
                && (partition.isr.contains(&broker)
                    || partition.elr.contains(&broker)
                    || partition.isr.is_empty() && partition.last_known_elr == [broker]);
            let is_offline = offline.contains(&(topic.id, at as i32));
            if is_offline || !leads && !can_lead {
                continue;
            }
            let in_isr = partition.isr.contains(&broker);
            let elr = partition.elr.contains(&broker);
            let others = || partition.elr.iter().copied().filter(|id| *id != broker).collect();
            records.push(
                PartitionChangeRecord {
                    partition_id: at as i32,
                    topic_id: topic.id,
                    isr: (!in_isr).then(|| vec![broker]),
                    leader: broker,
                    eligible_leader_replicas: elr.then(others),
                    directories: partition
                        .is_lost(broker)
                        .then(|| partition.directories_with(broker, directory)),
                    last_known_elr: (!partition.last_known_elr.is_empty()).then(Vec::new),
                    ..PartitionChangeRecord::default()
                }
                .into(),
            );
        }
    }
    records
}

/// Takes the leadership of partitions from a broker whose log directory failed. With the last
/// replica of the ISR gone nobody leads (Kafka's `handleDirectoriesOffline`).
pub fn directories_failed(cx: &Context<'_>, failure: &DirsFailure) -> Decision<()> {
    let id = failure.broker_id;
    let Some(broker) = cx.image.broker(id) else {
        return Decision { records: Vec::new(), response: () };
    };
    let mut records: Vec<MetadataRecord> = Vec::new();
    if !failure.log_dirs.is_empty() && failure.log_dirs != broker.log_dirs {
        let change = BrokerRegistrationChangeRecord {
            broker_id: id,
            broker_epoch: broker.broker_epoch,
            log_dirs: failure.log_dirs.clone(),
            ..BrokerRegistrationChangeRecord::default()
        };
        records.push(change.into());
    }
    let lost = failure.offline.iter();
    records.extend(lost.filter_map(|(topic, index)| leadership_lost(cx, id, *topic, *index)));
    Decision { records, response: () }
}

/// `None` if nothing is to change.
fn leadership_lost(
    cx: &Context<'_>,
    broker: i32,
    topic: TopicId,
    partition_id: i32,
) -> Option<MetadataRecord> {
    let partition = cx.image.topic_by_id(topic)?.partitions.get(partition_id as usize)?;
    let leads = partition.leader == broker;
    if !leads && partition.is_lost(broker) {
        return None;
    }
    // With eligible leader replicas (KIP-966) the last of the ISR becomes one.
    let is_last = partition.isr == [broker];
    let eligible = leads && is_last && cx.image.feature("eligible.leader.replicas.version") > 0;
    let change = PartitionChangeRecord {
        partition_id,
        topic_id: topic,
        isr: eligible.then(Vec::new),
        leader: if leads { NO_LEADER } else { NO_LEADER_CHANGE },
        directories: Some(partition.directories_with(broker, LOST)),
        eligible_leader_replicas: eligible.then(|| vec![broker]),
        last_known_elr: eligible.then(|| vec![broker]),
        ..PartitionChangeRecord::default()
    };
    Some(change.into())
}

/// Removes a broker that is gone for good.
pub fn unregister(cx: &Context<'_>, broker_id: i32) -> Decision<Result<(), ControllerError>> {
    match cx.image.broker(broker_id) {
        Some(broker) => Decision {
            records: vec![
                UnregisterBrokerRecord { broker_id, broker_epoch: broker.broker_epoch }.into(),
            ],
            response: Ok(()),
        },
        None => Decision {
            records: Vec::new(),
            response: Err(ControllerError::BrokerIdNotRegistered(format!(
                "Broker ID {broker_id} is not currently registered"
            ))),
        },
    }
}

/// A block of producer ids that nobody else gets: its first id; there are `PRODUCER_ID_BLOCK`.
pub fn allocate_producer_ids(
    cx: &Context<'_>,
    broker_id: i32,
) -> Decision<Result<i64, ControllerError>> {
    let first = cx.image.next_producer_id();
    if first > i64::MAX - PRODUCER_ID_BLOCK {
        let response = Err(ControllerError::ProducerIdsExhausted);
        return Decision { records: Vec::new(), response };
    }
    let broker_epoch = cx.image.broker(broker_id).map_or(-1, |broker| broker.broker_epoch);
    let next_producer_id = first + PRODUCER_ID_BLOCK;
    let record = ProducerIdsRecord { broker_id, broker_epoch, next_producer_id };
    Decision { records: vec![record.into()], response: Ok(first) }
}

/// What a broker does first when it stops in good order: it is fenced and takes no new partitions.
pub fn begin_shutdown(cx: &Context<'_>, broker_id: i32) -> Decision<()> {
    let active = topics::is_active(cx.image, broker_id);
    let broker = cx.image.broker(broker_id).filter(|_| active);
    let record = broker.map(|broker| {
        MetadataRecord::from(BrokerRegistrationChangeRecord {
            broker_id,
            broker_epoch: broker.broker_epoch,
            in_controlled_shutdown: 1,
            ..BrokerRegistrationChangeRecord::default()
        })
    });
    Decision { records: record.into_iter().collect(), response: () }
}
