//! Resignation of coordinators on a broker that is isolated. If no heartbeat is answered for
//! one session timeout, the broker resigns each coordinator shard that cannot commit because an
//! in-sync follower does not fetch. Members then look for a new coordinator instead of waiting
//! here.
//!
//! Members may send FindCoordinator to this broker again, because clients prefer a node to which
//! they have no request in flight. For a resigned shard the broker therefore names the other
//! in-sync replicas in turn: one of them may be the leader by now.
//!
//! Kafka does not do this. If only the controllers are down, followers still fetch, and the broker
//! keeps its coordinators.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::Broker;
use crate::{
    base::{
        TopicPartition,
        environment::{blocking, now_ms, spawn_blocking},
    },
    metadata::PartitionImage,
};

/// The interval of checks for isolation.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A partition whose lock is held at every look for this long counts as stuck. Appends hold the
/// lock, too, but not for long if the disk responds.
const LOCKED_MAX: Duration = Duration::from_secs(1);

/// This broker's contact with the controller.
pub(super) struct ControllerContact {
    state: Mutex<State>,
}

struct State {
    /// Time of the last heartbeat that the controller answered.
    heard: Instant,
    /// Partitions of internal topics whose shards were resigned, with the number of requests for
    /// their coordinator since.
    given_up: BTreeMap<TopicPartition, usize>,
    /// Whether a stop has ended all coordinator shards, so that none may start any more.
    has_resigned: bool,
    /// Partitions whose lock was held at each of the last looks, with the time of the first.
    locked: BTreeMap<TopicPartition, Instant>,
}

impl State {
    /// Whether a partition is stuck, given what a look at it showed: `None` if another thread held
    /// its lock.
    fn is_stuck(&mut self, id: &TopicPartition, look: Option<bool>) -> bool {
        match look {
            Some(is_stuck) => {
                self.locked.remove(id);
                is_stuck
            }
            None => {
                let since = self.locked.entry(id.clone()).or_insert_with(Instant::now);
                since.elapsed() >= LOCKED_MAX
            }
        }
    }

    /// Whether this broker may run the coordinator shard of a partition again.
    fn may_coordinate(&self, id: &TopicPartition) -> bool {
        !self.has_resigned && !self.given_up.contains_key(id)
    }
}

impl ControllerContact {
    pub fn new() -> Self {
        let state = State {
            heard: Instant::now(),
            given_up: BTreeMap::new(),
            has_resigned: false,
            locked: BTreeMap::new(),
        };
        Self { state: Mutex::new(state) }
    }

    /// The time since the controller last answered a heartbeat.
    pub fn silence(&self) -> Duration {
        self.state().heard.elapsed()
    }

    /// Lets no coordinator shard start that waits for its election in `heard_controller`.
    pub fn resign(&self) {
        self.state().has_resigned = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Resigns coordinator shards while this broker is isolated, until the stop signal.
pub async fn watch(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(LOOK_EVERY) => {}
        }
        if broker.is_silence_too_long() {
            let broker = Arc::clone(&broker);
            // The check may drop the last reference to a removed partition, which closes its files.
            let look = blocking(move || broker.give_up_coordinators());
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                _ = look => {}
            }
        }
    }
}

impl Broker {
    /// Notes that the controller has answered a heartbeat, and starts the resigned coordinator
    /// shards again if this broker still leads their partitions.
    pub(super) fn heard_controller(self: &Arc<Self>) {
        let given_up = {
            let mut state = self.membership.contact.state();
            state.heard = Instant::now();
            state.locked.clear();
            std::mem::take(&mut state.given_up)
        };
        if given_up.is_empty() {
            return;
        }
        let partitions: Vec<i32> = given_up.keys().map(|id| id.partition).collect();
        info!(?partitions, "controller answers again, restarting coordinators");
        // Not on the heartbeats' runtime, because the `applying` lock may be held while a disk is
        // slow, and the shards must run on the other runtime.
        let (broker, _entered) = (Arc::clone(self), self.node.runtime.enter());
        spawn_blocking(move || {
            let _applying = broker.replicas.applying();
            // Waiting for `applying` may have taken long: the controller may be silent again, or
            // the broker stops. The state stays locked, so that neither happens meanwhile.
            let state = broker.membership.contact.state();
            let is_wanted =
                |id: &TopicPartition| given_up.contains_key(id) && state.may_coordinate(id);
            let partitions = &broker.replicas.partitions;
            broker.coordinators.elect_all(&broker.metadata(), partitions, is_wanted);
        });
    }

    /// Resigns the coordinator shards that cannot commit. The caller has checked that the session
    /// timeout has passed, so the controller has fenced this broker. An earlier resignation would
    /// harm members: no other broker would answer their heartbeats, and their sessions would end.
    fn give_up_coordinators(self: &Arc<Self>) {
        let now_ms = now_ms();
        for partition in self.coordinators.partitions(&self.replicas.partitions) {
            // Without the lock of `state`, which probes and heartbeats need.
            let (id, look) = (&partition.id, partition.is_stuck(now_ms));
            let mut state = self.membership.contact.state();
            if state.is_stuck(id, look)
                && state.heard.elapsed() > self.node.session_timeout()
                && !state.given_up.contains_key(id)
            {
                warn!(partition = %id,
                    "no contact with controller and an in-sync follower, coordinator resigned");
                state.given_up.insert(id.clone(), 0);
                // With `state` locked, so that the shards cannot be restarted in between.
                self.coordinators.resign(id);
            }
        }
    }

    fn is_silence_too_long(&self) -> bool {
        self.membership.since_heartbeat_response() > self.node.session_timeout()
    }

    /// The id of the broker that runs the coordinator shard of a partition of an internal topic. It
    /// is the leader in metadata, unless this broker has resigned the shard; then it is another
    /// in-sync replica, a different one for each call.
    pub fn coordinator_of(&self, id: &TopicPartition, image: &PartitionImage) -> i32 {
        if image.leader != self.node.id {
            return image.leader;
        }
        let mut state = self.membership.contact.state();
        let Some(asked) = state.given_up.get_mut(id) else { return image.leader };
        *asked += 1;
        successor(image, *asked).unwrap_or(image.leader)
    }
}

/// An in-sync replica other than the leader. Successive values of `asked` select them in turn.
fn successor(image: &PartitionImage, asked: usize) -> Option<i32> {
    let may_lead = |id: &&i32| **id != image.leader && image.isr.contains(id);
    let count = image.replicas.iter().filter(may_lead).count();
    image.replicas.iter().filter(may_lead).nth(asked.checked_rem(count)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_given_up_again_are_not_coordinated() {
        let contact = ControllerContact::new();
        let [given_up, other] = [("t", 1), ("u", 1)].map(|(name, n)| TopicPartition::new(name, n));
        contact.state().given_up.insert(given_up.clone(), 0);
        assert!(!contact.state().may_coordinate(&given_up));
        assert!(contact.state().may_coordinate(&other));
        contact.resign();
        assert!(!contact.state().may_coordinate(&other), "the broker stops");
    }

    #[tokio::test(start_paused = true)]
    async fn partition_whose_lock_stays_held_is_stuck() {
        let contact = ControllerContact::new();
        let id = TopicPartition::new("t", 1);
        let is_stuck = |look| contact.state().is_stuck(&id, look);
        assert!(!is_stuck(None), "an append may hold the lock");
        tokio::time::advance(LOCKED_MAX).await;
        assert!(is_stuck(None));
        assert!(!is_stuck(Some(false)), "the lock is free again");
        assert!(!is_stuck(None), "another append may hold it");
        assert!(is_stuck(Some(true)));
    }

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
