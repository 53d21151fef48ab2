//! Named points of a transaction: the stages that its records and markers go through, and the node
//! that fails at one of them. The stages are observed in the logs of leaders.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sordini::{
    base::TopicPartition,
    broker::Broker,
    coordinator::{
        OFFSETS_TOPIC, TRANSACTIONS_TOPIC,
        txn::{Record, state::TxnState},
    },
    log::LogView,
    partition::{Role, View},
    records::Batch,
};

use crate::{
    admin::TOPICS,
    history::Place,
    machines::{Machines, transaction_partition},
    random::Rng,
    transactions::RECORDS_MAX,
    wire::MachineId,
};

/// A stage of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The record with its first partitions is committed.
    PartitionsAdded,
    /// A partition has its first batch.
    FirstBatchAppended,
    /// Its Prepare record is appended, but not committed.
    PrepareAppended,
    /// Its Prepare record is committed, and no partition has a marker.
    PrepareCommitted,
    /// Some partitions have a marker, and others do not.
    SomeMarkersAppended,
    /// All partitions have a marker, and the Complete record is not appended.
    AllMarkersAppended,
}

/// The node that fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The leader of the transaction's partition of `__transaction_state`.
    Coordinator,
    /// The leader of a partition that the transaction writes to.
    PartitionLeader,
    /// The active controller.
    Controller,
}

/// A named point.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub target: Target,
    pub stage: Stage,
}

impl Point {
    /// A point at which a coordinator has sent markers that may not have arrived.
    pub fn with_markers_in_flight(rng: &mut Rng) -> Self {
        let stages = [Stage::PrepareCommitted, Stage::SomeMarkersAppended];
        Self { target: Target::Coordinator, stage: stages[rng.between(0, 1) as usize] }
    }

    pub fn random(rng: &mut Rng) -> Self {
        use Stage::*;
        let stages = [
            PartitionsAdded,
            FirstBatchAppended,
            PrepareAppended,
            PrepareCommitted,
            SomeMarkersAppended,
            AllMarkersAppended,
        ];
        let targets = [Target::Coordinator, Target::PartitionLeader, Target::Controller];
        let stage = stages[rng.between(0, stages.len() as u64 - 1) as usize];
        Self { target: targets[rng.between(0, targets.len() as u64 - 1) as usize], stage }
    }
}

/// A transaction whose records have been observed from its begin on.
struct Observed {
    producer_id: i64,
    partitions: BTreeSet<Place>,
    /// The offset of the record with its newest partitions.
    added_at: i64,
    /// The offset of its Prepare record.
    prepared_at: Option<i64>,
    /// The high watermark of its partition of `__transaction_state`.
    high_watermark: i64,
    has_batch: bool,
    marked: BTreeSet<Place>,
}

impl Observed {
    fn is_at(&self, stage: Stage) -> bool {
        let is_committed = |offset: i64| offset < self.high_watermark;
        let is_prepared = self.prepared_at.is_some_and(is_committed);
        let (marked, partitions) = (self.marked.len(), self.partitions.len());
        match stage {
            Stage::PartitionsAdded => self.prepared_at.is_none() && is_committed(self.added_at),
            Stage::FirstBatchAppended => self.prepared_at.is_none() && self.has_batch,
            Stage::PrepareAppended => self.prepared_at.is_some() && !is_prepared,
            Stage::PrepareCommitted => is_prepared && marked == 0 && partitions > 0,
            Stage::SomeMarkersAppended => marked > 0 && marked < partitions,
            Stage::AllMarkersAppended => marked > 0 && marked == partitions,
        }
    }
}

/// Observes transactions until one is at a stage.
pub struct Watch {
    point: Point,
    /// For each partition, the offset up to which its leader's log has been read.
    ends: BTreeMap<Place, i64>,
    /// The transactions that have begun since the start of the watch, by transactional id.
    observed: BTreeMap<Arc<str>, Observed>,
}

impl Watch {
    pub fn new(point: Point) -> Self {
        Self { point, ends: BTreeMap::new(), observed: BTreeMap::new() }
    }

