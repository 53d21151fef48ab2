//! Replication between brokers: fetchers copy records from leaders to this broker's followers, and
//! proposals (AlterPartition) change the in-sync replicas of partitions that this broker leads.
//!
//! This module owns the assignment of replicas to fetchers. It does not know the format of logs. It
//! corresponds to Kafka's `ReplicaFetcherManager`, `ReplicaFetcherThread` and
//! `AlterPartitionManager`.
//!
//! Invariants:
//! - At most one fetcher fetches a replica.
//! - A fetcher changes a replica only in the leader epoch in which it has fetched, so that a late
//!   response changes nothing.

mod answer;
mod fetcher;
mod followed;
mod proposals;
mod roles;
mod session;
pub mod throttle;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use metrics::Counter;
use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use self::{fetcher::Fetcher, proposals::Proposals, session::Key, throttle::Throttle};
use super::Replicas;
use crate::{
    base::TopicId,
    partition::{Partition, Role},
    telemetry::Metrics,
};

/// A leader's broker id, and the number of the fetcher among those for this leader.
type FetcherId = (i32, i32);

/// The fetchers and the pending proposals of a broker.
pub struct Replication {
    state: Mutex<State>,
    proposals: Proposals,
    /// Throttle of the records that leaders here send to throttled replicas.
    pub leader_throttle: Throttle,
    /// Throttle of the records that throttled replicas here fetch.
    follower_throttle: Throttle,
    pub metrics: ReplicationMetrics,
}

/// The metrics of replication: from Kafka's `BrokerTopicMetrics` and `ReplicaManager`.
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
                "Bytes of batches that followers here have appended",
            ),
            bytes_out: counter(
                "kafka_server_replication_bytes_out_total",
                "Bytes of batches that followers have fetched from leaders here",
            ),
            isr_expands: counter(
                "kafka_server_isr_expands_total",
                "Times that leaders here have added a replica to the in-sync replicas",
            ),
            isr_shrinks: counter(
                "kafka_server_isr_shrinks_total",
                "Times that leaders here have removed replicas from the in-sync replicas",
            ),
            failed_isr_updates: counter(
                "kafka_server_failed_isr_updates_total",
                "Changes of the in-sync replicas that the controller has refused",
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

    /// The largest number of records that a replica here is behind its leader (Kafka's `MaxLag`).
    pub(in crate::broker) fn max_lag(&self) -> i64 {
        let fetchers: Vec<_> = self.state().fetchers.values().cloned().collect();
        fetchers.iter().map(|fetcher| fetcher.max_lag()).max().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Replicas {
    /// Starts the task that sends proposals. A fetcher starts with its first replica.
    pub fn start_replication(self: &Arc<Self>) {
        let proposals = self.node.runtime.spawn(proposals::run(Arc::clone(self)));
        self.replication.state().tasks.push(proposals);
    }

    /// Stops moves, fetchers and proposals. A stop calls this before it closes the logs.
    pub fn stop_replication(&self) {
        self.moves.stop();
        let mut state = self.replication.state();
        state.tasks.drain(..).for_each(|task| task.abort());
        state.fetchers.clear();
        state.followed.clear();
    }

    /// Assigns the replica to a fetcher for its leader if it is a follower. Otherwise, or if the
    /// leader is unknown, removes it from its fetcher.
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
            state.tasks.push(self.node.runtime.spawn(fetcher.run(Arc::clone(self))));
        }
    }

    /// Removes a replica from its fetcher, because this broker no longer has it.
    pub(super) fn unfollow(&self, topic_id: TopicId, index: i32) {
        let key = (topic_id, index);
        let mut state = self.replication.state();
        if let Some(id) = state.followed.remove(&key)
            && let Some(fetcher) = state.fetchers.get(&id)
        {
            fetcher.remove(&key);
        }
    }

    /// The number of the fetcher for a partition. The hash is Kafka's, which spreads partitions
    /// over `num.replica.fetchers`.
    fn fetcher_number(&self, partition: &Partition) -> i32 {
        let hash = partition
            .id
            .topic
            .encode_utf16()
            .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
        let spread = hash.wrapping_mul(31).wrapping_add(partition.id.partition);
        spread.unsigned_abs() as i32 % self.node.settings().cluster.num_replica_fetchers.max(1)
    }
}
