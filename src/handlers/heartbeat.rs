//! Heartbeat: keeps the session of a group member alive. The response says whether a rebalance is
//! in progress.

use kafka_protocol::messages::{ApiKey, HeartbeatRequest, HeartbeatResponse};

use super::{
    Context, Handler, Reply,
    conversions::{optional_text, text},
    error_counts::error_codes,
    errors::group_code_of,
};
use crate::{
    coordinator::group::{GroupError, messages},
    protocol::checks::GROUP_READ,
};

pub struct Heartbeat;

impl Handler for Heartbeat {
    const API: ApiKey = ApiKey::Heartbeat;
    type Request = HeartbeatRequest;
    type Response = HeartbeatResponse;

    async fn handle(cx: &mut Context<'_>, request: HeartbeatRequest) -> Reply<HeartbeatResponse> {
        if let Err(code) = cx.check(GROUP_READ, &request.group_id) {
            return Reply::Now(HeartbeatResponse::default().with_error_code(code.code()));
        }
        let heartbeat = messages::HeartbeatRequest {
            group: text(&request.group_id),
            generation: request.generation_id,
            member_id: text(&request.member_id),
            instance_id: optional_text(request.group_instance_id.as_ref()),
        };
        let answer = cx.broker.coordinators.groups.heartbeat(heartbeat).await;
        Reply::Later(Box::pin(async move {
            let result = match answer.wait().await {
                // Not an error for the member: after the load, all members get new sessions.
                Err(GroupError::CoordinatorLoadInProgress) => Ok(()),
                answered => answered.and_then(|result| result),
            };
            HeartbeatResponse::default().with_error_code(group_code_of(&result))
        }))
    }
}

error_codes!(HeartbeatResponse: |it| [it.error_code]);
