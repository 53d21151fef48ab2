//! Metadata transactions (KIP-868): the records between a begin and its end count only when the
//! end has come, and not at all when they are aborted.

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

    /// The records that count now that `record` has come, in order.
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
