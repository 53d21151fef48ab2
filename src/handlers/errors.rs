//! Maps the errors of the layers below to Kafka's error codes. The matches have no catch-all arm,
//! so a new error does not compile until its code is decided here.

pub use crate::protocol::{ErrorCode, error_code::NONE};
use kafka_protocol::protocol::StrBytes;

use crate::{
    broker::MoveError,
    controller::ControllerError,
    coordinator::{group::messages::GroupError, txn::TxnError},
    log::{LogError, ProducerError, ReadError},
    partition::{AppendError, DeleteRecordsError, Partition, Role, View},
    protocol::error_code,
    records::RefusedKind,
};

pub fn append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
        AppendError::Offline => ErrorCode::KafkaStorageError,
        AppendError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        AppendError::Producer(error) => producer(error),
        AppendError::Log(error) => log(error),
    }
}

/// The error code of an append that was written but cannot be acknowledged, from the replica's
/// role.
pub fn not_committed(role: Role) -> ErrorCode {
    match role {
        Role::Offline => ErrorCode::KafkaStorageError,
        Role::Leader { .. } | Role::Follower { .. } | Role::Closed => {
            ErrorCode::NotLeaderOrFollower
        }
    }
}

pub fn producer(error: &ProducerError) -> ErrorCode {
    match error {
        ProducerError::InvalidEpoch { .. } | ProducerError::InvalidMarkerEpoch { .. } => {
            ErrorCode::InvalidProducerEpoch
        }
        ProducerError::OutOfOrderSequence { .. } | ProducerError::AfterUnverified { .. } => {
            ErrorCode::OutOfOrderSequenceNumber
        }
        ProducerError::TransactionOpen { .. } | ProducerError::NotVerified { .. } => {
            ErrorCode::InvalidTxnState
        }
        ProducerError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
    }
}

/// The error code of a log error. A storage error also takes the partition's log directory offline,
/// so clients that retry find another leader.
pub fn log(error: &LogError) -> ErrorCode {
    match error {
        LogError::TooLarge { .. } => ErrorCode::RecordListTooLarge,
        LogError::BadBatch { .. } => ErrorCode::CorruptMessage,
        LogError::OffsetBehindEnd { .. } | LogError::OutOfRange { .. } => {
            ErrorCode::OffsetOutOfRange
        }
        LogError::Io { .. }
        | LogError::Format { .. }
        | LogError::NoDirectory
        | LogError::Failed { .. } => ErrorCode::KafkaStorageError,
    }
}

pub fn append_refused(kind: RefusedKind) -> ErrorCode {
    match kind {
        RefusedKind::CorruptMessage => ErrorCode::CorruptMessage,
        RefusedKind::InvalidRecord => ErrorCode::InvalidRecord,
        RefusedKind::InvalidTimestamp => ErrorCode::InvalidTimestamp,
        RefusedKind::MessageTooLarge => ErrorCode::MessageTooLarge,
        RefusedKind::UnsupportedCompressionType => ErrorCode::UnsupportedCompressionType,
        RefusedKind::UnsupportedForMessageFormat => ErrorCode::UnsupportedForMessageFormat,
        RefusedKind::UnknownServerError => ErrorCode::UnknownServerError,
    }
}

/// How often a read is tried while the log is truncated or moved to another directory.
const READS_MAX: usize = 4;

/// Repeats `read` while it returns `None`, because the log was truncated or moved during the read.
/// After `READS_MAX` attempts, returns KAFKA_STORAGE_ERROR, so that the client retries.
pub fn read_again<T>(
    mut read: impl FnMut() -> Result<Option<T>, ErrorCode>,
) -> Result<T, ErrorCode> {
    for _ in 0..READS_MAX {
        if let Some(done) = read()? {
            return Ok(done);
        }
    }
    Err(ErrorCode::KafkaStorageError)
}

/// The error code of a failed read. `Ok` means that the log was truncated or moved since the view
/// `seen`, so that the caller must repeat the read. As in Kafka, a consumer fails at an invalid
/// batch, and retries after a disk error.
pub fn read(partition: &Partition, seen: &View, error: ReadError) -> Result<(), ErrorCode> {
    let code = match error {
        ReadError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Corrupt { .. } => ErrorCode::CorruptMessage,
        ReadError::Records { ref source, .. } => append_refused(source.kind()),
        ReadError::Io { .. } => ErrorCode::KafkaStorageError,
    };
    match partition.read_failed(seen, error) {
        true => Ok(()),
        false => Err(code),
    }
}

pub fn delete_records(error: &DeleteRecordsError) -> ErrorCode {
    match error {
        DeleteRecordsError::NotLeader => ErrorCode::NotLeaderOrFollower,
        DeleteRecordsError::OutOfRange => ErrorCode::OffsetOutOfRange,
        DeleteRecordsError::Log(error) => log(error),
    }
}

