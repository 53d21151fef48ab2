//! Making a log durable without blocking its owner: [`Log::begin_flush`] collects what to sync,
//! [`Flush::run`] syncs it on any thread, and [`Log::flushed`] moves the recovery point. Appends
//! continue meanwhile. All records appended before `begin_flush` share one sync.
//!
//! Settling a log ([`Log::settle`]) writes index entries and a producer snapshot, so that a start
//! after a crash of the process reads little. It does not sync, because producers would wait for
//! the disk. A flush of many bytes settles the log, too.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Log, LogError,
    disk::{Disk, OpenMode},
    error::During,
    names::{self, Kind},
    segment::Segment,
};

/// A flush of at least this many bytes also settles the log.
const SETTLE_BYTES: u64 = 1 << 20;

/// The files and directories to sync so that everything before an offset is durable.
#[derive(Debug)]
#[must_use = "nothing is durable before it has run"]
pub struct Flush {
    disk: Arc<dyn Disk>,
    active: Arc<Segment>,
    sealed: Vec<Arc<Segment>>,
    /// Segments whose index files to sync.
    indexes: Vec<Arc<Segment>>,
    /// Producer snapshots to sync, if they exist. A start finds a torn one by its CRC.
    snapshots: Vec<PathBuf>,
    /// Leader epoch file and transaction indexes to sync, if they exist.
    required: Vec<PathBuf>,
    dirs: Vec<PathBuf>,
    done: Flushed,
}

/// What a flush has synced, for [`Log::flushed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushed {
    offset: i64,
    generation: u64,
    epochs: u64,
    dir: u64,
}

impl Flushed {
    /// Everything before this offset is durable.
    pub fn offset(&self) -> i64 {
        self.offset
    }
}

impl Flush {
    /// Syncs everything. Any thread may call it. After an error it is unknown what is on the disk,
    /// so the caller must take the log directory offline. Index files and snapshots are hints: if
    /// one cannot be synced, that is no error.
    pub fn run(&self) -> Result<Flushed, LogError> {
        for segment in self.sealed.iter().chain([&self.active]) {
            let path = segment.path(Kind::Log);
            match segment.file() {
                Ok(file) => file.sync_data().during("sync", &path)?,
                // The segment was deleted meanwhile and needs no sync.
                Err(error)
                    if error.kind() == std::io::ErrorKind::NotFound && !segment.files.is_live() => {
                }
                Err(error) => return Err(error).during("open", &path),
            }
        }
        for segment in &self.indexes {
            segment.sync_indexes().during("remove the indexes of", &segment.path(Kind::Log))?;
        }
        for path in &self.snapshots {
            if let Err(error) = self.sync_if_there(path) {
                tracing::warn!(%error, "producer snapshot not synced");
            }
        }
        for path in &self.required {
            self.sync_if_there(path)?;
        }
        for dir in &self.dirs {
            self.disk.sync_dir(dir).during("sync", dir)?;
        }
        Ok(self.done)
    }

    fn sync_if_there(&self, path: &Path) -> Result<(), LogError> {
        match self.disk.open(path, OpenMode::Write) {
            Ok(file) => file.sync_data().during("sync", path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).during("open", path),
        }
    }
}

impl Log {
    /// Collects what to sync so that everything before the log end is durable; `None` if it is
    /// already. If an entry of a transaction index cannot be written, the flush counts only up to
    /// its marker.
    pub fn begin_flush(&mut self) -> Option<Flush> {
        if self.log_end == self.recovery_point
            && self.unsynced.is_empty()
            && !self.epochs_changes.pending()
            && !self.dir_changes.pending()
        {
            return None;
        }
        let unwritten = self.write_aborted();
        let is_much = self.unsettled >= SETTLE_BYTES;
        if is_much {
            self.settle();
        }
        let is_indexed = self.complete_sealed_indexes();
        let mut indexes: Vec<Arc<Segment>> = Vec::with_capacity(self.unsynced.len() + 1);
        let mut required = Vec::new();
        let mut snapshots = Vec::new();
        for (_, segment) in &self.unsynced {
            indexes.push(segment.clone());
            if segment.take_aborted_dirty() || segment.has_aborted() {
                required.push(segment.path(Kind::TxnIndex));
            }
            let end = segment.base_offset;
            let next = self.segments.iter().find(|other| other.base_offset > end);
            let snapshot = next.map(|next| next.base_offset);
            if let Some(snapshot) = snapshot.filter(|offset| self.snapshots.contains(offset)) {
                snapshots.push(names::file(&self.dir, snapshot, Kind::Snapshot));
            }
        }
        if let Some(snapshot) = self.snapshots.last().filter(|_| is_much) {
            snapshots.push(names::file(&self.dir, *snapshot, Kind::Snapshot));
        }
        let active = &self.active.segment;
        if active.take_aborted_dirty() {
            required.push(active.path(Kind::TxnIndex));
        }
        if active.take_index_dirty() {
            indexes.push(active.clone());
        }
        required.extend(self.epochs_changes.pending().then(|| self.epochs_path()));
        let mut dirs = Vec::new();
        if self.dir_changes.pending() || self.epochs_changes.pending() {
            dirs.push(self.dir.to_path_buf());
        }
        dirs.extend(self.dir.parent().filter(|_| self.parent_dirty).map(Into::into));
        Some(Flush {
            disk: self.disk.clone(),
            active: active.clone(),
            sealed: self.unsynced.iter().map(|(_, segment)| segment.clone()).collect(),
            indexes,
            required,
            snapshots,
            dirs,
            done: Flushed {
                offset: match is_indexed {
                    true => unwritten.unwrap_or(self.log_end),
                    false => self.recovery_point,
                },
                generation: self.generation,
                epochs: self.epochs_changes.made,
                dir: self.dir_changes.made,
            },
        })
    }

