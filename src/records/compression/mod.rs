//! The codecs of record batches. Each decoder accepts the same data as the Java library that Kafka
//! uses, and decodes in chunks. Each encoder frames its output as the Java client does.
//!
//! Clients choose the lengths inside a batch, so each decoder checks them before it allocates. A
//! decoder needs memory for a chunk of its output: 64 KiB for gzip and zstd, one block for lz4 (at
//! most 4 MiB) and snappy (at most 64 times the batch). Zstd also needs a window (at most 128 MiB).

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use super::Compression;
use ::zstd::zstd_safe::DCtx;
use std::cell::RefCell;

/// Size of the chunks that gzip and zstd decode, in bytes.
const CHUNK_LEN: usize = 64 * 1024;
/// Size in bytes above which the output buffer is not kept for the next batch.
const KEPT_OUTPUT_MAX: usize = 1 << 20;

/// Why data cannot be decompressed.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum CodecError {
    #[error("decompressed records exceed the limit of {limit} bytes")]
    TooLarge { limit: usize },
    #[error("{codec:?} data is corrupt: {reason}")]
    Corrupt { codec: Compression, reason: String },
    /// The data ends where Java's reader throws a `BufferUnderflowException`. Inside a record,
    /// Kafka handles this exception like a malformed record.
    #[error("{codec:?} data ends within a checksum")]
    Underflow { codec: Compression },
}

fn corrupt(codec: Compression, reason: impl ToString) -> CodecError {
    CodecError::Corrupt { codec, reason: reason.to_string() }
}

/// The decoders and the output buffer of a thread, which it reuses for each batch.
pub struct Scratch {
    /// The start of the buffer has the last chunk, the rest has old bytes.
    output: Vec<u8>,
    inflate: Option<flate2::Decompress>,
    zstd: Option<DCtx<'static>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { output: Vec::new(), inflate: None, zstd: None }) };
}

impl Scratch {
    /// Runs `work` with the scratch of this thread. Panics if `work` calls this function.
    pub fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.output_of(CHUNK_LEN);
            let result = work(scratch);
            scratch.trim();
            result
        })
    }

    /// The first `len` bytes of the output buffer, which grows if it is shorter.
    fn output_of(&mut self, len: usize) -> &mut [u8] {
        if self.output.len() < len {
            self.output.resize(len, 0);
        }
        &mut self.output[..len]
    }

    /// Frees memory that only unusually large batches need.
    fn trim(&mut self) {
        if self.output.len() > KEPT_OUTPUT_MAX {
            self.output = Vec::new();
        }
        self.zstd.take_if(|context| context.sizeof() > zstd::KEPT_CONTEXT_MAX);
    }

    /// The bytes of the last chunk, whose length is `len`.
    #[inline]
    pub fn chunk(&self, len: usize) -> &[u8] {
        &self.output[..len]
    }
}

/// Decompresses a payload in chunks.
pub struct Decoder<'a> {
    reader: Reader<'a>,
}

enum Reader<'a> {
    Gzip(gzip::Reader<'a>),
    Snappy(snappy::Reader<'a>),
    Lz4(lz4::Reader<'a>),
    Zstd(zstd::Reader<'a>),
    /// Data without compression, which is copied in chunks.
    Plain(&'a [u8]),
}

impl<'a> Decoder<'a> {
    pub fn open(
        codec: Compression,
        input: &'a [u8],
        scratch: &mut Scratch,
    ) -> Result<Self, CodecError> {
        let reader = match codec {
            Compression::None => Reader::Plain(input),
            Compression::Gzip => Reader::Gzip(gzip::Reader::open(input, scratch)?),
            Compression::Snappy => Reader::Snappy(snappy::Reader::open(input)?),
            Compression::Lz4 => Reader::Lz4(lz4::Reader::open(input)?),
            Compression::Zstd => Reader::Zstd(zstd::Reader::open(input, scratch)?),
        };
        Ok(Self { reader })
    }

    /// Decodes the next chunk into the scratch, where [`Scratch::chunk`] finds it. Returns its
    /// length, or `None` at the end. Chunks of lz4 may be empty.
    pub fn read(&mut self, scratch: &mut Scratch) -> Result<Option<usize>, CodecError> {
        match &mut self.reader {
            Reader::Gzip(reader) => reader.read(scratch),
            Reader::Snappy(reader) => reader.read(scratch),
            Reader::Lz4(reader) => reader.read(scratch),
            Reader::Zstd(reader) => reader.read(scratch),
            Reader::Plain([]) => Ok(None),
            Reader::Plain(rest) => {
                let chunk = rest.split_off(..CHUNK_LEN.min(rest.len())).expect("is that long");
                scratch.output_of(chunk.len()).copy_from_slice(chunk);
                Ok(Some(chunk.len()))
            }
        }
    }
}

/// Compresses a batch's payload. `level` has the meaning of Kafka's `compression.<codec>.level`. A
/// level outside the range of the codec is replaced by the nearest one in the range. Snappy has no
/// levels.
pub fn compress(
    codec: Compression,
    level: Option<i32>,
    input: &[u8],
) -> Result<Vec<u8>, CodecError> {
    match codec {
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => gzip::compress(level, input),
        Compression::Snappy => snappy::compress(input),
        Compression::Lz4 => lz4::compress(level, input),
        Compression::Zstd => zstd::compress(level, input),
    }
}

#[cfg(test)]
mod tests;
