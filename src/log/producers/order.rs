//! The checks of batches and markers against the state of their producer (Kafka's
//! `ProducerAppendInfo`).

use super::{
    entry::{NO_COORDINATOR_EPOCH, NO_EPOCH, ProducerEntry},
    guards::PendingGuard,
};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    records::{BatchHeader, Producer, TxnMarker, Verification, batch::NO_SEQUENCE},
};

/// The result of comparing a batch with the state of its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerCheck {
    Append,
    /// The log already has the batch.
    Duplicate {
        base_offset: i64,
        last_offset: i64,
        timestamp: i64,
    },
}

/// Why the log does not take a batch or marker of a producer.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum ProducerError {
    #[error(
        "epoch {epoch} of producer {producer_id} is smaller than the last seen epoch {current_epoch}"
    )]
    InvalidEpoch { producer_id: i64, epoch: i16, current_epoch: i16 },
    #[error(
        "the marker of producer {producer_id} has epoch {epoch}, which does not follow the last \
        seen epoch {current_epoch}"
    )]
    InvalidMarkerEpoch { producer_id: i64, epoch: i16, current_epoch: i16 },
    #[error(
        "producer {producer_id} sent sequence {sequence} in epoch {epoch} after sequence \
        {current_sequence} in epoch {current_epoch}"
    )]
    OutOfOrderSequence {
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        current_epoch: i16,
        current_sequence: i32,
    },
    #[error(
        "producer {producer_id} sent sequence {sequence} before sequence {lowest_sequence}, whose \
        transaction is not verified yet"
    )]
    AfterUnverified { producer_id: i64, sequence: i32, lowest_sequence: i32 },
    #[error("producer {producer_id} has a transaction open and wrote outside of it")]
    TransactionOpen { producer_id: i64 },
    #[error("a batch of producer {producer_id} belongs to no verified transaction")]
    NotVerified { producer_id: i64 },
    #[error(
        "the marker of producer {producer_id} has coordinator epoch {epoch}, which is smaller than \
        the last seen coordinator epoch {current_epoch}"
    )]
    CoordinatorFenced { producer_id: i64, epoch: i32, current_epoch: i32 },
}

impl ProducerError {
    /// Whether batches are missing before the refused one.
    pub fn is_gap(&self) -> bool {
        match self {
            Self::OutOfOrderSequence {
                epoch, sequence, current_epoch, current_sequence, ..
            } => epoch > current_epoch || sequence.wrapping_sub(*current_sequence) > 0,
            Self::AfterUnverified { .. } => true,
            Self::InvalidEpoch { .. }
            | Self::InvalidMarkerEpoch { .. }
            | Self::TransactionOpen { .. }
            | Self::NotVerified { .. }
            | Self::CoordinatorFenced { .. } => false,
        }
    }
}

/// What the log knows of a producer.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    pub entry: Option<&'a ProducerEntry>,
    pub pending: Option<&'a PendingGuard>,
}

