//! ListOffsets, versions 1 to 11. Version 11 adds a special timestamp, but no field (KIP-1023).

use kafka_protocol::protocol::StrBytes;

use super::message;
use crate::wire;

wire! {
    pub struct ListOffsetsRequest (flexible 6..) {
        /// The broker id of a follower, or -1 for a consumer.
        replica_id: i32, in 0..;
        isolation_level: i8, in 2..;
        topics: Vec<ListOffsetsTopic>, in 0..;
        timeout_ms: i32, in 10..;
    }
    pub struct ListOffsetsTopic (flexible 6..) {
        name: StrBytes, in 0..;
        partitions: Vec<ListOffsetsPartition>, in 0..;
    }
    pub struct ListOffsetsPartition (flexible 6..) {
        partition_index: i32, in 0..;
        current_leader_epoch: i32 = -1, in 4..;
        timestamp: i64, in 0..;
    }
    pub struct ListOffsetsResponse (flexible 6..) {
        throttle_time_ms: i32, in 2..;
        topics: Vec<ListOffsetsTopicResponse>, in 0..;
    }
    pub struct ListOffsetsTopicResponse (flexible 6..) {
        name: StrBytes, in 0..;
        partitions: Vec<ListOffsetsPartitionResponse>, in 0..;
    }
    pub struct ListOffsetsPartitionResponse (flexible 6..) {
        partition_index: i32, in 0..;
        error_code: i16, in 0..;
        timestamp: i64 = -1, in 1..;
        offset: i64 = -1, in 1..;
        leader_epoch: i32 = -1, in 4..;
    }
}
message!(request ListOffsetsRequest, 1..=11);
message!(response ListOffsetsResponse, 1..=11);
