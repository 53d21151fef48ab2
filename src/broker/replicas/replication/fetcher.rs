//! [`Fetcher`]: fetches replicas of this broker from one leader (Kafka's `ReplicaFetcherThread`).
//! It has its own channel and sends one request after the other.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kafka_protocol::{
    messages::{
        BrokerId, FetchRequest, FetchResponse,
        fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState},
    },
    protocol::StrBytes,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, warn};

use super::{
    answer,
    followed::{FIRST_REST, Followed, Progress, rest},
    session::{FetchSession, Key, Request},
};
use crate::{
    base::{
        config::BrokerConfig,
        environment::{blocking, now_ms},
    },
    broker::Replicas,
    partition::{FetchPosition, Partition, Role},
    peers::{self, Address, Channel, PeerError},
    protocol::ErrorCode,
};

/// The version of Fetch. It has topic ids, replica epochs, and diverging epochs for truncation.
const FETCH_VERSION: i16 = 17;
/// The pause before a throttled replica is checked again.
const THROTTLED_REST: Duration = Duration::from_millis(200);

/// The positions to fetch now, and the earliest time at which a delayed replica is due.
type Due = (BTreeMap<Key, FetchPosition>, Option<Instant>);

/// The replicas that are fetched from one leader.
pub(super) struct Fetcher {
    leader: i32,
    followed: Mutex<BTreeMap<Key, Followed>>,
    changed: Notify,
    /// Whether a log was truncated below its recovery point or its first dirty offset, so that a
    /// checkpoint on disk is wrong.
    has_cut: AtomicBool,
}

impl Fetcher {
    pub fn new(leader: i32) -> Self {
        let (followed, changed) = (Mutex::default(), Notify::new());
        Self { leader, followed, changed, has_cut: AtomicBool::new(false) }
    }

    /// Begins to fetch a replica, or continues in a new leader epoch.
    pub fn add(&self, key: Key, partition: Arc<Partition>, leader_epoch: i32) {
        let mut followed = self.followed();
        let is_known = followed.get(&key).is_some_and(|it| {
            it.leader_epoch == leader_epoch && Arc::ptr_eq(&it.partition, &partition)
        });
        if !is_known {
            followed.insert(key, Followed::new(partition, leader_epoch));
            self.changed.notify_one();
        }
    }

    pub fn max_lag(&self) -> i64 {
        self.followed().values().filter_map(|followed| followed.lag).max().unwrap_or(0)
    }

    pub fn remove(&self, key: &Key) {
        self.followed().remove(key);
    }

