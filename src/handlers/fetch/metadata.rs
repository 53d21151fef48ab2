//! Fetch of `__cluster_metadata` on a controller listener. Brokers, and controllers that are not
//! voters, replicate the metadata log with it. Its rules are those of Kafka's
//! `KafkaRaftClient.handleFetchRequest`.

use std::time::Duration;

use anyhow::Result;
use kafka_protocol::{
    messages::{
        FetchRequest, FetchResponse,
        fetch_request::FetchPartition,
        fetch_response::{
            EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
            SnapshotId,
        },
    },
    protocol::StrBytes,
};

use super::reply::FetchReply;
use crate::{
    base::METADATA_TOPIC,
    handlers::{
        Context, ErrorCode, Reply, ReplyBuffer, WireReply, error_counts::ErrorCodes, errors,
    },
    protocol::checks::CLUSTER_ACTION,
    quorum::{FetchFrom, FetchOutcome, Fetched, METADATA_TOPIC_ID, Quorum, Replica},
};

/// The first version whose response has the endpoint of the leader.
const LEADER_ENDPOINTS: i16 = 17;
/// The first version that names topics by id.
const TOPIC_IDS: i16 = 13;

/// The response to Fetch: from partitions of topics, or from the metadata log.
pub enum FetchAnswer {
    Partitions(FetchReply),
    Metadata(Box<FetchResponse>),
}

impl WireReply for FetchAnswer {
    fn header_version(version: i16) -> i16 {
        FetchReply::header_version(version)
    }

    fn write(self, version: i16, out: &mut ReplyBuffer) -> Result<()> {
        match self {
            Self::Partitions(reply) => reply.write(version, out),
            Self::Metadata(response) => response.write(version, out),
        }
    }
}

impl ErrorCodes for FetchAnswer {
    fn error_codes(&self) -> impl Iterator<Item = i16> {
        let (partitions, metadata) = match self {
            Self::Partitions(reply) => (Some(reply.error_codes()), None),
            Self::Metadata(response) => {
                let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
                let codes = partitions.map(|partition| partition.error_code);
                (None, Some(codes.chain([response.error_code])))
            }
        };
        partitions.into_iter().flatten().chain(metadata.into_iter().flatten())
    }
}

/// Handles a fetch on a controller listener.
pub fn fetch_metadata(cx: &Context<'_>, request: FetchRequest) -> Reply<FetchAnswer> {
    let (quorum, version) = (cx.broker.quorum.clone(), cx.version);
    let refused = |code: ErrorCode| {
        let response = FetchResponse::default().with_error_code(code.code());
        Reply::Now(FetchAnswer::Metadata(Box::new(response)))
    };
    if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
        return refused(code);
    }
    let stranger = request.cluster_id.as_ref().is_some_and(|id| id.as_str() != quorum.cluster_id());
    if stranger {
        return refused(ErrorCode::InconsistentClusterId);
    }
    let Some(asked) = asked_for(&request, version).cloned() else {
        return refused(ErrorCode::InvalidRequest);
    };
    let invalid = request.max_wait_ms < 0
        || asked.fetch_offset < 0
        || asked.last_fetched_epoch < 0
        || asked.current_leader_epoch < 0;
    if invalid {
        return refused(ErrorCode::InvalidRequest);
    }
    Reply::Later(Box::pin(async move {
        let response = answer(&quorum, &request, &asked, version).await;
        FetchAnswer::Metadata(Box::new(response))
    }))
}

/// The partition in the request. `None` if the request names anything but exactly partition 0 of
/// `__cluster_metadata`.
fn asked_for(request: &FetchRequest, version: i16) -> Option<&FetchPartition> {
    let [topic] = request.topics.as_slice() else { return None };
    let is_metadata = match version {
        TOPIC_IDS.. => topic.topic_id == METADATA_TOPIC_ID,
        _ => topic.topic.as_str() == METADATA_TOPIC,
    };
    match topic.partitions.as_slice() {
        [partition] if is_metadata && partition.partition == 0 => Some(partition),
        _ => None,
    }
}

async fn answer(
    quorum: &Quorum,
    request: &FetchRequest,
    asked: &FetchPartition,
    version: i16,
) -> FetchResponse {
    let id = request.replica_state.replica_id.0.max(request.replica_id.0);
    let replica = Replica { id, directory_id: asked.replica_directory_id };
    let from = FetchFrom {
        offset: asked.fetch_offset,
        last_fetched_epoch: asked.last_fetched_epoch,
        leader_epoch: asked.current_leader_epoch,
        max_bytes: asked.partition_max_bytes.min(request.max_bytes).max(0) as usize,
    };
    let max_wait = Duration::from_millis(request.max_wait_ms as u64);
    let fetched = quorum.fetch_or_wait((id >= 0).then_some(replica), from, max_wait).await;
    let topic = FetchableTopicResponse::default();
    let topic = match version {
        TOPIC_IDS.. => topic.with_topic_id(METADATA_TOPIC_ID),
        _ => topic.with_topic(request.topics[0].topic.clone()),
    };
    let leader = fetched.leader.filter(|_| version >= LEADER_ENDPOINTS);
    let endpoint = leader.and_then(|id| Some((id, quorum.endpoint(id)?)));
    let endpoints = endpoint.into_iter().map(|(id, at)| {
        NodeEndpoint::default()
            .with_node_id(id.into())
            .with_host(StrBytes::from_string(at.host))
            .with_port(i32::from(at.port))
    });
    let endpoints = endpoints.collect();
    let topic = topic.with_partitions(vec![partition(fetched, version)]);
    FetchResponse::default().with_responses(vec![topic]).with_node_endpoints(endpoints)
}

fn partition(fetched: Fetched, version: i16) -> PartitionData {
    let code = match &fetched.outcome {
        FetchOutcome::NotLeader => ErrorCode::NotLeaderOrFollower.code(),
        FetchOutcome::FencedEpoch => ErrorCode::FencedLeaderEpoch.code(),
        FetchOutcome::UnknownEpoch => ErrorCode::UnknownLeaderEpoch.code(),
        FetchOutcome::Failed => ErrorCode::KafkaStorageError.code(),
        _ => errors::NONE,
    };
    let is_refused = code != errors::NONE;
    let mut data = PartitionData::default()
        .with_error_code(code)
        .with_high_watermark(if is_refused { -1 } else { fetched.high_watermark })
        .with_last_stable_offset(-1)
        .with_log_start_offset(fetched.log_start)
        .with_records(Some(bytes::Bytes::new()));
    // The first version with tagged fields.
    if version >= 12 {
        data.current_leader = LeaderIdAndEpoch::default()
            .with_leader_id(fetched.leader.unwrap_or(-1).into())
            .with_leader_epoch(fetched.leader_epoch);
    }
    match fetched.outcome {
        FetchOutcome::Records(records) => data.records = Some(records),
        FetchOutcome::Diverging { epoch, end_offset } if version >= 12 => {
            data.diverging_epoch =
                EpochEndOffset::default().with_epoch(epoch).with_end_offset(end_offset);
        }
        FetchOutcome::Snapshot { end_offset, epoch } if version >= 12 => {
            data.snapshot_id = SnapshotId::default().with_end_offset(end_offset).with_epoch(epoch);
        }
        _ => {}
    }
    data
}
