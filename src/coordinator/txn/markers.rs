//! The markers of ended transactions: which partitions wait for them, and the end of the wait.

use std::sync::Arc;

use super::{
    Turn,
    messages::{Effect, MarkersWritten, ShardEffect},
    state::{Partitions, Transaction},
};
use crate::records::Producer;

/// An ended transaction whose markers are being written.
#[derive(Debug)]
pub struct Waiting {
    producer: Producer,
    coordinator_epoch: i32,
    end_ms: i64,
    /// The partitions without the marker. There is at least one.
    pub partitions: Partitions,
}

impl Turn<'_> {
    /// Requests the markers of a transaction with partitions.
    pub(super) fn request_markers(&mut self, id: &Arc<str>, ended: &Transaction) {
        let marker = ended.marker(self.leader_epoch);
        let end_ms = ended.last_update_ms;
        let waiting = Waiting {
            producer: marker.producer,
            coordinator_epoch: marker.coordinator_epoch,
            end_ms,
            partitions: Partitions::clone(&ended.partitions),
        };
        self.volatile.waiting.insert(id.clone(), waiting);
        let partitions = ended.partitions.iter().cloned().collect();
        self.effect(Effect::WriteMarkers { id: id.clone(), marker, end_ms, partitions });
    }

    /// Completes a transaction once its last partition has the marker. Ignores reports on earlier
    /// transactions of the id.
    pub(super) fn markers_written(&mut self, written: &MarkersWritten) {
        let id = &written.id;
        let Some(waiting) = self.volatile.waiting.get_mut(id) else { return };
        let is_of_transaction = waiting.producer == written.producer
            && waiting.coordinator_epoch == written.coordinator_epoch
            && waiting.end_ms == written.end_ms;
        if !is_of_transaction {
            return;
        }
        for partition in &written.partitions {
            waiting.partitions.remove(partition);
        }
        if waiting.partitions.is_empty() {
            self.volatile.waiting.remove(id);
            if let Some(ended) = self.current(id) {
                self.complete(id, &ended);
            }
        }
    }

    /// Completes loaded transactions that have no partitions.
    pub(super) fn complete_loaded(&mut self) {
        let logged = self.logged;
        for (id, txn) in &logged.transactions {
            if txn.state.is_prepare() && txn.partitions.is_empty() {
                self.complete(id, txn);
            }
        }
    }

    /// Writes the Complete record of an ended transaction.
    pub(super) fn complete(&mut self, id: &Arc<str>, ended: &Transaction) {
        self.write(id, ended.completed(self.now_ms));
        let took_ms = self.now_ms.saturating_sub(ended.last_update_ms).max(0);
        self.out.effects.push(ShardEffect::Completed { took_ms });
    }
}
