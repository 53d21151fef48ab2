//! SyncGroup: the leader of the group sends all assignments, and each member gets its own.

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, SyncGroupRequest, SyncGroupResponse};

use super::{
    Context, Handler, Reply,
    conversions::{optional_str_bytes, optional_text, text},
    error_counts::error_codes,
    errors::group_code,
};
use crate::{
    coordinator::group::{
        GroupError,
        messages::{SyncReply, SyncRequest},
    },
    protocol::checks::GROUP_READ,
};

pub struct SyncGroup;

impl Handler for SyncGroup {
    const API: ApiKey = ApiKey::SyncGroup;
    type Request = SyncGroupRequest;
    type Response = SyncGroupResponse;

    async fn handle(cx: &mut Context<'_>, request: SyncGroupRequest) -> Reply<SyncGroupResponse> {
        let version = cx.version;
        // From version 5 on, both fields are required (KIP-559).
        if version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
            let reply = SyncReply::refused(GroupError::InconsistentGroupProtocol);
            return Reply::Now(response(reply, version));
        }
        if let Err(code) = cx.check(GROUP_READ, &request.group_id) {
            return Reply::Now(SyncGroupResponse::default().with_error_code(code.code()));
        }
        let assignments = request.assignments.iter().map(|assignment| {
            (text(&assignment.member_id), Bytes::copy_from_slice(&assignment.assignment))
        });
        let sync = SyncRequest {
            group: text(&request.group_id),
            generation: request.generation_id,
            member_id: text(&request.member_id),
            instance_id: optional_text(request.group_instance_id.as_ref()),
            protocol_type: optional_text(request.protocol_type.as_ref()),
            protocol_name: optional_text(request.protocol_name.as_ref()),
            assignments: assignments.collect(),
        };
        let answer = cx.broker.coordinators.groups.sync(sync).await;
        Reply::Later(Box::pin(async move {
            response(answer.wait().await.unwrap_or_else(SyncReply::refused), version)
        }))
    }
}

error_codes!(SyncGroupResponse: |it| [it.error_code]);

fn response(reply: SyncReply, version: i16) -> SyncGroupResponse {
    let mut response = SyncGroupResponse::default()
        .with_error_code(reply.error.map_or(0, group_code))
        .with_assignment(reply.assignment);
    if version >= 5 {
        response.protocol_type = optional_str_bytes(reply.protocol_type.as_ref());
        response.protocol_name = optional_str_bytes(reply.protocol_name.as_ref());
    }
    response
}
