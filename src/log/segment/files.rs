//! The files of a segment under the names that they have now. A deletion renames files while
//! readers still hold the segment, and another segment may then get the same names. A reader that
//! opens a file late gets the segment's own file or an error, but never the file of another
//! segment.

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

    fn dir(&self) -> Arc<Path> {
        Arc::clone(&self.0.read())
    }
}

/// Which names the files of a segment have. The owner of the log changes it before another segment
/// can get a name that this segment loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    /// The names of the base offset, without a suffix.
    Live,
    /// Each file has its name of before, or already the one with the suffix `.deleted`.
    Deleting,
    /// The names with the suffix `.deleted`.
    Deleted,
    /// The files are removed, or will be at once.
    Removed,
}

/// The files of one segment.
#[derive(Debug)]
pub struct SegmentFiles {
    pub disk: Arc<dyn Disk>,
    home: Arc<Home>,
    base_offset: i64,
    state: RwLock<FileState>,
}

impl SegmentFiles {
    pub fn new(disk: Arc<dyn Disk>, home: Arc<Home>, base_offset: i64) -> Self {
        Self { disk, home, base_offset, state: RwLock::new(FileState::Live) }
    }

    /// The path of a file before the segment is deleted.
    pub fn path(&self, kind: Kind) -> PathBuf {
        names::file(&self.home.dir(), self.base_offset, kind)
    }

    fn state(&self) -> FileState {
        *self.state.read()
    }

    /// Whether the segment is still part of its log, as far as its files show.
    pub fn is_live(&self) -> bool {
        self.state() == FileState::Live
    }

    /// Opens one of the files. A deleted segment's file is opened for reading only. Fails with
    /// `NotFound` if the file does not exist or was removed.
    ///
    /// If the directory or the file got another name meanwhile, the opened file may be that of
    /// another segment, so the file is opened again.
    pub fn open(&self, kind: Kind, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        loop {
            let (dir, state) = (self.home.dir(), self.state());
            let path = names::file(&dir, self.base_offset, kind);
            let open_deleted = || self.disk.open(&names::deleted(&path), OpenMode::Read);
            let opened = match state {
                FileState::Live => self.disk.open(&path, mode),
                FileState::Deleting => match self.disk.open(&path, mode) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => open_deleted(),
                    opened => opened,
                },
                FileState::Deleted => open_deleted(),
                FileState::Removed => {
                    Err(io::Error::new(io::ErrorKind::NotFound, "the segment was deleted"))
                }
            };
            if Arc::ptr_eq(&dir, &self.home.dir()) && state == self.state() {
                return opened;
            }
        }
    }

    /// Renames the files to `*.deleted`. Readers can open them until they are removed.
    pub fn mark_deleted(&self) -> Result<(), LogError> {
        *self.state.write() = FileState::Deleting;
        for kind in Kind::ALL {
            let path = self.path(kind);
            match self.disk.rename(&path, &names::deleted(&path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed.during("rename", &path)?,
            }
        }
        *self.state.write() = FileState::Deleted;
        Ok(())
    }

    /// Removes the files that [`Self::mark_deleted`] has renamed, unless those of another segment
    /// have replaced them.
    pub fn remove_deleted(&self) -> Result<(), LogError> {
        match self.give_up_names() {
            true => self.remove_each(Kind::ALL.map(|kind| names::deleted(&self.path(kind)))),
            false => Ok(()),
        }
    }

    /// Removes the files at once, but not the producer snapshot. A reader that has the `.log` file
    /// open can still read it.
    pub fn remove(&self) -> Result<(), LogError> {
        self.give_up_names();
        let kinds = [Kind::Log, Kind::Index, Kind::TimeIndex, Kind::TxnIndex];
        self.remove_each(kinds.map(|kind| self.path(kind)))
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