    fn followed(&self) -> MutexGuard<'_, BTreeMap<Key, Followed>> {
        self.followed.lock()
    }

    /// Fetches until the task is aborted.
    pub async fn run(self: Arc<Self>, replicas: Arc<Replicas>) {
        let mut session = FetchSession::default();
        let mut channel: Option<(Address, Arc<dyn Channel>)> = None;
        let mut failures = 0;
        loop {
            let (asks, resumes) =
                self.next_asks(|| self.due(&replicas), checkpoint(&replicas)).await;
            let address = replicas
                .node
                .metadata()
                .broker(self.leader)
                .and_then(|it| replicas.node.address_of(it));
            let (Some(to), false) = (address, asks.is_empty()) else {
                // Nothing is due, or the leader's address is unknown and later metadata may have
                // it.
                let resumes = resumes.unwrap_or_else(|| Instant::now() + FIRST_REST * 10);
                let _ = timeout_at(resumes, self.changed.notified()).await;
                continue;
            };
            if channel.as_ref().is_none_or(|(known, _)| *known != to) {
                session = FetchSession::default();
                channel = Some((to.clone(), replicas.node.network.channel(&to)));
            }
            let (_, leader) = channel.as_ref().expect("set above");
            let (settings, epoch) = (replicas.node.settings(), replicas.node.epoch());
            let mut request = request(&settings, epoch, session.request(asks));
            if let Some(resumes) = resumes {
                let left = resumes.duration_since(Instant::now()).as_millis() as i32;
                request.max_wait_ms = request.max_wait_ms.min(left + 1);
            }
            match self.fetch(&settings, &**leader, &mut session, &request).await {
                Some(response) => {
                    failures = 0;
                    self.take(&replicas, &**leader, &session, response).await;
                }
                None => {
                    failures += 1;
                    let longest = settings.cluster.replica_fetch_backoff_ms;
                    sleep_until(Instant::now() + rest(failures, longest)).await;
                }
            }
        }
    }

    /// Returns the positions to fetch, after the recovery points of truncated logs were written.
    /// They are written even if nothing is due, because this broker may lead the truncated log
    /// next.
    async fn next_asks(
        &self,
        due: impl FnOnce() -> Due,
        write: impl FnOnce() + Send + 'static,
    ) -> Due {
        let due = due();
        self.checkpoint_cuts(write).await;
        due
    }

    /// Writes the recovery points if a log was truncated below its own (Kafka's
    /// `LogManager.truncateTo`). This must happen before new records are appended: after a crash of
    /// the machine, a recovery point that is too high would hide that they are lost.
    async fn checkpoint_cuts(&self, write: impl FnOnce() + Send + 'static) {
        if self.has_cut.swap(false, Ordering::Relaxed) {
            let _ = blocking(write).await;
        }
    }

    /// The positions to fetch now. Truncates replicas as their new leader epoch requires.
    fn due(&self, replicas: &Arc<Replicas>) -> Due {
        let now = Instant::now();
        let (mut asks, mut resumes) = (BTreeMap::new(), None::<Instant>);
        let limit = replicas.node.settings().cluster.follower_replication_throttled_rate;
        let is_slowed = replicas.replication.follower_throttle.is_exceeded(limit, now_ms());
        for (key, followed) in self.followed().iter_mut() {
            let is_held_back =
                is_slowed && followed.lag.is_none_or(|lag| lag > 0) && is_throttled(replicas, key);
            let held_back = is_held_back.then(|| now + THROTTLED_REST);
            if let Some(at) = held_back.or(followed.resumes.filter(|at| *at > now)) {
                resumes = Some(resumes.map_or(at, |earliest| earliest.min(at)));
                continue;
            }
            if followed.last_epoch.is_none() {
                let before = followed.checkpointed();
                followed.last_epoch = answer::begin(replicas, followed);
                self.note_cut(followed, before);
            }
            let Some(last_epoch) = followed.last_epoch else { continue };
            let view = followed.partition.view();
            // Skip the replica if metadata has given it another role, or if its disk has failed.
            let epoch = followed.leader_epoch;
            if !matches!(view.role, Role::Follower { epoch: now, .. } if now == epoch) {
                continue;
            }
            let ask = FetchPosition {
                offset: view.log.log_end(),
                log_start: view.log.log_start(),
                leader_epoch: followed.leader_epoch,
                last_epoch,
            };
            asks.insert(*key, ask);
        }
        (asks, resumes)
    }

    /// Sends a Fetch request. Returns `None` after an error.
    async fn fetch(
        &self,
        settings: &BrokerConfig,
        leader: &dyn Channel,
        session: &mut FetchSession,
        request: &FetchRequest,
    ) -> Option<FetchResponse> {
        let ms = |ms: i32| Duration::from_millis(ms.max(0) as u64);
        let patience = ms(settings.cluster.replica_socket_timeout_ms)
            + ms(settings.cluster.replica_fetch_wait_max_ms);
        let answered: Result<FetchResponse, PeerError> =
            peers::send(leader, FETCH_VERSION, request, patience).await;
        match answered {
            Ok(response) if response.error_code == 0 => {
                session.answered(response.session_id);
                Some(response)
            }
            Ok(response) => {
                let code = ErrorCode::try_from_code(response.error_code);
                debug!(leader = self.leader, ?code, "fetch refused, starting a new session");
                session.failed(code != Some(ErrorCode::FetchSessionIdNotFound));
                None
            }
            Err(error) => {
                warn!(leader = self.leader, %error, "cannot fetch");
                session.failed(true);
                None
            }
        }
    }

    /// Processes a response, partition by partition. Yields to other tasks after each partition.
    async fn take(
        &self,
        replicas: &Arc<Replicas>,
        leader: &dyn Channel,
        session: &FetchSession,
        response: FetchResponse,
    ) {
        let longest = replicas.node.settings().cluster.replica_fetch_backoff_ms;
        let mut to_flush = Vec::new();
        for topic in response.responses {
            for data in topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                let followed = self.followed().get(&key).cloned();
                // Since the request, the replica may have been removed or got a new leader epoch.
                let (Some(ask), Some(mut followed)) = (session.asked(&key), followed) else {
                    continue;
                };
                if ask.leader_epoch != followed.leader_epoch {
                    continue;
                }
                let bytes = data.records.as_ref().map_or(0, |records| records.len() as u64);
                let before = followed.checkpointed();
                let answered = answer::Answered { ask, data };
                if answered.is_out_of_range() {
                    // `find_range` waits for the leader, so earlier truncations are checkpointed
                    // first.
                    self.checkpoint_cuts(checkpoint(replicas)).await;
                }
                let progress = match answered.is_out_of_range() {
                    true => answered.find_range(replicas, self.leader, leader, &mut followed).await,
                    false => answered.take(replicas, &mut followed, &mut to_flush),
                };
                self.note_cut(&followed, before);
                if bytes > 0 && matches!(progress, Progress::Went) {
                    replicas.replication.metrics.bytes_in.increment(bytes);
                    if is_throttled(replicas, &key) {
                        replicas.replication.follower_throttle.note(bytes, now_ms());
                    }
                }
                self.note(&key, followed, progress, longest);
                tokio::task::yield_now().await;
            }
        }
        for partition in to_flush {
            // The next fetch acknowledges the records to the leader, so they must be durable.
            let _ = blocking(move || partition.flush_now()).await;
        }
    }

    fn note_cut(&self, followed: &Followed, before: (i64, Option<i64>)) {
        let now = followed.checkpointed();
        if now.0 < before.0 || now.1 < before.1 {
            self.has_cut.store(true, Ordering::Relaxed);
        }
    }

    fn note(&self, key: &Key, taken: Followed, progress: Progress, longest_ms: i32) {
        let mut all = self.followed();
        let Some(followed) = all.get_mut(key) else { return };
        if followed.leader_epoch != taken.leader_epoch {
            return;
        }
        match progress {
            Progress::Went => followed.went(&taken),
            Progress::Truncated => followed.truncated(),
            Progress::Failed => followed.failed(longest_ms),
        }
    }
}

