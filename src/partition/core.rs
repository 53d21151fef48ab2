//! The state that one owner changes: role, log, high watermark. Synchronous, no tokio.

use super::View;
use crate::{
    log::{DeletedSegment, Flush, Flushed, Log, LogError, ProducerCheck, ProducerError},
    records::Batch,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader {
        epoch: i32,
    },
    Follower {
        epoch: i32,
        leader: i32,
    },
    /// The log directory failed.
    Offline,
    /// The replica is being removed, or the broker stops.
    Closed,
}

impl Role {
    pub fn leader_epoch(self) -> i32 {
        match self {
            Self::Leader { epoch } | Self::Follower { epoch, .. } => epoch,
            Self::Offline | Self::Closed => -1,
        }
    }

    /// Whether the replica is out of service for good: no metadata brings it back.
    fn is_final(self) -> bool {
        matches!(self, Self::Offline | Self::Closed)
    }
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub first_offset: i64,
    pub last_offset: i64,
    pub log_start: i64,
    /// `flush.messages` asks for an fdatasync before the high watermark may pass these records.
    pub flush_due: bool,
    /// A segment was closed: it is to be made durable at leisure, so that a start after a crash
    /// need not read it.
    pub rolled: bool,
    /// The batch had been appended before; nothing was written.
    pub duplicate: bool,
    /// The time of a duplicate's first append, for topics with LogAppendTime.
    pub duplicate_timestamp: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("this replica does not lead the partition")]
    NotLeader,
    #[error("the partition's log directory is offline")]
    Offline,
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error(transparent)]
    Log(#[from] LogError),
}

pub struct Core {
    log: Log,
    role: Role,
    high_watermark: i64,
    /// The high watermark stays below this until an fdatasync has covered it.
    flush_before: i64,
    last_flush_ms: i64,
}

impl Core {
    /// Where `flush.messages` asks for it, `log` is to be durable already: what it holds may be
    /// read from here on, and a producer that repeats it is told that it is there.
    pub fn new(log: Log, role: Role, high_watermark: i64) -> Self {
        let high_watermark = high_watermark.clamp(log.log_start(), log.log_end());
        let mut core = Self { log, role, high_watermark, flush_before: 0, last_flush_ms: 0 };
        core.advance_high_watermark();
        core
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn view(&self) -> View {
        let first_unstable = self.log.first_unstable_offset().unwrap_or(i64::MAX);
        View {
            log: self.log.view(),
            high_watermark: self.high_watermark,
            last_stable_offset: self.high_watermark.min(first_unstable),
            role: self.role,
        }
    }

    /// Takes the role that metadata gives. A replica whose disk failed, or that is closed, stays
    /// what it is.
    pub fn set_role(&mut self, role: Role) {
        if !self.role.is_final() || role == Role::Closed {
            self.role = role;
            self.advance_high_watermark();
        }
    }

    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Appends the batches of one request; a batch of an idempotent producer that was appended
    /// before is answered with its first offsets.
    pub fn append(&mut self, batches: &mut [Batch], now_ms: i64) -> Result<Appended, AppendError> {
        let epoch = match self.role {
            Role::Leader { epoch } => epoch,
            Role::Follower { .. } | Role::Closed => return Err(AppendError::NotLeader),
            Role::Offline => return Err(AppendError::Offline),
        };
        for batch in batches.iter().filter(|batch| batch.header.has_producer_id()) {
            if let Some(duplicate) = self.duplicate(batch)? {
                return Ok(duplicate);
            }
        }
        let appended = self.log.append(batches, epoch, now_ms)?;
        let unflushed = self.log.log_end() - self.log.recovery_point();
        let flush_due = unflushed >= self.log.config().flush_messages;
        if flush_due {
            self.flush_before = self.log.log_end();
        }
        self.advance_high_watermark();
        Ok(Appended {
            first_offset: appended.first_offset,
            last_offset: appended.last_offset,
            log_start: self.log.log_start(),
            flush_due,
            rolled: appended.rolled,
            duplicate: false,
            duplicate_timestamp: -1,
        })
    }

    /// What the batch's producer was answered when it sent the batch before.
    fn duplicate(&self, batch: &Batch) -> Result<Option<Appended>, ProducerError> {
        let ProducerCheck::Duplicate { base_offset, last_offset, timestamp } =
            self.log.check_producer(&batch.header)?
        else {
            return Ok(None);
        };
        Ok(Some(Appended {
            first_offset: base_offset,
            last_offset,
            log_start: self.log.log_start(),
            // Its first append may still wait for the disk, and so must this answer.
            flush_due: self.high_watermark <= last_offset,
            rolled: false,
            duplicate: true,
            duplicate_timestamp: timestamp,
        }))
    }

    /// The largest epoch up to `epoch` and its end offset, `None` if this replica cannot tell.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let epochs = self.log.epochs_led_by(self.role.leader_epoch());
        epochs.end_offset_for(epoch, self.log.log_end())
    }

