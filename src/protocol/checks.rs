//! Authorisation checks: an operation on a type of resource. The API table lists the checks of each
//! API.

use super::ErrorCode;

/// A type of resource that can be protected (Kafka's `ResourceType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceType {
    Cluster,
    Group,
    Topic,
    TransactionalId,
}

/// An operation on a resource. The values are the codes of Kafka's `AclOperation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
    TwoPhaseCommit = 15,
}

impl ResourceType {
    /// The error code for a client that may not do an operation on a resource of this type.
    pub fn denial(self) -> ErrorCode {
        match self {
            Self::Cluster => ErrorCode::ClusterAuthorizationFailed,
            Self::Group => ErrorCode::GroupAuthorizationFailed,
            Self::Topic => ErrorCode::TopicAuthorizationFailed,
            Self::TransactionalId => ErrorCode::TransactionalIdAuthorizationFailed,
        }
    }

    /// The operations that exist for this type (Kafka's `AclEntry.supportedOperations`).
    pub fn operations(self) -> &'static [Operation] {
        use Operation::*;
        match self {
            Self::Cluster => &[
                Create,
                Alter,
                Describe,
                ClusterAction,
                DescribeConfigs,
                AlterConfigs,
                IdempotentWrite,
            ],
            Self::Group => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
            Self::Topic => {
                &[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs]
            }
            Self::TransactionalId => &[Write, Describe, TwoPhaseCommit],
        }
    }
}

/// What a client must be allowed to do: an operation on a resource of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    pub resource: ResourceType,
    pub operation: Operation,
}

/// The name of the only resource of type `Cluster`.
pub const CLUSTER_NAME: &str = "kafka-cluster";

macro_rules! checks {
    ($($name:ident = $resource:ident $operation:ident;)*) => {
        $(pub const $name: Check = Check {
            resource: ResourceType::$resource,
            operation: Operation::$operation,
        };)*
    };
}

checks! {
    CLUSTER_ACTION = Cluster ClusterAction;
    CLUSTER_ALTER = Cluster Alter;
    CLUSTER_ALTER_CONFIGS = Cluster AlterConfigs;
    CLUSTER_CREATE = Cluster Create;
    CLUSTER_DELETE = Cluster Delete;
    CLUSTER_DESCRIBE = Cluster Describe;
    CLUSTER_DESCRIBE_CONFIGS = Cluster DescribeConfigs;
    CLUSTER_IDEMPOTENT_WRITE = Cluster IdempotentWrite;
    GROUP_ALTER_CONFIGS = Group AlterConfigs;
    GROUP_DELETE = Group Delete;
    GROUP_DESCRIBE = Group Describe;
    GROUP_DESCRIBE_CONFIGS = Group DescribeConfigs;
    GROUP_READ = Group Read;
    TOPIC_ALTER = Topic Alter;
    TOPIC_ALTER_CONFIGS = Topic AlterConfigs;
    TOPIC_CREATE = Topic Create;
    TOPIC_DELETE = Topic Delete;
    TOPIC_DESCRIBE = Topic Describe;
    TOPIC_DESCRIBE_CONFIGS = Topic DescribeConfigs;
    TOPIC_READ = Topic Read;
    TOPIC_WRITE = Topic Write;
    TRANSACTIONAL_ID_DESCRIBE = TransactionalId Describe;
    TRANSACTIONAL_ID_WRITE = TransactionalId Write;
}
