//! The API table: every API that Sordini knows, with the versions of Apache Kafka 4.3.1.
//!
//! ApiVersions lists only the APIs that have a handler. The message crate's own
//! `ApiKey::valid_versions` is not used, because it has versions that the crate cannot decode.

use std::ops::RangeInclusive;

use kafka_protocol::messages::ApiKey;

use super::checks::*;

/// A row of the table, with facts from Kafka's message schemas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    pub key: ApiKey,
    pub name: &'static str,
    /// The lowest and the highest version of requests.
    pub min: i16,
    pub max: i16,
    /// The first version with compact lengths and tagged fields (KIP-482).
    pub flexible_from: Option<i16>,
    pub scope: Scope,
    /// Every authorisation check that the handler asks for some request (Kafka's `KafkaApis` and
    /// `ControllerApis`). An API whose row has none has no handler, is open to every client, refuses
    /// every request, or has nothing to check yet.
    pub checks: &'static [Check],
}

/// The listeners on which an API is served, and whether a broker forwards its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Broker listeners only.
    Broker,
    /// Controller listeners only.
    Controller,
    /// Both. Each node handles its requests itself.
    Both,
    /// Both. A broker forwards its requests to the active controller (Kafka's
    /// `ApiKeys.forwardable`).
    Forwarded,
}

impl Scope {
    pub fn is_served(self, by_controller_listener: bool) -> bool {
        match self {
            Self::Broker => !by_controller_listener,
            Self::Controller => by_controller_listener,
            Self::Both | Self::Forwarded => true,
        }
    }
}

impl Api {
    pub fn versions(&self) -> RangeInclusive<i16> {
        self.min..=self.max
    }

    /// The lowest version in the response to ApiVersions. Produce is served from version 3 on, but
    /// advertised from version 0 on, because librdkafka derives the available codecs from it
    /// (KAFKA-18659).
    pub fn advertised_min(&self) -> i16 {
        match self.key {
            ApiKey::Produce => 0,
            _ => self.min,
        }
    }

    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible_from.is_some_and(|from| version >= from)
    }

    /// The version of the request header. Version 2 has tagged fields, version 1 does not.
    pub fn request_header_version(&self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the response header. Version 1 has tagged fields, version 0 does not.
    /// Responses to ApiVersions always have version 0, because the client does not know the
    /// broker's versions yet (KIP-511).
    pub fn response_header_version(&self, version: i16) -> i16 {
        i16::from(self.is_flexible(version) && self.key != ApiKey::ApiVersions)
    }
}

macro_rules! apis {
    ($($name:ident $min:literal..=$max:literal, $flexible:expr, $scope:ident,
        [$($check:ident),*];)*) => {
        /// The API table, sorted by key.
        pub static APIS: &[Api] = &[$(Api {
            key: ApiKey::$name,
            name: stringify!($name),
            min: $min,
            max: $max,
            flexible_from: $flexible,
            scope: Scope::$scope,
            checks: &[$($check),*],
        },)*];
    };
}

