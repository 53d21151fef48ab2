//! Fetch: reads from published views, without a queue or a lock, and waits for more where there is
//! less than `min_bytes`. A waiting fetch is one wake-up at its partitions or its deadline.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use kafka_protocol::messages::{ApiKey, FetchRequest};
use tokio::time::{Instant, timeout_at};

use super::{
    Context, ErrorCode, Handler, Reply, errors,
    fetch_reply::{FetchReply, PartitionReply},
    fetch_session,
};
use crate::{
    broker::{
        Broker,
        sessions::{PartitionRequest, SessionFetch, SessionPartition},
    },
    partition::{FetchWait, Partition, Role, Topic, View},
};

pub struct Fetch;

const READ_COMMITTED: i8 = 1;
/// The first version that is told where the leader is (KIP-951).
const LEADER_HINTS: i16 = 16;

impl Handler for Fetch {
    const API: ApiKey = ApiKey::Fetch;
    const VERSIONS: RangeInclusive<i16> = 4..=18;
    type Request = FetchRequest;
    type Response = FetchReply;

    async fn handle(cx: &mut Context<'_>, request: FetchRequest) -> Reply<FetchReply> {
        if !(0..=READ_COMMITTED).contains(&request.isolation_level) {
            return Reply::Now(fetch_session::refuse_all(&request, ErrorCode::UnknownServerError));
        }
        let limits = Limits::of(&request, cx.broker.settings().fetch_max_bytes, cx.version);
        let max_wait = Duration::from_millis(request.max_wait_ms.max(0) as u64);
        let fetch = match fetch_session::begin(cx.broker, request, cx.version) {
            Ok(fetch) => fetch,
            Err(refused) => return Reply::Now(refused),
        };
        let plan = Plan::new(Arc::clone(cx.broker), fetch, limits);
        let results = plan.read_all();
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
}

#[derive(Clone, Copy)]
enum ReadUpTo {
    HighWatermark,
    /// `read_committed`.
    LastStableOffset,
    /// Followers read what is not committed yet.
    LogEnd,
}

#[derive(Clone, Copy)]
struct Limits {
    min_bytes: usize,
    max_bytes: usize,
    /// Kafka's reader trips at a negative limit.
    is_negative: bool,
    up_to: ReadUpTo,
    hints_leader: bool,
}

impl Limits {
    fn of(request: &FetchRequest, fetch_max_bytes: i32, version: i16) -> Self {
        let is_follower = request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0;
        let max_bytes = request.max_bytes.min(fetch_max_bytes).max(0) as usize;
        Self {
            // Kafka never waits for more than it may return.
            min_bytes: (request.min_bytes.max(0) as usize).min(max_bytes),
            max_bytes,
            is_negative: request.max_bytes < 0,
            hints_leader: version >= LEADER_HINTS,
            up_to: match (is_follower, request.isolation_level) {
                (true, _) => ReadUpTo::LogEnd,
                (false, READ_COMMITTED) => ReadUpTo::LastStableOffset,
                (false, _) => ReadUpTo::HighWatermark,
            },
        }
    }
}

struct Plan {
    broker: Arc<Broker>,
    fetch: SessionFetch,
    /// The fetch's partitions, in its order.
    partitions: Vec<Result<Found, ErrorCode>>,
    limits: Limits,
}

/// A partition of this broker, with its topic.
struct Found {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
}

impl Plan {
    fn new(broker: Arc<Broker>, fetch: SessionFetch, limits: Limits) -> Self {
        let find = |partition: &SessionPartition| find_partition(&broker, &partition.request);
        let partitions = fetch.partitions().map(find).collect();
        Self { broker, fetch, partitions, limits }
    }

