//! DescribeQuorum (KIP-595, KIP-836; directories and endpoints: KIP-853): the leader, the voters
//! and the observers of the metadata quorum.

use kafka_protocol::messages::{
    ApiKey, BrokerId, DescribeQuorumRequest, DescribeQuorumResponse,
    describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData},
};

use super::{
    Context, ErrorCode, Forwarding, Handler, Reply,
    conversions::str_bytes,
    error_counts::{each, error_codes},
    errors,
};
use crate::{
    base::METADATA_TOPIC,
    broker::Broker,
    protocol::{checks::CLUSTER_DESCRIBE, error_code},
    quorum::{QuorumStatus, ReplicaStatus},
};

pub struct DescribeQuorum;

impl Handler for DescribeQuorum {
    const API: ApiKey = ApiKey::DescribeQuorum;
    type Request = DescribeQuorumRequest;
    type Response = DescribeQuorumResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeQuorumRequest,
    ) -> Reply<DescribeQuorumResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_DESCRIBE) {
            let (code, message) = errors::with_message(code);
            let response = DescribeQuorumResponse::default().with_error_code(code);
            let message = message.filter(|_| cx.version >= 2);
            return Reply::Now(response.with_error_message(message));
        }
        if !asks_for_metadata(&request) {
            let code = ErrorCode::UnknownTopicOrPartition;
            return Reply::Now(refusal(&request, code, cx.version));
        }
        if cx.forwarding == Forwarding::TimedOut {
            return Reply::Now(refusal(&request, ErrorCode::RequestTimedOut, cx.version));
        }
        if cx.broker.quorum.leader() != Some(cx.broker.node.id) {
            return Reply::Now(refusal(&request, ErrorCode::NotLeaderOrFollower, cx.version));
        }
        let status = cx.broker.quorum.status();
        let partition = partition(&status, cx.version);
        let topic = TopicData::default()
            .with_topic_name(request.topics[0].topic_name.clone())
            .with_partitions(vec![partition]);
        let response = DescribeQuorumResponse::default().with_topics(vec![topic]);
        if cx.version < 2 {
            return Reply::Now(response);
        }
        Reply::Now(response.with_nodes(nodes(&status, cx.broker)))
    }
}

error_codes!(DescribeQuorumResponse: |it| each!(it.topics, partitions).chain([it.error_code]));

/// Whether the request names exactly partition 0 of `__cluster_metadata`.
fn asks_for_metadata(request: &DescribeQuorumRequest) -> bool {
    match request.topics.as_slice() {
        [topic] if topic.topic_name.as_str() == METADATA_TOPIC => {
            matches!(topic.partitions.as_slice(), [partition] if partition.partition_index == 0)
        }
        _ => false,
    }
}

fn refusal(
    request: &DescribeQuorumRequest,
    code: ErrorCode,
    version: i16,
) -> DescribeQuorumResponse {
    let why = error_code::default_message(code.code());
    let message = (version >= 2).then(|| str_bytes(why));
    let topics = request.topics.iter().map(|topic| {
        let refused = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code.code())
                .with_error_message(message.clone())
        });
        TopicData::default()
            .with_topic_name(topic.topic_name.clone())
            .with_partitions(refused.collect())
    });
    DescribeQuorumResponse::default().with_topics(topics.collect())
}

fn partition(status: &QuorumStatus, version: i16) -> PartitionData {
    let state = |replica: &ReplicaStatus| {
        let state = ReplicaState::default()
            .with_replica_id(BrokerId(replica.replica_id))
            .with_log_end_offset(replica.log_end_offset);
        let state =
            if version < 2 { state } else { state.with_replica_directory_id(replica.directory_id) };
        if version < 1 {
            return state;
        }
        state
            .with_last_fetch_timestamp(replica.last_fetch_ms)
            .with_last_caught_up_timestamp(replica.last_caught_up_ms)
    };
    PartitionData::default()
        .with_leader_id(BrokerId(status.leader_id))
        .with_leader_epoch(status.leader_epoch)
        .with_high_watermark(status.high_watermark)
        .with_current_voters(status.voters.iter().map(state).collect())
        .with_observers(status.observers.iter().map(state).collect())
}

/// The listeners of the voters, from the voter set of the quorum. A voter without any in the set
/// has those that it registered.
fn nodes(status: &QuorumStatus, broker: &Broker) -> Vec<Node> {
    let image = broker.metadata();
    let listener = |name: &str, host: &str, port: u16| {
        Listener::default().with_name(str_bytes(name)).with_host(str_bytes(host)).with_port(port)
    };
    let node = |voter: &ReplicaStatus| {
        let id = voter.replica_id;
        let known = voter.endpoints.iter().filter(|it| it.port != 0);
        let mut listeners: Vec<_> = known.map(|it| listener(&it.name, &it.host, it.port)).collect();
        if listeners.is_empty() {
            let registered = image.controllers.get(&id).map(|it| it.end_points.as_slice());
            let registered = registered.unwrap_or_default().iter();
            listeners = registered.map(|it| listener(&it.name, &it.host, it.port)).collect();
        }
        Node::default().with_node_id(BrokerId(id)).with_listeners(listeners)
    };
    status.voters.iter().map(node).collect()
}
