//! The output of a connection. On a plain socket, it sends pieces of memory with `send` and pieces
//! of files with `sendfile`. On other streams, it reads the pieces of files into memory.

use std::{future::Future, io, os::fd::BorrowedFd, sync::Arc, time::Duration};

use bytes::BytesMut;
use rustix::{
    fs::{AtFlags, StatxFlags, statx},
    net::SendFlags,
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    time::timeout,
};

use super::stream::Stream;
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
/// The size of the buffer for pieces of files that are sent through memory, in bytes.
const COPY_MAX: usize = 64 << 10;
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
    pub async fn write_to<S: Stream>(
        &mut self,
        stream: &mut S,
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
                    write_memory(stream, &bytes, flags, stall_max).await?;
                }
                Part::File { file, position, len } => {
                    send_file(stream, &file, (position, len), stall_max).await?;
                }
            }
        }
        drop(parts);
        let tail = std::mem::take(&mut self.tail);
        write_memory(stream, &tail, SendFlags::empty(), stall_max).await?;
        // Does nothing on a socket. Other streams may still hold bytes in a buffer.
        progress(stall_max, stream.flush()).await
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

/// Writes bytes of memory. `flags` count for sockets only.
async fn write_memory<S: Stream>(
    stream: &mut S,
    mut bytes: &[u8],
    flags: SendFlags,
    stall_max: Option<Duration>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = match stream.plain_socket() {
            Some(socket) => {
                let send = || Ok(rustix::net::send(socket, bytes, flags | SendFlags::NOSIGNAL)?);
                progress(stall_max, socket.async_io(Interest::WRITABLE, send)).await?
            }
            None => progress(stall_max, stream.write(bytes)).await?,
        };
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[sent..];
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

async fn send_file<S: Stream>(
    stream: &mut S,
    file: &Arc<dyn DiskFile>,
    (mut position, mut len): (u64, usize),
    stall_max: Option<Duration>,
) -> io::Result<()> {
    let (Some(socket), Some(fd)) = (stream.plain_socket(), file.raw_fd()) else {
        return copy_file(stream, file, (position, len), stall_max).await;
    };
    let mut warm_until = position;
    while len > 0 {
        if position >= warm_until {
            let piece = len.min(SENDFILE_MAX);
            warm(file, position, piece).await?;
            warm_until = position + piece as u64;
        }
        let piece = (warm_until - position) as usize;
        let send = || Ok(rustix::fs::sendfile(socket, fd, Some(&mut position), piece)?);
        let sent = progress(stall_max, socket.async_io(Interest::WRITABLE, send)).await?;
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

/// Sends a piece of a file through memory: the stream has no plain socket, or the file has no
/// descriptor, for example on a simulated disk.
async fn copy_file<S: Stream>(
    stream: &mut S,
    file: &Arc<dyn DiskFile>,
    (mut position, mut len): (u64, usize),
    stall_max: Option<Duration>,
) -> io::Result<()> {
    let mut buffer = vec![0; len.min(COPY_MAX)];
    while len > 0 {
        let piece = &mut buffer[..len.min(COPY_MAX)];
        warm(file, position, piece.len()).await?;
        read_exact_at(&**file, piece, position)?;
        write_memory(stream, piece, SendFlags::empty(), stall_max).await?;
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
    use tokio::{
        io::{AsyncReadExt, DuplexStream},
        net::TcpStream,
    };

    use super::*;
    use crate::log::{Disk, RealDisk, disk::OpenMode};

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

    impl Stream for DuplexStream {
        fn plain_socket(&self) -> Option<&TcpStream> {
            None
        }
    }

    #[tokio::test]
    async fn streams_without_a_socket_get_pieces_of_files_through_memory() {
        let content: Vec<u8> = (0..=255).cycle().take(3 * COPY_MAX).collect();
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, &content).expect("written");
        let file = RealDisk.open(file.path(), OpenMode::Read).expect("opens");
        let mut reply = ReplyBuffer::from_frame(BytesMut::from(&b"head"[..]));
        reply.push_file(file, 1, 2 * COPY_MAX);
        reply.head.extend_from_slice(b"tail");
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 10);
        let write = async {
            let mut output = Output::default();
            output.push(reply);
            output.write_to(&mut ours, None).await.expect("written");
            drop(ours);
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(write, theirs.read_to_end(&mut received));
        read.expect("read");
        assert_eq!(received, [b"head", &content[1..][..2 * COPY_MAX], b"tail"].concat());
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
