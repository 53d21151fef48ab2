//! The follower's part of a replica: it appends the records that it fetches, truncates those that
//! the leader does not have, and follows the leader's high watermark and log start. The rules are
//! those of Kafka's `ReplicaFetcherThread`.

use super::core::{Core, EpochEnd, Role};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    log::LogError,
    records::Batch,
};

/// The position from which a follower fetches. A response may truncate the log only if the log
/// still ends there: after a later fetch in the same leader epoch, the leader already counts on the
/// records that this replica has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPosition {
    /// The log end, which is the fetch offset.
    pub offset: i64,
    pub log_start: i64,
    /// The leader epoch in which this replica follows.
    pub leader_epoch: i32,
    /// Leader epoch of the last record; -1 if there is none.
    pub last_epoch: i32,
}

/// The leader's response for one partition.
pub struct Fetched<'a> {
    /// The leader epoch in which the fetch was sent.
    pub leader_epoch: i32,
    pub fetch_offset: i64,
    pub batches: &'a [Batch],
    /// The leader's high watermark.
    pub high_watermark: i64,
    /// The leader's log start.
    pub log_start: i64,
}

/// The result of appending fetched records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    pub log_end: i64,
    /// Leader epoch of the last appended batch; `None` if no batch was appended.
    pub last_epoch: Option<i32>,
    /// Whether `flush.messages` requires an fdatasync before the leader may count on these records.
    pub flush_due: bool,
    /// Whether the append closed a segment, which then needs a background flush.
    pub rolled: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Metadata has changed the role or the leader epoch since the fetch.
    #[error("this replica does not follow in epoch {0}")]
    NotFollowing(i32),
    #[error("the log has changed since the fetch from offset {fetched}: it ends at {log_end}")]
    OffsetMismatch { fetched: i64, log_end: i64 },
    #[error("the leader's log start {log_start} is past its high watermark {high_watermark}")]
    LogStartPastHighWatermark { log_start: i64, high_watermark: i64 },
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The result of a truncation, for the broker's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    pub log_end: i64,
    pub log_end_before: i64,
    /// The previous high watermark if the log was truncated below it. Committed records are lost
    /// then, which only an unclean election can cause.
    pub below_high_watermark: Option<i64>,
}

impl Core {
    /// Prepares the log to follow in `leader_epoch`. A log without leader epochs cannot be compared
    /// with that of the leader, so it is truncated to the high watermark.
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

    fn check_asked(&self, ask: FetchPosition) -> Result<(), FollowError> {
        self.check_follows(ask.leader_epoch)?;
        let (log_end, last_epoch) = (self.log.log_end(), self.log.latest_epoch().unwrap_or(-1));
        match (log_end, last_epoch) == (ask.offset, ask.last_epoch) {
            true => Ok(()),
            false => Err(FollowError::OffsetMismatch { fetched: ask.offset, log_end }),
        }
    }

    /// Appends fetched batches unchanged, and takes over the leader's high watermark and log start.
    /// The caller has checked the CRCs of the batches. Fails, and appends nothing, if the fetch is
    /// out of date or if the leader's log start would delete records that are not committed.
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
        // A leader of a later epoch may have sent the response. Batches of that epoch are left out,
        // because the records before them may differ between the two logs.
        let is_of_epoch = |batch: &&Batch| batch.header.leader_epoch <= fetched.leader_epoch;
        let count = fetched.batches.iter().take_while(is_of_epoch).count();
        let batches = &fetched.batches[..count];
        let mut rolled = false;
        if let Some(first) = batches.first() {
            let (base, last) = (first.header.base_offset, first.header.last_offset());
            // The leader's log starts within the batch, so this log starts at its base offset.
            if base < log_end && log_end == self.log.log_start() && last >= log_end {
                self.log.truncate_fully_and_start_at(base, now_ms)?;
            }
            rolled = self.log.append_verbatim(batches, now_ms)?.rolled;
            if has_bug(Bug::NoProducerState) {
                self.log.forget_producers();
            }
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

    /// Truncates records that the leader does not have. `leaders_end` is the last epoch that both
    /// logs may have in common, with its end offset in the leader's log (KIP-595). Fails if the log
    /// does not end at `ask` any more.
    pub fn truncate_to_diverging(
        &mut self,
        ask: FetchPosition,
        leaders_end: EpochEnd,
        now_ms: i64,
    ) -> Result<Truncated, FollowError> {
        self.check_asked(ask)?;
        let log_end = self.log.log_end();
        let offset = self.log.truncation_offset(leaders_end);
        Ok(self.cut(offset.clamp(0, log_end), now_ms)?)
    }

    /// Moves the log end into the range of the leader's log, after the leader has returned
    /// OFFSET_OUT_OF_RANGE: truncates to the leader's log end, or restarts this log at the leader's
    /// log start. Fails if the log does not end at `ask` any more.
    pub fn truncate_to_range(
        &mut self,
        ask: FetchPosition,
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
        // The batch that contains the offset was removed as a whole.
        self.set_high_watermark(self.high_watermark().min(self.log.log_end()));
        self.flush_before = self.flush_before.min(self.log.log_end());
        Ok(Truncated {
            log_end: self.log.log_end(),
            log_end_before,
            below_high_watermark: (offset < before).then_some(before),
        })
    }
}
