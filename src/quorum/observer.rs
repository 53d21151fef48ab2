//! How an observer follows the log, with Kafka's Fetch and FetchSnapshot. Brokers are observers,
//! and so are controllers that do not vote yet. Fetched batches are appended unchanged. They are
//! applied once they are below the leader's high watermark.

use std::{
    io,
    path::Path,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use kafka_protocol::{
    messages::{
        BrokerId, FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse,
        TopicName,
        fetch_request::{FetchPartition, FetchTopic, ReplicaState},
        fetch_response::PartitionData,
        fetch_snapshot_request::{PartitionSnapshot, SnapshotId as WantedSnapshot, TopicSnapshot},
    },
    protocol::StrBytes,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    Inner, Leadership, Quorum,
    checkpoint::{self, SnapshotId},
    format,
    network::TransportError,
    storage::blocking,
    types::log_id,
    voters::{self, Endpoint},
};
use crate::{
    base::METADATA_TOPIC,
    log::{
        disk::{self, OpenMode},
        is_lasting,
    },
    records::Batch,
};

/// The topic id of `__cluster_metadata`.
pub const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);

const NONE: i16 = 0;
/// Kafka's `controller.quorum.fetch.max.bytes`.
const FETCH_BYTES_MAX: i32 = 1 << 20;
/// How long the leader may hold a fetch back; Kafka's `MAX_FETCH_WAIT_MS`.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// Sends Kafka's requests to a controller's listener: Fetch in version 17, FetchSnapshot in 1. Both
/// calls fail after `timeout` at the latest.
pub trait LeaderClient: Send + Sync + 'static {
    fn fetch(
        &self,
        to: Endpoint,
        request: FetchRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<FetchResponse, TransportError>>;

    fn fetch_snapshot(
        &self,
        to: Endpoint,
        request: FetchSnapshotRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<FetchSnapshotResponse, TransportError>>;
}

/// What an observer needs to find and follow the leader.
#[derive(Clone)]
pub struct Observe {
    pub client: Arc<dyn LeaderClient>,
    /// `controller.quorum.bootstrap.servers`, which are asked while no leader is known.
    pub bootstrap: Vec<Endpoint>,
    /// The id of the metadata log directory.
    pub directory_id: Uuid,
}

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the controller answers error {0}")]
    Refused(i16),
    #[error("invalid response from the controller: {0}")]
    Nonsense(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Starts the task that follows the leader. It ends once `Inner::observing` is false, the log has
/// failed, or all handles to the quorum are dropped.
pub fn spawn(inner: &Arc<Inner>, observe: Observe) -> tokio::task::JoinHandle<()> {
    let weak = Arc::downgrade(inner);
    let stop = inner.observing.subscribe();
    let alone_since = Instant::now();
    tokio::spawn(Observer { weak, observe, leader: None, next: 0, stop, alone_since }.run())
}

struct Observer {
    weak: Weak<Inner>,
    observe: Observe,
    /// The leader's id, epoch and endpoint.
    leader: Option<(i32, i32, Endpoint)>,
    /// Counts the endpoints that were asked while no leader was known.
    next: usize,
    stop: watch::Receiver<bool>,
    /// When this observer last followed a leader, at first the time of its start.
    alone_since: Instant,
}

impl Observer {
    fn client(&self) -> &dyn LeaderClient {
        &*self.observe.client
    }

    async fn run(mut self) {
        let mut failures = 0;
        loop {
            if !*self.stop.borrow_and_update() {
                return;
            }
            let Some(inner) = self.weak.upgrade() else { return };
            let mut stop = self.stop.clone();
            let outcome = tokio::select! {
                biased;
                _ = stop.changed() => return,
                outcome = self.step(&inner) => outcome,
            };
            let is_stuck = matches!(&outcome, Err(FollowError::Io(_)));
            inner.has_no_room.store(is_stuck, Ordering::Relaxed);
            let rest = match outcome {
                Ok(()) => {
                    failures = 0;
                    if self.leader.is_some() {
                        self.alone_since = Instant::now();
                    }
                    continue;
                }
                Err(FollowError::Io(error)) if is_lasting(&error) => {
                    return inner.fail(&error.to_string());
                }
                Err(FollowError::Io(error)) => {
                    tracing::error!(%error, "the metadata log cannot be followed");
                    Duration::from_secs(1)
                }
                Err(error) => {
                    tracing::debug!(%error, "no metadata from this controller");
                    failures = (failures + 1).min(5);
                    Duration::from_millis(20 << failures)
                }
            };
            self.leader = None;
            self.stand_again(&inner);
            drop(inner);
            tokio::select! {
                biased;
                _ = self.stop.changed() => return,
                () = sleep(rest) => {}
            }
        }
    }

    /// Makes this observer a member again if its log says that it votes and it has had no leader
    /// for ten times `Timeouts::contact_unit`. All other voters may have become observers, too, and
    /// then none is elected.
    fn stand_again(&mut self, inner: &Arc<Inner>) {
        let quorum = Quorum { inner: inner.clone() };
        let limit = inner.config.timeouts.contact_unit() * 10;
        if self.alone_since.elapsed() < limit || !quorum.is_voter() {
            return;
        }
        self.alone_since = Instant::now();
        tokio::spawn(async move {
            if let Err(error) = quorum.become_member().await {
                tracing::error!(%error, "the quorum cannot be joined again");
            }
        });
    }

    /// The endpoint to ask: the leader's, or in turn those of the bootstrap servers and other
    /// voters.
    fn target(&mut self, inner: &Inner) -> Option<Endpoint> {
        if let Some((.., at)) = &self.leader {
            return Some(at.clone());
        }
        let voters = voters::voters(inner.storage.voter_state().effective().membership());
        let known = voters.iter().filter(|voter| voter.id != inner.config.node_id);
        let known = known.filter_map(|voter| voter.endpoints.first().cloned());
        let all: Vec<_> = self.observe.bootstrap.iter().cloned().chain(known).collect();
        self.next += 1;
        (!all.is_empty()).then(|| all[self.next % all.len()].clone())
    }

    /// Sends one Fetch request and handles the response.
    async fn step(&mut self, inner: &Arc<Inner>) -> Result<(), FollowError> {
        let Some(to) = self.target(inner) else {
            return Err(FollowError::Nonsense("no controller is known"));
        };
        let epoch = inner.leadership.borrow().epoch;
        let timeout = Duration::from_millis(inner.config.timeouts.fetch_ms);
        let request = self.request(inner, epoch);
        let response = self.observe.client.fetch(to.clone(), request, timeout).await?;
        if response.error_code != NONE {
            return Err(FollowError::Refused(response.error_code));
        }
        let topic = response.responses.first();
        let partition = topic.and_then(|topic| topic.partitions.first());
        let partition = partition.ok_or(FollowError::Nonsense("it has no partition"))?.clone();
        self.learn_leader(inner, &response, &partition, &to)?;
        if partition.error_code != NONE {
            // The response names another leader or a later epoch. The next step asks that leader,
            // after a short pause.
            let is_news = self.leader.as_ref().is_some_and(|it| it.1 != epoch || it.2 != to);
            if is_news {
                sleep(Duration::from_millis(10)).await;
                return Ok(());
            }
            return Err(FollowError::Refused(partition.error_code));
        }
        inner.contact.lock().record();
        inner.take(partition, self).await
    }

    fn request(&self, inner: &Inner, epoch: i32) -> FetchRequest {
        let log = inner.storage.log();
        let partition = FetchPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(epoch)
            .with_fetch_offset(log.end_offset())
            .with_last_fetched_epoch(log.last_epoch())
            .with_log_start_offset(log.start_offset())
            .with_partition_max_bytes(FETCH_BYTES_MAX)
            .with_replica_directory_id(self.observe.directory_id);
        let topic =
            FetchTopic::default().with_topic_id(METADATA_TOPIC_ID).with_partitions(vec![partition]);
        FetchRequest::default()
            .with_cluster_id(cluster_id(inner))
            .with_replica_state(
                ReplicaState::default().with_replica_id(inner.config.node_id.into()),
            )
            .with_max_wait_ms(FETCH_WAIT.as_millis() as i32)
            .with_max_bytes(FETCH_BYTES_MAX)
            .with_session_epoch(-1)
            .with_topics(vec![topic])
    }

    /// Takes the leader from a response. Fails if the response has no error but is not the
    /// leader's.
    fn learn_leader(
        &mut self,
        inner: &Inner,
        response: &FetchResponse,
        partition: &PartitionData,
        asked: &Endpoint,
    ) -> Result<(), FollowError> {
        let (id, epoch) =
            (partition.current_leader.leader_id.0, partition.current_leader.leader_epoch);
        let known = inner.leadership.borrow().epoch;
        let has_no_error = partition.error_code == NONE;
        // The response is outdated if it names this node, which is an observer now. What this node
        // has learned may be outdated, too, so it must not name a leader to other nodes.
        if id < 0 || id == inner.config.node_id || epoch < known {
            self.leader = None;
            let unknown = Leadership { leader: None, epoch: known, active: false };
            inner.leadership.send_if_modified(|it| std::mem::replace(it, unknown) != unknown);
            return match has_no_error {
                true => Err(FollowError::Nonsense("it is not the leader's")),
                false => Ok(()),
            };
        }
        let hint = response.node_endpoints.iter().find(|node| node.node_id.0 == id);
        let at = match hint {
            _ if has_no_error => Some(asked.clone()),
            Some(node) => Some(Endpoint {
                name: String::new(),
                host: node.host.to_string(),
                port: node.port as u16,
            }),
            None => voter_endpoint(inner, id),
        };
        *inner.followed.lock() = at.clone().map(|at| (id, at));
        self.leader = at.map(|at| (id, epoch, at));
        let now = Leadership { leader: Some(id), epoch, active: false };
        inner.leadership.send_if_modified(|known| std::mem::replace(known, now) != now);
        Ok(())
    }
}

fn cluster_id(inner: &Inner) -> Option<StrBytes> {
    let id = &inner.config.cluster_id;
    (!id.is_empty()).then(|| StrBytes::from_string(id.clone()))
}

fn voter_endpoint(inner: &Inner, id: i32) -> Option<Endpoint> {
    let known = inner.storage.voter_state();
    known.effective().membership().get_node(&id)?.endpoints.first().cloned()
}

impl Inner {
    /// Handles the leader's response: truncates the log, loads a snapshot, or appends the records
    /// and applies those that are committed.
    async fn take(
        self: &Arc<Self>,
        partition: PartitionData,
        observer: &Observer,
    ) -> Result<(), FollowError> {
        let diverging = &partition.diverging_epoch;
        if diverging.end_offset >= 0 {
            return self.cut_off(diverging.epoch, diverging.end_offset);
        }
        let snapshot = &partition.snapshot_id;
        if snapshot.end_offset >= 0 && snapshot.epoch >= 0 {
            let id = SnapshotId { end_offset: snapshot.end_offset, epoch: snapshot.epoch };
            return self.load_snapshot(id, observer).await;
        }
        let had = self.published.load().offset;
        self.append_fetched(partition.records.unwrap_or_default())?;
        self.apply_below(partition.high_watermark)?;
        if self.published.load().offset != had {
            self.snapshot_when_grown().await?;
        }
        Ok(())
    }

    /// Truncates a tail that the leader does not have. Fails if this node has applied a part of it.
    fn cut_off(&self, epoch: i32, end_offset: i64) -> Result<(), FollowError> {
        let applied = self.published.load().offset;
        let index = {
            let log = self.storage.log();
            let (_, own_end) = log.end_of_epoch(epoch);
            let end = end_offset.min(own_end);
            if end <= applied {
                return Err(FollowError::Nonsense("it lacks what was committed"));
            }
            let from = log.first_index()..log.next_index();
            from.into_iter().find(|at| log.position(*at).is_some_and(|it| it.0.last_offset >= end))
        };
        let Some(index) = index else {
            return Err(FollowError::Nonsense("nothing diverges"));
        };
        self.storage.cut(index)?;
        Ok(())
    }

    /// Appends the batches of a response to the log.
    fn append_fetched(&self, mut records: Bytes) -> Result<(), FollowError> {
        while !records.is_empty() {
            let whole = records.clone();
            // The last batch may be incomplete, and the log may have the first ones already.
            let Ok(batch) = Batch::split_first(&mut records) else { break };
            if batch.verify_crc().is_err() {
                return Err(FollowError::Nonsense("a batch's CRC is wrong"));
            }
            let controls = format::controls(&batch).map_err(io::Error::other)?;
            let membership = voters::last_of(&controls).map_err(io::Error::other)?;
            let mut log = self.storage.log();
            if batch.header.last_offset() < log.end_offset() {
                continue;
            }
            let at = log_id(batch.header.leader_epoch, log.next_index());
            log.append(&whole.slice(..batch.size()))?;
            drop(log);
            if let Some(membership) = membership {
                self.storage.change_voters(at, membership)?;
            }
        }
        Ok(())
    }

    /// Applies the batches below the high watermark.
    fn apply_below(&self, high_watermark: i64) -> Result<(), FollowError> {
        loop {
            let mut machine = self.machine.machine();
            let log = self.storage.log();
            let index = machine.applied.map_or(0, |applied| applied.index + 1);
            let index = index.max(log.purged().map_or(0, |(_, index)| index + 1));
            let committed = log.position(index).filter(|it| it.0.last_offset < high_watermark);
            let Some(epoch) = committed.map(|it| it.0.epoch) else { return Ok(()) };
            let bytes =
                log.read(index)?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            drop(log);
            machine.apply(log_id(epoch, index), bytes).map_err(io::Error::other)?;
        }
    }

    /// Writes a snapshot if the log has grown enough, and purges the log before it.
    async fn snapshot_when_grown(&self) -> io::Result<()> {
        let grown = {
            let machine = self.machine.machine();
            machine.growth.since_snapshot >= machine.growth.snapshot_bytes
        };
        if !grown {
            return Ok(());
        }
        self.machine.write_snapshot().await?;
        let index = self.machine.machine().snapshot.as_ref().map(|at| at.index);
        if let Some(index) = index {
            self.storage.forget(index);
        }
        Ok(())
    }

    /// Downloads a snapshot from the leader, and replaces the log and the image with it.
    async fn load_snapshot(
        self: &Arc<Self>,
        id: SnapshotId,
        observer: &Observer,
    ) -> Result<(), FollowError> {
        let path = self.config.dir.join("received.checkpoint.part");
        download(self, id, observer, &path).await?;
        let inner = self.clone();
        let installing = self.installing.clone().lock_owned().await;
        blocking(move || {
            let _installing = installing;
            let place = (&*inner.config.disk, &*inner.config.dir);
            let checkpoint = checkpoint::install(place, &path, id)?;
            let installed = inner.machine.machine().take(&checkpoint, id, None);
            checkpoint::delete_before(place.0, place.1, id)?;
            inner.storage.begin_at(installed)
        })
        .await?;
        Ok(())
    }
}

/// Copies a snapshot from the leader to `path`. Durable on return.
async fn download(
    inner: &Inner,
    id: SnapshotId,
    observer: &Observer,
    path: &Path,
) -> Result<(), FollowError> {
    let Some((_, epoch, to)) = observer.leader.clone() else {
        return Err(FollowError::Nonsense("there is no leader"));
    };
    let file = inner.config.disk.open(path, OpenMode::Truncate)?;
    let mut position = 0;
    loop {
        let request = snapshot_request(inner, (id, position), epoch, observer);
        let timeout = Duration::from_millis(inner.config.timeouts.fetch_ms);
        let answer = observer.client().fetch_snapshot(to.clone(), request, timeout).await?;
        let code = answer.error_code;
        let part = answer.topics.into_iter().next().and_then(|it| it.partitions.into_iter().next());
        let part = part.ok_or(FollowError::Refused(code))?;
        if part.error_code != NONE || part.position != position {
            return Err(FollowError::Refused(part.error_code));
        }
        disk::write_all_at(&*file, &part.unaligned_records, position as u64)?;
        position += part.unaligned_records.len() as i64;
        if position >= part.size {
            file.sync_data()?;
            return Ok(());
        }
        if part.unaligned_records.is_empty() {
            return Err(FollowError::Nonsense("a part is empty"));
        }
    }
}

fn snapshot_request(
    inner: &Inner,
    (id, position): (SnapshotId, i64),
    epoch: i32,
    observer: &Observer,
) -> FetchSnapshotRequest {
    let wanted = WantedSnapshot::default().with_end_offset(id.end_offset).with_epoch(id.epoch);
    let partition = PartitionSnapshot::default()
        .with_partition(0)
        .with_current_leader_epoch(epoch)
        .with_snapshot_id(wanted)
        .with_position(position)
        .with_replica_directory_id(observer.observe.directory_id);
    let topic = TopicSnapshot::default()
        .with_name(TopicName(StrBytes::from_static_str(METADATA_TOPIC)))
        .with_partitions(vec![partition]);
    FetchSnapshotRequest::default()
        .with_cluster_id(cluster_id(inner))
        .with_replica_id(BrokerId(inner.config.node_id))
        .with_max_bytes(FETCH_BYTES_MAX)
        .with_topics(vec![topic])
}
