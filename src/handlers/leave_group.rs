//! LeaveGroup: removes members from a group. Before version 3, a request names one member.

use std::sync::Arc;

use kafka_protocol::messages::{
    ApiKey, LeaveGroupRequest, LeaveGroupResponse, leave_group_response::MemberResponse,
};

use super::{
    Context, Handler, Reply,
    conversions::{optional_str_bytes, optional_text, str_bytes, text},
    error_counts::{each, error_codes},
    errors::{group_code, group_code_of},
};
use crate::{
    coordinator::group::{
        GroupError,
        messages::{LeaveRequest, LeaveResult, LeavingMember},
    },
    protocol::checks::GROUP_READ,
};

pub struct LeaveGroup;

/// The first version that names several members. In earlier versions, the error of the member is
/// the error of the response.
const BATCHED_SINCE: i16 = 3;

impl Handler for LeaveGroup {
    const API: ApiKey = ApiKey::LeaveGroup;
    type Request = LeaveGroupRequest;
    type Response = LeaveGroupResponse;

    async fn handle(cx: &mut Context<'_>, request: LeaveGroupRequest) -> Reply<LeaveGroupResponse> {
        let version = cx.version;
        if let Err(code) = cx.check(GROUP_READ, &request.group_id) {
            return Reply::Now(LeaveGroupResponse::default().with_error_code(code.code()));
        }
        let group: Arc<str> = text(&request.group_id);
        let leave = LeaveRequest { group, members: leaving_members(&request, version) };
        let answer = cx.broker.coordinators.groups.leave(leave).await;
        Reply::Later(Box::pin(async move {
            response(answer.wait().await.and_then(|left| left), version)
        }))
    }
}

error_codes!(LeaveGroupResponse: |it| each!(it.members).chain([it.error_code]));

fn leaving_members(request: &LeaveGroupRequest, version: i16) -> Vec<LeavingMember> {
    if version < BATCHED_SINCE {
        let member_id = text(&request.member_id);
        return vec![LeavingMember { member_id, instance_id: None, reason: None }];
    }
    let members = request.members.iter().map(|member| LeavingMember {
        member_id: text(&member.member_id),
        instance_id: optional_text(member.group_instance_id.as_ref()),
        reason: optional_text(member.reason.as_ref()),
    });
    members.collect()
}

fn response(left: Result<Vec<LeaveResult>, GroupError>, version: i16) -> LeaveGroupResponse {
    let left = match left {
        Ok(left) => left,
        Err(error) => return LeaveGroupResponse::default().with_error_code(group_code(error)),
    };
    if version < BATCHED_SINCE {
        let code = left.first().map_or(0, |left| group_code_of(&left.result));
        return LeaveGroupResponse::default().with_error_code(code);
    }
    let members = left.into_iter().map(|left| {
        MemberResponse::default()
            .with_member_id(str_bytes(&left.member_id))
            .with_group_instance_id(optional_str_bytes(left.instance_id.as_ref()))
            .with_error_code(group_code_of(&left.result))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}
