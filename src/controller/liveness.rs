//! The active controller's state that is not in the metadata log: sessions of brokers and times of
//! periodic tasks (Kafka's `BrokerHeartbeatManager`). A new controller begins without it and gives
//! every unfenced broker a session.

use std::collections::BTreeMap;

use crate::metadata::{BrokerImage, Image};

/// Sessions of brokers, and when periodic tasks run next. Times are milliseconds of a clock that
/// never goes back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VolatileState {
    brokers: BTreeMap<i32, Liveness>,
    /// When the next election of preferred leaders runs; `None` while nothing has changed since a
    /// run that left no partition to elect.
    pub(super) balance_at: Option<i64>,
    /// When the next unclean election of partitions without a leader runs; `None` under the same
    /// condition.
    pub(super) unclean_at: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
struct Liveness {
    /// The broker epoch that the other fields belong to.
    epoch: i64,
    /// Time of the broker's last heartbeat; `None` if it has no session.
    contact_ms: Option<i64>,
    /// Offset up to which the broker has applied the metadata log; -1 before its first heartbeat.
    metadata_offset: i64,
    /// Set during a controlled shutdown. All other active brokers must apply the metadata up to
    /// this offset before the broker may stop.
    shutdown_offset: Option<i64>,
}

impl VolatileState {
    /// The state of a controller that has just become active. Every unfenced broker has a session
    /// whose last heartbeat counts as received at `heard_ms`. An exception is the broker of this
    /// node (`here`): it gets a session only with its first heartbeat, because the registration may
    /// be that of an earlier process.
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

    /// Replaces the state of the broker's previous incarnation. The new one has no session before
    /// its first heartbeat.
    pub fn register(&mut self, broker: i32, epoch: i64) {
        let new = Liveness { epoch, contact_ms: None, metadata_offset: -1, shutdown_offset: None };
        self.brokers.insert(broker, new);
    }

    pub fn forget(&mut self, broker: i32) {
        self.brokers.remove(&broker);
    }

    /// Renews the broker's session. If the broker or this epoch of it has no state yet, creates it.
    pub fn renew_session(&mut self, broker: i32, epoch: i64, now_ms: i64) {
        if self.brokers.get(&broker).is_none_or(|known| known.epoch != epoch) {
            self.register(broker, epoch);
        }
        if let Some(known) = self.brokers.get_mut(&broker) {
            known.contact_ms = Some(now_ms);
        }
    }

    /// Ends the broker's session, because it is known to have stopped. Another incarnation may then
    /// register at once.
    pub fn end_session(&mut self, broker: i32) {
        if let Some(known) = self.brokers.get_mut(&broker) {
            known.contact_ms = None;
            known.shutdown_offset = None;
        }
    }

    /// Whether the broker's session in this epoch has not timed out.
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

    /// Begins a controlled shutdown. All other active brokers must apply the metadata up to
    /// `offset`. Further calls change nothing, because the records of the first one have already
    /// moved the leaderships.
    pub fn begin_shutdown(&mut self, broker: i32, offset: i64) {
        if let Some(known) = self.brokers.get_mut(&broker) {
            known.shutdown_offset.get_or_insert(offset);
        }
    }

    /// Stores the metadata offset of a heartbeat. A fenced broker is no longer in controlled
    /// shutdown.
    pub fn applied(&mut self, broker: i32, metadata_offset: i64, is_fenced: bool) {
        if let Some(known) = self.brokers.get_mut(&broker) {
            known.metadata_offset = metadata_offset;
            if is_fenced {
                known.shutdown_offset = None;
            }
        }
    }

    /// The lowest metadata offset that the active brokers have applied; `i64::MAX` if there is
    /// none. A broker is active if it is neither fenced nor in controlled shutdown.
    pub fn lowest_active_offset(&self, image: &Image) -> i64 {
        let serves = |id: i32, known: &Liveness| {
            known.shutdown_offset.is_none() && image.broker(id).is_some_and(|it| !it.fenced)
        };
        let active = self.brokers.iter().filter(|(id, known)| serves(**id, known));
        active.map(|(_, known)| known.metadata_offset).min().unwrap_or(i64::MAX)
    }

    /// A broker whose session has timed out, if there is one.
    pub fn stale(&self, now_ms: i64, timeout_ms: i64) -> Option<i32> {
        let is_stale =
            |known: &Liveness| known.contact_ms.is_some_and(|at| at + timeout_ms < now_ms);
        self.brokers.iter().find(|(_, known)| is_stale(known)).map(|(id, _)| *id)
    }

    /// Whether the registered incarnation has sent a heartbeat to this controller.
    pub fn has_heard_of(&self, broker: i32) -> bool {
        self.brokers.get(&broker).is_some_and(|known| known.metadata_offset >= 0)
    }

    /// Unfenced brokers that have sent no heartbeat to this controller yet, with their epochs.
    pub fn unheard_of(&self, image: &Image) -> Vec<(i32, i64)> {
        let serves = |id: i32| image.broker(id).is_some_and(|broker| !broker.fenced);
        let silent = self.brokers.iter().filter(|(_, known)| known.metadata_offset < 0);
        silent.filter(|(id, _)| serves(**id)).map(|(id, known)| (*id, known.epoch)).collect()
    }

    /// When the next session times out or the next periodic task runs.
    pub fn next_deadline(&self, timeout_ms: i64) -> Option<i64> {
        let contacts = self.brokers.values().filter_map(|known| known.contact_ms);
        let expiry = contacts.min().map(|at| at + timeout_ms + 1);
        [expiry, self.balance_at, self.unclean_at].into_iter().flatten().min()
    }
}
