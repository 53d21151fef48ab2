//! The log of a partition on disk: segments, indexes, leader epochs, producer state, recovery and
//! retention. Also the log directories that hold the logs. File names and formats are Apache
//! Kafka's.
//!
//! Owns: everything in the directories of `log.dirs`. The code is synchronous. One owner changes a
//! [`Log`] (`&mut self`), and any number of readers use [`LogView`]s.
//!
//! Must not know: leaders, replicas, Kafka's error codes, requests, tokio, the clock. A high
//! watermark is only a number that callers pass.
//!
//! Invariants:
//! - `log_start <= recovery_point <= log_end`. Segments are in the order of their base offsets, and
//!   only the last one, the active segment, takes appends.
//! - An append is written completely or, if a write fails, undone completely.
//! - Appended records survive a crash of the process. Flushed records survive a crash of the
//!   machine.
//! - Offset and time indexes and producer snapshots are hints. Their content is checked against the
//!   `.log` file. The transaction index is not a hint (see `txn_index`).

mod aborted;
mod append;
pub mod checkpoint;
pub mod clean;
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
    sync::{Arc, Weak, atomic::AtomicU64},
};

/// Decoders and encoders of files that only this layer reads, for the fuzz targets in `fuzz/`.
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

use disk::{FileDurability, replace_file};
use error::During;
use producers::Producers;
use segment::{Home, Segment};

use crate::records::{
    BatchHeader, Producer, TransactionVersion, TxnMarker, Verification, VerificationGuard,
};

/// What checkpoints and the last stop say about a log before it is opened.
#[derive(Debug, Clone, Copy)]
pub struct LogStart {
    /// The recovery point from the checkpoint; 0 if the checkpoint has no entry.
    pub recovery_point: i64,
    /// The settled offset (see [`Log::settle`]); 0 if unknown. Everything before it was completely
    /// written, with its index entries, since the machine started. It may not be durable, but it
    /// needs no check.
    pub settled: i64,
    /// The log start offset from the checkpoint, if the checkpoint has an entry.
    pub log_start: Option<i64>,
    /// Whether the last stop was clean.
    pub clean: bool,
    pub now_ms: i64,
}

impl LogStart {
    /// The values for a new log.
    pub fn of_new(now_ms: i64) -> Self {
        Self { recovery_point: 0, settled: 0, log_start: None, clean: false, now_ms }
    }

    /// The offset from which a start checks batches, unless the last stop was clean.
    fn sound_until(&self) -> i64 {
        self.recovery_point.max(self.settled)
    }
}

/// The result of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub first_offset: i64,
    pub last_offset: i64,
    pub log_start: i64,
    /// Largest timestamp of the batches, in ms; -1 without batches.
    pub max_timestamp: i64,
    /// Whether the append closed a segment, which is a good time for a flush.
    pub rolled: bool,
}

/// The log of one partition.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    /// Path of the directory, shared with the segments, so that they follow a rename.
    home: Arc<Home>,
    config: Arc<LogConfig>,
    segments: Arc<[Arc<Segment>]>,
    /// Segments that retention has deleted and that readers may still hold.
    deleted: Vec<Weak<Segment>>,
    active: Active,
    log_start: i64,
    log_end: i64,
    recovery_point: i64,
    epochs: Epochs,
    /// Changes of the leader epoch file, counted for flushes.
    epochs_changes: Changes,
    producers: Producers,
    /// Offsets of the producer snapshot files, ascending.
    snapshots: Vec<i64>,
    /// Segments closed since the last flush, each with the value of `dir_changes.made` at that
    /// time.
    unsynced: Vec<(u64, Arc<Segment>)>,
    /// Changes of names in the directory, counted for flushes.
    dir_changes: Changes,
    /// Whether the name of the directory itself may not be durable.
    parent_dirty: bool,
    /// Bytes appended since the log was last settled.
    unsettled: u64,
    /// The log end when the log was last settled (see [`Log::settle`]).
    settled: i64,
    /// Number of truncations. A flush that began before one does not move the recovery point.
    generation: u64,
    /// The first dirty offset: compaction has cleaned the records before it. `None` if the log was
    /// never cleaned.
    first_dirty: Option<i64>,
    /// A segment that compaction has written, whose files have the suffix `.swap`, and that has not
    /// replaced its old segments yet.
    incoming: Option<Arc<Segment>>,
    /// How often compaction has replaced segments.
    replacements: u64,
    failed: bool,
}

