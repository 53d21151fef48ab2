//! The interface between the log and the file system. [`RealDisk`] is the machine's file system;
//! simulations and tests use another one.

use std::{
    cell::Cell,
    fmt::Debug,
    fs,
    io::{self, IoSlice, IoSliceMut},
    num::NonZeroU64,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{Advice, FallocateFlags, FlockOperation},
    io::{Errno, ReadWriteFlags},
};

use super::mount;

/// How a file is opened. Every mode but `Read` can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    Read,
    Write,
    /// Created if missing, otherwise kept as it is.
    Create,
    /// Created if missing, otherwise emptied.
    Truncate,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
}

/// A lock on a log directory. Dropping it releases the lock.
pub trait DirLock: Send + Sync + Debug {}

/// The operations of a file system that the log needs. Content of a file is durable after
/// [`DiskFile::sync_data`]; a new name is durable after [`Self::sync_dir`] of its directory. Any
/// operation may block for as long as the disk takes.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file. Fails with `NotFound` if it is missing and the mode does not create it.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Size of the file in bytes, without opening it.
    fn len(&self, path: &Path) -> io::Result<u64>;
    /// When the content of the file last changed, in ms since the epoch.
    fn modified_ms(&self, path: &Path) -> io::Result<i64>;
    /// Sets the time that [`Self::modified_ms`] returns.
    fn set_modified_ms(&self, path: &Path, modified_ms: i64) -> io::Result<()>;
    /// Renames a file or a directory. A file replaces one that has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates one directory. Returns false if it exists. Fails if the directory above it does not.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;
    /// Entries of the directory in no particular order, without names that are not UTF-8.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes the names in the directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// A name for the current mount of the file system that the directory is on. No other mount has
    /// it before the machine restarts. `None` if there is no such name, or if unsynced data can be
    /// lost while the file system stays mounted.
    fn mounting(&self, path: &Path) -> Option<String>;
    /// Locks a file exclusively. Fails with `WouldBlock` if another process holds the lock.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;
}

/// An open file. Each call passes an absolute position, so that readers and the one writer can
/// share a handle.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buf.len()` bytes and returns their number, which is 0 only at the end of the
    /// file. Implementations read through [`read_where_allowed`].
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes some of the bytes and returns their number.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes the content and size of the file durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves space for a write of `len` bytes, if the file system supports that. The size of the
    /// file stays the same.
    fn reserve(&self, position: u64, len: u64) -> io::Result<()>;
    /// The descriptor for `sendfile`; `None` if this is not a real file.
    fn raw_fd(&self) -> Option<BorrowedFd<'_>>;
    /// Whether the bytes are in the page cache, according to a few probes. False if the file system
    /// does not support such probes.
    fn is_cached(&self, position: u64, len: usize) -> bool;
    /// Asks the kernel to drop the bytes before `end` from the page cache. It keeps what is not
    /// synced yet, and may keep more. Does nothing if the file system has no page cache.
    fn drop_cached(&self, _end: u64) {}
}

/// Bytes between two probes of `is_cached`: the size of Linux's read-ahead.
const PROBE_BYTES: usize = 128 << 10;

thread_local! {
    static READS: Cell<Reads> = const { Cell::new(Reads::MayWait) };
}

/// How reads of files on this thread behave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    MayWait,
    /// A read fails if it would have to wait for the disk.
    FromCache,
    /// A read has failed for that reason, so all later ones fail, too.
    Refused,
}

/// Runs `work` with reads that never wait for the disk. Returns `None` if a read would have waited.
/// The result of the work is meaningless then, and the caller repeats the work on a blocking
/// thread.
pub fn without_waiting<T>(work: impl FnOnce() -> T) -> Option<T> {
    let _restored = RestoreReads(READS.replace(Reads::FromCache));
    let done = work();
    (!is_refusing_reads()).then_some(done)
}

/// Restores how reads of this thread behave when it is dropped, also after a panic.
struct RestoreReads(Reads);

impl Drop for RestoreReads {
    fn drop(&mut self) {
        READS.set(self.0);
    }
}

/// Whether a read has failed within [`without_waiting`], which will discard the result of the work.
/// The work must not act on errors of reads then.
pub fn is_refusing_reads() -> bool {
    READS.get() == Reads::Refused
}

/// Where a read may get its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadSource {
    Disk,
    /// The read fails with `WouldBlock` if the page cache does not have the bytes.
    PageCache,
}

