//! A broker that does not reach the controller hears nothing of what is decided without it. Groups that it
//! coordinates and cannot get on with it gives up after a while: their members then look for who
//! coordinates them now, instead of waiting here for as long as they have patience.
//!
//! Kafka has nothing like it. A broker that merely lacks a controller, as while all of them are down,
//! goes on as long as its followers do.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{Broker, OFFSETS_TOPIC};
use crate::base::world::now_ms;

/// How often groups are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Heartbeats that fail in a row before the controller counts as out of reach.
const MISSED_HEARTBEATS: u32 = 2;
/// A follower fetches at least every `replica.fetch.wait.max.ms`.
const SILENT_MS: i64 = 2_000;

pub(super) struct Contact {
    state: Mutex<State>,
}

struct State {
    heard: Instant,
    /// Partitions of the offsets topic whose groups were given up.
    given_up: BTreeSet<i32>,
}

impl Contact {
    pub fn new() -> Self {
        let state = State { heard: Instant::now(), given_up: BTreeSet::new() };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives up groups where that is due, until the stop signal.
pub(super) async fn watch(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(LOOK_EVERY) => broker.give_up_groups(),
        }
    }
}

impl Broker {
    /// The controller has answered: what this broker leads by its metadata, it still leads.
    pub(super) fn heard_controller(self: &Arc<Self>) {
        let given_up = {
            let mut state = self.contact.state();
            state.heard = Instant::now();
            std::mem::take(&mut state.given_up)
        };
        if given_up.is_empty() {
            return;
        }
        info!(partitions = ?given_up, "the controller is back: groups are coordinated again");
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let image = self.metadata();
        let Some(topic) = image.topic(OFFSETS_TOPIC) else { return };
        for index in given_up {
            if let Some(partition) = topic.partitions.get(index as usize) {
                self.elect(topic.id, index, partition);
            }
        }
    }

    /// Gives up the groups that cannot get on, where the controller is out of reach.
    fn give_up_groups(self: &Arc<Self>) {
        let interval = self.settings().cluster.broker_heartbeat_interval_ms.max(1) as u64;
        let patience = Duration::from_millis(interval) * MISSED_HEARTBEATS;
        if self.contact.state().heard.elapsed() <= patience {
            return;
        }
        let silent_since = now_ms() - SILENT_MS;
        for partition in self.partitions.topic(OFFSETS_TOPIC).iter().flat_map(|it| it.partitions())
        {
            let index = partition.id.partition;
            if partition.is_stuck(silent_since) && self.contact.state().given_up.insert(index) {
                warn!(partition = %partition.id,
                    "neither the controller nor all followers are heard: its groups are given up");
                self.groups.on_resigned(index);
            }
        }
    }

    /// Whether the groups of a partition of the offsets topic were given up.
    pub fn has_given_up(&self, partition: i32) -> bool {
        self.contact.state().given_up.contains(&partition)
    }
}
