//! The files of a segment under the names that they have now. A deletion or a compaction renames
//! files while readers still hold the segment, and another segment may then get the same names. A
//! reader that opens a file late gets the segment's own file or an error, but never the file of
//! another segment.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;

use super::super::{
    LogError,
    disk::{Disk, DiskFile, OpenMode},
    error::During,
    names::{self, Kind},
};
use crate::base::planted_bugs::{Bug, has_bug};

/// The files that belong to one segment only. A producer snapshot belongs to its offset in the log.
pub const OWN_KINDS: [Kind; 4] = [Kind::Log, Kind::Index, Kind::TimeIndex, Kind::TxnIndex];

/// The path of a log's directory, as all its segments see it. A deletion renames the directory
/// while readers still hold segments. A new topic may then get the old name, so segments must
/// follow the rename.
#[derive(Debug)]
pub struct Home(RwLock<Arc<Path>>);

impl Home {
    pub fn new(dir: Arc<Path>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(dir)))
    }

    /// Sets the new path. The caller has renamed the directory, and nothing else may have got the
    /// old name yet.
    pub fn set(&self, dir: Arc<Path>) {
        *self.0.write() = dir;
    }

    pub fn dir(&self) -> Arc<Path> {
        Arc::clone(&self.0.read())
    }
}

/// Which names the files of a segment have. The owner of the log changes it before another segment
/// can get a name that this segment loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    /// The names of the base offset with this suffix, which is empty for a segment of the log.
    Named(&'static str),
    /// Each file has its name of before, or already the new one.
    Renaming { from: &'static str, to: &'static str },
    /// The files are removed, or will be at once.
    Removed,
}

/// The suffix of a segment's files while it is part of its log.
const LIVE: &str = "";

/// The files of one segment.
#[derive(Debug)]
pub struct SegmentFiles {
    pub disk: Arc<dyn Disk>,
    home: Arc<Home>,
    base_offset: i64,
    state: RwLock<FileState>,
}

impl SegmentFiles {
    /// The files of a segment that is part of its log.
    pub fn new(disk: Arc<dyn Disk>, home: Arc<Home>, base_offset: i64) -> Self {
        Self::with_suffix(disk, home, base_offset, LIVE)
    }

    /// The files of a segment that compaction writes (`*.cleaned`).
    pub fn cleaned(disk: Arc<dyn Disk>, home: Arc<Home>, base_offset: i64) -> Self {
        Self::with_suffix(disk, home, base_offset, names::CLEANED)
    }

    fn with_suffix(
        disk: Arc<dyn Disk>,
        home: Arc<Home>,
        base_offset: i64,
        suffix: &'static str,
    ) -> Self {
        Self { disk, home, base_offset, state: RwLock::new(FileState::Named(suffix)) }
    }

    /// The path of a file. While the files are renamed, it is the path of before; after they are
    /// deleted, the one that they had in the log.
    pub fn path(&self, kind: Kind) -> PathBuf {
        let suffix = match self.state() {
            FileState::Named(names::DELETED) | FileState::Removed => LIVE,
            FileState::Named(suffix) | FileState::Renaming { from: suffix, .. } => suffix,
        };
        self.path_with(&self.home.dir(), kind, suffix)
    }

    fn path_with(&self, dir: &Path, kind: Kind, suffix: &str) -> PathBuf {
        names::with_suffix(&names::file(dir, self.base_offset, kind), suffix)
    }

    fn state(&self) -> FileState {
        *self.state.read()
    }

    /// Whether the segment is still part of its log, or not part of it yet, as far as its files
    /// show.
    pub fn is_live(&self) -> bool {
        match self.state() {
            FileState::Named(suffix) | FileState::Renaming { to: suffix, .. } => {
                suffix != names::DELETED
            }
            FileState::Removed => false,
        }
    }

    /// Whether the files wait for their final names ([`Self::mark_live`]).
    pub fn is_swap(&self) -> bool {
        match self.state() {
            FileState::Named(suffix) | FileState::Renaming { from: suffix, .. } => {
                suffix == names::SWAP
            }
            FileState::Removed => false,
        }
    }

