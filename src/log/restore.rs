//! Restoring the state of a log's producers after it was opened or truncated: from the newest
//! snapshot, the batches just before it, and the batches after it. The same pass rebuilds
//! transaction indexes. Also fits the leader epochs to the log's bounds.

use std::{
    collections::{BTreeSet, HashMap},
    io,
};

use super::{
    Epochs, Log, LogError, LogStart, LogView, Recovery,
    aborted::AbortedTxn,
    disk::read_file,
    error::During,
    names::{self, Kind},
    producers::Producers,
    segment::{Place, Segment},
    snapshot,
    walk::{Step, Walk, read_batch},
};
use crate::records::{Batch, BatchHeader};

/// How much is read before a snapshot, to find batches that it does not contain: up to 16,384
/// records if they have at most this many bytes, else up to 4,096 records of at most 64 MiB. Only
/// the headers of batches are read.
const RECALL_BYTES: u64 = 256 << 10;
const RECALL_RECORDS: i64 = 1 << 12;
const RECALL_RECORDS_BYTES: u64 = 64 << 20;
/// A producer that has not written for this time, in ms, no longer repeats batches: by default,
/// clients stop retrying after two minutes (`delivery.timeout.ms`).
const RECALL_MS: i64 = 5 * 60 * 1000;

/// The result of reading a log from an offset to its end.
struct Replayed {
    from: i64,
    batches: u64,
    aborted: Vec<AbortedTxn>,
}

impl Log {
    /// Restores the producers' state. Rebuilds the transaction indexes from the offset at which
    /// this starts to read batches. No batch from `plain_from` on has a producer id, as the check
    /// of the log has found. The transaction indexes of segments from `aborted_from` on are damaged
    /// or missing.
    pub(super) fn settle_producers(
        &mut self,
        start: &LogStart,
        (plain_from, aborted_from): (Option<i64>, Option<i64>),
        recovery: &mut Recovery,
    ) -> Result<(), LogError> {
        let newest = match start.clean {
            true => self.log_end,
            // A later snapshot may be from a log that was truncated since.
            false => self.log_end.min(self.settled),
        };
        self.drop_snapshots(newest.min(aborted_from.unwrap_or(i64::MAX)))?;
        if start.clean && self.snapshots.is_empty() && aborted_from.is_none() {
            self.producers = Producers::starting_at(self.log_end);
            return Ok(());
        }
        let expired = start.now_ms.saturating_sub(self.config.producer_id_expiration_ms);
        let recalled = start.now_ms.saturating_sub(RECALL_MS);
        let replayed = self.load_producers((expired, recalled), plain_from, i64::MAX)?;
        recovery.replayed_batches = replayed.batches;
        recovery.rebuilt_txn_indexes = self.rebuild_aborted(replayed.from, &replayed.aborted)?;
        Ok(())
    }

    /// Removes snapshots after `newest`, and those that are neither the last one nor at the base
    /// offset of a segment (Kafka's `removeStraySnapshots`).
    pub(super) fn drop_snapshots(&mut self, newest: i64) -> Result<(), LogError> {
        let last = self.snapshots.iter().copied().rfind(|offset| *offset <= newest);
        let bases: BTreeSet<i64> =
            self.segments.iter().map(|segment| segment.base_offset).collect();
        let is_kept =
            |offset: &i64| *offset <= newest && (Some(*offset) == last || bases.contains(offset));
        let (kept, dropped): (Vec<i64>, Vec<i64>) =
            self.snapshots.iter().partition(|offset| is_kept(offset));
        self.snapshots = kept;
        dropped.into_iter().try_for_each(|offset| self.remove_snapshot(offset))
    }

    /// Restores the producers' state after the log was truncated. Starts at a snapshot below the
    /// high watermark, so that the state has all transactions whose markers are not below it.
    pub(super) fn reload_producers(&mut self, high_watermark: i64) -> Result<(), LogError> {
        self.drop_snapshots(self.log_end)?;
        self.load_producers((i64::MIN, i64::MIN), None, high_watermark).map(|_| ())
    }

