//! CreateTopics: creates topics, or only checks whether they could be created.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse,
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic},
    create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{str_bytes, topic_name},
    error_counts::{each, error_codes},
    errors,
};
use crate::{
    base::{
        METADATA_TOPIC,
        config::{Config, Properties, describe, ignored_configs, keys},
    },
    controller::{ControllerError, CreatedTopic, NewTopic, topic_names::is_internal},
    protocol::checks::{CLUSTER_CREATE, TOPIC_CREATE, TOPIC_DESCRIBE_CONFIGS},
};

pub struct CreateTopics;

impl Handler for CreateTopics {
    const API: ApiKey = ApiKey::CreateTopics;
    type Request = CreateTopicsRequest;
    type Response = CreateTopicsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: CreateTopicsRequest,
    ) -> Reply<CreateTopicsResponse> {
        let config = cx.broker.config();
        let may_create_all = cx.allowed_on_cluster(CLUSTER_CREATE);
        let may_create = |name: &str| may_create_all || cx.allowed(TOPIC_CREATE, name);
        let (topics, mut refused) = split(&request.topics, may_create);
        let asked = topics.clone();
        let controller = cx.controller_within(request.timeout_ms);
        let outcome = controller.create_topics(topics, request.validate_only).await;
        let results = match outcome {
            Ok(committed) => {
                cx.broker.node.applied(committed.offset).await;
                committed.value
            }
            // The request failed as a whole. All topics have this error, also refused ones.
            Err(error) => {
                let each = request.topics.iter().map(|topic| {
                    let topic = new_topic(topic);
                    answer(cx, &topic.name, Err(error.clone()), &topic, &config)
                });
                return Reply::Now(CreateTopicsResponse::default().with_topics(each.collect()));
            }
        };
        if !request.validate_only {
            let results = results.iter().zip(&asked).filter(|((_, result), _)| result.is_ok());
            results.for_each(|(_, topic)| warn_of_ignored(topic));
        }
        let answered = results.into_iter().zip(&asked);
        let mut answers: Vec<_> = answered
            .map(|((name, result), topic)| answer(cx, &name, result, topic, &config))
            .collect();
        answers.append(&mut refused);
        Reply::Now(CreateTopicsResponse::default().with_topics(answers))
    }
}

error_codes!(CreateTopicsResponse: |it| each!(it.topics));

/// The topics to create, and the error responses for the others: names that appear twice,
/// `__cluster_metadata`, and topics that the client may not create.
fn split(
    topics: &[CreatableTopic],
    may_create: impl Fn(&str) -> bool,
) -> (Vec<NewTopic>, Vec<CreatableTopicResult>) {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in topics {
        *count.entry(&topic.name).or_default() += 1;
    }
    let mut seen = BTreeSet::new();
    let (mut wanted, mut refused) = (Vec::new(), Vec::new());
    for topic in topics {
        let name = topic.name.as_str();
        if count[name] > 1 {
            if seen.insert(name) {
                refused.push(refusal(name, ErrorCode::InvalidRequest, "Duplicate topic name."));
            }
        } else if name == METADATA_TOPIC {
            let why = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
            refused.push(refusal(name, ErrorCode::InvalidRequest, &why));
        } else if !may_create(name) {
            let code = ErrorCode::TopicAuthorizationFailed;
            refused.push(refusal(name, code, "Authorization failed."));
        } else {
            wanted.push(new_topic(topic));
        }
    }
    (wanted, refused)
}

/// Logs a warning if the topic has configs that have no effect yet.
fn warn_of_ignored(topic: &NewTopic) {
    if is_internal(&topic.name) {
        return;
    }
    let set = topic.configs.iter();
    let set = set.filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)));
    let ignored = ignored_configs(set, |name| keys::topic().get(name).copied());
    if !ignored.is_empty() {
        let name = &topic.name;
        tracing::warn!(topic = name, configs = ?ignored, "topic configs set that have no effect yet");
    }
}

fn refusal(name: &str, code: ErrorCode, why: &str) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(topic_name(name))
        .with_error_code(code.code())
        .with_error_message(Some(str_bytes(why)))
        .with_configs(Some(Vec::new()))
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    let assignment = |it: &CreatableReplicaAssignment| {
        (it.partition_index, it.broker_ids.iter().map(|id| id.0).collect())
    };
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic.assignments.iter().map(assignment).collect(),
        configs: topic
            .configs
            .iter()
            .map(|it| (it.name.to_string(), it.value.as_ref().map(|value| value.to_string())))
            .collect(),
    }
}

fn answer(
    cx: &Context<'_>,
    name: &str,
    result: Result<CreatedTopic, ControllerError>,
    asked: &NewTopic,
    config: &Config,
) -> CreatableTopicResult {
    let (code, message) = errors::outcome(&result);
    let answer = CreatableTopicResult::default()
        .with_name(topic_name(name))
        .with_error_code(code)
        .with_error_message(message)
        .with_configs(Some(Vec::new()));
    match result {
        Ok(created) if cx.version >= 5 => {
            let answer = answer.with_topic_id(created.id);
            if !cx.allowed(TOPIC_DESCRIBE_CONFIGS, name) {
                let code = ErrorCode::TopicAuthorizationFailed.code();
                return answer.with_topic_config_error_code(code);
            }
            answer
                .with_num_partitions(created.partitions)
                .with_replication_factor(created.replication_factor)
                .with_configs(Some(configs(asked, config)))
        }
        _ => answer,
    }
}

/// All configs of the new topic with their defaults, sorted by name. Values from the request are
/// returned as they were sent, while DescribeConfigs returns them as they were parsed.
fn configs(asked: &NewTopic, config: &Config) -> Vec<CreatableTopicConfigs> {
    let set = asked.configs.iter();
    let overrides: Properties =
        set.filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
    let mut entries = describe::topic(config, &overrides).unwrap_or_default();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let row = |entry: describe::Entry| {
        let (value, source) = match overrides.get(&entry.name) {
            Some(value) => (Some(value.clone()), entry.source),
            None => match describe::topic_config_of_broker(config, &entry.name) {
                Some((value, source)) => (Some(value), source),
                None => (entry.value, describe::ConfigSource::Default),
            },
        };
        CreatableTopicConfigs::default()
            .with_name(str_bytes(&entry.name))
            .with_value(value.filter(|_| !entry.is_sensitive).map(|it| str_bytes(&it)))
            .with_read_only(entry.read_only)
            .with_config_source(source as i8)
            .with_is_sensitive(entry.is_sensitive)
    };
    entries.into_iter().map(row).collect()
}
