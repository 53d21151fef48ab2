//! The leaders of a topic's partitions, kept up to date by a task beside the producer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use sordini::peers::Address;
use tokio::{sync::Notify, time::timeout};

use crate::client::Client;

/// How long the task of [`keep`] waits for [`Leaders::ask`] before it looks the leaders up anyway.
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

    /// Wakes the task of [`keep`] to look up the leaders.
    pub fn ask(&self) {
        self.0.asked.notify_one();
    }
}

/// Looks up the leaders after each [`Leaders::ask`], and otherwise about every [`AGE_MAX`].
pub async fn keep(mut client: Client, topic: String, leaders: Leaders) {
    loop {
        for (partition, leader) in client.look_up(&topic).await.unwrap_or_default() {
            leaders.set(partition, leader);
        }
        // Limits the rate of look-ups.
        client.rest().await;
        let _ = timeout(AGE_MAX, leaders.0.asked.notified()).await;
    }
}
