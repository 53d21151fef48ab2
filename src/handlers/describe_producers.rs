//! DescribeProducers: the producer ids that have written to a partition, and their state (KIP-664).
//! Leaders and followers serve it.

use kafka_protocol::{
    messages::{
        ApiKey, DescribeProducersRequest, DescribeProducersResponse, ProducerId,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    },
    protocol::StrBytes,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    error_counts::{each, error_codes},
    errors, partitions,
};
use crate::{
    broker::Broker,
    controller::topic_names,
    log::ProducerEntry,
    protocol::{checks::TOPIC_READ, error_code},
};

pub struct DescribeProducers;

impl Handler for DescribeProducers {
    const API: ApiKey = ApiKey::DescribeProducers;
    type Request = DescribeProducersRequest;
    type Response = DescribeProducersResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeProducersRequest,
    ) -> Reply<DescribeProducersResponse> {
        let topics = request.topics.into_iter().map(|topic| {
            let refused = refusal(cx, &topic.name);
            let answer = |index: &i32| {
                let response = PartitionResponse::default().with_partition_index(*index);
                if let Some((code, message)) = &refused {
                    let message = Some(StrBytes::from_string(message.clone()));
                    return response.with_error_code(code.code()).with_error_message(message);
                }
                match producers(cx.broker, &topic.name, *index) {
                    Ok(producers) => response.with_active_producers(producers),
                    Err(code) => response.with_error_code(code.code()),
                }
            };
            let partitions = topic.partition_indexes.iter().map(answer).collect();
            TopicResponse::default().with_name(topic.name).with_partitions(partitions)
        });
        Reply::Now(DescribeProducersResponse::default().with_topics(topics.collect()))
    }
}

error_codes!(DescribeProducersResponse: |it| each!(it.topics, partitions));

/// The error of a topic as a whole. As in Kafka, only errors of this kind have a message.
fn refusal(cx: &Context<'_>, topic: &str) -> Option<(ErrorCode, String)> {
    if let Err(error) = topic_names::validate(topic) {
        return Some((errors::controller(&error), error.message().unwrap_or_default()));
    }
    let code = if !cx.allowed(TOPIC_READ, topic) {
        ErrorCode::TopicAuthorizationFailed
    } else if cx.broker.metadata().topic(topic).is_none() {
        ErrorCode::UnknownTopicOrPartition
    } else {
        return None;
    };
    Some((code, error_code::default_message(code.code()).to_owned()))
}

fn producers(broker: &Broker, topic: &str, index: i32) -> Result<Vec<ProducerState>, ErrorCode> {
    let partition = partitions::partition(broker, topic, index)?;
    errors::check_replica_epoch(partition.view().role, -1)?;
    Ok(partition.with_log(|log| log.producers().map(state).collect()))
}

fn state((id, entry): (i64, &ProducerEntry)) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(i32::from(entry.epoch))
        .with_last_sequence(entry.last_sequence())
        .with_last_timestamp(entry.last_timestamp)
        .with_coordinator_epoch(entry.coordinator_epoch)
        .with_current_txn_start_offset(entry.current_txn_first_offset.unwrap_or(-1))
}
