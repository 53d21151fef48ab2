//! DeleteGroups: deletes empty groups with their committed offsets.

use std::collections::HashSet;

use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{group_id, text},
    error_counts::{each, error_codes},
    errors::group_code_of,
};
use crate::protocol::checks::GROUP_DELETE;

pub struct DeleteGroups;

impl Handler for DeleteGroups {
    const API: ApiKey = ApiKey::DeleteGroups;
    type Request = DeleteGroupsRequest;
    type Response = DeleteGroupsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DeleteGroupsRequest,
    ) -> Reply<DeleteGroupsResponse> {
        let mut seen = HashSet::new();
        let mut groups: Vec<_> = request.groups_names.iter().map(|name| text(name)).collect();
        groups.retain(|group| seen.insert(group.clone()));
        let (groups, denied): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| cx.allowed(GROUP_DELETE, group));
        let coordinator = cx.broker.coordinators.groups.clone();
        Reply::Later(Box::pin(async move {
            let deleted = coordinator.delete_groups(groups).await;
            let deleted =
                deleted.iter().map(|(group, deleted)| result(group, group_code_of(deleted)));
            let code = ErrorCode::GroupAuthorizationFailed.code();
            let denied = denied.iter().map(|group| result(group, code));
            DeleteGroupsResponse::default().with_results(deleted.chain(denied).collect())
        }))
    }
}

error_codes!(DeleteGroupsResponse: |it| each!(it.results));

fn result(group: &str, code: i16) -> DeletableGroupResult {
    DeletableGroupResult::default().with_group_id(group_id(group)).with_error_code(code)
}
