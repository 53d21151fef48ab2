//! The error codes of each response that count in `kafka_server_request_errors_total`: exactly
//! those that `errorCounts` of Kafka's response class counts.

/// A response whose error codes are counted.
pub trait ErrorCodes {
    /// The error codes that count, including `NONE`.
    fn error_codes(&self) -> impl Iterator<Item = i16>;
}

/// Defines which error codes of a response count. Each handler's file does so for its response.
macro_rules! error_codes {
    ($response:ty: |$it:ident| $codes:expr) => {
        impl $crate::handlers::error_counts::ErrorCodes for $response {
            fn error_codes(&self) -> impl Iterator<Item = i16> {
                let $it = self;
                $codes.into_iter()
            }
        }
    };
}

/// The error codes of the elements of a list, or of a list in each of its elements.
macro_rules! each {
    ($list:expr) => {
        $list.iter().map(|it| it.error_code)
    };
    ($list:expr, $inner:ident) => {
        $list.iter().flat_map(|it| &it.$inner).map(|it| it.error_code)
    };
}

pub(super) use {each, error_codes};

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        DescribeQuorumResponse, FindCoordinatorResponse, LeaveGroupResponse,
        describe_quorum_response::{PartitionData, TopicData},
        find_coordinator_response::Coordinator,
        leave_group_response::MemberResponse,
    };

    use super::*;
    use crate::protocol::messages::{
        OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartitions,
        OffsetFetchResponseTopics,
    };

    fn codes(response: &impl ErrorCodes) -> Vec<i16> {
        response.error_codes().filter(|code| *code != 0).collect()
    }

    #[test]
    fn nested_codes_count_with_those_above_them() {
        let partition = |code| PartitionData::default().with_error_code(code);
        let topic = TopicData::default().with_partitions(vec![partition(0), partition(3)]);
        let quorum =
            DescribeQuorumResponse::default().with_error_code(41).with_topics(vec![topic; 2]);
        assert_eq!(codes(&quorum), [3, 3, 41]);

        let partition = OffsetFetchResponsePartitions { error_code: 100, ..Default::default() };
        let topic = OffsetFetchResponseTopics { partitions: vec![partition], ..Default::default() };
        let group = |error_code, topics| OffsetFetchResponseGroup {
            topics,
            error_code,
            ..Default::default()
        };
        let groups = vec![group(16, vec![]), group(0, vec![topic])];
        assert_eq!(codes(&OffsetFetchResponse { groups, ..Default::default() }), [100, 16]);

        let coordinator = |code| Coordinator::default().with_error_code(code);
        let found = vec![coordinator(15), coordinator(0), coordinator(15)];
        let response = FindCoordinatorResponse::default().with_coordinators(found);
        assert_eq!(codes(&response), [15, 15]);

        let left = vec![MemberResponse::default().with_error_code(25)];
        let response = LeaveGroupResponse::default().with_error_code(16).with_members(left);
        assert_eq!(codes(&response), [25, 16]);
    }
}
