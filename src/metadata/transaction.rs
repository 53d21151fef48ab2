//! Metadata transactions (KIP-868): the records of a transaction are applied together when it ends,
//! and dropped if it is aborted.

use super::MetadataRecord;

/// Holds back the records of an open transaction.
#[derive(Debug, Default, Clone)]
pub struct TransactionFilter {
    open: Option<Vec<MetadataRecord>>,
}

impl TransactionFilter {
    /// Whether a transaction has begun and has neither ended nor been aborted.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Reads the next record of the log, and calls `take` for each record that is to be applied
    /// now, in order. At the end of a transaction, these are all of its records.
    pub fn pass(&mut self, record: MetadataRecord, mut take: impl FnMut(MetadataRecord)) {
        match (record, self.open.as_mut()) {
            (MetadataRecord::BeginTransaction(_), _) => self.open = Some(Vec::new()),
            (MetadataRecord::AbortTransaction(_), _) => self.open = None,
            (MetadataRecord::EndTransaction(_), _) => {
                self.open.take().into_iter().flatten().for_each(take);
            }
            (record, Some(held)) => held.push(record),
            (record, None) => take(record),
        }
    }
}
