//! Who waits on a partition: appends for an offset to be committed, fetches for more to read.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, oneshot};

/// Waiters for a rising offset. Nearly always empty on a partition without followers, so passing
/// an offset costs one load.
#[derive(Default)]
pub struct Waiters {
    /// Of the offsets that are waited for; changed under the lock.
    count: AtomicUsize,
    by_offset: Mutex<BTreeMap<i64, Vec<oneshot::Sender<()>>>>,
}

impl Waiters {
    /// The future ends when `pass` reaches `offset`, with an error if `clear` came first.
    pub fn register(&self, offset: i64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.by_offset.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = waiting.entry(offset).or_default();
        if senders.len() == senders.capacity() {
            senders.retain(|sender| !sender.is_closed()); // they wait no longer
        }
        senders.push(sender);
        self.count.store(waiting.len(), Ordering::SeqCst);
        receiver
    }

    pub fn pass(&self, offset: i64) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiting = self.by_offset.lock().unwrap_or_else(PoisonError::into_inner);
        let later = waiting.split_off(&(offset + 1));
        let passed: Vec<_> = std::mem::replace(&mut *waiting, later).into_values().collect();
        self.count.store(waiting.len(), Ordering::SeqCst);
        drop(waiting);
        for sender in passed.into_iter().flatten() {
            let _ = sender.send(()); // the waiter may have given up
        }
    }

    pub fn clear(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiting = self.by_offset.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.clear();
        self.count.store(0, Ordering::SeqCst);
    }
}

/// A waiting fetch: one wake-up, however many partitions it reads.
pub struct FetchWait {
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
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// The fetches that wait on one partition, until each forgets it: a fetch that was woken for too
/// little waits on.
#[derive(Default)]
pub struct FetchWaits {
    count: AtomicUsize,
    /// By number: whoever came first is woken first.
    waiting: Mutex<BTreeMap<u64, Arc<FetchWait>>>,
}

impl FetchWaits {
    pub fn add(&self, wait: &Arc<FetchWait>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(wait.number, Arc::clone(wait));
        self.count.store(waiting.len(), Ordering::SeqCst);
    }

    pub fn remove(&self, wait: &Arc<FetchWait>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&wait.number);
        self.count.store(waiting.len(), Ordering::SeqCst);
    }

    pub fn wake_all(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.values().for_each(|wait| wait.notify.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A coordinator waits anew at each turn, for the same offset.
    #[test]
    fn who_waits_no_longer_takes_no_room() {
        let waiters = Waiters::default();
        let mut last = waiters.register(5);
        for _ in 0..10_000 {
            last = waiters.register(5);
        }
        assert!(waiters.by_offset.lock().unwrap()[&5].len() < 10);
        waiters.pass(5);
        last.try_recv().expect("it is told");
    }
}
