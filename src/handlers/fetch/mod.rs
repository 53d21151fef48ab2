//! Fetch: reads from published views, without a queue or a lock, and waits for more where there is
//! less than `min_bytes`. A waiting fetch is one wake-up at its partitions or its deadline.

mod metadata;
mod preferred_replica;
pub mod reply;
mod session;

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use kafka_protocol::messages::{ApiKey, FetchRequest};
use tokio::time::{Instant, timeout_at};

use self::{
    metadata::{FetchAnswer, fetch_metadata},
    reply::{FetchReply, PartitionReply},
};
use super::{Context, ErrorCode, Handler, Reply, cluster, errors};
use crate::{
    base::world::{blocking, now_ms},
    broker::{
        Broker,
        sessions::{PartitionRequest, SessionFetch, SessionPartition},
    },
    log::{
        AbortedTxn,
        disk::{is_refusing_reads, without_waiting},
    },
    partition::{
        Awaited, EpochEnd, FetchWait, FollowerFetch, FollowerFetchError, Partition, Topic, View,
    },
};

pub struct Fetch;

const READ_COMMITTED: i8 = 1;
/// The first version that is told where the leader is (KIP-951).
const LEADER_HINTS: i16 = 16;
/// The first version whose consumers may read from followers (KIP-392).
const READS_FOLLOWERS: i16 = 11;

impl Handler for Fetch {
    const API: ApiKey = ApiKey::Fetch;
    const VERSIONS: RangeInclusive<i16> = 4..=18;
    type Request = FetchRequest;
    type Response = FetchAnswer;

    async fn handle(cx: &mut Context<'_>, request: FetchRequest) -> Reply<FetchAnswer> {
        match cx.session.of_controllers {
            true => fetch_metadata(cx, request),
            false => fetch_partitions(cx, request).await.map(FetchAnswer::Partitions),
        }
    }
}

/// What brokers serve.
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
    let plan = Plan::new(Arc::clone(cx.broker), fetch, limits, (reader, hints));
    let results = plan.read_ready(Look::First).await;
    if max_wait.is_zero() || plan.is_satisfied(&results) {
        return Reply::Now(plan.answer(results));
    }
    let deadline = Instant::now() + max_wait;
    let parked = cx.broker.metrics.purgatory.park_fetch();
    Reply::Later(Box::pin(async move {
        let results = plan.wait(deadline).await;
        drop(parked);
        plan.answer(results)
    }))
}

/// Who fetches, which says what it may read and where.
enum Reader {
    Consumer {
        is_committed_only: bool,
        only_from_leader: bool,
        /// Where it is and what listener it uses, if it may be sent to a replica nearby.
        place: Option<(String, Arc<str>)>,
    },
    /// Followers read what is not committed yet.
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
            place: may_redirect
                .then(|| (request.rack_id.to_string(), Arc::clone(&cx.session.listener))),
        }
    }

    /// Where the part of the log ends that it may read.
    fn end(&self, view: &View) -> i64 {
        match self {
            Self::Consumer { is_committed_only: true, .. } => view.last_stable_offset,
            Self::Consumer { .. } => view.high_watermark,
            Self::Follower { .. } => view.log.log_end(),
        }
    }

    fn is_committed_only(&self) -> bool {
        matches!(self, Self::Consumer { is_committed_only: true, .. })
    }

    fn awaited(&self) -> Awaited {
        match self {
            Self::Consumer { .. } => Awaited::Committed,
            Self::Follower { .. } => Awaited::Appended,
        }
    }
}

/// A follower's fetch says where it is; it says so once, however often its partitions are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    First,
    Again,
}

#[derive(Clone, Copy)]
struct Limits {
    min_bytes: usize,
    max_bytes: usize,
    /// Kafka's reader trips at a negative limit.
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

struct Plan {
    broker: Arc<Broker>,
    fetch: SessionFetch,
    /// The fetch's partitions, in its order.
    partitions: Vec<Result<Found, ErrorCode>>,
    limits: Limits,
    reader: Reader,
    /// The listener of a client that is told where leaders are.
    hints: Option<Arc<str>>,
}

/// A partition of this broker, with its topic.
struct Found {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
}

impl Plan {
    fn new(
        broker: Arc<Broker>,
        fetch: SessionFetch,
        limits: Limits,
        (reader, hints): (Reader, Option<Arc<str>>),
    ) -> Self {
        let find = |partition: &SessionPartition| find_partition(&broker, &partition.request);
        let partitions = fetch.partitions().map(find).collect();
        Self { broker, fetch, partitions, limits, reader, hints }
    }

