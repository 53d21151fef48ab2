//! The transactions that are open while the batches of a log pass by (Kafka's
//! `CleanedTransactionMetadata`).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::ProblemReason;
use crate::{
    log::AbortedTxn,
    records::{Batch, ControlRecordType},
};

/// Follows the transactions of a log. Batches must be passed in the order of their offsets.
#[derive(Debug, Default)]
pub struct Transactions {
    /// Aborted transactions that begin after the last batch, by first offset and producer id.
    ahead: BTreeMap<(i64, i64), AbortedTxn>,
    /// The aborted transaction of each producer that has begun.
    aborted: HashMap<i64, Aborted>,
    /// The producers with an open transaction that is not aborted.
    committed: HashSet<i64>,
    /// Aborted transactions whose batches and marker have passed.
    complete: Vec<AbortedTxn>,
}

/// An aborted transaction whose marker has not passed.
#[derive(Debug)]
struct Aborted {
    txn: AbortedTxn,
    /// Whether one of its batches has passed.
    has_batch: bool,
}

impl Transactions {
    /// Adds aborted transactions that overlap the batches that follow. A transaction may be added
    /// again until its marker has passed.
    pub fn add_aborted(&mut self, aborted: &[AbortedTxn]) {
        self.ahead.extend(aborted.iter().map(|txn| ((txn.first_offset, txn.producer_id), *txn)));
    }

    /// Passes a batch that is not a control batch. Returns whether its transaction was aborted.
    pub fn pass_data(&mut self, batch: &Batch) -> bool {
        let header = &batch.header;
        self.begin_aborted(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            Some(aborted) => {
                aborted.has_batch = true;
                true
            }
            None => {
                self.committed.insert(header.producer_id);
                false
            }
        }
    }

    /// Passes a control batch. Returns whether it is the marker of a transaction of which no batch
    /// has passed, or has no record.
    pub fn pass_control(&mut self, batch: &Batch) -> Result<bool, ProblemReason> {
        let header = &batch.header;
        self.begin_aborted(header.last_offset());
        match control_type(batch)? {
            None => Ok(true),
            Some(ControlRecordType::Abort) => match self.aborted.remove(&header.producer_id) {
                Some(Aborted { txn, has_batch: true }) => {
                    self.complete.push(txn);
                    Ok(false)
                }
                _ => Ok(true),
            },
            Some(ControlRecordType::Commit) => Ok(!self.committed.remove(&header.producer_id)),
            Some(_) => Ok(false),
        }
    }

    /// Returns the aborted transactions whose markers have passed since the last call, in the order
    /// of their markers. Those of which no batch has passed are left out.
    pub fn take_complete(&mut self) -> Vec<AbortedTxn> {
        std::mem::take(&mut self.complete)
    }

    /// Begins the aborted transactions whose first offset is at or before `offset`, except if the
    /// producer has one whose marker has not passed.
    fn begin_aborted(&mut self, offset: i64) {
        while let Some(next) = self.ahead.first_entry().filter(|next| next.key().0 <= offset) {
            let txn = next.remove();
            self.aborted.entry(txn.producer_id).or_insert(Aborted { txn, has_batch: false });
        }
    }
}

/// Reads the type of a control batch's record; `None` if compaction has removed the record.
fn control_type(batch: &Batch) -> Result<Option<ControlRecordType>, ProblemReason> {
    let Some(record) = batch.control_record()? else { return Ok(None) };
    let key = record.key.ok_or(ProblemReason::NoControlKey)?;
    Ok(Some(ControlRecordType::from_key(&key)?))
}
