//! [`GroupError`]: why the group coordinator refuses a request.

/// Why a request is refused. The names are those of Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("UNKNOWN_SERVER_ERROR")]
    UnknownServerError,
    #[error("OFFSET_METADATA_TOO_LARGE")]
    OffsetMetadataTooLarge,
    #[error("COORDINATOR_LOAD_IN_PROGRESS")]
    CoordinatorLoadInProgress,
    #[error("COORDINATOR_NOT_AVAILABLE")]
    CoordinatorNotAvailable,
    #[error("NOT_COORDINATOR")]
    NotCoordinator,
    #[error("ILLEGAL_GENERATION")]
    IllegalGeneration,
    #[error("INCONSISTENT_GROUP_PROTOCOL")]
    InconsistentGroupProtocol,
    #[error("INVALID_GROUP_ID")]
    InvalidGroupId,
    #[error("UNKNOWN_MEMBER_ID")]
    UnknownMemberId,
    #[error("INVALID_SESSION_TIMEOUT")]
    InvalidSessionTimeout,
    #[error("REBALANCE_IN_PROGRESS")]
    RebalanceInProgress,
    #[error("NON_EMPTY_GROUP")]
    NonEmptyGroup,
    #[error("GROUP_ID_NOT_FOUND")]
    GroupIdNotFound,
    /// The group exists, but is not one of the classic protocol.
    #[error("GROUP_ID_NOT_FOUND")]
    NotClassicGroup,
    #[error("MEMBER_ID_REQUIRED")]
    MemberIdRequired,
    #[error("GROUP_MAX_SIZE_REACHED")]
    GroupMaxSizeReached,
    #[error("FENCED_INSTANCE_ID")]
    FencedInstanceId,
    #[error("GROUP_SUBSCRIBED_TO_TOPIC")]
    GroupSubscribedToTopic,
    #[error("INVALID_PRODUCER_EPOCH")]
    InvalidProducerEpoch,
    #[error("TRANSACTION_COORDINATOR_FENCED")]
    TransactionCoordinatorFenced,
    #[error("INVALID_TXN_STATE")]
    InvalidTxnState,
    /// A transaction's marker was appended, but not committed in time. It may still be committed
    /// later.
    #[error("REQUEST_TIMED_OUT")]
    RequestTimedOut,
    #[error("INVALID_REQUEST")]
    InvalidRequest,
    #[error("UNSUPPORTED_VERSION")]
    UnsupportedVersion,
    #[error("FENCED_MEMBER_EPOCH")]
    FencedMemberEpoch,
    #[error("STALE_MEMBER_EPOCH")]
    StaleMemberEpoch,
    #[error("UNSUPPORTED_ASSIGNOR")]
    UnsupportedAssignor,
    #[error("UNRELEASED_INSTANCE_ID")]
    UnreleasedInstanceId,
    #[error("INVALID_REGULAR_EXPRESSION")]
    InvalidRegularExpression,
}
