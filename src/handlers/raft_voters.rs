//! What the three APIs that change the voters have in common.

use std::time::Duration;

use super::{Context, ErrorCode, Forwarding, errors};
use crate::quorum::{Endpoint, VoterChangeError};

/// Kafka's `request.timeout.ms`, where a request names no time of its own.
pub const COMMIT_WITHIN: Duration = Duration::from_secs(30);

/// Why this node does not even look at the change.
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
    let leads = quorum.leadership().borrow().leader == Some(cx.broker.node_id);
    (!leads).then_some((ErrorCode::NotLeaderOrFollower.code(), None))
}

/// The endpoints, that of the controllers' own listener first; or that listener and what was told.
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