    /// Opens one of the files. A deleted segment's file is opened for reading only. Fails with
    /// `NotFound` if the file does not exist or was removed.
    ///
    /// If the directory or the file got another name meanwhile, the opened file may be that of
    /// another segment, so the file is opened again.
    pub fn open(&self, kind: Kind, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        loop {
            let (dir, state) = (self.home.dir(), self.state());
            let open = |suffix| {
                let mode = if suffix == names::DELETED { OpenMode::Read } else { mode };
                self.disk.open(&self.path_with(&dir, kind, suffix), mode)
            };
            let opened = match state {
                FileState::Named(suffix) => open(suffix),
                FileState::Renaming { from, to } => match open(from) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => open(to),
                    opened => opened,
                },
                FileState::Removed => {
                    Err(io::Error::new(io::ErrorKind::NotFound, "the segment was deleted"))
                }
            };
            if Arc::ptr_eq(&dir, &self.home.dir()) && state == self.state() {
                return opened;
            }
        }
    }

    /// Renames the files, and the producer snapshot at the base offset, to `*.deleted`. Readers can
    /// open them until they are removed.
    pub fn mark_deleted(&self) -> Result<(), LogError> {
        self.rename(names::DELETED, &Kind::ALL)
    }

    /// Renames the files to `*.deleted`, because those of a new segment take their place. The
    /// producer snapshot keeps its name.
    pub fn mark_replaced(&self) -> Result<(), LogError> {
        self.rename(names::DELETED, &OWN_KINDS)?;
        if has_bug(Bug::ReopenedByOldName) {
            *self.state.write() = FileState::Named(LIVE);
        }
        Ok(())
    }

    /// Renames the files of a complete new segment to `*.swap`.
    pub fn mark_swap(&self) -> Result<(), LogError> {
        self.rename(names::SWAP, &OWN_KINDS)
    }

    /// Gives the files of a new segment their final names.
    pub fn mark_live(&self) -> Result<(), LogError> {
        self.rename(LIVE, &OWN_KINDS)
    }

    fn rename(&self, to: &'static str, kinds: &[Kind]) -> Result<(), LogError> {
        let from = match self.state() {
            FileState::Named(from) | FileState::Renaming { from, .. } => from,
            FileState::Removed => return Ok(()),
        };
        *self.state.write() = FileState::Renaming { from, to };
        let dir = self.home.dir();
        for kind in kinds {
            let path = self.path_with(&dir, *kind, from);
            match self.disk.rename(&path, &self.path_with(&dir, *kind, to)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed.during("rename", &path)?,
            }
        }
        *self.state.write() = FileState::Named(to);
        Ok(())
    }

    /// Removes the files that [`Self::mark_deleted`] or [`Self::mark_replaced`] has renamed, unless
    /// those of another segment have replaced them.
    pub fn remove_deleted(&self) -> Result<(), LogError> {
        let dir = self.home.dir();
        match self.give_up_names() {
            true => {
                self.remove_each(Kind::ALL.map(|kind| self.path_with(&dir, kind, names::DELETED)))
            }
            false => Ok(()),
        }
    }

    /// Removes the files at once, but not the producer snapshot. A reader that has the `.log` file
    /// open can still read it.
    pub fn remove(&self) -> Result<(), LogError> {
        let suffixes = match self.state() {
            FileState::Named(suffix) => vec![suffix],
            FileState::Renaming { from, to } => vec![to, from],
            FileState::Removed => return Ok(()),
        };
        let kinds = match suffixes.contains(&names::SWAP) {
            // A start completes a replacement while its `*.swap` files have a log. Without an offset
            // index, it builds the transaction index again, too.
            true => [Kind::Index, Kind::TimeIndex, Kind::TxnIndex, Kind::Log],
            false => OWN_KINDS,
        };
        self.give_up_names();
        let dir = self.home.dir();
        let path = |suffix| kinds.map(|kind| self.path_with(&dir, kind, suffix));
        self.remove_each(suffixes.into_iter().flat_map(path))
    }

    /// Ends the use of the files' names, because the files are removed or because those of another
    /// segment will replace them. Returns whether the segment still used its names.
    pub fn give_up_names(&self) -> bool {
        let before = std::mem::replace(&mut *self.state.write(), FileState::Removed);
        before != FileState::Removed
    }

    fn remove_each(&self, paths: impl IntoIterator<Item = PathBuf>) -> Result<(), LogError> {
        for path in paths {
            match self.disk.remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.during("remove", &path)?,
            }
        }
        Ok(())
    }
}
