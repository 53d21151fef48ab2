//! A snapshot on its way between nodes.

use std::{
    io::{self, IoSlice, SeekFrom},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

use crate::log::disk::{Disk, DiskFile, OpenMode};

/// Reads and writes block: snapshots move rarely, in chunks, and never on the data path.
/// Reads and writes block: snapshots move rarely, in chunks, and never on the data path.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    position: u64,
}

impl CheckpointFile {
    pub fn open(disk: &dyn Disk, path: PathBuf, mode: OpenMode) -> io::Result<Self> {
        let file = disk.open(&path, mode)?;
        Ok(Self { path, file, position: 0 })
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

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.file.sync_data())
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
