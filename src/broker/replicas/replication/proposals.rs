//! Proposals to change in-sync replicas, sent to the controller (AlterPartition). At most one
//! request is in flight; the next one contains all proposals that have accumulated meanwhile. A
//! proposal is sent again until the controller decides on it, or until metadata makes it obsolete.

use std::{sync::Arc, time::Duration};

use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerId,
    alter_partition_request::{BrokerState, PartitionData, TopicData},
    alter_partition_response,
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};
use tracing::{debug, warn};

use crate::{
    base::{TopicId, environment::now_ms},
    broker::{Replicas, ToControllerError},
    partition::{IsrChange, Partition, Proposal, ProposalAnswer},
    protocol::ErrorCode,
};

const VERSION: i16 = 3;
/// The time limit of a request. Afterwards it is sent again, perhaps to another controller, which
/// recognises a repeated proposal by its partition epoch.
const PATIENCE: Duration = Duration::from_secs(3);
const REST: Duration = Duration::from_millis(50);

type Waiting = (TopicId, Arc<Partition>);

#[derive(Default)]
pub(super) struct Proposals {
    waiting: Mutex<Vec<Waiting>>,
    added: Notify,
}

impl Proposals {
    fn add(&self, waiting: impl IntoIterator<Item = Waiting>) {
        let mut all = self.waiting.lock();
        all.extend(waiting);
        self.added.notify_one();
    }

    fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

impl Replicas {
    /// Queues a partition that has a proposal.
    pub(in crate::broker) fn propose(&self, topic_id: TopicId, partition: &Arc<Partition>) {
        self.replication.proposals.add([(topic_id, Arc::clone(partition))]);
    }
}

struct Sent {
    topic_id: TopicId,
    partition: Arc<Partition>,
    proposal: Proposal,
}

/// Sends proposals until the task is aborted.
pub(super) async fn run(replicas: Arc<Replicas>) {
    let mut is_answered = true;
    loop {
        let mut sent: Vec<Sent> = Vec::new();
        for (topic_id, partition) in replicas.replication.proposals.take() {
            // Later metadata may have made the proposal obsolete.
            if let Some(proposal) = partition.proposal() {
                sent.push(Sent { topic_id, partition, proposal });
            }
        }
        if sent.is_empty() {
            replicas.replication.proposals.added.notified().await;
            continue;
        }
        sent.sort_by_key(|it| (it.topic_id, it.partition.id.partition));
        sent.dedup_by_key(|it| (it.topic_id, it.partition.id.partition));
        let answer = send(&replicas, &sent).await;
        if let Err(error) = &answer {
            // Warn once, because there may be no controller for a long time.
            match is_answered {
                true => {
                    warn!(%error, "AlterPartition failed, retrying until a controller answers")
                }
                false => debug!(%error, "AlterPartition failed, retrying"),
            }
        }
        is_answered = answer.is_ok();
        let again = match answer.unwrap_or_default() {
            Some(response) => take(&replicas, sent, &response),
            None => sent,
        };
        if !again.is_empty() {
            sleep(REST).await;
            let again = again.into_iter().map(|it| (it.topic_id, it.partition));
            replicas.replication.proposals.add(again);
        }
    }
}

/// Sends one AlterPartition request. Returns `None` if the controller refuses the whole request, or
/// if this broker's metadata does not contain its registration yet.
async fn send(
    replicas: &Arc<Replicas>,
    sent: &[Sent],
) -> Result<Option<AlterPartitionResponse>, ToControllerError> {
    let registered = replicas.node.metadata().broker(replicas.node.id).map(|it| it.broker_epoch);
    let Some(broker_epoch) = registered else { return Ok(None) };
    let request = request(replicas.node.id, broker_epoch, sent);
    let response = replicas.to_controller.send(VERSION, &request, PATIENCE).await?;
    if response.error_code == 0 {
        return Ok(Some(response));
    }
    let code = ErrorCode::try_from_code(response.error_code);
    debug!(?code, "AlterPartition refused, retrying");
    Ok(None)
}

fn request(node_id: i32, broker_epoch: i64, sent: &[Sent]) -> AlterPartitionRequest {
    let mut topics: Vec<TopicData> = Vec::new();
    for Sent { topic_id, partition, proposal } in sent {
        let replica = |&(id, epoch): &(i32, i64)| {
            let epoch = if id == node_id { broker_epoch } else { epoch };
            BrokerState::default().with_broker_id(BrokerId(id)).with_broker_epoch(epoch)
        };
        let data = PartitionData::default()
            .with_partition_index(partition.id.partition)
            .with_leader_epoch(proposal.leader_epoch)
            .with_partition_epoch(proposal.partition_epoch)
            .with_new_isr_with_epochs(proposal.isr.iter().map(replica).collect());
        match topics.last_mut().filter(|topic| topic.topic_id == *topic_id) {
            Some(topic) => topic.partitions.push(data),
            None => {
                let topic = TopicData::default().with_topic_id(*topic_id);
                topics.push(topic.with_partitions(vec![data]));
            }
        }
    }
    AlterPartitionRequest::default()
        .with_broker_id(BrokerId(node_id))
        .with_broker_epoch(broker_epoch)
        .with_topics(topics)
}

/// Passes each partition the decision on its proposal. Returns the undecided ones, which are sent
/// again.
fn take(replicas: &Replicas, sent: Vec<Sent>, response: &AlterPartitionResponse) -> Vec<Sent> {
    let metrics = &replicas.replication.metrics;
    let find = |sent: &Sent| {
        let topics = response.topics.iter().filter(|it| it.topic_id == sent.topic_id);
        let mut partitions = topics.flat_map(|it| &it.partitions);
        partitions.find(|it| it.partition_index == sent.partition.id.partition)
    };
    let mut again = Vec::new();
    for sent in sent {
        match find(&sent).and_then(answer) {
            None => again.push(sent),
            Some(answer) => {
                let (id, proposal) = (&sent.partition.id, &sent.proposal);
                debug!(partition = %id, ?proposal, ?answer, "the controller has answered");
                let is_committed = matches!(answer, ProposalAnswer::Committed { .. });
                // If metadata with the change was applied before this response, nothing changes.
                sent.partition.update(|core| core.answered(proposal, answer, now_ms()));
                match &proposal.change {
                    _ if !is_committed => metrics.failed_isr_updates.increment(1),
                    IsrChange::Expand(_) => metrics.isr_expands.increment(1),
                    IsrChange::Shrink(_) => metrics.isr_shrinks.increment(1),
                }
            }
        }
    }
    again
}

/// The controller's decision on a proposal, or `None` if it has not decided.
fn answer(data: &alter_partition_response::PartitionData) -> Option<ProposalAnswer> {
    use ErrorCode::*;
    if data.error_code == 0 {
        return Some(ProposalAnswer::Committed {
            leader_epoch: data.leader_epoch,
            partition_epoch: data.partition_epoch,
            isr: data.isr.iter().map(|id| id.0).collect(),
        });
    }
    match ErrorCode::try_from_code(data.error_code)? {
        OperationNotAttempted | IneligibleReplica => Some(ProposalAnswer::Refused),
        UnknownTopicOrPartition
        | UnknownTopicId
        | InvalidUpdateVersion
        | FencedLeaderEpoch
        | InvalidRequest
        | NewLeaderElected => Some(ProposalAnswer::Outdated),
        _ => None,
    }
}
