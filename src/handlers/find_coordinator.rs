//! FindCoordinator: who leads the partition that a group lives in. The first to ask has
//! `__consumer_offsets` created.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{
    ApiKey, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
    find_coordinator_response::Coordinator,
};

use super::{Context, ErrorCode, Handler, Reply, errors, groups::wire};
use crate::{controller::NewTopic, coordinator::group::partition_for, metadata::Image};

pub struct FindCoordinator;

/// Versions below name one key.
const BATCHED_SINCE: i16 = 4;
const SHARE_SINCE: i16 = 6;

const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Kinds of keys, as the request numbers them (`CoordinatorType`).
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// Where a coordinator listens.
struct Endpoint {
    node_id: i32,
    host: String,
    port: i32,
}

impl Handler for FindCoordinator {
    const API: ApiKey = ApiKey::FindCoordinator;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    type Request = FindCoordinatorRequest;
    type Response = FindCoordinatorResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: FindCoordinatorRequest,
    ) -> Reply<FindCoordinatorResponse> {
        if cx.version < BATCHED_SINCE {
            let found = find(cx, request.key_type, &request.key).await;
            return Reply::Now(single(found, cx.version));
        }
        let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
        for key in request.coordinator_keys {
            let found = find(cx, request.key_type, &key).await;
            let error = found.as_ref().err().copied();
            let endpoint = found.unwrap_or_else(|_| nowhere());
            // Only a request that is wrong as a whole says why.
            let message = error.filter(|error| *error == ErrorCode::InvalidRequest).map(message);
            coordinators.push(
                Coordinator::default()
                    .with_key(key)
                    .with_node_id(BrokerId(endpoint.node_id))
                    .with_host(wire(&endpoint.host))
                    .with_port(endpoint.port)
                    .with_error_code(error.map_or(errors::NONE, |error| error.code()))
                    .with_error_message(Some(wire(message.unwrap_or_default()))),
            );
        }
        Reply::Now(FindCoordinatorResponse::default().with_coordinators(coordinators))
    }
}

/// Kafka's text for an error of this API.
fn message(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::InvalidRequest => {
            "This most likely occurs because of a request being malformed by the client library \
             or the message was sent to an incompatible broker. See the broker logs for more \
             details."
        }
        ErrorCode::UnsupportedVersion => "The version of API is not supported.",
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
        .with_host(wire(&endpoint.host))
        .with_port(endpoint.port);
    if version >= 1 {
        response.error_message = Some(wire(message));
    }
    response
}

async fn find(cx: &Context<'_>, key_type: i8, key: &str) -> Result<Endpoint, ErrorCode> {
    match key_type {
        GROUP => {}
        // Neither is served yet. Clients give up at once on this code, where they would go on
        // asking on COORDINATOR_NOT_AVAILABLE.
        TRANSACTION => return Err(ErrorCode::UnsupportedVersion),
        SHARE if cx.version >= SHARE_SINCE => return Err(ErrorCode::UnsupportedVersion),
        _ => return Err(ErrorCode::InvalidRequest),
    }
    let mut image = cx.broker.metadata();
    if image.topic(OFFSETS_TOPIC).is_none() {
        create_offsets_topic(cx).await?;
        image = cx.broker.metadata();
    }
    endpoint(&image, key, &cx.session.listener).ok_or(ErrorCode::CoordinatorNotAvailable)
}

/// The leader of the group's partition, if it is alive and listens where the client asked.
fn endpoint(image: &Image, group: &str, listener: &str) -> Option<Endpoint> {
    let topic = image.topic(OFFSETS_TOPIC)?;
    let index = partition_for(group, topic.partitions.len() as i32);
    let leader = topic.partitions.get(index as usize)?.leader;
    let broker = image.broker(leader)?;
    let end_point = broker.end_points.iter().find(|it| it.name == listener)?;
    Some(Endpoint {
        node_id: leader,
        host: end_point.host.clone(),
        port: i32::from(end_point.port),
    })
}

async fn create_offsets_topic(cx: &Context<'_>) -> Result<(), ErrorCode> {
    let settings = cx.broker.settings();
    let config = |name: &str, value: String| (name.to_owned(), Some(value));
    let topic = NewTopic {
        name: OFFSETS_TOPIC.to_owned(),
        partitions: settings.group.offsets_topic_num_partitions,
        replication_factor: settings.group.offsets_topic_replication_factor,
        assignments: Vec::new(),
        configs: vec![
            config("cleanup.policy", "compact".to_owned()),
            config("compression.type", "producer".to_owned()),
            config("segment.bytes", settings.group.offsets_topic_segment_bytes.to_string()),
        ],
    };
    match cx.broker.controller.create_topics(vec![topic], false).await {
        Ok(created) => {
            // That somebody else was faster is as good; why it cannot be is the next asker's too.
            if let Some((_, Err(error))) = created.value.first() {
                tracing::warn!(topic = OFFSETS_TOPIC, %error, "not created");
            }
            cx.broker.applied(created.offset).await;
            Ok(())
        }
        Err(error) => {
            tracing::warn!(topic = OFFSETS_TOPIC, %error, "not created");
            Err(ErrorCode::CoordinatorNotAvailable)
        }
    }
}
