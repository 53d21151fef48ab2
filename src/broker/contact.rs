//! A broker that does not reach the controller hears nothing of what is decided without it. Groups that it
//! coordinates and cannot get on with it gives up after a while: their members then look for who
//! coordinates them now, instead of waiting here for as long as they have patience.
//!
//! Whoever looks may ask this broker again and again: clients prefer a node that they have no fetch
//! under way to. It names those in turn that may have become the leader, the replicas in sync.
//!
//! Kafka has nothing like it. A broker that merely lacks a controller, as while all of them are down,
//! goes on as long as its followers do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{Broker, OFFSETS_TOPIC};
use crate::{
    base::world::{blocking, now_ms, spawn_blocking},
    metadata::PartitionImage,
};

/// How often groups are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) struct Contact {
    state: Mutex<State>,
}

struct State {
    heard: Instant,
    /// Partitions of the offsets topic whose groups were given up, and how often somebody has asked
    /// for them since.
    given_up: BTreeMap<i32, usize>,
}

impl Contact {
    pub fn new() -> Self {
        let state = State { heard: Instant::now(), given_up: BTreeMap::new() };
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
            () = sleep(LOOK_EVERY) => {}
        }
        if broker.is_silence_too_long() {
            let broker = Arc::clone(&broker);
            // A look at a partition waits for whatever its disk does.
            let _ = blocking(move || broker.give_up_groups()).await;
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
        info!(partitions = ?given_up.keys(), "the controller is back: groups are coordinated again");
        // Not on the heartbeats' runtime: changes of metadata wait for disks, and the shards use them.
        let (broker, _entered) = (Arc::clone(self), self.runtime.enter());
        spawn_blocking(move || {
            let _applying = broker.applying();
            broker.elect_all(&broker.metadata(), |index| given_up.contains_key(&index));
        });
    }

    /// How long ago the controller answered a heartbeat.
    pub(super) fn controller_silence(&self) -> Duration {
        self.contact.state().heard.elapsed()
    }

    /// Gives up the groups that cannot get on, where the controller is out of reach. Not before it has
    /// fenced this broker: until there is another coordinator a member is better off here, where its
    /// heartbeats are answered, than nowhere, where its session ends.
    fn give_up_groups(self: &Arc<Self>) {
        let now_ms = now_ms();
        for partition in self.partitions.topic(OFFSETS_TOPIC).iter().flat_map(|it| it.partitions())
        {
            // Not with the state locked, which probes and heartbeats need.
            if !partition.is_stuck(now_ms) {
                continue;
            }
            let index = partition.id.partition;
            let mut state = self.contact.state();
            if state.heard.elapsed() > self.session_timeout()
                && !state.given_up.contains_key(&index)
            {
                warn!(partition = %partition.id,
                    "neither the controller nor all followers are heard: its groups are given up");
                state.given_up.insert(index, 0);
                // Before anybody can take them up again.
                self.groups.on_resigned(index);
            }
        }
    }

    fn is_silence_too_long(&self) -> bool {
        self.controller_silence() > self.session_timeout()
    }

    /// How long the controller may stay silent before it has fenced this broker.
    pub(super) fn session_timeout(&self) -> Duration {
        let session_ms = self.settings().cluster.broker_session_timeout_ms;
        Duration::from_millis(session_ms.max(1) as u64)
    }

    /// Who may coordinate the groups of a partition of the offsets topic, given its leader as
    /// metadata has it.
    pub fn coordinator_of(&self, partition: i32, image: &PartitionImage) -> i32 {
        if image.leader != self.node_id {
            return image.leader;
        }
        let mut state = self.contact.state();
        let Some(asked) = state.given_up.get_mut(&partition) else { return image.leader };
        *asked += 1;
        successor(image, *asked).unwrap_or(image.leader)
    }
}

/// One of those that may lead after a leader that is cut off, another one each time.
fn successor(image: &PartitionImage, asked: usize) -> Option<i32> {
    let may_lead = |id: &&i32| **id != image.leader && image.isr.contains(id);
    let count = image.replicas.iter().filter(may_lead).count();
    image.replicas.iter().filter(may_lead).nth(asked.checked_rem(count)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_in_sync_has_its_turn() {
        let mut image = PartitionImage {
            replicas: vec![3, 1, 4, 2],
            isr: vec![1, 2, 3],
            leader: 3,
            ..PartitionImage::default()
        };
        let named: Vec<_> = (1..5).map(|asked| successor(&image, asked)).collect();
        assert_eq!(named, [Some(2), Some(1), Some(2), Some(1)]);
        image.isr = vec![3];
        assert_eq!(successor(&image, 1), None, "nobody else may lead");
    }
}
