//! The state of a transactional id, and its transitions (Kafka's `TransactionMetadata`).
//!
//! Kafka has two more states, Dead (6) and PrepareEpochFence (7), for transitions whose record is
//! not committed yet. Here a transition is applied at once and only its reply waits, so no id is
//! ever in them.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    base::TopicPartition,
    records::{Producer, TransactionVersion, TxnMarker},
};

/// The state of a transactional id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TxnState {
    /// There was no transaction since the last InitProducerId.
    Empty,
    Ongoing,
    /// The transaction is committed, and its markers are being written.
    PrepareCommit,
    /// The transaction is aborted, and its markers are being written.
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl TxnState {
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// The state's number in the log.
    pub fn id(self) -> i8 {
        self as i8
    }

    /// The state with a number in the log; `None` if it is unknown or never stored.
    pub fn from_id(id: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.id() == id)
    }

    /// The name that clients see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Whether markers are being written.
    pub fn is_prepare(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// Whether a name is that of a state in Kafka. It includes the two that no id is ever in here.
pub fn is_state_name(name: &str) -> bool {
    const TRANSIENT: [&str; 2] = ["Dead", "PrepareEpochFence"];
    TxnState::ALL.iter().any(|state| state.name() == name) || TRANSIENT.contains(&name)
}

/// Whether a producer cannot have another epoch. The largest epoch is kept for the marker that
/// fences the producer.
pub fn is_epoch_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

pub type Partitions = BTreeSet<TopicPartition>;

/// All that the coordinator has of a transactional id. The log has it without `last_epoch`; in
/// version 0, also without `previous_id`, `next_id` and `version`.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    pub producer: Producer,
    /// The epoch before the current one, with which a client may repeat its last request; -1 if
    /// there is none.
    pub last_epoch: i16,
    /// The producer id before the last transition, which is mostly the current one; -1 if unknown.
    pub previous_id: i64,
    /// The producer id after the transaction, if its end exhausts the epoch; otherwise -1.
    pub next_id: i64,
    pub timeout_ms: i32,
    pub state: TxnState,
    /// Those of the open transaction, and those that get its marker.
    pub partitions: Arc<Partitions>,
    /// Start of the last transaction; -1 if there was none since the last InitProducerId.
    pub start_ms: i64,
    /// It never falls, and rises with each end of a transaction.
    pub last_update_ms: i64,
    /// The protocol of the last request that changed the transaction.
    pub version: TransactionVersion,
}

impl Transaction {
    /// A transactional id that no client has a producer of yet.
    pub fn new(producer_id: i64) -> Self {
        Self {
            producer: Producer { id: producer_id, epoch: -1 },
            last_epoch: -1,
            previous_id: -1,
            next_id: -1,
            timeout_ms: 0,
            state: TxnState::Empty,
            partitions: Arc::default(),
            start_ms: -1,
            last_update_ms: -1,
            version: TransactionVersion::V0,
        }
    }

    /// The state without the fields that a value of this version does not have.
    pub fn as_logged(&self, value_version: i16) -> Self {
        let logged = Self { last_epoch: -1, ..self.clone() };
        match value_version {
            0 => {
                let version = TransactionVersion::V0;
                Self { previous_id: -1, next_id: -1, version, ..logged }
            }
            _ => logged,
        }
    }

    fn transition(&self, state: TxnState, now_ms: i64) -> Self {
        let (previous_id, last_update_ms) = (self.producer.id, self.last_update_ms.max(now_ms));
        Self { previous_id, state, last_update_ms, ..self.clone() }
    }

    /// The state after InitProducerId, with the producer that its client gets.
    pub fn initialized(
        &self,
        producer: Producer,
        last_epoch: i16,
        timeout_ms: i32,
        now_ms: i64,
    ) -> Self {
        Self {
            producer,
            last_epoch,
            timeout_ms,
            partitions: Arc::default(),
            start_ms: -1,
            ..self.transition(TxnState::Empty, now_ms)
        }
    }

    /// The state with more partitions. Begins a transaction if none is open.
    pub fn with_partitions(
        &self,
        added: &[TopicPartition],
        version: TransactionVersion,
        now_ms: i64,
    ) -> Self {
        let start_ms = match self.state {
            TxnState::Ongoing => self.start_ms,
            _ => now_ms,
        };
        let mut partitions = Arc::clone(&self.partitions);
        Arc::make_mut(&mut partitions).extend(added.iter().cloned());
        Self { partitions, start_ms, version, ..self.transition(TxnState::Ongoing, now_ms) }
    }

    /// The state after the transaction is ended, with the producer of its markers. In version 2 that
    /// has the next epoch, and `next_id` follows if the epoch is exhausted. `None` if there is no
    /// next epoch: then a client has used the epoch that is kept for fencing. Such a transaction can
    /// only be aborted.
    pub fn ended(
        &self,
        commits: bool,
        version: TransactionVersion,
        next_id: Option<i64>,
        now_ms: i64,
    ) -> Option<Self> {
        let state = if commits { TxnState::PrepareCommit } else { TxnState::PrepareAbort };
        let mut ended = self.transition(state, now_ms.max(self.last_update_ms.saturating_add(1)));
        if version.bumps_epoch() {
            ended.producer.epoch = match self.producer.epoch.checked_add(1) {
                Some(next) => next,
                None if commits => return None,
                None => self.producer.epoch,
            };
            ended.last_epoch = self.producer.epoch;
        }
        if self.state != TxnState::Ongoing {
            ended.start_ms = now_ms;
        }
        ended.next_id = next_id.unwrap_or(-1);
        ended.version = version;
        Some(ended)
    }

    /// The state after an ended transaction has all its markers.
    pub fn completed(&self, now_ms: i64) -> Self {
        let state = match self.state {
            TxnState::PrepareCommit => TxnState::CompleteCommit,
            _ => TxnState::CompleteAbort,
        };
        let producer = match self.version.bumps_epoch() && self.next_id != -1 {
            true => Producer { id: self.next_id, epoch: 0 },
            false => self.producer,
        };
        Self { producer, next_id: -1, partitions: Arc::default(), ..self.transition(state, now_ms) }
    }

    /// The marker of an ended transaction.
    pub fn marker(&self, coordinator_epoch: i32) -> TxnMarker {
        TxnMarker {
            producer: self.producer,
            commits: self.state == TxnState::PrepareCommit,
            coordinator_epoch,
            version: self.version,
        }
    }

    /// Whether the transaction is open for longer than its timeout and `grace_ms`. The largest
    /// timeout means that there is none (two-phase commit, KIP-939).
    pub fn is_overdue(&self, grace_ms: i64, now_ms: i64) -> bool {
        let limit_ms = i64::from(self.timeout_ms).saturating_add(grace_ms);
        self.state == TxnState::Ongoing
            && self.timeout_ms != i32::MAX
            && self.start_ms.saturating_add(limit_ms) < now_ms
    }
}
