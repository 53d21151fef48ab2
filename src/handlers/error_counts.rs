//! The error codes of each response that count in `kafka_server_request_errors_total`: exactly
//! those that `errorCounts` of Kafka's response class counts.

use kafka_protocol::messages::*;

use super::fetch::reply::FetchReply;
use crate::protocol::messages::{
    AddRaftVoterResponse, BrokerHeartbeatResponse, DescribeLogDirsResponse, ListOffsetsResponse,
    OffsetCommitResponse, OffsetFetchResponse,
};

/// A response whose error codes are counted.
pub trait ErrorCodes {
    /// The error codes that count, including `NONE`.
    fn error_codes(&self) -> impl Iterator<Item = i16>;
}

macro_rules! error_codes {
    ($($response:ty: |$it:ident| $codes:expr;)*) => {
        $(impl ErrorCodes for $response {
            fn error_codes(&self) -> impl Iterator<Item = i16> {
                let $it = self;
                $codes.into_iter()
            }
        })*
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

error_codes! {
    ProduceResponse: |it| each!(it.responses, partition_responses);
    FetchReply: |it| each!(it.topics, partitions).chain([it.error_code]);
    ListOffsetsResponse: |it| each!(it.topics, partitions);
    ApiVersionsResponse: |it| [it.error_code];
    InitProducerIdResponse: |it| [it.error_code];
    MetadataResponse: |it| each!(it.topics).chain(each!(it.topics, partitions));
    CreateTopicsResponse: |it| each!(it.topics);
    DeleteTopicsResponse: |it| each!(it.responses);
    CreatePartitionsResponse: |it| each!(it.results);
    ElectLeadersResponse: |it| {
        each!(it.replica_election_results, partition_result).chain([it.error_code])
    };
    AlterPartitionReassignmentsResponse: |it| {
        each!(it.responses, partitions).chain([it.error_code])
    };
    ListPartitionReassignmentsResponse: |it| [it.error_code];
    DescribeQuorumResponse: |it| each!(it.topics, partitions).chain([it.error_code]);
    FetchSnapshotResponse: |it| each!(it.topics, partitions).chain([it.error_code]);
    AddRaftVoterResponse: |it| [it.error_code];
    RemoveRaftVoterResponse: |it| [it.error_code];
    UpdateRaftVoterResponse: |it| [it.error_code];
    UpdateFeaturesResponse: |it| each!(it.results).chain([it.error_code]);
    EnvelopeResponse: |it| [it.error_code];
    BrokerRegistrationResponse: |it| [it.error_code];
    BrokerHeartbeatResponse: |it| [it.error_code];
    AllocateProducerIdsResponse: |it| [it.error_code];
    ControllerRegistrationResponse: |it| [it.error_code];
    AlterPartitionResponse: |it| each!(it.topics, partitions).chain([it.error_code]);
    AssignReplicasToDirsResponse: |it| {
        let topics = it.directories.iter().flat_map(|dir| &dir.topics);
        let partitions = topics.flat_map(|topic| &topic.partitions);
        partitions.map(|it| it.error_code).chain([it.error_code])
    };
    DescribeClusterResponse: |it| [it.error_code];
    UnregisterBrokerResponse: |it| [it.error_code];
    DescribeTopicPartitionsResponse: |it| each!(it.topics).chain(each!(it.topics, partitions));
    DescribeConfigsResponse: |it| each!(it.results);
    AlterConfigsResponse: |it| each!(it.responses);
    IncrementalAlterConfigsResponse: |it| each!(it.responses);
    ListConfigResourcesResponse: |it| [it.error_code];
    DeleteRecordsResponse: |it| each!(it.topics, partitions);
    OffsetForLeaderEpochResponse: |it| each!(it.topics, partitions);
    AlterReplicaLogDirsResponse: |it| each!(it.results, partitions);
    DescribeLogDirsResponse: |it| each!(it.results).chain([it.error_code]);
    DescribeProducersResponse: |it| each!(it.topics, partitions);
    FindCoordinatorResponse: |it| each!(it.coordinators).chain([it.error_code]);
    JoinGroupResponse: |it| [it.error_code];
    SyncGroupResponse: |it| [it.error_code];
    HeartbeatResponse: |it| [it.error_code];
    LeaveGroupResponse: |it| each!(it.members).chain([it.error_code]);
    OffsetCommitResponse: |it| each!(it.topics, partitions);
    OffsetFetchResponse: |it| {
        let topics = it.groups.iter().flat_map(|group| &group.topics);
        let by_group = topics.flat_map(|it| &it.partitions).map(|it| it.error_code);
        by_group.chain(each!(it.groups)).chain(each!(it.topics, partitions)).chain([it.error_code])
    };
    OffsetDeleteResponse: |it| each!(it.topics, partitions).chain([it.error_code]);
    DescribeGroupsResponse: |it| each!(it.groups);
    ListGroupsResponse: |it| [it.error_code];
    DeleteGroupsResponse: |it| each!(it.results);
    DescribeAclsResponse: |it| [it.error_code];
    CreateAclsResponse: |it| each!(it.results);
    DeleteAclsResponse: |it| each!(it.filter_results);
    CreateDelegationTokenResponse: |it| [it.error_code];
    RenewDelegationTokenResponse: |it| [it.error_code];
    ExpireDelegationTokenResponse: |it| [it.error_code];
    DescribeDelegationTokenResponse: |it| [it.error_code];
    DescribeClientQuotasResponse: |it| [it.error_code];
    DescribeUserScramCredentialsResponse: |it| each!(it.results);
    ListTransactionsResponse: |it| [it.error_code];
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        describe_quorum_response::{PartitionData, TopicData},
        find_coordinator_response::Coordinator,
        leave_group_response::MemberResponse,
    };

    use super::*;
    use crate::protocol::messages::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
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
