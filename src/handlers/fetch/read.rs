//! Reads the partitions of a fetch: checks what the reader may read here, and finds the records.

use std::{path::PathBuf, sync::Arc};

use super::{FetchJob, Found, Reader, preferred_replica, reply::PartitionReply};
use crate::{
    base::environment::now_ms,
    fetch_sessions::{PartitionRequest, SessionPartition},
    handlers::{ErrorCode, errors},
    log::{
        AbortedTxn,
        disk::{is_refusing_reads, without_waiting},
    },
    partition::{EpochEnd, FollowerFetch, FollowerFetchError, Partition, Topic, View},
};

/// Whether a fetch reads its partitions for the first time. Only the first read of a follower's
/// fetch reports the follower's position to the leader.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FetchPass {
    First,
    Again,
}

/// The limits and the time for the read of one partition.
struct ReadBudget {
    /// Bytes that the response may still take.
    left: usize,
    /// Whether a first batch that is larger than the limits is returned all the same.
    at_least_one: bool,
    pass: FetchPass,
    now_ms: i64,
}

impl FetchJob {
    /// Reads all partitions. If an index or a batch header is not in the page cache, a blocking
    /// thread reads all of them, so that no worker waits for the disk. If a log directory does not
    /// respond, only fetches that read from it wait, and fetches from several directories.
    pub(super) async fn read_ready(self: &Arc<Self>, pass: FetchPass) -> Vec<PartitionReply> {
        if let Some(replies) = without_waiting(|| self.read_all(pass)) {
            return replies;
        }
        let (job, look_ups) = (Arc::clone(self), &self.broker.limits.fetch_look_ups);
        let read = look_ups.run(self.log_dir(), move || job.read_all(pass)).await;
        read.unwrap_or_else(|_panicked| {
            let refused = |it: &SessionPartition| {
                PartitionReply::error(it.request.partition, ErrorCode::UnknownServerError)
            };
            self.fetch.partitions().map(refused).collect()
        })
    }

    /// The log directory of all partitions, or `None` if they are in several directories.
    fn log_dir(&self) -> Option<Arc<PathBuf>> {
        let mut dirs = self.partitions.iter().flatten().map(|it| it.partition.log_dir());
        let first = dirs.next()?;
        dirs.all(|dir| dir == first).then_some(first)
    }

