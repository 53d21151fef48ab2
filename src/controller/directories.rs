//! The assignment of replicas to log directories (AssignReplicasToDirs, KIP-858).

use uuid::Uuid;

use super::{
    Context, ControllerError, Decision,
    heartbeat::check_epoch,
    leadership,
    partition_change::{Candidates, Election, PartitionChange, has_online_dir},
};
use crate::{
    base::TopicId,
    metadata::{BrokerImage, MetadataRecord},
};

/// Directories, each with the replicas in it, by topic.
pub type Assignments = Vec<(Uuid, Vec<(TopicId, Vec<i32>)>)>;
/// The result of each assignment, in the order of the request.
pub type Assigned = Vec<(Uuid, Vec<(TopicId, Vec<(i32, Result<(), ControllerError>)>)>)>;

/// Assigns replicas of a broker to its log directories. A replica whose directory is not online
/// leaves the ISR and loses the leadership.
pub fn assign(
    cx: &Context<'_>,
    broker_id: i32,
    broker_epoch: i64,
    assignments: &Assignments,
) -> Decision<Result<Assigned, ControllerError>> {
    let broker = match check_epoch(cx, broker_id, broker_epoch) {
        Ok(broker) => broker,
        Err(error) => return Decision { records: Vec::new(), response: Err(error) },
    };
    let mut records = Vec::new();
    let mut lost = Vec::new();
    let mut response = Vec::with_capacity(assignments.len());
    for (dir, topics) in assignments {
        let is_offline = !has_online_dir(broker, *dir);
        let mut answers = Vec::with_capacity(topics.len());
        for (id, partitions) in topics {
            let mut one = |at: &i32| {
                let result = assign_one(cx, broker, *dir, *id, *at);
                let result = result.map(|record| records.extend(record));
                if is_offline && result.is_ok() {
                    lost.push((*id, *at));
                }
                (*at, result)
            };
            answers.push((*id, partitions.iter().map(&mut one).collect()));
        }
        response.push((*dir, answers));
    }
    let leaving = Candidates::leaving(broker_id);
    if !lost.is_empty() {
        leadership::update(cx, leaving, |it, at, _| lost.contains(&(it.id, at)), &mut records);
    }
    Decision { records, response: Ok(response) }
}

fn assign_one(
    cx: &Context<'_>,
    broker: &BrokerImage,
    dir: Uuid,
    id: TopicId,
    at: i32,
) -> Result<Option<MetadataRecord>, ControllerError> {
    let topic = cx.image.topic_by_id(id).ok_or(ControllerError::UnknownTopicId)?;
    let mut change = PartitionChange::new(cx, topic, at)
        .ok_or(ControllerError::UnknownTopicOrPartition(None))?;
    if !change.replicas.contains(&broker.broker_id) {
        return Err(ControllerError::NotLeaderOrFollower);
    }
    change.election = Election::Online;
    change.directories.insert(broker.broker_id, dir);
    Ok(change.build().map(MetadataRecord::from))
}