    /// Loads the newest usable snapshot up to `newest`, and replays the log from there.
    fn load_producers(
        &mut self,
        (expired_before_ms, recalled_since_ms): (i64, i64),
        plain_from: Option<i64>,
        newest: i64,
    ) -> Result<Replayed, LogError> {
        self.producers = Producers::starting_at(self.log_start);
        let usable = self.snapshots.iter().copied().filter(|offset| *offset <= newest);
        for offset in usable.rev().collect::<Vec<_>>() {
            let path = names::file(&self.dir, offset, Kind::Snapshot);
            let bytes = match read_file(&*self.disk, &path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    // An older snapshot or the log has the same state.
                    tracing::warn!(path = %path.display(), %error, "producer snapshot not read");
                    continue;
                }
            };
            match snapshot::decode(&bytes) {
                Ok(entries) => {
                    let producers = Producers::from_snapshot(offset, entries, expired_before_ms);
                    self.producers = producers;
                    if self.producers.wrote_since(recalled_since_ms) {
                        self.recall_batches(offset)?;
                    }
                    break;
                }
                Err(_) => {
                    self.remove_snapshot(offset)?;
                    self.snapshots.retain(|other| *other != offset);
                }
            }
        }
        let replayed = self.replay_producers(plain_from.unwrap_or(i64::MAX))?;
        self.producers.includes_all_before(self.log_end);
        Ok(replayed)
    }

    fn replay_producers(&mut self, until: i64) -> Result<Replayed, LogError> {
        let view = self.view();
        let from = self.producers.end_offset();
        let mut replayed = Replayed { from, batches: 0, aborted: Vec::new() };
        if from >= self.log_end.min(until) {
            return Ok(replayed);
        }
        for index in view.segment_at(from)..view.segments.len() {
            let segment = &view.segments[index];
            let path = segment.path(Kind::Log);
            let end = view.end_of(index);
            let place = find_whole(segment, from, end)?;
            let Some(place) = place else { continue };
            let file = segment.file().during("open", &path)?;
            let mut walk = Walk::headers(&*file, place.position, end);
            while let Step::Batch { header, position } = walk.step().during("read", &path)? {
                if header.base_offset >= until {
                    return Ok(replayed);
                }
                replayed.batches += 1;
                let batch = match header.is_control() {
                    true => read_batch(&*file, &header, position).during("read", &path)?,
                    false => Batch { header, payload: bytes::Bytes::new() },
                };
                replayed.aborted.extend(self.producers.apply(&batch));
            }
            if index + 1 < view.segments.len() {
                segment.close_file();
            }
        }
        Ok(replayed)
    }

    /// Reads the batches just before a snapshot's offset. In Kafka's format, a snapshot has only
    /// the last batch of each producer. But a producer may also repeat the four batches before that
    /// one, if it has not received the responses.
    fn recall_batches(&mut self, offset: i64) -> Result<(), LogError> {
        let view = self.view();
        let Some((first, position)) = place_before(&view, offset)? else { return Ok(()) };
        let mut recalled: HashMap<i64, Vec<BatchHeader>> = HashMap::new();
        for index in first..view.segments.len() {
            let segment = &view.segments[index];
            if segment.base_offset >= offset {
                break;
            }
            let path = segment.path(Kind::Log);
            let file = segment.file().during("open", &path)?;
            let from = if index == first { position } else { 0 };
            let mut walk = Walk::headers(&*file, from, view.end_of(index));
            while let Step::Batch { header, .. } = walk.step().during("read", &path)? {
                if header.base_offset >= offset {
                    break;
                }
                if header.has_producer_id() && !header.is_control() {
                    let batches = recalled.entry(header.producer_id).or_default();
                    batches.push(header);
                }
            }
            if index + 1 < view.segments.len() {
                segment.close_file();
            }
        }
        self.producers.recall(&recalled);
        Ok(())
    }

    /// Removes leader epochs outside of the log, and writes the file if it does not have the result
    /// already.
    pub(super) fn settle_epochs(&mut self, loaded: Option<&Epochs>) -> Result<(), LogError> {
        self.epochs.truncate_from_end(self.log_end);
        self.epochs.truncate_from_start(self.log_start);
        if loaded == Some(&self.epochs) {
            return Ok(());
        }
        match self.write_epochs() {
            // The disk is full. Without the file, a start reads the epochs from the batches.
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                let path = self.epochs_path();
                match self.disk.remove_file(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    removed => removed.during("remove", &path),
                }
            }
            written => written,
        }
    }
}

/// Finds the batch of an offset in a segment. `None` also if bytes are damaged: readers report that
/// when they get there.
fn find_whole(segment: &Segment, offset: i64, end: u64) -> Result<Option<Place>, LogError> {
    match segment.find(offset, end) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        other => other.during("read", &segment.path(Kind::Log)),
    }
}

/// Where to start reading the batches before `offset`: the index of a segment and a position in it.
fn place_before(view: &LogView, offset: i64) -> Result<Option<(usize, u64)>, LogError> {
    let place = |offset: i64| -> Result<Option<(usize, u64)>, LogError> {
        let index = view.segment_at(offset);
        let segment = &view.segments[index];
        let found = find_whole(segment, offset, view.end_of(index))?;
        Ok(found.map(|place| (index, place.position)))
    };
    let Some((last, end)) = place(offset - 1)? else { return Ok(None) };
    let first_offset = view.first_base_offset();
    for back in (0..=14).rev().map(|power| 1 << power) {
        let Some((first, position)) = place((offset - back).max(first_offset))? else { continue };
        let between: u64 = (first..last).map(|index| view.end_of(index)).sum();
        let allowed = if back <= RECALL_RECORDS { RECALL_RECORDS_BYTES } else { RECALL_BYTES };
        if between + end - position <= allowed {
            return Ok(Some((first, position)));
        }
    }
    Ok(None)
}
