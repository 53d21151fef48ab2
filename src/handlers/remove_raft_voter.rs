//! RemoveRaftVoter (KIP-853): removes a controller from the voters of the quorum.

use kafka_protocol::messages::{ApiKey, RemoveRaftVoterRequest, RemoveRaftVoterResponse};

use super::{
    Context, ErrorCode, Handler, Reply, conversions::str_bytes, error_counts::error_codes,
    raft_voters,
};
use crate::protocol::{checks::CLUSTER_ALTER, error_code};

pub struct RemoveRaftVoter;

impl Handler for RemoveRaftVoter {
    const API: ApiKey = ApiKey::RemoveRaftVoter;
    type Request = RemoveRaftVoterRequest;
    type Response = RemoveRaftVoterResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: RemoveRaftVoterRequest,
    ) -> Reply<RemoveRaftVoterResponse> {
        let answer = |(code, why): (i16, Option<String>)| {
            RemoveRaftVoterResponse::default()
                .with_error_code(code)
                .with_error_message(why.as_deref().map(str_bytes))
        };
        if let Err(code) = cx.check_on_cluster(CLUSTER_ALTER) {
            let message = error_code::default_message(code.code()).to_owned();
            return Reply::Now(answer((code.code(), Some(message))));
        }
        if let Some(refusal) = raft_voters::refusal(cx, request.cluster_id.as_deref()) {
            return Reply::Now(answer(refusal));
        }
        let (id, directory_id) = (request.voter_id, request.voter_directory_id);
        if id < 0 || directory_id.is_nil() {
            let why = "Remove voter request didn't include a valid voter".to_owned();
            return Reply::Now(answer((ErrorCode::InvalidRequest.code(), Some(why))));
        }
        let quorum = cx.broker.quorum.clone();
        Reply::Later(Box::pin(async move {
            let outcome = quorum.remove_voter(id, directory_id, raft_voters::COMMIT_WITHIN).await;
            answer(raft_voters::outcome(&outcome))
        }))
    }
}

error_codes!(RemoveRaftVoterResponse: |it| [it.error_code]);