    fn read_all(&self) -> Vec<PartitionReply> {
        let mut left = self.limits.max_bytes;
        let mut is_empty = true;
        let read = |(partition, found): (&SessionPartition, &Result<Found, ErrorCode>)| {
            let reply = self.read(&partition.request, found, left, is_empty);
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
        left: usize,
        at_least_one: bool,
    ) -> PartitionReply {
        match found {
            Err(code) => PartitionReply {
                aborted: (*code != ErrorCode::InconsistentTopicId).then(Vec::new),
                ..PartitionReply::error(request.partition, *code)
            },
            Ok(Found { partition, .. }) => {
                let read = self.read_partition(partition, request, left, at_least_one);
                read.unwrap_or_else(|code| PartitionReply {
                    current_leader: self.leader_hint(partition, code),
                    ..PartitionReply::error(request.partition, code)
                })
            }
        }
    }

    fn read_partition(
        &self,
        partition: &Partition,
        spec: &PartitionRequest,
        left: usize,
        at_least_one: bool,
    ) -> Result<PartitionReply, ErrorCode> {
        let view = partition.view();
        check_leader(&view, spec.current_leader_epoch)?;
        if matches!(self.limits.up_to, ReadUpTo::LogEnd) {
            // This broker's replica is the only one, so no follower can be one of the partition's.
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let mut reply = PartitionReply::of(&view, spec.partition);
        if matches!(self.limits.up_to, ReadUpTo::LastStableOffset) {
            // Nothing is aborted below the last stable offset before transactions are served.
            reply.aborted = Some(Vec::new());
        }
        if let Some(diverging) = diverging_epoch(partition, spec)? {
            reply.diverging = Some(diverging);
            return Ok(reply);
        }
        let end = match self.limits.up_to {
            ReadUpTo::HighWatermark => view.high_watermark,
            ReadUpTo::LastStableOffset => view.last_stable_offset,
            ReadUpTo::LogEnd => view.log.log_end(),
        };
        let offset = spec.fetch_offset;
        if offset < view.log.log_start() || offset > view.log.log_end() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let max_bytes = left.min(spec.max_bytes.max(0) as usize);
        if offset >= end || (max_bytes == 0 && !at_least_one) {
            return Ok(reply);
        }
        if self.limits.is_negative || spec.max_bytes < 0 {
            return Err(ErrorCode::UnknownServerError);
        }
        let slice = view.log.read(offset, max_bytes, end, at_least_one).map_err(|error| {
            let code = errors::read(&error);
            partition.read_failed(error);
            code
        })?;
        reply.records = Some(slice);
        Ok(reply)
    }

    fn leader_hint(&self, partition: &Partition, code: ErrorCode) -> Option<(i32, i32)> {
        let is_hint = self.limits.hints_leader
            && matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
        match partition.view().role {
            Role::Follower { epoch, leader } if is_hint => Some((leader, epoch)),
            Role::Leader { epoch } if is_hint => Some((self.broker.node_id, epoch)),
            _ => None,
        }
    }

    /// Whether there is enough to answer at once: bytes, or anything that the client must hear of.
    fn is_satisfied(&self, replies: &[PartitionReply]) -> bool {
        let len = |reply: &PartitionReply| reply.records.as_ref().map_or(0, |slice| slice.len);
        let news =
            |reply: &PartitionReply| reply.error_code != errors::NONE || reply.diverging.is_some();
        replies.is_empty()
            || replies.iter().any(news)
            || replies.iter().map(len).sum::<usize>() >= self.limits.min_bytes
    }

    async fn wait(&self, deadline: Instant) -> Vec<PartitionReply> {
        let registered = Registered::new(self);
        loop {
            // Read after registering: what arrives from here on wakes this fetch.
            let replies = self.read_all();
            if self.is_satisfied(&replies) {
                return replies;
            }
            if timeout_at(deadline, registered.wait.woken()).await.is_err() {
                return self.read_all();
            }
        }
    }

    fn answer(self, replies: Vec<PartitionReply>) -> FetchReply {
        for (found, reply) in self.partitions.iter().zip(&replies) {
            let Ok(Found { topic, .. }) = found else { continue };
            topic.metrics.fetch_requests.increment(1);
            if let Some(slice) = &reply.records {
                topic.metrics.bytes_out.increment(slice.len as u64);
            }
            if is_failure(reply.error_code) {
                topic.metrics.failed_fetch_requests.increment(1);
            }
        }
        fetch_session::finish(&self.broker, self.fetch, replies)
    }
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
            partition.wait_for_data(&registered.wait);
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
            partition.forget_wait(&self.wait);
        }
    }
}

fn find_partition(broker: &Broker, spec: &PartitionRequest) -> Result<Found, ErrorCode> {
    let topic = match &spec.topic {
        Some(name) if spec.topic_id.is_nil() => {
            broker.partitions.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)?
        }
        // A session remembers the name of a topic that is gone, and another may have it by now.
        name => broker.partitions.topic_by_id(spec.topic_id).ok_or_else(|| match name {
            Some(name) => match broker.partitions.topic(name).map(|it| it.partition(spec.partition)) {
                Some(Ok(_)) => ErrorCode::InconsistentTopicId,
                _ => ErrorCode::UnknownTopicOrPartition,
            },
            None => ErrorCode::UnknownTopicId,
        })?,
    };
    let partition = topic.partition(spec.partition).map_err(errors::absent)?;
    Ok(Found { topic, partition })
}

/// Refuses what is not led here, and leader epochs that differ (KIP-320).
fn check_leader(view: &View, current_leader_epoch: i32) -> Result<(), ErrorCode> {
    errors::check_leader_epoch(view.role, current_leader_epoch.max(-1))
}

/// Where a fetcher's log leaves this one: it must truncate before it reads on (KIP-595). An epoch
/// that this log does not know is out of range.
fn diverging_epoch(
    partition: &Partition,
    spec: &PartitionRequest,
) -> Result<Option<(i32, i64)>, ErrorCode> {
    if spec.last_fetched_epoch < 0 {
        return Ok(None);
    }
    let found = partition.end_offset_for_epoch(spec.last_fetched_epoch);
    let (epoch, end_offset) = found.ok_or(ErrorCode::OffsetOutOfRange)?;
    let diverges = epoch < spec.last_fetched_epoch || end_offset < spec.fetch_offset;
    Ok(diverges.then_some((epoch, end_offset)))
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
