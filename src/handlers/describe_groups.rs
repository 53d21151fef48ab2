//! DescribeGroups: the state, the protocol and the members of groups.

use kafka_protocol::messages::{
    ApiKey, DescribeGroupsRequest, DescribeGroupsResponse,
    describe_groups_response::{DescribedGroup, DescribedGroupMember},
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{group_id, optional_str_bytes, str_bytes, text},
    error_counts::{each, error_codes},
    errors::group_code,
};
use crate::{
    coordinator::group::{
        GroupError,
        messages::{GroupDescription, MemberDescription},
    },
    protocol::checks::{GROUP_DESCRIBE, ResourceType},
};

pub struct DescribeGroups;

impl Handler for DescribeGroups {
    const API: ApiKey = ApiKey::DescribeGroups;
    type Request = DescribeGroupsRequest;
    type Response = DescribeGroupsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeGroupsRequest,
    ) -> Reply<DescribeGroupsResponse> {
        let version = cx.version;
        let tell_operations = version >= 3 && request.include_authorized_operations;
        let groups = request.groups.iter().map(|group| text(group));
        let (groups, denied): (Vec<_>, Vec<_>) =
            groups.partition(|group| cx.allowed(GROUP_DESCRIBE, group));
        let client = cx.session.client.clone();
        let coordinator = cx.broker.coordinators.groups.clone();
        Reply::Later(Box::pin(async move {
            let described = coordinator.describe(groups).await;
            let groups = described.into_iter().map(|group| {
                let mut group = described_group(group, version);
                if tell_operations && group.error_code == 0 {
                    group.authorized_operations =
                        client.operations(ResourceType::Group, &group.group_id);
                }
                group
            });
            let code = ErrorCode::GroupAuthorizationFailed.code();
            let denied = denied.iter().map(|group| {
                DescribedGroup::default().with_group_id(group_id(group)).with_error_code(code)
            });
            // As in Kafka, the denied groups come first.
            DescribeGroupsResponse::default().with_groups(denied.chain(groups).collect())
        }))
    }
}

error_codes!(DescribeGroupsResponse: |it| each!(it.groups));

fn described_group(group: GroupDescription, version: i16) -> DescribedGroup {
    let members = group.members.into_iter().map(|member| described_member(member, version));
    let mut described = DescribedGroup::default()
        .with_group_id(group_id(&group.group))
        .with_group_state(str_bytes(group.state))
        .with_protocol_type(str_bytes(&group.protocol_type))
        .with_protocol_data(str_bytes(&group.protocol))
        .with_members(members.collect());
    match group.error {
        None => {}
        // Before version 6, a missing group is described as dead, without an error (KIP-1043).
        Some(GroupError::GroupIdNotFound | GroupError::NotClassicGroup) if version < 6 => {}
        Some(error) => {
            described.error_code = group_code(error);
            let message = match error {
                GroupError::GroupIdNotFound => Some("not found."),
                GroupError::NotClassicGroup => Some("is not a classic group."),
                _ => None,
            };
            if let Some(message) = message.filter(|_| version >= 6) {
                described.error_message =
                    Some(str_bytes(&format!("Group {} {message}", group.group)));
            }
        }
    }
    described
}

fn described_member(member: MemberDescription, version: i16) -> DescribedGroupMember {
    let mut described = DescribedGroupMember::default()
        .with_member_id(str_bytes(&member.member_id))
        .with_client_id(str_bytes(&member.client_id))
        .with_client_host(str_bytes(&member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment);
    if version >= 4 {
        described.group_instance_id = optional_str_bytes(member.instance_id.as_ref());
    }
    described
}
