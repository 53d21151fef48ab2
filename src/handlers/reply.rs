//! Replies, and the bytes they become: pieces of memory and of files, in order.

use std::sync::Arc;

use anyhow::Result;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, HeaderVersion};

use super::BoxFuture;
use crate::log::DiskFile;

/// What a handler answers at its ordering point.
pub enum Reply<R> {
    Now(R),
    Later(BoxFuture<'static, R>),
    None,
    /// Close the connection without an answer; the errors of this one count all the same.
    Close(R),
}

impl<R: Send + 'static> Reply<R> {
    pub fn map<S>(self, change: impl FnOnce(R) -> S + Send + 'static) -> Reply<S> {
        match self {
            Self::Now(answer) => Reply::Now(change(answer)),
            Self::Later(rest) => Reply::Later(Box::pin(async move { change(rest.await) })),
            Self::None => Reply::None,
            Self::Close(unsent) => Reply::Close(change(unsent)),
        }
    }
}

/// A response that can be written. Everything the message crate encodes is one.
pub trait WireReply: Send + 'static {
    fn header_version(version: i16) -> i16;
    fn write(self, version: i16, out: &mut ReplyBuffer) -> Result<()>;
}

impl<T: Encodable + HeaderVersion + Send + 'static> WireReply for T {
    fn header_version(version: i16) -> i16 {
        <T as HeaderVersion>::header_version(version)
    }

    fn write(self, version: i16, out: &mut ReplyBuffer) -> Result<()> {
        self.encode(&mut out.head, version)
    }
}

pub enum Part {
    Memory(Bytes),
    /// Bytes that go from the file to the socket without passing through this process.
    File {
        file: Arc<dyn DiskFile>,
        position: u64,
        len: usize,
    },
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File { len, .. } => *len,
        }
    }
}

/// A response on its way out: its size, header and body.
pub struct ReplyBuffer {
    /// What has been written since the last file part; starts with the size when there is none.
    pub head: BytesMut,
    parts: Vec<Part>,
}

impl ReplyBuffer {
    const SIZE_LEN: usize = 4;

    /// Encodes a response behind its size and header.
    pub fn encode<R: WireReply>(response: R, version: i16, correlation_id: i32) -> Result<Self> {
        let mut out = Self { head: BytesMut::with_capacity(256), parts: Vec::new() };
        out.head.put_i32(0);
        out.head.put_i32(correlation_id);
        if R::header_version(version) >= 1 {
            out.head.put_u8(0); // no tagged fields
        }
        response.write(version, &mut out)?;
        out.patch_size();
        Ok(out)
    }

    /// A frame that is complete already.
    pub fn from_frame(frame: BytesMut) -> Self {
        Self { head: frame, parts: Vec::new() }
    }

    /// Ends the piece of memory written so far and adds a piece of a file.
    pub fn push_file(&mut self, file: Arc<dyn DiskFile>, position: u64, len: usize) {
        let head = self.head.split().freeze();
        self.parts.push(Part::Memory(head));
        self.parts.push(Part::File { file, position, len });
    }

    fn patch_size(&mut self) {
        let parts_len: usize = self.parts.iter().map(Part::len).sum();
        let size = (parts_len + self.head.len() - Self::SIZE_LEN) as u32;
        match self.parts.first_mut() {
            None => self.head[..Self::SIZE_LEN].copy_from_slice(&size.to_be_bytes()),
            Some(Part::Memory(first)) => {
                let mut patched = BytesMut::from(first.as_ref());
                patched[..Self::SIZE_LEN].copy_from_slice(&size.to_be_bytes());
                *first = patched.freeze();
            }
            Some(Part::File { .. }) => unreachable!("a reply starts with its header"),
        }
    }

    /// Bytes on the wire, size field and all.
    pub fn wire_len(&self) -> usize {
        self.parts.iter().map(Part::len).sum::<usize>() + self.head.len()
    }

    /// The frame without its size, if all of it is memory.
    pub fn into_frame(self) -> Option<Bytes> {
        self.parts.is_empty().then(|| self.head.freeze().slice(Self::SIZE_LEN..))
    }

    /// The file and memory parts, then the memory after the last of them.
    pub fn into_parts(self) -> (Vec<Part>, BytesMut) {
        (self.parts, self.head)
    }
}