apis! {
    Produce 3..=13, Some(9), Broker, [TOPIC_WRITE, TRANSACTIONAL_ID_WRITE];
    Fetch 4..=18, Some(12), Both, [TOPIC_READ, CLUSTER_ACTION];
    ListOffsets 1..=11, Some(6), Broker, [TOPIC_DESCRIBE];
    Metadata 0..=13, Some(9), Broker,
        [TOPIC_DESCRIBE, CLUSTER_CREATE, TOPIC_CREATE, CLUSTER_DESCRIBE];
    OffsetCommit 2..=10, Some(8), Broker, [GROUP_READ, TOPIC_READ];
    OffsetFetch 1..=10, Some(6), Broker, [GROUP_DESCRIBE, TOPIC_DESCRIBE];
    FindCoordinator 0..=6, Some(3), Broker,
        [GROUP_DESCRIBE, TRANSACTIONAL_ID_DESCRIBE, CLUSTER_ACTION];
    JoinGroup 0..=9, Some(6), Broker, [GROUP_READ];
    Heartbeat 0..=4, Some(4), Broker, [GROUP_READ];
    LeaveGroup 0..=5, Some(4), Broker, [GROUP_READ];
    SyncGroup 0..=5, Some(4), Broker, [GROUP_READ];
    DescribeGroups 0..=6, Some(5), Broker, [GROUP_DESCRIBE];
    ListGroups 0..=5, Some(3), Broker, [CLUSTER_DESCRIBE, GROUP_DESCRIBE];
    ApiVersions 0..=4, Some(3), Both, [];
    CreateTopics 2..=7, Some(5), Forwarded, [CLUSTER_CREATE, TOPIC_CREATE, TOPIC_DESCRIBE_CONFIGS];
    DeleteTopics 1..=6, Some(4), Forwarded, [CLUSTER_DELETE, TOPIC_DESCRIBE, TOPIC_DELETE];
    DeleteRecords 0..=2, Some(2), Broker, [TOPIC_DELETE];
    InitProducerId 0..=5, Some(2), Broker,
        [TRANSACTIONAL_ID_WRITE, CLUSTER_IDEMPOTENT_WRITE, TOPIC_WRITE];
    OffsetForLeaderEpoch 2..=4, Some(4), Broker, [CLUSTER_ACTION, TOPIC_DESCRIBE];
    AddPartitionsToTxn 0..=5, Some(3), Broker,
        [TRANSACTIONAL_ID_WRITE, TOPIC_WRITE, CLUSTER_ACTION];
    AddOffsetsToTxn 0..=4, Some(3), Broker, [TRANSACTIONAL_ID_WRITE, GROUP_READ];
    EndTxn 0..=5, Some(3), Broker, [TRANSACTIONAL_ID_WRITE];
    WriteTxnMarkers 1..=2, Some(1), Broker, [CLUSTER_ALTER, CLUSTER_ACTION];
    TxnOffsetCommit 0..=5, Some(3), Broker, [TRANSACTIONAL_ID_WRITE, GROUP_READ, TOPIC_READ];
    DescribeAcls 1..=3, Some(2), Both, [CLUSTER_DESCRIBE];
    CreateAcls 1..=3, Some(2), Forwarded, [CLUSTER_ALTER];
    DeleteAcls 1..=3, Some(2), Forwarded, [CLUSTER_ALTER];
    DescribeConfigs 1..=4, Some(4), Both,
        [CLUSTER_DESCRIBE_CONFIGS, TOPIC_DESCRIBE_CONFIGS, GROUP_DESCRIBE_CONFIGS];
    AlterConfigs 0..=2, Some(2), Forwarded,
        [CLUSTER_ALTER_CONFIGS, TOPIC_ALTER_CONFIGS, GROUP_ALTER_CONFIGS];
    AlterReplicaLogDirs 1..=2, Some(2), Broker, [CLUSTER_ALTER];
    DescribeLogDirs 1..=5, Some(2), Broker, [CLUSTER_DESCRIBE];
    CreatePartitions 0..=3, Some(2), Forwarded, [TOPIC_ALTER];
    CreateDelegationToken 1..=3, Some(2), Both, [];
    RenewDelegationToken 1..=2, Some(2), Both, [];
    ExpireDelegationToken 1..=2, Some(2), Both, [];
    DescribeDelegationToken 1..=3, Some(2), Broker, [];
    DeleteGroups 0..=2, Some(2), Broker, [GROUP_DELETE];
    ElectLeaders 0..=2, Some(2), Forwarded, [CLUSTER_ALTER];
    IncrementalAlterConfigs 0..=1, Some(1), Forwarded,
        [CLUSTER_ALTER_CONFIGS, TOPIC_ALTER_CONFIGS, GROUP_ALTER_CONFIGS, CLUSTER_ACTION];
    AlterPartitionReassignments 0..=1, Some(0), Forwarded, [CLUSTER_ALTER];
    ListPartitionReassignments 0..=0, Some(0), Forwarded, [CLUSTER_DESCRIBE];
    OffsetDelete 0..=0, None, Broker, [GROUP_DELETE, TOPIC_READ];
    DescribeClientQuotas 0..=1, Some(1), Broker, [CLUSTER_DESCRIBE_CONFIGS];
    AlterClientQuotas 0..=1, Some(1), Forwarded, [];
    DescribeUserScramCredentials 0..=0, Some(0), Broker, [CLUSTER_DESCRIBE];
    DescribeQuorum 0..=2, Some(0), Forwarded, [CLUSTER_DESCRIBE];
    AlterPartition 2..=3, Some(0), Controller, [CLUSTER_ACTION];
    UpdateFeatures 0..=2, Some(0), Forwarded, [CLUSTER_ALTER];
    Envelope 0..=0, Some(0), Controller, [CLUSTER_ACTION];
    FetchSnapshot 0..=1, Some(0), Controller, [CLUSTER_ACTION];
    DescribeCluster 0..=2, Some(0), Both, [CLUSTER_DESCRIBE, CLUSTER_ALTER];
    DescribeProducers 0..=0, Some(0), Broker, [TOPIC_READ];
    BrokerRegistration 0..=4, Some(0), Controller, [CLUSTER_ACTION];
    BrokerHeartbeat 0..=2, Some(0), Controller, [CLUSTER_ACTION];
    UnregisterBroker 0..=0, Some(0), Forwarded, [CLUSTER_ALTER];
    DescribeTransactions 0..=0, Some(0), Broker, [TRANSACTIONAL_ID_DESCRIBE, TOPIC_DESCRIBE];
    ListTransactions 0..=2, Some(0), Broker, [TRANSACTIONAL_ID_DESCRIBE];
    AllocateProducerIds 0..=0, Some(0), Controller, [CLUSTER_ACTION];
    ConsumerGroupHeartbeat 0..=1, Some(0), Broker, [GROUP_READ, TOPIC_DESCRIBE];
    ConsumerGroupDescribe 0..=1, Some(0), Broker, [GROUP_DESCRIBE, TOPIC_DESCRIBE];
    ControllerRegistration 0..=0, Some(0), Controller, [CLUSTER_ACTION];
    AssignReplicasToDirs 0..=0, Some(0), Controller, [CLUSTER_ACTION];
    ListConfigResources 0..=1, Some(0), Broker, [CLUSTER_DESCRIBE_CONFIGS];
    DescribeTopicPartitions 0..=0, Some(0), Broker, [TOPIC_DESCRIBE];
    AddRaftVoter 0..=1, Some(0), Forwarded, [CLUSTER_ALTER];
    RemoveRaftVoter 0..=0, Some(0), Forwarded, [CLUSTER_ALTER];
    UpdateRaftVoter 0..=0, Some(0), Controller, [CLUSTER_ACTION];
}

/// The row of an API that Sordini knows. Constants use it: if the API has no row, the code does not
/// compile.
pub const fn row(key: ApiKey) -> &'static Api {
    let mut at = 0;
    while at < APIS.len() {
        if APIS[at].key as i16 == key as i16 {
            return &APIS[at];
        }
        at += 1;
    }
    panic!("the API has no row in the API table")
}

/// The row of an API key, or `None` if Sordini does not know the API.
pub fn find(key: i16) -> Option<&'static Api> {
    let at = APIS.binary_search_by_key(&key, |api| api.key as i16).ok()?;
    Some(&APIS[at])
}

#[cfg(test)]
mod tests;
