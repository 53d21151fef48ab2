//! ConsumerGroupDescribe (KIP-848): the state and the members of consumer groups, with the current
//! and the target assignments of the members.

use kafka_protocol::{
    messages::{
        ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
        consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions},
    },
    protocol::StrBytes,
};

use super::{
    Client, Context, ErrorCode, Handler, Reply,
    consumer_group_heartbeat::serves_consumer_groups,
    conversions::{group_id, optional_str_bytes, str_bytes, text, topic_name},
    error_counts::{each, error_codes},
    errors::group_code,
};
use crate::{
    coordinator::group::{
        assignor,
        consumer::messages::{ConsumerGroupDescription, ConsumerMemberDescription, Refusal},
    },
    metadata::Image,
    protocol::checks::{GROUP_DESCRIBE, ResourceType, TOPIC_DESCRIBE},
};

pub struct ConsumerGroupDescribe;

/// The first version with the type of a member (KIP-1099).
const MEMBER_TYPE_SINCE: i16 = 1;
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl Handler for ConsumerGroupDescribe {
    const API: ApiKey = ApiKey::ConsumerGroupDescribe;
    type Request = ConsumerGroupDescribeRequest;
    type Response = ConsumerGroupDescribeResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: ConsumerGroupDescribeRequest,
    ) -> Reply<ConsumerGroupDescribeResponse> {
        let groups: Vec<_> = request.group_ids.iter().map(|group| text(group)).collect();
        if !serves_consumer_groups(cx.broker) {
            let refused = groups.iter().map(|group| failed(group, ErrorCode::UnsupportedVersion));
            return Reply::Now(response(refused));
        }
        let (groups, denied): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| cx.allowed(GROUP_DESCRIBE, group));
        let (unnamed, groups): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| group.is_empty());
        let (client, image) = (cx.session.client.clone(), cx.broker.metadata());
        let (version, tells_operations) = (cx.version, request.include_authorized_operations);
        let coordinator = cx.broker.coordinators.groups.clone();
        Reply::Later(Box::pin(async move {
            let described = coordinator.describe_consumer_groups(groups).await;
            let described = described.into_iter().map(|(id, found)| {
                let mut group = match found {
                    Ok(group) => described_group(group, &image, version),
                    Err(refusal) => refused_group(&id, refusal),
                };
                if tells_operations && group.error_code == 0 {
                    group.authorized_operations = client.operations(ResourceType::Group, &id);
                }
                without_hidden_topics(group, &client)
            });
            // As in Kafka, the groups that are not looked up come first.
            let denied = denied.iter().map(|id| failed(id, ErrorCode::GroupAuthorizationFailed));
            let unnamed = unnamed.iter().map(|id| failed(id, ErrorCode::InvalidGroupId));
            response(denied.chain(unnamed).chain(described))
        }))
    }
}

error_codes!(ConsumerGroupDescribeResponse: |it| each!(it.groups));

fn response(groups: impl Iterator<Item = DescribedGroup>) -> ConsumerGroupDescribeResponse {
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}

fn failed(id: &str, code: ErrorCode) -> DescribedGroup {
    DescribedGroup::default().with_group_id(group_id(id)).with_error_code(code.code())
}

fn refused_group(id: &str, refusal: Refusal) -> DescribedGroup {
    let Refusal { error, message } = refusal;
    DescribedGroup::default()
        .with_group_id(group_id(id))
        .with_error_code(group_code(error))
        .with_error_message((!message.is_empty()).then(|| StrBytes::from_string(message)))
}

fn described_group(group: ConsumerGroupDescription, image: &Image, version: i16) -> DescribedGroup {
    let members = group.members.into_iter().map(|member| described_member(member, image, version));
    DescribedGroup::default()
        .with_group_id(group_id(&group.group))
        .with_group_state(str_bytes(group.state))
        .with_group_epoch(group.group_epoch)
        .with_assignment_epoch(group.assignment_epoch)
        .with_assignor_name(str_bytes(&group.assignor))
        .with_members(members.collect())
}

