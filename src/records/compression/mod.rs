//! The codecs of record batches. Each accepts and refuses what the Java library does that Kafka
//! uses for it, and reads a stream in chunks. What is written is framed as the Java client frames
//! it.
//!
//! Clients choose the lengths inside a batch, so each decoder checks them before it allocates. A
//! decoder needs memory for a chunk of its output: 64 KiB for gzip and zstd, a block for lz4 (4 MiB
//! at most) and snappy (at most 64 times the batch), and a window for zstd (128 MiB at most).

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use super::Compression;
use ::zstd::zstd_safe::DCtx;
use std::cell::RefCell;

/// Bytes that gzip and zstd write at once.
const CHUNK_LEN: usize = 64 * 1024;
/// A larger buffer is not kept for the next batch.
const KEPT_OUTPUT_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum CodecError {
    #[error("decompressed records exceed the limit of {limit} bytes")]
    TooLarge { limit: usize },
    #[error("{codec:?} data is corrupt: {reason}")]
    Corrupt { codec: Compression, reason: String },
    /// Where Java's reader runs into a `BufferUnderflowException`, which Kafka answers like a
    /// malformed record if it is reading one.
    #[error("{codec:?} data ends within a checksum")]
    Underflow { codec: Compression },
}

fn corrupt(codec: Compression, reason: impl ToString) -> CodecError {
    CodecError::Corrupt { codec, reason: reason.to_string() }
}

/// Decoders and their output, which a thread uses for one batch after the other.
pub struct Scratch {
    /// All of it is initialized, to be overwritten.
    output: Vec<u8>,
    inflate: Option<flate2::Decompress>,
    zstd: Option<DCtx<'static>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { output: Vec::new(), inflate: None, zstd: None }) };
}

impl Scratch {
    /// Lends this thread's scratch to `work`, which must not ask for it again.
    pub fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.output_of(CHUNK_LEN);
            let result = work(scratch);
            scratch.trim();
            result
        })
    }

    /// The first `len` bytes of the output.
    fn output_of(&mut self, len: usize) -> &mut [u8] {
        if self.output.len() < len {
            self.output.resize(len, 0);
        }
        &mut self.output[..len]
    }

    /// Frees what an unusual batch made large.
    fn trim(&mut self) {
        if self.output.len() > KEPT_OUTPUT_MAX {
            self.output = Vec::new();
        }
        self.zstd.take_if(|context| context.sizeof() > zstd::KEPT_CONTEXT_MAX);
    }

    /// The bytes of the chunk that was read last.
    #[inline]
    pub fn chunk(&self, len: usize) -> &[u8] {
        &self.output[..len]
    }
}

/// Reads a compressed payload in chunks.
pub struct Decoder<'a> {
    reader: Reader<'a>,
}

enum Reader<'a> {
    Gzip(gzip::Reader<'a>),
    Snappy(snappy::Reader<'a>),
    Lz4(lz4::Reader<'a>),
    Zstd(zstd::Reader<'a>),
    /// What is not compressed is read at once.
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

    /// Reads the next chunk, which is then the first bytes of the scratch's output. Gives its
    /// length, or nothing at the end. Chunks of lz4 may be empty.
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

/// Compresses a batch's payload. `level` means what Kafka's `compression.<codec>.level` means; a
/// level out of the codec's range is brought into it; snappy has none, and lz4's is not used: the
/// encoder has one.
pub fn compress(
    codec: Compression,
    level: Option<i32>,
    input: &[u8],
) -> Result<Vec<u8>, CodecError> {
    match codec {
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => gzip::compress(level, input),
        Compression::Snappy => snappy::compress(input),
        Compression::Lz4 => lz4::compress(input),
        Compression::Zstd => zstd::compress(level, input),
    }
}

#[cfg(test)]
mod tests;
