//! Tests of the API table against the message types and against Apache Kafka.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::*,
    protocol::{Decodable, Encodable, HeaderVersion, Message, Request},
};

use super::*;
use crate::protocol::{frame::decode_body, messages as ours};

fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).expect("a default message is encoded");
    out.freeze()
}

/// Checks that a request type and its response type have all versions of the row.
fn agrees<R: Request + Default>(key: ApiKey)
where
    R::Response: Default,
{
    agrees_both::<R, R::Response>(key);
}

/// The traits of a message that the check needs.
trait Whole: Message + HeaderVersion + Encodable + Decodable + Default {}
impl<T: Message + HeaderVersion + Encodable + Decodable + Default> Whole for T {}

fn agrees_both<Q: Whole, S: Whole>(key: ApiKey) {
    let row = find(key as i16).expect("in the table");
    assert_eq!(row.name, format!("{key:?}"));
    for version in row.versions() {
        for range in [Q::VERSIONS, S::VERSIONS] {
            assert!((range.min..=range.max).contains(&version), "{key:?} {version}");
        }
        assert_eq!(row.request_header_version(version), Q::header_version(version), "{key:?}");
        assert_eq!(row.response_header_version(version), S::header_version(version), "{key:?}");
        let body = encoded(&Q::default(), version);
        decode_body::<Q>(key, version, body).expect("a default request is decoded");
        S::decode(&mut encoded(&S::default(), version), version).expect("and its response");
    }
}

macro_rules! all_agree {
    ($($name:ident => $request:ident;)*) => {
        #[test]
        fn every_row_can_be_decoded_and_encoded() {
            let mut rows = 0;
            $(
                agrees::<$request>(ApiKey::$name);
                rows += 1;
            )*
            agrees_both::<ours::ListOffsetsRequest, ours::ListOffsetsResponse>(
                ApiKey::ListOffsets,
            );
            agrees_both::<ours::OffsetCommitRequest, ours::OffsetCommitResponse>(
                ApiKey::OffsetCommit,
            );
            agrees_both::<ours::OffsetFetchRequest, ours::OffsetFetchResponse>(
                ApiKey::OffsetFetch,
            );
            agrees_both::<ours::AddRaftVoterRequest, ours::AddRaftVoterResponse>(
                ApiKey::AddRaftVoter,
            );
            agrees_both::<ours::BrokerHeartbeatRequest, ours::BrokerHeartbeatResponse>(
                ApiKey::BrokerHeartbeat,
            );
            agrees_both::<ours::DescribeLogDirsRequest, ours::DescribeLogDirsResponse>(
                ApiKey::DescribeLogDirs,
            );
            agrees_both::<ours::WriteTxnMarkersRequest, ours::WriteTxnMarkersResponse>(
                ApiKey::WriteTxnMarkers,
            );
            assert_eq!(rows + 7, APIS.len());
        }
    };
}

