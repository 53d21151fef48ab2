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
mod proposals;
mod roles;
mod session;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::JoinHandle;

use self::{fetcher::Fetcher, proposals::Proposals, session::Key};
use super::Broker;
use crate::{
    base::TopicId,
    partition::{Partition, Role},
};

/// A leader's node id, and which of the fetchers from it.
type FetcherId = (i32, i32);

#[derive(Default)]
pub(super) struct Replication {
    state: Mutex<State>,
    proposals: Proposals,
}

#[derive(Default)]
struct State {
    /// Whether this process is registered, so that leaders know its fetches from those of the one
    /// before.
    is_started: bool,
    fetchers: BTreeMap<FetcherId, Arc<Fetcher>>,
    followed: HashMap<Key, FetcherId>,
    tasks: Vec<JoinHandle<()>>,
}

impl Replication {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Begins to fetch and to propose. To be called once the registration of this process is
    /// applied.
    pub fn start_replication(self: &Arc<Self>) {
        let mut state = self.replication.state();
        state.is_started = true;
        let fetchers: Vec<_> = state.fetchers.values().cloned().collect();
        for fetcher in fetchers {
            state.tasks.push(self.runtime.spawn(fetcher.run(Arc::clone(self))));
        }
        state.tasks.push(self.runtime.spawn(proposals::run(Arc::clone(self))));
    }

    /// Ends all fetchers, before the logs are closed.
    pub fn stop_replication(&self) {
        let mut state = self.replication.state();
        state.is_started = false;
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
        if is_new && state.is_started {
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
