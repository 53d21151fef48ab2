//! FindCoordinator: the broker that coordinates a group or a transactional id. The first request
//! creates `__consumer_offsets` or `__transaction_state`.

use std::sync::Arc;

use kafka_protocol::{
    messages::{
        ApiKey, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
        find_coordinator_response::Coordinator,
    },
    protocol::StrBytes,
};

use super::{
    Client, Context, ErrorCode, Handler, Reply, auto_topics,
    conversions::str_bytes,
    error_counts::{each, error_codes},
    errors,
};
use crate::{
    base::{TopicPartition, kafka_uuid},
    broker::Broker,
    coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC, group::partition_for},
    metadata::{Image, PartitionImage},
    protocol::{
        checks::{CLUSTER_ACTION, GROUP_DESCRIBE, TRANSACTIONAL_ID_DESCRIBE},
        error_code,
    },
};

pub struct FindCoordinator;

/// The first version that names several keys.
const BATCHED_SINCE: i16 = 4;
/// The first version with keys of share groups.
const SHARE_SINCE: i16 = 6;

/// The types of keys (Kafka's `CoordinatorType`).
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// The address of a coordinator.
struct Endpoint {
    node_id: i32,
    host: String,
    port: i32,
}

impl Handler for FindCoordinator {
    const API: ApiKey = ApiKey::FindCoordinator;
    type Request = FindCoordinatorRequest;
    type Response = FindCoordinatorResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: FindCoordinatorRequest,
    ) -> Reply<FindCoordinatorResponse> {
        let keys = match cx.version < BATCHED_SINCE {
            true => vec![request.key],
            false => request.coordinator_keys,
        };
        let key_type = request.key_type;
        let checked: Vec<_> = keys.iter().map(|key| check(cx, key_type, key)).collect();
        // Create the topic at most once, however many keys the request names.
        let image = match topic_of(key_type) {
            Some(topic) if checked.contains(&Ok(())) => with_topic(cx.broker, topic).await,
            _ => cx.broker.metadata(),
        };
        let find = |(key, checked): (&StrBytes, Result<(), ErrorCode>)| {
            checked.and_then(|()| find(cx, &image, key_type, key))
        };
        let found: Vec<_> = keys.iter().zip(checked).map(find).collect();
        if cx.version < BATCHED_SINCE {
            let only = found.into_iter().next().expect("one key");
            return Reply::Now(single(only, cx.version));
        }
        let mut coordinators = Vec::with_capacity(keys.len());
        for (key, found) in keys.into_iter().zip(found) {
            let error = found.as_ref().err().copied();
            let endpoint = found.unwrap_or_else(|_| nowhere());
            // Only INVALID_REQUEST has a message, and not for single keys of share groups. These
            // have one if the client may not find their coordinators.
            let says_why = |error: &ErrorCode| match error {
                ErrorCode::InvalidRequest => key_type != SHARE,
                ErrorCode::ClusterAuthorizationFailed => true,
                _ => false,
            };
            let message = error.filter(says_why).map(message);
            coordinators.push(
                Coordinator::default()
                    .with_key(key)
                    .with_node_id(BrokerId(endpoint.node_id))
                    .with_host(str_bytes(&endpoint.host))
                    .with_port(endpoint.port)
                    .with_error_code(error.map_or(errors::NONE, |error| error.code()))
                    .with_error_message(Some(str_bytes(message.unwrap_or_default()))),
            );
        }
        Reply::Now(FindCoordinatorResponse::default().with_coordinators(coordinators))
    }
}

error_codes!(FindCoordinatorResponse: |it| each!(it.coordinators).chain([it.error_code]));

/// Kafka's text for an error of this API.
fn message(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::InvalidRequest => {
            "This most likely occurs because of a request being malformed by the client library \
             or the message was sent to an incompatible broker. See the broker logs for more \
             details."
        }
        ErrorCode::UnsupportedVersion => "The version of API is not supported.",
        ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::TransactionalIdAuthorizationFailed => {
            error_code::default_message(error.code())
        }
        _ => "The coordinator is not available.",
    }
}

fn nowhere() -> Endpoint {
    Endpoint { node_id: -1, host: String::new(), port: -1 }
}

