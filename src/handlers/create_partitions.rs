//! CreatePartitions: adds partitions to topics.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    ApiKey, CreatePartitionsRequest, CreatePartitionsResponse,
    create_partitions_request::CreatePartitionsTopic,
    create_partitions_response::CreatePartitionsTopicResult,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{str_bytes, topic_name},
    error_counts::{each, error_codes},
    errors,
};
use crate::{controller::NewPartitions, protocol::checks::TOPIC_ALTER};

pub struct CreatePartitions;

impl Handler for CreatePartitions {
    const API: ApiKey = ApiKey::CreatePartitions;
    type Request = CreatePartitionsRequest;
    type Response = CreatePartitionsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: CreatePartitionsRequest,
    ) -> Reply<CreatePartitionsResponse> {
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        for topic in &request.topics {
            *count.entry(&topic.name).or_default() += 1;
        }
        let twice = count.iter().filter(|(_, count)| **count > 1);
        let mut answers: Vec<_> = twice.map(|(name, _)| duplicate(name)).collect();
        let once = request.topics.iter().filter(|topic| count[topic.name.as_str()] == 1);
        let (once, denied): (Vec<_>, Vec<_>) =
            once.partition(|topic| cx.allowed(TOPIC_ALTER, &topic.name));
        let code = ErrorCode::TopicAuthorizationFailed.code();
        answers.extend(denied.into_iter().map(|topic| {
            CreatePartitionsTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_code(code)
                .with_error_message(None)
        }));
        let topics: Vec<NewPartitions> = once.into_iter().map(new_partitions).collect();
        let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
        let validate_only = request.validate_only;
        let controller = cx.controller_within(request.timeout_ms);
        let results = match controller.create_partitions(topics, validate_only).await {
            Ok(committed) => {
                cx.broker.node.applied(committed.offset).await;
                committed.value
            }
            Err(error) => names.into_iter().map(|name| (name, Err(error.clone()))).collect(),
        };
        answers.extend(results.into_iter().map(|(name, result)| {
            let (code, message) = errors::outcome(&result);
            CreatePartitionsTopicResult::default()
                .with_name(topic_name(&name))
                .with_error_code(code)
                .with_error_message(message)
        }));
        Reply::Now(CreatePartitionsResponse::default().with_results(answers))
    }
}

error_codes!(CreatePartitionsResponse: |it| each!(it.results));

fn duplicate(name: &str) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult::default()
        .with_name(topic_name(name))
        .with_error_code(ErrorCode::InvalidRequest.code())
        .with_error_message(Some(str_bytes("Duplicate topic name.")))
}

fn new_partitions(topic: &CreatePartitionsTopic) -> NewPartitions {
    let assignments = topic.assignments.as_ref().map(|assignments| {
        let ids = assignments.iter().map(|it| it.broker_ids.iter().map(|id| id.0).collect());
        ids.collect()
    });
    NewPartitions { name: topic.name.to_string(), count: topic.count, assignments }
}
