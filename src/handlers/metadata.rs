//! Metadata: the brokers, the topics, and the leaders of partitions. Kafka's
//! `KafkaApis.handleTopicMetadataRequest` and `KRaftMetadataCache`.

use std::collections::BTreeSet;

use kafka_protocol::messages::{
    ApiKey, BrokerId, MetadataRequest, MetadataResponse,
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
};

use super::{
    Context, ErrorCode, Handler, Reply, auto_topics,
    brokers::{alive, endpoint},
    context::NO_OPERATIONS,
    conversions::{ids, str_bytes, topic_name},
    error_counts::{each, error_codes},
    errors,
    partitions::offline,
};
use crate::{
    base::TopicId,
    controller::topic_names::{self, is_internal},
    metadata::{Image, PartitionImage, TopicImage},
    protocol::checks::{CLUSTER_CREATE, ResourceType, TOPIC_CREATE, TOPIC_DESCRIBE},
};

pub struct Metadata;

impl Handler for Metadata {
    const API: ApiKey = ApiKey::Metadata;
    type Request = MetadataRequest;
    type Response = MetadataResponse;

    async fn handle(cx: &mut Context<'_>, request: MetadataRequest) -> Reply<MetadataResponse> {
        if let Some(code) = refused(&request, cx.version) {
            return Reply::Now(refusal(&request, code, cx.version));
        }
        let image = cx.broker.metadata();
        let view = View { image: &image, cx };
        let (topics, mut missing) = view.topics(&request);
        // Before version 4, every request may create topics. The message crate decodes it so.
        let creates =
            request.allow_auto_topic_creation && cx.broker.settings().auto_create_topics_enable;
        if creates {
            deny_creation(cx, &mut missing);
            let create = missing.iter().filter(|it| it.code == ErrorCode::UnknownTopicOrPartition);
            let create: Vec<String> = create.map(|it| it.name.clone()).collect();
            if !create.is_empty() {
                auto_topics::create_later(cx.broker, cx.session.client.clone(), create);
            }
        }
        let response = view.response(topics, missing, &request);
        Reply::Now(response.with_cluster_id(Some(str_bytes(&cx.broker.node.cluster_id))))
    }
}

error_codes!(MetadataResponse: |it| each!(it.topics).chain(each!(it.topics, partitions)));

/// The error code of a request that fails as a whole. Before version 12, every topic must have a
/// name and no id. From version 12 on, Kafka fails at a topic without a name, unless another topic
/// of the request has an id, because names are then ignored.
fn refused(request: &MetadataRequest, version: i16) -> Option<ErrorCode> {
    let mut topics = request.topics.iter().flatten();
    let by_id = topics.clone().any(|topic| !topic.topic_id.is_nil());
    let nameless = topics.any(|topic| topic.name.is_none());
    match version < 12 {
        true if by_id || nameless => Some(ErrorCode::InvalidRequest),
        false if nameless && !by_id => Some(ErrorCode::UnknownServerError),
        _ => None,
    }
}

fn refusal(request: &MetadataRequest, code: ErrorCode, version: i16) -> MetadataResponse {
    let refused = request.topics.iter().flatten().map(|topic| {
        MetadataResponseTopic::default()
            .with_error_code(code.code())
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
    });
    MetadataResponse::default()
        .with_controller_id(BrokerId(-1))
        .with_topics(refused.collect())
        .with_error_code(if version >= 13 { code.code() } else { errors::NONE })
}

/// Denies the creation of missing topics that the client may not create.
fn deny_creation(cx: &Context<'_>, missing: &mut [Missing]) {
    let mut new: Vec<_> =
        missing.iter_mut().filter(|it| it.code != ErrorCode::TopicAuthorizationFailed).collect();
    if new.is_empty() || cx.allowed_on_cluster(CLUSTER_CREATE) {
        return;
    }
    new.retain(|it| !cx.allowed(TOPIC_CREATE, &it.name));
    for denied in new {
        denied.code = ErrorCode::TopicAuthorizationFailed;
    }
}

struct View<'a> {
    image: &'a Image,
    cx: &'a Context<'a>,
}

/// A name of the request for which the response has an error instead of a topic.
struct Missing {
    name: String,
    code: ErrorCode,
    /// Whether the response says that the name is one of Kafka's own topics. It does not if the
    /// client may not describe the topic.
    is_internal: bool,
}