fn single(found: Result<Endpoint, ErrorCode>, version: i16) -> FindCoordinatorResponse {
    let (code, message) = match &found {
        Ok(_) => (errors::NONE, "NONE"),
        Err(error) => (error.code(), message(*error)),
    };
    let endpoint = found.unwrap_or_else(|_| nowhere());
    let mut response = FindCoordinatorResponse::default()
        .with_error_code(code)
        .with_node_id(BrokerId(endpoint.node_id))
        .with_host(str_bytes(&endpoint.host))
        .with_port(endpoint.port);
    if version >= 1 {
        response.error_message = Some(str_bytes(message));
    }
    response
}

/// Checks whether the client may find the coordinator of this key.
fn check(cx: &Context<'_>, key_type: i8, key: &str) -> Result<(), ErrorCode> {
    match key_type {
        GROUP => cx.check(GROUP_DESCRIBE, key),
        TRANSACTION => cx.check(TRANSACTIONAL_ID_DESCRIBE, key),
        SHARE if cx.version >= SHARE_SINCE => cx.check_on_cluster(CLUSTER_ACTION),
        _ => Ok(()),
    }
}

/// The internal topic of a key type. `None` if this broker has no coordinator of the type.
fn topic_of(key_type: i8) -> Option<&'static str> {
    match key_type {
        GROUP => Some(OFFSETS_TOPIC),
        TRANSACTION => Some(TRANSACTIONS_TOPIC),
        _ => None,
    }
}

fn find(cx: &Context<'_>, image: &Image, key_type: i8, key: &str) -> Result<Endpoint, ErrorCode> {
    match topic_of(key_type) {
        Some(topic) => endpoint(cx, image, topic, key).ok_or(ErrorCode::CoordinatorNotAvailable),
        // This broker does not coordinate share groups yet. Clients fail at once on this code,
        // while they would retry on COORDINATOR_NOT_AVAILABLE.
        None if key_type == SHARE && cx.version >= SHARE_SINCE && is_share_key(key) => {
            Err(ErrorCode::UnsupportedVersion)
        }
        None => Err(ErrorCode::InvalidRequest),
    }
}

/// Whether the key has the form of share groups: group, topic id and partition, joined by colons.
fn is_share_key(key: &str) -> bool {
    let parts: Vec<&str> = key.split(':').collect();
    let [group, topic, partition] = parts.as_slice() else { return false };
    !group.is_empty() && kafka_uuid::decode(topic).is_some() && partition.parse::<i32>().is_ok()
}

/// Creates an internal topic if it does not exist, and returns the metadata after that. If the
/// creation fails, the metadata is returned without the topic.
async fn with_topic(broker: &Arc<Broker>, topic: &str) -> Arc<Image> {
    let image = broker.metadata();
    if image.topic(topic).is_some() {
        return image;
    }
    if let Err(error) = auto_topics::create(broker, Client::this_node(), &[topic]).await {
        tracing::warn!(topic, %error, "cannot create the internal topic of a coordinator");
    }
    broker.metadata()
}

/// The partition that holds the state of a group or of a transactional id, with its index.
fn home_of<'a>(image: &'a Image, topic: &str, key: &str) -> Option<(i32, &'a PartitionImage)> {
    let topic = image.topic(topic)?;
    let index = partition_for(key, topic.partitions.len() as i32);
    Some((index, topic.partitions.get(index as usize)?))
}

/// The address of the key's coordinator on the client's listener. `None` if there is no coordinator,
/// it is fenced, or it does not have the listener.
fn endpoint(cx: &Context<'_>, image: &Image, topic: &str, key: &str) -> Option<Endpoint> {
    let (index, partition) = home_of(image, topic, key)?;
    let leader = cx.broker.coordinator_of(&TopicPartition::new(topic, index), partition);
    let broker = image.broker(leader).filter(|it| !it.fenced)?;
    let end_point = broker.end_points.iter().find(|it| *it.name == *cx.session.listener)?;
    Some(Endpoint {
        node_id: leader,
        host: end_point.host.clone(),
        port: i32::from(end_point.port),
    })
}
