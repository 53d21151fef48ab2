//! A file system in memory, for tests and simulations. Callers make its operations fail or wait. A
//! crash loses what was not synced.

mod name_changes;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::io::Errno;

use self::name_changes::NameChanges;
use super::disk::{DirEntry, DirLock, Disk, DiskFile, OpenMode, ReadSource, read_where_allowed};

/// A kind of crash: what remains of writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Only the process crashed: all writes remain.
    Process,
    /// Writes and names that were not synced are lost.
    LoseUnsynced,
    /// As [`Self::LoseUnsynced`], but each change of a name remains if its bit is set. Real file
    /// systems keep changes in their order, but do not promise that.
    LoseNames(u64),
    /// Of each file, this percentage of the unsynced bytes remains, and the last of them is
    /// damaged.
    Tear(u8),
}

/// An operation on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Open,
    Read,
    Write,
    Reserve,
    Sync,
    Rename,
    Remove,
}

/// Decides which operations on which files fail, and how.
pub type Fault = fn(Operation, &Path) -> Option<Errno>;

#[derive(Debug, Clone, Default)]
struct Node {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// `bytes` and `synced` are equal before this position.
    changed_from: usize,
    /// Whether the page cache has nothing of the file. A read from the disk or a write ends that.
    is_cold: bool,
    modified_ms: i64,
}

impl Node {
    fn changed(&mut self, from: usize) {
        self.changed_from = self.changed_from.min(from);
    }

    /// Copies only the bytes that changed, so that the cost does not grow with the file.
    fn sync(&mut self) {
        self.synced.truncate(self.changed_from);
        let from = self.synced.len();
        self.synced.extend_from_slice(&self.bytes[from..]);
        self.changed_from = self.bytes.len();
    }
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    /// Files by path.
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    name_changes: NameChanges,
    dirs: BTreeSet<PathBuf>,
    synced_dirs: BTreeSet<PathBuf>,
    locks: Vec<PathBuf>,
    /// Bytes that can be written before the disk is full.
    room: Option<u64>,
    /// Number of changing calls that succeed before all fail.
    calls_left: Option<u32>,
    fails_reads: bool,
    fault: Option<Fault>,
    /// Number of times that the file system was mounted.
    mountings: u32,
    /// Whether it is a file system that can lose pages while it stays mounted.
    loses_pages: bool,
    /// How long a sync of a file takes.
    sync_delay: Duration,
    syncs_under_way: usize,
    most_syncs_at_once: usize,
}

/// Makes operations wait, as a slow disk does.
#[derive(Debug, Default)]
struct Gate {
    /// Operations that may still run; `None` for any number.
    allowed: Mutex<Option<u32>>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn allow(&self, allowed: Option<u32>) {
        *self.allowed.lock() = allowed;
        self.changed.notify_all();
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn pass(&self) {
        let mut allowed = self.allowed.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while *allowed == Some(0) {
            self.changed.wait(&mut allowed);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        *allowed = allowed.map(|left| left - 1);
    }
}

/// A file system in memory, which all clones share.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
    syncs: Arc<Gate>,
    /// Holds back reads of files that are not in the page cache.
    cold_reads: Arc<Gate>,
    /// Holds back renames, and removals of directories.
    renames: Arc<Gate>,
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    node: usize,
    /// The path at which the file was opened.
    path: PathBuf,
}

#[derive(Debug)]
struct FaultyLock {
    disk: FaultyDisk,
    path: PathBuf,
}

impl DirLock for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.retain(|path| *path != self.path);
    }
}

impl FaultyDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Counts a call that changes something, and fails it if no more calls are to succeed.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        match &mut state.calls_left {
            Some(0) => return Err(Errno::IO.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }

    /// Lets this many changing calls succeed and fails all later ones.
    pub fn fail_after(&self, calls: Option<u32>) {
        self.state().calls_left = calls;
    }

    /// Makes all reads fail, as a broken medium does.
    pub fn fail_reads(&self, fails: bool) {
        self.state().fails_reads = fails;
    }

