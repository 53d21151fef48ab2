//! The output of a connection. Sends pieces of memory with `send` and pieces of files with
//! `sendfile`.

use std::{future::Future, io, os::fd::BorrowedFd, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use rustix::{
    fs::{AtFlags, StatxFlags, statx},
    net::SendFlags,
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::TcpStream,
    time::timeout,
};

use crate::{
    base::blocking_limits::BlockingLimits,
    handlers::{Part, ReplyBuffer},
    log::{
        DiskFile,
        disk::{read_ahead, read_exact_at},
    },
};

/// The most bytes for one `sendfile` call, so that one client does not occupy a worker for long.
const SENDFILE_MAX: usize = 1 << 20;
/// The most reads from one volume at a time, for all connections. Other work needs blocking
/// threads, too.
const COLD_READS_MAX: usize = 64;

/// Threads that read from disk, by the volume's device number.
static COLD_READS: BlockingLimits<(u32, u32)> = BlockingLimits::new(COLD_READS_MAX);

/// Responses that are ready to be written. Those in memory are joined, so that small responses of a
/// pipeline leave in one write.
#[derive(Default)]
pub struct Output {
    parts: Vec<Part>,
    tail: BytesMut,
}

impl Output {
    /// Appends a response. Responses leave in the order of these calls.
    pub fn push(&mut self, reply: ReplyBuffer) {
        let (parts, head) = reply.into_parts();
        if parts.is_empty() {
            match self.tail.is_empty() {
                true => self.tail = head,
                false => self.tail.extend_from_slice(&head),
            }
            return;
        }
        if !self.tail.is_empty() {
            self.parts.push(Part::Memory(self.tail.split().freeze()));
        }
        self.parts.extend(parts);
        self.tail = head;
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.tail.is_empty()
    }

    /// Writes everything. Fails with `TimedOut` if the client accepts no bytes for `stall_max`.
    pub async fn write_to(
        &mut self,
        stream: &mut TcpStream,
        stall_max: Option<Duration>,
    ) -> io::Result<()> {
        let mut parts = self.parts.drain(..).peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Memory(bytes) => {
                    // The bytes before a piece of a file are sent in one packet with it.
                    let flags = match parts.peek() {
                        Some(Part::File { .. }) => SendFlags::MORE,
                        _ => SendFlags::empty(),
                    };
                    write_memory(stream, bytes, flags, stall_max).await?;
                }
                Part::File { file, position, len } => {
                    send_file(stream, &file, (position, len), stall_max).await?;
                }
            }
        }
        drop(parts);
        let tail = std::mem::take(&mut self.tail).freeze();
        write_memory(stream, tail, SendFlags::empty(), stall_max).await
    }
}

/// Waits for one step of a write, at most for `stall_max`.
async fn progress<T>(
    stall_max: Option<Duration>,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match stall_max {
        None => step.await,
        Some(stall_max) => match timeout(stall_max, step).await {
            Ok(done) => done,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        },
    }
}

async fn write_memory(
    stream: &mut TcpStream,
    mut bytes: Bytes,
    flags: SendFlags,
    stall_max: Option<Duration>,
) -> io::Result<()> {
    while bytes.has_remaining() {
        let send = || Ok(rustix::net::send(&*stream, &bytes, flags | SendFlags::NOSIGNAL)?);
        let sent = progress(stall_max, stream.async_io(Interest::WRITABLE, send)).await?;
        bytes.advance(sent);
    }
    Ok(())
}

/// Reads the bytes into the page cache, so that `sendfile` does not block a worker on the disk. If
/// the system drops them from the cache before they are sent, `sendfile` reads them again.
async fn warm(file: &Arc<dyn DiskFile>, position: u64, len: usize) -> io::Result<()> {
    if file.is_cached(position, len) {
        return Ok(());
    }
    let volume = file.raw_fd().and_then(device).unwrap_or_default();
    let file = Arc::clone(file);
    let read = COLD_READS.run(volume, move || read_ahead(&*file, position, len)).await;
    read.map_err(io::Error::other)?
}

