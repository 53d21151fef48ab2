//! The checks of transactions, by the committed records of all partitions:
//!
//! - A marker that ends records follows a committed Prepare record of the same producer, and ends
//!   the transaction that the record is about. Once a Complete record is committed, each partition
//!   has the marker.
//! - A transaction has the same outcome in each of its partitions. It is committed only if its
//!   worker requested that, and with all its records and its offset. It is aborted only with a
//!   reason.
//! - The committed transactions of a worker have each input once, in order.
//! - EndTxn is answered once its record is committed.
//! - A read_committed reader delivers exactly the records that no aborted transaction has. The last
//!   stable offset never passes an open transaction.
//! - The epochs of coordinators in the markers of a producer never fall.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sordini::{
    base::TopicPartition,
    coordinator::{
        OFFSETS_TOPIC, TRANSACTIONS_TOPIC,
        group::records::Record as GroupRecord,
        txn::{Record as TransactionRecord, state::TxnState},
    },
    records::{Batch, ControlRecordType, Producer, control::EndTxnMarker},
};

use crate::history::{CommittedRead, History, Place, Transaction};

/// The most bytes of a batch's records.
pub const RECORDS_MAX: usize = 1 << 20;

/// The state of a committed batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BatchState {
    /// In no transaction.
    Plain,
    Marker,
    /// In a transaction without a committed marker.
    Open,
    Committed,
    Aborted,
}

/// What a committed batch has.
enum Content {
    Plain,
    /// Records of a transaction.
    Values(Producer, Vec<String>),
    /// An offset in a transaction: the metadata names the transaction.
    Offset(Producer, String, i64),
    Marker(Marker),
}

#[derive(Clone, Copy, Debug)]
struct Marker {
    producer: Producer,
    commits: bool,
    coordinator_epoch: i32,
}

/// The records of a transaction in a partition that has no committed marker yet.
struct Open {
    transaction: String,
    base_offsets: Vec<i64>,
    values: Vec<String>,
    offset: Option<i64>,
}

/// The committed records of a partition.
#[derive(Default)]
struct PartitionLog {
    states: BTreeMap<i64, BatchState>,
    /// The open transactions by producer id.
    open: BTreeMap<i64, Open>,
    /// The coordinator epoch of each producer's last marker.
    coordinator_epochs: BTreeMap<i64, i32>,
}

/// A committed Prepare record.
struct Decision {
    producer: Producer,
    commits: bool,
    /// The partitions that have no committed marker yet.
    waiting: BTreeSet<Place>,
}

/// The outcome of a transaction.
struct Outcome {
    commits: bool,
    /// The partitions with the marker.
    places: BTreeSet<Place>,
    has_offset: bool,
}

/// What the checks know of all transactions.
#[derive(Default)]
pub struct Transactions {
    logs: BTreeMap<Place, PartitionLog>,
    /// Batches that were committed in this step, in the order of each partition.
    noted: Vec<(Place, i64, Content)>,
    /// Producer ids whose Complete record was committed in this step.
    completed: Vec<i64>,
    /// The decisions on each producer id that are not complete. There may be several, because a
    /// coordinator decides from records that are not committed yet.
    decisions: BTreeMap<i64, VecDeque<Decision>>,
    /// Number of decisions to commit by the producer of their markers.
    commits: BTreeMap<Producer, u32>,
    /// Number of acknowledged commits by the producer of their markers.
    acknowledged: BTreeMap<Producer, u32>,
    /// Acknowledged transactions that are not complete, by producer id.
    incomplete: BTreeMap<i64, String>,
    outcomes: BTreeMap<String, Outcome>,
    /// The next input of each worker.
    processed: BTreeMap<String, i64>,
}

impl Transactions {
    /// Notes a committed batch of any partition. Those of a partition come in the order of its log.
    pub fn note(&mut self, place: &Place, batch: &Batch, values: &[String]) -> Result<(), String> {
        if place.0 == TRANSACTIONS_TOPIC {
            return self.note_states(batch);
        }
        let header = &batch.header;
        let producer = Producer { id: header.producer_id, epoch: header.producer_epoch };
        let content = match (header.is_control(), header.is_transactional()) {
            (true, _) => Content::Marker(marker(batch, producer)?),
            (false, true) if place.0 == OFFSETS_TOPIC => offset(batch, producer)?,
            (false, true) => Content::Values(producer, values.to_vec()),
            (false, false) => Content::Plain,
        };
        self.noted.push((place.clone(), header.base_offset, content));
        Ok(())
    }

