//! A snapshot on its way between nodes: a file, opened when it is first touched.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

/// Reads and writes block: snapshots move rarely, in chunks, and never on the data path.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    open: Option<File>,
    position: u64,
}

impl CheckpointFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: None, position: 0 }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&mut self) -> io::Result<&mut File> {
        if self.open.is_none() {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            self.open = Some(options.open(&self.path)?);
        }
        Ok(self.open.as_mut().expect("opened above"))
    }
}

impl AsyncRead for CheckpointFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.file().and_then(|file| file.read(buf.initialize_unfilled()));
        Poll::Ready(read.map(|len| buf.advance(len)))
    }
}

impl AsyncWrite for CheckpointFile {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.file().and_then(|file| file.write(bytes)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.file().and_then(|file| file.sync_all()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

impl AsyncSeek for CheckpointFile {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        self.position = self.file()?.seek(to)?;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}
