//! WriteTxnMarkers, versions 1 and 2. Version 2 adds the transaction version to a marker
//! (KIP-1228) and does not change the response.

use kafka_protocol::{
    messages::ApiKey,
    protocol::{Request, StrBytes},
};

use super::message;
use crate::wire;

wire! {
    pub struct WriteTxnMarkersRequest (flexible 1..) {
        markers: Vec<WritableTxnMarker>, in 0..;
    }
    pub struct WritableTxnMarker (flexible 1..) {
        producer_id: i64, in 0..;
        producer_epoch: i16, in 0..;
        /// Whether the transaction commits. Otherwise it aborts.
        transaction_result: bool, in 0..;
        topics: Vec<WritableTxnMarkerTopic>, in 0..;
        coordinator_epoch: i32, in 0..;
        transaction_version: i8, in 2..;
    }
    pub struct WritableTxnMarkerTopic (flexible 1..) {
        name: StrBytes, in 0..;
        partition_indexes: Vec<i32>, in 0..;
    }
    pub struct WriteTxnMarkersResponse (flexible 1..) {
        markers: Vec<WritableTxnMarkerResult>, in 0..;
    }
    pub struct WritableTxnMarkerResult (flexible 1..) {
        producer_id: i64, in 0..;
        topics: Vec<WritableTxnMarkerTopicResult>, in 0..;
    }
    pub struct WritableTxnMarkerTopicResult (flexible 1..) {
        name: StrBytes, in 0..;
        partitions: Vec<WritableTxnMarkerPartitionResult>, in 0..;
    }
    pub struct WritableTxnMarkerPartitionResult (flexible 1..) {
        partition_index: i32, in 0..;
        error_code: i16, in 0..;
    }
}
message!(request WriteTxnMarkersRequest, 1..=2);
message!(response WriteTxnMarkersResponse, 1..=2);

impl Request for WriteTxnMarkersRequest {
    const KEY: i16 = ApiKey::WriteTxnMarkers as i16;
    type Response = WriteTxnMarkersResponse;
}
