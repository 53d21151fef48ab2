//! A disk that discards writes, so that a bench measures the log itself and not the file system.

use std::{
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    path::Path,
    sync::Arc,
};

use sordini::log::{
    Disk, DiskFile, RealDisk,
    disk::{DirEntry, DirLock, OpenMode},
};

/// The real disk, but bytes written to files are discarded.
#[derive(Debug)]
pub struct Discarding;

#[derive(Debug)]
struct DiscardingFile(Arc<dyn DiskFile>);

impl Disk for Discarding {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(DiscardingFile(RealDisk.open(path, mode)?)))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        RealDisk.len(path)
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        RealDisk.modified_ms(path)
    }

    fn set_modified_ms(&self, path: &Path, modified_ms: i64) -> io::Result<()> {
        RealDisk.set_modified_ms(path, modified_ms)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        RealDisk.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn mounting(&self, path: &Path) -> Option<String> {
        RealDisk.mounting(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        RealDisk.lock(path)
    }
}

impl DiskFile for DiscardingFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buf, position)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        self.0.reserve(position, len)
    }

    fn raw_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.raw_fd()
    }

    fn is_cached(&self, position: u64, len: usize) -> bool {
        self.0.is_cached(position, len)
    }
}
