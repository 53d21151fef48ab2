//! Remembers the files and directories that a start creates, so that a start that fails can remove
//! them.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::log::disk::Disk;

/// Directories and files that did not exist before the start.
#[derive(Debug, Default)]
pub(super) struct CreatedPaths {
    dirs: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl CreatedPaths {
    /// Notes the missing part of a directory's path before it is created.
    pub fn before_create_dir(&mut self, disk: &dyn Disk, path: &Path) {
        let is_missing = |path: &&Path| {
            !path.as_os_str().is_empty()
                && disk.list(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        self.dirs.extend(path.ancestors().take_while(is_missing).last().map(Path::to_owned));
    }

    /// Notes a missing file before it is created.
    pub fn before_create_file(&mut self, disk: &dyn Disk, path: PathBuf) {
        if disk.len(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            self.files.push(path);
        }
    }

    /// Forgets all paths in a directory that another process uses, so that [`Self::remove_all`]
    /// keeps it.
    pub fn forget_dir(&mut self, path: &Path) {
        self.files.retain(|file| !file.starts_with(path));
        self.dirs.retain(|dir| !path.starts_with(dir));
    }

    /// Removes what this start has created. Ignores failures.
    pub fn remove_all(&self, disk: &dyn Disk) {
        for path in &self.files {
            let _ = disk.remove_file(path);
        }
        for path in self.dirs.iter().rev() {
            let _ = disk.remove_dir_all(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::faulty::FaultyDisk;

    #[test]
    fn directory_of_another_process_is_kept() {
        let disk = FaultyDisk::default();
        disk.create_dir_all(Path::new("/")).expect("is made");
        let mut created = CreatedPaths::default();
        for path in ["/ours", "/theirs"].map(Path::new) {
            created.before_create_dir(&disk, path);
            disk.create_dir_all(path).expect("is made");
        }
        created.forget_dir(Path::new("/theirs"));
        created.remove_all(&disk);
        assert!(disk.list(Path::new("/ours")).is_err());
        assert!(disk.list(Path::new("/theirs")).is_ok());
    }
}
