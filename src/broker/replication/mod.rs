//! Replication between brokers: fetchers, which have this broker's replicas follow their leaders,
//! and the proposals by which its leaders change who is in sync.
//!
//! Owns: which replica is fetched by whom. Must not know what a log looks like. Kafka's
//! `ReplicaFetcherManager`, `ReplicaFetcherThread` and `AlterPartitionManager`.
//!
//! Invariants: a replica is with one fetcher at most; whatever a fetcher does to a replica is bound
//! to the leader epoch that it fetched in, so that one that is late changes nothing.

mod answer;
mod fetcher;
mod followed;
mod proposals;
mod roles;
mod session;
pub mod throttle;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use metrics::Counter;
use tokio::task::JoinHandle;

use self::{fetcher::Fetcher, proposals::Proposals, session::Key, throttle::Throttle};
use super::Broker;
use crate::{
    base::TopicId,
    partition::{Partition, Role},
    telemetry::Metrics,
};

/// A leader's node id, and which of the fetchers from it.
type FetcherId = (i32, i32);

pub struct Replication {
    state: Mutex<State>,
    proposals: Proposals,
    /// Of what leaders here send to throttled replicas.
    pub leader_throttle: Throttle,
    /// Of what throttled replicas here take.
    follower_throttle: Throttle,
    pub metrics: ReplicationMetrics,
}

/// Kafka's `BrokerTopicMetrics` of replication, and the meters of `ReplicaManager`.
pub struct ReplicationMetrics {
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    isr_expands: Counter,
    isr_shrinks: Counter,
    failed_isr_updates: Counter,
}

impl ReplicationMetrics {
    fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help, &[]);
        Self {
            bytes_in: counter(
                "kafka_server_replication_bytes_in_total",
                "Bytes of batches that followers here have taken",
            ),
            bytes_out: counter(
                "kafka_server_replication_bytes_out_total",
                "Bytes of batches that followers have fetched from leaders here",
            ),
            isr_expands: counter(
                "kafka_server_isr_expands_total",
                "Replicas that leaders here have taken in among those in sync",
            ),
            isr_shrinks: counter(
                "kafka_server_isr_shrinks_total",
                "Times that leaders here have left out who did not keep up",
            ),
            failed_isr_updates: counter(
                "kafka_server_failed_isr_updates_total",
                "Changes of the in-sync replicas that the controller did not take",
            ),
        }
    }
}

#[derive(Default)]
struct State {
    fetchers: BTreeMap<FetcherId, Arc<Fetcher>>,
    followed: HashMap<Key, FetcherId>,
    tasks: Vec<JoinHandle<()>>,
}

impl Replication {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            state: Mutex::default(),
            proposals: Proposals::default(),
            leader_throttle: Throttle::default(),
            follower_throttle: Throttle::default(),
            metrics: ReplicationMetrics::new(metrics),
        }
    }

    /// The most records that a replica here is behind its leader (Kafka's `MaxLag`).
    pub(super) fn max_lag(&self) -> i64 {
        let fetchers: Vec<_> = self.state().fetchers.values().cloned().collect();
        fetchers.iter().map(|fetcher| fetcher.max_lag()).max().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Begins to propose; fetchers begin with what they fetch.
    pub fn start_replication(self: &Arc<Self>) {
        let proposals = self.runtime.spawn(proposals::run(Arc::clone(self)));
        self.replication.state().tasks.push(proposals);
    }

    /// Ends all fetchers, before the logs are closed.
    pub fn stop_replication(&self) {
        self.moves.stop();
        let mut state = self.replication.state();
        state.tasks.drain(..).for_each(|task| task.abort());
        state.fetchers.clear();
        state.followed.clear();
    }

    /// Has the replica fetched as its role wants it: from its leader, or not at all.
    pub(super) fn follow(self: &Arc<Self>, topic_id: TopicId, partition: &Arc<Partition>) {
        let key = (topic_id, partition.id.partition);
        let wanted = match partition.view().role {
            Role::Follower { epoch, leader } if leader >= 0 => {
                Some((epoch, (leader, self.fetcher_number(partition))))
            }
            _ => None,
        };
        let mut state = self.replication.state();
        if let Some(id) = state.followed.remove(&key)
            && wanted.is_none_or(|(_, other)| other != id)
            && let Some(fetcher) = state.fetchers.get(&id)
        {
            fetcher.remove(&key);
        }
        let Some((epoch, id)) = wanted else { return };
        state.followed.insert(key, id);
        let is_new = !state.fetchers.contains_key(&id);
        let fetcher = state.fetchers.entry(id).or_insert_with(|| Arc::new(Fetcher::new(id.0)));
        let fetcher = Arc::clone(fetcher);
        fetcher.add(key, Arc::clone(partition), epoch);
        if is_new {
            state.tasks.push(self.runtime.spawn(fetcher.run(Arc::clone(self))));
        }
    }

    /// The replica is no longer this broker's.
    pub(super) fn unfollow(&self, topic_id: TopicId, index: i32) {
        let key = (topic_id, index);
        let mut state = self.replication.state();
        if let Some(id) = state.followed.remove(&key)
            && let Some(fetcher) = state.fetchers.get(&id)
        {
            fetcher.remove(&key);
        }
    }

    /// Spreads partitions over `num.replica.fetchers`, as Kafka does.
    fn fetcher_number(&self, partition: &Partition) -> i32 {
        let hash = partition
            .id
            .topic
            .encode_utf16()
            .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
        let spread = hash.wrapping_mul(31).wrapping_add(partition.id.partition);
        spread.unsigned_abs() as i32 % self.settings().cluster.num_replica_fetchers.max(1)
    }
}
