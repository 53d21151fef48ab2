//! AlterPartition (KIP-497): a leader changes the in-sync replicas of its partitions.

use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, ApiKey, BrokerId,
    alter_partition_request as asked,
    alter_partition_response::{PartitionData, TopicData},
};

use super::{
    Context, Handler, Reply,
    conversions::ids,
    error_counts::{each, error_codes},
    errors,
};
use crate::{
    controller::{AlterPartition as Change, ControllerError},
    metadata::PartitionImage,
    protocol::checks::CLUSTER_ACTION,
};

pub struct AlterPartition;

/// The broker epoch of a replica if the leader does not know the epoch.
const ANY_EPOCH: i64 = -1;

impl Handler for AlterPartition {
    const API: ApiKey = ApiKey::AlterPartition;
    type Request = AlterPartitionRequest;
    type Response = AlterPartitionResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: AlterPartitionRequest,
    ) -> Reply<AlterPartitionResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
            return Reply::Now(AlterPartitionResponse::default().with_error_code(code.code()));
        }
        let topic = |topic: &asked::TopicData| {
            (topic.topic_id, topic.partitions.iter().map(change).collect())
        };
        let topics = request.topics.iter().map(topic).collect();
        let (id, epoch) = (request.broker_id.0, request.broker_epoch);
        let altered = match cx.broker.controller.alter_partition(id, epoch, topics).await {
            Ok(altered) => altered.value,
            Err(error) => {
                let code = errors::controller(&error).code();
                return Reply::Now(AlterPartitionResponse::default().with_error_code(code));
            }
        };
        let topics = altered.into_iter().map(|(id, partitions)| {
            let partitions = partitions.into_iter().map(|(at, result)| answer(at, result));
            TopicData::default().with_topic_id(id).with_partitions(partitions.collect())
        });
        Reply::Now(AlterPartitionResponse::default().with_topics(topics.collect()))
    }
}

error_codes!(AlterPartitionResponse: |it| each!(it.topics, partitions).chain([it.error_code]));

fn change(asked: &asked::PartitionData) -> Change {
    // Requests before version 3 have no broker epochs.
    let without = asked.new_isr.iter().map(|id| (id.0, ANY_EPOCH));
    let with = asked.new_isr_with_epochs.iter().map(|it| (it.broker_id.0, it.broker_epoch));
    Change {
        partition: asked.partition_index,
        leader_epoch: asked.leader_epoch,
        partition_epoch: asked.partition_epoch,
        isr: without.chain(with).collect(),
        leader_recovery_state: asked.leader_recovery_state,
    }
}

fn answer(partition: i32, result: Result<PartitionImage, ControllerError>) -> PartitionData {
    let answer = PartitionData::default().with_partition_index(partition);
    match result {
        Ok(state) => answer
            .with_leader_id(BrokerId(state.leader))
            .with_leader_epoch(state.leader_epoch)
            .with_isr(ids(&state.isr))
            .with_leader_recovery_state(state.leader_recovery_state)
            .with_partition_epoch(state.partition_epoch),
        Err(error) => answer.with_error_code(errors::controller(&error).code()),
    }
}
