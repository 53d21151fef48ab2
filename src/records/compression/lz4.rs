//! LZ4 frames as Kafka reads and writes them (`Lz4BlockInputStream`, `Lz4BlockOutputStream`):
//! independent blocks of 64 KiB. The frame is read here and not by the crate, whose reader
//! allocates whatever block size the frame asks for.

use super::{CodecError, corrupt};
use crate::records::Compression;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use std::io::Write;

pub(super) const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

const VERSION_MASK: u8 = 0xc0;
const VERSION_1: u8 = 0x40;
const INDEPENDENT_BLOCKS: u8 = 0x20;
const BLOCK_CHECKSUMS: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const RESERVED: u8 = 0x03;
/// Set in a block's length when the block is stored as it is.
const STORED: u32 = 0x8000_0000;

pub(super) fn compress(input: &[u8]) -> Result<Vec<u8>, CodecError> {
    let frame = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
    encoder.write_all(input).map_err(failed)?;
    encoder.finish().map_err(failed)
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let (frame, mut rest) = Frame::parse(input)?;
    let mut output = vec![];
    loop {
        let (length, after) =
            rest.split_first_chunk::<4>().ok_or_else(|| failed("a block length is cut short"))?;
        let length = u32::from_le_bytes(*length);
        let (stored, length) = (length & STORED != 0, (length & !STORED) as usize);
        // The end mark. As in Kafka, what follows is not read.
        if length == 0 {
            return Ok(output);
        }
        if length > frame.block_max || length > after.len() {
            return Err(failed("a block length is out of bounds"));
        }
        let (block, after) = after.split_at(length);
        if stored {
            append_stored(block, limit, &mut output)?;
        } else {
            append_compressed(block, frame.block_max, limit, &mut output)?;
        }
        // The batch's CRC covers these bytes, so the block's own checksum is not computed again.
        let checksum = if frame.block_checksums { 4 } else { 0 };
        rest = after.get(checksum..).ok_or_else(|| failed("a checksum is cut short"))?;
    }
}

fn append_stored(block: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), CodecError> {
    if block.len() > limit - output.len() {
        return Err(CodecError::TooLarge { limit });
    }
    output.extend_from_slice(block);
    Ok(())
}

fn append_compressed(
    block: &[u8],
    block_max: usize,
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let start = output.len();
    // A byte of LZ4 yields at most 255, so a short block cannot ask for a long buffer.
    let most = block_max.min(block.len().saturating_mul(255));
    let room = most.min(limit - start);
    output.resize(start + room, 0);
    match lz4_flex::block::decompress_into(block, &mut output[start..]) {
        Ok(written) => {
            output.truncate(start + written);
            Ok(())
        }
        // Not enough room is the sender's fault only if the block could not be that long.
        Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if room < most => {
            Err(CodecError::TooLarge { limit })
        }
        Err(error) => Err(failed(error)),
    }
}

struct Frame {
    block_max: usize,
    block_checksums: bool,
}

impl Frame {
    /// Reads the frame's header; gives what follows it.
    fn parse(input: &[u8]) -> Result<(Self, &[u8]), CodecError> {
        let descriptor = input.strip_prefix(&MAGIC).ok_or_else(|| failed("no lz4 frame"))?;
        let &[flags, block_size, ..] = descriptor else {
            return Err(failed("the frame header is cut short"));
        };
        if flags & VERSION_MASK != VERSION_1 || flags & RESERVED != 0 || block_size & 0x8f != 0 {
            return Err(failed("the frame header is not of version 1"));
        }
        if flags & INDEPENDENT_BLOCKS == 0 {
            return Err(failed("dependent blocks are not supported"));
        }
        let size_code = block_size >> 4;
        if size_code < 4 {
            return Err(failed("the block size is not supported"));
        }
        let length = if flags & CONTENT_SIZE != 0 { 10 } else { 2 };
        let Some((&checksum, rest)) = descriptor.get(length..).and_then(<[u8]>::split_first) else {
            return Err(failed("the frame header is cut short"));
        };
        if checksum != (xxh32(&descriptor[..length]) >> 8) as u8 {
            return Err(failed("the frame header's checksum does not match"));
        }
        let block_max = 1 << (2 * size_code + 8);
        Ok((Self { block_max, block_checksums: flags & BLOCK_CHECKSUMS != 0 }, rest))
    }
}

/// XXH32 with seed 0 of fewer than 16 bytes, which is all that a frame header has.
fn xxh32(input: &[u8]) -> u32 {
    const PRIMES: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];
    assert!(input.len() < 16);
    let mut hash = PRIMES[4].wrapping_add(input.len() as u32);
    let words = input.chunks_exact(4);
    let tail = words.remainder();
    for word in words {
        let word = u32::from_le_bytes(word.try_into().expect("chunks of four"));
        hash = hash.wrapping_add(word.wrapping_mul(PRIMES[2]));
        hash = hash.rotate_left(17).wrapping_mul(PRIMES[3]);
    }
    for byte in tail {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(PRIMES[4]));
        hash = hash.rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(PRIMES[1]);
    hash = (hash ^ (hash >> 13)).wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 16)
}

fn failed(reason: impl ToString) -> CodecError {
    corrupt(Compression::Lz4, reason)
}
