//! Appending to a replica as its leader, with the checks of replicas and producers. It uses no tokio
//! and no clock: callers pass the time. The caller holds the lock of the partition.

use super::{
    core::{Core, Role},
    isr::is_recent,
};
use crate::{
    log::{LogError, ProducerCheck, ProducerError},
    records::{Batch, Producer, TransactionVersion, TxnMarker, Verification, VerificationGuard},
};

/// Which replicas must have the records before a producer gets its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    Leader,
    /// All in-sync replicas, of which there must be at least `min.insync.replicas`.
    All,
}

/// Where the batches of an append come from, which decides what is checked (Kafka's
/// `AppendOrigin`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A producer's request. Epoch and sequence are checked. A transactional batch needs an open
    /// transaction, or a verification that allows to begin one.
    Client(Verification),
    /// A coordinator. Its batches have no sequence. It has called [`Core::check_transaction`] or
    /// [`Core::check_marker`] before its decision, so only the epoch is checked.
    Coordinator,
}

/// The result of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub first_offset: i64,
    pub last_offset: i64,
    pub log_start: i64,
    /// The value of [`View::leadership_generation`] at the append.
    pub leadership_generation: u64,
    /// Whether `flush.messages` requires an fdatasync before these records are committed.
    pub flush_due: bool,
    /// Whether the append closed a segment. The caller then requests a background flush, so that a
    /// start after a crash need not read the segment.
    pub rolled: bool,
    /// Whether the batch had been appended before. Then nothing was written.
    pub duplicate: bool,
    /// When a duplicate was first appended (ms), for topics with LogAppendTime; -1 if it is new.
    pub duplicate_timestamp: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("this replica does not lead the partition")]
    NotLeader,
    #[error("the partition's log directory is offline")]
    Offline,
    #[error("there are {in_sync} in-sync replicas, but {min} are required")]
    NotEnoughReplicas { in_sync: usize, min: usize },
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Core {
    /// Appends the batches of a client's request as leader, as [`Self::append_from`] does. A
    /// transactional batch needs an open transaction.
    pub fn append(
        &mut self,
        batches: &mut [Batch],
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.append_from(Origin::Client(Verification::MustBeOpen), batches, acks, now_ms)
    }

    /// Appends batches as leader. If a producer has sent one of them before, writes nothing and
    /// returns the offsets of the first append.
    pub fn append_from(
        &mut self,
        origin: Origin,
        batches: &mut [Batch],
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let epoch = self.check_may_append(acks).inspect_err(|_| self.refused_ms = now_ms)?;
        for batch in batches.iter().filter(|batch| batch.header.has_producer_id()) {
            match origin {
                Origin::Coordinator => {
                    self.log.check_producer_epoch(Producer::of(&batch.header))?;
                }
                Origin::Client(verification) => match self.duplicate(batch, verification) {
                    Ok(None) => {}
                    Ok(Some(duplicate)) => return Ok(duplicate),
                    Err(error) => return Err(self.out_of_order(error, now_ms)),
                },
            }
        }
        self.write(epoch, batches, now_ms)
    }

    /// Appends the marker that ends a producer's transaction, after [`Self::check_marker`]. If the
    /// same marker is not committed yet, writes nothing and returns the result of its append.
    pub fn append_marker(
        &mut self,
        marker: &TxnMarker,
        acks: Acks,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let epoch = self.check_may_append(acks).inspect_err(|_| self.refused_ms = now_ms)?;
        self.log.check_marker(marker)?;
        if let Some(uncommitted) = self.uncommitted_marker(marker) {
            return Ok(uncommitted);
        }
        let batch = marker.to_batch(self.log.config().timestamp_type, now_ms);
        self.write(epoch, &mut [batch], now_ms)
    }

    /// The result of the append of a marker that is not committed yet. A coordinator repeats a
    /// marker that was not committed in time, and a second copy would be of no use.
    pub fn uncommitted_marker(&self, marker: &TxnMarker) -> Option<Appended> {
        self.check_leads().ok()?;
        let offset = self.log.offset_of_marker(marker)?;
        let timestamp = -1;
        (offset >= self.high_watermark()).then(|| self.appended_before((offset, offset), timestamp))
    }

    fn write(
        &mut self,
        leader_epoch: i32,
        batches: &mut [Batch],
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let appended = self.log.append(batches, leader_epoch, now_ms);
        let appended = appended.inspect_err(|_| self.refused_ms = now_ms)?;
        let flush_due = self.note_flush_due();
        self.advance_high_watermark(now_ms);
        Ok(Appended {
            first_offset: appended.first_offset,
            last_offset: appended.last_offset,
            log_start: self.log.log_start(),
            leadership_generation: self.leadership_generation,
            flush_due,
            rolled: appended.rolled,
            duplicate: false,
            duplicate_timestamp: -1,
        })
    }

    /// Checks that a coordinator may write batches in a producer's transaction: the transaction is
    /// open, or `verification` allows to begin it.
    pub fn check_transaction(
        &self,
        producer: Producer,
        verification: Verification,
    ) -> Result<(), AppendError> {
        self.check_leads()?;
        Ok(self.log.check_transaction(producer, verification)?)
    }

    /// Checks the producer epoch and the coordinator epoch of a marker.
    pub fn check_marker(&self, marker: &TxnMarker) -> Result<(), AppendError> {
        self.check_leads()?;
        Ok(self.log.check_marker(marker)?)
    }

    /// Checks a marker whose transaction version is unknown: that this replica may append it, and
    /// that its producer epoch is not older than the last seen one.
    pub fn check_epoch_of_marker(&self, producer: Producer, acks: Acks) -> Result<(), AppendError> {
        self.check_may_append(acks)?;
        Ok(self.log.check_producer_epoch(producer)?)
    }

    /// Returns the guard for a producer's first batch in a transaction; see
    /// [`Log::verification_guard`].
    pub fn verification_guard(
        &mut self,
        producer: Producer,
        sequence: i32,
        version: TransactionVersion,
        now_ms: i64,
    ) -> Result<Option<VerificationGuard>, AppendError> {
        self.check_leads()?;
        Ok(self.log.verification_guard(producer, sequence, version, now_ms)?)
    }

    fn check_leads(&self) -> Result<i32, AppendError> {
        match self.role {
            Role::Leader { epoch } => Ok(epoch),
            Role::Follower { .. } | Role::Closed => Err(AppendError::NotLeader),
            Role::Offline => Err(AppendError::Offline),
        }
    }

    fn check_may_append(&self, acks: Acks) -> Result<i32, AppendError> {
        let epoch = self.check_leads()?;
        let isr = self.isr_counts();
        match acks == Acks::All && isr.is_under_min() {
            true => Err(AppendError::NotEnoughReplicas { in_sync: isr.in_sync, min: isr.min }),
            false => Ok(epoch),
        }
    }

    /// The error for a batch that does not follow the last one of its producer.
    ///
    /// If batches are missing before it, the producer may still have to send them again: this
    /// replica has just refused them, or it has just become leader and they were sent to the leader
    /// before, or another broker is the leader now and has them. Then the error is `NotLeader`,
    /// after which the client sends all of them again. Kafka always answers
    /// OUT_OF_ORDER_SEQUENCE_NUMBER. A client then starts a new producer epoch and writes batches
    /// twice that were replicated but not acknowledged.
    fn out_of_order(&self, error: ProducerError, now_ms: i64) -> AppendError {
        let may_have_two_leaders =
            self.leading.as_ref().is_some_and(|it| it.may_have_two_leaders(now_ms))
                || is_recent(self.refused_ms, now_ms);
        match may_have_two_leaders && error.is_gap() {
            true => AppendError::NotLeader,
            false => error.into(),
        }
    }

    /// Whether `flush.messages` requires an fdatasync now. If so, the high watermark waits for it.
    pub(super) fn note_flush_due(&mut self) -> bool {
        let unflushed = self.log.log_end() - self.log.recovery_point();
        let flush_due = unflushed >= self.log.config().flush_messages;
        if flush_due {
            self.flush_before = self.log.log_end();
        }
        flush_due
    }

    /// The result of the first append of the batch, if its producer has sent it before.
    fn duplicate(
        &self,
        batch: &Batch,
        verification: Verification,
    ) -> Result<Option<Appended>, ProducerError> {
        let ProducerCheck::Duplicate { base_offset, last_offset, timestamp } =
            self.log.check_verified(&batch.header, verification)?
        else {
            return Ok(None);
        };
        Ok(Some(self.appended_before((base_offset, last_offset), timestamp)))
    }

    /// The result of an append that had been made before.
    fn appended_before(&self, (first_offset, last_offset): (i64, i64), timestamp: i64) -> Appended {
        Appended {
            first_offset,
            last_offset,
            log_start: self.log.log_start(),
            leadership_generation: self.leadership_generation,
            // The first append may still wait for an fdatasync. Then this response waits, too.
            flush_due: (self.log.recovery_point()..self.flush_before).contains(&last_offset),
            rolled: false,
            duplicate: true,
            duplicate_timestamp: timestamp,
        }
    }
}
