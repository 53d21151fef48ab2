//! Responses of handlers, and their encoded form: pieces of memory and pieces of files, in order.

use std::sync::Arc;

use anyhow::Result;
use bytes::{BufMut, Bytes, BytesMut};
use futures_core::future::BoxFuture;
use kafka_protocol::protocol::{Encodable, HeaderVersion};

use crate::log::DiskFile;

/// The result of a handler at its ordering point.
pub enum Reply<R> {
    /// The response.
    Now(R),
    /// The response once this future completes.
    Later(BoxFuture<'static, R>),
    /// No response, because the protocol has none.
    None,
    /// No response, and the connection is closed. The error codes in this value are still counted
    /// in the metrics.
    Close(R),
}

impl<R: Send + 'static> Reply<R> {
    /// Converts the response with `change`, now or when it is complete.
    pub fn map<S>(self, change: impl FnOnce(R) -> S + Send + 'static) -> Reply<S> {
        match self {
            Self::Now(answer) => Reply::Now(change(answer)),
            Self::Later(rest) => Reply::Later(Box::pin(async move { change(rest.await) })),
            Self::None => Reply::None,
            Self::Close(unsent) => Reply::Close(change(unsent)),
        }
    }
}

/// A response that can be encoded. Every message that the message crate encodes implements it.
pub trait WireReply: Send + 'static {
    /// The version of the response header that goes with `version` of the response.
    fn header_version(version: i16) -> i16;
    /// Appends the body in this version to `out`. Fails if the response has no such version.
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

/// A piece of an encoded response.
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

/// An encoded response frame: size field, header and body.
pub struct ReplyBuffer {
    /// The bytes after the last part. If there is no part, it is the whole frame.
    pub head: BytesMut,
    parts: Vec<Part>,
}

impl ReplyBuffer {
    const SIZE_LEN: usize = 4;

    /// Encodes a response with its size field and header. Fails if it has no such version.
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

    /// Wraps a complete frame with its size field.
    pub fn from_frame(frame: BytesMut) -> Self {
        Self { head: frame, parts: Vec::new() }
    }

    /// Appends `len` bytes of a file, starting at `position`.
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

    /// Bytes on the wire, including the size field.
    pub fn wire_len(&self) -> usize {
        self.parts.iter().map(Part::len).sum::<usize>() + self.head.len()
    }

    /// The frame without its size field. `None` if it contains pieces of files.
    pub fn into_frame(self) -> Option<Bytes> {
        self.parts.is_empty().then(|| self.head.freeze().slice(Self::SIZE_LEN..))
    }

    /// The parts in order, and the bytes after the last part.
    pub fn into_parts(self) -> (Vec<Part>, BytesMut) {
        (self.parts, self.head)
    }
}
