//! Fetch: reads records from published views, without a queue and without a lock. If there are
//! fewer than `min_bytes`, the fetch registers one waiter at all its partitions. It continues when
//! one of them changes or its deadline passes.

mod metadata;
mod preferred_replica;
mod read;
pub mod reply;
mod session;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kafka_protocol::messages::{ApiKey, FetchRequest};
use tokio::time::{Instant, timeout_at};

use self::{
    metadata::{FetchAnswer, fetch_metadata},
    read::FetchPass,
    reply::{FetchReply, PartitionReply},
};
use super::{Context, ErrorCode, Handler, Reply, brokers, errors, partitions};
use crate::{
    base::environment::now_ms,
    broker::Broker,
    fetch_sessions::{PartitionRequest, SessionFetch, SessionPartition},
    partition::{Awaited, FetchWait, Partition, Topic, View},
    protocol::checks::{CLUSTER_ACTION, TOPIC_READ},
};

pub struct Fetch;

const READ_COMMITTED: i8 = 1;
/// The first version whose response names the current leader of a partition (KIP-951).
const LEADER_HINTS: i16 = 16;
/// The first version whose consumers may read from followers (KIP-392).
const READS_FOLLOWERS: i16 = 11;

impl Handler for Fetch {
    const API: ApiKey = ApiKey::Fetch;
    type Request = FetchRequest;
    type Response = FetchAnswer;

    async fn handle(cx: &mut Context<'_>, request: FetchRequest) -> Reply<FetchAnswer> {
        match cx.session.on_controller_listener {
            true => fetch_metadata(cx, request),
            false => fetch_partitions(cx, request).await.map(FetchAnswer::Partitions),
        }
    }
}

/// Handles a fetch on a broker listener, which reads partitions of topics.
async fn fetch_partitions(cx: &mut Context<'_>, request: FetchRequest) -> Reply<FetchReply> {
    if !(0..=READ_COMMITTED).contains(&request.isolation_level) {
        return Reply::Now(session::refuse_all(&request, ErrorCode::UnknownServerError));
    }
    let limits = Limits::of(&request, cx.broker.settings().fetch_max_bytes);
    let reader = Reader::of(&request, cx);
    let max_wait = Duration::from_millis(request.max_wait_ms.max(0) as u64);
    let fetch = match session::begin(cx.broker, request, cx.version) {
        Ok(fetch) => fetch,
        Err(refused) => return Reply::Now(refused),
    };
    let hints = (cx.version >= LEADER_HINTS).then(|| Arc::clone(&cx.session.listener));
    let job = Arc::new(FetchJob::new(cx, fetch, limits, (reader, hints)));
    let results = job.read_ready(FetchPass::First).await;
    if max_wait.is_zero() || job.is_satisfied(&results) {
        return Reply::Now(FetchJob::finished(job).answer(results));
    }
    let deadline = Instant::now() + max_wait;
    let parked = cx.broker.metrics.purgatory.park_fetch();
    Reply::Later(Box::pin(async move {
        let results = job.wait(deadline).await;
        drop(parked);
        FetchJob::finished(job).answer(results)
    }))
}

/// The sender of a fetch. It decides which part of a log may be read, and from which replicas.
enum Reader {
    Consumer {
        is_committed_only: bool,
        only_from_leader: bool,
        /// The consumer's rack and listener, if it may be redirected to a replica in its rack.
        rack_and_listener: Option<(String, Arc<str>)>,
    },
    /// Followers also read records that are not committed yet.
    Follower { replica: i32, broker_epoch: i64, max_wait_ms: i32 },
}

impl Reader {
    fn of(request: &FetchRequest, cx: &Context<'_>) -> Self {
        let state = &request.replica_state;
        let (replica, broker_epoch) = match request.replica_id.0 {
            replica if replica >= 0 => (replica, -1),
            _ => (state.replica_id.0, state.replica_epoch),
        };
        if replica >= 0 {
            return Self::Follower { replica, broker_epoch, max_wait_ms: request.max_wait_ms };
        }
        let may_redirect = cx.version >= READS_FOLLOWERS
            && !request.rack_id.is_empty()
            && preferred_replica::is_selected(cx.broker);
        Self::Consumer {
            is_committed_only: request.isolation_level == READ_COMMITTED,
            only_from_leader: cx.version < READS_FOLLOWERS,
            rack_and_listener: may_redirect
                .then(|| (request.rack_id.to_string(), Arc::clone(&cx.session.listener))),
        }
    }

    /// The end offset of the part of the log that this reader may read.
    fn end(&self, view: &View) -> i64 {
        match self {
            Self::Consumer { is_committed_only: true, .. } => view.last_stable_offset,
            Self::Consumer { .. } => view.high_watermark,
            Self::Follower { .. } => view.log.log_end(),
        }
    }

    fn is_follower(&self) -> bool {
        matches!(self, Self::Follower { .. })
    }

    fn is_committed_only(&self) -> bool {
        matches!(self, Self::Consumer { is_committed_only: true, .. })
    }

