//! Kafka's log on disk: segments, indexes, leader epochs, producer state, recovery, retention; and
//! the log directories that hold the logs. File names and bytes are Apache Kafka's.
//!
//! Owns: everything below `log.dirs`. Synchronous; one owner changes a [`Log`] (`&mut self`), any
//! number of readers hold a [`LogView`].
//!
//! Must not know: leaders, replicas, high watermarks (but as numbers that callers pass), Kafka's
//! error codes, requests, tokio, the clock.
//!
//! Invariants:
//! - `log_start <= recovery_point <= log_end`, and segments rise by base offset; the last one takes
//!   the writes.
//! - An append is one vectored write per segment, all or nothing.
//! - What was appended survives the process. What was flushed survives the machine.
//! - Indexes and snapshots are hints: whatever they say is checked against the `.log` file, which
//!   alone has the truth.

mod aborted;
mod append;
pub mod checkpoint;
mod config;
pub mod dirs;
pub mod disk;
mod epochs;
mod error;
#[cfg(any(test, feature = "simulation"))]
pub mod faulty;
mod flush;
mod index;
mod mount;
mod names;
mod producers;
mod properties;
mod recovery;
mod restore;
mod retention;
mod segment;
mod snapshot;
mod swap;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod truncate;
mod txn_index;
mod view;
mod walk;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

/// Decoders and encoders of the files that only this layer reads, for `fuzz/`.
#[cfg(feature = "fuzzing")]
pub mod formats {
    pub use super::{
        names::{parse_file, parse_future_dir, parse_partition_dir},
        properties::{decode_partition_metadata, encode_partition_metadata},
        snapshot::{decode as decode_snapshot, encode as encode_snapshot},
    };
}

pub use aborted::AbortedTxn;
pub use config::LogConfig;
pub use dirs::LogDirs;
pub use disk::{Disk, DiskFile, RealDisk};
pub use epochs::{EpochEntry, Epochs};
pub use error::{FormatError, LogError, ReadError, is_lasting};
pub use flush::{Flush, Flushed};
pub use producers::{BatchMeta, ProducerCheck, ProducerEntry, ProducerError};
pub use properties::{CleanShutdown, MetaProperties};
pub use recovery::Recovery;
pub use retention::DeletedSegment;
pub use view::{Batches, LogSlice, LogView, TimestampOffset};

use disk::{Durability, replace_file};
use error::During;
use producers::Producers;
use segment::{Home, Segment};

use crate::records::{Batch, BatchHeader};

/// What is known about a log before it is opened.
#[derive(Debug, Clone, Copy)]
pub struct LogStart {
    /// From the recovery point checkpoint; 0 if it has no entry.
    pub recovery_point: i64,
    /// What lies before it was written whole, with its indexes, since the machine started: it may
    /// not be durable, but it needs no check. See [`Log::settle`].
    pub settled: i64,
    /// From the log start checkpoint.
    pub log_start: Option<i64>,
    /// Whether the last stop was clean.
    pub clean: bool,
    pub now_ms: i64,
}

impl LogStart {
    /// Of a log that there was not before.
    pub fn of_new(now_ms: i64) -> Self {
        Self { recovery_point: 0, settled: 0, log_start: None, clean: false, now_ms }
    }

    /// From where on batches are to be checked, unless the last stop was clean.
    fn sound_until(&self) -> i64 {
        self.recovery_point.max(self.settled)
    }
}

/// Where a write went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub first_offset: i64,
    pub last_offset: i64,
    pub log_start: i64,
    /// The largest of the batches.
    pub max_timestamp: i64,
    /// Whether a segment was closed on the way, so that a flush is worth its while.
    pub rolled: bool,
}

/// The log of one partition.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    /// The same directory, as the segments see it.
    home: Arc<Home>,
    config: Arc<LogConfig>,
    segments: Arc<[Arc<Segment>]>,
    active: Active,
    log_start: i64,
    log_end: i64,
    recovery_point: i64,
    epochs: Epochs,
    /// Changes of the epochs' file that need a flush.
    epochs_changes: Changes,
    producers: Producers,
    /// Base offsets of the snapshot files there are, rising.
    snapshots: Vec<i64>,
    /// Segments that were closed since the last flush, with the count of directory changes then.
    unsynced: Vec<(u64, Arc<Segment>)>,
    /// Changes of the directory's names that need a flush.
    dir_changes: Changes,
    /// Whether the name of the directory itself may not be durable.
    parent_dirty: bool,
    /// Bytes appended since the log was last settled.
    unsettled: u64,
    /// Where the log was last settled.
    settled: i64,
    /// Counts truncations, so that a flush from before one does not count.
    generation: u64,
    failed: bool,
}

/// Counts changes, so that a flush from before a change does not count for it.
#[derive(Debug, Clone, Copy, Default)]
struct Changes {
    made: u64,
    synced: u64,
}

impl Changes {
    fn pending(self) -> bool {
        self.made > self.synced
    }
}

/// The segment that takes the writes, as its writer sees it.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    size: u64,
    /// When the segment was made, or found.
    created_ms: i64,
    /// The largest timestamp of the first batch, once known; time to roll counts from it.
    first_timestamp: Option<i64>,
}