    /// Notes committed records of `__transaction_state`.
    fn note_states(&mut self, batch: &Batch) -> Result<(), String> {
        for record in batch.records(RECORDS_MAX).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let Some(key) = record.key else { continue };
            let TransactionRecord::State { value, .. } =
                TransactionRecord::decode(key, record.value)
            else {
                continue;
            };
            let producer = value.producer;
            match value.state {
                TxnState::PrepareCommit | TxnState::PrepareAbort => {
                    let commits = value.state == TxnState::PrepareCommit;
                    let place = |it: &TopicPartition| (it.topic.to_string(), it.partition);
                    let waiting = value.partitions.iter().map(place).collect();
                    *self.commits.entry(producer).or_default() += u32::from(commits);
                    let decision = Decision { producer, commits, waiting };
                    self.decisions.entry(producer.id).or_default().push_back(decision);
                }
                TxnState::CompleteCommit | TxnState::CompleteAbort => {
                    self.completed.push(producer.id);
                }
                TxnState::Empty | TxnState::Ongoing => {}
            }
        }
        Ok(())
    }

    /// Checks what was committed, and what clients received, since the last call.
    pub fn check(&mut self, history: &mut History) -> Result<(), String> {
        for (place, base_offset, content) in std::mem::take(&mut self.noted) {
            self.check_batch(history, &place, (base_offset, content))?;
        }
        for producer_id in std::mem::take(&mut self.completed) {
            self.check_completed(history, producer_id)?;
        }
        for name in std::mem::take(&mut history.transactions.acknowledged) {
            self.check_acknowledged(history, &name)?;
        }
        for read in std::mem::take(&mut history.transactions.reads) {
            self.check_read(&read)?;
        }
        Ok(())
    }

    fn check_batch(
        &mut self,
        history: &mut History,
        place: &Place,
        (base_offset, content): (i64, Content),
    ) -> Result<(), String> {
        let log = self.logs.entry(place.clone()).or_default();
        let state = match &content {
            Content::Plain => BatchState::Plain,
            Content::Marker(_) => BatchState::Marker,
            Content::Values(..) | Content::Offset(..) => BatchState::Open,
        };
        log.states.insert(base_offset, state);
        let (producer, name, values, offset) = match content {
            Content::Plain => return Ok(()),
            Content::Marker(marker) => return self.check_marker(history, place, marker),
            Content::Values(producer, values) => {
                let name = values.first().and_then(|it| it.split_once(':'));
                let (name, _) = name.ok_or_else(|| format!("no worker sent {values:?}"))?;
                (producer, name.to_owned(), values, None)
            }
            Content::Offset(producer, name, offset) => (producer, name, Vec::new(), Some(offset)),
        };
        let known = history.transactions.transactions.get(&name);
        let known = known.ok_or_else(|| format!("{place:?}: no worker has begun {name}"))?;
        if known.producer != producer {
            let of = known.producer;
            return Err(format!("{place:?}: {producer:?} wrote records of {name}, not {of:?}"));
        }
        if self.outcomes.get(&name).is_some_and(|it| it.places.contains(place)) {
            return Err(format!("{place:?}: records of {name} at {base_offset} after its marker"));
        }
        let new = |name: &str| Open {
            transaction: name.to_owned(),
            base_offsets: Vec::new(),
            values: Vec::new(),
            offset: None,
        };
        let open = log.open.entry(producer.id).or_insert_with(|| new(&name));
        if open.transaction != name {
            let former = &open.transaction;
            return Err(format!("{place:?}: {name} follows {former}, which has no marker"));
        }
        open.base_offsets.push(base_offset);
        open.values.extend(values);
        open.offset = offset.or(open.offset);
        Ok(())
    }

    fn check_marker(
        &mut self,
        history: &mut History,
        place: &Place,
        marker: Marker,
    ) -> Result<(), String> {
        let log = self.logs.entry(place.clone()).or_default();
        let epoch = log.coordinator_epochs.entry(marker.producer.id).or_default();
        if marker.coordinator_epoch < *epoch {
            return Err(format!("{place:?}: {marker:?} after coordinator epoch {epoch}"));
        }
        *epoch = marker.coordinator_epoch;
        let decisions = self.decisions.entry(marker.producer.id).or_default();
        let is_of_marker =
            |it: &Decision| (it.producer, it.commits) == (marker.producer, marker.commits);
        let is_decided = decisions.iter().any(is_of_marker);
        let mut of_marker = decisions.iter_mut().filter(|it| is_of_marker(it));
        if let Some(decision) = of_marker.find(|it| it.waiting.contains(place)) {
            decision.waiting.remove(place);
        }
        // Without open records, the marker is repeated, or the transaction wrote no record here.
        let Some(open) = log.open.remove(&marker.producer.id) else { return Ok(()) };
        let name = &open.transaction;
        if !is_decided {
            return Err(format!("{place:?}: {marker:?} ends {name}, which no coordinator ended"));
        }
        let state = if marker.commits { BatchState::Committed } else { BatchState::Aborted };
        for base_offset in &open.base_offsets {
            log.states.insert(*base_offset, state);
        }
        let known = history.transactions.transactions.get(name).cloned();
        let known = known.ok_or_else(|| format!("no worker has begun {name}"))?;
        match marker.commits {
            true => check_committed(&known, place, &open)?,
            false if known.is_acknowledged => {
                return Err(format!("{place:?}: {name} was committed, and is aborted"));
            }
            false if !known.may_abort => {
                return Err(format!("{place:?}: {name} is aborted without a reason"));
            }
            false => {}
        }
        if let Some(offset) = open.offset.filter(|_| marker.commits) {
            history.transactions.offsets.insert(known.worker.clone(), offset);
        }
        self.note_outcome(name, &known, (place, marker.commits, open.offset.is_some()))
    }

    /// Notes the outcome of a transaction in a partition, which must be that in the others.
    fn note_outcome(
        &mut self,
        name: &str,
        known: &Transaction,
        (place, commits, has_offset): (&Place, bool, bool),
    ) -> Result<(), String> {
        if let Some(outcome) = self.outcomes.get_mut(name) {
            if outcome.commits != commits {
                let others = &outcome.places;
                return Err(format!("{name} is torn: it ends in {place:?} unlike in {others:?}"));
            }
            outcome.places.insert(place.clone());
            outcome.has_offset |= has_offset;
            return Ok(());
        }
        let places = BTreeSet::from([place.clone()]);
        self.outcomes.insert(name.to_owned(), Outcome { commits, places, has_offset });
        if !commits {
            return Ok(());
        }
        let processed = self.processed.entry(known.worker.clone()).or_default();
        let inputs = &known.inputs;
        if inputs.start != *processed {
            let kind = if inputs.start < *processed { "doubled" } else { "lost" };
            return Err(format!("{name} has {inputs:?} after {processed}: inputs are {kind}"));
        }
        *processed = inputs.end;
        Ok(())
    }

    fn check_completed(&mut self, history: &History, producer_id: i64) -> Result<(), String> {
        let decisions = self.decisions.entry(producer_id).or_default();
        let Some(decision) = decisions.pop_front() else { return Ok(()) };
        if !decision.waiting.is_empty() {
            let Decision { producer, commits, waiting } = decision;
            return Err(format!(
                "the transaction of {producer:?} (committed: {commits}) is complete, but {waiting:?} \
                 have no marker"
            ));
        }
        match self.incomplete.remove(&producer_id) {
            Some(name) => self.check_all_places(history, &name),
            None => Ok(()),
        }
    }

    /// Checks that a complete transaction is committed in all its partitions.
    fn check_all_places(&self, history: &History, name: &str) -> Result<(), String> {
        let Some(known) = history.transactions.transactions.get(name) else { return Ok(()) };
        let outcome = self.outcomes.get(name);
        let is_committed =
            |place: &&Place| outcome.is_some_and(|it| it.commits && it.places.contains(*place));
        if let Some(missing) = known.places.iter().find(|place| !is_committed(place)) {
            return Err(format!("{name} was committed, but {missing:?} does not have it"));
        }
        match outcome.is_some_and(|it| it.has_offset) {
            true => Ok(()),
            false => Err(format!("{name} was committed, but its offset is not")),
        }
    }

    fn check_acknowledged(&mut self, history: &History, name: &str) -> Result<(), String> {
        let Some(known) = history.transactions.transactions.get(name) else { return Ok(()) };
        if self.outcomes.get(name).is_some_and(|it| !it.commits) {
            return Err(format!("{name} is aborted, and its commit was acknowledged"));
        }
        let producer = Producer { epoch: known.marker_epoch, ..known.producer };
        let acknowledged = self.acknowledged.entry(producer).or_default();
        *acknowledged += 1;
        if self.commits.get(&producer).is_none_or(|decided| decided < acknowledged) {
            return Err(format!("the commit of {name} is acknowledged, but not committed"));
        }
        if self.decisions.get(&producer.id).is_some_and(|it| !it.is_empty()) {
            self.incomplete.insert(producer.id, name.to_owned());
            return Ok(());
        }
        self.check_all_places(history, name)
    }

    fn check_read(&self, read: &CommittedRead) -> Result<(), String> {
        let CommittedRead { place, last_stable_offset, batches } = read;
        let Some(log) = self.logs.get(place) else { return Ok(()) };
        for (base_offset, is_delivered) in batches {
            let state = log.states.get(base_offset);
            let is_right = match state {
                Some(BatchState::Plain | BatchState::Committed) => *is_delivered,
                Some(BatchState::Marker | BatchState::Aborted) => !is_delivered,
                Some(BatchState::Open) | None => false,
            };
            if !is_right {
                return Err(format!(
                    "{place:?}: {base_offset} is {state:?}, but a read_committed reader received it \
                     (delivered: {is_delivered})"
                ));
            }
        }
        let begin = |open: &Open| open.base_offsets[0];
        match log.open.values().find(|open| begin(open) < *last_stable_offset) {
            None => Ok(()),
            Some(open) => Err(format!(
                "{place:?}: the last stable offset {last_stable_offset} passes {} at {}",
                open.transaction,
                begin(open)
            )),
        }
    }

    /// Number of transactions with a committed marker.
    pub fn ended(&self) -> usize {
        self.outcomes.len()
    }
}

