//! OffsetCommit, versions 2 to 10. Version 10 names topics by id (KIP-848).

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::message;
use crate::wire;

wire! {
    pub struct OffsetCommitRequest (flexible 8..) {
        group_id: StrBytes, in 0..;
        /// The generation of a classic group's member, or the epoch of a consumer group's.
        generation_id_or_member_epoch: i32 = -1, in 1..;
        member_id: StrBytes, in 1..;
        group_instance_id: Option<StrBytes>, in 7..;
        retention_time_ms: i64 = -1, in 2..=4;
        topics: Vec<OffsetCommitRequestTopic>, in 0..;
    }
    pub struct OffsetCommitRequestTopic (flexible 8..) {
        name: StrBytes, in 0..=9;
        topic_id: Uuid, in 10..;
        partitions: Vec<OffsetCommitRequestPartition>, in 0..;
    }
    pub struct OffsetCommitRequestPartition (flexible 8..) {
        partition_index: i32, in 0..;
        committed_offset: i64, in 0..;
        committed_leader_epoch: i32 = -1, in 6..;
        committed_metadata: Option<StrBytes>, in 0..;
    }
    pub struct OffsetCommitResponse (flexible 8..) {
        throttle_time_ms: i32, in 3..;
        topics: Vec<OffsetCommitResponseTopic>, in 0..;
    }
    pub struct OffsetCommitResponseTopic (flexible 8..) {
        name: StrBytes, in 0..=9;
        topic_id: Uuid, in 10..;
        partitions: Vec<OffsetCommitResponsePartition>, in 0..;
    }
    pub struct OffsetCommitResponsePartition (flexible 8..) {
        partition_index: i32, in 0..;
        error_code: i16, in 0..;
    }
}
message!(request OffsetCommitRequest, 2..=10);
message!(response OffsetCommitResponse, 2..=10);
