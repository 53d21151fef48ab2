//! What the leader gives to nodes that follow the log through Kafka's Fetch and FetchSnapshot:
//! batches that are committed, and snapshots. Rules: Kafka's `KafkaRaftClient.handleFetchRequest`
//! and `ReplicatedLog.validateOffsetAndEpoch`.

use std::{collections::BTreeMap, io, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{
    Leadership, Quorum, ReplicaStatus, checkpoint::SnapshotId, state_machine::SnapshotAt,
    storage::lock, voters::Endpoint,
};
use crate::{
    base::world::now_ms,
    log::disk::{self, OpenMode},
};

/// An observer that has not fetched for this long is gone (`LeaderState`).
const OBSERVER_SESSION_MS: i64 = 300_000;

/// Who fetches: its `node.id` and the directory of its metadata log, nil if it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    pub id: i32,
    pub directory_id: Uuid,
}

/// Where a fetch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchFrom {
    pub offset: i64,
    /// Of the batch before the offset.
    pub last_fetched_epoch: i32,
    /// -1 when the follower knows none.
    pub leader_epoch: i32,
    pub max_bytes: usize,
}

/// What a fetch is answered.
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
    /// The follower's log is another's: it agrees with this one up to here at most.
    Diverging {
        epoch: i32,
        end_offset: i64,
    },
    /// What is asked for is gone; this snapshot has it.
    Snapshot {
        end_offset: i64,
        epoch: i32,
    },
    NotLeader,
    /// The follower knows an older epoch.
    FencedEpoch,
    /// The follower knows a newer epoch.
    UnknownEpoch,
    /// The log cannot be read.
    Failed,
}

/// Why no part of a snapshot is given.
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
    /// Of the whole snapshot.
    pub size: i64,
    pub bytes: Bytes,
}

/// How far a follower has fetched.
#[derive(Debug, Clone, Copy)]
struct Seen {
    log_end_offset: i64,
    fetch_ms: i64,
    caught_up_ms: i64,
    /// The leader's log end when it fetched.
    leader_end: i64,
}

/// Followers of the log that do not vote, as this leader has seen them.
#[derive(Debug, Default)]
pub struct Observers {
    epoch: i32,
    seen: BTreeMap<Replica, Seen>,
}

impl Observers {
    /// Whether it had all of the log since then.
    pub fn is_caught_up(&self, replica: Replica, since_ms: i64) -> bool {
        self.seen.get(&replica).is_some_and(|seen| seen.caught_up_ms > since_ms)
    }

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
    /// Answers a fetch of `__cluster_metadata` at once.
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

    /// The same, but waits for more as long as there is nothing to tell.
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

    /// What a sole voter has written may be in its page cache only; nobody else may see what it can
    /// lose.
    async fn durable(&self, fetched: Fetched) -> Fetched {
        let has_records = matches!(&fetched.outcome, FetchOutcome::Records(it) if !it.is_empty());
        if !has_records || !self.inner.storage.is_alone() {
            return fetched;
        }
        match self.inner.storage.sync().await {
            Ok(()) => fetched,
            Err(error) => {
                tracing::error!(%error, "the metadata log cannot be synced");
                Fetched { outcome: FetchOutcome::Failed, ..fetched }
            }
        }
    }

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
        // First the machine, then the log: the order in which they are locked everywhere.
        let snapshot = self.inner.machine.machine().snapshot.clone();
        let (log_start, range) = {
            let log = self.inner.storage.log();
            let log_start = log.start_offset();
            if let Some(replica) = replica.filter(|replica| replica.id >= 0) {
                let end = (epoch, log.end_offset());
                lock(&self.inner.observers).see(replica, end, from.offset);
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

    /// A part of a snapshot, for FetchSnapshot.
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
        // What the format command leaves is not for others.
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

    /// Followers that do not vote.
    pub(super) fn observers_status(&self) -> Vec<ReplicaStatus> {
        let voters = self.deciding_voters();
        let observers = lock(&self.inner.observers);
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

    /// The cluster that this node is of.
    pub fn cluster_id(&self) -> &str {
        &self.inner.config.cluster_id
    }

    /// Where a voter listens for other controllers, or the leader that this node follows.
    pub fn endpoint(&self, voter: i32) -> Option<Endpoint> {
        if let Some((id, at)) = &*lock(&self.inner.followed)
            && *id == voter
        {
            return Some(at.clone());
        }
        let known = self.inner.storage.known();
        let node = known.effective().membership().get_node(&voter)?;
        node.endpoints.first().cloned()
    }
}