/// The device number of the file's volume, from memory: the volume need not respond.
fn device(fd: BorrowedFd<'_>) -> Option<(u32, u32)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, "", flags, StatxFlags::empty()).ok()?;
    Some((stat.stx_dev_major, stat.stx_dev_minor))
}

async fn send_file(
    stream: &mut TcpStream,
    file: &Arc<dyn DiskFile>,
    (mut position, mut len): (u64, usize),
    stall_max: Option<Duration>,
) -> io::Result<()> {
    let Some(fd) = file.raw_fd() else {
        return copy_file(stream, file, position, len).await;
    };
    let mut warm_until = position;
    while len > 0 {
        if position >= warm_until {
            let piece = len.min(SENDFILE_MAX);
            warm(file, position, piece).await?;
            warm_until = position + piece as u64;
        }
        let piece = (warm_until - position) as usize;
        let send = || Ok(rustix::fs::sendfile(&*stream, fd, Some(&mut position), piece)?);
        let sent = progress(stall_max, stream.async_io(Interest::WRITABLE, send)).await?;
        if sent == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the segment file is shorter",
            ));
        }
        len -= sent;
    }
    Ok(())
}

/// Sends a piece of a file that has no descriptor, for example of a simulated disk.
async fn copy_file(
    stream: &mut TcpStream,
    file: &Arc<dyn DiskFile>,
    mut position: u64,
    mut len: usize,
) -> io::Result<()> {
    let mut buffer = vec![0; len.min(64 << 10)];
    while len > 0 {
        let piece = &mut buffer[..len.min(64 << 10)];
        warm(file, position, piece.len()).await?;
        read_exact_at(&**file, piece, position)?;
        stream.write_all(piece).await?;
        position += piece.len() as u64;
        len -= piece.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::IoSlice,
        os::fd::AsFd,
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
    };

    use parking_lot::Mutex;
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    /// A file that is never in the page cache. Its reads wait until `released` fails, if it is set.
    #[derive(Debug)]
    struct ColdFile {
        file: fs::File,
        began: AtomicUsize,
        released: Option<Mutex<mpsc::Receiver<()>>>,
    }

    impl DiskFile for ColdFile {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            self.began.fetch_add(1, Ordering::Relaxed);
            if let Some(released) = &self.released {
                let _ = released.lock().recv();
            }
            Ok(0)
        }
        fn write_vectored_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(1)
        }
        fn truncate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
        fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn raw_fd(&self) -> Option<BorrowedFd<'_>> {
            Some(self.file.as_fd())
        }
        fn is_cached(&self, _: u64, _: usize) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn cold_reads_of_a_hung_volume_leave_other_volumes_alone() {
        let (release, released) = mpsc::channel::<()>();
        let hung = Arc::new(ColdFile {
            file: memfd_create("hung", MemfdFlags::CLOEXEC).expect("a file in memory").into(),
            began: AtomicUsize::new(0),
            released: Some(Mutex::new(released)),
        });
        let healthy: Arc<dyn DiskFile> = Arc::new(ColdFile {
            file: tempfile::tempfile().expect("a file on disk"),
            began: AtomicUsize::new(0),
            released: None,
        });
        let file: Arc<dyn DiskFile> = hung.clone();
        // The connections end before their reads do.
        for _ in 0..COLD_READS_MAX + 3 {
            assert!(timeout(Duration::from_millis(5), warm(&file, 0, 1)).await.is_err());
        }
        let read = timeout(Duration::from_secs(20), warm(&healthy, 0, 1)).await;
        read.expect("does not wait for the hung volume").expect("reads");
        let all_began = timeout(Duration::from_secs(20), async {
            while hung.began.load(Ordering::Relaxed) < COLD_READS_MAX {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        all_began.await.expect("the volume has this many threads");
        drop(release);
        warm(&file, 0, 1).await.expect("reads again");
        // The last three reads of the loop got no thread before their connections ended.
        assert_eq!(hung.began.load(Ordering::Relaxed), COLD_READS_MAX + 1);
    }
}
