//! How the leader serves observers, which follow the log with Kafka's Fetch and FetchSnapshot:
//! committed batches and snapshots. Rules: Kafka's `KafkaRaftClient.handleFetchRequest` and
//! `ReplicatedLog.validateOffsetAndEpoch`.

use std::{collections::BTreeMap, io, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{
    Leadership, Quorum, ReplicaStatus, checkpoint::SnapshotId, state_machine::SnapshotAt,
    voters::Endpoint,
};
use crate::{
    base::environment::now_ms,
    log::disk::{self, OpenMode},
};

/// An observer that has not fetched for this long, in milliseconds, is forgotten (Kafka's
/// `LeaderState`).
const OBSERVER_SESSION_MS: i64 = 300_000;

/// A replica that fetches: its `node.id` and the id of its metadata log directory, nil if it sends
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    pub id: i32,
    pub directory_id: Uuid,
}

/// Where a fetch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchFrom {
    pub offset: i64,
    /// The epoch of the batch before the offset.
    pub last_fetched_epoch: i32,
    /// The follower's leader epoch, -1 if it sends none.
    pub leader_epoch: i32,
    pub max_bytes: usize,
}

/// The response to a fetch.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched {
    pub leader: Option<i32>,
    pub leader_epoch: i32,
    pub high_watermark: i64,
    pub log_start: i64,
    pub outcome: FetchOutcome,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FetchOutcome {
    /// Whole batches; none when there is nothing new.
    Records(Bytes),
    /// The follower's log diverges from this one. The two agree up to this point at most.
    Diverging {
        epoch: i32,
        end_offset: i64,
    },
    /// The requested offset is no longer in the log. This snapshot includes it.
    Snapshot {
        end_offset: i64,
        epoch: i32,
    },
    NotLeader,
    /// The follower's leader epoch is older than this node's.
    FencedEpoch,
    /// The follower's leader epoch is newer than this node's.
    UnknownEpoch,
    /// The log cannot be read.
    Failed,
}

/// Why a part of a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotReadError {
    #[error("this node does not lead the quorum")]
    NotLeader,
    #[error("the follower knows an older epoch")]
    FencedEpoch,
    #[error("the follower knows a newer epoch")]
    UnknownEpoch,
    #[error("there is no such snapshot")]
    NotFound,
    #[error("the position is not in the snapshot")]
    PositionOutOfRange,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotPart {
    /// The size of the whole snapshot, in bytes.
    pub size: i64,
    pub bytes: Bytes,
}

/// How far a follower has fetched.
#[derive(Debug, Clone, Copy)]
struct Seen {
    log_end_offset: i64,
    fetch_ms: i64,
    caught_up_ms: i64,
    /// The leader's log end offset at that fetch.
    leader_end: i64,
}

/// The observers that have fetched from this leader in its epoch.
#[derive(Debug, Default)]
pub struct Observers {
    epoch: i32,
    seen: BTreeMap<Replica, Seen>,
}

impl Observers {
    /// Whether the replica had the whole log at some time after `since_ms`.
    pub fn is_caught_up(&self, replica: Replica, since_ms: i64) -> bool {
        self.seen.get(&replica).is_some_and(|seen| seen.caught_up_ms > since_ms)
    }

    /// Records a fetch at `offset`. When the epoch has changed, forgets all earlier fetches.
    fn see(&mut self, replica: Replica, (epoch, leader_end): (i32, i64), offset: i64) {
        if self.epoch != epoch {
            *self = Self { epoch, seen: BTreeMap::new() };
        }
        let now = now_ms();
        let before = self.seen.get(&replica).copied();
        let caught_up_ms = match before {
            _ if offset >= leader_end => now,
            Some(before) if before.leader_end > 0 && offset >= before.leader_end => {
                before.fetch_ms.max(before.caught_up_ms)
            }
            Some(before) => before.caught_up_ms,
            None => -1,
        };
        let seen = Seen { log_end_offset: offset, fetch_ms: now, caught_up_ms, leader_end };
        self.seen.insert(replica, seen);
        self.seen.retain(|_, seen| now - seen.fetch_ms < OBSERVER_SESSION_MS);
    }
}

impl Quorum {
    /// Answers a fetch of `__cluster_metadata` without waiting for new records.
    pub fn fetch(&self, replica: Option<Replica>, from: FetchFrom) -> Fetched {
        let leadership = *self.inner.leadership.borrow();
        let high_watermark = self.inner.published.load().offset + 1;
        let (log_start, outcome) = match self.refusal(leadership, from.leader_epoch) {
            Some(refusal) => (0, refusal),
            None => self.read(replica, from, (leadership.epoch, high_watermark)),
        };
        Fetched {
            leader: leadership.leader,
            leader_epoch: leadership.epoch,
            high_watermark,
            log_start,
            outcome,
        }
    }

    /// Answers a fetch of `__cluster_metadata`. If there are no new records, waits for some, for at
    /// most `max_wait` or until the leadership changes.
    pub async fn fetch_or_wait(
        &self,
        replica: Option<Replica>,
        from: FetchFrom,
        max_wait: Duration,
    ) -> Fetched {
        let deadline = Instant::now() + max_wait;
        let mut progress = self.inner.progress.subscribe();
        let mut leadership = self.leadership();
        loop {
            let end = *progress.borrow_and_update();
            leadership.borrow_and_update();
            let fetched = self.fetch(replica, from);
            let is_empty = matches!(&fetched.outcome, FetchOutcome::Records(it) if it.is_empty());
            if !is_empty || max_wait.is_zero() {
                return self.durable(fetched).await;
            }
            let more = async {
                tokio::select! {
                    biased;
                    _ = progress.wait_for(|offset| *offset > end) => {}
                    _ = leadership.changed() => {}
                }
            };
            if timeout_at(deadline, more).await.is_err() {
                return self.durable(self.fetch(replica, from)).await;
            }
        }
    }

