//! The known leaders of a topic's partitions, shared by a producer and the task that looks them up.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use sordini::peers::Address;
use tokio::{sync::Notify, time::timeout};

#[derive(Clone, Debug)]
pub struct Leader {
    pub address: Address,
    pub epoch: i32,
}

#[derive(Clone, Default)]
pub struct Leaders(Arc<Shared>);

#[derive(Default)]
struct Shared {
    known: Mutex<BTreeMap<i32, Leader>>,
    lookup_requested: Notify,
}

impl Leaders {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Leader>> {
        self.0.known.lock()
    }

    pub fn get(&self, partition: i32) -> Option<Leader> {
        self.lock().get(&partition).cloned()
    }

    pub fn partitions(&self) -> Vec<i32> {
        self.lock().keys().copied().collect()
    }

    /// Stores a leader, unless a later leader epoch is known.
    pub fn set(&self, partition: i32, leader: Leader) {
        let mut known = self.lock();
        if known.get(&partition).is_none_or(|it| it.epoch <= leader.epoch) {
            known.insert(partition, leader);
        }
    }

    /// Requests a look-up of the leaders.
    pub fn request_lookup(&self) {
        self.0.lookup_requested.notify_one();
    }

    /// Waits for [`Leaders::request_lookup`], but not longer than `at_most`.
    pub async fn wait_for_request(&self, at_most: Duration) {
        let _ = timeout(at_most, self.0.lookup_requested.notified()).await;
    }
}
