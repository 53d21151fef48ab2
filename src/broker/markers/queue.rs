//! [`Queue`]: the markers that wait for one broker, and the requests in flight to it.
//!
//! Normally, one request is in flight, and the markers that come meanwhile share the next one. A
//! partition whose high watermark stands still must not hold up the markers of others:
//!
//! - A request that is in flight for longer than [`OVERDUE`] does not delay the next request.
//! - While a marker for a partition is in flight, all further ones for the partition wait for the
//!   answer. Other requests therefore do not wait for the partition, too.
//! - A marker that timed out, and those that waited for its answer, are sent in requests of their
//!   own.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::base::TopicPartition;

/// How long a request in flight may delay the next one to the same broker.
const OVERDUE: Duration = Duration::from_millis(200);
/// Most requests in flight to a broker with markers that timed out, and as many with others. A
/// leader answers within 5 s, in which at most 25 requests of a kind are sent.
const IN_FLIGHT_MAX: usize = 32;
/// The most partitions of one WriteTxnMarkers request.
pub const PARTITIONS_PER_REQUEST: usize = 5_000;

/// A transaction: the partition of `__transaction_state` and the transactional id.
pub type TxnKey = (i32, Arc<str>);

/// A marker that is to be written to a partition.
pub struct Item {
    pub work: TxnKey,
    /// Distinguishes the transaction from earlier ones of the same transactional id.
    pub serial: u64,
    pub partition: TopicPartition,
    /// Whether the partition has not committed this marker, or one before it, in time.
    pub timed_out: bool,
}

/// Identifies a request in flight to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Whether the request has the markers that timed out.
    pub timed_out: bool,
    /// When it was sent.
    pub at: Duration,
}

/// The markers of one kind: those that timed out, or the others.
#[derive(Default)]
struct Lane {
    items: VecDeque<Item>,
    in_flight: usize,
    /// When the newest request was sent. `None` once it is answered.
    newest_at: Option<Duration>,
}

impl Lane {
    /// When the newest request in flight no longer delays the next one.
    fn overdue_at(&self) -> Option<Duration> {
        self.newest_at.map(|at| at + OVERDUE)
    }

    fn may_send(&self, now: Duration) -> bool {
        self.in_flight < IN_FLIGHT_MAX && self.overdue_at().is_none_or(|at| at <= now)
    }
}

/// The markers for one broker. Times are those since any fixed point.
#[derive(Default)]
pub struct Queue {
    others: Lane,
    timed_out: Lane,
    /// The partitions of all requests in flight, with the markers that wait for their answers.
    in_flight: HashMap<TopicPartition, Vec<Item>>,
}

impl Queue {
    pub fn push(&mut self, item: Item) {
        self.lane(item.timed_out).items.push_back(item);
    }

    fn lane(&mut self, timed_out: bool) -> &mut Lane {
        match timed_out {
            true => &mut self.timed_out,
            false => &mut self.others,
        }
    }

    /// Takes the markers of the next request of a kind. Empty if none may be sent now. Drops
    /// markers that are not wanted any more. The caller reports the answer to [`Self::answered`].
    pub fn take(&mut self, sent: Sent, is_wanted: impl Fn(&Item) -> bool) -> Vec<Item> {
        let mut taken = Vec::new();
        if !self.lane(sent.timed_out).may_send(sent.at) {
            return taken;
        }
        while taken.len() < PARTITIONS_PER_REQUEST
            && let Some(item) = self.lane(sent.timed_out).items.pop_front()
        {
            if !is_wanted(&item) {
                continue;
            }
            match self.in_flight.get_mut(&item.partition) {
                Some(waiting) => waiting.push(item),
                None => taken.push(item),
            }
        }
        for item in &taken {
            self.in_flight.entry(item.partition.clone()).or_default();
        }
        if !taken.is_empty() {
            let lane = self.lane(sent.timed_out);
            lane.in_flight += 1;
            lane.newest_at = Some(sent.at);
        }
        taken
    }

    /// Ends a request in flight. `partitions` are those of the request, each with whether it timed
    /// out. The markers that waited for them are queued again.
    pub fn answered(
        &mut self,
        sent: Sent,
        partitions: impl IntoIterator<Item = (TopicPartition, bool)>,
    ) {
        let lane = self.lane(sent.timed_out);
        lane.in_flight -= 1;
        if lane.newest_at == Some(sent.at) {
            lane.newest_at = None;
        }
        for (partition, timed_out) in partitions {
            for item in self.in_flight.remove(&partition).unwrap_or_default() {
                self.push(Item { timed_out, ..item });
            }
        }
    }

