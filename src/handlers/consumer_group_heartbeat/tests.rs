//! Checks of the form of ConsumerGroupHeartbeat.

use kafka_protocol::messages::{
    GroupId, TopicName, consumer_group_heartbeat_request::TopicPartitions as OwnedPartitions,
};

use super::*;
use crate::base::config::{Limited, MigrationPolicy};

fn settings(assignors: &[ConsumerAssignor]) -> ConsumerGroupSettings {
    let limited = Limited { value: 1, min: 1, max: 1 };
    ConsumerGroupSettings {
        has_consumer_protocol: true,
        group_consumer_session_timeout_ms: limited,
        group_consumer_heartbeat_interval_ms: limited,
        group_consumer_assignment_interval_ms: limited,
        group_consumer_regex_refresh_interval_ms: 1,
        group_consumer_max_size: 1,
        group_consumer_assignors: assignors.to_vec(),
        group_consumer_migration_policy: MigrationPolicy::Bidirectional,
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A request with which a member joins.
fn joining() -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_member_id(text("m"))
        .with_rebalance_timeout_ms(1_000)
        .with_subscribed_topic_names(Some(vec![TopicName(text("t"))]))
        .with_topic_partitions(Some(Vec::new()))
}

fn staying(member_epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_member_id(text("m"))
        .with_member_epoch(member_epoch)
}

/// The error and the message with which a request is refused. `None` if its form is right.
fn refusal(version: i16, request: &ConsumerGroupHeartbeatRequest) -> Option<(GroupError, String)> {
    let assignors = [ConsumerAssignor::Range, ConsumerAssignor::Uniform];
    let refusal = check_form(request, version, &settings(&assignors)).err()?;
    Some((refusal.error, refusal.message))
}

#[track_caller]
fn invalid(version: i16, request: ConsumerGroupHeartbeatRequest, message: &str) {
    let expected = (GroupError::InvalidRequest, message.to_owned());
    assert_eq!(refusal(version, &request), Some(expected));
}

#[test]
fn well_formed_requests_pass() {
    for version in [0, 1] {
        assert_eq!(refusal(version, &joining()), None);
        for epoch in [1, i32::MAX, -1] {
            assert_eq!(refusal(version, &staying(epoch)), None);
        }
        let static_member = staying(-2).with_instance_id(Some(text("i")));
        assert_eq!(refusal(version, &static_member), None);
        // No topics, but a member.
        let no_names = joining().with_subscribed_topic_names(Some(Vec::new()));
        assert_eq!(refusal(version, &no_names), None);
        for assignor in ["uniform", "range"] {
            let chosen = staying(1).with_server_assignor(Some(text(assignor)));
            assert_eq!(refusal(version, &chosen), None);
        }
    }
    let by_pattern = joining().with_subscribed_topic_names(None);
    let by_pattern = by_pattern.with_subscribed_topic_regex(Some(text("")));
    assert_eq!(refusal(1, &by_pattern), None);
    assert_eq!(refusal(0, &joining().with_member_id(text(""))), None, "the broker makes an id");
    assert_eq!(refusal(0, &staying(-2).with_instance_id(Some(text("i")))), None);
}

#[test]
fn empty_ids_are_refused() {
    for empty in ["", " ", "\t \u{1f}"] {
        invalid(1, joining().with_member_id(text(empty)), "MemberId can't be empty.");
        for epoch in [1, -1] {
            invalid(0, staying(epoch).with_member_id(text(empty)), "MemberId can't be empty.");
        }
        for version in [0, 1] {
            let group_id = GroupId(text(empty));
            invalid(version, staying(5).with_group_id(group_id), "GroupId can't be empty.");
            let instance_id = Some(text(empty));
            invalid(version, joining().with_instance_id(instance_id), "InstanceId can't be empty.");
            let rack_id = Some(text(empty));
            invalid(version, joining().with_rack_id(rack_id), "RackId can't be empty.");
        }
    }
    // Java trims only characters up to the space.
    assert_eq!(refusal(1, &joining().with_rack_id(Some(text("\u{a0}")))), None);
}

#[test]
fn joining_members_send_everything() {
    for version in [0, 1] {
        let no_timeout = joining().with_rebalance_timeout_ms(-1);
        invalid(version, no_timeout, "RebalanceTimeoutMs must be provided in first request.");
        let owned = vec![OwnedPartitions::default()];
        for owned in [None, Some(owned)] {
            let request = joining().with_topic_partitions(owned);
            invalid(version, request, "TopicPartitions must be empty when (re-)joining.");
        }
        invalid(
            version,
            joining().with_subscribed_topic_names(None),
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
             (re-)joining.",
        );
    }
}

#[test]
fn epochs_below_those_of_leaving_members_are_refused() {
    for version in [0, 1] {
        invalid(version, staying(-2), "InstanceId can't be null.");
        for epoch in [-3, i32::MIN] {
            invalid(version, staying(epoch), "MemberEpoch is invalid.");
        }
    }
}

#[test]
fn unknown_assignors_are_refused_with_the_known_ones() {
    let message = |assignor: &str, configured: &[ConsumerAssignor]| {
        let request = staying(1).with_server_assignor(Some(text(assignor)));
        let refusal = check_form(&request, 1, &settings(configured)).expect_err("refused");
        assert_eq!(refusal.error, GroupError::UnsupportedAssignor);
        refusal.message
    };
    assert_eq!(
        message("other", &[ConsumerAssignor::Range, ConsumerAssignor::Uniform]),
        "ServerAssignor other is not supported. Supported assignors: uniform, range."
    );
    assert_eq!(
        message("uniform", &[ConsumerAssignor::Range]),
        "ServerAssignor uniform is not supported. Supported assignors: range."
    );
    assert!(message("", &[ConsumerAssignor::Range]).starts_with("ServerAssignor  is not"));
}

#[test]
fn answers_have_kafkas_fields() {
    let id = uuid::Uuid::from_u128(1);
    let reply = ConsumerHeartbeatReply {
        member_id: "m".into(),
        member_epoch: 3,
        heartbeat_interval_ms: 5_000,
        assignment: Some([(id, vec![0, 2])].into()),
    };
    let response = accepted(reply.clone());
    assert_eq!((response.error_code, response.member_epoch), (0, 3));
    assert_eq!(response.member_id, Some(text("m")));
    let topics = response.assignment.expect("an assignment").topic_partitions;
    assert_eq!((topics[0].topic_id, topics[0].partitions.as_slice()), (id, &[0, 2][..]));
    let nothing = accepted(ConsumerHeartbeatReply { assignment: Some([].into()), ..reply.clone() });
    assert_eq!(nothing.assignment, Some(Assignment::default()), "not the same as null");
    assert_eq!(accepted(ConsumerHeartbeatReply { assignment: None, ..reply }).assignment, None);
    let refusal = |message: &str| {
        let message = message.to_owned();
        refused(Refusal { error: GroupError::FencedMemberEpoch, message })
    };
    assert_eq!(refusal("why").error_message, Some(text("why")));
    let plain = refusal("");
    assert_eq!((plain.error_code, plain.error_message), (110, None));
}
