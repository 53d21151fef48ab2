//! DeleteGroups: deletes empty groups with their committed offsets.

use std::collections::HashSet;

use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};

use super::{
    Context, Handler, Reply,
    groups::{code_of, group_id, text},
};

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
        let coordinator = cx.broker.coordinators.groups.clone();
        Reply::Later(Box::pin(async move {
            let deleted = coordinator.delete_groups(groups).await;
            let results = deleted.iter().map(|(group, deleted)| {
                DeletableGroupResult::default()
                    .with_group_id(group_id(group))
                    .with_error_code(code_of(deleted))
            });
            DeleteGroupsResponse::default().with_results(results.collect())
        }))
    }
}