/// Calls `read` with the source that this thread may read from at the moment. Every implementation
/// of [`DiskFile::read_at`] goes through it.
pub fn read_where_allowed(read: impl FnOnce(ReadSource) -> io::Result<usize>) -> io::Result<usize> {
    let read = match READS.get() {
        Reads::MayWait => return read(ReadSource::Disk),
        Reads::FromCache => read(ReadSource::PageCache),
        Reads::Refused => Err(io::ErrorKind::WouldBlock.into()),
    };
    if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        READS.set(Reads::Refused);
    }
    read
}

/// Reads a part of a file into the page cache. Call it on a thread that may block.
pub fn read_ahead(file: &dyn DiskFile, mut position: u64, mut len: usize) -> io::Result<()> {
    let mut scratch = vec![0; len.min(PROBE_BYTES)];
    while len > 0 {
        let wanted = len.min(scratch.len());
        match file.read_at(&mut scratch[..wanted], position)? {
            // The file is shorter than expected. The later send reports that.
            0 => return Ok(()),
            read => {
                position += read as u64;
                len -= read;
            }
        }
    }
    Ok(())
}

/// Reads only from the page cache. Fails with `WouldBlock` if the page is missing or if the file
/// system does not support such reads.
fn read_cached(file: &fs::File, buf: &mut [u8], position: u64) -> io::Result<usize> {
    let bufs = &mut [IoSliceMut::new(buf)];
    match rustix::io::preadv2(file, bufs, position, ReadWriteFlags::NOWAIT) {
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        read => Ok(read?),
    }
}

/// At most this many slices go into one `pwritev` (IOV_MAX).
const SLICES_MAX: usize = 1024;

