//! AlterReplicaLogDirs: moves replicas of this broker to other log directories (KIP-113).

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::{
    messages::{
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, ApiKey, TopicName,
        alter_replica_log_dirs_response::{
            AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
        },
    },
    protocol::StrBytes,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    error_counts::{each, error_codes},
    errors,
};
use crate::{
    base::{TopicPartition, environment::blocking},
    broker::Broker,
    protocol::checks::CLUSTER_ALTER,
};

pub struct AlterReplicaLogDirs;

impl Handler for AlterReplicaLogDirs {
    const API: ApiKey = ApiKey::AlterReplicaLogDirs;
    type Request = AlterReplicaLogDirsRequest;
    type Response = AlterReplicaLogDirsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: AlterReplicaLogDirsRequest,
    ) -> Reply<AlterReplicaLogDirsResponse> {
        let wanted = last_of_each(request);
        if let Err(code) = cx.check_on_cluster(CLUSTER_ALTER) {
            return Reply::Now(response(wanted.into_keys().map(|it| (it, code.code())).collect()));
        }
        let names: Vec<TopicPartition> = wanted.keys().cloned().collect();
        let broker = Arc::clone(cx.broker);
        // Beginning a copy creates files, so a blocking thread does it.
        let altered = blocking(move || alter(&broker, wanted)).await;
        let failed = |_| names.into_iter().map(|it| (it, ErrorCode::UnknownServerError.code()));
        Reply::Now(response(altered.unwrap_or_else(|error| failed(error).collect())))
    }
}

error_codes!(AlterReplicaLogDirsResponse: |it| each!(it.results, partitions));

/// The new directory of each partition. If the request names several, the last one is used.
fn last_of_each(request: AlterReplicaLogDirsRequest) -> BTreeMap<TopicPartition, StrBytes> {
    let mut wanted = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            for index in topic.partitions {
                wanted.insert(TopicPartition::new(&**topic.name, index), dir.path.clone());
            }
        }
    }
    wanted
}

fn alter(
    broker: &Arc<Broker>,
    wanted: BTreeMap<TopicPartition, StrBytes>,
) -> Vec<(TopicPartition, i16)> {
    let one = |(partition, dir): (TopicPartition, StrBytes)| {
        let altered = broker.replicas.alter_log_dir(&partition, &dir);
        let code =
            altered.map_or_else(|error| errors::move_replica(&error).code(), |()| errors::NONE);
        (partition, code)
    };
    wanted.into_iter().map(one).collect()
}

fn response(altered: Vec<(TopicPartition, i16)>) -> AlterReplicaLogDirsResponse {
    let of_topic = |run: &[(TopicPartition, i16)]| {
        let partition = |(partition, code): &(TopicPartition, i16)| {
            AlterReplicaLogDirPartitionResult::default()
                .with_partition_index(partition.partition)
                .with_error_code(*code)
        };
        AlterReplicaLogDirTopicResult::default()
            .with_topic_name(TopicName(StrBytes::from_string(run[0].0.topic.to_string())))
            .with_partitions(run.iter().map(partition).collect())
    };
    let results = altered.chunk_by(|a, b| a.0.topic == b.0.topic).map(of_topic).collect();
    AlterReplicaLogDirsResponse::default().with_results(results)
}
