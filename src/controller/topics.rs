//! Creates and deletes topics and adds partitions (Kafka's `ReplicationControlManager`).

use std::collections::BTreeSet;

use super::{
    ConfigOp, Context, ControllerError, Decision, configs,
    partition_change::{default_dir, is_active},
    placement, topic_names,
};
use crate::{
    base::TopicId,
    metadata::{ConfigResource, Image, MetadataRecord, records::*, topics::NO_LEADER},
};

/// The most records that one request may lead to (Kafka's
/// `QuorumController.MAX_RECORDS_PER_USER_OP`).
pub(super) const MAX_RECORDS: usize = 10_000;

/// A topic to be created.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewTopic {
    pub name: String,
    /// -1 for the default. Must be -1 with `assignments`.
    pub partitions: i32,
    /// -1 for the default. Must be -1 with `assignments`.
    pub replication_factor: i16,
    /// Manual assignment: partitions with their replicas, preferred leader first.
    pub assignments: Vec<(i32, Vec<i32>)>,
    pub configs: Vec<(String, Option<String>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreatedTopic {
    pub id: TopicId,
    pub partitions: i32,
    pub replication_factor: i16,
}

/// A topic that gets more partitions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewPartitions {
    pub name: String,
    /// The new number of partitions.
    pub count: i32,
    /// The replicas of each additional partition; `None` if the controller places them.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// The result of each topic, in the order of the request.
pub type Results<T> = Vec<(String, Result<T, ControllerError>)>;

/// Creates topics. The caller must have refused duplicate names. A request that would need too many
/// partitions or records is refused as a whole, as in Kafka.
pub fn create(cx: &mut Context<'_>, topics: &[NewTopic]) -> Decision<Results<CreatedTopic>> {
    if exceeds_max_partitions(cx, topics) {
        return refuse_all(topics.iter().map(|topic| &topic.name), TOO_MANY_PARTITIONS);
    }
    let mut records = Vec::new();
    let mut results = Vec::with_capacity(topics.len());
    for topic in topics {
        let created = create_one(cx, topic, &mut records);
        // Checked after each topic, because a small request can name more partitions than fit in
        // memory.
        if records.len() > MAX_RECORDS {
            return refuse_all(topics.iter().map(|topic| &topic.name), TOO_LARGE);
        }
        results.push((topic.name.clone(), created));
    }
    Decision { records, response: results }
}

pub(super) const TOO_LARGE: &str = "Unable to perform excessively large batch operation.";
pub(super) const TOO_MANY_PARTITIONS: &str = "Excessively large number of partitions per request.";

/// Whether the topics have more than [`MAX_RECORDS`] partitions in total. Invalid topics count,
/// too.
fn exceeds_max_partitions(cx: &Context<'_>, topics: &[NewTopic]) -> bool {
    let count = |topic: &NewTopic| match (topic.assignments.len(), topic.partitions) {
        (0, -1) => cx.settings.num_partitions.max(0) as usize,
        (0, asked) => asked.max(0) as usize,
        (assigned, _) => assigned,
    };
    topics.iter().map(count).sum::<usize>() > MAX_RECORDS
}

/// Refuses all topics of a request, as Kafka does if the batch would be too large.
fn refuse_all<'a, T>(names: impl Iterator<Item = &'a String>, why: &str) -> Decision<Results<T>> {
    let refused = || Err(ControllerError::PolicyViolation(why.into()));
    let response = names.map(|name| (name.clone(), refused())).collect();
    Decision { records: Vec::new(), response }
}

fn create_one(
    cx: &mut Context<'_>,
    topic: &NewTopic,
    records: &mut Vec<MetadataRecord>,
) -> Result<CreatedTopic, ControllerError> {
    topic_names::validate(&topic.name)?;
    topic_names::check_collision(cx.image, &topic.name)?;
    if cx.image.topic(&topic.name).is_some() {
        let message = format!("Topic '{}' already exists.", topic.name);
        return Err(ControllerError::TopicAlreadyExists(message));
    }
    let config_records = config_records(cx, topic)?;
    let placed = replicas_of(cx, topic)?;
    let topic_id = cx.random.uuid();
    let created = CreatedTopic {
        id: topic_id,
        partitions: placed.len() as i32,
        replication_factor: placed.first().map_or(0, |replicas| replicas.len() as i16),
    };
    records.push(TopicRecord { name: topic.name.clone(), topic_id }.into());
    records.extend(config_records);
    for (partition, replicas) in placed.into_iter().enumerate() {
        records.push(new_partition(cx.image, topic_id, partition as i32, replicas).into());
    }
    Ok(created)
}