    /// Makes some operations on some files fail; `None` ends that.
    pub fn fail_files(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    fn check(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let fault = self.state().fault;
        match fault.and_then(|fault| fault(operation, path)) {
            Some(errno) => Err(errno.into()),
            None => Ok(()),
        }
    }

    /// Makes each sync of a file take this long.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.state().sync_delay = delay;
    }

    /// Largest number of syncs of files that ran at the same time.
    pub fn most_syncs_at_once(&self) -> usize {
        self.state().most_syncs_at_once
    }

    /// Sets how many bytes can be written before the disk is full.
    pub fn set_room(&self, room: Option<u64>) {
        self.state().room = room;
    }

    /// Returns the disk as it is after a crash. Files that are open still use the old one.
    pub fn crash(&self, crash: Crash) -> Self {
        let state = self.state();
        let (mut names, mut dirs) = match crash {
            Crash::Process | Crash::Tear(_) => (state.names.clone(), state.dirs.clone()),
            Crash::LoseUnsynced | Crash::LoseNames(_) => {
                (state.synced_names.clone(), state.synced_dirs.clone())
            }
        };
        if let Crash::LoseNames(kept) = crash {
            state.name_changes.apply(kept, &mut names);
        }
        // If the name of a directory is lost, everything in it is lost.
        let known = dirs.clone();
        let is_reached = |path: &Path| path.ancestors().skip(1).all(|above| known.contains(above));
        names.retain(|path, _| is_reached(path));
        dirs.retain(|path| is_reached(path));
        let after = |node: &Node| {
            let bytes = match crash {
                Crash::Process => node.bytes.clone(),
                Crash::LoseUnsynced | Crash::LoseNames(_) => node.synced.clone(),
                Crash::Tear(percent) => tear(node, usize::from(percent)),
            };
            // The machine still runs, and may crash later.
            let synced = if crash == Crash::Process { &node.synced } else { &bytes };
            let synced = synced.clone();
            Node { synced, bytes, changed_from: 0, is_cold: false, modified_ms: node.modified_ms }
        };
        let nodes = state.nodes.iter().map(after).collect();
        let (synced_names, synced_dirs) = match crash {
            Crash::Process => (state.synced_names.clone(), state.synced_dirs.clone()),
            _ => (names.clone(), dirs.clone()),
        };
        let state = State { nodes, synced_names, names, synced_dirs, dirs, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), ..Self::default() }
    }

    /// Number of changes of names that a crash of the machine may lose.
    pub fn unsynced_name_changes(&self) -> usize {
        self.state().name_changes.len()
    }

    /// Mounts the file system again.
    pub fn mount(&self) {
        self.state().mountings += 1;
    }

    /// Makes it a file system that can lose pages while it stays mounted, like a network file
    /// system.
    pub fn lose_pages(&self) {
        self.state().loses_pages = true;
    }

    /// Lets this many more syncs of files and directories run. All others wait. `None` ends that.
    pub fn allow_syncs(&self, allowed: Option<u32>) {
        self.syncs.allow(allowed);
    }

    /// Number of syncs that wait.
    pub fn waiting_syncs(&self) -> usize {
        self.syncs.waiting()
    }

    pub fn allowed_syncs(&self) -> Option<u32> {
        *self.syncs.allowed.lock()
    }

    /// Drops files from the page cache. Reads that must not wait for the disk fail until another
    /// read has read the file from the disk.
    pub fn drop_from_cache(&self, is_dropped: impl Fn(&Path) -> bool) {
        let mut state = self.state();
        let State { nodes, names, .. } = &mut *state;
        for (_, node) in names.iter().filter(|(path, _)| is_dropped(path)) {
            nodes[*node].is_cold = true;
        }
    }

    /// Lets this many more reads of files that are not in the page cache run. All others wait.
    /// `None` ends that.
    pub fn allow_cold_reads(&self, allowed: Option<u32>) {
        self.cold_reads.allow(allowed);
    }

    /// Number of reads from the disk that wait.
    pub fn waiting_cold_reads(&self) -> usize {
        self.cold_reads.waiting()
    }

    /// Lets this many more renames and removals of directories run. All others wait. `None` ends
    /// that.
    pub fn allow_renames(&self, allowed: Option<u32>) {
        self.renames.allow(allowed);
    }

    /// Number of renames and removals of directories that wait.
    pub fn waiting_renames(&self) -> usize {
        self.renames.waiting()
    }

    /// Flips the bits of `mask` in the byte at position `at` of a file.
    pub fn flip(&self, path: &Path, at: u64, mask: u8) {
        let mut state = self.state();
        let node = state.names[path];
        state.nodes[node].bytes[at as usize] ^= mask;
        state.nodes[node].changed(at as usize);
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }
}