    /// Reads what leaders have appended since the last call. Returns the node that is to fail and the
    /// transactional id if a transaction is at the stage now.
    pub fn step(&mut self, machines: &Machines) -> Option<(MachineId, String)> {
        for node in &machines.nodes {
            let Some(broker) = node.broker().filter(|it| it.serves()) else { continue };
            for (place, view) in led(broker) {
                // The first call only notes where the logs end.
                let end = view.log.log_end();
                let from = self.ends.insert(place.clone(), end).unwrap_or(end);
                match place.0 == TRANSACTIONS_TOPIC {
                    true => self.read_states(place.1, &view, from),
                    false => self.read_batches(&place, &view.log, from),
                }
            }
        }
        let mut observed = self.observed.iter();
        let (id, observed) = observed.find(|(_, observed)| observed.is_at(self.point.stage))?;
        Some((self.target(machines, id, observed)?, id.to_string()))
    }

    fn target(&self, machines: &Machines, id: &str, observed: &Observed) -> Option<MachineId> {
        let place = match self.point.target {
            Target::Coordinator => (TRANSACTIONS_TOPIC.to_owned(), transaction_partition(id)),
            // A partition without a marker, if there is one.
            Target::PartitionLeader => {
                let mut without = observed.partitions.difference(&observed.marked);
                without.next().or_else(|| observed.partitions.first())?.clone()
            }
            Target::Controller => {
                return machines.quorum_leader().map(|(leader, _)| leader as usize - 1);
            }
        };
        let leads = |broker: &Arc<Broker>| led(broker).any(|(it, _)| it == place);
        machines.nodes.iter().position(|node| node.broker().is_some_and(leads))
    }

    fn read_states(&mut self, partition: i32, view: &View, from: i64) {
        for (offset, record) in records(&view.log, from) {
            let Record::State { id, value, .. } = record else { continue };
            let place = |it: &TopicPartition| (it.topic.to_string(), it.partition);
            match value.state {
                TxnState::Ongoing => {
                    let observed = self.observed.entry(id).or_insert_with(|| Observed {
                        producer_id: value.producer.id,
                        partitions: BTreeSet::new(),
                        added_at: offset,
                        prepared_at: None,
                        high_watermark: 0,
                        has_batch: false,
                        marked: BTreeSet::new(),
                    });
                    observed.partitions = value.partitions.iter().map(place).collect();
                    observed.added_at = offset;
                }
                TxnState::PrepareCommit | TxnState::PrepareAbort => {
                    if let Some(observed) = self.observed.get_mut(&id) {
                        observed.prepared_at = Some(offset);
                    }
                }
                TxnState::Empty | TxnState::CompleteCommit | TxnState::CompleteAbort => {
                    self.observed.remove(&id);
                }
            }
        }
        for (id, observed) in &mut self.observed {
            if transaction_partition(id) == partition {
                observed.high_watermark = view.high_watermark;
            }
        }
    }

    fn read_batches(&mut self, place: &Place, log: &LogView, from: i64) {
        for batch in batches(log, from) {
            let header = &batch.header;
            let mut observed = self.observed.values_mut();
            let Some(observed) = observed.find(|it| it.producer_id == header.producer_id) else {
                continue;
            };
            match header.is_control() {
                true => drop(observed.marked.insert(place.clone())),
                false => observed.has_batch = true,
            }
        }
    }
}

/// The partitions of transactions that a broker leads.
fn led(broker: &Broker) -> impl Iterator<Item = (Place, Arc<View>)> {
    let partitions = broker.replicas.partitions.partitions().into_iter();
    partitions.filter_map(|partition| {
        let view = partition.view();
        let topic = &*partition.id.topic;
        let has_transactions = TOPICS.iter().any(|(name, _)| *name == topic)
            || [TRANSACTIONS_TOPIC, OFFSETS_TOPIC].contains(&topic);
        let leads = matches!(view.role, Role::Leader { .. });
        let place = (topic.to_owned(), partition.id.partition);
        (has_transactions && leads).then_some((place, view))
    })
}

fn batches(log: &LogView, from: i64) -> impl Iterator<Item = Batch> {
    let count = if from < log.log_end() { usize::MAX } else { 0 };
    log.batches_from(from).take(count).map_while(Result::ok)
}

/// The records of `__transaction_state` with their offsets.
fn records(log: &LogView, from: i64) -> Vec<(i64, Record)> {
    let mut found = Vec::new();
    for batch in batches(log, from) {
        for record in batch.records(RECORDS_MAX).into_iter().flatten().flatten() {
            let Some(key) = record.key else { continue };
            found.push((record.offset, Record::decode(key, record.value)));
        }
    }
    found
}
