//! Errors of the controller. `handlers/errors.rs` maps each to Kafka's error code.

/// The reason why the controller refused a request, a topic, a partition or another item of a
/// request. The message is Kafka's, because clients print it. Errors for which Kafka sends no
/// message have a text of ours for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    #[error("{0}")]
    InvalidTopic(String),
    #[error("{0}")]
    TopicAlreadyExists(String),
    #[error("{}", .0.as_deref().unwrap_or("unknown topic or partition"))]
    UnknownTopicOrPartition(Option<String>),
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    #[error("{0}")]
    InvalidPartitions(String),
    #[error("{0}")]
    InvalidReplicationFactor(String),
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    #[error("{0}")]
    InvalidConfig(String),
    #[error("{0}")]
    InvalidRequest(String),
    #[error("{0}")]
    PolicyViolation(String),
    #[error("{0}")]
    InvalidUpdateVersion(String),
    #[error("{0}")]
    InvalidRegistration(String),
    #[error("{0}")]
    UnsupportedVersion(String),
    #[error("{0}")]
    DuplicateBrokerRegistration(String),
    #[error("{0}")]
    BrokerIdNotRegistered(String),
    #[error("{0}")]
    StaleBrokerEpoch(String),
    #[error("Leader election not needed for topic partition.")]
    ElectionNotNeeded,
    #[error("The preferred leader was not available.")]
    PreferredLeaderNotAvailable,
    #[error("Eligible topic partition leaders are not available.")]
    EligibleLeadersNotAvailable,
    #[error("no reassignment is in progress")]
    NoReassignmentInProgress,
    #[error("the leader epoch is older than the partition's")]
    FencedLeaderEpoch,
    /// The requested change ended a reassignment and thereby moved the leadership away from the
    /// broker that sent the request.
    #[error("the leader has changed")]
    NewLeaderElected,
    #[error("{0}")]
    IneligibleReplica(String),
    #[error("the broker is not a replica of the partition")]
    NotLeaderOrFollower,
    #[error("all producer ids are handed out")]
    ProducerIdsExhausted,
    /// The controller did not begin to decide before the deadline of the request.
    #[error("the request timed out")]
    TimedOut,
    /// The disk of the metadata log is full, so the records were not written.
    #[error("{0}")]
    NoRoom(String),
    /// This node does not lead the quorum, or its controller has stopped.
    #[error("{0}")]
    NotController(String),
}

impl ControllerError {
    /// The error of a node that is not the active controller. `active` is the node that is, if
    /// known.
    pub fn not_controller(active: Option<i32>) -> Self {
        Self::NotController(match active {
            Some(id) => format!("The active controller appears to be node {id}."),
            None => "No controller appears to be active.".into(),
        })
    }

    /// The error message for the response; `None` where Kafka sends only the error code.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::UnknownTopicOrPartition(message) => message.clone(),
            Self::NoReassignmentInProgress | Self::TimedOut => None,
            other => Some(other.to_string()),
        }
    }
}
