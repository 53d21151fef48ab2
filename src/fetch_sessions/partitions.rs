//! [`Partitions`]: the partitions of a fetch or of a session, in the order in which they are read.

use std::{collections::HashMap, sync::Arc};

use crate::base::TopicId;

/// The request for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRequest {
    /// The topic name. `None` while this broker's metadata has no topic with this id.
    pub topic: Option<Arc<str>>,
    /// The topic id. Nil before version 13.
    pub topic_id: TopicId,
    pub partition: i32,
    pub fetch_offset: i64,
    /// The fetching follower's log start offset; -1 from a consumer.
    pub log_start_offset: i64,
    pub max_bytes: i32,
    /// -1 for none.
    pub current_leader_epoch: i32,
    /// -1 for none.
    pub last_fetched_epoch: i32,
}

/// A partition with the offsets of its last response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPartition {
    pub request: PartitionRequest,
    /// The last high watermark that was sent. It is -1 before the first response and after an
    /// error, so that the partition is in the next response.
    pub(super) high_watermark: i64,
    pub(super) log_start_offset: i64,
}

/// The topic in a key. A topic with an id has no name in its key, because the name may not be known
/// yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Topic {
    Id(TopicId),
    Name(Arc<str>),
}

type Key = (Topic, i32);

fn key(topic_id: TopicId, topic: Option<&Arc<str>>, partition: i32) -> Key {
    match topic {
        Some(name) if topic_id.is_nil() => (Topic::Name(name.clone()), partition),
        _ => (Topic::Id(topic_id), partition),
    }
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Slot {
    partition: SessionPartition,
    next: u32,
    previous: u32,
}

/// A set of partitions in a changeable order: a linked list in a vector, with an index. Partitions
/// whose records were sent move to the end, so that the others are read first; this takes constant
/// time.
#[derive(Debug, Clone)]
pub struct Partitions {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashMap<Key, u32>,
    first: u32,
    last: u32,
    /// The number of partitions without a topic name.
    unresolved: usize,
}

impl Partitions {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            slots: Vec::with_capacity(capacity),
            free: Vec::new(),
            index: HashMap::with_capacity(capacity),
            first: NONE,
            last: NONE,
            unresolved: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The partitions in the order in which they are read.
    pub fn iter(&self) -> impl Iterator<Item = &SessionPartition> {
        self.slots_in_order().map(|(_, partition)| partition)
    }

    pub(super) fn slots_in_order(&self) -> impl Iterator<Item = (u32, &SessionPartition)> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            let slot = self.slots.get(at as usize)?;
            Some((std::mem::replace(&mut at, slot.next), &slot.partition))
        })
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut SessionPartition {
        &mut self.slots[slot as usize].partition
    }

    /// Adds a partition at the end. If it exists already, replaces its request and keeps its place.
    pub(super) fn insert(&mut self, request: PartitionRequest) {
        let key = key(request.topic_id, request.topic.as_ref(), request.partition);
        if let Some(slot) = self.index.get(&key) {
            let known = &mut self.slots[*slot as usize].partition.request;
            let topic = known.topic.take();
            *known = PartitionRequest { topic: topic.clone().or(request.topic.clone()), ..request };
            if topic.is_none() && known.topic.is_some() {
                self.unresolved -= 1;
            }
            return;
        }
        self.unresolved += usize::from(request.topic.is_none());
        let partition = SessionPartition { request, high_watermark: -1, log_start_offset: -1 };
        let slot = self.occupy(Slot { partition, next: NONE, previous: NONE });
        self.link_last(slot);
        self.index.insert(key, slot);
    }

    pub(super) fn remove(&mut self, topic_id: TopicId, topic: Option<&Arc<str>>, partition: i32) {
        let Some(slot) = self.index.remove(&key(topic_id, topic, partition)) else { return };
        self.unlink(slot);
        let was = &mut self.slots[slot as usize].partition.request;
        match was.topic.take() {
            Some(_) => {}
            None => self.unresolved -= 1,
        }
        self.free.push(slot);
    }

    pub(super) fn move_to_end(&mut self, slot: u32) {
        self.unlink(slot);
        self.link_last(slot);
    }

    pub(super) fn has_unresolved(&self) -> bool {
        self.unresolved > 0
    }

    /// Looks up the names of topics that are still unknown.
    pub(super) fn resolve(&mut self, name_of: &dyn Fn(TopicId) -> Option<Arc<str>>) {
        let mut at = self.first;
        while let Some(slot) = self.slots.get_mut(at as usize) {
            at = slot.next;
            let request = &mut slot.partition.request;
            if request.topic.is_none() {
                request.topic = name_of(request.topic_id);
                self.unresolved -= usize::from(request.topic.is_some());
            }
        }
    }

    fn occupy(&mut self, slot: Slot) -> u32 {
        if let Some(free) = self.free.pop() {
            self.slots[free as usize] = slot;
            return free;
        }
        self.slots.push(slot);
        (self.slots.len() - 1) as u32
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { next, previous, .. } = self.slots[slot as usize];
        match self.slots.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => self.first = next,
        }
        match self.slots.get_mut(next as usize) {
            Some(next) => next.previous = previous,
            None => self.last = previous,
        }
    }

    fn link_last(&mut self, slot: u32) {
        let last = self.last;
        (self.slots[slot as usize].previous, self.slots[slot as usize].next) = (last, NONE);
        match self.slots.get_mut(last as usize) {
            Some(last) => last.next = slot,
            None => self.first = slot,
        }
        self.last = slot;
    }
}
