//! The wait for the acknowledgement of a request's batches.

use kafka_protocol::messages::ProduceResponse;
use tokio::time::{Instant, timeout_at};

use crate::{
    handlers::{ErrorCode, acks::AckWait},
    telemetry::Parked,
};

/// A partition whose response waits until its records are acknowledged.
pub struct PartitionWait {
    pub topic_at: usize,
    pub partition_at: usize,
    pub wait: AckWait,
}

/// Completes the response once each wait has ended or the deadline has passed. `_parked` counts the
/// request in the purgatory metric until then.
pub async fn wait_for_acks(
    mut response: ProduceResponse,
    waits: Vec<PartitionWait>,
    deadline: Instant,
    _parked: Parked,
) -> ProduceResponse {
    for PartitionWait { topic_at, partition_at, wait } in waits {
        let error = match timeout_at(deadline, wait.refused()).await {
            Ok(None) => continue,
            Ok(Some(error)) => error,
            Err(_) => ErrorCode::RequestTimedOut,
        };
        let replies = &mut response.responses[topic_at].partition_responses;
        let reply = &mut replies[partition_at];
        reply.error_code = error.code();
        reply.base_offset = -1;
    }
    response
}
