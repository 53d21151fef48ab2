//! BrokerHeartbeat, versions 0 to 2. Version 2 adds cordoned directories to the request (KIP-1066)
//! and does not change the response.

use kafka_protocol::{messages::ApiKey, protocol::Request};
use uuid::Uuid;

use super::message;
use crate::wire;

wire! {
    pub struct BrokerHeartbeatRequest (flexible 0..) {
        broker_id: i32, in 0..;
        broker_epoch: i64 = -1, in 0..;
        current_metadata_offset: i64, in 0..;
        want_fence: bool, in 0..;
        want_shut_down: bool, in 0..;
        offline_log_dirs: Vec<Uuid>, in 1.., tag 0;
        /// Null from brokers that do not support cordoned directories.
        cordoned_log_dirs: Option<Vec<Uuid>>, in 2.., tag 1;
    }
    pub struct BrokerHeartbeatResponse (flexible 0..) {
        throttle_time_ms: i32, in 0..;
        error_code: i16, in 0..;
        is_caught_up: bool, in 0..;
        is_fenced: bool = true, in 0..;
        should_shut_down: bool, in 0..;
    }
}
message!(request BrokerHeartbeatRequest, 0..=2);
message!(response BrokerHeartbeatResponse, 0..=2);

impl Request for BrokerHeartbeatRequest {
    const KEY: i16 = ApiKey::BrokerHeartbeat as i16;
    type Response = BrokerHeartbeatResponse;
}