    /// The change of a partition that wakes this reader.
    fn awaited(&self) -> Awaited {
        match self {
            Self::Consumer { .. } => Awaited::Committed,
            Self::Follower { .. } => Awaited::Appended,
        }
    }
}

#[derive(Clone, Copy)]
struct Limits {
    min_bytes: usize,
    max_bytes: usize,
    /// Whether the request's `max_bytes` is negative. As in Kafka, reading records then fails with
    /// UNKNOWN_SERVER_ERROR.
    is_negative: bool,
}

impl Limits {
    fn of(request: &FetchRequest, fetch_max_bytes: i32) -> Self {
        let max_bytes = request.max_bytes.min(fetch_max_bytes).max(0) as usize;
        Self {
            // Kafka never waits for more than it may return.
            min_bytes: (request.min_bytes.max(0) as usize).min(max_bytes),
            max_bytes,
            is_negative: request.max_bytes < 0,
        }
    }
}

/// One fetch: what to read, for which reader, and within which limits.
struct FetchJob {
    broker: Arc<Broker>,
    fetch: SessionFetch,
    /// The partitions of `fetch`, in its order, or the reason why one cannot be read here.
    partitions: Vec<Result<Found, ErrorCode>>,
    limits: Limits,
    reader: Reader,
    /// The listener of the client, if its version names leaders in responses (KIP-951).
    hints: Option<Arc<str>>,
}

/// A partition of this broker, with its topic.
struct Found {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
}

impl FetchJob {
    fn new(
        cx: &Context<'_>,
        fetch: SessionFetch,
        limits: Limits,
        (reader, hints): (Reader, Option<Arc<str>>),
    ) -> Self {
        let broker = Arc::clone(cx.broker);
        let may_replicate = reader.is_follower() && cx.allowed_on_cluster(CLUSTER_ACTION);
        let is_allowed = |topic: Option<&str>| match reader.is_follower() {
            true => may_replicate,
            // A partition without a topic name has an unknown topic id, and fails anyway.
            false => topic.is_none_or(|name| cx.allowed(TOPIC_READ, name)),
        };
        let find = |partition: &SessionPartition| {
            let request = &partition.request;
            if !is_allowed(request.topic.as_deref()) {
                return Err(ErrorCode::TopicAuthorizationFailed);
            }
            find_partition(&broker, request)
        };
        let partitions = fetch.partitions().map(find).collect();
        Self { broker, fetch, partitions, limits, reader, hints }
    }

    /// Whether the fetch can be answered now: it has no partitions, enough bytes, or a partition
    /// with an error, a diverging epoch or a preferred replica.
    fn is_satisfied(&self, replies: &[PartitionReply]) -> bool {
        let len = |reply: &PartitionReply| reply.records.as_ref().map_or(0, |slice| slice.len);
        let ends_wait = |reply: &PartitionReply| {
            reply.error_code != errors::NONE
                || reply.diverging.is_some()
                || reply.preferred.is_some()
        };
        replies.is_empty()
            || replies.iter().any(ends_wait)
            || replies.iter().map(len).sum::<usize>() >= self.limits.min_bytes
    }

    /// Waits until the fetch can be answered or the deadline passes, and returns the last read.
    async fn wait(self: &Arc<Self>, deadline: Instant) -> Vec<PartitionReply> {
        let registered = Registered::new(self);
        loop {
            // Read after registering, because only later records wake this fetch.
            let replies = self.read_ready(FetchPass::Again).await;
            if self.is_satisfied(&replies) {
                return replies;
            }
            if timeout_at(deadline, registered.wait.woken()).await.is_err() {
                return self.read_ready(FetchPass::Again).await;
            }
        }
    }

    /// Takes the job out of its `Arc` after the last read.
    fn finished(job: Arc<Self>) -> Self {
        Arc::into_inner(job).expect("a blocking thread drops the job before its result is here")
    }

    /// Counts the fetch in the metrics, updates its session, and builds the response.
    fn answer(self, mut replies: Vec<PartitionReply>) -> FetchReply {
        for (found, reply) in self.partitions.iter().zip(&replies) {
            let Ok(Found { topic, partition }) = found else { continue };
            topic.metrics.fetch_requests.increment(1);
            if let Some(slice) = &reply.records {
                self.count_bytes(topic, partition, slice.len as u64);
            }
            if is_failure(reply.error_code) {
                topic.metrics.failed_fetch_requests.increment(1);
            }
        }
        let mut nodes = BTreeMap::new();
        if let Some(listener) = &self.hints {
            for (asked, reply) in self.fetch.partitions().zip(&mut replies) {
                self.hint_leader(&asked.request, listener, reply, &mut nodes);
            }
        }
        // Followers have the endpoints of all brokers in their metadata.
        if self.reader.is_follower() {
            nodes.clear();
        }
        let reply = session::finish(&self.broker, self.fetch, replies);
        if reply.topics.is_empty() {
            nodes.clear();
        }
        FetchReply { nodes, ..reply }
    }