/// The error code of a move to another log directory. As in Kafka, a replica that is not on this
/// broker has the old code REPLICA_NOT_AVAILABLE (KIP-392).
pub fn move_replica(error: &MoveError) -> ErrorCode {
    match error {
        MoveError::NameTooLong => ErrorCode::InvalidTopicException,
        MoveError::UnknownDir => ErrorCode::LogDirNotFound,
        MoveError::Cordoned => ErrorCode::InvalidReplicaAssignment,
        MoveError::Offline => ErrorCode::KafkaStorageError,
        MoveError::ReplicaNotAvailable => ErrorCode::ReplicaNotAvailable,
        MoveError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        MoveError::Log(error) => log(error),
    }
}

/// Whether the response to a failed append contains the log start offset, as in Kafka
/// (`ReplicaManager.appendRecordsToLeader`).
pub fn includes_log_start(error: &AppendError) -> bool {
    matches!(error, AppendError::Producer(_) | AppendError::NotEnoughReplicas { .. })
}

/// Checks that this replica is the leader and that `current_leader_epoch` is its epoch (KIP-320).
/// The epoch -1 means that the client does not know the epoch. Any other negative epoch is fenced.
pub fn check_leader_epoch(role: Role, current_leader_epoch: i32) -> Result<(), ErrorCode> {
    check_replica_epoch(role, current_leader_epoch)?;
    match role {
        Role::Leader { .. } => Ok(()),
        _ => Err(ErrorCode::NotLeaderOrFollower),
    }
}

/// Checks `current_leader_epoch` like [`check_leader_epoch`], but also accepts a follower.
pub fn check_replica_epoch(role: Role, current_leader_epoch: i32) -> Result<(), ErrorCode> {
    let epoch = role.leader_epoch();
    match role {
        Role::Offline => Err(ErrorCode::KafkaStorageError),
        Role::Closed => Err(ErrorCode::NotLeaderOrFollower),
        _ if current_leader_epoch != -1 && current_leader_epoch < epoch => {
            Err(ErrorCode::FencedLeaderEpoch)
        }
        _ if current_leader_epoch > epoch => Err(ErrorCode::UnknownLeaderEpoch),
        Role::Follower { .. } | Role::Leader { .. } => Ok(()),
    }
}

pub fn controller(error: &ControllerError) -> ErrorCode {
    match error {
        ControllerError::InvalidTopic(_) => ErrorCode::InvalidTopicException,
        ControllerError::TopicAlreadyExists(_) => ErrorCode::TopicAlreadyExists,
        ControllerError::UnknownTopicOrPartition(_) => ErrorCode::UnknownTopicOrPartition,
        ControllerError::UnknownTopicId => ErrorCode::UnknownTopicId,
        ControllerError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        ControllerError::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        ControllerError::InvalidReplicaAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        ControllerError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        ControllerError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        ControllerError::PolicyViolation(_) => ErrorCode::PolicyViolation,
        ControllerError::InvalidUpdateVersion(_) => ErrorCode::InvalidUpdateVersion,
        ControllerError::InvalidRegistration(_) => ErrorCode::InvalidRegistration,
        ControllerError::UnsupportedVersion(_) => ErrorCode::UnsupportedVersion,
        ControllerError::DuplicateBrokerRegistration(_) => ErrorCode::DuplicateBrokerRegistration,
        ControllerError::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        ControllerError::NewLeaderElected => ErrorCode::NewLeaderElected,
        ControllerError::IneligibleReplica(_) => ErrorCode::IneligibleReplica,
        ControllerError::NotLeaderOrFollower => ErrorCode::NotLeaderOrFollower,
        ControllerError::BrokerIdNotRegistered(_) => ErrorCode::BrokerIdNotRegistered,
        ControllerError::StaleBrokerEpoch(_) => ErrorCode::StaleBrokerEpoch,
        ControllerError::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
        ControllerError::PreferredLeaderNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
        ControllerError::EligibleLeadersNotAvailable => ErrorCode::EligibleLeadersNotAvailable,
        ControllerError::NoReassignmentInProgress => ErrorCode::NoReassignmentInProgress,
        ControllerError::ProducerIdsExhausted => ErrorCode::UnknownServerError,
        ControllerError::TimedOut => ErrorCode::RequestTimedOut,
        ControllerError::NoRoom(_) => ErrorCode::KafkaStorageError,
        ControllerError::NotController(_) => ErrorCode::NotController,
    }
}