    /// Syncs the log before a sole voter returns records. They may be in its page cache only, and
    /// no other node may get records that a crash can lose.
    async fn durable(&self, fetched: Fetched) -> Fetched {
        let has_records = matches!(&fetched.outcome, FetchOutcome::Records(it) if !it.is_empty());
        if !has_records || !self.inner.storage.is_alone() {
            return fetched;
        }
        match self.inner.storage.thread.sync().await {
            Ok(()) => fetched,
            Err(error) => {
                tracing::error!(%error, "the metadata log cannot be synced");
                Fetched { outcome: FetchOutcome::Failed, ..fetched }
            }
        }
    }

    /// The error response, if this node is not the leader in the epoch that the follower sent.
    fn refusal(&self, leadership: Leadership, known: i32) -> Option<FetchOutcome> {
        let leads = leadership.leader == Some(self.inner.config.node_id) && self.raft().is_some();
        match known {
            known if known >= 0 && known < leadership.epoch => Some(FetchOutcome::FencedEpoch),
            known if known > leadership.epoch => Some(FetchOutcome::UnknownEpoch),
            _ if !leads => Some(FetchOutcome::NotLeader),
            _ => None,
        }
    }

    fn read(
        &self,
        replica: Option<Replica>,
        from: FetchFrom,
        (epoch, high_watermark): (i32, i64),
    ) -> (i64, FetchOutcome) {
        // Lock order everywhere: first the machine, then the log.
        let snapshot = self.inner.machine.machine().snapshot.clone();
        let (log_start, range) = {
            let log = self.inner.storage.log();
            let log_start = log.start_offset();
            if let Some(replica) = replica.filter(|replica| replica.id >= 0) {
                let end = (epoch, log.end_offset());
                self.inner.observers.lock().see(replica, end, from.offset);
            }
            let start_epoch = log.purged().map_or(0, |(epoch, _)| epoch);
            let is_at_start = from.offset == log_start;
            let is_gone =
                from.offset < log_start || is_at_start && start_epoch != from.last_fetched_epoch;
            if let Some(SnapshotAt { id, .. }) = snapshot.filter(|_| is_gone) {
                let SnapshotId { end_offset, epoch } = id;
                return (log_start, FetchOutcome::Snapshot { end_offset, epoch });
            }
            let (known, end_offset) = log.end_of_epoch(from.last_fetched_epoch);
            if !is_at_start && (known != from.last_fetched_epoch || end_offset < from.offset) {
                return (log_start, FetchOutcome::Diverging { epoch: known, end_offset });
            }
            (log_start, log.range(from.offset, high_watermark, from.max_bytes))
        };
        let read = range.map_or(Ok(Bytes::new()), |range| range.read());
        (log_start, read.map_or(FetchOutcome::Failed, FetchOutcome::Records))
    }

    /// Reads a part of a snapshot, for FetchSnapshot.
    pub fn read_snapshot(
        &self,
        (end_offset, epoch): (i64, i32),
        position: i64,
        max_bytes: usize,
        leader_epoch: i32,
    ) -> Result<SnapshotPart, SnapshotReadError> {
        match self.refusal(*self.inner.leadership.borrow(), leader_epoch) {
            Some(FetchOutcome::FencedEpoch) => return Err(SnapshotReadError::FencedEpoch),
            Some(FetchOutcome::UnknownEpoch) => return Err(SnapshotReadError::UnknownEpoch),
            Some(_) => return Err(SnapshotReadError::NotLeader),
            None => {}
        }
        let config = &self.inner.config;
        // The snapshot that the format command writes is not served.
        if end_offset <= 0 {
            return Err(SnapshotReadError::NotFound);
        }
        let path = SnapshotId { end_offset, epoch }.path(&config.dir);
        let file = config.disk.open(&path, OpenMode::Read);
        let file = file.map_err(|_| SnapshotReadError::NotFound)?;
        let size = file.len()?;
        let at = u64::try_from(position).ok().filter(|at| *at < size);
        let at = at.ok_or(SnapshotReadError::PositionOutOfRange)?;
        let mut bytes = vec![0; (size - at).min(max_bytes as u64) as usize];
        disk::read_exact_at(&*file, &mut bytes, at)?;
        Ok(SnapshotPart { size: size as i64, bytes: bytes.into() })
    }

    /// The observers that DescribeQuorum lists.
    pub(super) fn observers_status(&self) -> Vec<ReplicaStatus> {
        let voters = self.deciding_voters();
        let observers = self.inner.observers.lock();
        let seen = observers.seen.iter();
        seen.filter(|(replica, _)| !voters.iter().any(|voter| voter.id == replica.id))
            .map(|(replica, seen)| ReplicaStatus {
                replica_id: replica.id,
                directory_id: replica.directory_id,
                log_end_offset: seen.log_end_offset,
                last_fetch_ms: seen.fetch_ms,
                last_caught_up_ms: seen.caught_up_ms,
                endpoints: Vec::new(),
            })
            .collect()
    }

    /// The id of this node's cluster.
    pub fn cluster_id(&self) -> &str {
        &self.inner.config.cluster_id
    }

    /// A voter's first endpoint for other controllers. For the leader that this observer follows:
    /// the endpoint at which it reaches that leader.
    pub fn endpoint(&self, voter: i32) -> Option<Endpoint> {
        if let Some((id, at)) = &*self.inner.followed.lock()
            && *id == voter
        {
            return Some(at.clone());
        }
        let known = self.inner.storage.voter_state();
        let node = known.effective().membership().get_node(&voter)?;
        node.endpoints.first().cloned()
    }
}
