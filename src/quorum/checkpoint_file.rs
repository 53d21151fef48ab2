//! The file of a snapshot while openraft sends or receives it.

use std::{
    io::{self, IoSlice, SeekFrom},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use crate::{
    base::environment::spawn_blocking,
    log::disk::{Disk, DiskFile, OpenMode},
};

/// A snapshot file as openraft's snapshot data. Reads and writes go to the page cache, in chunks. A
/// sync runs on a blocking thread.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    position: u64,
    /// The outcome of a sync that is under way.
    sync: Option<oneshot::Receiver<io::Result<()>>>,
}

impl CheckpointFile {
    pub fn open(disk: &dyn Disk, path: PathBuf, mode: OpenMode) -> io::Result<Self> {
        let file = disk.open(&path, mode)?;
        Ok(Self { path, file, position: 0, sync: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsyncRead for CheckpointFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.file.read_at(buf.initialize_unfilled(), self.position);
        Poll::Ready(read.map(|len| {
            self.position += len as u64;
            buf.advance(len);
        }))
    }
}

impl AsyncWrite for CheckpointFile {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.file.write_vectored_at(&[IoSlice::new(bytes)], self.position);
        Poll::Ready(written.inspect(|len| self.position += *len as u64))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let file = self.file.clone();
        let outcome = self.sync.get_or_insert_with(|| {
            let (reply, outcome) = oneshot::channel();
            spawn_blocking(move || drop(reply.send(file.sync_data())));
            outcome
        });
        let synced = ready!(Pin::new(outcome).poll(context));
        self.sync = None;
        Poll::Ready(synced.map_err(io::Error::other)?)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

impl AsyncSeek for CheckpointFile {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let (from, by) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(by) => (self.position, by),
            SeekFrom::End(by) => (self.file.len()?, by),
        };
        let position = from.checked_add_signed(by);
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}