/// Fills `buf`, or fails with `UnexpectedEof` at the end of the file.
pub fn read_exact_at(file: &dyn DiskFile, mut buf: &mut [u8], mut position: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buf = &mut buf[read..];
                position += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all slices, with one call of `write_vectored_at` unless the file accepts only a part of
/// them.
pub fn write_all_vectored_at(
    file: &dyn DiskFile,
    mut slices: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    // Removes empty slices at the front.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let count = slices.len().min(SLICES_MAX);
        match file.write_vectored_at(&slices[..count], position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut slices, written);
                position += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes`.
pub fn write_all_at(file: &dyn DiskFile, bytes: &[u8], position: u64) -> io::Result<()> {
    write_all_vectored_at(file, &mut [IoSlice::new(bytes)], position)
}

/// Reads a whole file.
pub fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; file.len()? as usize];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Whether the new content of a small file must be durable before the write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileDurability {
    /// The content survives a crash of the process, but a crash of the machine may lose it.
    PageCache,
    Synced,
}

/// Writes a whole file without a sync. A crash of the machine may leave a part of it.
pub fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Truncate)?;
    write_all_at(&*file, bytes, 0)
}

/// Replaces the content of a small file by renaming `<name>.tmp` to its name, so that a reader
/// finds either the old or the new content. The steps are those of Kafka's `CheckpointFile.write`.
pub fn replace_file(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    durability: FileDurability,
) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let file = disk.open(&temporary, OpenMode::Truncate)?;
    write_all_at(&*file, bytes, 0)?;
    if durability == FileDurability::Synced {
        file.sync_data()?;
    }
    disk.rename(&temporary, path)?;
    match (durability, path.parent()) {
        (FileDurability::Synced, Some(dir)) => disk.sync_dir(dir),
        _ => Ok(()),
    }
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(fs::File);

#[derive(Debug)]
struct RealLock {
    /// Closing the file releases the lock.
    _file: fs::File,
}

impl DirLock for RealLock {}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        options.create(matches!(mode, OpenMode::Create | OpenMode::Truncate));
        options.truncate(mode == OpenMode::Truncate);
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        let modified = fs::metadata(path)?.modified()?;
        let since_epoch = modified.duration_since(std::time::UNIX_EPOCH);
        Ok(since_epoch.map_or(0, |elapsed| elapsed.as_millis() as i64))
    }

    fn set_modified_ms(&self, path: &Path, modified_ms: i64) -> io::Result<()> {
        let since_epoch = Duration::from_millis(u64::try_from(modified_ms).unwrap_or(0));
        let file = fs::OpenOptions::new().write(true).open(path)?;
        file.set_modified(std::time::UNIX_EPOCH + since_epoch)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry { name, is_dir });
            }
        }
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn mounting(&self, path: &Path) -> Option<String> {
        mount::identity(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock { _file: file }))
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        read_where_allowed(|source| match source {
            ReadSource::Disk => self.0.read_at(buf, position),
            ReadSource::PageCache => read_cached(&self.0, buf, position),
        })
    }

    fn is_cached(&self, position: u64, len: usize) -> bool {
        let last = len.saturating_sub(1);
        let mut probes = (0..last).step_by(PROBE_BYTES).chain([last]);
        probes.all(|at| read_cached(&self.0, &mut [0], position + at as u64).is_ok())
    }

    fn drop_cached(&self, end: u64) {
        // A length of 0 would mean the whole file.
        if let Some(end) = NonZeroU64::new(end) {
            // If the file system does not support this, the kernel decides what it drops.
            let _ = rustix::fs::fadvise(&self.0, 0, Some(end), Advice::DontNeed);
        }
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.0, bufs, position)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, position, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn raw_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory beside the test program, because `/tmp` may be a tmpfs, which keeps all
    /// pages.
    fn dir_with_page_cache() -> tempfile::TempDir {
        let program = std::env::current_exe().expect("this program has a path");
        let target = program.parent().expect("it is in a directory");
        tempfile::tempdir_in(target).expect("temporary directory")
    }

    /// A file that was dropped from the page cache, on a file system that supports this.
    fn cold_file(dir: &Path, name: &str, len: usize) -> Arc<dyn DiskFile> {
        let path = dir.join(name);
        let file = RealDisk.open(&path, OpenMode::Create).expect("creates");
        write_all_at(&*file, &vec![7; len], 0).expect("writes");
        file.sync_data().expect("syncs");
        let fd = file.raw_fd().expect("a real file");
        rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed).expect("is dropped");
        file
    }

    /// On a busy machine, the kernel may keep pages that it is asked to drop. The waits between the
    /// attempts get longer.
    fn attempts() -> impl Iterator<Item = u64> {
        (0..20).inspect(|n| std::thread::sleep(std::time::Duration::from_millis(10 * n)))
    }

    #[test]
    fn reads_that_would_wait_are_refused_until_the_pages_are_there() {
        const LEN: usize = 1 << 20;
        let dir = dir_with_page_cache();
        // A probe of a file that is not cached may begin to read it.
        let cold = || cold_file(dir.path(), "probed", LEN);
        assert!(attempts().any(|_| !cold().is_cached(0, LEN)));
        let mut buf = [0; 100];
        let mut refuses = || {
            let file = cold_file(dir.path(), "read", LEN);
            let read = without_waiting(|| {
                assert!(!is_refusing_reads());
                // Code that treats an index as a hint continues after an error.
                let is_refused = read_exact_at(&*file, &mut buf, 5_000).is_err();
                assert_eq!(is_refusing_reads(), is_refused);
                assert_eq!(file.read_at(&mut buf, 0).is_err(), is_refused);
            });
            assert!(!is_refusing_reads());
            read.is_none().then_some(file)
        };
        let file = attempts().find_map(|_| refuses()).expect("a read is refused");
        read_ahead(&*file, 0, LEN).expect("reads");
        assert!(file.is_cached(0, LEN));
        let read = without_waiting(|| read_exact_at(&*file, &mut buf, 5_000).is_ok());
        assert_eq!((read, buf[0]), (Some(true), 7));
        // A read at the end of the file succeeds, too.
        assert_eq!(without_waiting(|| file.read_at(&mut buf, LEN as u64).expect("reads")), Some(0));
    }

    #[test]
    fn writes_what_it_reads() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a");
        let file = RealDisk.open(&path, OpenMode::Create).expect("creates");
        let parts: Vec<Vec<u8>> = (0..2500u32).map(|i| i.to_be_bytes().to_vec()).collect();
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        write_all_vectored_at(&*file, &mut slices, 3).expect("writes");
        let mut read = vec![0; 10_000];
        read_exact_at(&*file, &mut read, 3).expect("reads");
        assert_eq!(read, parts.concat());
        let end = read_exact_at(&*file, &mut [0; 2], 10_002).expect_err("is past the end");
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        file.truncate(5).expect("truncates");
        assert_eq!(RealDisk.len(&path).expect("has a length"), 5);
    }

    #[test]
    fn a_second_lock_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(".lock");
        let first = RealDisk.lock(&path).expect("locks");
        let second = RealDisk.lock(&path).expect_err("is taken");
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        RealDisk.lock(&path).expect("is free again");
    }
}
