//! DescribeTopicPartitions (KIP-966): the partitions of topics, sorted by name, in pages. Kafka's
//! `DescribeTopicPartitionsRequestHandler`.

use std::collections::BTreeSet;

use kafka_protocol::messages::{
    ApiKey, BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    describe_topic_partitions_response::{
        Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
    },
};

use super::{
    Client, Context, ErrorCode, Handler, Reply,
    brokers::alive,
    conversions::{ids, topic_name},
    error_counts::{each, error_codes},
    partitions::offline,
};
use crate::{
    controller::topic_names::{self, is_internal},
    metadata::{Image, PartitionImage, TopicImage},
    protocol::checks::{ResourceType, TOPIC_DESCRIBE},
};

pub struct DescribeTopicPartitions;

impl Handler for DescribeTopicPartitions {
    const API: ApiKey = ApiKey::DescribeTopicPartitions;
    type Request = DescribeTopicPartitionsRequest;
    type Response = DescribeTopicPartitionsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeTopicPartitionsRequest,
    ) -> Reply<DescribeTopicPartitionsResponse> {
        let limit = cx.broker.settings().max_request_partition_size_limit;
        let limit = limit.min(request.response_partition_limit).max(1) as usize;
        let image = cx.broker.metadata();
        let (listener, client) = (&*cx.session.listener, &cx.session.client);
        Reply::Now(Pages { image: &image, listener, client }.answer(&request, limit))
    }
}

error_codes!(DescribeTopicPartitionsResponse: |it| each!(it.topics).chain(each!(it.topics, partitions)));

struct Pages<'a> {
    image: &'a Image,
    listener: &'a str,
    client: &'a Client,
}

impl Pages<'_> {
    fn answer(
        &self,
        request: &DescribeTopicPartitionsRequest,
        limit: usize,
    ) -> DescribeTopicPartitionsResponse {
        if request.topics.iter().any(|topic| topic.name.is_empty()) {
            // Kafka fails at an empty name when it checks the authorization.
            return refusal(request, ErrorCode::UnknownServerError);
        }
        let all = request.topics.is_empty();
        let start = request.cursor.as_ref().map_or("", |cursor| cursor.topic_name.as_str());
        let names: BTreeSet<&str> = if all {
            self.image.topics.iter().map(|topic| &*topic.name).filter(|it| *it >= start).collect()
        } else {
            request.topics.iter().map(|it| it.name.as_str()).filter(|it| *it >= start).collect()
        };
        let first = request.cursor.as_ref().map_or(0, |cursor| cursor.partition_index);
        let unknown_start = !all && request.cursor.is_some() && !names.contains(start);
        if unknown_start || first < 0 {
            // The cursor names a topic that the request does not name, or a negative partition.
            return refusal(request, ErrorCode::InvalidRequest);
        }
        let (names, denied): (Vec<&str>, Vec<&str>) =
            names.into_iter().partition(|name| self.client.allowed(TOPIC_DESCRIBE, name));
        let mut response = self.pages(names, (start, first), limit);
        // A request for all topics gets only those that the client may describe.
        let denied = denied.into_iter().filter(|_| !all);
        response.topics.extend(denied.map(|name| {
            DescribeTopicPartitionsResponseTopic::default()
                .with_error_code(ErrorCode::TopicAuthorizationFailed.code())
                .with_name(Some(topic_name(name)))
        }));
        response
    }

    /// The pages of the topics from partition `first` of the topic `start` on, with at most `limit`
    /// partitions.
    fn pages(
        &self,
        names: Vec<&str>,
        (start, first): (&str, i32),
        limit: usize,
    ) -> DescribeTopicPartitionsResponse {
        let mut response = DescribeTopicPartitionsResponse::default();
        let mut left = limit;
        for name in names {
            let from = if name == start { first as usize } else { 0 };
            if left == 0 {
                response.next_cursor = Some(cursor(name, 0));
                break;
            }
            match self.image.topic(name) {
                Some(topic) => {
                    let (answer, next) = self.topic(topic, from, left);
                    left -= answer.partitions.len();
                    response.topics.push(answer);
                    if let Some(next) = next {
                        response.next_cursor = Some(cursor(name, next as i32));
                        break;
                    }
                }
                None => response.topics.push(self.missing(name)),
            }
        }
        response
    }

    /// At most `room` partitions of a topic, starting at partition `from`. Also returns the
    /// partition where the next page starts, if there are more.
    fn topic(
        &self,
        topic: &TopicImage,
        from: usize,
        room: usize,
    ) -> (DescribeTopicPartitionsResponseTopic, Option<usize>) {
        let count = topic.partitions.len();
        let end = count.min(from.saturating_add(room));
        let page = topic.partitions.get(from..end).unwrap_or_default();
        let partitions = page.iter().zip(from as i32..).map(|(it, at)| self.partition(it, at));
        let answer = DescribeTopicPartitionsResponseTopic::default()
            .with_name(Some(topic_name(&topic.name)))
            .with_topic_id(topic.id)
            .with_is_internal(is_internal(&topic.name))
            .with_partitions(partitions.collect())
            .with_topic_authorized_operations(self.operations(&topic.name));
        (answer, (end < count).then_some(end))
    }

    fn operations(&self, topic: &str) -> i32 {
        self.client.operations(ResourceType::Topic, topic)
    }

    fn missing(&self, name: &str) -> DescribeTopicPartitionsResponseTopic {
        let code = match topic_names::validate(name) {
            Ok(()) => ErrorCode::UnknownTopicOrPartition,
            Err(_) => ErrorCode::InvalidTopicException,
        };
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(code.code())
            .with_name(Some(topic_name(name)))
            .with_is_internal(is_internal(name))
            .with_topic_authorized_operations(self.operations(name))
    }

    fn partition(
        &self,
        state: &PartitionImage,
        partition: i32,
    ) -> DescribeTopicPartitionsResponsePartition {
        let reachable = alive(self.image, state.leader, self.listener).is_some();
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(partition)
            .with_leader_id(BrokerId(if reachable { state.leader } else { -1 }))
            .with_leader_epoch(state.leader_epoch)
            .with_replica_nodes(ids(&state.replicas))
            .with_isr_nodes(ids(&state.isr))
            .with_eligible_leader_replicas(Some(ids(&state.elr)))
            .with_last_known_elr(Some(ids(&state.last_known_elr)))
            .with_offline_replicas(offline(self.image, state, self.listener))
    }
}

fn cursor(topic: &str, partition: i32) -> Cursor {
    Cursor::default().with_topic_name(topic_name(topic)).with_partition_index(partition)
}

/// The response to a request that fails as a whole: the error for each topic.
fn refusal(
    request: &DescribeTopicPartitionsRequest,
    code: ErrorCode,
) -> DescribeTopicPartitionsResponse {
    let refused = request.topics.iter().map(|topic| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(code.code())
            .with_name(Some(topic.name.clone()))
    });
    DescribeTopicPartitionsResponse::default().with_topics(refused.collect())
}
