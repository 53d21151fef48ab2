//! AddRaftVoter, versions 0 and 1. Version 1 adds `ack_when_committed` to the request (KIP-1186).

use kafka_protocol::{
    messages::ApiKey,
    protocol::{Request, StrBytes},
};
use uuid::Uuid;

use super::message;
use crate::wire;

wire! {
    pub struct AddRaftVoterRequest (flexible 0..) {
        cluster_id: Option<StrBytes>, in 0..;
        timeout_ms: i32, in 0..;
        voter_id: i32, in 0..;
        voter_directory_id: Uuid, in 0..;
        listeners: Vec<AddRaftVoterListener>, in 0..;
        /// Whether the response waits until the new voters are committed.
        ack_when_committed: bool = true, in 1..;
    }
    pub struct AddRaftVoterListener (flexible 0..) {
        name: StrBytes, in 0..;
        host: StrBytes, in 0..;
        port: u16, in 0..;
    }
    pub struct AddRaftVoterResponse (flexible 0..) {
        throttle_time_ms: i32, in 0..;
        error_code: i16, in 0..;
        error_message: Option<StrBytes>, in 0..;
    }
}
message!(request AddRaftVoterRequest, 0..=1);
message!(response AddRaftVoterResponse, 0..=1);

impl Request for AddRaftVoterRequest {
    const KEY: i16 = ApiKey::AddRaftVoter as i16;
    type Response = AddRaftVoterResponse;
}
