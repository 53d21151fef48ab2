//! [`Outbox`]: the markers that are still to be written, by the broker that leads their partition.
//! It does not send: callers take batches and report the answers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    sync::Arc,
    time::Duration,
};

use super::queue::{Item, Queue, Sent, TxnKey};
use crate::{base::TopicPartition, coordinator::txn::messages::MarkersWritten, records::TxnMarker};

/// Where a marker must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Broker(i32),
    /// The partition has no leader now, or its leader is fenced.
    NoLeader,
    /// The topic was deleted. The marker is not needed.
    Deleted,
}

/// The result of writing one marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Yes,
    /// The marker is to be sent again, to the partition's leader at that time.
    NotYet,
    /// The partition has not committed the marker in time. It is to be sent again.
    TimedOut,
    /// Another coordinator has ended this transaction, or a later one of the same producer.
    Fenced,
}

/// The end of a transaction, whose markers are to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedTxn {
    /// The partition of `__transaction_state` whose shard requested it.
    pub shard: i32,
    /// The transactional id.
    pub id: Arc<str>,
    pub marker: TxnMarker,
    pub end_ms: i64,
}

/// The markers of one transaction in a [`Batch`].
#[derive(Debug)]
pub struct BatchMarker {
    work: TxnKey,
    serial: u64,
    pub marker: TxnMarker,
    pub partitions: Vec<TopicPartition>,
}

/// The markers of one request.
#[derive(Debug)]
pub struct Batch {
    pub broker: i32,
    sent: Sent,
    pub markers: Vec<BatchMarker>,
}

struct Work {
    /// Distinguishes this transaction from earlier ones of the same transactional id.
    serial: u64,
    ended: EndedTxn,
    /// The partitions whose marker is not written yet.
    waiting: HashSet<TopicPartition>,
}

#[derive(Default)]
pub struct Outbox {
    last_serial: u64,
    work: HashMap<TxnKey, Work>,
    queues: BTreeMap<i32, Queue>,
    /// Items that could not be written, until the next [`Self::retry`].
    delayed: Vec<Item>,
    reports: Vec<(i32, MarkersWritten)>,
}

impl Outbox {
    /// Adds the markers of a transaction. They replace those of an earlier request for the same
    /// transactional id, which the shard repeats when it is loaded again.
    pub fn add(
        &mut self,
        ended: EndedTxn,
        partitions: Vec<TopicPartition>,
        destination: impl Fn(&TopicPartition) -> Destination,
    ) {
        self.last_serial += 1;
        let (serial, key) = (self.last_serial, (ended.shard, Arc::clone(&ended.id)));
        let waiting = partitions.iter().cloned().collect();
        self.work.insert(key.clone(), Work { serial, ended, waiting });
        let item = |partition| Item { work: key.clone(), serial, partition, timed_out: false };
        self.place(partitions.into_iter().map(item).collect(), destination);
    }

    /// Sends delayed markers again. Forgets transactions of shards that this broker does not run
    /// any more: their next coordinator sends their markers.
    pub fn retry(
        &mut self,
        is_led: impl Fn(i32) -> bool,
        destination: impl Fn(&TopicPartition) -> Destination,
    ) {
        self.work.retain(|(shard, _), _| is_led(*shard));
        let items = mem::take(&mut self.delayed);
        self.place(items, destination);
    }

    fn place(&mut self, items: Vec<Item>, destination: impl Fn(&TopicPartition) -> Destination) {
        let mut deleted: HashMap<TxnKey, Vec<TopicPartition>> = HashMap::new();
        for item in items {
            if !is_wanted(&self.work, &item) {
                continue;
            }
            match destination(&item.partition) {
                Destination::Broker(broker) => self.queues.entry(broker).or_default().push(item),
                Destination::NoLeader => self.delayed.push(item),
                Destination::Deleted => {
                    deleted.entry(item.work).or_default().push(item.partition);
                }
            }
        }
        for (work, partitions) in deleted {
            self.written(&work, partitions);
        }
    }