    /// Reads all partitions. If an index or a batch header has to be read from the disk, a blocking
    /// thread reads it first, so that no worker waits.
    async fn read_ready(&self, look: Look) -> Vec<PartitionReply> {
        if let Some(replies) = without_waiting(|| self.read_all(look)) {
            return replies;
        }
        let place = |(asked, found): (&SessionPartition, &Result<Found, ErrorCode>)| {
            let partition = Arc::clone(&found.as_ref().ok()?.partition);
            let end = self.reader.end(&partition.view());
            let max_bytes = asked.request.max_bytes.max(0) as usize;
            Some((partition, asked.request.fetch_offset, max_bytes.min(self.limits.max_bytes), end))
        };
        let places: Vec<_> =
            self.fetch.partitions().zip(&self.partitions).filter_map(place).collect();
        let is_committed_only = self.reader.is_committed_only();
        let look_up = move || {
            for (partition, offset, max_bytes, end) in places {
                // Fills the page cache. Errors are ignored, because the second read returns them.
                let log = &partition.view().log;
                let Ok(slice) = log.read(offset, max_bytes, end, true) else { continue };
                if is_committed_only {
                    let _ = log.aborted_transactions(offset, &slice);
                }
            }
        };
        // A panic is logged, and the reads below may wait then.
        let _ = blocking(look_up).await;
        self.read_all(look)
    }

    fn read_all(&self, look: Look) -> Vec<PartitionReply> {
        let mut left = self.limits.max_bytes;
        let mut is_empty = true;
        let now = now_ms();
        let read = |(partition, found): (&SessionPartition, &Result<Found, ErrorCode>)| {
            let at = At { left, at_least_one: is_empty, look, now_ms: now };
            let reply = self.read(&partition.request, found, &at);
            let len = reply.records.as_ref().map_or(0, |slice| slice.len);
            left = left.saturating_sub(len);
            is_empty &= len == 0;
            reply
        };
        self.fetch.partitions().zip(&self.partitions).map(read).collect()
    }

    fn read(
        &self,
        request: &PartitionRequest,
        found: &Result<Found, ErrorCode>,
        at: &At,
    ) -> PartitionReply {
        match found {
            Err(code) => PartitionReply {
                aborted: (*code != ErrorCode::InconsistentTopicId).then(Vec::new),
                ..PartitionReply::error(request.partition, *code)
            },
            Ok(found) => {
                let read = errors::read_again(|| self.read_partition(found, request, at));
                read.unwrap_or_else(|code| PartitionReply::error(request.partition, code))
            }
        }
    }

    /// `None` if the log was cut or moved while it was read.
    fn read_partition(
        &self,
        found: &Found,
        spec: &PartitionRequest,
        at: &At,
    ) -> Result<Option<PartitionReply>, ErrorCode> {
        let partition = &found.partition;
        let view = partition.view();
        self.check_leader(&view, spec.current_leader_epoch.max(-1))?;
        let diverging = match (&self.reader, at.look) {
            (reader @ Reader::Follower { .. }, Look::First) => {
                note_follower(partition, reader, spec, at.now_ms)?
            }
            _ => diverging_epoch(partition, &view, spec)?,
        };
        // What the follower has told may have raised the high watermark.
        let view = partition.view();
        let mut reply = PartitionReply::of(&view, spec.partition);
        if let Reader::Consumer { place: Some((rack, listener)), .. } = &self.reader {
            let image = self.broker.metadata();
            let near = preferred_replica::Near { rack, listener, image: &image };
            reply.preferred = near.select(partition, spec.fetch_offset, self.broker.node_id);
        }
        if diverging.is_some() || reply.preferred.is_some() {
            reply.diverging = diverging;
            return Ok(Some(reply));
        }
        let is_committed_only = self.reader.is_committed_only();
        reply.aborted = is_committed_only.then(Vec::new);
        let (offset, end) = (spec.fetch_offset, self.reader.end(&view));
        let max_bytes = at.left.min(spec.max_bytes.max(0) as usize);
        if offset >= end
            || (max_bytes == 0 && !at.at_least_one)
            || self.is_held_back(found, at.now_ms)
        {
            return Ok(Some(reply));
        }
        if self.limits.is_negative || spec.max_bytes < 0 {
            return Err(ErrorCode::UnknownServerError);
        }
        let read = view.log.read(offset, max_bytes, end, at.at_least_one).and_then(|slice| {
            // Like Kafka, no list without records.
            let lists = is_committed_only && slice.len > 0;
            let aborted = lists.then(|| view.log.aborted_transactions(offset, &slice)).transpose();
            Ok((aborted?, slice))
        });
        match read {
            Ok((aborted, slice)) => {
                let id = |txn: AbortedTxn| (txn.producer_id, txn.first_offset);
                reply.aborted = aborted.map(|all| all.into_iter().map(id).collect());
                reply.records = Some(slice);
            }
            // The read was refused because it would wait for the disk. `read_ready` repeats all.
            Err(_) if is_refusing_reads() => {}
            Err(error) => {
                errors::read(partition, &view, error)?;
                return Ok(None);
            }
        }
        Ok(Some(reply))
    }