all_agree! {
    Produce => ProduceRequest;
    Fetch => FetchRequest;
    Metadata => MetadataRequest;
    FindCoordinator => FindCoordinatorRequest;
    JoinGroup => JoinGroupRequest;
    Heartbeat => HeartbeatRequest;
    LeaveGroup => LeaveGroupRequest;
    SyncGroup => SyncGroupRequest;
    DescribeGroups => DescribeGroupsRequest;
    ListGroups => ListGroupsRequest;
    ApiVersions => ApiVersionsRequest;
    CreateTopics => CreateTopicsRequest;
    DeleteTopics => DeleteTopicsRequest;
    DeleteRecords => DeleteRecordsRequest;
    InitProducerId => InitProducerIdRequest;
    OffsetForLeaderEpoch => OffsetForLeaderEpochRequest;
    AddPartitionsToTxn => AddPartitionsToTxnRequest;
    AddOffsetsToTxn => AddOffsetsToTxnRequest;
    EndTxn => EndTxnRequest;
    TxnOffsetCommit => TxnOffsetCommitRequest;
    DescribeConfigs => DescribeConfigsRequest;
    AlterConfigs => AlterConfigsRequest;
    AlterReplicaLogDirs => AlterReplicaLogDirsRequest;
    CreatePartitions => CreatePartitionsRequest;
    DeleteGroups => DeleteGroupsRequest;
    ElectLeaders => ElectLeadersRequest;
    IncrementalAlterConfigs => IncrementalAlterConfigsRequest;
    ListPartitionReassignments => ListPartitionReassignmentsRequest;
    OffsetDelete => OffsetDeleteRequest;
    DescribeClientQuotas => DescribeClientQuotasRequest;
    AlterClientQuotas => AlterClientQuotasRequest;
    DescribeQuorum => DescribeQuorumRequest;
    UpdateFeatures => UpdateFeaturesRequest;
    DescribeCluster => DescribeClusterRequest;
    DescribeProducers => DescribeProducersRequest;
    ListConfigResources => ListConfigResourcesRequest;
    DescribeTopicPartitions => DescribeTopicPartitionsRequest;
    AlterPartitionReassignments => AlterPartitionReassignmentsRequest;
    AlterPartition => AlterPartitionRequest;
    Envelope => EnvelopeRequest;
    FetchSnapshot => FetchSnapshotRequest;
    BrokerRegistration => BrokerRegistrationRequest;
    UnregisterBroker => UnregisterBrokerRequest;
    AllocateProducerIds => AllocateProducerIdsRequest;
    ConsumerGroupHeartbeat => ConsumerGroupHeartbeatRequest;
    ConsumerGroupDescribe => ConsumerGroupDescribeRequest;
    ControllerRegistration => ControllerRegistrationRequest;
    AssignReplicasToDirs => AssignReplicasToDirsRequest;
    RemoveRaftVoter => RemoveRaftVoterRequest;
    UpdateRaftVoter => UpdateRaftVoterRequest;
    DescribeAcls => DescribeAclsRequest;
    CreateAcls => CreateAclsRequest;
    DeleteAcls => DeleteAclsRequest;
    CreateDelegationToken => CreateDelegationTokenRequest;
    RenewDelegationToken => RenewDelegationTokenRequest;
    ExpireDelegationToken => ExpireDelegationTokenRequest;
    DescribeDelegationToken => DescribeDelegationTokenRequest;
    DescribeUserScramCredentials => DescribeUserScramCredentialsRequest;
    DescribeTransactions => DescribeTransactionsRequest;
    ListTransactions => ListTransactionsRequest;
}

#[test]
fn rows_are_in_order_of_their_keys() {
    assert!(APIS.is_sorted_by_key(|api| api.key as i16));
    assert_eq!(find(18).map(|api| api.name), Some("ApiVersions"));
    assert_eq!(find(4), None);
    assert_eq!(find(-1), None);
}

/// The key, the lowest and the highest version of each API, from Apache Kafka 4.3.1's response to
/// ApiVersions.
const KAFKA: &[(i16, i16, i16)] = &[
    (0, 0, 13),
    (1, 4, 18),
    (2, 1, 11),
    (3, 0, 13),
    (8, 2, 10),
    (9, 1, 10),
    (10, 0, 6),
    (11, 0, 9),
    (12, 0, 4),
    (13, 0, 5),
    (14, 0, 5),
    (15, 0, 6),
    (16, 0, 5),
    (18, 0, 4),
    (19, 2, 7),
    (20, 1, 6),
    (21, 0, 2),
    (22, 0, 5),
    (23, 2, 4),
    (24, 0, 5),
    (25, 0, 4),
    (26, 0, 5),
    (27, 1, 2),
    (28, 0, 5),
    (29, 1, 3),
    (30, 1, 3),
    (31, 1, 3),
    (32, 1, 4),
    (33, 0, 2),
    (34, 1, 2),
    (35, 1, 5),
    (37, 0, 3),
    (38, 1, 3),
    (39, 1, 2),
    (40, 1, 2),
    (41, 1, 3),
    (42, 0, 2),
    (43, 0, 2),
    (44, 0, 1),
    (45, 0, 1),
    (46, 0, 0),
    (47, 0, 0),
    (48, 0, 1),
    (49, 0, 1),
    (50, 0, 0),
    (55, 0, 2),
    (56, 2, 3),
    (57, 0, 2),
    (58, 0, 0),
    (59, 0, 1),
    (60, 0, 2),
    (61, 0, 0),
    (62, 0, 4),
    (63, 0, 2),
    (64, 0, 0),
    (65, 0, 0),
    (66, 0, 2),
    (67, 0, 0),
    (68, 0, 1),
    (69, 0, 1),
    (70, 0, 0),
    (73, 0, 0),
    (74, 0, 1),
    (75, 0, 0),
    (80, 0, 1),
    (81, 0, 0),
    (82, 0, 0),
];

#[test]
fn versions_are_those_of_kafka() {
    let ours = APIS.iter().map(|api| (api.key as i16, api.advertised_min(), api.max));
    assert!(ours.eq(KAFKA.iter().copied()));
}