fn described_member(member: ConsumerMemberDescription, image: &Image, version: i16) -> Member {
    let names = member.subscribed_topic_names.iter().map(|name| topic_name(name));
    let described = Member::default()
        .with_member_id(str_bytes(&member.member_id))
        .with_instance_id(optional_str_bytes(member.instance_id.as_ref()))
        .with_rack_id(optional_str_bytes(member.rack_id.as_ref()))
        .with_member_epoch(member.member_epoch)
        .with_client_id(str_bytes(&member.client_id))
        .with_client_host(str_bytes(&member.client_host))
        .with_subscribed_topic_names(names.collect())
        .with_subscribed_topic_regex(optional_str_bytes(member.subscribed_topic_regex.as_ref()))
        .with_assignment(assignment(member.assignment, image))
        .with_target_assignment(assignment(member.target_assignment, image));
    match (version >= MEMBER_TYPE_SINCE, member.is_classic) {
        (false, _) => described,
        (true, true) => described.with_member_type(CLASSIC_MEMBER),
        (true, false) => described.with_member_type(CONSUMER_MEMBER),
    }
}

/// An assignment with the names of its topics. As in Kafka, topics that do not exist any more are
/// left out.
fn assignment(assigned: assignor::Assignment, image: &Image) -> Assignment {
    let topics = assigned.into_iter().filter_map(|(id, partitions)| {
        let topic = image.topic_by_id(id)?;
        let named = TopicPartitions::default().with_topic_id(id);
        Some(named.with_topic_name(topic_name(&topic.name)).with_partitions(partitions))
    });
    Assignment::default().with_topic_partitions(topics.collect())
}

/// Replaces a group by an error if the client may not describe one of its assigned topics.
fn without_hidden_topics(group: DescribedGroup, client: &Client) -> DescribedGroup {
    if may_see_topics(&group, client) {
        return group;
    }
    DescribedGroup::default()
        .with_group_id(group.group_id)
        .with_error_code(ErrorCode::TopicAuthorizationFailed.code())
        .with_error_message(Some(StrBytes::from_static_str(
            "The group has described topic(s) that the client is not authorized to describe.",
        )))
}

fn may_see_topics(group: &DescribedGroup, client: &Client) -> bool {
    let assignments = group.members.iter().flat_map(|it| [&it.assignment, &it.target_assignment]);
    let mut topics = assignments.flat_map(|assignment| &assignment.topic_partitions);
    topics.all(|topic| client.allowed(TOPIC_DESCRIBE, &topic.topic_name))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        base::TopicId,
        coordinator::group::GroupError,
        metadata::{MetadataRecord, records::TopicRecord},
    };

    fn member(is_classic: bool, assigned: &[TopicId]) -> ConsumerMemberDescription {
        let assigned: assignor::Assignment = assigned.iter().map(|id| (*id, vec![0, 2])).collect();
        ConsumerMemberDescription {
            member_id: "m".into(),
            instance_id: Some("i".into()),
            rack_id: None,
            member_epoch: 4,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            subscribed_topic_names: vec!["t".into()],
            subscribed_topic_regex: None,
            assignment: assigned,
            target_assignment: assignor::Assignment::new(),
            is_classic,
        }
    }

    #[test]
    fn groups_are_described_with_the_names_of_topics_that_exist() {
        let (id, gone) = (TopicId::from_u128(1), TopicId::from_u128(2));
        let mut image = Image::default();
        let topic = TopicRecord { name: "t".to_owned(), topic_id: id };
        image.apply(&MetadataRecord::from(topic));
        let group = ConsumerGroupDescription {
            group: Arc::from("g"),
            state: "Stable",
            group_epoch: 5,
            assignment_epoch: 4,
            assignor: "range".into(),
            members: vec![member(true, &[id, gone]), member(false, &[])],
        };
        let described = described_group(group.clone(), &image, 1);
        assert_eq!((described.group_epoch, described.assignment_epoch), (5, 4));
        assert_eq!((&*described.group_state, &*described.assignor_name), ("Stable", "range"));
        let topics = &described.members[0].assignment.topic_partitions;
        assert_eq!(topics.len(), 1, "without the deleted topic");
        assert_eq!((topics[0].topic_id, &**topics[0].topic_name), (id, "t"));
        let types = |group: DescribedGroup| -> Vec<i8> {
            group.members.iter().map(|member| member.member_type).collect()
        };
        assert_eq!(types(described), [CLASSIC_MEMBER, CONSUMER_MEMBER]);
        assert_eq!(types(described_group(group, &image, 0)), [-1, -1], "not in version 0");
    }

    #[test]
    fn refusals_have_their_message() {
        let refusal = |message: &str| Refusal {
            error: GroupError::GroupIdNotFound,
            message: message.to_owned(),
        };
        let group = refused_group("g", refusal("Group g not found."));
        assert_eq!((group.error_code, &**group.group_id), (69, "g"));
        assert_eq!(group.error_message.as_deref(), Some("Group g not found."));
        assert_eq!(refused_group("g", refusal("")).error_message, None);
    }
}
