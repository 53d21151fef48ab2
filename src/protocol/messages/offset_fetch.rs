//! OffsetFetch, versions 1 to 10. Before version 8, a request names one group, then several.
//! Version 10 names topics by id (KIP-848).

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::message;
use crate::wire;

wire! {
    pub struct OffsetFetchRequest (flexible 6..) {
        group_id: StrBytes, in 0..=7;
        /// Null means all topics.
        topics: Option<Vec<OffsetFetchRequestTopic>> = Some(Vec::new()), in 0..=7;
        groups: Vec<OffsetFetchRequestGroup>, in 8..;
        require_stable: bool, in 7..;
    }
    pub struct OffsetFetchRequestTopic (flexible 6..) {
        name: StrBytes, in 0..=7;
        partition_indexes: Vec<i32>, in 0..=7;
    }
    pub struct OffsetFetchRequestGroup (flexible 6..) {
        group_id: StrBytes, in 8..;
        member_id: Option<StrBytes>, in 9..;
        member_epoch: i32 = -1, in 9..;
        /// Null means all topics.
        topics: Option<Vec<OffsetFetchRequestTopics>> = Some(Vec::new()), in 8..;
    }
    pub struct OffsetFetchRequestTopics (flexible 6..) {
        name: StrBytes, in 8..=9;
        topic_id: Uuid, in 10..;
        partition_indexes: Vec<i32>, in 8..;
    }
    pub struct OffsetFetchResponse (flexible 6..) {
        throttle_time_ms: i32, in 3..;
        topics: Vec<OffsetFetchResponseTopic>, in 0..=7;
        error_code: i16, in 2..=7;
        groups: Vec<OffsetFetchResponseGroup>, in 8..;
    }
    pub struct OffsetFetchResponseTopic (flexible 6..) {
        name: StrBytes, in 0..=7;
        partitions: Vec<OffsetFetchResponsePartition>, in 0..=7;
    }
    pub struct OffsetFetchResponsePartition (flexible 6..) {
        partition_index: i32, in 0..=7;
        committed_offset: i64, in 0..=7;
        committed_leader_epoch: i32 = -1, in 5..=7;
        metadata: Option<StrBytes>, in 0..=7;
        error_code: i16, in 0..=7;
    }
    pub struct OffsetFetchResponseGroup (flexible 6..) {
        group_id: StrBytes, in 8..;
        topics: Vec<OffsetFetchResponseTopics>, in 8..;
        error_code: i16, in 8..;
    }
    pub struct OffsetFetchResponseTopics (flexible 6..) {
        name: StrBytes, in 8..=9;
        topic_id: Uuid, in 10..;
        partitions: Vec<OffsetFetchResponsePartitions>, in 8..;
    }
    pub struct OffsetFetchResponsePartitions (flexible 6..) {
        partition_index: i32, in 8..;
        committed_offset: i64, in 8..;
        committed_leader_epoch: i32 = -1, in 8..;
        metadata: Option<StrBytes>, in 8..;
        error_code: i16, in 8..;
    }
}
message!(request OffsetFetchRequest, 1..=10);
message!(response OffsetFetchResponse, 1..=10);