    fn count_bytes(&self, topic: &Topic, partition: &Partition, bytes: u64) {
        if matches!(self.reader, Reader::Consumer { .. }) {
            return topic.metrics.bytes_out.increment(bytes);
        }
        self.broker.replicas.replication.metrics.bytes_out.increment(bytes);
        if self.is_throttled(topic, partition) {
            self.broker.replicas.replication.leader_throttle.note(bytes, now_ms());
        }
    }

    /// Adds the current leader and its address if the error means that the client has old metadata.
    fn hint_leader(
        &self,
        asked: &PartitionRequest,
        listener: &str,
        reply: &mut PartitionReply,
        nodes: &mut BTreeMap<i32, brokers::Node>,
    ) {
        let is_elsewhere = [ErrorCode::NotLeaderOrFollower, ErrorCode::FencedLeaderEpoch]
            .iter()
            .any(|code| reply.error_code == code.code());
        if !is_elsewhere {
            return;
        }
        let name = asked.topic.as_deref().unwrap_or_default();
        let hint = partitions::leader(&self.broker, name, asked.topic_id, asked.partition);
        if let Some(hint) = hint {
            reply.current_leader = Some((hint.leader, hint.epoch));
            brokers::add_endpoint(&self.broker.metadata(), hint.leader, listener, nodes);
        }
    }
}

/// Whether Kafka counts a read with this error as failed (`ReplicaManager.readFromLog`). Expected
/// errors, for example those of clients with old metadata, do not count.
fn is_failure(code: i16) -> bool {
    use ErrorCode::*;
    let Some(code) = ErrorCode::try_from_code(code) else { return false };
    !matches!(
        code,
        UnknownTopicOrPartition
            | NotLeaderOrFollower
            | UnknownLeaderEpoch
            | FencedLeaderEpoch
            | ReplicaNotAvailable
            | KafkaStorageError
            | InconsistentTopicId
            | OffsetOutOfRange
    )
}

/// The registration of a waiting fetch at its partitions. Dropping it removes the waiter, also if
/// the connection ends while the fetch waits.
struct Registered<'a> {
    job: &'a FetchJob,
    wait: Arc<FetchWait>,
}

impl<'a> Registered<'a> {
    fn new(job: &'a FetchJob) -> Self {
        let registered = Self { job, wait: Arc::default() };
        for partition in registered.partitions() {
            partition.wait_for_data(&registered.wait, job.reader.awaited());
        }
        registered
    }

    fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        let found = self.job.partitions.iter().filter_map(|found| found.as_ref().ok());
        found.map(|found| &found.partition)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for partition in self.partitions() {
            partition.forget_wait(&self.wait, self.job.reader.awaited());
        }
    }
}

fn find_partition(broker: &Broker, spec: &PartitionRequest) -> Result<Found, ErrorCode> {
    let (id, index) = (spec.topic_id, spec.partition);
    let found = match &spec.topic {
        Some(name) if id.is_nil() => broker.replicas.partitions.topic(name),
        _ => broker.replicas.partitions.topic_by_id(id),
    };
    let Some(topic) = found else {
        let name = spec.topic.as_deref();
        let code = partitions::elsewhere(broker, name.filter(|_| id.is_nil()), id, index);
        // The fetch session may still have the name of a deleted topic. If a new topic has this
        // name, the topic id does not match.
        return Err(match name {
            Some(name) if code == ErrorCode::UnknownTopicId => {
                match broker.replicas.partitions.topic(name).map(|it| it.partition(index)) {
                    Some(Ok(_)) => ErrorCode::InconsistentTopicId,
                    _ => ErrorCode::UnknownTopicOrPartition,
                }
            }
            _ => code,
        });
    };
    let partition = topic.partition(index);
    let partition =
        partition.map_err(|absent| partitions::absent(broker, &topic, index, absent))?;
    Ok(Found { topic, partition })
}

impl PartitionReply {
    fn of(view: &View, index: i32) -> Self {
        Self {
            index,
            error_code: errors::NONE,
            high_watermark: view.high_watermark,
            last_stable_offset: view.last_stable_offset,
            log_start: view.log.log_start(),
            diverging: None,
            current_leader: None,
            preferred: None,
            aborted: None,
            records: None,
        }
    }

    pub fn error(index: i32, code: ErrorCode) -> Self {
        Self {
            index,
            error_code: code.code(),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start: -1,
            diverging: None,
            current_leader: None,
            preferred: None,
            aborted: None,
            records: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_errors_are_not_failed_fetches() {
        assert!(is_failure(ErrorCode::UnknownServerError.code()));
        assert!(is_failure(ErrorCode::CorruptMessage.code()));
        assert!(!is_failure(errors::NONE));
        assert!(!is_failure(ErrorCode::OffsetOutOfRange.code()));
        assert!(!is_failure(ErrorCode::FencedLeaderEpoch.code()));
    }
}
