//! Tests of the table against the message crate. A request generated from its shape must decode to
//! its last byte, and encode to the same bytes again. All bytes that pass the check must decode.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::*,
    protocol::{Decodable, Encodable},
};
use proptest::prelude::*;

use super::{sample::Sample, *};
use crate::protocol::{messages as ours, schema::put_unsigned_varint};

/// Decodes bytes and encodes them again. `None` if they do not decode.
type Codec = fn(&[u8], i16) -> Option<Vec<u8>>;

fn codec<T: Decodable + Encodable>(body: &[u8], version: i16) -> Option<Vec<u8>> {
    let mut bytes = Bytes::copy_from_slice(body);
    let value = T::decode(&mut bytes, version).ok()?;
    let mut out = BytesMut::new();
    value.encode(&mut out, version).expect("what decodes also encodes");
    Some(out.to_vec())
}

macro_rules! codecs {
    ($($name:ident: $ty:ty,)*) => {
        fn codec_of(key: ApiKey) -> Codec {
            match key {
                $(ApiKey::$name => codec::<$ty>,)*
                other => panic!("{other:?} has no codec in this test"),
            }
        }
    };
}

codecs! {
    Produce: ProduceRequest,
    Fetch: FetchRequest,
    ListOffsets: ours::ListOffsetsRequest,
    Metadata: MetadataRequest,
    OffsetCommit: ours::OffsetCommitRequest,
    OffsetFetch: ours::OffsetFetchRequest,
    FindCoordinator: FindCoordinatorRequest,
    JoinGroup: JoinGroupRequest,
    Heartbeat: HeartbeatRequest,
    LeaveGroup: LeaveGroupRequest,
    SyncGroup: SyncGroupRequest,
    DescribeGroups: DescribeGroupsRequest,
    ListGroups: ListGroupsRequest,
    ApiVersions: ApiVersionsRequest,
    CreateTopics: CreateTopicsRequest,
    DeleteTopics: DeleteTopicsRequest,
    DeleteRecords: DeleteRecordsRequest,
    InitProducerId: InitProducerIdRequest,
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest,
    AddPartitionsToTxn: AddPartitionsToTxnRequest,
    AddOffsetsToTxn: AddOffsetsToTxnRequest,
    EndTxn: EndTxnRequest,
    WriteTxnMarkers: ours::WriteTxnMarkersRequest,
    TxnOffsetCommit: TxnOffsetCommitRequest,
    DescribeConfigs: DescribeConfigsRequest,
    AlterConfigs: AlterConfigsRequest,
    AlterReplicaLogDirs: AlterReplicaLogDirsRequest,
    DescribeLogDirs: ours::DescribeLogDirsRequest,
    CreatePartitions: CreatePartitionsRequest,
    DeleteGroups: DeleteGroupsRequest,
    ElectLeaders: ElectLeadersRequest,
    IncrementalAlterConfigs: IncrementalAlterConfigsRequest,
    ListPartitionReassignments: ListPartitionReassignmentsRequest,
    OffsetDelete: OffsetDeleteRequest,
    DescribeClientQuotas: DescribeClientQuotasRequest,
    AlterClientQuotas: AlterClientQuotasRequest,
    DescribeQuorum: DescribeQuorumRequest,
    UpdateFeatures: UpdateFeaturesRequest,
    DescribeCluster: DescribeClusterRequest,
    DescribeProducers: DescribeProducersRequest,
    ListConfigResources: ListConfigResourcesRequest,
    DescribeTopicPartitions: DescribeTopicPartitionsRequest,
    AlterPartitionReassignments: AlterPartitionReassignmentsRequest,
    AlterPartition: AlterPartitionRequest,
    Envelope: EnvelopeRequest,
    FetchSnapshot: FetchSnapshotRequest,
    BrokerRegistration: BrokerRegistrationRequest,
    BrokerHeartbeat: ours::BrokerHeartbeatRequest,
    UnregisterBroker: UnregisterBrokerRequest,
    AllocateProducerIds: AllocateProducerIdsRequest,
    ConsumerGroupHeartbeat: ConsumerGroupHeartbeatRequest,
    ConsumerGroupDescribe: ConsumerGroupDescribeRequest,
    ControllerRegistration: ControllerRegistrationRequest,
    AssignReplicasToDirs: AssignReplicasToDirsRequest,
    AddRaftVoter: ours::AddRaftVoterRequest,
    RemoveRaftVoter: RemoveRaftVoterRequest,
    UpdateRaftVoter: UpdateRaftVoterRequest,
    DescribeAcls: DescribeAclsRequest,
    CreateAcls: CreateAclsRequest,
    DeleteAcls: DeleteAclsRequest,
    CreateDelegationToken: CreateDelegationTokenRequest,
    RenewDelegationToken: RenewDelegationTokenRequest,
    ExpireDelegationToken: ExpireDelegationTokenRequest,
    DescribeDelegationToken: DescribeDelegationTokenRequest,
    DescribeUserScramCredentials: DescribeUserScramCredentialsRequest,
    DescribeTransactions: DescribeTransactionsRequest,
    ListTransactions: ListTransactionsRequest,
}

