//! Shared by the three APIs that change voters: AddRaftVoter, RemoveRaftVoter and UpdateRaftVoter.

use std::time::Duration;

use super::{Context, ErrorCode, Forwarding, errors};
use crate::quorum::{Endpoint, VoterChangeError};

/// The time limit for a change whose request has no timeout (Kafka's `request.timeout.ms`).
pub const COMMIT_WITHIN: Duration = Duration::from_secs(30);

/// The error of a request that this node does not handle: its cluster id is wrong, it has timed
/// out, or this node does not lead the quorum.
pub fn refusal(cx: &Context<'_>, cluster_id: Option<&str>) -> Option<(i16, Option<String>)> {
    let quorum = &cx.broker.quorum;
    if let Some(told) = cluster_id.filter(|told| *told != quorum.cluster_id()) {
        let own = quorum.cluster_id();
        let why = format!("The given id \"{told}\" doesn't match the cluster id \"{own}\"");
        return Some((ErrorCode::InconsistentClusterId.code(), Some(why)));
    }
    if cx.forwarding == Forwarding::TimedOut {
        return Some((ErrorCode::RequestTimedOut.code(), None));
    }
    let leads = quorum.leadership().borrow().leader == Some(cx.broker.node.id);
    (!leads).then_some((ErrorCode::NotLeaderOrFollower.code(), None))
}

/// Moves the endpoint of the first controller listener to the front. If there is none, returns the
/// name of that listener and the given endpoints, both as Kafka prints them.
pub fn with_default_first(
    cx: &Context<'_>,
    mut endpoints: Vec<Endpoint>,
) -> Result<Vec<Endpoint>, (String, String)> {
    let settings = cx.broker.settings();
    let listener = settings.controller_listeners.first().map(|it| it.name.as_str());
    let listener = listener.unwrap_or("CONTROLLER");
    match endpoints.iter().position(|it| it.name.eq_ignore_ascii_case(listener)) {
        Some(at) => {
            endpoints.swap(0, at);
            Ok(endpoints)
        }
        None => {
            let told = endpoints.iter().map(|it| {
                format!("ListenerName({})={}/<unresolved>:{}", it.name, it.host, it.port)
            });
            let told: Vec<_> = told.collect();
            let told = format!("Endpoints(endpoints={{{}}})", told.join(", "));
            Err((format!("ListenerName({listener})"), told))
        }
    }
}

/// The error code and message of a change of voters.
pub fn outcome(outcome: &Result<(), VoterChangeError>) -> (i16, Option<String>) {
    let Err(error) = outcome else { return (errors::NONE, None) };
    let code = match error {
        VoterChangeError::NotLeader => return (ErrorCode::NotLeaderOrFollower.code(), None),
        VoterChangeError::Pending
        | VoterChangeError::NotEstablished
        | VoterChangeError::Uncommitted(..)
        | VoterChangeError::NotReady(_)
        | VoterChangeError::Lagging(_) => ErrorCode::RequestTimedOut,
        VoterChangeError::Unsupported(..) => ErrorCode::UnsupportedVersion,
        VoterChangeError::Duplicate(..) => ErrorCode::DuplicateVoter,
        VoterChangeError::NotFound(..) => ErrorCode::VoterNotFound,
        VoterChangeError::Failed(_) => ErrorCode::UnknownServerError,
    };
    (code.code(), Some(error.to_string()))
}