    /// When waiting markers may be sent although no answer arrives until then. `None` if only an
    /// answer or new markers can lead to the next request.
    pub fn next_send_at(&self) -> Option<Duration> {
        let lanes = [&self.others, &self.timed_out].into_iter();
        let waiting = lanes.filter(|it| !it.items.is_empty() && it.in_flight < IN_FLIGHT_MAX);
        waiting.filter_map(Lane::overdue_at).min()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        let is_idle = |lane: &Lane| lane.items.is_empty() && lane.in_flight == 0;
        is_idle(&self.others) && is_idle(&self.timed_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("t", index)
    }

    fn push(queue: &mut Queue, indexes: &[i32]) {
        for index in indexes {
            let work = (0, Arc::from("id"));
            let partition = partition(*index);
            queue.push(Item { work, serial: 1, partition, timed_out: false });
        }
    }

    fn take(queue: &mut Queue, timed_out: bool, at: Duration) -> Vec<i32> {
        let taken = queue.take(Sent { timed_out, at }, |_| true);
        taken.iter().map(|item| item.partition.partition).collect()
    }

    fn answer(queue: &mut Queue, (timed_out, at): (bool, Duration), results: &[(i32, bool)]) {
        let results = results.iter().map(|(index, timed_out)| (partition(*index), *timed_out));
        queue.answered(Sent { timed_out, at }, results);
    }

    #[test]
    fn overdue_requests_do_not_delay_the_next_ones() {
        let mut queue = Queue::default();
        push(&mut queue, &[0, 1]);
        assert_eq!(take(&mut queue, false, START), [0, 1]);
        assert_eq!(queue.next_send_at(), None, "no marker waits");
        push(&mut queue, &[0, 2]);
        assert_eq!(take(&mut queue, false, START), [0; 0]);
        assert_eq!(queue.next_send_at(), Some(OVERDUE));
        assert_eq!(take(&mut queue, false, OVERDUE), [2], "partition 0 is in flight");
        assert_eq!(queue.next_send_at(), None);
        answer(&mut queue, (false, START), &[(0, false), (1, false)]);
        assert_eq!(take(&mut queue, false, OVERDUE), [0; 0], "the newest request delays it");
        answer(&mut queue, (false, OVERDUE), &[(2, false)]);
        assert_eq!(take(&mut queue, false, OVERDUE), [0]);
        answer(&mut queue, (false, OVERDUE), &[(0, false)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn partitions_that_timed_out_have_requests_of_their_own() {
        let mut queue = Queue::default();
        push(&mut queue, &[0, 1]);
        take(&mut queue, false, START);
        push(&mut queue, &[0, 1, 2]);
        let later = OVERDUE * 2;
        assert_eq!(take(&mut queue, false, later), [2]);
        answer(&mut queue, (false, later), &[(2, false)]);
        answer(&mut queue, (false, START), &[(0, true), (1, false)]);
        assert_eq!(take(&mut queue, false, later), [1]);
        assert_eq!(take(&mut queue, true, later), [0]);
        push(&mut queue, &[0, 1, 2]);
        answer(&mut queue, (false, later), &[(1, false)]);
        assert_eq!(take(&mut queue, false, later), [1, 2], "partition 0 is in flight");
        answer(&mut queue, (true, later), &[(0, false)]);
        answer(&mut queue, (false, later), &[(1, false), (2, false)]);
        assert_eq!(take(&mut queue, false, later), [0]);
        answer(&mut queue, (false, later), &[(0, false)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn requests_in_flight_are_bounded() {
        let mut queue = Queue::default();
        for number in 0..IN_FLIGHT_MAX as i32 {
            push(&mut queue, &[number]);
            assert_eq!(take(&mut queue, false, OVERDUE * number as u32), [number]);
        }
        let late = OVERDUE * 1000;
        push(&mut queue, &[1000]);
        assert_eq!(take(&mut queue, false, late), [0; 0]);
        assert_eq!(queue.next_send_at(), None);
        answer(&mut queue, (false, START), &[(0, false)]);
        assert_eq!(take(&mut queue, false, late), [1000]);
    }
}
