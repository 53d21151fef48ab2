//! ListGroups: the groups that this broker coordinates, filtered by state and type.

use kafka_protocol::messages::{
    ApiKey, ListGroupsRequest, ListGroupsResponse, list_groups_response,
};

use super::{
    Context, Handler, Reply,
    conversions::{group_id, str_bytes, text},
    error_counts::error_codes,
    errors::group_code,
};
use crate::{
    coordinator::group::messages::{ListRequest, ListedGroup},
    protocol::checks::{CLUSTER_DESCRIBE, GROUP_DESCRIBE},
};

pub struct ListGroups;

impl Handler for ListGroups {
    const API: ApiKey = ApiKey::ListGroups;
    type Request = ListGroupsRequest;
    type Response = ListGroupsResponse;

    async fn handle(cx: &mut Context<'_>, request: ListGroupsRequest) -> Reply<ListGroupsResponse> {
        let version = cx.version;
        let list = ListRequest {
            states: request.states_filter.iter().map(text).collect(),
            types: request.types_filter.iter().map(text).collect(),
        };
        // As in Kafka, a client that may describe the cluster sees all groups.
        let sees_all = cx.allowed_on_cluster(CLUSTER_DESCRIBE);
        let client = cx.session.client.clone();
        let coordinator = cx.broker.coordinators.groups.clone();
        Reply::Later(Box::pin(async move {
            match coordinator.list(list).await {
                Ok(groups) => {
                    let is_visible = |group: &&ListedGroup| {
                        sees_all || client.allowed(GROUP_DESCRIBE, &group.group)
                    };
                    let groups = groups.iter().filter(is_visible);
                    let groups = groups.map(|group| listed_group(group, version));
                    ListGroupsResponse::default().with_groups(groups.collect())
                }
                Err(error) => ListGroupsResponse::default().with_error_code(group_code(error)),
            }
        }))
    }
}

error_codes!(ListGroupsResponse: |it| [it.error_code]);

fn listed_group(group: &ListedGroup, version: i16) -> list_groups_response::ListedGroup {
    let mut listed = list_groups_response::ListedGroup::default()
        .with_group_id(group_id(&group.group))
        .with_protocol_type(str_bytes(&group.protocol_type));
    if version >= 4 {
        listed.group_state = str_bytes(group.state);
    }
    if version >= 5 {
        listed.group_type = str_bytes(group.group_type);
    }
    listed
}
