//! UpdateRaftVoter (KIP-853): a voter reports its endpoints and its range of `kraft.version`.

use kafka_protocol::messages::{
    ApiKey, UpdateRaftVoterRequest, UpdateRaftVoterResponse, update_raft_voter_request::Listener,
    update_raft_voter_response::CurrentLeader,
};

use super::{
    Context, ErrorCode, Handler, Reply, conversions::str_bytes, error_counts::error_codes,
    raft_voters,
};
use crate::{
    protocol::checks::CLUSTER_ACTION,
    quorum::{Endpoint, Quorum, Voter},
};

pub struct UpdateRaftVoter;

impl Handler for UpdateRaftVoter {
    const API: ApiKey = ApiKey::UpdateRaftVoter;
    type Request = UpdateRaftVoterRequest;
    type Response = UpdateRaftVoterResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: UpdateRaftVoterRequest,
    ) -> Reply<UpdateRaftVoterResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_ACTION) {
            return Reply::Now(UpdateRaftVoterResponse::default().with_error_code(code.code()));
        }
        let quorum = cx.broker.quorum.clone();
        let epoch = quorum.leadership().borrow().epoch;
        let known = request.current_leader_epoch;
        let refusal = match raft_voters::refusal(cx, request.cluster_id.as_deref()) {
            Some((code, Some(_))) => Some(code),
            _ if known < epoch => Some(ErrorCode::FencedLeaderEpoch.code()),
            _ if known > epoch => Some(ErrorCode::UnknownLeaderEpoch.code()),
            Some((code, None)) => Some(code),
            None if request.voter_id < 0 || request.voter_directory_id.is_nil() => {
                Some(ErrorCode::InvalidRequest.code())
            }
            None => None,
        };
        if let Some(code) = refusal {
            return Reply::Now(answer(&quorum, code));
        }
        let endpoint = |it: &Listener| Endpoint {
            name: it.name.to_string(),
            host: it.host.to_string(),
            port: it.port,
        };
        let endpoints = request.listeners.iter().map(endpoint).collect();
        let Ok(endpoints) = raft_voters::with_default_first(cx, endpoints) else {
            return Reply::Now(answer(&quorum, ErrorCode::InvalidRequest.code()));
        };
        let range = &request.k_raft_version_feature;
        let voter = Voter {
            id: request.voter_id,
            directory_id: request.voter_directory_id,
            endpoints,
            kraft_versions: (range.min_supported_version, range.max_supported_version),
        };
        Reply::Later(Box::pin(async move {
            let outcome = quorum.update_voter(voter, raft_voters::COMMIT_WITHIN).await;
            answer(&quorum, raft_voters::outcome(&outcome).0)
        }))
    }
}

error_codes!(UpdateRaftVoterResponse: |it| [it.error_code]);

fn answer(quorum: &Quorum, code: i16) -> UpdateRaftVoterResponse {
    let leadership = *quorum.leadership().borrow();
    let leader = leadership.leader.unwrap_or(-1);
    let at = quorum.endpoint(leader);
    let current = CurrentLeader::default()
        .with_leader_id(leader.into())
        .with_leader_epoch(leadership.epoch)
        .with_host(str_bytes(at.as_ref().map_or("", |at| &at.host)))
        .with_port(at.as_ref().map_or(-1, |at| i32::from(at.port)));
    UpdateRaftVoterResponse::default().with_error_code(code).with_current_leader(current)
}
