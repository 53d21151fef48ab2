//! What the active controller knows of brokers and times besides the image (Kafka's
//! `BrokerHeartbeatManager` and its periodic tasks). None of it outlives the controller: the next
//! one begins with a session for every broker that is not fenced.

use std::collections::BTreeMap;

use crate::metadata::{BrokerImage, Image};

/// Times are milliseconds of a clock that only moves forward.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SoftState {
    brokers: BTreeMap<i32, Liveness>,
    /// When preferred leaders are elected next; `None` while there is nothing to look for.
    pub(super) balance_at: Option<i64>,
    /// When partitions without a leader are looked at next.
    pub(super) unclean_at: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
struct Liveness {
    /// The incarnation that the rest is of.
    epoch: i64,
    /// When the broker was last heard of; `None` when it is known to be gone.
    contact_ms: Option<i64>,
    /// How far the broker has applied the metadata log; -1 when unknown.
    metadata_offset: i64,
    /// It shuts down; all others must see the metadata up to here before it may go.
    shutdown_offset: Option<i64>,
}

impl SoftState {
    /// What a controller begins with. The broker of the same process, if it has one, needs no
    /// session: if it lives, it will be heard of; else it is a former process that is registered.
    /// All others are taken to have been heard of at `heard_ms`.
    pub fn activate(image: &Image, here: Option<i32>, now_ms: i64, heard_ms: i64) -> Self {
        let live = |broker: &BrokerImage| Liveness {
            epoch: broker.broker_epoch,
            contact_ms: (!broker.fenced && Some(broker.broker_id) != here).then_some(heard_ms),
            metadata_offset: -1,
            shutdown_offset: None,
        };
        let brokers = image.brokers.values().map(|it| (it.broker_id, live(it))).collect();
        Self { brokers, balance_at: Some(now_ms), unclean_at: Some(now_ms) }
    }

    /// A new incarnation: nothing of the former one holds.
    pub fn register(&mut self, broker: i32, epoch: i64) {
        let new = Liveness { epoch, contact_ms: None, metadata_offset: -1, shutdown_offset: None };
        self.brokers.insert(broker, new);
    }

    pub fn forget(&mut self, broker: i32) {
        self.brokers.remove(&broker);
    }

    /// The broker is heard of. An unknown one is known from now on.
    pub fn heard_of(&mut self, broker: i32, epoch: i64, now_ms: i64) {
        if self.brokers.get(&broker).is_none_or(|known| known.epoch != epoch) {
            self.register(broker, epoch);
        }
        if let Some(known) = self.brokers.get_mut(&broker) {
            known.contact_ms = Some(now_ms);
        }
    }

    /// The broker is known to be gone: another incarnation may register at once.
    pub fn end_session(&mut self, broker: i32) {
        if let Some(known) = self.brokers.get_mut(&broker) {
            known.contact_ms = None;
            known.shutdown_offset = None;
        }
    }

    pub fn has_session(&self, broker: i32, epoch: i64, now_ms: i64, timeout_ms: i64) -> bool {
        let known = self.brokers.get(&broker).filter(|known| known.epoch == epoch);
        let contact = known.and_then(|known| known.contact_ms);
        contact.is_some_and(|contact| contact + timeout_ms >= now_ms)
    }

    pub fn is_shutting_down(&self, broker: i32) -> bool {
        self.shutdown_offset(broker).is_some()
    }

    pub fn shutdown_offset(&self, broker: i32) -> Option<i64> {
        self.brokers.get(&broker)?.shutdown_offset
    }

    /// Only the first time counts: what the broker led had moved by then.
    pub fn begin_shutdown(&mut self, broker: i32, offset: i64) {
        if let Some(known) = self.brokers.get_mut(&broker) {
            known.shutdown_offset.get_or_insert(offset);
        }
    }

    pub fn applied(&mut self, broker: i32, metadata_offset: i64, is_fenced: bool) {
        if let Some(known) = self.brokers.get_mut(&broker) {
            known.metadata_offset = metadata_offset;
            if is_fenced {
                known.shutdown_offset = None;
            }
        }
    }

    /// What all brokers that serve have applied; the highest offset there is when none does.
    pub fn lowest_active_offset(&self, image: &Image) -> i64 {
        let serves = |id: i32, known: &Liveness| {
            known.shutdown_offset.is_none() && image.broker(id).is_some_and(|it| !it.fenced)
        };
        let active = self.brokers.iter().filter(|(id, known)| serves(**id, known));
        active.map(|(_, known)| known.metadata_offset).min().unwrap_or(i64::MAX)
    }

    /// A broker that has been silent for too long.
    pub fn stale(&self, now_ms: i64, timeout_ms: i64) -> Option<i32> {
        let is_stale =
            |known: &Liveness| known.contact_ms.is_some_and(|at| at + timeout_ms < now_ms);
        self.brokers.iter().find(|(_, known)| is_stale(known)).map(|(id, _)| *id)
    }

    /// Whether the registered incarnation has sent a heartbeat to this controller.
    pub fn has_heard_of(&self, broker: i32) -> bool {
        self.brokers.get(&broker).is_some_and(|known| known.metadata_offset >= 0)
    }

    /// Brokers that serve as far as the image knows, and the incarnations of those that have sent no
    /// heartbeat to this controller yet.
    pub fn unheard_of(&self, image: &Image) -> Vec<(i32, i64)> {
        let serves = |id: i32| image.broker(id).is_some_and(|broker| !broker.fenced);
        let silent = self.brokers.iter().filter(|(_, known)| known.metadata_offset < 0);
        silent.filter(|(id, _)| serves(**id)).map(|(id, known)| (*id, known.epoch)).collect()
    }

    /// When there is something to do though nobody asks.
    pub fn next_deadline(&self, timeout_ms: i64) -> Option<i64> {
        let contacts = self.brokers.values().filter_map(|known| known.contact_ms);
        let expiry = contacts.min().map(|at| at + timeout_ms + 1);
        [expiry, self.balance_at, self.unclean_at].into_iter().flatten().min()
    }
}