/// The error code and message of a controller's result, for a response.
pub fn outcome<T>(result: &Result<T, ControllerError>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (NONE, None),
        Err(error) => (controller(error).code(), error.message().map(StrBytes::from_string)),
    }
}

/// An error code with Kafka's default message, for responses that have one.
pub fn with_message(code: ErrorCode) -> (i16, Option<StrBytes>) {
    let message = error_code::default_message(code.code());
    (code.code(), Some(StrBytes::from_static_str(message)))
}

/// The error code of a result of the group coordinator, or `NONE` for `Ok`.
pub fn group_code_of<T>(result: &Result<T, GroupError>) -> i16 {
    result.as_ref().map_or_else(|error| group_code(*error), |_| NONE)
}

pub fn group_code(error: GroupError) -> i16 {
    group(error).code()
}

pub fn group(error: GroupError) -> ErrorCode {
    match error {
        GroupError::UnknownServerError => ErrorCode::UnknownServerError,
        GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::CoordinatorLoadInProgress => ErrorCode::CoordinatorLoadInProgress,
        GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::GroupIdNotFound | GroupError::NotClassicGroup => ErrorCode::GroupIdNotFound,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
        GroupError::TransactionCoordinatorFenced => ErrorCode::TransactionCoordinatorFenced,
        GroupError::InvalidTxnState => ErrorCode::InvalidTxnState,
        GroupError::RequestTimedOut => ErrorCode::RequestTimedOut,
        GroupError::InvalidRequest => ErrorCode::InvalidRequest,
        GroupError::UnsupportedVersion => ErrorCode::UnsupportedVersion,
        GroupError::FencedMemberEpoch => ErrorCode::FencedMemberEpoch,
        GroupError::StaleMemberEpoch => ErrorCode::StaleMemberEpoch,
        GroupError::UnsupportedAssignor => ErrorCode::UnsupportedAssignor,
        GroupError::UnreleasedInstanceId => ErrorCode::UnreleasedInstanceId,
        GroupError::InvalidRegularExpression => ErrorCode::InvalidRegularExpression,
    }
}

pub fn transaction(error: TxnError) -> ErrorCode {
    match error {
        TxnError::InvalidRequest => ErrorCode::InvalidRequest,
        TxnError::InvalidTransactionTimeout => ErrorCode::InvalidTransactionTimeout,
        TxnError::InvalidProducerIdMapping => ErrorCode::InvalidProducerIdMapping,
        TxnError::ProducerFenced => ErrorCode::ProducerFenced,
        TxnError::ConcurrentTransactions => ErrorCode::ConcurrentTransactions,
        TxnError::InvalidTxnState => ErrorCode::InvalidTxnState,
        TxnError::TransactionalIdNotFound => ErrorCode::TransactionalIdNotFound,
        TxnError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        TxnError::CoordinatorLoadInProgress => ErrorCode::CoordinatorLoadInProgress,
        TxnError::NotCoordinator => ErrorCode::NotCoordinator,
        TxnError::UnknownServerError => ErrorCode::UnknownServerError,
    }
}

/// The code for a client. Clients of old versions (`is_old`) know INVALID_PRODUCER_EPOCH instead of
/// PRODUCER_FENCED (KIP-588).
pub fn fenced(code: ErrorCode, is_old: bool) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced if is_old => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

/// The error code of a marker that could not be written to `__consumer_offsets`. As in Kafka, the
/// sender gets NOT_LEADER_OR_FOLLOWER while the group coordinator does not serve, because it
/// retries on that code.
pub fn group_marker(error: GroupError) -> ErrorCode {
    match error {
        GroupError::CoordinatorNotAvailable
        | GroupError::CoordinatorLoadInProgress
        | GroupError::NotCoordinator => ErrorCode::NotLeaderOrFollower,
        error => group(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_not_repeated_without_bound() {
        let mut reads = 0;
        let code = read_again(|| {
            reads += 1;
            Ok(None::<()>)
        });
        assert_eq!((code, reads), (Err(ErrorCode::KafkaStorageError), READS_MAX));
        let mut reads = 0;
        let done = read_again(|| {
            reads += 1;
            Ok((reads == 2).then_some(reads))
        });
        assert_eq!(done, Ok(2));
    }

    #[test]
    fn transaction_coordinators_see_errors_of_leaders() {
        let not_leader = ErrorCode::NotLeaderOrFollower;
        assert_eq!(group_marker(GroupError::CoordinatorLoadInProgress), not_leader);
        assert_eq!(group_marker(GroupError::CoordinatorNotAvailable), not_leader);
        assert_eq!(group_marker(GroupError::NotCoordinator), not_leader);
        let refused = group_marker(GroupError::InvalidProducerEpoch);
        assert_eq!(refused, ErrorCode::InvalidProducerEpoch);
    }
}
