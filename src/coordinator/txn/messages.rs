//! The requests to the transaction coordinator and its replies.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    base::TopicPartition,
    records::{Producer, TransactionVersion, TxnMarker},
};

/// Why the transaction coordinator refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TxnError {
    InvalidRequest,
    InvalidTransactionTimeout,
    /// The transactional id is unknown, or has another producer id.
    InvalidProducerIdMapping,
    /// The request has an epoch that is not the current one of the transactional id.
    ProducerFenced,
    /// The id's last transaction is being ended.
    ConcurrentTransactions,
    InvalidTxnState,
    TransactionalIdNotFound,
    /// The records could not be committed in time, or there are too few in-sync replicas.
    CoordinatorNotAvailable,
    CoordinatorLoadInProgress,
    NotCoordinator,
    UnknownServerError,
}

/// InitProducerId with a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitRequest {
    pub id: Arc<str>,
    pub timeout_ms: i32,
    /// The producer that the client had before (KIP-360).
    pub expected: Option<Producer>,
}

/// AddPartitionsToTxn, or a partition's first batch in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRequest {
    pub id: Arc<str>,
    pub producer: Producer,
    pub partitions: Vec<TopicPartition>,
    pub version: TransactionVersion,
}

/// Whether the partitions are in the producer's open transaction (`verifyOnly`, KIP-890).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyRequest {
    pub id: Arc<str>,
    pub producer: Producer,
    pub partitions: Vec<TopicPartition>,
}

/// For each partition, whether the transaction has it.
pub type Verified = Vec<(TopicPartition, bool)>;

/// EndTxn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRequest {
    pub id: Arc<str>,
    pub producer: Producer,
    pub commits: bool,
    pub version: TransactionVersion,
}

/// Partitions that have the marker of an ended transaction, or do not need it because they were
/// deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkersWritten {
    pub id: Arc<str>,
    /// The producer and the coordinator epoch of the markers, and [`Effect::WriteMarkers::end_ms`].
    /// If the id has moved on, the event is ignored.
    pub producer: Producer,
    pub coordinator_epoch: i32,
    pub end_ms: i64,
    pub partitions: Vec<TopicPartition>,
}

/// The filters of ListTransactions. Those that are empty or `None` let everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    pub producer_ids: Vec<i64>,
    /// Names of states (`Ongoing`, ...). Unknown names match nothing.
    pub states: Vec<Arc<str>>,
    /// Only ids whose last transaction began longer ago than this. As in Kafka, ids that had no
    /// transaction since their last InitProducerId pass, too.
    pub longer_than_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTxn {
    pub id: Arc<str>,
    pub producer_id: i64,
    pub state: &'static str,
}

/// The state of a transactional id, for DescribeTransactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnDescription {
    pub producer: Producer,
    pub state: &'static str,
    pub timeout_ms: i32,
    /// Start of the last transaction; -1 if there was none since the last InitProducerId.
    pub start_ms: i64,
    /// The partitions of the open transaction. Once it is ended, those that wait for its marker.
    pub partitions: Vec<TopicPartition>,
}

/// Work that the coordinator requests from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the marker to each partition. Each is reported once with [`MarkersWritten`]. Replaces
    /// earlier work for the same id.
    WriteMarkers {
        id: Arc<str>,
        marker: TxnMarker,
        /// When the transaction was ended. It tells the transaction apart from others of the same
        /// producer, whose markers are equal.
        end_ms: i64,
        partitions: Vec<TopicPartition>,
    },
    /// A transaction has timed out, and its abort needs a new producer id. Get one and call
    /// `TxnCoordinator::abort_timed_out`. If that fails, the effect is repeated later.
    AbortTimedOut { id: Arc<str>, producer: Producer },
}

/// What a shard's decision requests: work for the broker, and events to count. As effects, they
/// leave only once their record is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardEffect {
    Broker(Effect),
    /// A transaction has been ended.
    Ended(TxnOutcome),
    /// An ended transaction has all its markers, `took_ms` after its end.
    Completed {
        took_ms: i64,
    },
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TxnOutcome {
    Committed,
    /// Aborted by its client.
    Aborted,
    /// Aborted by the coordinator after its timeout.
    TimedOut,
    /// Aborted by the coordinator, because InitProducerId has fenced its producer.
    Fenced,
}

impl TxnOutcome {
    pub const ALL: [Self; 4] = [Self::Committed, Self::Aborted, Self::TimedOut, Self::Fenced];

    pub fn of_client(commits: bool) -> Self {
        if commits { Self::Committed } else { Self::Aborted }
    }

    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::TimedOut => "timed_out",
            Self::Fenced => "fenced",
        }
    }
}

/// The transactions of a shard, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TxnSurvey {
    /// The number of transactional ids by the name of their state.
    pub states: BTreeMap<&'static str, usize>,
    /// The number of partitions that wait for a marker.
    pub waiting_markers: usize,
    /// The number of transactions that are open for longer than their timeout and five minutes.
    pub late: usize,
}

impl TxnSurvey {
    /// Adds the transactions of another shard.
    pub fn add(&mut self, other: &Self) {
        for (state, ids) in &other.states {
            *self.states.entry(state).or_default() += ids;
        }
        self.waiting_markers += other.waiting_markers;
        self.late += other.late;
    }
}

/// A request to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// InitProducerId. `new_producer_id` is used if the decision needs one.
    Init {
        request: InitRequest,
        new_producer_id: Option<i64>,
    },
    Add(AddRequest),
    Verify(VerifyRequest),
    /// EndTxn. `new_producer_id` is used if the decision needs one.
    End {
        request: EndRequest,
        new_producer_id: Option<i64>,
    },
    /// Aborts a transaction as [`Effect::AbortTimedOut`] says.
    AbortTimedOut {
        id: Arc<str>,
        producer: Producer,
        new_producer_id: i64,
    },
    MarkersWritten(MarkersWritten),
    Describe(Arc<str>),
    List(ListRequest),
    /// Sets the finalised level of `transaction.version`.
    SetVersion(TransactionVersion),
    /// Counts the transactions for metrics.
    Survey,
}

/// Why InitProducerId or EndTxn is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Error(TxnError),
    /// The decision needs a new producer id, and the request has none. Nothing was decided.
    NeedsProducerId,
}

impl From<TxnError> for Refused {
    fn from(error: TxnError) -> Self {
        Self::Error(error)
    }
}

/// A shard's reply to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Of `Init` and `End`.
    Producer(Result<Producer, Refused>),
    /// Of `Add`, `AbortTimedOut`, `MarkersWritten` and `SetVersion`.
    Done(Result<(), TxnError>),
    Verified(Result<Verified, TxnError>),
    Description(Result<TxnDescription, TxnError>),
    List(Vec<ListedTxn>),
    Survey(TxnSurvey),
}