fn tear(node: &Node, percent: usize) -> Vec<u8> {
    let common = node.bytes.iter().zip(&node.synced).take_while(|(a, b)| a == b).count();
    let kept = common + (node.bytes.len() - common) * percent / 100;
    let mut bytes = node.bytes[..kept].to_vec();
    if kept > common {
        bytes[kept - 1] ^= 0x55;
    }
    bytes
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.check(Operation::Open, path)?;
        let existing = self.state().names.get(path).copied();
        let node = match (existing, mode) {
            (None, OpenMode::Read | OpenMode::Write) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            (Some(node), OpenMode::Truncate) => {
                let mut state = self.change()?;
                state.nodes[node].bytes.clear();
                state.nodes[node].changed(0);
                node
            }
            (Some(node), _) => node,
            (None, _) => {
                let mut state = self.change()?;
                if path.parent().is_some_and(|dir| !state.dirs.contains(dir)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                state.nodes.push(Node::default());
                let node = state.nodes.len() - 1;
                state.names.insert(path.to_owned(), node);
                state.name_changes.create(path, node);
                node
            }
        };
        Ok(Arc::new(FaultyFile { disk: self.clone(), node, path: path.to_owned() }))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        let node = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.nodes[node].bytes.len() as u64)
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        let state = self.state();
        let node = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.nodes[node].modified_ms)
    }

    fn set_modified_ms(&self, path: &Path, modified_ms: i64) -> io::Result<()> {
        let mut state = self.change()?;
        let node = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        state.nodes[node].modified_ms = modified_ms;
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.renames.pass();
        self.check(Operation::Rename, from)?;
        let mut state = self.change()?;
        let is_dir = state.dirs.remove(from);
        if !is_dir {
            let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), node);
            state.name_changes.rename(from, to);
            return Ok(());
        }
        state.name_changes.clear();
        state.dirs.insert(to.to_owned());
        if state.synced_dirs.remove(from) {
            state.synced_dirs.insert(to.to_owned());
        }
        let inside = |path: &Path| path.strip_prefix(from).ok().map(|rest| to.join(rest));
        let names = std::mem::take(&mut state.names);
        state.names =
            names.into_iter().map(|(path, node)| (inside(&path).unwrap_or(path), node)).collect();
        state.synced_names = state.names.clone();
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.check(Operation::Remove, path)?;
        let mut state = self.change()?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.name_changes.remove(path);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.renames.pass();
        let mut state = self.change()?;
        state.names.retain(|name, _| !name.starts_with(path));
        state.synced_names.retain(|name, _| !name.starts_with(path));
        state.synced_dirs.remove(path);
        state.dirs.remove(path).then_some(()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        for dir in path.ancestors() {
            // Directories above are created by other code, which syncs them.
            if state.dirs.insert(dir.to_owned()) && dir != path {
                state.synced_dirs.insert(dir.to_owned());
            }
        }
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.change()?;
        if !path.parent().is_some_and(|parent| state.dirs.contains(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(state.dirs.insert(path.to_owned()))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        if !state.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let entry = |name: &PathBuf, is_dir| {
            let last = name.file_name()?.to_str()?.to_owned();
            (name.parent() == Some(path)).then_some(DirEntry { name: last, is_dir })
        };
        let files = state.names.keys().filter_map(|name| entry(name, false));
        Ok(files.chain(state.dirs.iter().filter_map(|name| entry(name, true))).collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.syncs.pass();
        self.check(Operation::Sync, path)?;
        let mut state = self.change()?;
        state.synced_names.retain(|name, _| name.parent() != Some(path));
        let inside = state.names.iter().filter(|(name, _)| name.parent() == Some(path));
        let inside: Vec<_> = inside.map(|(name, node)| (name.clone(), *node)).collect();
        state.synced_names.extend(inside);
        state.name_changes.synced(path);
        state.synced_dirs.retain(|dir| dir.parent() != Some(path));
        let inside = state.dirs.iter().filter(|dir| dir.parent() == Some(path));
        let inside: Vec<_> = inside.cloned().collect();
        state.synced_dirs.extend(inside);
        Ok(())
    }

    fn mounting(&self, _: &Path) -> Option<String> {
        let state = self.state();
        (!state.loses_pages).then(|| state.mountings.to_string())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut state = self.state();
        if state.locks.iter().any(|locked| locked == path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locks.push(path.to_owned());
        Ok(Box::new(FaultyLock { disk: self.clone(), path: path.to_owned() }))
    }
}

impl FaultyFile {
    fn is_cold(&self) -> bool {
        self.disk.state().nodes[self.node].is_cold
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        read_where_allowed(|source| {
            if self.is_cold() {
                match source {
                    ReadSource::PageCache => return Err(io::ErrorKind::WouldBlock.into()),
                    ReadSource::Disk => self.disk.cold_reads.pass(),
                }
            }
            self.disk.check(Operation::Read, &self.path)?;
            let mut state = self.disk.state();
            if state.fails_reads {
                return Err(Errno::IO.into());
            }
            let node = &mut state.nodes[self.node];
            node.is_cold = false;
            let rest = node.bytes.get(position as usize..).unwrap_or_default();
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    /// Writes one slice at a time, and only half of a long one, as a real file may.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.disk.check(Operation::Write, &self.path)?;
        let mut state = self.disk.change()?;
        let Some(buf) = bufs.iter().find(|buf| !buf.is_empty()) else { return Ok(0) };
        let mut len = if buf.len() > 100 { buf.len() / 2 } else { buf.len() };
        if let Some(room) = &mut state.room {
            len = len.min(*room as usize);
            *room -= len as u64;
            if len == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let node = &mut state.nodes[self.node];
        node.is_cold = false;
        node.changed((position as usize).min(node.bytes.len()));
        let bytes = &mut node.bytes;
        let end = position as usize + len;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[position as usize..end].copy_from_slice(&buf[..len]);
        Ok(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().nodes[self.node].bytes.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.change()?;
        let node = &mut state.nodes[self.node];
        node.changed((len as usize).min(node.bytes.len()));
        node.bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.syncs.pass();
        self.disk.check(Operation::Sync, &self.path)?;
        let delay = {
            let mut state = self.disk.state();
            state.syncs_under_way += 1;
            state.most_syncs_at_once = state.most_syncs_at_once.max(state.syncs_under_way);
            state.sync_delay
        };
        std::thread::sleep(delay);
        self.disk.state().syncs_under_way -= 1;
        self.disk.change()?.nodes[self.node].sync();
        Ok(())
    }

    fn reserve(&self, _: u64, len: u64) -> io::Result<()> {
        self.disk.check(Operation::Reserve, &self.path)?;
        match self.disk.state().room {
            Some(room) if room < len => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn raw_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn is_cached(&self, _: u64, _: usize) -> bool {
        !self.is_cold()
    }

    /// Drops the file as a whole, when all of it is to be dropped and is synced.
    fn drop_cached(&self, end: u64) {
        let node = &mut self.disk.state().nodes[self.node];
        node.is_cold |= end >= node.bytes.len() as u64 && node.changed_from == node.bytes.len();
    }
}