    /// Reads all partitions in order, with `max_bytes` for all of them together.
    fn read_all(&self, pass: FetchPass) -> Vec<PartitionReply> {
        let mut left = self.limits.max_bytes;
        let mut is_empty = true;
        let now = now_ms();
        let read = |(partition, found): (&SessionPartition, &Result<Found, ErrorCode>)| {
            let budget = ReadBudget { left, at_least_one: is_empty, pass, now_ms: now };
            let reply = self.read(&partition.request, found, &budget);
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
        budget: &ReadBudget,
    ) -> PartitionReply {
        match found {
            Err(code) => PartitionReply {
                aborted: (*code != ErrorCode::InconsistentTopicId).then(Vec::new),
                ..PartitionReply::error(request.partition, *code)
            },
            Ok(found) => {
                let read = errors::read_again(|| self.read_partition(found, request, budget));
                read.unwrap_or_else(|code| PartitionReply::error(request.partition, code))
            }
        }
    }

    /// Reads one partition. `None` means that the log was truncated or moved meanwhile, so that the
    /// caller must repeat the read.
    fn read_partition(
        &self,
        found: &Found,
        spec: &PartitionRequest,
        budget: &ReadBudget,
    ) -> Result<Option<PartitionReply>, ErrorCode> {
        let partition = &found.partition;
        let view = partition.view();
        self.check_leader(&view, spec.current_leader_epoch.max(-1))?;
        let diverging = match (&self.reader, budget.pass) {
            (reader @ Reader::Follower { .. }, FetchPass::First) => {
                note_follower(partition, reader, spec, budget.now_ms)?
            }
            _ => diverging_epoch(partition, &view, spec)?,
        };
        // The follower's position may have raised the high watermark, so get a new view.
        let view = partition.view();
        let mut reply = PartitionReply::of(&view, spec.partition);
        if let Reader::Consumer { rack_and_listener: Some((rack, listener)), .. } = &self.reader {
            let image = self.broker.metadata();
            let near = preferred_replica::Near { rack, listener, image: &image };
            reply.preferred = near.select(partition, spec.fetch_offset, self.broker.node.id);
        }
        if diverging.is_some() || reply.preferred.is_some() {
            reply.diverging = diverging;
            return Ok(Some(reply));
        }
        let is_committed_only = self.reader.is_committed_only();
        reply.aborted = is_committed_only.then(Vec::new);
        let (offset, end) = (spec.fetch_offset, self.reader.end(&view));
        let max_bytes = budget.left.min(spec.max_bytes.max(0) as usize);
        if offset >= end
            || (max_bytes == 0 && !budget.at_least_one)
            || self.is_held_back(found, budget.now_ms)
        {
            return Ok(Some(reply));
        }
        if self.limits.is_negative || spec.max_bytes < 0 {
            return Err(ErrorCode::UnknownServerError);
        }
        let read = view.log.read(offset, max_bytes, end, budget.at_least_one).and_then(|slice| {
            // As in Kafka, the list is null if the read returned no records.
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
            // The read would have to wait for the disk. `read_ready` repeats it on another thread.
            Err(_) if is_refusing_reads() => {}
            Err(error) => {
                errors::read(partition, &view, error)?;
                return Ok(None);
            }
        }
        Ok(Some(reply))
    }

    /// Checks that the reader may read from this replica, and that its leader epoch is the current
    /// one (KIP-320).
    fn check_leader(&self, view: &View, current_leader_epoch: i32) -> Result<(), ErrorCode> {
        match self.reader {
            Reader::Consumer { only_from_leader: false, .. } => {
                errors::check_replica_epoch(view.role, current_leader_epoch)
            }
            _ => errors::check_leader_epoch(view.role, current_leader_epoch),
        }
    }

    /// Whether the reader is a throttled follower and the throttle's rate is exceeded for now.
    /// Followers in the ISR are not throttled.
    fn is_held_back(&self, Found { topic, partition }: &Found, now_ms: i64) -> bool {
        let Reader::Follower { replica, .. } = self.reader else { return false };
        let limit = self.broker.settings().cluster.leader_replication_throttled_rate;
        limit.is_some()
            && self.is_throttled(topic, partition)
            && self.broker.replicas.replication.leader_throttle.is_exceeded(limit, now_ms)
            && !partition.in_sync_followers().iter().any(|it| it.id == replica)
    }

    /// Whether the topic's `leader.replication.throttled.replicas` names this replica.
    pub(super) fn is_throttled(&self, topic: &Topic, partition: &Partition) -> bool {
        let config = topic.config.load();
        config
            .leader_replication_throttled_replicas
            .contains(partition.id.partition, self.broker.node.id)
    }
}

/// Reports the follower's position to the leader. Returns where the follower's log diverges, if it
/// does. The follower must then truncate its log.
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
        // The follower knows a leader epoch in which it is a replica. This broker has not applied
        // that metadata yet.
        FollowerFetchError::UnknownReplica if spec.current_leader_epoch >= 0 => {
            ErrorCode::UnknownLeaderEpoch
        }
        FollowerFetchError::UnknownReplica
        | FollowerFetchError::NotLeader
        | FollowerFetchError::StaleBrokerEpoch => ErrorCode::NotLeaderOrFollower,
        FollowerFetchError::OutOfRange => ErrorCode::OffsetOutOfRange,
    })
}

/// Where the reader's log diverges from this log, if it does. The reader must truncate its log
/// before it continues (KIP-595). Fails if the fetch offset is out of range.
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
