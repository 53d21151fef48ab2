//! AssignReplicasToDirs (KIP-858): a broker reports the log directories of its replicas.

use kafka_protocol::messages::{
    ApiKey, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse,
    assign_replicas_to_dirs_request as asked,
    assign_replicas_to_dirs_response::{DirectoryData, PartitionData, TopicData},
};

use super::{Context, Handler, Reply, error_counts::error_codes, errors};
use crate::protocol::checks::CLUSTER_ACTION;

pub struct AssignReplicasToDirs;

impl Handler for AssignReplicasToDirs {
    const API: ApiKey = ApiKey::AssignReplicasToDirs;
    type Request = AssignReplicasToDirsRequest;
    type Response = AssignReplicasToDirsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: AssignReplicasToDirsRequest,
    ) -> Reply<AssignReplicasToDirsResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
            return Reply::Now(
                AssignReplicasToDirsResponse::default().with_error_code(code.code()),
            );
        }
        let topic = |it: &asked::TopicData| {
            (it.topic_id, it.partitions.iter().map(|it| it.partition_index).collect())
        };
        let dir = |it: &asked::DirectoryData| (it.id, it.topics.iter().map(topic).collect());
        let assignments = request.directories.iter().map(dir).collect();
        let (id, epoch) = (request.broker_id.0, request.broker_epoch);
        let controller = &cx.broker.controller;
        let assigned = match controller.assign_replicas_to_dirs(id, epoch, assignments).await {
            Ok(assigned) => assigned.value,
            Err(error) => {
                let code = errors::controller(&error).code();
                return Reply::Now(AssignReplicasToDirsResponse::default().with_error_code(code));
            }
        };
        let partition = |(at, result)| {
            let (code, _) = errors::outcome(&result);
            PartitionData::default().with_partition_index(at).with_error_code(code)
        };
        let topic = |(id, partitions): (_, Vec<_>)| {
            let partitions = partitions.into_iter().map(partition).collect();
            TopicData::default().with_topic_id(id).with_partitions(partitions)
        };
        let dir = |(id, topics): (_, Vec<_>)| {
            let topics = topics.into_iter().map(topic).collect();
            DirectoryData::default().with_id(id).with_topics(topics)
        };
        let directories = assigned.into_iter().map(dir).collect();
        Reply::Now(AssignReplicasToDirsResponse::default().with_directories(directories))
    }
}

error_codes!(AssignReplicasToDirsResponse: |it| {
    let topics = it.directories.iter().flat_map(|dir| &dir.topics);
    let partitions = topics.flat_map(|topic| &topic.partitions);
    partitions.map(|it| it.error_code).chain([it.error_code])
});
