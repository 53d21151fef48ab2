//! What compaction may remove from the committed log of an internal topic: a record with a later
//! one of the same key, and a record of an aborted transaction. Tombstones and markers stay longer
//! than any run takes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sordini::{
    log::LogView,
    records::{Batch, ControlRecordType, Record},
};

use crate::history::Place;

type Key = Vec<u8>;
/// Key and value of records, by offset.
type Records = BTreeMap<i64, (Key, Option<Vec<u8>>)>;

/// A committed batch as it was before any compaction.
struct Original {
    last_offset: i64,
    leader_epoch: i32,
    records: Records,
}

/// The committed batches of a compacted partition.
#[derive(Default)]
pub struct Compacted {
    /// By base offset.
    batches: BTreeMap<i64, Original>,
    /// The base offsets of the batches of each producer's open transaction.
    open: HashMap<i64, Vec<i64>>,
    /// The base offsets of the batches of aborted transactions.
    aborted: BTreeSet<i64>,
    /// The offset of the last record of each key that belongs to no open or aborted transaction.
    last: HashMap<Key, i64>,
}

impl Compacted {
    /// Adds a committed batch. Batches must be added in the order of their offsets.
    pub fn note(&mut self, batch: &Batch) -> Result<(), String> {
        let header = &batch.header;
        let base_offset = header.base_offset;
        let (last_offset, leader_epoch) = (header.last_offset(), header.leader_epoch);
        let records = records(batch)?;
        let control = header.is_control().then(|| records.values().next().map(|it| it.0.clone()));
        self.batches.insert(base_offset, Original { last_offset, leader_epoch, records });
        match control {
            Some(key) => self.end(header.producer_id, &key.unwrap_or_default()),
            None if header.is_transactional() => {
                self.open.entry(header.producer_id).or_default().push(base_offset);
            }
            None => self.note_last(base_offset),
        }
        Ok(())
    }

    fn end(&mut self, producer_id: i64, key: &[u8]) {
        let commits = ControlRecordType::from_key(key) == Ok(ControlRecordType::Commit);
        for base_offset in self.open.remove(&producer_id).unwrap_or_default() {
            match commits {
                true => self.note_last(base_offset),
                false => drop(self.aborted.insert(base_offset)),
            }
        }
    }

    fn note_last(&mut self, base_offset: i64) {
        for (offset, (key, _)) in &self.batches[&base_offset].records {
            let last = self.last.entry(key.clone()).or_insert(*offset);
            *last = (*last).max(*offset);
        }
    }

    /// Checks that a log has the batches from `from` to before `to`, except for records that
    /// compaction may remove.
    pub fn check(&self, place: &Place, log: &LogView, from: i64, to: i64) -> Result<(), String> {
        let mut found = Records::new();
        for batch in log.batches_from(from) {
            let batch = batch.map_err(|error| format!("{place:?} cannot be read: {error}"))?;
            if batch.header.base_offset >= to {
                break;
            }
            self.check_batch(place, &batch)?;
            found.extend(records(&batch)?);
        }
        if log.log_end() < to {
            let end = log.log_end();
            return Err(format!("{place:?}: the log ends at {end}, but {to} was committed"));
        }
        for (base_offset, original) in self.batches.range(from..to) {
            for (offset, (key, _)) in &original.records {
                let may_go = self.aborted.contains(base_offset)
                    || self.last.get(key).is_some_and(|last| last > offset);
                if !may_go && !found.contains_key(offset) {
                    return Err(format!(
                        "{place:?}: compaction has removed the last record of its key at {offset}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Checks that a batch has no record that its original does not have.
    fn check_batch(&self, place: &Place, batch: &Batch) -> Result<(), String> {
        let header = &batch.header;
        let original = self.batches.get(&header.base_offset);
        let is_same = original.is_some_and(|it| {
            (it.last_offset, it.leader_epoch) == (header.last_offset(), header.leader_epoch)
        });
        let records = records(batch)?;
        let has = |(offset, record)| original.and_then(|it| it.records.get(offset)) == Some(record);
        match is_same && records.iter().all(has) {
            true => Ok(()),
            false => Err(format!(
                "{place:?}: {}..={} of epoch {} is not what was committed",
                header.base_offset,
                header.last_offset(),
                header.leader_epoch
            )),
        }
    }
}

fn records(batch: &Batch) -> Result<Records, String> {
    let records = batch.records(1 << 20).map_err(|error| error.to_string())?;
    let keyed = |record: Result<Record, sordini::records::RecordError>| {
        let record = record.map_err(|error| error.to_string())?;
        let key = record.key.map(|key| key.to_vec()).unwrap_or_default();
        Ok((record.offset, (key, record.value.map(|value| value.to_vec()))))
    };
    records.map(keyed).collect()
}