impl Log {
    /// Opens the log in `dir`; makes the directory and the first segment if they are missing.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: Arc<LogConfig>,
        start: LogStart,
    ) -> Result<(Self, Recovery), LogError> {
        Self::open_counted(disk, dir, config, start, &AtomicU64::new(0))
    }

    /// The same; counts the bytes that are read and checked while it goes on.
    pub fn open_counted(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: Arc<LogConfig>,
        start: LogStart,
        checked_bytes: &AtomicU64,
    ) -> Result<(Self, Recovery), LogError> {
        recovery::open(disk, dir, config, start, checked_bytes)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    pub fn set_config(&mut self, config: Arc<LogConfig>) {
        self.config = config;
    }

    /// The directory was renamed, as it is before it is removed.
    pub fn set_dir(&mut self, dir: &Path) {
        self.dir = dir.into();
        self.home.set(self.dir.clone());
    }

    /// An immutable snapshot for readers.
    pub fn view(&self) -> LogView {
        LogView {
            segments: self.segments.clone(),
            active_size: self.active.size,
            log_start: self.log_start,
            log_end: self.log_end,
            recovery_point: self.recovery_point,
            unsettled: self.unsettled,
            settled: self.settled,
            generation: self.generation,
        }
    }

    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    pub fn log_end(&self) -> i64 {
        self.log_end
    }

    pub fn recovery_point(&self) -> i64 {
        self.recovery_point
    }

    /// Has less count as durable, until the next flush.
    pub fn lower_recovery_point(&mut self, offset: i64) {
        self.recovery_point = self.recovery_point.min(offset.max(self.log_start));
    }

    /// Counts truncations: a view of before one may read what was written since.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes of all segments' logs.
    pub fn size(&self) -> u64 {
        self.view().size()
    }

    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.latest().map(|entry| entry.epoch)
    }

    /// Entries of the leader epoch cache, rising.
    pub fn epochs(&self) -> &[EpochEntry] {
        self.epochs.entries()
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.epochs.epoch_for_offset(offset)
    }

    /// The cache as it is once `epoch` leads: a leader's epoch begins at its log's end, if it has
    /// not written yet. The file learns of it with the first record.
    pub fn epochs_led_by(&self, epoch: i32) -> Epochs {
        let mut epochs = self.epochs.clone();
        if epoch >= 0 && epochs.latest().is_none_or(|latest| latest.epoch < epoch) {
            epochs.assign(epoch, self.log_end);
        }
        epochs
    }

    /// The largest epoch up to `epoch` and its end offset, `None` if the log cannot tell
    /// (KIP-101, KIP-320).
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        self.epochs.end_offset_for(epoch, self.log_end)
    }

    /// Where this log is to be cut to be a part of another, given the last epoch that it may have
    /// in common with that and where it ends there (KIP-595). An epoch that is unknown here is not
    /// in common: the one before is to be compared next.
    pub fn truncation_offset(&self, (epoch, end_offset): (i32, i64)) -> i64 {
        match self.end_offset_for_epoch(epoch) {
            Some((known, own_end)) if known == epoch => own_end.min(end_offset),
            Some((_, own_end)) => own_end,
            None => end_offset,
        }
    }

    /// The first offset of the oldest transaction that is open, or whose marker was not yet below
    /// the high watermark; at least the log start.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        self.producers.first_unstable_offset().map(|first| first.max(self.log_start))
    }

    /// Takes the high watermark: ended transactions whose markers are below it no longer hold the
    /// last stable offset.
    pub fn note_high_watermark(&mut self, high_watermark: i64) {
        self.producers.forget_ended_below(high_watermark);
    }

    /// Open transactions: first offset and producer id, by first offset.
    pub fn open_transactions(&self) -> impl ExactSizeIterator<Item = (i64, i64)> {
        self.producers.open_transactions()
    }

    /// Judges a batch from a client by what its producer wrote before.
    pub fn check_producer(&self, header: &BatchHeader) -> Result<ProducerCheck, ProducerError> {
        self.producers.check(&[], header)
    }

    /// The same, as if `pending` were appended already: for batches that are to be appended at
    /// once.
    pub fn check_producer_after(
        &self,
        pending: &[Batch],
        header: &BatchHeader,
    ) -> Result<ProducerCheck, ProducerError> {
        self.producers.check(pending, header)
    }

    /// The producers by id, in no order.
    pub fn producers(&self) -> impl ExactSizeIterator<Item = (i64, &ProducerEntry)> {
        self.producers.iter()
    }

    /// Forgets producers that did not write for `producer_id_expiration_ms`.
    pub fn expire_producers(&mut self, now_ms: i64) {
        self.producers.expire(now_ms.saturating_sub(self.config.producer_id_expiration_ms));
    }

    /// Notes that `epoch` begins at the log's end, before anything is written in it (as a new
    /// leader does).
    pub fn assign_epoch(&mut self, epoch: i32) -> Result<(), LogError> {
        self.assign_epoch_at(epoch, self.log_end)
    }

    fn assign_epoch_at(&mut self, epoch: i32, offset: i64) -> Result<(), LogError> {
        match self.epochs.assign(epoch, offset) {
            true => self.write_epochs(),
            false => Ok(()),
        }
    }

    fn write_epochs(&mut self) -> Result<(), LogError> {
        self.epochs_changes.made += 1;
        let path = self.epochs_path();
        let text = self.epochs.encode();
        let written = replace_file(&*self.disk, &path, text.as_bytes(), Durability::PageCache);
        written.during("write", &path)
    }

    fn epochs_path(&self) -> PathBuf {
        self.dir.join(names::LEADER_EPOCH_CHECKPOINT)
    }

    fn check_invariants(&self) {
        assert!(
            self.log_start <= self.recovery_point && self.recovery_point <= self.log_end,
            "{}: start {} recovery point {} end {}",
            self.dir.display(),
            self.log_start,
            self.recovery_point,
            self.log_end
        );
    }
}
