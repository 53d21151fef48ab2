//! DescribeLogDirs, versions 1 to 5. Version 5 adds cordoned directories to the response (KIP-1066)
//! and does not change the request.

use kafka_protocol::protocol::StrBytes;

use super::message;
use crate::wire;

wire! {
    pub struct DescribeLogDirsRequest (flexible 2..) {
        /// Null means all topics.
        topics: Option<Vec<DescribableLogDirTopic>> = Some(Vec::new()), in 0..;
    }
    pub struct DescribableLogDirTopic (flexible 2..) {
        topic: StrBytes, in 0..;
        partitions: Vec<i32>, in 0..;
    }
    pub struct DescribeLogDirsResponse (flexible 2..) {
        throttle_time_ms: i32, in 0..;
        error_code: i16, in 3..;
        results: Vec<DescribeLogDirsResult>, in 0..;
    }
    pub struct DescribeLogDirsResult (flexible 2..) {
        error_code: i16, in 0..;
        log_dir: StrBytes, in 0..;
        topics: Vec<DescribeLogDirsTopic>, in 0..;
        total_bytes: i64 = -1, in 4..;
        usable_bytes: i64 = -1, in 4..;
        is_cordoned: bool, in 5..;
    }
    pub struct DescribeLogDirsTopic (flexible 2..) {
        name: StrBytes, in 0..;
        partitions: Vec<DescribeLogDirsPartition>, in 0..;
    }
    pub struct DescribeLogDirsPartition (flexible 2..) {
        partition_index: i32, in 0..;
        partition_size: i64, in 0..;
        offset_lag: i64, in 0..;
        is_future_key: bool, in 0..;
    }
}
message!(request DescribeLogDirsRequest, 1..=5);
message!(response DescribeLogDirsResponse, 1..=5);
