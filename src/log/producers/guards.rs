//! The guards of producers whose coordinators are asked about a transaction (KIP-890, Kafka's
//! `VerificationStateEntry`). They are in memory only.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::records::{BatchHeader, Producer, TransactionVersion, VerificationGuard};

/// Most guards of a log. Clients choose the producer ids, so the number must be limited.
const GUARDS_MAX: usize = 10_000;

/// The number of the last guard of this process. No log reuses the number of another guard.
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

/// A guard and what was asked with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingGuard {
    pub guard: VerificationGuard,
    pub epoch: i16,
    /// The lowest sequence number that the producer has tried in this epoch. A batch with a higher
    /// one must wait for the retry of the lower one.
    pub lowest_sequence: i32,
    pub version: TransactionVersion,
    created_ms: i64,
}

impl PendingGuard {
    fn new(epoch: i16, sequence: i32, version: TransactionVersion, now_ms: i64) -> Self {
        let guard = VerificationGuard(LAST_NUMBER.fetch_add(1, Relaxed) + 1);
        Self { guard, epoch, lowest_sequence: sequence, version, created_ms: now_ms }
    }
}

/// The guards of a log by producer id.
#[derive(Debug, Clone, Default)]
pub struct Guards(HashMap<i64, PendingGuard>);

impl Guards {
    pub fn get(&self, producer_id: i64) -> Option<&PendingGuard> {
        self.0.get(&producer_id)
    }

    /// Returns the producer's guard, and creates it if there is none or if the epoch is newer. At
    /// the limit, the older half of all guards becomes void.
    pub fn obtain(
        &mut self,
        producer: Producer,
        sequence: i32,
        version: TransactionVersion,
        now_ms: i64,
    ) -> VerificationGuard {
        if let Some(pending) = self.0.get_mut(&producer.id)
            && producer.epoch <= pending.epoch
        {
            if producer.epoch == pending.epoch {
                pending.lowest_sequence = pending.lowest_sequence.min(sequence);
            }
            return pending.guard;
        }
        if self.0.len() >= GUARDS_MAX {
            self.void_older_half();
        }
        let pending = PendingGuard::new(producer.epoch, sequence, version, now_ms);
        self.0.insert(producer.id, pending);
        pending.guard
    }

    fn void_older_half(&mut self) {
        let mut numbers: Vec<u64> = self.0.values().map(|pending| pending.guard.0).collect();
        let middle = numbers.len() / 2;
        let (_, kept_from, _) = numbers.select_nth_unstable(middle);
        let kept_from = *kept_from;
        self.0.retain(|_, pending| pending.guard.0 >= kept_from);
    }

    /// Voids the guard of a producer because its transactional batch or marker was appended.
    pub fn appended(&mut self, header: &BatchHeader) {
        if self.has_voidable(Producer::of(header), header.is_control()) {
            self.0.remove(&header.producer_id);
        }
    }

    /// Whether the producer has a guard that a transactional batch or a marker of it voids. In
    /// transaction version 2, a marker has the epoch of the producer's next transaction. The guard
    /// of that transaction stays valid.
    pub fn has_voidable(&self, producer: Producer, by_marker: bool) -> bool {
        self.get(producer.id).is_some_and(|pending| {
            !(by_marker && pending.version.bumps_epoch() && pending.epoch == producer.epoch)
        })
    }

    /// Voids guards that were created at or before `before_ms`.
    pub fn expire(&mut self, before_ms: i64) {
        self.0.retain(|_, pending| pending.created_ms > before_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: TransactionVersion = TransactionVersion::V2;

    fn producer(id: i64, epoch: i16) -> Producer {
        Producer { id, epoch }
    }

    #[test]
    fn guard_is_kept_until_a_newer_epoch() {
        let mut guards = Guards::default();
        let first = guards.obtain(producer(1, 3), 7, V2, 0);
        assert_eq!(guards.obtain(producer(1, 3), 5, V2, 0), first);
        assert_eq!(guards.obtain(producer(1, 3), 9, V2, 0), first);
        assert_eq!(guards.get(1).expect("exists").lowest_sequence, 5);
        assert_eq!(guards.obtain(producer(1, 2), 0, V2, 0), first);
        assert_eq!(guards.get(1).expect("exists").lowest_sequence, 5, "an older epoch has others");
        let next = guards.obtain(producer(1, 4), 9, V2, 0);
        assert_ne!(next, first);
        assert_eq!(guards.get(1).expect("exists").lowest_sequence, 9);
        assert_ne!(guards.obtain(producer(2, 0), 0, V2, 0), next);
    }

    #[test]
    fn the_newest_guards_remain_at_the_limit() {
        let mut guards = Guards::default();
        for id in 0..GUARDS_MAX as i64 {
            guards.obtain(producer(id, 0), 0, V2, 0);
        }
        let last = guards.obtain(producer(-7, 0), 0, V2, 0);
        assert_eq!(guards.0.len(), GUARDS_MAX / 2 + 1);
        assert_eq!(guards.get(-7).expect("exists").guard, last);
        assert!(guards.get(0).is_none() && guards.get(GUARDS_MAX as i64 - 1).is_some());
    }

    #[test]
    fn guards_expire() {
        let mut guards = Guards::default();
        guards.obtain(producer(1, 0), 0, V2, 10);
        guards.obtain(producer(2, 0), 0, V2, 11);
        guards.obtain(producer(1, 0), 0, V2, 12);
        guards.expire(10);
        assert!(guards.get(1).is_none() && guards.get(2).is_some());
    }
}
