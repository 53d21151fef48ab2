//! Reading the marker of a transaction from its batch.

use crate::records::{Batch, ControlRecordType, control::EndTxnMarker};

/// The content of a transaction marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    pub aborts: bool,
    pub coordinator_epoch: i32,
    /// Timestamp of the record, which may differ from that in the batch header.
    pub timestamp: i64,
}

/// The error for a control batch with a producer id whose record is not a transaction marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMarker;

impl Marker {
    /// Reads the marker of a control batch; `None` if compaction has removed its record.
    pub fn of(batch: &Batch) -> Result<Option<Self>, NoMarker> {
        let record = batch.control_record().map_err(|_| NoMarker)?;
        let Some(record) = record else { return Ok(None) };
        let (key, value) = (record.key.ok_or(NoMarker)?, record.value.ok_or(NoMarker)?);
        let aborts = match ControlRecordType::from_key(&key) {
            Ok(ControlRecordType::Abort) => true,
            Ok(ControlRecordType::Commit) => false,
            _ => return Err(NoMarker),
        };
        let value = EndTxnMarker::from_value(&value).map_err(|_| NoMarker)?;
        let (coordinator_epoch, timestamp) = (value.coordinator_epoch, record.timestamp);
        Ok(Some(Self { aborts, coordinator_epoch, timestamp }))
    }
}
