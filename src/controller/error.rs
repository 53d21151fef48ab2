//! Why the controller refuses. Each is a fact; `handlers/errors.rs` gives it Kafka's error code.

/// The text is Kafka's own, since clients print it; where Kafka sends none, there is none.
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
    /// The change that was asked for took the leadership from who asked.
    #[error("the leader has changed")]
    NewLeaderElected,
    #[error("{0}")]
    IneligibleReplica(String),
    #[error("the broker is not a replica of the partition")]
    NotLeaderOrFollower,
    #[error("all producer ids are handed out")]
    ProducerIdsExhausted,
    /// No controller has decided in time.
    #[error("the request timed out")]
    TimedOut,
    /// The disk of the metadata log is full, so nothing was decided.
    #[error("{0}")]
    NoRoom(String),
    /// Another node leads the quorum, or none, or this one has stopped.
    #[error("{0}")]
    NotController(String),
}

impl ControllerError {
    /// Another node decides, if any does.
    pub fn not_controller(active: Option<i32>) -> Self {
        Self::NotController(match active {
            Some(id) => format!("The active controller appears to be node {id}."),
            None => "No controller appears to be active.".into(),
        })
    }

    /// What goes over the wire; `None` where Kafka leaves the text to the error code.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::UnknownTopicOrPartition(message) => message.clone(),
            Self::NoReassignmentInProgress | Self::TimedOut => None,
            other => Some(other.to_string()),
        }
    }
}