    /// The start of the log and the epoch that it belongs to.
    pub fn earliest(&self) -> (i64, Option<i32>) {
        let start = self.log.log_start();
        let epochs = self.log.epochs_led_by(self.role.leader_epoch());
        let first = epochs.entries().first().filter(|entry| entry.start_offset <= start);
        (start, first.map(|entry| entry.epoch))
    }

    pub fn begin_flush(&mut self) -> Option<Flush> {
        self.log.begin_flush()
    }

    /// An fdatasync has covered what it began with.
    pub fn flushed(&mut self, flushed: Flushed) {
        self.log.flushed(flushed);
        self.advance_high_watermark();
    }

    /// Whether `flush.ms` asks for an fdatasync; if so, the time counts from now on.
    pub fn is_flush_due_by_time(&mut self, now_ms: i64) -> bool {
        let is_due = !self.role.is_final()
            && self.log.log_end() > self.log.recovery_point()
            && now_ms.saturating_sub(self.last_flush_ms) >= self.log.config().flush_ms;
        if is_due {
            self.last_flush_ms = now_ms;
        }
        is_due
    }

    /// Rolls and deletes segments by time and size, so many at most and never past the high
    /// watermark.
    pub fn apply_retention(
        &mut self,
        now_ms: i64,
        most: usize,
    ) -> Result<Vec<DeletedSegment>, LogError> {
        // The files of a replica out of service are somebody else's, or nobody's.
        match self.role.is_final() {
            true => Ok(Vec::new()),
            false => self.log.apply_retention(now_ms, self.high_watermark, most),
        }
    }

    /// DeleteRecords: moves the log start, at most to the high watermark.
    pub fn delete_records(&mut self, offset: i64) -> Result<i64, DeleteRecordsError> {
        if !matches!(self.role, Role::Leader { .. }) {
            return Err(DeleteRecordsError::NotLeader);
        }
        let offset = if offset == -1 { self.high_watermark } else { offset };
        if offset < 0 || offset > self.high_watermark {
            return Err(DeleteRecordsError::OutOfRange);
        }
        self.log.advance_log_start(offset)?;
        Ok(self.log.log_start())
    }

    /// With every in-sync replica this one, what is in the log (and synced, where that is asked
    /// for) is committed. Followers' positions join here with replication.
    fn advance_high_watermark(&mut self) {
        if !matches!(self.role, Role::Leader { .. }) {
            return;
        }
        let end = match self.log.recovery_point() < self.flush_before {
            true => self.log.recovery_point(),
            false => self.log.log_end(),
        };
        self.high_watermark = self.high_watermark.max(end).max(self.log.log_start());
        assert!(self.high_watermark <= self.log.log_end(), "high watermark past the log end");
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DeleteRecordsError {
    #[error("this replica does not lead the partition")]
    NotLeader,
    #[error("the offset is negative or past the high watermark")]
    OutOfRange,
    #[error(transparent)]
    Log(#[from] LogError),
}
