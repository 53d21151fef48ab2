//! Group commit. A partition runs one flush (fdatasync) at a time. Requests during a flush share
//! one more after it. A limit bounds how many partitions flush at the same time; the others wait in
//! the order of their requests.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};

use super::Partition;
use crate::base::environment::spawn_blocking;

/// How many flushes that producers wait for may run at the same time.
const URGENT_MAX: usize = 64;

/// Whether a caller waits for a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A producer waits (`flush.messages`).
    Urgent,
    /// No caller waits: a segment is full, or `flush.ms` has passed.
    Background,
}

const IDLE: u8 = 0;
/// In the queue of background flushes.
const WAITING: u8 = 1;
/// Running, or in the queue of urgent flushes.
const RUNNING: u8 = 2;
/// Running, and requested again since.
const RUNNING_AND_ASKED: u8 = 3;

/// The state of one partition's flush: one of the constants above.
#[derive(Default)]
pub struct FlushGate(AtomicU8);

impl FlushGate {
    /// Changes the state and returns the previous one.
    fn update(&self, next: impl Fn(u8) -> u8) -> u8 {
        let update = |state| Some(next(state));
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
        before.unwrap_or_else(|unchanged| unchanged)
    }

    /// Requests a flush. Returns true if the caller must queue it. An urgent flush does not wait
    /// behind the background flushes, even if the partition is already queued there.
    fn request(&self, urgency: Urgency) -> bool {
        let is_urgent = urgency == Urgency::Urgent;
        let before = self.update(|state| match state {
            IDLE | WAITING if is_urgent => RUNNING,
            IDLE | WAITING => WAITING,
            _ => RUNNING_AND_ASKED,
        });
        before == IDLE || before == WAITING && is_urgent
    }

    /// Starts a background flush. Returns false if an urgent flush has taken its place.
    fn begin_background(&self) -> bool {
        self.update(|state| if state == WAITING { RUNNING } else { state }) == WAITING
    }

    /// Ends a flush. Returns true if another one must follow.
    fn finish(&self) -> bool {
        let next = |state| if state == RUNNING_AND_ASKED { RUNNING } else { IDLE };
        self.update(next) == RUNNING_AND_ASKED
    }
}

/// The flushes of all partitions of a broker.
pub struct FlushQueue {
    urgent: Lane,
    background: Lane,
}

/// One of the two queues. Its lock is held only to change the queue, not during a flush.
struct Lane(Mutex<Flushes>);

struct Flushes {
    waiting: VecDeque<Arc<Partition>>,
    under_way: usize,
    limit: usize,
}

impl Lane {
    fn new(limit: usize) -> Self {
        Self(Mutex::new(Flushes { waiting: VecDeque::new(), under_way: 0, limit }))
    }

    fn lock(&self) -> MutexGuard<'_, Flushes> {
        self.0.lock()
    }
}

impl Flushes {
    /// Takes the next partition from the queue, unless the limit is reached.
    fn begin_next(&mut self) -> Option<Arc<Partition>> {
        if self.under_way >= self.limit {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.under_way += 1;
        Some(next)
    }
}

impl FlushQueue {
    /// Creates the queues. At most `background_limit` background flushes run at the same time.
    pub fn new(background_limit: usize) -> Arc<Self> {
        let (urgent, background) = (Lane::new(URGENT_MAX), Lane::new(background_limit.max(1)));
        Arc::new(Self { urgent, background })
    }

    /// Changes the limit of background flushes. Flushes that are running continue.
    pub fn set_background_limit(self: &Arc<Self>, limit: usize) {
        self.background.lock().limit = limit.max(1);
        self.begin(Urgency::Background);
    }

    fn lane(&self, urgency: Urgency) -> &Lane {
        match urgency {
            Urgency::Urgent => &self.urgent,
            Urgency::Background => &self.background,
        }
    }

    /// Requests a flush of the partition on a blocking thread, and returns at once.
    pub fn submit(self: &Arc<Self>, partition: &Arc<Partition>, urgency: Urgency) {
        if partition.flushes.request(urgency) {
            self.lane(urgency).lock().waiting.push_back(Arc::clone(partition));
            self.begin(urgency);
        }
    }

    /// Starts as many queued flushes as the limit allows.
    fn begin(self: &Arc<Self>, urgency: Urgency) {
        loop {
            let Some(partition) = self.lane(urgency).lock().begin_next() else { return };
            let queue = Arc::clone(self);
            spawn_blocking(move || {
                let under_way = UnderWay { queue, urgency };
                if urgency == Urgency::Urgent || partition.flushes.begin_background() {
                    partition.flush_now();
                    if partition.flushes.finish() {
                        // The flush was requested again while it ran, perhaps by a producer that
                        // waits, so the partition goes to the end of the urgent queue.
                        let mut urgent = under_way.queue.urgent.lock();
                        urgent.waiting.push_back(partition);
                    }
                }
            });
        }
    }
}

/// A running flush. It counts towards the limit until it is dropped, even by a panic.
struct UnderWay {
    queue: Arc<FlushQueue>,
    urgency: Urgency,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.queue.lane(self.urgency).lock().under_way -= 1;
        self.queue.begin(Urgency::Urgent);
        self.queue.begin(Urgency::Background);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_during_a_flush_share_one_more() {
        let gate = FlushGate::default();
        assert!(gate.request(Urgency::Urgent));
        assert!(!gate.request(Urgency::Urgent));
        assert!(!gate.request(Urgency::Background));
        assert!(gate.finish());
        assert!(!gate.finish());
        assert!(gate.request(Urgency::Urgent));
    }

    #[test]
    fn urgent_flush_does_not_wait_in_the_background_queue() {
        let gate = FlushGate::default();
        assert!(gate.request(Urgency::Background));
        assert!(!gate.request(Urgency::Background));
        assert!(gate.request(Urgency::Urgent));
        assert!(!gate.begin_background());
        assert!(!gate.finish());
        assert!(gate.request(Urgency::Background));
        assert!(gate.begin_background());
    }
}
