//! Restoring the state of a log's producers: from its newest snapshot, what lies just before it,
//! and what follows it. With it come the transaction indexes. And fitting the leader epochs to the
//! log's bounds.

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

/// How much before a snapshot is read again, for the batches that it does not tell of: this many
/// bytes of batches, or so many records where they are large. Of each batch the header is read.
const RECALL_BYTES: u64 = 256 << 10;
const RECALL_RECORDS: i64 = 1 << 12;
const RECALL_RECORDS_BYTES: u64 = 64 << 20;
/// Producers that wrote before this repeat nothing any more: more than twice the time in which
/// Kafka's clients give up (`delivery.timeout.ms`).
const RECALL_MS: i64 = 5 * 60 * 1000;

/// What was read from the log, from an offset to its end.
struct Replayed {
    from: i64,
    batches: u64,
    aborted: Vec<AbortedTxn>,
}

impl Log {
    /// Restores the producers' state, and the transaction indexes from where the producers are read
    /// from the log. From `plain_from` on no batch is any producer's, as the log's check has seen.
    /// The transaction indexes of the segments from `aborted_from` on are damaged or missing.
    pub(super) fn settle_producers(
        &mut self,
        start: &LogStart,
        (plain_from, aborted_from): (Option<i64>, Option<i64>),
        recovery: &mut Recovery,
    ) -> Result<(), LogError> {
        let newest = match start.clean {
            true => self.log_end,
            // What comes later may be from a log that was cut since.
            false => self.log_end.min(self.settled),
        };
        self.drop_snapshots(newest.min(aborted_from.unwrap_or(i64::MAX)))?;
        if start.clean && self.snapshots.is_empty() && aborted_from.is_none() {
            self.producers = Producers::starting_at(self.log_end);
            return Ok(());
        }
        let expired = start.now_ms.saturating_sub(self.config.producer_id_expiration_ms);
        let recalled = start.now_ms.saturating_sub(RECALL_MS);
        let replayed = self.load_producers(expired, recalled, plain_from)?;
        recovery.replayed_batches = replayed.batches;
        recovery.rebuilt_txn_indexes = self.rebuild_aborted(replayed.from, &replayed.aborted)?;
        Ok(())
    }

    /// Removes snapshots after `newest`, and those that are neither the last nor at a segment's
    /// start (Kafka's `removeStraySnapshots`).
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

    /// The same after a cut.
    pub(super) fn reload_producers(&mut self) -> Result<(), LogError> {
        self.drop_snapshots(self.log_end)?;
        self.load_producers(i64::MIN, i64::MIN, None).map(|_| ())
    }

    fn load_producers(
        &mut self,
        expired_before_ms: i64,
        recalled_since_ms: i64,
        plain_from: Option<i64>,
    ) -> Result<Replayed, LogError> {
        self.producers = Producers::starting_at(self.log_start);
        for offset in self.snapshots.clone().into_iter().rev() {
            let path = names::file(&self.dir, offset, Kind::Snapshot);
            let bytes = match read_file(&*self.disk, &path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    // An older one, or the log, has the same.
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
        self.producers.advance_to(self.log_end);
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

    /// A snapshot has the last batch of each producer, as Kafka's format wants it; but a producer
    /// may repeat the four before it too, if it did not hear that they were written. They are read
    /// from what lies just before the snapshot's offset.
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

    /// Fits the epochs to the log's bounds and writes them if they are no longer what the file has.
    pub(super) fn settle_epochs(&mut self, loaded: Option<&Epochs>) -> Result<(), LogError> {
        self.epochs.truncate_from_end(self.log_end);
        self.epochs.truncate_from_start(self.log_start);
        if loaded == Some(&self.epochs) {
            return Ok(());
        }
        match self.write_epochs() {
            // There is no room for them: without the file, a start takes them from the log.
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

/// Finds an offset in a segment; nothing where bytes are damaged, which are for readers to tell.
fn find_whole(segment: &Segment, offset: i64, end: u64) -> Result<Option<Place>, LogError> {
    match segment.find(offset, end) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        other => other.during("read", &segment.path(Kind::Log)),
    }
}

/// A segment, and a position in it, from which what is to be recalled lies before `offset`.
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
