//! Waiters of a partition: appends that wait for an offset, fetches that wait for more records.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// Waiters for a rising offset. On a partition without followers there are nearly always none;
/// `pass` then costs one atomic load.
#[derive(Default)]
pub struct Waiters {
    /// The number of offsets in `by_offset`. Changed under its lock, read without.
    count: AtomicUsize,
    by_offset: Mutex<BTreeMap<i64, Vec<oneshot::Sender<()>>>>,
}

impl Waiters {
    /// Adds a waiter. The receiver completes when `pass` reaches `offset`; it fails if `clear` is
    /// called first.
    pub fn register(&self, offset: i64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.by_offset.lock();
        let senders = waiting.entry(offset).or_default();
        if senders.len() == senders.capacity() {
            senders.retain(|sender| !sender.is_closed()); // removes waiters that were cancelled
        }
        senders.push(sender);
        self.count.store(waiting.len(), Ordering::SeqCst);
        receiver
    }

    /// Completes the waiters for `offset` and all offsets before it.
    pub fn pass(&self, offset: i64) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiting = self.by_offset.lock();
        let later = waiting.split_off(&(offset + 1));
        let passed: Vec<_> = std::mem::replace(&mut *waiting, later).into_values().collect();
        self.count.store(waiting.len(), Ordering::SeqCst);
        drop(waiting);
        for sender in passed.into_iter().flatten() {
            let _ = sender.send(()); // fails if the waiter was cancelled
        }
    }

    /// Ends all waiters with an error.
    pub fn clear(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiting = self.by_offset.lock();
        waiting.clear();
        self.count.store(0, Ordering::SeqCst);
    }
}

/// A waiting fetch. All partitions that it reads wake it through the same `Notify`.
pub struct FetchWait {
    /// Rises with the time of creation.
    number: u64,
    notify: Notify,
}

impl Default for FetchWait {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), notify: Notify::new() }
    }
}

impl FetchWait {
    /// Waits for the next wake-up, or returns at once after one that no call has consumed.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// The fetches that wait on one partition. A wake-up does not remove a fetch, because it may still
/// find too few bytes and wait again.
#[derive(Default)]
pub struct FetchWaits {
    count: AtomicUsize,
    /// By number, so that the oldest fetch is woken first.
    waiting: Mutex<BTreeMap<u64, Arc<FetchWait>>>,
}

impl FetchWaits {
    pub fn add(&self, wait: &Arc<FetchWait>) {
        let mut waiting = self.waiting.lock();
        waiting.insert(wait.number, Arc::clone(wait));
        self.count.store(waiting.len(), Ordering::SeqCst);
    }

    pub fn remove(&self, wait: &Arc<FetchWait>) {
        let mut waiting = self.waiting.lock();
        waiting.remove(&wait.number);
        self.count.store(waiting.len(), Ordering::SeqCst);
    }

    pub fn wake_all(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waiting = self.waiting.lock();
        waiting.values().for_each(|wait| wait.notify.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A coordinator registers again in each turn of its loop, for the same offset.
    #[test]
    fn cancelled_waiters_are_removed() {
        let waiters = Waiters::default();
        let mut last = waiters.register(5);
        for _ in 0..10_000 {
            last = waiters.register(5);
        }
        assert!(waiters.by_offset.lock()[&5].len() < 10);
        waiters.pass(5);
        last.try_recv().expect("it is told");
    }
}