/// Counts the changes of something that a flush syncs. A flush covers only the changes made before
/// it began.
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

/// The active segment, with state that only the owner of the log needs.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    size: u64,
    /// When the segment was created, or opened by a start, in ms.
    created_ms: i64,
    /// Largest timestamp of the segment's first batch, in ms, once it was needed. The age that
    /// `segment.ms` limits counts from it.
    first_timestamp: Option<i64>,
    /// The part of `segment.jitter.ms` by which this segment is rolled earlier, in ms. As in Kafka,
    /// later changes of the config apply to the next segment.
    roll_jitter_ms: i64,
}

impl Log {
    /// Opens the log in `dir`. Creates the directory and the first segment if they are missing.
    ///
    /// After an unclean stop, batches from the recovery point or the settled offset on are checked.
    /// The first invalid batch ends the log: it is cut off with everything after it, and
    /// [`Recovery`] reports that. Fails if a file cannot be read, written or removed.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: Arc<LogConfig>,
        start: LogStart,
    ) -> Result<(Self, Recovery), LogError> {
        Self::open_counted(disk, dir, config, start, &AtomicU64::new(0))
    }

    /// Opens a log as [`Log::open`] does. Adds the bytes of each batch that it checks to
    /// `checked_bytes`, so that other threads can report the progress.
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

    /// Sets the new path after the caller renamed the directory, for example before deleting it.
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
            first_dirty: self.first_dirty,
            replacements: self.replacements,
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

    /// Lowers the recovery point to `offset`, but not below the log start. The next flush may raise
    /// it again.
    pub fn lower_recovery_point(&mut self, offset: i64) {
        self.recovery_point = self.recovery_point.min(offset.max(self.log_start));
    }

    /// Number of truncations. A view taken before a truncation may read records that were written
    /// later, in place of the removed ones.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Sets the first dirty offset to that of a checkpoint or of another copy of the log. It may be
    /// outside of this log; the cleaner checks it.
    pub fn restore_first_dirty(&mut self, offset: Option<i64>) {
        self.first_dirty = offset;
    }

    /// Sets the first dirty offset after a round of compaction. The active segment is always dirty,
    /// also if a truncation has made it active meanwhile.
    pub fn set_first_dirty(&mut self, offset: i64) {
        self.first_dirty = Some(offset.min(self.active.segment.base_offset.max(self.log_start)));
    }

    /// Lowers the first dirty offset after a truncation (Kafka's
    /// `LogCleanerManager.maybeTruncateCheckpoint`).
    fn lower_first_dirty(&mut self) {
        if let Some(offset) = self.first_dirty {
            self.set_first_dirty(offset);
        }
    }

    /// How often compaction has replaced segments. The files of segments in an older view may be
    /// gone.
    pub fn replacements(&self) -> u64 {
        self.replacements
    }

    /// Bytes of the `.log` files of all segments.
    pub fn size(&self) -> u64 {
        self.view().size()
    }

    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.latest().map(|entry| entry.epoch)
    }

    /// Entries of the leader epoch cache, ascending.
    pub fn epochs(&self) -> &[EpochEntry] {
        self.epochs.entries()
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.epochs.epoch_for_offset(offset)
    }

    /// A copy of the leader epoch cache as it is when `epoch` leads. If the leader has not written
    /// in its epoch yet, the epoch starts at the log end. The file gets the entry with the first
    /// record. A negative `epoch` adds nothing.
    pub fn epochs_led_by(&self, epoch: i32) -> Epochs {
        let mut epochs = self.epochs.clone();
        if epoch >= 0 && epochs.latest().is_none_or(|latest| latest.epoch < epoch) {
            epochs.assign(epoch, self.log_end);
        }
        epochs
    }

    /// Returns the largest epoch up to `epoch` with its end offset; `None` if the leader epoch
    /// cache does not have the answer (KIP-101, KIP-320).
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        self.epochs.end_offset_for(epoch, self.log_end)
    }

    /// Returns the offset to which a follower truncates this log (KIP-595). The argument is the
    /// leader's answer: an epoch and its end offset in the leader's log. If this log does not have
    /// the epoch, the result is the end of the epoch before it, which the follower compares next.
    pub fn truncation_offset(&self, (epoch, end_offset): (i32, i64)) -> i64 {
        match self.end_offset_for_epoch(epoch) {
            Some((known, own_end)) if known == epoch => own_end.min(end_offset),
            Some((_, own_end)) => own_end,
            None => end_offset,
        }
    }

    /// First offset of the oldest transaction that is open or whose marker is not yet below the
    /// high watermark. At least the log start. The last stable offset cannot pass it.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        self.producers.first_unstable_offset().map(|first| first.max(self.log_start))
    }

    /// Receives the high watermark. Ended transactions whose markers are below it no longer hold
    /// back the last stable offset.
    pub fn note_high_watermark(&mut self, high_watermark: i64) {
        self.producers.forget_ended_below(high_watermark);
    }

    /// Forgets all producers ([`Bug::NoProducerState`](crate::base::planted_bugs::Bug)).
    pub(crate) fn forget_producers(&mut self) {
        self.producers = Producers::starting_at(self.log_end);
    }

    /// Open transactions as pairs of first offset and producer id, in the order of first offsets.
    pub fn open_transactions(&self) -> impl ExactSizeIterator<Item = (i64, i64)> {
        self.producers.open_transactions()
    }

    /// Compares the epoch and sequence of a client's batch with the producer's earlier batches. A
    /// transactional batch needs an open transaction.
    pub fn check_producer(&self, header: &BatchHeader) -> Result<ProducerCheck, ProducerError> {
        self.check_verified(header, Verification::MustBeOpen)
    }

    /// Checks a batch as [`Log::check_producer`] does. A transactional batch may begin a
    /// transaction if `verification` allows it.
    pub fn check_verified(
        &self,
        header: &BatchHeader,
        verification: Verification,
    ) -> Result<ProducerCheck, ProducerError> {
        let requires_zero = self.config.requires_first_sequence_zero && self.log_end() == 0;
        self.producers.check(header, verification, requires_zero)
    }

    /// Checks that the producer may write in a transaction: it is open, or `verification` allows to
    /// begin it.
    pub fn check_transaction(
        &self,
        producer: Producer,
        verification: Verification,
    ) -> Result<(), ProducerError> {
        self.producers.check_transaction(producer, verification)
    }

    /// Fails if the last seen epoch of the producer is newer. A coordinator's batches need no other
    /// check.
    pub fn check_producer_epoch(&self, producer: Producer) -> Result<(), ProducerError> {
        self.producers.check_epoch(producer)
    }

    /// Checks the epochs of a marker that the leader is about to append.
    pub fn check_marker(&self, marker: &TxnMarker) -> Result<(), ProducerError> {
        self.producers.check_marker(marker)
    }

    /// The offset of the producer's last marker, if `marker` equals it and no transaction has begun
    /// since. Also `None` if the last marker is not known, because this log was opened after it.
    pub fn offset_of_marker(&self, marker: &TxnMarker) -> Option<i64> {
        self.producers.offset_of_marker(marker)
    }

    /// Returns the guard for a producer's first batch in a transaction, or `None` if its transaction
    /// is open in this log. `sequence` is that of the batch, or -1 if it has none. An appended batch
    /// or marker of the producer, a newer epoch, and a truncation void the guard.
    pub fn verification_guard(
        &mut self,
        producer: Producer,
        sequence: i32,
        version: TransactionVersion,
        now_ms: i64,
    ) -> Result<Option<VerificationGuard>, ProducerError> {
        self.producers.verification_guard(producer, sequence, version, now_ms)
    }

    /// Producer ids with their states, in no particular order.
    pub fn producers(&self) -> impl ExactSizeIterator<Item = (i64, &ProducerEntry)> {
        self.producers.iter()
    }

    /// Removes producers that have no open transaction and have not written for
    /// `producer.id.expiration.ms`.
    pub fn expire_producers(&mut self, now_ms: i64) {
        self.producers.expire(now_ms.saturating_sub(self.config.producer_id_expiration_ms));
    }

    /// Records that `epoch` starts at the log end. A new leader calls it before it writes anything
    /// in its epoch.
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
        let written = replace_file(&*self.disk, &path, text.as_bytes(), FileDurability::PageCache);
        written.during("write", &path)
    }

    fn epochs_path(&self) -> PathBuf {
        self.dir.join(names::LEADER_EPOCH_CHECKPOINT)
    }

    /// Fails if an earlier operation has left the log in a state that only a start can mend.
    fn check_writable(&self) -> Result<(), LogError> {
        match self.failed {
            true => Err(LogError::Failed { dir: self.dir.to_path_buf() }),
            false => Ok(()),
        }
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
