//! The shapes of all requests, from Kafka 4.3.1's message schemas, in the language of
//! [`parse`](super::parse). To serve a new API, add its row here and in
//! [`api`](crate::protocol::api).

use kafka_protocol::messages::ApiKey;

/// The shape of each request, sorted by API key.
pub static REQUESTS: &[(ApiKey, &str)] = &[
    (
        ApiKey::Produce,
        "
        transactional_id:str? acks:i16 timeout_ms:i32 topic_data:[
            name:str@-12 topic_id:uuid@13 partition_data:[ index:i32 records:records? ]
        ]
    ",
    ),
    (
        ApiKey::Fetch,
        "
        cluster_id:str?@12#0 replica_id:i32@-14 replica_state:{
            replica_id:i32 replica_epoch:i64
        }@15#1
        max_wait_ms:i32 min_bytes:i32 max_bytes:i32 isolation_level:i8 session_id:i32@7
        session_epoch:i32@7 topics:[
            topic:str@-12 topic_id:uuid@13 partitions:[
                partition:i32 current_leader_epoch:i32@9 fetch_offset:i64
                last_fetched_epoch:i32@12 log_start_offset:i64@5 partition_max_bytes:i32
                replica_directory_id:uuid@17#0 high_watermark:i64@18#1
            ]
        ]
        forgotten_topics_data:[ topic:str@-12 topic_id:uuid@13 partitions:[i32] ]@7
        rack_id:str@11
    ",
    ),
    (
        ApiKey::ListOffsets,
        "
        replica_id:i32 isolation_level:i8@2 topics:[
            name:str partitions:[ partition_index:i32 current_leader_epoch:i32@4 timestamp:i64 ]
        ]
        timeout_ms:i32@10
    ",
    ),
    (
        ApiKey::Metadata,
        "
        topics:[ topic_id:uuid@10 name:str?10 ]?1
        allow_auto_topic_creation:bool@4 include_cluster_authorized_operations:bool@8-10
        include_topic_authorized_operations:bool@8
    ",
    ),
    (
        ApiKey::OffsetCommit,
        "
        group_id:str generation_id_or_member_epoch:i32 member_id:str group_instance_id:str?@7
        retention_time_ms:i64@-4 topics:[
            name:str@-9 topic_id:uuid@10 partitions:[
                partition_index:i32 committed_offset:i64 committed_leader_epoch:i32@6
                committed_metadata:str?
            ]
        ]
    ",
    ),
    (
        ApiKey::OffsetFetch,
        "
        group_id:str@-7 topics:[ name:str partition_indexes:[i32] ]?2@-7
        groups:[
            group_id:str member_id:str?@9 member_epoch:i32@9 topics:[
                name:str@-9 topic_id:uuid@10 partition_indexes:[i32]
            ]?
        ]@8
        require_stable:bool@7
    ",
    ),
    (ApiKey::FindCoordinator, "key:str@-3 key_type:i8@1 coordinator_keys:[str]@4"),
    (
        ApiKey::JoinGroup,
        "
        group_id:str session_timeout_ms:i32 rebalance_timeout_ms:i32@1 member_id:str
        group_instance_id:str?@5 protocol_type:str protocols:[ name:str metadata:bytes ]
        reason:str?@8
    ",
    ),
    (ApiKey::Heartbeat, "group_id:str generation_id:i32 member_id:str group_instance_id:str?@3"),
    (
        ApiKey::LeaveGroup,
        "
        group_id:str member_id:str@-2 members:[
            member_id:str group_instance_id:str? reason:str?@5
        ]@3
    ",
    ),
    (
        ApiKey::SyncGroup,
        "
        group_id:str generation_id:i32 member_id:str group_instance_id:str?@3
        protocol_type:str?@5 protocol_name:str?@5 assignments:[ member_id:str assignment:bytes ]
    ",
    ),
    (ApiKey::DescribeGroups, "groups:[str] include_authorized_operations:bool@3"),
    (ApiKey::ListGroups, "states_filter:[str]@4 types_filter:[str]@5"),
    (ApiKey::ApiVersions, "client_software_name:str@3 client_software_version:str@3"),
    (
        ApiKey::CreateTopics,
        "
        topics:[
            name:str num_partitions:i32 replication_factor:i16 assignments:[
                partition_index:i32 broker_ids:[i32]
            ]
            configs:[ name:str value:str? ]
        ]
        timeout_ms:i32 validate_only:bool
    ",
    ),
    (
        ApiKey::DeleteTopics,
        "
        topics:[ name:str? topic_id:uuid ]@6
        topic_names:[str]@-5 timeout_ms:i32
    ",
    ),
    (
        ApiKey::DeleteRecords,
        "
        topics:[ name:str partitions:[ partition_index:i32 offset:i64 ] ]
        timeout_ms:i32
    ",
    ),
    (
        ApiKey::InitProducerId,
        "
        transactional_id:str? transaction_timeout_ms:i32 producer_id:i64@3 producer_epoch:i16@3
    ",
    ),
    (
        ApiKey::OffsetForLeaderEpoch,
        "
        replica_id:i32@3 topics:[
            topic:str partitions:[ partition:i32 current_leader_epoch:i32 leader_epoch:i32 ]
        ]
    ",
    ),
    (
        ApiKey::AddPartitionsToTxn,
        "
        transactions:[
            transactional_id:str producer_id:i64 producer_epoch:i16 verify_only:bool topics:[
                name:str partitions:[i32]
            ]
        ]@4
        v3_and_below_transactional_id:str@-3 v3_and_below_producer_id:i64@-3
        v3_and_below_producer_epoch:i16@-3 v3_and_below_topics:[ name:str partitions:[i32] ]@-3
    ",
    ),
    (
        ApiKey::AddOffsetsToTxn,
        "transactional_id:str producer_id:i64 producer_epoch:i16 group_id:str",
    ),
    (ApiKey::EndTxn, "transactional_id:str producer_id:i64 producer_epoch:i16 committed:bool"),
    (
        ApiKey::WriteTxnMarkers,
        "
        markers:[
            producer_id:i64 producer_epoch:i16 transaction_result:bool
            topics:[ name:str partition_indexes:[i32] ]
            coordinator_epoch:i32 transaction_version:i8@2
        ]
    ",
    ),
    (
        ApiKey::TxnOffsetCommit,
        "
        transactional_id:str group_id:str producer_id:i64 producer_epoch:i16 generation_id:i32@3
        member_id:str@3 group_instance_id:str?@3 topics:[
            name:str partitions:[
                partition_index:i32 committed_offset:i64 committed_leader_epoch:i32@2
                committed_metadata:str?
            ]
        ]
    ",
    ),
    (
        ApiKey::DescribeAcls,
        "
        resource_type_filter:i8 resource_name_filter:str? pattern_type_filter:i8
        principal_filter:str? host_filter:str? operation:i8 permission_type:i8
    ",
    ),
    (
        ApiKey::CreateAcls,
        "
        creations:[
            resource_type:i8 resource_name:str resource_pattern_type:i8 principal:str host:str
            operation:i8 permission_type:i8
        ]
    ",
    ),
    (
        ApiKey::DeleteAcls,
        "
        filters:[
            resource_type_filter:i8 resource_name_filter:str? pattern_type_filter:i8
            principal_filter:str? host_filter:str? operation:i8 permission_type:i8
        ]
    ",
    ),
    (
        ApiKey::DescribeConfigs,
        "
        resources:[ resource_type:i8 resource_name:str configuration_keys:[str]? ]
        include_synonyms:bool include_documentation:bool@3
    ",
    ),
    (
        ApiKey::AlterConfigs,
        "
        resources:[ resource_type:i8 resource_name:str configs:[ name:str value:str? ] ]
        validate_only:bool
    ",
    ),
    (ApiKey::AlterReplicaLogDirs, "dirs:[ path:str topics:[ name:str partitions:[i32] ] ]"),
    (ApiKey::DescribeLogDirs, "topics:[ topic:str partitions:[i32] ]?"),
    (
        ApiKey::CreatePartitions,
        "
        topics:[ name:str count:i32 assignments:[ broker_ids:[i32] ]? ]
        timeout_ms:i32 validate_only:bool
    ",
    ),
    (
        ApiKey::CreateDelegationToken,
        "
        owner_principal_type:str?@3 owner_principal_name:str?@3
        renewers:[ principal_type:str principal_name:str ] max_lifetime_ms:i64
    ",
    ),
    (ApiKey::RenewDelegationToken, "hmac:bytes renew_period_ms:i64"),
    (ApiKey::ExpireDelegationToken, "hmac:bytes expiry_time_period_ms:i64"),
    (ApiKey::DescribeDelegationToken, "owners:[ principal_type:str principal_name:str ]?"),
    (ApiKey::DeleteGroups, "groups_names:[str]"),
    (
        ApiKey::ElectLeaders,
        "election_type:i8@1 topic_partitions:[ topic:str partitions:[i32] ]? timeout_ms:i32",
    ),
    (
        ApiKey::IncrementalAlterConfigs,
        "
        resources:[
            resource_type:i8 resource_name:str configs:[ name:str config_operation:i8 value:str? ]
        ]
        validate_only:bool
    ",
    ),
    (
        ApiKey::AlterPartitionReassignments,
        "
        timeout_ms:i32 allow_replication_factor_change:bool@1 topics:[
            name:str partitions:[ partition_index:i32 replicas:[i32]? ]
        ]
    ",
    ),
    (
        ApiKey::ListPartitionReassignments,
        "timeout_ms:i32 topics:[ name:str partition_indexes:[i32] ]?",
    ),
    (ApiKey::OffsetDelete, "group_id:str topics:[ name:str partitions:[ partition_index:i32 ] ]"),
    (
        ApiKey::DescribeClientQuotas,
        "
        components:[ entity_type:str match_type:i8 match:str? ]
        strict:bool
    ",
    ),
    (
        ApiKey::AlterClientQuotas,
        "
        entries:[
            entity:[ entity_type:str entity_name:str? ]
            ops:[ key:str value:f64 remove:bool ]
        ]
        validate_only:bool
    ",
    ),
    (ApiKey::DescribeUserScramCredentials, "users:[ name:str ]?"),
    (ApiKey::DescribeQuorum, "topics:[ topic_name:str partitions:[ partition_index:i32 ] ]"),
    (
        ApiKey::AlterPartition,
        "
        broker_id:i32 broker_epoch:i64 topics:[
            topic_id:uuid partitions:[
                partition_index:i32 leader_epoch:i32 new_isr:[i32]@-2
                new_isr_with_epochs:[ broker_id:i32 broker_epoch:i64 ]@3
                leader_recovery_state:i8 partition_epoch:i32
            ]
        ]
    ",
    ),
    (
        ApiKey::UpdateFeatures,
        "
        timeout_ms:i32 feature_updates:[
            feature:str max_version_level:i16 allow_downgrade:bool@-0 upgrade_type:i8@1
        ]
        validate_only:bool@1
    ",
    ),
    (
        ApiKey::Envelope,
        "
        request_data:bytes request_principal:bytes? client_host_address:bytes
    ",
    ),
    (
        ApiKey::FetchSnapshot,
        "
        cluster_id:str?@0#0 replica_id:i32 max_bytes:i32 topics:[
            name:str partitions:[
                partition:i32 current_leader_epoch:i32 snapshot_id:{ end_offset:i64 epoch:i32 }
                position:i64 replica_directory_id:uuid@1#0
            ]
        ]
    ",
    ),
    (
        ApiKey::DescribeCluster,
        "
        include_cluster_authorized_operations:bool endpoint_type:i8@1
        include_fenced_brokers:bool@2
    ",
    ),
    (ApiKey::DescribeProducers, "topics:[ name:str partition_indexes:[i32] ]"),
    (
        ApiKey::BrokerRegistration,
        "
        broker_id:i32 cluster_id:str incarnation_id:uuid
        listeners:[ name:str host:str port:i16 security_protocol:i16 ]
        features:[ name:str min_supported_version:i16 max_supported_version:i16 ]
        rack:str? is_migrating_zk_broker:bool@1 log_dirs:[uuid]@2 previous_broker_epoch:i64@3
    ",
    ),
    (
        ApiKey::BrokerHeartbeat,
        "
        broker_id:i32 broker_epoch:i64 current_metadata_offset:i64 want_fence:bool
        want_shut_down:bool offline_log_dirs:[uuid]@1#0 cordoned_log_dirs:[uuid]?@2#1
    ",
    ),
    (ApiKey::UnregisterBroker, "broker_id:i32"),
    (ApiKey::DescribeTransactions, "transactional_ids:[str]"),
    (
        ApiKey::ListTransactions,
        "
        state_filters:[str] producer_id_filters:[i64] duration_filter:i64@1
        transactional_id_pattern:str?@2
    ",
    ),
    (ApiKey::AllocateProducerIds, "broker_id:i32 broker_epoch:i64"),
    (
        ApiKey::ConsumerGroupHeartbeat,
        "
        group_id:str member_id:str member_epoch:i32 instance_id:str? rack_id:str?
        rebalance_timeout_ms:i32 subscribed_topic_names:[str]? subscribed_topic_regex:str?@1
        server_assignor:str? topic_partitions:[ topic_id:uuid partitions:[i32] ]?
    ",
    ),
    (ApiKey::ConsumerGroupDescribe, "group_ids:[str] include_authorized_operations:bool"),
    (
        ApiKey::ControllerRegistration,
        "
        controller_id:i32 incarnation_id:uuid zk_migration_ready:bool
        listeners:[ name:str host:str port:i16 security_protocol:i16 ]
        features:[ name:str min_supported_version:i16 max_supported_version:i16 ]
    ",
    ),
    (
        ApiKey::AssignReplicasToDirs,
        "
        broker_id:i32 broker_epoch:i64 directories:[
            id:uuid topics:[ topic_id:uuid partitions:[ partition_index:i32 ] ]
        ]
    ",
    ),
    (ApiKey::ListConfigResources, "resource_types:[i8]@1"),
    (
        ApiKey::DescribeTopicPartitions,
        "
        topics:[ name:str ]
        response_partition_limit:i32 cursor:{ topic_name:str partition_index:i32 }?
    ",
    ),
    (
        ApiKey::AddRaftVoter,
        "
        cluster_id:str? timeout_ms:i32 voter_id:i32 voter_directory_id:uuid
        listeners:[ name:str host:str port:i16 ] ack_when_committed:bool@1
    ",
    ),
    (ApiKey::RemoveRaftVoter, "cluster_id:str? voter_id:i32 voter_directory_id:uuid"),
    (
        ApiKey::UpdateRaftVoter,
        "
        cluster_id:str? current_leader_epoch:i32 voter_id:i32 voter_directory_id:uuid
        listeners:[ name:str host:str port:i16 ]
        k_raft_version_feature:{ min_supported_version:i16 max_supported_version:i16 }
    ",
    ),
];
