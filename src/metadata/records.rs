//! The declarations of KRaft's metadata records, field by field as Kafka 4.3.1's
//! `common/metadata/*.json` has them.

use bytes::Bytes;
use uuid::Uuid;

use crate::wire;

wire! {
    /// A broker has registered; it starts fenced unless the record says otherwise.
    pub struct RegisterBrokerRecord (flexible 0..) {
        broker_id: i32, in 0..;
        is_migrating_zk_broker: bool, in 2..;
        incarnation_id: Uuid, in 0..;
        broker_epoch: i64, in 0..;
        end_points: Vec<BrokerEndpoint>, in 0..;
        features: Vec<BrokerFeature>, in 0..;
        rack: Option<String>, in 0..;
        fenced: bool = true, in 0..;
        in_controlled_shutdown: bool, in 1..;
        log_dirs: Vec<Uuid>, in 3.., tag 0;
        cordoned_log_dirs: Option<Vec<Uuid>>, in 4.., tag 1;
    }
    /// Where a broker listens.
    pub struct BrokerEndpoint (flexible 0..) {
        name: String, in 0..;
        host: String, in 0..;
        port: u16, in 0..;
        security_protocol: i16, in 0..;
    }
    /// A feature range that a broker supports.
    pub struct BrokerFeature (flexible 0..) {
        name: String, in 0..;
        min_supported_version: i16, in 0..;
        max_supported_version: i16, in 0..;
    }
    /// A broker is no longer part of the cluster.
    pub struct UnregisterBrokerRecord (flexible 0..) {
        broker_id: i32, in 0..;
        broker_epoch: i64, in 0..;
    }
    /// A topic exists, under this name and id.
    pub struct TopicRecord (flexible 0..) {
        name: String, in 0..;
        topic_id: Uuid, in 0..;
    }
    /// A partition's first state.
    pub struct PartitionRecord (flexible 0..) {
        partition_id: i32 = -1, in 0..;
        topic_id: Uuid, in 0..;
        replicas: Vec<i32>, in 0..;
        isr: Vec<i32>, in 0..;
        removing_replicas: Vec<i32>, in 0..;
        adding_replicas: Vec<i32>, in 0..;
        leader: i32 = -1, in 0..;
        leader_recovery_state: i8, in 0.., tag 0;
        leader_epoch: i32 = -1, in 0..;
        partition_epoch: i32 = -1, in 0..;
        directories: Vec<Uuid>, in 1..;
        eligible_leader_replicas: Option<Vec<i32>>, in 2.., tag 1;
        last_known_elr: Option<Vec<i32>>, in 2.., tag 2;
    }
    /// A configuration value, or its removal when null.
    pub struct ConfigRecord (flexible 0..) {
        resource_type: i8, in 0..;
        resource_name: String, in 0..;
        name: String, in 0..;
        value: Option<String>, in 0..;
    }
    /// A change of a partition's state. Absent fields stay as they are. The partition epoch grows
    /// by one. So does the leader epoch if the record has a leader.
    pub struct PartitionChangeRecord (flexible 0..) {
        partition_id: i32 = -1, in 0..;
        topic_id: Uuid, in 0..;
        isr: Option<Vec<i32>>, in 0.., tag 0;
        leader: i32 = -2, in 0.., tag 1;
        replicas: Option<Vec<i32>>, in 0.., tag 2;
        removing_replicas: Option<Vec<i32>>, in 0.., tag 3;
        adding_replicas: Option<Vec<i32>>, in 0.., tag 4;
        leader_recovery_state: i8 = -1, in 0.., tag 5;
        directories: Option<Vec<Uuid>>, in 1.., tag 8;
        eligible_leader_replicas: Option<Vec<i32>>, in 2.., tag 6;
        last_known_elr: Option<Vec<i32>>, in 2.., tag 7;
    }
    /// A broker is fenced (before `BrokerRegistrationChangeRecord` existed).
    pub struct FenceBrokerRecord (flexible 0..) {
        id: i32, in 0..;
        epoch: i64, in 0..;
    }
    /// A broker is unfenced (before `BrokerRegistrationChangeRecord` existed).
    pub struct UnfenceBrokerRecord (flexible 0..) {
        id: i32, in 0..;
        epoch: i64, in 0..;
    }
    /// A topic and all its partitions are gone.
    pub struct RemoveTopicRecord (flexible 0..) {
        topic_id: Uuid, in 0..;
    }
    /// A delegation token.
    pub struct DelegationTokenRecord (flexible 0..) {
        owner: String, in 0..;
        requester: String, in 0..;
        renewers: Vec<String>, in 0..;
        issue_timestamp: i64, in 0..;
        max_timestamp: i64, in 0..;
        expiration_timestamp: i64, in 0..;
        token_id: String, in 0..;
    }
    /// A user's SCRAM credential.
    pub struct UserScramCredentialRecord (flexible 0..) {
        name: String, in 0..;
        mechanism: i8, in 0..;
        salt: Bytes, in 0..;
        stored_key: Bytes, in 0..;
        server_key: Bytes, in 0..;
        iterations: i32, in 0..;
    }
    /// A feature's finalized level; 0 removes it.
    pub struct FeatureLevelRecord (flexible 0..) {
        name: String, in 0..;
        feature_level: i16, in 0..;
    }
    /// A quota is set or removed for an entity.
    pub struct ClientQuotaRecord (flexible 0..) {
        entity: Vec<EntityData>, in 0..;
        key: String, in 0..;
        value: f64, in 0..;
        remove: bool, in 0..;
    }
    /// One part of a quota's entity; a null name means the default.
    pub struct EntityData (flexible 0..) {
        entity_type: String, in 0..;
        entity_name: Option<String>, in 0..;
    }
    /// A block of producer ids was allocated to a broker. The next block starts at
    /// `next_producer_id`.
    pub struct ProducerIdsRecord (flexible 0..) {
        broker_id: i32, in 0..;
        broker_epoch: i64 = -1, in 0..;
        next_producer_id: i64, in 0..;
    }
    /// A change of a broker's registration. In `fenced`, 1 fences the broker, -1 unfences it, and 0
    /// leaves it as it is.
    pub struct BrokerRegistrationChangeRecord (flexible 0..) {
        broker_id: i32, in 0..;
        broker_epoch: i64, in 0..;
        fenced: i8, in 0.., tag 0;
        in_controlled_shutdown: i8, in 1.., tag 1;
        log_dirs: Vec<Uuid>, in 2.., tag 2;
        cordoned_log_dirs: Option<Vec<Uuid>>, in 3.., tag 3;
    }
    /// An access control entry.
    pub struct AccessControlEntryRecord (flexible 0..) {
        id: Uuid, in 0..;
        resource_type: i8, in 0..;
        resource_name: String, in 0..;
        pattern_type: i8, in 0..;
        principal: String, in 0..;
        host: String, in 0..;
        operation: i8, in 0..;
        permission_type: i8, in 0..;
    }
    /// An access control entry is gone.
    pub struct RemoveAccessControlEntryRecord (flexible 0..) {
        id: Uuid, in 0..;
    }
    /// No change. Kafka's active controller writes it when idle. Sordini writes it in the place of
    /// records that were proposed in an older leader epoch.
    pub struct NoOpRecord (flexible 0..) {
    }
    /// The state of a migration from ZooKeeper.
    pub struct ZkMigrationStateRecord (flexible 0..) {
        zk_migration_state: i8, in 0..;
    }
    /// A user's SCRAM credential is gone.
    pub struct RemoveUserScramCredentialRecord (flexible 0..) {
        name: String, in 0..;
        mechanism: i8, in 0..;
    }
    /// A transaction starts. Its records, up to the end or abort, are applied together or dropped.
    pub struct BeginTransactionRecord (flexible 0..) {
        name: Option<String>, in 0.., tag 0;
    }
    /// The open transaction ends, and its records are applied.
    pub struct EndTransactionRecord (flexible 0..) {
    }
    /// The open transaction is aborted, and its records are dropped.
    pub struct AbortTransactionRecord (flexible 0..) {
        reason: Option<String>, in 0.., tag 0;
    }
    /// A delegation token is gone.
    pub struct RemoveDelegationTokenRecord (flexible 0..) {
        token_id: String, in 0..;
    }
    /// A controller has registered.
    pub struct RegisterControllerRecord (flexible 0..) {
        controller_id: i32, in 0..;
        incarnation_id: Uuid, in 0..;
        zk_migration_ready: bool, in 0..;
        end_points: Vec<ControllerEndpoint>, in 0..;
        features: Vec<ControllerFeature>, in 0..;
    }
    /// Where a controller listens.
    pub struct ControllerEndpoint (flexible 0..) {
        name: String, in 0..;
        host: String, in 0..;
        port: u16, in 0..;
        security_protocol: i16, in 0..;
    }
    /// A feature range that a controller supports.
    pub struct ControllerFeature (flexible 0..) {
        name: String, in 0..;
        min_supported_version: i16, in 0..;
        max_supported_version: i16, in 0..;
    }
    /// The eligible leader replicas of a topic are cleared, or of all topics if the name is empty.
    pub struct ClearElrRecord (flexible 0..) {
        topic_name: String, in 0..;
    }
}
