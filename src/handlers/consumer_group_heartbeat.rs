//! ConsumerGroupHeartbeat (KIP-848): a member joins a consumer group, stays in it, changes its
//! subscription or leaves. The response has the partitions that the member may read. This file
//! checks the form of the request (Kafka's `GroupCoordinatorService`); the coordinator decides the
//! rest.

use std::sync::Arc;

use kafka_protocol::{
    messages::{
        ApiKey, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        consumer_group_heartbeat_response::{Assignment, TopicPartitions},
    },
    protocol::StrBytes,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{optional_text, str_bytes, text},
    error_counts::error_codes,
    errors::group_code,
};
use crate::{
    base::{
        config::{ConsumerAssignor, ConsumerGroupSettings},
        environment::new_uuid,
        kafka_uuid,
    },
    broker::Broker,
    coordinator::group::{
        GroupError, assignor,
        consumer::{
            member::{LEAVE_EPOCH, LEAVE_STATIC_EPOCH},
            messages::{ConsumerHeartbeatReply, ConsumerHeartbeatRequest, Refusal},
        },
    },
    protocol::checks::{GROUP_READ, TOPIC_DESCRIBE},
};

pub struct ConsumerGroupHeartbeat;

/// The first version in which a member makes its own id (KIP-1082).
const OWN_MEMBER_ID_SINCE: i16 = 1;

impl Handler for ConsumerGroupHeartbeat {
    const API: ApiKey = ApiKey::ConsumerGroupHeartbeat;
    type Request = ConsumerGroupHeartbeatRequest;
    type Response = ConsumerGroupHeartbeatResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Reply<ConsumerGroupHeartbeatResponse> {
        if let Err(code) = check_allowed(cx, &request) {
            let response = ConsumerGroupHeartbeatResponse::default();
            return Reply::Now(response.with_error_code(code.code()));
        }
        let settings = cx.broker.settings();
        if let Err(refusal) = check_form(&request, cx.version, &settings.consumer_group) {
            return Reply::Now(refused(refusal));
        }
        let heartbeat = heartbeat(cx, &request);
        drop(request);
        let answer = cx.broker.coordinators.groups.consumer_heartbeat(heartbeat).await;
        Reply::Later(Box::pin(async move {
            let answered = answer.wait().await.map_err(|error| Refusal::new(error, ""));
            answered.and_then(|answered| answered).map_or_else(refused, accepted)
        }))
    }
}

error_codes!(ConsumerGroupHeartbeatResponse: |it| [it.error_code]);

/// Whether this broker serves consumer groups: the cluster has finalised `group.version`, and
/// `group.coordinator.rebalance.protocols` has `consumer`.
pub fn serves_consumer_groups(broker: &Broker) -> bool {
    broker.settings().consumer_group.has_consumer_protocol
        && broker.metadata().feature("group.version") >= 1
}

fn check_allowed(
    cx: &Context<'_>,
    request: &ConsumerGroupHeartbeatRequest,
) -> Result<(), ErrorCode> {
    if !serves_consumer_groups(cx.broker) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    cx.check(GROUP_READ, &request.group_id)?;
    let mut names = request.subscribed_topic_names.iter().flatten();
    names.try_for_each(|name| cx.check(TOPIC_DESCRIBE, name))
}

