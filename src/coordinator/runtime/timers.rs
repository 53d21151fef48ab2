//! The timers of a shard, as data. Every heartbeat and commit renews a session, so resetting a
//! timer must be cheap: a timer that moves to a later time keeps its place in the queue. When that
//! place comes up, the timer is queued again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::Hash,
};

use crate::coordinator::TimerOp;

struct Deadline {
    at_ms: i64,
    /// The time of its entry in the queue; never later than `at_ms`.
    queued_ms: i64,
}

pub struct Timers<K> {
    deadlines: HashMap<K, Deadline>,
    queue: BinaryHeap<Reverse<(i64, K)>>,
}

impl<K> Default for Timers<K>
where
    K: Ord,
{
    fn default() -> Self {
        Self { deadlines: HashMap::new(), queue: BinaryHeap::new() }
    }
}

impl<K: Clone + Ord + Hash> Timers<K> {
    pub fn change(&mut self, op: TimerOp<K>) {
        match op {
            TimerOp::Cancel { key } => {
                self.deadlines.remove(&key);
            }
            TimerOp::SetOnce { key, .. } if self.deadlines.contains_key(&key) => {}
            TimerOp::Set { key, at_ms } | TimerOp::SetOnce { key, at_ms } => {
                match self.deadlines.get_mut(&key) {
                    Some(deadline) if deadline.queued_ms <= at_ms => deadline.at_ms = at_ms,
                    _ => {
                        self.queue.push(Reverse((at_ms, key.clone())));
                        self.deadlines.insert(key, Deadline { at_ms, queued_ms: at_ms });
                    }
                }
            }
        }
    }

    /// The time at which [`Self::pop_due`] must be called next.
    pub fn next_look_ms(&self) -> Option<i64> {
        self.queue.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Removes and returns a timer that is due.
    pub fn pop_due(&mut self, now_ms: i64) -> Option<K> {
        while let Some(Reverse((queued_ms, _))) = self.queue.peek() {
            if *queued_ms > now_ms {
                return None;
            }
            let Reverse((queued_ms, key)) = self.queue.pop()?;
            match self.deadlines.get_mut(&key) {
                Some(deadline) if deadline.queued_ms == queued_ms => {
                    if deadline.at_ms == queued_ms {
                        self.deadlines.remove(&key);
                        return Some(key);
                    }
                    deadline.queued_ms = deadline.at_ms;
                    self.queue.push(Reverse((deadline.at_ms, key)));
                }
                _ => {} // cancelled, or queued again
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &'static str, at_ms: i64) -> TimerOp<&'static str> {
        TimerOp::Set { key, at_ms }
    }

    #[test]
    fn timers_fire_in_order_and_once() {
        let mut timers = Timers::default();
        timers.change(set("b", 20));
        timers.change(set("a", 10));
        timers.change(set("a", 30)); // later
        timers.change(set("c", 40));
        timers.change(set("c", 5)); // earlier
        timers.change(set("d", 7));
        timers.change(TimerOp::Cancel { key: "d" });
        assert_eq!(timers.next_look_ms(), Some(5));
        assert_eq!(timers.pop_due(4), None);
        let fired: Vec<_> = std::iter::from_fn(|| timers.pop_due(100)).collect();
        assert_eq!(fired, ["c", "b", "a"]);
        assert_eq!(timers.next_look_ms(), None);
    }

    #[test]
    fn a_timer_that_is_set_once_keeps_its_time() {
        let mut timers = Timers::default();
        timers.change(TimerOp::SetOnce { key: "a", at_ms: 10 });
        timers.change(TimerOp::SetOnce { key: "a", at_ms: 5 });
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(10), Some("a"));
        timers.change(TimerOp::SetOnce { key: "a", at_ms: 20 });
        assert_eq!(timers.pop_due(20), Some("a"));
    }

    #[test]
    fn a_cancelled_timer_can_be_set_again() {
        let mut timers = Timers::default();
        timers.change(set("a", 10));
        timers.change(TimerOp::Cancel { key: "a" });
        timers.change(set("a", 10));
        assert_eq!(timers.pop_due(10), Some("a"));
        assert_eq!(timers.pop_due(10), None);
    }
}