/// A request with random values.
fn random_message(row: &api::Api, version: i16, seed: u64) -> Vec<u8> {
    Sample::random(row.key, version, seed).body
}

fn each_version(mut check: impl FnMut(&'static api::Api, i16)) {
    for row in api::APIS {
        for version in row.versions() {
            check(row, version);
        }
    }
}

/// A tagged field with its default value is not encoded, so requests with such fields are compared
/// after a second round. All others must be equal after the first.
#[test]
fn random_messages_walk_to_their_end_and_mean_the_same_to_the_decoder() {
    each_version(|row, version| {
        for seed in 0..40 {
            let body = random_message(row, version, seed);
            let name = row.name;
            let walked = walk(row.key as i16, version, &body);
            let walked = walked.unwrap_or_else(|e| panic!("{name} {version}: {e}: {body:x?}"));
            assert_eq!(walked.trailing, 0, "{name} {version}");
            let codec = codec_of(row.key);
            let again = codec(&body, version);
            let again = again.unwrap_or_else(|| panic!("{name} {version} does not decode"));
            if again.len() == body.len() {
                assert_eq!(again, body, "{name} {version}");
            } else {
                assert_eq!(codec(&again, version).as_ref(), Some(&again), "{name} {version}");
                // Tagged fields at their defaults are left out.
                let tagged = [ApiKey::Fetch, ApiKey::FetchSnapshot, ApiKey::BrokerHeartbeat];
                assert!(tagged.contains(&row.key), "{name} has no tagged fields");
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn request_that_passes_shape_check_decodes(
        seed: u64,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        each_version(|row, version| {
            let mut body = random_message(row, version, seed);
            for (at, byte, way) in &cuts {
                if body.is_empty() {
                    break;
                }
                let at = at.index(body.len());
                match way {
                    0 => body[at] = *byte,
                    1 => body[at] ^= 1 << (byte % 8),
                    2 => body.insert(at, *byte),
                    _ => body.truncate(at),
                }
            }
            let checked = check_request(row.key as i16, version, Bytes::copy_from_slice(&body));
            if let Ok(plain) = checked {
                let decoded = codec_of(row.key)(&plain, version);
                assert!(decoded.is_some(), "{} {version}: {body:x?}", row.name);
            }
        });
    }
}

/// The estimate of memory of an element of the array at `path`, which has the index of a field in
/// each struct.
fn counted(key: ApiKey, path: &[usize]) -> usize {
    let mut fields = shape(key as i16).expect("a shape");
    for (depth, at) in path.iter().enumerate() {
        let Kind::Array(item) = &fields[*at].kind else { panic!("not an array") };
        if depth + 1 == path.len() {
            return item.memory();
        }
        let Kind::Struct(inner) = item.as_ref() else { panic!("not of structs") };
        fields = inner;
    }
    unreachable!("a path has an end")
}

/// Compares the estimate of memory with the size of the decoded structs. It must not be lower.
#[test]
fn elements_are_counted_at_no_less_than_their_size() {
    macro_rules! sizes {
        ($($key:ident $path:expr => $ty:ty;)*) => {$(
            let (count, size) = (counted(ApiKey::$key, &$path), size_of::<$ty>());
            assert!(count >= size, "{count} counted, {size} needed: {}", stringify!($ty));
        )*};
    }
    sizes! {
        Produce [3] => produce_request::TopicProduceData;
        Produce [3, 2] => produce_request::PartitionProduceData;
        Fetch [9] => fetch_request::FetchTopic;
        Fetch [9, 2] => fetch_request::FetchPartition;
        Fetch [10] => fetch_request::ForgottenTopic;
        ListOffsets [2] => ours::ListOffsetsTopic;
        ListOffsets [2, 1] => ours::ListOffsetsPartition;
        Metadata [0] => metadata_request::MetadataRequestTopic;
        OffsetCommit [5] => ours::OffsetCommitRequestTopic;
        OffsetCommit [5, 2] => ours::OffsetCommitRequestPartition;
        OffsetFetch [1] => ours::OffsetFetchRequestTopic;
        OffsetFetch [2] => ours::OffsetFetchRequestGroup;
        OffsetFetch [2, 3] => ours::OffsetFetchRequestTopics;
        FindCoordinator [2] => kafka_protocol::protocol::StrBytes;
        JoinGroup [6] => join_group_request::JoinGroupRequestProtocol;
        LeaveGroup [2] => leave_group_request::MemberIdentity;
        SyncGroup [6] => sync_group_request::SyncGroupRequestAssignment;
        CreateTopics [0] => create_topics_request::CreatableTopic;
        CreateTopics [0, 3] => create_topics_request::CreatableReplicaAssignment;
        CreateTopics [0, 4] => create_topics_request::CreatableTopicConfig;
        DeleteTopics [0] => delete_topics_request::DeleteTopicState;
        DeleteRecords [0] => delete_records_request::DeleteRecordsTopic;
        DeleteRecords [0, 1] => delete_records_request::DeleteRecordsPartition;
        OffsetForLeaderEpoch [1] => offset_for_leader_epoch_request::OffsetForLeaderTopic;
        OffsetForLeaderEpoch [1, 1] => offset_for_leader_epoch_request::OffsetForLeaderPartition;
        AddPartitionsToTxn [0] => add_partitions_to_txn_request::AddPartitionsToTxnTransaction;
        AddPartitionsToTxn [0, 4] => add_partitions_to_txn_request::AddPartitionsToTxnTopic;
        AddPartitionsToTxn [4] => add_partitions_to_txn_request::AddPartitionsToTxnTopic;
        TxnOffsetCommit [7] => txn_offset_commit_request::TxnOffsetCommitRequestTopic;
        TxnOffsetCommit [7, 1] => txn_offset_commit_request::TxnOffsetCommitRequestPartition;
        DescribeConfigs [0] => describe_configs_request::DescribeConfigsResource;
        AlterConfigs [0] => alter_configs_request::AlterConfigsResource;
        AlterConfigs [0, 2] => alter_configs_request::AlterableConfig;
        AlterReplicaLogDirs [0] => alter_replica_log_dirs_request::AlterReplicaLogDir;
        DescribeLogDirs [0] => ours::DescribableLogDirTopic;
        CreatePartitions [0] => create_partitions_request::CreatePartitionsTopic;
        CreatePartitions [0, 2] => create_partitions_request::CreatePartitionsAssignment;
        ElectLeaders [1] => elect_leaders_request::TopicPartitions;
        IncrementalAlterConfigs [0] => incremental_alter_configs_request::AlterConfigsResource;
        IncrementalAlterConfigs [0, 2] => incremental_alter_configs_request::AlterableConfig;
        ListPartitionReassignments [1] =>
            list_partition_reassignments_request::ListPartitionReassignmentsTopics;
        OffsetDelete [1] => offset_delete_request::OffsetDeleteRequestTopic;
        OffsetDelete [1, 1] => offset_delete_request::OffsetDeleteRequestPartition;
        DescribeClientQuotas [0] => describe_client_quotas_request::ComponentData;
        AlterClientQuotas [0] => alter_client_quotas_request::EntryData;
        AlterClientQuotas [0, 0] => alter_client_quotas_request::EntityData;
        AlterClientQuotas [0, 1] => alter_client_quotas_request::OpData;
        DescribeQuorum [0] => describe_quorum_request::TopicData;
        DescribeQuorum [0, 1] => describe_quorum_request::PartitionData;
        UpdateFeatures [1] => update_features_request::FeatureUpdateKey;
        DescribeProducers [0] => describe_producers_request::TopicRequest;
        ConsumerGroupHeartbeat [6] => kafka_protocol::protocol::StrBytes;
        ConsumerGroupHeartbeat [9] => consumer_group_heartbeat_request::TopicPartitions;
        DescribeTopicPartitions [0] => describe_topic_partitions_request::TopicRequest;
    }
}

fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<()> {
    walk(api as i16, version, body).map(|_| ())
}

/// Kafka accepts any negative length as null. The decoders accept only -1.
#[test]
fn negative_lengths_become_null() {
    let body = |bytes: &'static [u8]| Bytes::from_static(bytes);
    let check = |version, bytes| check_request(ApiKey::Metadata as i16, version, body(bytes));
    assert_eq!(check(1, &[0xff, 0xff, 0xff, 0xf9]), Ok(body(&[0xff; 4])));
    assert_eq!(check(0, &[0xff, 0xff, 0xff, 0xf9]), Err(WireError::UnexpectedNull));
    let join = |instance_id_len: [u8; 2]| {
        let before = &[&[0, 1, b'g'][..], &[0; 8], &[0, 0]].concat();
        Bytes::from([before, &instance_id_len[..], &[0, 0], &[0; 4]].concat())
    };
    let checked = check_request(ApiKey::JoinGroup as i16, 5, join([0xff, 0xfd]));
    assert_eq!(checked, Ok(join([0xff, 0xff])));
}

#[test]
fn large_honest_requests_pass() {
    let topics = |count: i32| {
        let mut out = BytesMut::new();
        out.put_i32(count);
        for topic in 0..count {
            let name = format!("topic-{topic:05}");
            out.put_i16(name.len() as i16);
            out.put_slice(name.as_bytes());
        }
        out
    };
    assert_eq!(check(ApiKey::Metadata, 1, &topics(10_000)), Ok(()));

    // A Fetch takes the most memory if each topic has one partition.
    for (topics, partitions) in [(1, 10_000), (10_000, 1)] {
        let mut out = BytesMut::new();
        out.put_slice(&[0; 4 + 4 + 4 + 1 + 4 + 4]);
        put_unsigned_varint(&mut out, topics + 1);
        for _ in 0..topics {
            out.put_slice(&[7; 16]);
            put_unsigned_varint(&mut out, partitions + 1);
            for _ in 0..partitions {
                out.put_slice(&[0; 4 + 4 + 8 + 4 + 8 + 4 + 1]);
            }
            out.put_u8(0);
        }
        out.put_slice(&[1, 1, 0]);
        assert_eq!(check(ApiKey::Fetch, 17, &out), Ok(()), "{topics} x {partitions}");
    }
}

/// A ConsumerGroupHeartbeat of version 1 with these topic names and owned partitions.
fn consumer_heartbeat(names: &[&str], topics: u32, partitions: u32) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&[2, b'g', 2, b'm', 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    put_unsigned_varint(&mut out, names.len() as u32 + 1);
    for name in names {
        put_unsigned_varint(&mut out, name.len() as u32 + 1);
        out.put_slice(name.as_bytes());
    }
    out.put_slice(&[0, 0]); // neither a pattern nor an assignor
    put_unsigned_varint(&mut out, topics + 1);
    for _ in 0..topics {
        out.put_slice(&[7; 16]);
        put_unsigned_varint(&mut out, partitions + 1);
        (0..partitions).for_each(|index| out.put_u32(index));
        out.put_u8(0);
    }
    out.put_u8(0);
    out
}

#[test]
fn heartbeats_of_consumer_groups_have_bounded_memory() {
    let check = |frame: BytesMut| check(ApiKey::ConsumerGroupHeartbeat, 1, &frame);
    assert_eq!(check(consumer_heartbeat(&["a topic"; 50_000], 1, 100_000)), Ok(()));
    assert_eq!(check(consumer_heartbeat(&[], 10_000, 10)), Ok(()));
    let refused = Err(WireError::TooManyElements);
    assert_eq!(check(consumer_heartbeat(&[], 100_000, 1)), refused);
    assert_eq!(check(consumer_heartbeat(&["t"; 1_000_000], 0, 0)), refused);
    let (fits, long) = ("x".repeat(32_767), "x".repeat(32_768));
    assert_eq!(check(consumer_heartbeat(&[&fits], 0, 0)), Ok(()));
    assert_eq!(check(consumer_heartbeat(&[&long], 0, 0)), Err(WireError::LengthTooLarge));
}

#[test]
fn frames_of_nothing_but_elements_do_not_pass() {
    let mut names = BytesMut::new();
    names.put_i32(10_000_000);
    names.resize(4 + 20_000_000, 0);
    assert_eq!(check(ApiKey::Metadata, 1, &names), Err(WireError::TooManyElements));

    let mut tags = BytesMut::new();
    put_unsigned_varint(&mut tags, 1_000_000);
    for tag in 0..1_000_000 {
        put_unsigned_varint(&mut tags, tag);
        tags.put_u8(0);
    }
    assert_eq!(check(ApiKey::ListGroups, 3, &tags), Err(WireError::TooManyElements));
}

#[test]
fn malformed_lengths_have_their_errors() {
    let metadata = |version, body: &[u8]| check(ApiKey::Metadata, version, body);
    assert_eq!(metadata(0, &[0xff; 4]), Err(WireError::UnexpectedNull), "null from 1 on");
    assert_eq!(metadata(1, &[0xff; 4]), Ok(()));
    assert_eq!(metadata(1, &[0x7f, 0xff, 0xff, 0xff]), Err(WireError::LengthTooLarge));
    assert_eq!(metadata(1, &[0, 0, 0]), Err(WireError::Truncated));
    assert_eq!(metadata(1, &[0, 0, 0, 1, 0xff, 0xff]), Err(WireError::UnexpectedNull));
    assert_eq!(metadata(1, &[0, 0, 0, 1, 0, 1, 0xff]), Err(WireError::NotUtf8));
    assert_eq!(metadata(1, &[0, 0, 0, 0, 9, 9]), Ok(()), "Kafka ignores trailing bytes");
    assert_eq!(metadata(9, &[0x80, 0x80, 0x80, 0x80, 0x80, 1]), Err(WireError::VarintTooLong));
    assert_eq!(metadata(9, &[0x81, 0x80, 0x80, 0x80, 0x10]), Err(WireError::VarintTooLong));
    assert_eq!(metadata(9, &[0x81, 0x80, 0x80, 0x80, 0, 0, 0, 0, 0]), Ok(()), "one, at length");
    assert_eq!(metadata(9, &[1, 0, 0, 0, 1, 5, 9, 0]), Err(WireError::Truncated));
    assert_eq!(metadata(14, &[]), Err(WireError::UnsupportedVersion(14)));
    assert_eq!(check_request(4, 0, Bytes::new()), Err(WireError::UnsupportedVersion(0)));

    let mut long = BytesMut::new();
    put_unsigned_varint(&mut long, 32_768 + 1);
    long.resize(3 + 32_768, b'a');
    long.put_slice(&[1, 0]);
    assert_eq!(check(ApiKey::FindCoordinator, 3, &long), Err(WireError::LengthTooLarge));
}

#[test]
fn every_api_has_a_shape_and_every_shape_an_api() {
    let shapes = SHAPES.iter().map(|(key, _)| *key);
    assert!(shapes.eq(api::APIS.iter().map(|api| api.key as i16)));
}

#[test]
fn memory_does_not_grow_with_large_frames() {
    assert_eq!(memory_limit(0), 1 << 20);
    assert_eq!(memory_limit(1 << 20), 3 << 20);
    assert_eq!(memory_limit(100 << 20), 4 << 20);
    assert_eq!(memory_limit(usize::MAX), 4 << 20);
}
