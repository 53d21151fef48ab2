//! DeleteGroups: ends empty groups, with their offsets.

use std::{collections::HashSet, ops::RangeInclusive};

use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};

use super::{
    Context, Handler, Reply,
    groups::{code, code_of, group_id, text},
};
use crate::coordinator::group::GroupError;

pub struct DeleteGroups;

impl Handler for DeleteGroups {
    const API: ApiKey = ApiKey::DeleteGroups;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    type Request = DeleteGroupsRequest;
    type Response = DeleteGroupsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DeleteGroupsRequest,
    ) -> Reply<DeleteGroupsResponse> {
        let mut seen = HashSet::new();
        let mut groups: Vec<_> = request.groups_names.iter().map(|name| text(name)).collect();
        groups.retain(|group| seen.insert(group.clone()));
        let had_empty = groups.iter().any(|group| group.is_empty());
        groups.retain(|group| !group.is_empty());
        let coordinator = cx.broker.groups.clone();
        Reply::Later(Box::pin(async move {
            let deleted = coordinator.delete_groups(groups).await;
            let mut results: Vec<_> =
                deleted.iter().map(|(group, deleted)| result(group, code_of(deleted))).collect();
            if had_empty {
                results.push(result("", code(GroupError::InvalidGroupId)));
            }
            DeleteGroupsResponse::default().with_results(results)
        }))
    }
}

fn result(group: &str, code: i16) -> DeletableGroupResult {
    DeletableGroupResult::default().with_group_id(group_id(group)).with_error_code(code)
}
