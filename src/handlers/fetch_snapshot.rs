//! FetchSnapshot (KIP-630): pieces of a snapshot of the metadata log, from the quorum's leader.

use kafka_protocol::{
    messages::{
        ApiKey, FetchSnapshotRequest, FetchSnapshotResponse,
        fetch_snapshot_request::{PartitionSnapshot as Asked, TopicSnapshot as AskedTopic},
        fetch_snapshot_response::{
            LeaderIdAndEpoch, NodeEndpoint, PartitionSnapshot, SnapshotId, TopicSnapshot,
        },
    },
    protocol::StrBytes,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    error_counts::{each, error_codes},
};
use crate::{
    base::METADATA_TOPIC,
    protocol::checks::CLUSTER_ACTION,
    quorum::{Quorum, SnapshotReadError},
};

pub struct FetchSnapshot;

impl Handler for FetchSnapshot {
    const API: ApiKey = ApiKey::FetchSnapshot;
    type Request = FetchSnapshotRequest;
    type Response = FetchSnapshotResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: FetchSnapshotRequest,
    ) -> Reply<FetchSnapshotResponse> {
        let quorum = &cx.broker.quorum;
        let refused =
            |code: ErrorCode| FetchSnapshotResponse::default().with_error_code(code.code());
        if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
            return Reply::Now(refused(code));
        }
        if request.cluster_id.as_ref().is_some_and(|id| id.as_str() != quorum.cluster_id()) {
            return Reply::Now(refused(ErrorCode::InconsistentClusterId));
        }
        let [topic] = request.topics.as_slice() else {
            return Reply::Now(refused(ErrorCode::InvalidRequest));
        };
        let [asked] = topic.partitions.as_slice() else {
            return Reply::Now(refused(ErrorCode::InvalidRequest));
        };
        if topic.name.as_str() != METADATA_TOPIC || asked.partition != 0 {
            return Reply::Now(unknown(topic, asked));
        }
        let leadership = *quorum.leadership().borrow();
        let partition = read(quorum, asked, request.max_bytes)
            .with_snapshot_id(
                SnapshotId::default()
                    .with_end_offset(asked.snapshot_id.end_offset)
                    .with_epoch(asked.snapshot_id.epoch),
            )
            .with_current_leader(
                LeaderIdAndEpoch::default()
                    .with_leader_id(leadership.leader.unwrap_or(-1).into())
                    .with_leader_epoch(leadership.epoch),
            );
        let topic =
            TopicSnapshot::default().with_name(topic.name.clone()).with_partitions(vec![partition]);
        let response = FetchSnapshotResponse::default().with_topics(vec![topic]);
        let leader = leadership.leader.filter(|_| cx.version >= 1);
        let endpoint = leader.and_then(|id| Some((id, quorum.endpoint(id)?)));
        let endpoints = endpoint.into_iter().map(|(id, at)| {
            NodeEndpoint::default()
                .with_node_id(id.into())
                .with_host(StrBytes::from_string(at.host))
                .with_port(at.port)
        });
        Reply::Now(response.with_node_endpoints(endpoints.collect()))
    }
}

error_codes!(FetchSnapshotResponse: |it| each!(it.topics, partitions).chain([it.error_code]));

fn unknown(topic: &AskedTopic, asked: &Asked) -> FetchSnapshotResponse {
    let partition = PartitionSnapshot::default()
        .with_index(asked.partition)
        .with_error_code(ErrorCode::UnknownTopicOrPartition.code());
    let topic =
        TopicSnapshot::default().with_name(topic.name.clone()).with_partitions(vec![partition]);
    FetchSnapshotResponse::default().with_topics(vec![topic])
}

fn read(quorum: &Quorum, asked: &Asked, max_bytes: i32) -> PartitionSnapshot {
    let id = (asked.snapshot_id.end_offset, asked.snapshot_id.epoch);
    let max_bytes = max_bytes.max(0) as usize;
    let answer = PartitionSnapshot::default().with_index(asked.partition);
    match quorum.read_snapshot(id, asked.position, max_bytes, asked.current_leader_epoch) {
        Ok(part) => answer
            .with_size(part.size)
            .with_position(asked.position)
            .with_unaligned_records(part.bytes),
        Err(error) => answer.with_error_code(code(&error).code()),
    }
}

fn code(error: &SnapshotReadError) -> ErrorCode {
    match error {
        SnapshotReadError::NotLeader => ErrorCode::NotLeaderOrFollower,
        SnapshotReadError::FencedEpoch => ErrorCode::FencedLeaderEpoch,
        SnapshotReadError::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
        SnapshotReadError::NotFound => ErrorCode::SnapshotNotFound,
        SnapshotReadError::PositionOutOfRange => ErrorCode::PositionOutOfRange,
        SnapshotReadError::Io(_) => ErrorCode::KafkaStorageError,
    }
}
