//! JoinGroup: adds a member to a group. The response waits for the end of the join phase.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember,
};

use super::{
    Context, ErrorCode, Handler, Reply,
    conversions::{optional_str_bytes, optional_text, str_bytes, text},
    error_counts::error_codes,
    errors::group_code,
};
use crate::{
    base::environment::new_uuid,
    coordinator::group::messages::{JoinReply, JoinRequest, JoinedMember},
    protocol::checks::GROUP_READ,
};

pub struct JoinGroup;

impl Handler for JoinGroup {
    const API: ApiKey = ApiKey::JoinGroup;
    type Request = JoinGroupRequest;
    type Response = JoinGroupResponse;

    async fn handle(cx: &mut Context<'_>, request: JoinGroupRequest) -> Reply<JoinGroupResponse> {
        let version = cx.version;
        if let Err(code) = cx.check(GROUP_READ, &request.group_id) {
            return Reply::Now(denied(code, version));
        }
        let asked = text(&request.member_id);
        let answer = cx.broker.coordinators.groups.join(join_request(cx, &request)).await;
        Reply::Later(Box::pin(async move {
            let reply = answer.wait().await;
            response(reply.unwrap_or_else(|error| JoinReply::refused(asked, error)), version)
        }))
    }
}

error_codes!(JoinGroupResponse: |it| [it.error_code]);

fn denied(code: ErrorCode, version: i16) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code.code())
        .with_generation_id(-1)
        // Before version 7 the name cannot be null.
        .with_protocol_name((version < 7).then(Default::default))
}

fn join_request(cx: &Context<'_>, request: &JoinGroupRequest) -> JoinRequest {
    let protocols = request.protocols.iter().map(|protocol| {
        // The group keeps the metadata. A slice would keep the whole frame in memory.
        (text(&protocol.name), Bytes::copy_from_slice(&protocol.metadata))
    });
    JoinRequest {
        group: text(&request.group_id),
        member_id: text(&request.member_id),
        instance_id: optional_text(request.group_instance_id.as_ref()),
        client_id: cx.client_id().into(),
        client_host: cx.client_host().into(),
        session_timeout_ms: request.session_timeout_ms,
        // Version 0 has only one timeout.
        rebalance_timeout_ms: match cx.version {
            0 => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        },
        protocol_type: text(&request.protocol_type),
        protocols: protocols.collect(),
        requires_known_member_id: cx.version >= 4,
        supports_skipping_assignment: cx.version >= 9,
        fresh_id: new_uuid(),
    }
}

fn response(reply: JoinReply, version: i16) -> JoinGroupResponse {
    let protocol_name = optional_str_bytes(reply.protocol_name.as_ref());
    let member = |member: JoinedMember| {
        let instance_id = optional_str_bytes(member.instance_id.as_ref());
        JoinGroupResponseMember::default()
            .with_member_id(str_bytes(&member.member_id))
            .with_group_instance_id(instance_id.filter(|_| version >= 5))
            .with_metadata(member.metadata)
    };
    let mut response = JoinGroupResponse::default()
        .with_error_code(reply.error.map_or(0, group_code))
        .with_generation_id(reply.generation)
        .with_leader(str_bytes(&reply.leader))
        .with_member_id(str_bytes(&reply.member_id))
        .with_members(reply.members.into_iter().map(member).collect())
        // Before version 7 the name cannot be null.
        .with_protocol_name(if version < 7 {
            Some(protocol_name.unwrap_or_default())
        } else {
            protocol_name
        });
    if version >= 7 {
        response.protocol_type = optional_str_bytes(reply.protocol_type.as_ref());
    }
    if version >= 9 {
        response.skip_assignment = reply.skip_assignment;
    }
    response
}
