//! A replica that follows: it appends what the leader has, cuts off what the leader does not have,
//! and takes the leader's high watermark and log start. The rules are those of Kafka's
//! `ReplicaFetcherThread`.

use super::core::{Core, EpochEnd, Role};
use crate::{log::LogError, records::Batch};

/// What a follower asks of its leader, and tells of itself. An answer may cut the log only while that
/// is true: others may have fetched in the same epoch since, and told the leader what is here now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub offset: i64,
    pub log_start: i64,
    pub leader_epoch: i32,
    /// Of the last record; -1 for none.
    pub last_epoch: i32,
}

/// What a leader answered of one partition.
pub struct Fetched<'a> {
    /// The epoch that was fetched in.
    pub leader_epoch: i32,
    pub fetch_offset: i64,
    pub batches: &'a [Batch],
    /// The leader's.
    pub high_watermark: i64,
    pub log_start: i64,
}

/// What a follower did with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    pub log_end: i64,
    /// Of the last batch that was appended, if any was.
    pub last_epoch: Option<i32>,
    /// `flush.messages` asks for an fdatasync before the leader may count on these records.
    pub flush_due: bool,
    /// A segment was closed, and is to be made durable at leisure.
    pub rolled: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Metadata has given the replica another role since.
    #[error("this replica does not follow in epoch {0}")]
    NotFollowing(i32),
    #[error("fetched from {fetched}, and the log ends otherwise by now, at {log_end}")]
    OffsetMismatch { fetched: i64, log_end: i64 },
    #[error("the leader's log start {log_start} is past its high watermark {high_watermark}")]
    LogStartPastHighWatermark { log_start: i64, high_watermark: i64 },
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A truncation, as it is to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    pub log_end: i64,
    pub log_end_before: i64,
    /// The high watermark as it was, if the log was cut below it: what was committed is gone, as
    /// only an unclean election makes it.
    pub below_high_watermark: Option<i64>,
}

impl Core {
    /// Makes the log ready to follow. One that does not know its epochs cannot be compared with the
    /// leader's: nothing but what is committed is certain.
    pub fn begin_to_follow(&mut self, leader_epoch: i32) -> Result<Option<Truncated>, FollowError> {
        self.check_follows(leader_epoch)?;
        if self.log.latest_epoch().is_some() || self.log.log_end() <= self.high_watermark() {
            return Ok(None);
        }
        Ok(Some(self.cut(self.high_watermark(), 0)?))
    }

    fn check_follows(&self, leader_epoch: i32) -> Result<(), FollowError> {
        match self.role {
            Role::Follower { epoch, .. } if epoch == leader_epoch => Ok(()),
            _ => Err(FollowError::NotFollowing(leader_epoch)),
        }
    }

    fn check_asked(&self, ask: Ask) -> Result<(), FollowError> {
        self.check_follows(ask.leader_epoch)?;
        let (log_end, last_epoch) = (self.log.log_end(), self.log.latest_epoch().unwrap_or(-1));
        match (log_end, last_epoch) == (ask.offset, ask.last_epoch) {
            true => Ok(()),
            false => Err(FollowError::OffsetMismatch { fetched: ask.offset, log_end }),
        }
    }

    /// Appends what the leader has after this log's end, as it is. The batches' CRCs are checked.
    /// Nothing is appended if the leader's log start would delete what is not committed.
    pub fn append_fetched(
        &mut self,
        fetched: &Fetched,
        now_ms: i64,
    ) -> Result<Followed, FollowError> {
        self.check_follows(fetched.leader_epoch)?;
        let log_end = self.log.log_end();
        if fetched.fetch_offset != log_end {
            return Err(FollowError::OffsetMismatch { fetched: fetched.fetch_offset, log_end });
        }
        let (log_start, high_watermark) = (fetched.log_start, fetched.high_watermark);
        if log_start > high_watermark.max(self.high_watermark()) {
            return Err(FollowError::LogStartPastHighWatermark { log_start, high_watermark });
        }
        // A leader of a later epoch may have answered: what it wrote may not follow what is here.
        let is_of_epoch = |batch: &&Batch| batch.header.leader_epoch <= fetched.leader_epoch;
        let count = fetched.batches.iter().take_while(is_of_epoch).count();
        let batches = &fetched.batches[..count];
        let mut rolled = false;
        if let Some(first) = batches.first() {
            let (base, last) = (first.header.base_offset, first.header.last_offset());
            // The leader's log starts within the batch.
            if base < log_end && log_end == self.log.log_start() && last >= log_end {
                self.log.truncate_fully_and_start_at(base, now_ms)?;
            }
            rolled = self.log.append_verbatim(batches, now_ms)?.rolled;
        }
        let leaders = fetched.high_watermark.min(self.log.log_end());
        self.set_high_watermark(self.high_watermark().max(leaders));
        self.follow_log_start(fetched.log_start)?;
        let flush_due = !batches.is_empty() && self.note_flush_due();
        let last_epoch = batches.last().map(|batch| batch.header.leader_epoch);
        Ok(Followed { log_end: self.log.log_end(), last_epoch, flush_due, rolled })
    }

    fn follow_log_start(&mut self, leader_log_start: i64) -> Result<(), LogError> {
        let offset = leader_log_start.min(self.log.log_end());
        self.log.advance_log_start(offset)?;
        self.set_high_watermark(self.high_watermark().max(self.log.log_start()));
        Ok(())
    }

    /// Cuts off what the leader does not have, given the last epoch that it may have in common with
    /// this log and where that ends in its own (KIP-595).
    pub fn truncate_to_diverging(
        &mut self,
        ask: Ask,
        leaders_end: EpochEnd,
        now_ms: i64,
    ) -> Result<Truncated, FollowError> {
        self.check_asked(ask)?;
        let log_end = self.log.log_end();
        let offset = self.log.truncation_offset(leaders_end);
        Ok(self.cut(offset.clamp(0, log_end), now_ms)?)
    }

    /// Goes on where the leader's log is, after it has told that it has nothing at this log's end.
    pub fn truncate_to_range(
        &mut self,
        ask: Ask,
        (leader_start, leader_end): (i64, i64),
        now_ms: i64,
    ) -> Result<Truncated, FollowError> {
        self.check_asked(ask)?;
        let log_end = self.log.log_end();
        if leader_end < log_end {
            return Ok(self.cut(leader_end.max(0), now_ms)?);
        }
        if leader_start > log_end {
            self.log.truncate_fully_and_start_at(leader_start, now_ms)?;
            self.set_high_watermark(leader_start);
        }
        Ok(Truncated {
            log_end: self.log.log_end(),
            log_end_before: log_end,
            below_high_watermark: None,
        })
    }

    fn cut(&mut self, offset: i64, now_ms: i64) -> Result<Truncated, LogError> {
        let (before, log_end_before) = (self.high_watermark(), self.log.log_end());
        self.set_high_watermark(before.min(offset));
        match offset < self.log.log_start() {
            true => self.log.truncate_fully_and_start_at(offset, now_ms)?,
            false => self.log.truncate_to(offset, self.high_watermark())?,
        }
        // A batch that contains the offset went as a whole.
        self.set_high_watermark(self.high_watermark().min(self.log.log_end()));
        self.flush_before = self.flush_before.min(self.log.log_end());
        Ok(Truncated {
            log_end: self.log.log_end(),
            log_end_before,
            below_high_watermark: (offset < before).then_some(before),
        })
    }
}