fn config_records(
    cx: &Context<'_>,
    topic: &NewTopic,
) -> Result<Vec<MetadataRecord>, ControllerError> {
    let unset = topic.configs.iter().filter(|(_, value)| value.is_none());
    let unset: Vec<&str> = unset.map(|(name, _)| name.as_str()).collect();
    if !unset.is_empty() {
        let names = unset.join(",");
        let message = format!("Null value not supported for topic configs: {names}");
        return Err(ControllerError::InvalidConfig(message));
    }
    let ops = topic
        .configs
        .iter()
        .map(|(name, value)| (name.clone(), ConfigOp::Set(value.clone().unwrap_or_default())));
    let resource = ConfigResource::topic(topic.name.as_str());
    configs::change(cx, &resource, &ops.collect::<Vec<_>>())
}

fn replicas_of(cx: &mut Context<'_>, topic: &NewTopic) -> Result<Vec<Vec<i32>>, ControllerError> {
    use ControllerError as E;
    if !topic.assignments.is_empty() {
        return assigned(cx.image, topic);
    }
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(E::InvalidReplicationFactor(message.into()));
    }
    if topic.partitions < -1 || topic.partitions == 0 {
        let message = "Number of partitions was set to an invalid non-positive value.";
        return Err(E::InvalidPartitions(message.into()));
    }
    let or = |asked: i32, default: i32| if asked == -1 { default } else { asked };
    let partitions = or(topic.partitions, cx.settings.num_partitions);
    let default = i32::from(cx.settings.default_replication_factor);
    let factor = or(i32::from(topic.replication_factor), default) as i16;
    placement::place(cx.image, partitions as usize, factor, cx.random)
}

/// Checks a manual assignment and returns the replicas of each partition.
fn assigned(image: &Image, topic: &NewTopic) -> Result<Vec<Vec<i32>>, ControllerError> {
    use ControllerError as E;
    let mismatch = |what: &str| {
        Err(E::InvalidRequest(format!(
            "A manual partition assignment was specified, but {what} not set to -1."
        )))
    };
    if topic.replication_factor != -1 {
        return mismatch("replication factor was");
    }
    if topic.partitions != -1 {
        return mismatch("numPartitions was");
    }
    let mut seen = BTreeSet::new();
    let mut factor = None;
    for (partition, replicas) in &topic.assignments {
        if !seen.insert(*partition) {
            return Err(E::InvalidReplicaAssignment(format!(
                "Found multiple manual partition assignments for partition {partition}"
            )));
        }
        check_assignment(image, replicas, factor)?;
        check_active(image, replicas, *partition)?;
        factor = Some(replicas.len());
    }
    if seen.iter().zip(0..).any(|(&partition, expected)| partition != expected) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err(E::InvalidReplicaAssignment(message.into()));
    }
    let mut assignments = topic.assignments.clone();
    assignments.sort_unstable_by_key(|(partition, _)| *partition);
    Ok(assignments.into_iter().map(|(_, replicas)| replicas).collect())
}