/// Returns a function that writes the checkpoints of all logs.
fn checkpoint(replicas: &Arc<Replicas>) -> impl FnOnce() + Send + 'static {
    let replicas = Arc::clone(replicas);
    move || replicas.write_checkpoints()
}

/// Whether the topic config `follower.replication.throttled.replicas` names this replica.
fn is_throttled(replicas: &Replicas, (topic_id, index): &Key) -> bool {
    let topic = replicas.partitions.topic_by_id(*topic_id);
    topic.is_some_and(|it| {
        it.config.load().follower_replication_throttled_replicas.contains(*index, replicas.node.id)
    })
}

fn request(settings: &BrokerConfig, broker_epoch: i64, session: Request) -> FetchRequest {
    let max_bytes = settings.cluster.replica_fetch_max_bytes;
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ((topic_id, index), ask) in session.asks {
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(ask.leader_epoch)
            .with_fetch_offset(ask.offset)
            .with_last_fetched_epoch(ask.last_epoch)
            .with_log_start_offset(ask.log_start)
            .with_partition_max_bytes(max_bytes);
        match topics.last_mut().filter(|topic| topic.topic_id == topic_id) {
            Some(topic) => topic.partitions.push(partition),
            None => {
                let topic = FetchTopic::default().with_topic_id(topic_id);
                topics.push(topic.with_partitions(vec![partition]));
            }
        }
    }
    let mut forgotten: Vec<ForgottenTopic> = Vec::new();
    for (topic_id, index) in session.forgotten {
        match forgotten.last_mut().filter(|topic| topic.topic_id == topic_id) {
            Some(topic) => topic.partitions.push(index),
            None => {
                let topic = ForgottenTopic::default().with_topic_id(topic_id);
                forgotten.push(topic.with_partitions(vec![index]));
            }
        }
    }
    let state = ReplicaState::default()
        .with_replica_id(BrokerId(settings.node_id))
        .with_replica_epoch(broker_epoch);
    FetchRequest::default()
        .with_replica_state(state)
        .with_max_wait_ms(settings.cluster.replica_fetch_wait_max_ms)
        .with_min_bytes(settings.cluster.replica_fetch_min_bytes)
        .with_max_bytes(settings.cluster.replica_fetch_response_max_bytes)
        .with_session_id(session.id)
        .with_session_epoch(session.epoch)
        .with_topics(topics)
        .with_forgotten_topics_data(forgotten)
        .with_rack_id(StrBytes::default())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        base::TopicPartition,
        log::{Log, LogConfig, LogStart, faulty::FaultyDisk, testing::batch},
        partition::{Core, PartitionCallbacks},
    };

    /// Compaction has gone further than the log is flushed.
    #[test]
    fn truncation_below_the_first_dirty_offset_is_a_cut() {
        let (disk, start) = (Arc::new(FaultyDisk::default()), LogStart::of_new(0));
        let mut log =
            Log::open(disk, Path::new("/data/t-0"), Arc::new(LogConfig::default()), start)
                .expect("opens")
                .0;
        for _ in 0..4 {
            log.append(&mut [batch(0, 10, 100)], 0, 0).expect("appends");
            log.roll(log.log_end(), 0).expect("rolls");
        }
        log.set_first_dirty(30);
        assert_eq!(log.recovery_point(), 0);
        let role = Role::Follower { epoch: 1, leader: 2 };
        let (id, callbacks) = (TopicPartition::new("t", 0), PartitionCallbacks::default());
        let partition = Arc::new(Partition::new(id, Core::new(log, role, 0), callbacks));
        let fetcher = Fetcher::new(2);
        let followed = Followed::new(Arc::clone(&partition), 1);
        for (offset, is_cut) in [(35, false), (25, true), (15, true)] {
            let before = followed.checkpointed();
            partition.update(|core| core.log_mut().truncate_to(offset, 0)).expect("cuts");
            fetcher.note_cut(&followed, before);
            assert_eq!(fetcher.has_cut.swap(false, Ordering::Relaxed), is_cut, "{offset}");
        }
    }

    #[tokio::test]
    async fn a_cut_is_checkpointed_though_nothing_is_fetched_any_more() {
        let fetcher = Fetcher::new(1);
        let written = Arc::new(AtomicBool::new(false));
        let note = || {
            let written = Arc::clone(&written);
            move || written.store(true, Ordering::Relaxed)
        };
        let cut = || {
            // The last replica of this leader is truncated, and then gets another role.
            fetcher.has_cut.store(true, Ordering::Relaxed);
            (BTreeMap::new(), None)
        };
        let (asks, _) = fetcher.next_asks(cut, note()).await;
        assert!(asks.is_empty() && written.swap(false, Ordering::Relaxed));
        fetcher.next_asks(|| (BTreeMap::new(), None), note()).await;
        assert!(!written.load(Ordering::Relaxed), "nothing was cut since");
    }
}
