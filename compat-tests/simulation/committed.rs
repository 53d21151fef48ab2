//! The committed log of a partition, which every later leader must have.

use std::collections::BTreeMap;

use sordini::{log::LogView, records::Batch};

use crate::{
    compacted::Compacted,
    consumer_groups::ConsumerGroups,
    history::{Acked, Place, Read},
    transactions::Transactions,
};

/// The checks of what committed batches say.
#[derive(Default)]
pub struct Contents {
    pub transactions: Transactions,
    pub consumer_groups: ConsumerGroups,
}

impl Contents {
    fn note(&mut self, place: &Place, batch: &Batch, values: &[String]) -> Result<(), String> {
        self.transactions.note(place, batch, values)?;
        self.consumer_groups.note(place, batch)
    }
}

/// A committed batch.
struct Entry {
    base_offset: i64,
    last_offset: i64,
    leader_epoch: i32,
    crc: u32,
    values: Vec<String>,
    /// The leader epoch in which it was first committed.
    committed_in: i32,
}

/// The committed log of a partition.
#[derive(Default)]
pub struct Committed {
    entries: Vec<Entry>,
    pub end: i64,
    /// The last record number of each producer.
    last: BTreeMap<String, u64>,
    /// The batches of an internal topic, which is compacted.
    compacted: Compacted,
}

fn is_compacted(place: &Place) -> bool {
    place.0.starts_with("__")
}

impl Committed {
    /// Adds the batches of a replica up to its high watermark, and notes them for the checks of
    /// their contents.
    pub fn extend(
        &mut self,
        place: &Place,
        log: &LogView,
        high_watermark: i64,
        committed_in: i32,
        contents: &mut Contents,
    ) -> Result<(), String> {
        if high_watermark <= self.end {
            return Ok(());
        }
        for batch in log.batches_from(self.end) {
            let batch = batch.map_err(|error| format!("{place:?} cannot be read: {error}"))?;
            let header = &batch.header;
            if header.last_offset() >= high_watermark {
                break;
            }
            if header.base_offset != self.end {
                let at = header.base_offset;
                return Err(format!("{place:?}: a batch at {at} follows after {}", self.end));
            }
            let values = values(&batch)?;
            if is_compacted(place) {
                self.compacted.note(&batch)?;
            } else if !header.is_control() {
                self.check_order(place, &values)?;
            }
            contents.note(place, &batch, &values)?;
            self.end = header.last_offset() + 1;
            self.entries.push(Entry {
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
                leader_epoch: header.leader_epoch,
                crc: header.crc,
                values,
                committed_in,
            });
        }
        Ok(())
    }

    /// Checks that the numbers of each idempotent producer's records are complete and in order.
    fn check_order(&mut self, place: &Place, values: &[String]) -> Result<(), String> {
        for value in values {
            let Some((producer, number)) = value.split_once(':') else {
                return Err(format!("{place:?}: no producer sent {value:?}"));
            };
            let number: u64 = number.parse().map_err(|_| format!("no producer sent {value:?}"))?;
            let before = self.last.insert(producer.to_owned(), number);
            let is_next = before.map_or(number == 0, |before| number == before + 1);
            if producer.starts_with("idempotent") && !is_next {
                return Err(format!("{place:?}: {value} comes after {before:?}"));
            }
        }
        Ok(())
    }

    /// The offset after the batch whose first value is `first`, if that batch is committed.
    pub fn end_of(&self, first: &str) -> Option<i64> {
        let mut newest = self.entries.iter().rev();
        let entry = newest.find(|it| it.values.first().is_some_and(|value| value == first))?;
        Some(entry.last_offset + 1)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Checks that a replica's log has the first run of entries from `from` on for which `is_asked`
    /// is true.
    fn check(
        &self,
        place: &Place,
        log: &LogView,
        from: usize,
        is_asked: impl Fn(&Entry) -> bool,
    ) -> Result<(), String> {
        let Some(first) = self.entries[from..].iter().position(&is_asked) else { return Ok(()) };
        if is_compacted(place) {
            let asked = self.entries[from + first..].iter().take_while(|it| is_asked(it));
            let end = asked.last().map_or(0, |last| last.last_offset + 1);
            return self.compacted.check(place, log, self.entries[from + first].base_offset, end);
        }
        let mut entries = self.entries[from + first..].iter();
        for batch in log.batches_from(self.entries[from + first].base_offset) {
            let batch = batch.map_err(|error| format!("{place:?} cannot be read: {error}"))?;
            let Some(entry) = entries.next().filter(|it| is_asked(it)) else { return Ok(()) };
            let header = &batch.header;
            let found = (header.base_offset, header.leader_epoch, header.crc);
            let known = (entry.base_offset, entry.leader_epoch, entry.crc);
            if found != known {
                return Err(format!("{place:?}: {found:?} is where {known:?} was committed"));
            }
        }
        match entries.next().filter(|it| is_asked(it)) {
            None => Ok(()),
            Some(missing) => Err(format!(
                "{place:?}: the log ends at {}, but {}..={} was committed in epoch {}: {:?}",
                log.log_end(),
                missing.base_offset,
                missing.last_offset,
                missing.committed_in,
                missing.values,
            )),
        }
    }

    /// Checks that a leader has everything that was committed in epochs before its own.
    pub fn check_leader(
        &self,
        place: &Place,
        log: &LogView,
        from: usize,
        epoch: i32,
    ) -> Result<(), String> {
        self.check(place, log, from, |entry| entry.committed_in < epoch)
    }

    /// Checks that a replica's log between its former and its new high watermark is what was
    /// committed.
    pub fn check_prefix(
        &self,
        place: &Place,
        log: &LogView,
        (from, high_watermark): (i64, i64),
    ) -> Result<(), String> {
        let first = self.entries.partition_point(|it| it.last_offset < from);
        self.check(place, log, first, |entry| entry.last_offset < high_watermark)
    }

    pub fn check_acked(&self, acked: &Acked) -> Result<(), String> {
        let Acked { place, base_offset, values } = acked;
        let last = base_offset + values.len() as i64 - 1;
        if last >= self.end {
            return Err(format!(
                "{place:?}: {values:?} is acknowledged at {base_offset}, but only what is before \
                 {} is committed",
                self.end
            ));
        }
        let at = self.entries.partition_point(|it| it.last_offset < *base_offset);
        let entry = &self.entries[at];
        match entry.base_offset == *base_offset && entry.values == *values {
            true => Ok(()),
            false => Err(format!(
                "{place:?}: {values:?} is acknowledged at {base_offset}, where {:?} is",
                entry.values
            )),
        }
    }

    pub fn check_read(&self, read: &Read) -> Result<(), String> {
        let Read { place, base_offset, last_offset, crc } = read;
        let at = self.entries.partition_point(|it| it.last_offset < *base_offset);
        let known = self.entries.get(at).map(|it| (it.base_offset, it.last_offset, it.crc));
        match known == Some((*base_offset, *last_offset, *crc)) {
            true => Ok(()),
            false => Err(format!(
                "{place:?}: {base_offset}..={last_offset} ({crc:08x}) was read, but {known:x?} is \
                 committed"
            )),
        }
    }
}

fn values(batch: &Batch) -> Result<Vec<String>, String> {
    let records = batch.records(1 << 20).map_err(|error| error.to_string())?;
    let value = |record: Result<sordini::records::Record, _>| {
        let record = record.map_err(|error: sordini::records::RecordError| error.to_string())?;
        Ok(String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned())
    };
    records.map(value).collect()
}