/// Checks that the replicas are registered brokers without duplicates, and as many as `factor`.
pub(super) fn check_assignment(
    image: &Image,
    replicas: &[i32],
    factor: Option<usize>,
) -> Result<(), ControllerError> {
    let refuse = |what: String| {
        let message = format!("The manual partition assignment includes {what}");
        Err(ControllerError::InvalidReplicaAssignment(message))
    };
    if replicas.is_empty() {
        return refuse("an empty replica list.".into());
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    for (at, broker) in sorted.iter().enumerate() {
        if image.broker(*broker).is_none() {
            return refuse(format!("broker {broker}, but no such broker is registered."));
        }
        if at > 0 && sorted[at - 1] == *broker {
            return refuse(format!("the broker {broker} more than once."));
        }
    }
    match factor {
        Some(factor) if factor != sorted.len() => refuse(format!(
            "a partition with {} replica(s), but this is not consistent with previous \
             partitions, which have {factor} replica(s).",
            sorted.len()
        )),
        _ => Ok(()),
    }
}

/// Checks that at least one of the brokers is active.
fn check_active(image: &Image, replicas: &[i32], partition: i32) -> Result<(), ControllerError> {
    if replicas.iter().any(|&broker| is_active(image, broker)) {
        return Ok(());
    }
    Err(ControllerError::InvalidReplicaAssignment(format!(
        "All brokers specified in the manual partition assignment for partition {partition} are \
         fenced or in controlled shutdown."
    )))
}

/// The record of a new partition. Its ISR has all replicas on active brokers.
fn new_partition(
    image: &Image,
    topic_id: TopicId,
    partition_id: i32,
    replicas: Vec<i32>,
) -> PartitionRecord {
    let isr: Vec<i32> =
        replicas.iter().copied().filter(|&broker| is_active(image, broker)).collect();
    PartitionRecord {
        partition_id,
        topic_id,
        leader: isr.first().copied().unwrap_or(NO_LEADER),
        leader_epoch: 0,
        partition_epoch: 0,
        directories: replicas.iter().map(|&broker| default_dir(image, broker)).collect(),
        isr,
        replicas,
        ..PartitionRecord::default()
    }
}

/// Deletes topics. An unknown id fails only its own result.
pub fn delete(
    cx: &Context<'_>,
    ids: &[TopicId],
) -> Decision<Vec<(TopicId, Result<(), ControllerError>)>> {
    let mut records = Vec::new();
    let mut response = Vec::with_capacity(ids.len());
    for &topic_id in ids {
        let result = match cx.image.topic_by_id(topic_id) {
            Some(_) => {
                records.push(RemoveTopicRecord { topic_id }.into());
                Ok(())
            }
            None => Err(ControllerError::UnknownTopicId),
        };
        response.push((topic_id, result));
    }
    Decision { records, response }
}

/// Adds partitions to topics. A request with too many records is refused as a whole.
pub fn create_partitions(cx: &mut Context<'_>, topics: &[NewPartitions]) -> Decision<Results<()>> {
    let mut records = Vec::new();
    let mut results = Vec::with_capacity(topics.len());
    for topic in topics {
        let added = add_partitions(cx, topic).map(|added| records.extend(added));
        if records.len() > MAX_RECORDS {
            return refuse_all(topics.iter().map(|topic| &topic.name), TOO_LARGE);
        }
        results.push((topic.name.clone(), added));
    }
    Decision { records, response: results }
}

fn add_partitions(
    cx: &mut Context<'_>,
    wanted: &NewPartitions,
) -> Result<Vec<MetadataRecord>, ControllerError> {
    use ControllerError as E;
    let topic = cx.image.topic(&wanted.name).ok_or(E::UnknownTopicOrPartition(None))?.clone();
    let start = topic.partitions.len() as i32;
    if wanted.count == start {
        return Err(E::InvalidPartitions(format!("Topic already has {start} partition(s).")));
    }
    if wanted.count < start {
        return Err(E::InvalidPartitions(format!(
            "The topic {} currently has {start} partition(s); {} would not be an increase.",
            wanted.name, wanted.count
        )));
    }
    let additional = (wanted.count - start) as usize;
    let factor = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
    let placed = match &wanted.assignments {
        Some(assignments) if assignments.len() != additional => {
            return Err(E::InvalidReplicaAssignment(format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) \
                 were specified.",
                assignments.len()
            )));
        }
        Some(assignments) => {
            for (replicas, partition) in assignments.iter().zip(start..) {
                check_assignment(cx.image, replicas, Some(factor))?;
                check_active(cx.image, replicas, partition)?;
            }
            assignments.clone()
        }
        None if additional > MAX_RECORDS => {
            return Err(E::PolicyViolation(TOO_MANY_PARTITIONS.into()));
        }
        None => placement::place(cx.image, additional, factor as i16, cx.random)?,
    };
    let numbered = placed.into_iter().zip(start..);
    let record = |(replicas, at)| new_partition(cx.image, topic.id, at, replicas).into();
    Ok(numbered.map(record).collect())
}