/// Checks what a committed transaction has in a partition.
fn check_committed(known: &Transaction, place: &Place, open: &Open) -> Result<(), String> {
    let name = &open.transaction;
    if !known.may_commit {
        return Err(format!("{place:?}: {name} is committed, and its worker did not commit it"));
    }
    if place.0 == OFFSETS_TOPIC {
        return match open.offset == Some(known.inputs.end) {
            true => Ok(()),
            false => Err(format!("{name} has offset {:?} of {:?}", open.offset, known.inputs)),
        };
    }
    let expected = known.values(name);
    match open.values == expected {
        true => Ok(()),
        false => Err(format!("{place:?}: {:?} is committed, not {expected:?}", open.values)),
    }
}

fn marker(batch: &Batch, producer: Producer) -> Result<Marker, String> {
    let invalid = || format!("the control batch at {} is no marker", batch.header.base_offset);
    let mut records = batch.records(RECORDS_MAX).map_err(|_| invalid())?;
    let record = records.next().and_then(Result::ok).ok_or_else(invalid)?;
    let (key, value) = record.key.zip(record.value).ok_or_else(invalid)?;
    let commits = match ControlRecordType::from_key(&key) {
        Ok(ControlRecordType::Commit) => true,
        Ok(ControlRecordType::Abort) => false,
        _ => return Err(invalid()),
    };
    let EndTxnMarker { coordinator_epoch } =
        EndTxnMarker::from_value(&value).map_err(|_| invalid())?;
    Ok(Marker { producer, commits, coordinator_epoch })
}

/// The offset that a batch of a group's partition has in a transaction.
fn offset(batch: &Batch, producer: Producer) -> Result<Content, String> {
    let invalid = || format!("the batch at {} is no offset commit", batch.header.base_offset);
    let mut records = batch.records(RECORDS_MAX).map_err(|_| invalid())?;
    let record = records.next().and_then(Result::ok).ok_or_else(invalid)?;
    let key = record.key.ok_or_else(invalid)?;
    match GroupRecord::decode(key, record.value) {
        Ok(Some(GroupRecord::Offset { value: Some(value), .. })) => {
            Ok(Content::Offset(producer, value.metadata, value.offset))
        }
        _ => Err(invalid()),
    }
}
