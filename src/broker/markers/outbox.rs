//! [`Outbox`]: the markers that are still to be written, by the broker that leads their partition.
//! It does not send: callers take batches and report the answers.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    mem,
    sync::Arc,
};

use crate::{base::TopicPartition, coordinator::txn::messages::MarkersWritten, records::TxnMarker};

/// The most partitions of one WriteTxnMarkers request.
const PARTITIONS_PER_REQUEST: usize = 5_000;

/// Where a marker must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Broker(i32),
    /// The partition has no leader now, or its leader is fenced.
    NoLeader,
    /// The topic was deleted, so nobody reads the marker.
    Deleted,
}

/// The result of writing one marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Yes,
    /// The marker is to be sent again, to the partition's leader at that time.
    NotYet,
    /// Another coordinator has ended the transaction, or a later one.
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
    work: Key,
    serial: u64,
    pub marker: TxnMarker,
    pub partitions: Vec<TopicPartition>,
}

/// The markers of one request.
#[derive(Debug)]
pub struct Batch {
    pub broker: i32,
    pub markers: Vec<BatchMarker>,
}

/// A transaction: the partition of `__transaction_state` and the transactional id.
type Key = (i32, Arc<str>);

struct Work {
    /// Tells the work from earlier work for the same transactional id.
    serial: u64,
    ended: EndedTxn,
    /// The partitions whose marker is not written yet.
    waiting: HashSet<TopicPartition>,
}

struct Item {
    work: Key,
    serial: u64,
    partition: TopicPartition,
}

#[derive(Default)]
struct Queue {
    in_flight: bool,
    items: VecDeque<Item>,
}

#[derive(Default)]
pub struct Outbox {
    last_serial: u64,
    work: HashMap<Key, Work>,
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
        let item = |partition| Item { work: key.clone(), serial, partition };
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
        let mut deleted = Vec::new();
        for item in items {
            if !self.is_wanted(&item.work, item.serial, &item.partition) {
                continue;
            }
            match destination(&item.partition) {
                Destination::Broker(broker) => {
                    self.queues.entry(broker).or_default().items.push_back(item);
                }
                Destination::NoLeader => self.delayed.push(item),
                Destination::Deleted => deleted.push(item),
            }
        }
        for Item { work, partition, .. } in deleted {
            self.written(&work, vec![partition]);
        }
    }

    fn is_wanted(&self, key: &Key, serial: u64, partition: &TopicPartition) -> bool {
        let work = self.work.get(key).filter(|work| work.serial == serial);
        work.is_some_and(|work| work.waiting.contains(partition))
    }

    /// Takes a batch for each broker that has none in flight. Each must be handed back to
    /// [`Self::answered`].
    pub fn take_batches(&mut self) -> Vec<Batch> {
        let mut batches = Vec::new();
        let idle = self.queues.iter().filter(|(_, queue)| !queue.in_flight);
        let idle: Vec<i32> = idle.map(|(broker, _)| *broker).collect();
        for broker in idle {
            let markers = self.take_markers(broker);
            match markers.is_empty() {
                true => {
                    self.queues.remove(&broker);
                }
                false => {
                    self.queues.entry(broker).or_default().in_flight = true;
                    batches.push(Batch { broker, markers });
                }
            }
        }
        batches
    }

    fn take_markers(&mut self, broker: i32) -> Vec<BatchMarker> {
        let Some(queue) = self.queues.get_mut(&broker) else { return Vec::new() };
        let count = queue.items.len().min(PARTITIONS_PER_REQUEST);
        let items: Vec<Item> = queue.items.drain(..count).collect();
        let mut markers: Vec<BatchMarker> = Vec::new();
        let mut places: HashMap<Key, usize> = HashMap::new();
        for Item { work: key, serial, partition } in items {
            if !self.is_wanted(&key, serial, &partition) {
                continue;
            }
            let place = *places.entry(key.clone()).or_insert(markers.len());
            if place == markers.len() {
                let marker = self.work[&key].ended.marker;
                markers.push(BatchMarker { work: key, serial, marker, partitions: Vec::new() });
            }
            markers[place].partitions.push(partition);
        }
        markers
    }

    /// Applies the result of each marker of a batch. `written` returns that of a partition.
    pub fn answered(
        &mut self,
        batch: Batch,
        written: impl Fn(&TxnMarker, &TopicPartition) -> Written,
    ) {
        if let Some(queue) = self.queues.get_mut(&batch.broker) {
            queue.in_flight = false;
        }
        for BatchMarker { work: key, serial, marker, partitions } in batch.markers {
            let mut done = Vec::new();
            for partition in partitions {
                if !self.is_wanted(&key, serial, &partition) {
                    continue;
                }
                match written(&marker, &partition) {
                    Written::Yes => done.push(partition),
                    Written::NotYet => {
                        self.delayed.push(Item { work: key.clone(), serial, partition });
                    }
                    Written::Fenced => {
                        self.work.remove(&key);
                    }
                }
            }
            self.written(&key, done);
        }
    }

    /// Notes that partitions have the marker of a transaction, or need none.
    fn written(&mut self, key: &Key, partitions: Vec<TopicPartition>) {
        let Some(work) = self.work.get_mut(key) else { return };
        if partitions.is_empty() {
            return;
        }
        work.waiting.retain(|partition| !partitions.contains(partition));
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