impl View<'_> {
    /// Whether the request is for all topics: no list, or an empty list in version 0.
    fn is_for_all(&self, request: &MetadataRequest) -> bool {
        match &request.topics {
            None => true,
            Some(topics) => self.cx.version == 0 && topics.is_empty(),
        }
    }

    /// The requested topics, and the requested names without a topic, each with its error code.
    /// Whether a topic exists is secret unless the client may describe it.
    fn topics(&self, request: &MetadataRequest) -> (Vec<MetadataResponseTopic>, Vec<Missing>) {
        if self.is_for_all(request) {
            let visible = self.image.topics.iter().filter(|it| self.may_describe(&it.name));
            return (visible.map(|topic| self.topic(topic)).collect(), vec![]);
        }
        let asked = || request.topics.iter().flatten();
        let by_id: BTreeSet<TopicId> =
            asked().map(|topic| topic.topic_id).filter(|id| !id.is_nil()).collect();
        // As in Kafka, names are ignored if the request has an id.
        if !by_id.is_empty() {
            return (by_id.into_iter().map(|id| self.topic_by_id(id)).collect(), vec![]);
        }
        let names: BTreeSet<&str> =
            asked().filter_map(|topic| topic.name.as_ref()).map(|name| name.as_str()).collect();
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            let (code, is_internal) = match self.image.topic(name) {
                _ if !self.may_describe(name) => (ErrorCode::TopicAuthorizationFailed, false),
                Some(topic) => {
                    found.push(self.topic(topic));
                    continue;
                }
                None => (why_missing(name), is_internal(name)),
            };
            missing.push(Missing { name: name.to_owned(), code, is_internal });
        }
        (found, missing)
    }

    fn may_describe(&self, topic: &str) -> bool {
        self.cx.allowed(TOPIC_DESCRIBE, topic)
    }

    fn topic_by_id(&self, id: TopicId) -> MetadataResponseTopic {
        let code = match self.image.topic_by_id(id) {
            Some(topic) if self.may_describe(&topic.name) => return self.topic(topic),
            Some(_) => ErrorCode::TopicAuthorizationFailed,
            None => ErrorCode::UnknownTopicId,
        };
        MetadataResponseTopic::default()
            .with_error_code(code.code())
            .with_name(None)
            .with_topic_id(id)
    }

    fn topic(&self, topic: &TopicImage) -> MetadataResponseTopic {
        let partitions = topic.partitions.iter().zip(0..);
        MetadataResponseTopic::default()
            .with_name(Some(topic_name(&topic.name)))
            .with_topic_id(topic.id)
            .with_is_internal(is_internal(&topic.name))
            .with_partitions(partitions.map(|(state, at)| self.partition(state, at)).collect())
    }

    fn partition(&self, state: &PartitionImage, partition: i32) -> MetadataResponsePartition {
        let code = match self.image.broker(state.leader) {
            Some(broker) if !broker.fenced => match endpoint(broker, &self.cx.session.listener) {
                Some(_) => errors::NONE,
                None if self.cx.version >= 6 => ErrorCode::ListenerNotFound.code(),
                None => ErrorCode::LeaderNotAvailable.code(),
            },
            _ => ErrorCode::LeaderNotAvailable.code(),
        };
        let leader = if code == errors::NONE { state.leader } else { -1 };
        let answer = MetadataResponsePartition::default()
            .with_error_code(code)
            .with_partition_index(partition)
            .with_leader_id(BrokerId(leader))
            .with_leader_epoch(state.leader_epoch)
            .with_replica_nodes(ids(&state.replicas))
            .with_isr_nodes(ids(&state.isr))
            .with_offline_replicas(offline(self.image, state, &self.cx.session.listener));
        if self.cx.version > 0 { answer } else { self.only_reachable(answer) }
    }

    /// Leaves only the reachable replicas, as version 0 does. If some are not reachable, the error
    /// code is REPLICA_NOT_AVAILABLE.
    fn only_reachable(&self, mut answer: MetadataResponsePartition) -> MetadataResponsePartition {
        let reachable =
            |id: &BrokerId| alive(self.image, id.0, &self.cx.session.listener).is_some();
        let told = answer.replica_nodes.len() + answer.isr_nodes.len();
        answer.replica_nodes.retain(reachable);
        answer.isr_nodes.retain(reachable);
        let left = answer.replica_nodes.len() + answer.isr_nodes.len();
        if answer.error_code == errors::NONE && left < told {
            answer.error_code = ErrorCode::ReplicaNotAvailable.code();
        }
        answer
    }

    fn response(
        &self,
        mut topics: Vec<MetadataResponseTopic>,
        missing: Vec<Missing>,
        request: &MetadataRequest,
    ) -> MetadataResponse {
        topics.extend(missing.into_iter().map(|missing| {
            MetadataResponseTopic::default()
                .with_error_code(missing.code.code())
                .with_is_internal(missing.is_internal)
                .with_name(Some(topic_name(&missing.name)))
        }));
        if self.cx.version >= 8 && request.include_topic_authorized_operations {
            topics.iter_mut().for_each(|topic| self.add_operations(topic));
        }
        let in_range = (8..=10).contains(&self.cx.version);
        let cluster = in_range && request.include_cluster_authorized_operations;
        MetadataResponse::default()
            .with_brokers(self.brokers())
            .with_controller_id(self.controller())
            .with_topics(topics)
            .with_cluster_authorized_operations(if cluster {
                self.cx.cluster_operations()
            } else {
                NO_OPERATIONS
            })
    }

    /// Adds the authorized operations to a topic that the client may describe.
    fn add_operations(&self, topic: &mut MetadataResponseTopic) {
        let is_denied = topic.error_code == ErrorCode::TopicAuthorizationFailed.code();
        if let Some(name) = topic.name.as_ref().filter(|_| !is_denied) {
            topic.topic_authorized_operations =
                self.cx.session.client.operations(ResourceType::Topic, name);
        }
    }

    fn brokers(&self) -> Vec<MetadataResponseBroker> {
        let live = self.image.brokers.values().filter(|broker| !broker.fenced);
        let row = |broker: &std::sync::Arc<crate::metadata::BrokerImage>| {
            let endpoint = endpoint(broker, &self.cx.session.listener)?;
            let row = MetadataResponseBroker::default()
                .with_node_id(BrokerId(broker.broker_id))
                .with_host(str_bytes(&endpoint.host))
                .with_port(i32::from(endpoint.port))
                .with_rack(broker.rack.as_deref().map(str_bytes));
            Some(row)
        };
        live.filter_map(row).collect()
    }

    /// A live broker. It forwards requests to the controller, which clients cannot reach (KIP-590).
    fn controller(&self) -> BrokerId {
        let live = self.image.brokers.values().find(|broker| !broker.fenced);
        BrokerId(live.map_or(-1, |broker| broker.broker_id))
    }
}

fn why_missing(name: &str) -> ErrorCode {
    match topic_names::validate(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    }
}