impl Known<'_> {
    fn epoch(&self) -> i16 {
        self.entry.map_or(NO_EPOCH, |entry| entry.epoch)
    }

    fn has_open_transaction(&self, epoch: i16) -> bool {
        self.entry.is_some_and(|entry| entry.has_open_transaction(epoch))
    }

    /// Fails if the producer's last seen epoch is newer.
    pub fn check_epoch(&self, producer: Producer) -> Result<(), ProducerError> {
        let Producer { id: producer_id, epoch } = producer;
        match self.epoch() {
            current_epoch if epoch < current_epoch => {
                Err(ProducerError::InvalidEpoch { producer_id, epoch, current_epoch })
            }
            _ => Ok(()),
        }
    }

    /// Checks that the producer may write in a transaction: it is open, or `verification` allows to
    /// begin it.
    pub fn check_transaction(
        &self,
        producer: Producer,
        verification: Verification,
    ) -> Result<(), ProducerError> {
        self.check_epoch(producer)?;
        let may_begin = match verification {
            Verification::MustBeOpen => false,
            Verification::Guard(guard) => self.pending.is_some_and(|it| it.guard == guard),
            Verification::NotRequired => true,
        };
        match may_begin || self.has_open_transaction(producer.epoch) {
            true => Ok(()),
            false => Err(ProducerError::NotVerified { producer_id: producer.id }),
        }
    }

    /// Whether the producer needs the agreement of its coordinator to write in a transaction. Fails
    /// if its epoch is not the current one.
    pub fn needs_verification(&self, producer: Producer) -> Result<bool, ProducerError> {
        self.check_epoch(producer)?;
        Ok(!self.has_open_transaction(producer.epoch))
    }

    /// Checks that a client's batch follows the last one of its producer. If `requires_zero`, an
    /// unknown producer must begin with sequence 0, because the log never had a record.
    pub fn check_sequence(
        &self,
        header: &BatchHeader,
        requires_zero: bool,
    ) -> Result<(), ProducerError> {
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        self.check_epoch(Producer { id: producer_id, epoch })?;
        let sequence = header.base_sequence;
        if sequence == NO_SEQUENCE || header.is_control() {
            return Ok(());
        }
        if let Some(&PendingGuard { lowest_sequence, .. }) = self.pending
            && sequence > lowest_sequence
        {
            return Err(ProducerError::AfterUnverified { producer_id, sequence, lowest_sequence });
        }
        let (current_epoch, current_sequence) =
            (self.epoch(), self.entry.map_or(NO_SEQUENCE, ProducerEntry::last_sequence));
        let in_order = match epoch == current_epoch {
            _ if current_epoch == NO_EPOCH => {
                sequence == 0 || self.may_begin_with_any_sequence(requires_zero)
            }
            false => sequence == 0,
            true => {
                i64::from(sequence) == i64::from(current_sequence) + 1
                    || (sequence == 0 && current_sequence == i32::MAX)
            }
        };
        match in_order {
            true => Ok(()),
            false => Err(ProducerError::OutOfOrderSequence {
                producer_id,
                epoch,
                sequence,
                current_epoch,
                current_sequence,
            }),
        }
    }

    /// Whether the first batch of an unknown producer may have any sequence number: its earlier
    /// batches may have been deleted. In transaction version 2, each transaction begins with 0
    /// (KAFKA-18202). Kafka 4.3 accepts any sequence also in a log that never had a record. Kafka
    /// 4.5 does not (KAFKA-15591).
    fn may_begin_with_any_sequence(&self, requires_zero: bool) -> bool {
        !requires_zero && !self.pending.is_some_and(|pending| pending.version.bumps_epoch())
    }

    /// Checks the epochs of a marker. In transaction version 2, the coordinator raises the epoch of
    /// the producer for each marker. A marker with the current epoch is then a repeated one, unless
    /// a transaction is open (KAFKA-19999), or has the largest epoch, which cannot be raised.
    pub fn check_marker(&self, marker: &TxnMarker) -> Result<(), ProducerError> {
        let Producer { id: producer_id, epoch } = marker.producer;
        let current_epoch = self.epoch();
        let is_repeated = epoch == current_epoch && !self.has_open_transaction(epoch);
        let follows = match marker.version.bumps_epoch() {
            false => epoch >= current_epoch,
            true => {
                epoch > current_epoch
                    || is_repeated
                    || (epoch == current_epoch && epoch == i16::MAX)
            }
        };
        if !follows {
            return Err(ProducerError::InvalidMarkerEpoch { producer_id, epoch, current_epoch });
        }
        match self.entry.map_or(NO_COORDINATOR_EPOCH, |entry| entry.coordinator_epoch) {
            current_epoch
                if marker.coordinator_epoch < current_epoch
                    && !has_bug(Bug::OldCoordinatorMarker) =>
            {
                let epoch = marker.coordinator_epoch;
                Err(ProducerError::CoordinatorFenced { producer_id, epoch, current_epoch })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::TransactionVersion;

    fn entry(epoch: i16, coordinator_epoch: i32, txn: Option<i64>) -> ProducerEntry {
        ProducerEntry {
            epoch,
            coordinator_epoch,
            current_txn_first_offset: txn,
            ..ProducerEntry::default()
        }
    }

    fn check(
        entry: &ProducerEntry,
        version: TransactionVersion,
        (epoch, coordinator_epoch): (i16, i32),
    ) -> Result<(), ProducerError> {
        let producer = Producer { id: 1, epoch };
        let marker = TxnMarker { producer, commits: true, coordinator_epoch, version };
        Known { entry: Some(entry), pending: None }.check_marker(&marker)
    }

    #[test]
    fn marker_has_a_current_epoch() {
        use TransactionVersion::{V0, V1, V2};
        let invalid = |epoch, current_epoch| {
            Err(ProducerError::InvalidMarkerEpoch { producer_id: 1, epoch, current_epoch })
        };
        let (open, ended) = (entry(5, 0, Some(10)), entry(5, 0, None));
        for version in [V0, V1] {
            assert_eq!(check(&open, version, (4, 0)), invalid(4, 5));
            assert_eq!(check(&open, version, (5, 0)), Ok(()));
            assert_eq!(check(&ended, version, (5, 0)), Ok(()));
            assert_eq!(check(&open, version, (9, 0)), Ok(()));
        }
        assert_eq!(check(&open, V2, (4, 0)), invalid(4, 5));
        assert_eq!(check(&open, V2, (5, 0)), invalid(5, 5));
        assert_eq!(check(&open, V2, (6, 0)), Ok(()));
        assert_eq!(check(&ended, V2, (4, 0)), invalid(4, 5));
        assert_eq!(check(&ended, V2, (5, 0)), Ok(()), "a repeated marker");
        let last = entry(i16::MAX, 0, Some(10));
        assert_eq!(check(&last, V2, (i16::MAX, 0)), Ok(()));
        assert_eq!(check(&entry(NO_EPOCH, -1, None), V2, (0, 0)), Ok(()));
    }

    #[test]
    fn marker_of_an_older_coordinator_is_fenced() {
        let known = entry(5, 7, None);
        let fenced =
            Err(ProducerError::CoordinatorFenced { producer_id: 1, epoch: 6, current_epoch: 7 });
        for version in [TransactionVersion::V0, TransactionVersion::V2] {
            assert_eq!(check(&known, version, (6, 6)), fenced);
            assert_eq!(check(&known, version, (6, 7)), Ok(()));
            assert_eq!(check(&known, version, (6, 8)), Ok(()));
        }
    }
}