    /// Completes the index files of segments that were closed since the last flush, or removes
    /// them. Returns false if neither is possible: the disk has failed, and the log accepts no more
    /// writes.
    fn complete_sealed_indexes(&mut self) -> bool {
        for (_, segment) in &self.unsynced {
            if let Err(error) = segment.complete_or_remove_indexes() {
                let path = segment.path(Kind::Log);
                tracing::error!(path = %path.display(), %error, "incomplete indexes not removed");
                self.failed = true;
                return false;
            }
        }
        true
    }

    /// Settles the log: writes index entries and a snapshot of the producers, so that a start after
    /// a crash of the process need not read what is before the log end. Nothing is synced, so this
    /// holds only until the machine restarts or the file system is mounted again.
    pub fn settle(&mut self) {
        if self.write_aborted().is_some() {
            return;
        }
        let sealed = self.unsynced.iter().map(|(_, segment)| segment);
        let mut written = Ok(());
        for segment in sealed.chain([&self.active.segment]) {
            let path = segment.path(Kind::Log);
            written = written.and(segment.write_indexes().during("write the indexes of", &path));
        }
        // Both are hints. Without them, a start reads more of the log.
        self.dir_changes.made += 1;
        match written.and_then(|()| self.take_snapshot()) {
            Ok(()) => {
                self.settled = self.log_end;
                self.unsettled = 0;
                self.drop_passed_snapshots();
            }
            Err(error) => {
                tracing::warn!(%error, "log not settled, a start after a crash reads more of it");
            }
        }
    }

    /// Receives the result of a flush and moves the recovery point, unless the log was truncated
    /// after the flush began.
    pub fn flushed(&mut self, flushed: Flushed) {
        self.epochs_changes.synced = self.epochs_changes.synced.max(flushed.epochs);
        self.dir_changes.synced = self.dir_changes.synced.max(flushed.dir);
        self.parent_dirty = false;
        if flushed.generation != self.generation {
            return;
        }
        let is_unsynced = |closed: u64, segment: &Segment| {
            closed > flushed.dir || segment.unwritten_aborted().is_some()
        };
        self.unsynced.retain(|(closed, segment)| is_unsynced(*closed, segment));
        self.recovery_point = self.recovery_point.max(flushed.offset);
        self.drop_passed_snapshots();
        self.check_invariants();
    }

    /// Removes old snapshots that are not at the base offset of a segment. Keeps the newest ones
    /// that a start may use: up to the settled offset after a crash of the process, up to the
    /// recovery point after a crash of the machine.
    pub(super) fn drop_passed_snapshots(&mut self) {
        let newest = |until| self.snapshots.iter().copied().rfind(|at| *at <= until);
        let of_use = [newest(self.recovery_point), newest(self.settled)];
        let is_kept = |at: &i64| {
            of_use.contains(&Some(*at))
                || *at > self.settled
                || self.segments.binary_search_by_key(at, |it| it.base_offset).is_ok()
        };
        let (kept, passed): (Vec<i64>, Vec<i64>) =
            self.snapshots.iter().partition(|at| is_kept(at));
        self.snapshots = kept;
        for offset in passed {
            // If this fails, the next start removes it.
            let _ = self.remove_snapshot(offset);
        }
    }

    /// Makes everything durable before it returns.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.write_all_aborted()?;
        if let Some(flush) = self.begin_flush() {
            let flushed = flush.run()?;
            self.flushed(flushed);
        }
        Ok(())
    }

    /// Closes the log for a clean stop: everything is durable, index files are complete or removed,
    /// and a snapshot has the producers' state. Returns the recovery point for the checkpoint. If
    /// the snapshot cannot be written, the log is durable, but the result is an error: the stop is
    /// not clean.
    pub fn close(&mut self) -> Result<i64, LogError> {
        self.check_writable()?;
        let active = self.active.segment.clone();
        if active.seal().is_err() {
            let removed = active.complete_or_remove_indexes();
            removed.during("remove the indexes of", &active.path(Kind::Log))?;
        }
        self.write_all_aborted()?;
        let had = self.snapshots.last().copied();
        let snapshot = self.take_snapshot();
        let flush = self.begin_flush();
        if let Some(snapshot) = self.snapshots.last().copied().filter(|last| Some(*last) != had) {
            let path = names::file(&self.dir, snapshot, Kind::Snapshot);
            let file = self.disk.open(&path, OpenMode::Write).during("open", &path)?;
            file.sync_data().during("sync", &path)?;
            self.disk.sync_dir(&self.dir).during("sync", &self.dir)?;
        }
        if let Some(flush) = flush {
            self.flushed(flush.run()?);
        }
        if active.take_index_dirty() {
            active.sync_indexes().during("remove the indexes of", &active.path(Kind::Log))?;
        }
        snapshot?;
        self.check_writable()?;
        Ok(self.recovery_point)
    }
}
