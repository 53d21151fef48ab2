//! The error responses of partitions, and the hints to their leaders.

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        BrokerId, ProduceResponse,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::{
            BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
            TopicProduceResponse,
        },
    },
    protocol::StrBytes,
};

use crate::{
    broker::Broker,
    handlers::{ErrorCode, brokers, conversions, errors, partitions},
    records::{AppendRefused, RefusedKind},
};

/// An error response for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionError {
    pub code: ErrorCode,
    pub message: Option<String>,
    pub record_errors: Vec<(i32, Option<String>)>,
    pub log_start: i64,
    /// Whether Kafka detects this error before the batch reaches the partition.
    pub before_log: bool,
}

impl From<ErrorCode> for PartitionError {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, record_errors: Vec::new(), log_start: -1, before_log: false }
    }
}

impl PartitionError {
    /// The response to a batch that failed its validation. It has the log start offset only where
    /// Kafka's has it: not if the batch did not reach the log, and not for the two errors below.
    pub fn of_records(refused: AppendRefused, log_start: impl FnOnce() -> i64) -> Self {
        let is_untold = refused.before_log
            || matches!(refused.kind, RefusedKind::CorruptMessage | RefusedKind::MessageTooLarge);
        Self {
            code: errors::append_refused(refused.kind),
            message: refused.wire_message().map(str::to_owned),
            record_errors: refused.record_errors,
            log_start: if is_untold { -1 } else { log_start() },
            before_log: refused.before_log,
        }
    }

    pub fn into_reply(self, index: i32) -> PartitionProduceResponse {
        let record_errors = self.record_errors.into_iter().map(|(batch_index, message)| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(batch_index)
                .with_batch_index_error_message(message.map(StrBytes::from_string))
        });
        PartitionProduceResponse::default()
            .with_index(index)
            .with_error_code(self.code.code())
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(self.log_start)
            .with_record_errors(record_errors.collect())
            .with_error_message(self.message.map(StrBytes::from_string))
            .with_current_leader(no_leader())
    }
}

pub fn no_leader() -> LeaderIdAndEpoch {
    LeaderIdAndEpoch::default().with_leader_id(BrokerId(-1)).with_leader_epoch(-1)
}

/// Refuses all batches of a topic.
pub fn refuse_topic(data: TopicProduceData, refusal: &PartitionError) -> TopicProduceResponse {
    let refuse = |data: &PartitionProduceData| refusal.clone().into_reply(data.index);
    TopicProduceResponse::default()
        .with_partition_responses(data.partition_data.iter().map(refuse).collect())
        .with_name(data.name)
        .with_topic_id(data.topic_id)
}

/// Adds the current leaders and their endpoints for partitions that this broker does not lead.
/// `listener` is the listener of the client; without one, the response stays as it is.
pub fn hint_leaders(broker: &Broker, listener: Option<&str>, response: &mut ProduceResponse) {
    let Some(listener) = listener else { return };
    let code = ErrorCode::NotLeaderOrFollower.code();
    let mut endpoints = BTreeMap::new();
    for topic in &mut response.responses {
        for partition in topic.partition_responses.iter_mut().filter(|it| it.error_code == code) {
            let (name, id) = (&**topic.name, topic.topic_id);
            let Some(hint) = partitions::leader(broker, name, id, partition.index) else {
                continue;
            };
            partition.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(hint.leader))
                .with_leader_epoch(hint.epoch);
            brokers::add_endpoint(&broker.metadata(), hint.leader, listener, &mut endpoints);
        }
    }
    let endpoint = |(id, endpoint): (i32, brokers::Node)| {
        NodeEndpoint::default()
            .with_node_id(BrokerId(id))
            .with_host(conversions::str_bytes(&endpoint.host))
            .with_port(endpoint.port)
            .with_rack(endpoint.rack.as_deref().map(conversions::str_bytes))
    };
    response.node_endpoints = endpoints.into_iter().map(endpoint).collect();
}