    /// Takes the requests that may be sent at the time `now`. Each must be handed back to
    /// [`Self::answered`].
    pub fn take_batches(&mut self, now: Duration) -> Vec<Batch> {
        let mut batches = Vec::new();
        for (&broker, queue) in &mut self.queues {
            for timed_out in [false, true] {
                let sent = Sent { timed_out, at: now };
                let items = queue.take(sent, |item| is_wanted(&self.work, item));
                if !items.is_empty() {
                    batches.push(Batch { broker, sent, markers: by_work(&self.work, items) });
                }
            }
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        batches
    }

    /// When [`Self::take_batches`] may return requests although nothing else happens until then.
    pub fn next_send_at(&self) -> Option<Duration> {
        self.queues.values().filter_map(Queue::next_send_at).min()
    }

    /// Applies the result of each marker of a batch. `written` returns that of a partition.
    pub fn answered(
        &mut self,
        batch: Batch,
        written: impl Fn(&TxnMarker, &TopicPartition) -> Written,
    ) {
        let mut partitions: HashMap<TopicPartition, bool> = HashMap::new();
        for BatchMarker { work, serial, marker, partitions: of_marker } in batch.markers {
            let mut done = Vec::new();
            for partition in of_marker {
                let result = written(&marker, &partition);
                let timed_out = result == Written::TimedOut;
                *partitions.entry(partition.clone()).or_default() |= timed_out;
                let item = Item { work: work.clone(), serial, partition, timed_out };
                if !is_wanted(&self.work, &item) {
                    continue;
                }
                match result {
                    Written::Yes => done.push(item.partition),
                    Written::NotYet | Written::TimedOut => self.delayed.push(item),
                    Written::Fenced => {
                        self.work.remove(&work);
                    }
                }
            }
            self.written(&work, done);
        }
        if let Some(queue) = self.queues.get_mut(&batch.broker) {
            queue.answered(batch.sent, partitions);
        }
    }

    /// Notes that partitions have the marker of a transaction, or need none.
    fn written(&mut self, key: &TxnKey, partitions: Vec<TopicPartition>) {
        let Some(work) = self.work.get_mut(key) else { return };
        if partitions.is_empty() {
            return;
        }
        for partition in &partitions {
            work.waiting.remove(partition);
        }
        let EndedTxn { shard, id, marker, end_ms } = work.ended.clone();
        if work.waiting.is_empty() {
            self.work.remove(key);
        }
        let coordinator_epoch = marker.coordinator_epoch;
        let written =
            MarkersWritten { id, producer: marker.producer, coordinator_epoch, end_ms, partitions };
        self.reports.push((shard, written));
    }

    /// Takes the reports for shards.
    pub fn take_reports(&mut self) -> Vec<(i32, MarkersWritten)> {
        mem::take(&mut self.reports)
    }

    /// Whether markers wait for [`Self::retry`].
    pub fn has_delayed(&self) -> bool {
        !self.delayed.is_empty()
    }
}

/// Whether a marker is still to be written.
fn is_wanted(works: &HashMap<TxnKey, Work>, item: &Item) -> bool {
    let work = works.get(&item.work).filter(|work| work.serial == item.serial);
    work.is_some_and(|work| work.waiting.contains(&item.partition))
}

/// Groups the markers of a request by transaction.
fn by_work(works: &HashMap<TxnKey, Work>, items: Vec<Item>) -> Vec<BatchMarker> {
    let mut markers: Vec<BatchMarker> = Vec::new();
    let mut places: HashMap<TxnKey, usize> = HashMap::new();
    for Item { work, serial, partition, .. } in items {
        let place = *places.entry(work.clone()).or_insert(markers.len());
        if place == markers.len() {
            let marker = works[&work].ended.marker;
            markers.push(BatchMarker { work, serial, marker, partitions: Vec::new() });
        }
        markers[place].partitions.push(partition);
    }
    markers
}

#[cfg(test)]
mod tests {
    use super::super::queue::PARTITIONS_PER_REQUEST;
    use super::*;
    use crate::records::{Producer, TransactionVersion};

    const SHARD: i32 = 3;
    const NOW: Duration = Duration::ZERO;

    fn ended(id: &str, producer_id: i64) -> EndedTxn {
        let marker = TxnMarker {
            producer: Producer { id: producer_id, epoch: 1 },
            commits: true,
            coordinator_epoch: 5,
            version: TransactionVersion::V2,
        };
        EndedTxn { shard: SHARD, id: id.into(), marker, end_ms: 100 }
    }

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("t", index)
    }

    fn partitions(indexes: &[i32]) -> Vec<TopicPartition> {
        indexes.iter().copied().map(partition).collect()
    }

    /// Partitions below 10 are led by broker 1, those below 20 by broker 2.
    fn leader(partition: &TopicPartition) -> Destination {
        Destination::Broker(1 + partition.partition / 10)
    }

    /// The partition indexes of each producer id in a batch.
    type Summary = Vec<(i64, Vec<i32>)>;

    /// The batches with their brokers.
    fn summary(batches: &[Batch]) -> Vec<(i32, Summary)> {
        let marker = |it: &BatchMarker| {
            (it.marker.producer.id, it.partitions.iter().map(|it| it.partition).collect())
        };
        batches.iter().map(|it| (it.broker, it.markers.iter().map(marker).collect())).collect()
    }

    /// The reports as transactional ids and partition indexes.
    fn reports(outbox: &mut Outbox) -> Vec<(String, Vec<i32>)> {
        let report = |(shard, written): (i32, MarkersWritten)| {
            assert_eq!((shard, written.coordinator_epoch, written.end_ms), (SHARD, 5, 100));
            let indexes = written.partitions.iter().map(|it| it.partition).collect();
            (written.id.to_string(), indexes)
        };
        outbox.take_reports().into_iter().map(report).collect()
    }

    fn one(outbox: &mut Outbox) -> Batch {
        let mut batches = outbox.take_batches(NOW);
        assert_eq!(batches.len(), 1);
        batches.remove(0)
    }