    /// Refuses what may not be read here, and leader epochs that differ (KIP-320).
    fn check_leader(&self, view: &View, current_leader_epoch: i32) -> Result<(), ErrorCode> {
        match self.reader {
            Reader::Consumer { only_from_leader: false, .. } => {
                errors::check_replica_epoch(view.role, current_leader_epoch)
            }
            _ => errors::check_leader_epoch(view.role, current_leader_epoch),
        }
    }

    /// Whether the follower is one that is copied slowly, and has had enough for now.
    fn is_held_back(&self, Found { topic, partition }: &Found, now_ms: i64) -> bool {
        let Reader::Follower { replica, .. } = self.reader else { return false };
        let limit = self.broker.settings().cluster.leader_replication_throttled_rate;
        limit.is_some()
            && self.is_throttled(topic, partition)
            && self.broker.replication.leader_throttle.is_exceeded(limit, now_ms)
            && !partition.in_sync_followers().iter().any(|it| it.id == replica)
    }

    fn is_throttled(&self, topic: &Topic, partition: &Partition) -> bool {
        let config = topic.config.load();
        config
            .leader_replication_throttled_replicas
            .contains(partition.id.partition, self.broker.node_id)
    }

    /// Whether there is enough to answer at once: bytes, or anything that the client must hear of.
    fn is_satisfied(&self, replies: &[PartitionReply]) -> bool {
        let len = |reply: &PartitionReply| reply.records.as_ref().map_or(0, |slice| slice.len);
        let news = |reply: &PartitionReply| {
            reply.error_code != errors::NONE
                || reply.diverging.is_some()
                || reply.preferred.is_some()
        };
        replies.is_empty()
            || replies.iter().any(news)
            || replies.iter().map(len).sum::<usize>() >= self.limits.min_bytes
    }

    async fn wait(&self, deadline: Instant) -> Vec<PartitionReply> {
        let registered = Registered::new(self);
        loop {
            // Read after registering: what arrives from here on wakes this fetch.
            let replies = self.read_ready(Look::Again).await;
            if self.is_satisfied(&replies) {
                return replies;
            }
            if timeout_at(deadline, registered.wait.woken()).await.is_err() {
                return self.read_ready(Look::Again).await;
            }
        }
    }

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
        // Other brokers know already where everybody is.
        if matches!(self.reader, Reader::Follower { .. }) {
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
        self.broker.replication.metrics.bytes_out.increment(bytes);
        if self.is_throttled(topic, partition) {
            self.broker.replication.leader_throttle.note(bytes, now_ms());
        }
    }