/// Checks the form of a request, in Kafka's order and with Kafka's messages
/// (`GroupCoordinatorService.throwIfConsumerGroupHeartbeatRequestIsInvalid`).
fn check_form(
    request: &ConsumerGroupHeartbeatRequest,
    version: i16,
    settings: &ConsumerGroupSettings,
) -> Result<(), Refusal> {
    let refuse_if = |is_wrong: bool, message: &str| match is_wrong {
        true => Err(Refusal::new(GroupError::InvalidRequest, message)),
        false => Ok(()),
    };
    let epoch = request.member_epoch;
    let needs_id = version >= OWN_MEMBER_ID_SINCE || epoch > 0 || epoch == LEAVE_EPOCH;
    refuse_if(needs_id && is_blank(&request.member_id), "MemberId can't be empty.")?;
    let is_empty = |text: &Option<_>| text.as_deref().is_some_and(is_blank);
    refuse_if(is_blank(&request.group_id), "GroupId can't be empty.")?;
    refuse_if(is_empty(&request.instance_id), "InstanceId can't be empty.")?;
    refuse_if(is_empty(&request.rack_id), "RackId can't be empty.")?;
    match epoch {
        0 => {
            refuse_if(
                request.rebalance_timeout_ms == -1,
                "RebalanceTimeoutMs must be provided in first request.",
            )?;
            refuse_if(
                request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()),
                "TopicPartitions must be empty when (re-)joining.",
            )?;
            refuse_if(
                request.subscribed_topic_names.is_none()
                    && request.subscribed_topic_regex.is_none(),
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
                 (re-)joining.",
            )?;
        }
        LEAVE_STATIC_EPOCH => {
            refuse_if(request.instance_id.is_none(), "InstanceId can't be null.")?
        }
        epoch => refuse_if(epoch < LEAVE_STATIC_EPOCH, "MemberEpoch is invalid.")?,
    }
    check_assignor(request.server_assignor.as_deref(), settings)
}

fn check_assignor(asked: Option<&str>, settings: &ConsumerGroupSettings) -> Result<(), Refusal> {
    // Kafka names the assignors in the order of its hash set.
    let known = [ConsumerAssignor::Uniform, ConsumerAssignor::Range].into_iter();
    let known = known.filter(|known| settings.group_consumer_assignors.contains(known));
    let known: Vec<&str> = known.map(ConsumerAssignor::name).collect();
    match asked {
        Some(asked) if !known.contains(&asked) => Err(Refusal {
            error: GroupError::UnsupportedAssignor,
            message: format!(
                "ServerAssignor {asked} is not supported. Supported assignors: {}.",
                known.join(", ")
            ),
        }),
        _ => Ok(()),
    }
}

/// Whether a text counts as empty: as in Java's `String.trim`, control characters and spaces do not
/// count.
fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c <= ' ')
}

/// The request for the coordinator. It copies all texts: slices would keep the frame in memory.
fn heartbeat(
    cx: &Context<'_>,
    request: &ConsumerGroupHeartbeatRequest,
) -> ConsumerHeartbeatRequest {
    let is_new = request.member_id.is_empty() && request.member_epoch == 0;
    let names = request.subscribed_topic_names.as_ref();
    let owned = request.topic_partitions.as_ref();
    ConsumerHeartbeatRequest {
        group: text(&request.group_id),
        member_id: match is_new {
            true => Arc::from(kafka_uuid::encode(new_uuid())),
            false => text(&request.member_id),
        },
        member_epoch: request.member_epoch,
        instance_id: optional_text(request.instance_id.as_ref()),
        rack_id: optional_text(request.rack_id.as_ref()),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        subscribed_topic_names: names.map(|names| names.iter().map(|name| text(name)).collect()),
        subscribed_topic_regex: optional_text(request.subscribed_topic_regex.as_ref()),
        server_assignor: optional_text(request.server_assignor.as_ref()),
        owned_partitions: owned.map(|owned| {
            owned.iter().map(|topic| (topic.topic_id, topic.partitions.clone())).collect()
        }),
        client_id: cx.client_id().into(),
        client_host: cx.client_host().into(),
    }
}

fn accepted(reply: ConsumerHeartbeatReply) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(str_bytes(&reply.member_id)))
        .with_member_epoch(reply.member_epoch)
        .with_heartbeat_interval_ms(reply.heartbeat_interval_ms)
        .with_assignment(reply.assignment.map(assignment))
}

fn assignment(assigned: assignor::Assignment) -> Assignment {
    let topics = assigned.into_iter().map(|(topic_id, partitions)| {
        TopicPartitions::default().with_topic_id(topic_id).with_partitions(partitions)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}

fn refused(refusal: Refusal) -> ConsumerGroupHeartbeatResponse {
    let Refusal { error, message } = refusal;
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(group_code(error))
        .with_error_message((!message.is_empty()).then(|| StrBytes::from_string(message)))
}

#[cfg(test)]
mod tests;