    #[test]
    fn markers_share_the_next_request_to_a_broker() {
        let mut outbox = Outbox::default();
        outbox.add(ended("a", 7), partitions(&[0, 1, 10]), leader);
        let first = outbox.take_batches(NOW);
        assert_eq!(summary(&first), [(1, vec![(7, vec![0, 1])]), (2, vec![(7, vec![10])])]);
        outbox.add(ended("b", 8), partitions(&[0]), leader);
        outbox.add(ended("c", 9), partitions(&[2]), leader);
        assert_eq!(summary(&outbox.take_batches(NOW)), []);
        for batch in first {
            outbox.answered(batch, |_, _| Written::Yes);
        }
        assert_eq!(
            reports(&mut outbox),
            [("a".to_owned(), vec![0, 1]), ("a".to_owned(), vec![10])]
        );
        assert_eq!(summary(&outbox.take_batches(NOW)), [(1, vec![(8, vec![0]), (9, vec![2])])]);
        assert_eq!(outbox.work.len(), 2, "the first transaction is forgotten");
    }

    #[test]
    fn markers_are_sent_again_to_the_leader_of_that_time() {
        let mut outbox = Outbox::default();
        outbox.add(ended("a", 7), partitions(&[0, 1, 2]), leader);
        let batch = one(&mut outbox);
        let only_first = |_: &TxnMarker, partition: &TopicPartition| match partition.partition {
            0 => Written::Yes,
            _ => Written::NotYet,
        };
        outbox.answered(batch, only_first);
        assert_eq!(reports(&mut outbox), [("a".to_owned(), vec![0])]);
        assert_eq!(summary(&outbox.take_batches(NOW)), []);
        assert!(outbox.has_delayed());
        outbox.retry(
            |_| true,
            |partition| match partition.partition {
                1 => Destination::Broker(9),
                _ => Destination::NoLeader,
            },
        );
        assert_eq!(summary(&outbox.take_batches(NOW)), [(9, vec![(7, vec![1])])]);
        assert!(outbox.has_delayed());
        outbox.retry(|_| true, |_| Destination::Deleted);
        assert_eq!(reports(&mut outbox), [("a".to_owned(), vec![2])]);
        assert!(!outbox.has_delayed());
    }

    #[test]
    fn transactions_of_other_coordinators_are_forgotten() {
        let mut outbox = Outbox::default();
        outbox.add(ended("fenced", 7), partitions(&[0, 1]), leader);
        let batch = one(&mut outbox);
        outbox.answered(batch, |_, partition| match partition.partition {
            0 => Written::Fenced,
            _ => Written::Yes,
        });
        assert_eq!(reports(&mut outbox), []);
        outbox.add(ended("moved", 8), partitions(&[0, 1]), |_| Destination::NoLeader);
        outbox.retry(|shard| shard != SHARD, leader);
        assert_eq!(summary(&outbox.take_batches(NOW)), []);
        assert!(outbox.work.is_empty() && !outbox.has_delayed());
    }

    #[test]
    fn markers_that_timed_out_are_sent_apart_from_others() {
        let mut outbox = Outbox::default();
        outbox.add(ended("a", 7), partitions(&[0, 1]), leader);
        let batch = one(&mut outbox);
        outbox.add(ended("b", 8), partitions(&[0, 1]), leader);
        let later = Duration::from_secs(1);
        assert_eq!(summary(&outbox.take_batches(later)), [], "both partitions are in flight");
        outbox.answered(batch, |_, partition| match partition.partition {
            0 => Written::TimedOut,
            _ => Written::Yes,
        });
        outbox.retry(|_| true, leader);
        let both = outbox.take_batches(later);
        let expected = [(1, vec![(8, vec![1])]), (1, vec![(8, vec![0]), (7, vec![0])])];
        assert_eq!(summary(&both), expected);
        for batch in both {
            outbox.answered(batch, |_, _| Written::Yes);
        }
        assert!(outbox.work.is_empty());
        assert_eq!(summary(&outbox.take_batches(NOW)), []);
        assert!(outbox.queues.is_empty());
    }

    /// A shard that is loaded again requests its markers again. Answers to the earlier batch do not
    /// count for the new request.
    #[test]
    fn repeated_requests_replace_earlier_ones() {
        let mut outbox = Outbox::default();
        outbox.add(ended("a", 7), partitions(&[0]), leader);
        let batch = one(&mut outbox);
        outbox.add(ended("a", 7), partitions(&[0, 10]), leader);
        outbox.answered(batch, |_, _| Written::NotYet);
        assert!(!outbox.has_delayed(), "the new request has the partition");
        let again = outbox.take_batches(NOW);
        assert_eq!(summary(&again), [(1, vec![(7, vec![0])]), (2, vec![(7, vec![10])])]);
    }

    #[test]
    fn batches_are_bounded() {
        let mut outbox = Outbox::default();
        let many: Vec<i32> = (0..PARTITIONS_PER_REQUEST as i32 + 1).collect();
        outbox.add(ended("a", 7), partitions(&many), |_| Destination::Broker(1));
        let first = one(&mut outbox);
        assert_eq!(first.markers[0].partitions.len(), PARTITIONS_PER_REQUEST);
        outbox.answered(first, |_, _| Written::Yes);
        assert_eq!(one(&mut outbox).markers[0].partitions.len(), 1);
    }
}
