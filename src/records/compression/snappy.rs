//! The snappy codec. It writes the framing of Kafka's Java client (xerial's `SnappyOutputStream`).
//! It reads what xerial's `SnappyInputStream` reads: this framing, and single blocks without a
//! frame, as librdkafka writes them.

use super::{CodecError, Scratch, corrupt};
use crate::records::Compression;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Size in bytes of the header: magic, version 1, oldest compatible version 1.
const HEADER_LEN: usize = 16;
/// The oldest version that is accepted in the header of a further stream. The version of the first
/// stream is not checked.
const VERSION_MIN: i32 = 1;
/// Uncompressed bytes per block that the encoder writes.
const BLOCK: usize = 32 * 1024;
/// An upper bound for the expansion of a block: the densest element turns 3 bytes into 64.
const MAX_EXPANSION: usize = 64;

pub(super) fn compress(input: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut output = Vec::with_capacity(HEADER_LEN + input.len() / 2);
    output.extend_from_slice(&MAGIC);
    output.extend_from_slice(&1_i32.to_be_bytes());
    output.extend_from_slice(&1_i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK) {
        let block = encoder.compress_vec(block).map_err(failed)?;
        output.extend_from_slice(&(block.len() as i32).to_be_bytes());
        output.extend_from_slice(&block);
    }
    Ok(output)
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether the input is one block without a frame.
    is_bare: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn open(input: &'a [u8]) -> Result<Self, CodecError> {
        if input.is_empty() {
            return Err(failed("no bytes at all"));
        }
        match input.split_first_chunk::<HEADER_LEN>() {
            Some((header, rest)) if header.starts_with(&MAGIC) => Ok(Self { rest, is_bare: false }),
            _ => Ok(Self { rest: input, is_bare: true }),
        }
    }

    pub(super) fn read(&mut self, scratch: &mut Scratch) -> Result<Option<usize>, CodecError> {
        loop {
            let block = match self.is_bare {
                true if self.rest.is_empty() => None,
                true => Some(std::mem::take(&mut self.rest)),
                false => self.next_block()?,
            };
            let Some(block) = block else { return Ok(None) };
            let written = decode(block, scratch)?;
            if written > 0 {
                return Ok(Some(written));
            }
        }
    }

    fn next_block(&mut self) -> Result<Option<&'a [u8]>, CodecError> {
        loop {
            let Some((length, after)) = self.rest.split_first_chunk::<4>() else {
                // As in Java, up to three bytes at the end are dropped.
                self.rest = &[];
                return Ok(None);
            };
            // Concatenated streams repeat the header.
            if *length == MAGIC[..4] {
                let header = self.rest.split_first_chunk::<HEADER_LEN>();
                let (header, after) = header.ok_or_else(|| failed("the header is cut short"))?;
                self.rest = after;
                check_version(header)?;
                continue;
            }
            let length = usize::try_from(i32::from_be_bytes(*length))
                .ok()
                .filter(|length| *length <= after.len())
                .ok_or_else(|| failed("a block length is out of bounds"))?;
            let (block, after) = after.split_at(length);
            self.rest = after;
            return Ok(Some(block));
        }
    }
}

/// Checks the header of a further stream. A wrong magic is accepted: Java's reader returns the end
/// of the stream for it, but continues with the next read.
fn check_version(header: &[u8; HEADER_LEN]) -> Result<(), CodecError> {
    let version = header[MAGIC.len()..].first_chunk().expect("four bytes");
    match i32::from_be_bytes(*version) {
        version if version < VERSION_MIN && header.starts_with(&MAGIC) => {
            Err(failed(format!("version {version} is too old")))
        }
        _ => Ok(()),
    }
}

fn decode(block: &[u8], scratch: &mut Scratch) -> Result<usize, CodecError> {
    let length = snap::raw::decompress_len(block).map_err(failed)?;
    if length > block.len().saturating_mul(MAX_EXPANSION) {
        return Err(failed("a block is too short for its length"));
    }
    let output = scratch.output_of(length);
    snap::raw::Decoder::new().decompress(block, output).map_err(failed)
}

fn failed(reason: impl ToString) -> CodecError {
    corrupt(Compression::Snappy, reason)
}