    /// Tells a client that came to the wrong broker where the leader is.
    fn hint_leader(
        &self,
        asked: &PartitionRequest,
        listener: &str,
        reply: &mut PartitionReply,
        nodes: &mut BTreeMap<i32, cluster::Node>,
    ) {
        let is_elsewhere = [ErrorCode::NotLeaderOrFollower, ErrorCode::FencedLeaderEpoch]
            .iter()
            .any(|code| reply.error_code == code.code());
        if !is_elsewhere {
            return;
        }
        let name = asked.topic.as_deref().unwrap_or_default();
        let hint = cluster::leader(&self.broker, name, asked.topic_id, asked.partition);
        if let Some(hint) = hint {
            reply.current_leader = Some((hint.leader, hint.epoch));
            cluster::add_endpoint(&self.broker.metadata(), hint.leader, listener, nodes);
        }
    }
}

/// What a read of one partition goes by besides its request.
struct At {
    /// Bytes that may still be answered.
    left: usize,
    at_least_one: bool,
    look: Look,
    now_ms: i64,
}

/// Has the leader know where its follower is, and tells the follower where it must truncate.
fn note_follower(
    partition: &Arc<Partition>,
    reader: &Reader,
    spec: &PartitionRequest,
    now_ms: i64,
) -> Result<Option<EpochEnd>, ErrorCode> {
    let Reader::Follower { replica, broker_epoch, max_wait_ms } = *reader else { return Ok(None) };
    let fetch = FollowerFetch {
        replica,
        broker_epoch,
        fetch_offset: spec.fetch_offset,
        last_fetched_epoch: spec.last_fetched_epoch,
        log_start: spec.log_start_offset,
        max_wait_ms: i64::from(max_wait_ms.max(0)),
    };
    partition.follower_fetched(&fetch, now_ms).map_err(|error| match error {
        // It knows the leader epoch, and so of a replica that this broker has yet to hear of.
        FollowerFetchError::UnknownReplica if spec.current_leader_epoch >= 0 => {
            ErrorCode::UnknownLeaderEpoch
        }
        FollowerFetchError::UnknownReplica
        | FollowerFetchError::NotLeader
        | FollowerFetchError::StaleBrokerEpoch => ErrorCode::NotLeaderOrFollower,
        FollowerFetchError::OutOfRange => ErrorCode::OffsetOutOfRange,
    })
}

/// Whether the error is one that no client causes by being behind; Kafka counts only those as
/// failed (`ReplicaManager.readFromLog`).
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

/// A fetch's registration at its partitions, undone when it is answered or its connection ends.
struct Registered<'a> {
    plan: &'a Plan,
    wait: Arc<FetchWait>,
}

impl<'a> Registered<'a> {
    fn new(plan: &'a Plan) -> Self {
        let registered = Self { plan, wait: Arc::default() };
        for partition in registered.partitions() {
            partition.wait_for_data(&registered.wait, plan.reader.awaited());
        }
        registered
    }

    fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        let found = self.plan.partitions.iter().filter_map(|found| found.as_ref().ok());
        found.map(|found| &found.partition)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for partition in self.partitions() {
            partition.forget_wait(&self.wait, self.plan.reader.awaited());
        }
    }
}

fn find_partition(broker: &Broker, spec: &PartitionRequest) -> Result<Found, ErrorCode> {
    let (id, index) = (spec.topic_id, spec.partition);
    let found = match &spec.topic {
        Some(name) if id.is_nil() => broker.partitions.topic(name),
        _ => broker.partitions.topic_by_id(id),
    };
    let Some(topic) = found else {
        let name = spec.topic.as_deref();
        let code = cluster::elsewhere(broker, name.filter(|_| id.is_nil()), id, index);
        // A session remembers the name of a topic that is gone, and another may have it by now.
        return Err(match name {
            Some(name) if code == ErrorCode::UnknownTopicId => {
                match broker.partitions.topic(name).map(|it| it.partition(index)) {
                    Some(Ok(_)) => ErrorCode::InconsistentTopicId,
                    _ => ErrorCode::UnknownTopicOrPartition,
                }
            }
            _ => code,
        });
    };
    let partition = topic.partition(index);
    let partition = partition.map_err(|absent| cluster::absent(broker, &topic, index, absent))?;
    Ok(Found { topic, partition })
}

/// Where a fetcher's log leaves this one: it must truncate before it reads on (KIP-595).
fn diverging_epoch(
    partition: &Partition,
    view: &View,
    spec: &PartitionRequest,
) -> Result<Option<EpochEnd>, ErrorCode> {
    let offset = spec.fetch_offset;
    if spec.last_fetched_epoch >= 0 {
        let diverging = partition.diverging(offset, spec.last_fetched_epoch);
        return diverging.map_err(|_| ErrorCode::OffsetOutOfRange);
    }
    match offset < view.log.log_start() || offset > view.log.log_end() {
        true => Err(ErrorCode::OffsetOutOfRange),
        false => Ok(None),
    }
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
    fn only_what_nobody_explains_is_a_failure() {
        assert!(is_failure(ErrorCode::UnknownServerError.code()));
        assert!(is_failure(ErrorCode::CorruptMessage.code()));
        assert!(!is_failure(errors::NONE));
        assert!(!is_failure(ErrorCode::OffsetOutOfRange.code()));
        assert!(!is_failure(ErrorCode::FencedLeaderEpoch.code()));
    }
}
