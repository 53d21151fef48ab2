//! AddRaftVoter (KIP-853): adds a controller to the voters of the quorum.

use std::time::Duration;

use kafka_protocol::messages::ApiKey;

use super::{
    Context, ErrorCode, Handler, Reply, conversions::str_bytes, error_counts::error_codes,
    raft_voters,
};
use crate::{
    protocol::{
        checks::CLUSTER_ALTER,
        error_code,
        messages::{AddRaftVoterListener, AddRaftVoterRequest, AddRaftVoterResponse},
    },
    quorum::{Endpoint, Voter},
};

pub struct AddRaftVoter;

impl Handler for AddRaftVoter {
    const API: ApiKey = ApiKey::AddRaftVoter;
    type Request = AddRaftVoterRequest;
    type Response = AddRaftVoterResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: AddRaftVoterRequest,
    ) -> Reply<AddRaftVoterResponse> {
        let answer = |(code, why): (i16, Option<String>)| AddRaftVoterResponse {
            error_code: code,
            error_message: why.as_deref().map(str_bytes),
            ..AddRaftVoterResponse::default()
        };
        if let Err(code) = cx.check_on_cluster(CLUSTER_ALTER) {
            let message = error_code::default_message(code.code()).to_owned();
            return Reply::Now(answer((code.code(), Some(message))));
        }
        if let Some(refusal) = raft_voters::refusal(cx, request.cluster_id.as_deref()) {
            return Reply::Now(answer(refusal));
        }
        if request.voter_id < 0 || request.voter_directory_id.is_nil() {
            let why = "Add voter request didn't include a valid voter".to_owned();
            return Reply::Now(answer((ErrorCode::InvalidRequest.code(), Some(why))));
        }
        let endpoint = |it: &AddRaftVoterListener| Endpoint {
            name: it.name.to_string(),
            host: it.host.to_string(),
            port: it.port,
        };
        let endpoints: Vec<_> = request.listeners.iter().map(endpoint).collect();
        let endpoints = match raft_voters::with_default_first(cx, endpoints) {
            Ok(endpoints) => endpoints,
            Err((listener, told)) => {
                let why = format!(
                    "Add voter request didn't include the endpoint ({told}) for the default \
                     listener {listener}"
                );
                return Reply::Now(answer((ErrorCode::InvalidRequest.code(), Some(why))));
            }
        };
        let (id, directory_id) = (request.voter_id, request.voter_directory_id);
        let voter = Voter { id, directory_id, endpoints, kraft_versions: (0, 1) };
        let within = Duration::from_millis(request.timeout_ms.max(1) as u64);
        let quorum = cx.broker.quorum.clone();
        Reply::Later(Box::pin(async move {
            let outcome = match request.ack_when_committed {
                true => quorum.add_voter(voter, within).await,
                false => quorum.begin_adding_voter(voter, within).await,
            };
            answer(raft_voters::outcome(&outcome))
        }))
    }
}

error_codes!(AddRaftVoterResponse: |it| [it.error_code]);
