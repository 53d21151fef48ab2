//! Where the partitions of a topic are led, kept up to date beside a producer's work.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sordini::peers::Address;
use tokio::{sync::Notify, time::timeout};

use crate::client::Client;

/// How old what is known may be.
const AGE_MAX: Duration = Duration::from_millis(500);

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
    asked: Notify,
}

impl Leaders {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Leader>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, partition: i32) -> Option<Leader> {
        self.lock().get(&partition).cloned()
    }

    pub fn partitions(&self) -> Vec<i32> {
        self.lock().keys().copied().collect()
    }

    /// Takes a leader, unless one of a later epoch is known.
    pub fn set(&self, partition: i32, leader: Leader) {
        let mut known = self.lock();
        if known.get(&partition).is_none_or(|it| it.epoch <= leader.epoch) {
            known.insert(partition, leader);
        }
    }

    /// Has them looked up.
    pub fn ask(&self) {
        self.0.asked.notify_one();
    }
}

/// Looks them up when that is asked for, and now and then.
pub async fn keep(mut client: Client, topic: String, leaders: Leaders) {
    loop {
        for (partition, leader) in client.look_up(&topic).await.unwrap_or_default() {
            leaders.set(partition, leader);
        }
        // Not all the time, whatever is asked.
        client.rest().await;
        let _ = timeout(AGE_MAX, leaders.0.asked.notified()).await;
    }
}
