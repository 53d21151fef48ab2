//! Snappy as Kafka's Java client frames it (xerial's `SnappyOutputStream`), and bare blocks as
//! librdkafka writes them.

use super::{CodecError, corrupt};
use crate::records::Compression;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, version 1, oldest compatible version 1.
const HEADER_LEN: usize = 16;
/// Uncompressed bytes in a block that is written.
const BLOCK: usize = 32 * 1024;
/// No block expands by more: the densest element turns 3 bytes into 64.
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

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut output = vec![];
    if !input.starts_with(&MAGIC) {
        append_block(input, limit, &mut output)?;
        return Ok(output);
    }
    let mut rest = input.get(HEADER_LEN..).ok_or_else(|| failed("the header is cut short"))?;
    while !rest.is_empty() {
        // Concatenated streams repeat the header.
        if rest.starts_with(&MAGIC) {
            rest = rest.get(HEADER_LEN..).ok_or_else(|| failed("the header is cut short"))?;
            continue;
        }
        let (length, after) =
            rest.split_first_chunk::<4>().ok_or_else(|| failed("a block length is cut short"))?;
        let length = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .filter(|length| *length <= after.len())
            .ok_or_else(|| failed("a block length is out of bounds"))?;
        append_block(&after[..length], limit, &mut output)?;
        rest = &after[length..];
    }
    Ok(output)
}

fn append_block(block: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), CodecError> {
    let length = snap::raw::decompress_len(block).map_err(failed)?;
    if length > limit - output.len() {
        return Err(CodecError::TooLarge { limit });
    }
    if length > block.len().saturating_mul(MAX_EXPANSION) {
        return Err(failed("a block is too short for its length"));
    }
    let start = output.len();
    if start + length > output.capacity() {
        let wanted = super::next_capacity(start, limit).max(start + length);
        output.reserve_exact(wanted - start);
    }
    output.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut output[start..]).map_err(failed)?;
    Ok(())
}

fn failed(reason: impl ToString) -> CodecError {
    corrupt(Compression::Snappy, reason)
}
