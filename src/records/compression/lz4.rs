//! The lz4 codec. It reads and writes frames like Kafka's `Lz4BlockInputStream` and
//! `Lz4BlockOutputStream`, and writes independent blocks of 64 KiB.
//!
//! The frame is read and written here, and only its blocks by the library. The library's reader of
//! frames checks more than Kafka, which ignores the size and the checksum of the content, and bytes
//! after the frame.

use super::{CodecError, Scratch, corrupt};
use crate::records::Compression;
use lz4::block::{CompressionMode, compress_bound, compress_to_buffer, decompress_to_buffer};
use twox_hash::XxHash32;

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

const VERSION_MASK: u8 = 0xc0;
const VERSION_1: u8 = 0x40;
const INDEPENDENT_BLOCKS: u8 = 0x20;
const BLOCK_CHECKSUMS: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
const RESERVED: u8 = 0x03;
/// Flag in a block's length: the block is not compressed.
const STORED: u32 = 0x8000_0000;
/// The length of a block that ends the frame.
const END_MARK: [u8; 4] = [0; 4];
/// A byte of a compressed block yields at most this many bytes.
const MAX_EXPANSION: usize = 255;
/// Bytes of a checksum.
const CHECKSUM_LEN: usize = 4;

/// The descriptor of the frames that are written: independent blocks of at most 64 KiB, and no
/// checksums but its own.
const DESCRIPTOR: [u8; 3] = [VERSION_1 | INDEPENDENT_BLOCKS, 0x40, 0x82];
const BLOCK_LEN: usize = 64 * 1024;
/// The level that Kafka takes for "fast", although the library has a high compression of this level.
const DEFAULT_LEVEL: i32 = 9;
const LEVEL_MIN: i32 = 1;
const LEVEL_MAX: i32 = 17;

pub(super) fn compress(level: Option<i32>, input: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mode = match level {
        None | Some(DEFAULT_LEVEL) => CompressionMode::DEFAULT,
        Some(level) => CompressionMode::HIGHCOMPRESSION(level.clamp(LEVEL_MIN, LEVEL_MAX)),
    };
    let mut frame = [&MAGIC[..], &DESCRIPTOR].concat();
    let mut buffer = vec![0; compress_bound(BLOCK_LEN).map_err(failed)?];
    for block in input.chunks(BLOCK_LEN) {
        let length = compress_to_buffer(block, Some(mode), false, &mut buffer).map_err(failed)?;
        let (flag, stored) = match length < block.len() {
            true => (0, &buffer[..length]),
            false => (STORED, block),
        };
        frame.extend((stored.len() as u32 | flag).to_le_bytes());
        frame.extend(stored);
    }
    frame.extend(END_MARK);
    Ok(frame)
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
    block_max: usize,
    has_block_checksums: bool,
    has_content_checksum: bool,
    is_done: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn open(input: &'a [u8]) -> Result<Self, CodecError> {
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
        if checksum != (XxHash32::oneshot(0, &descriptor[..length]) >> 8) as u8 {
            return Err(failed("the frame header's checksum does not match"));
        }
        Ok(Self {
            rest,
            block_max: 1 << (2 * size_code + 8),
            has_block_checksums: flags & BLOCK_CHECKSUMS != 0,
            has_content_checksum: flags & CONTENT_CHECKSUM != 0,
            is_done: false,
        })
    }

    /// Reads a block, which may be empty.
    pub(super) fn read(&mut self, scratch: &mut Scratch) -> Result<Option<usize>, CodecError> {
        if self.is_done {
            return Ok(None);
        }
        let (length, after) = self
            .rest
            .split_first_chunk::<4>()
            .ok_or_else(|| failed("a block length is cut short"))?;
        let length = u32::from_le_bytes(*length);
        let (is_stored, length) = (length & STORED != 0, (length & !STORED) as usize);
        if length == 0 {
            // The end mark. If the header announces a checksum of the content, it must follow, but
            // it is not compared.
            self.is_done = true;
            if self.has_content_checksum && after.len() < CHECKSUM_LEN {
                return Err(CodecError::Underflow { codec: Compression::Lz4 });
            }
            return Ok(None);
        }
        if length > self.block_max || length > after.len() {
            return Err(failed("a block length is out of bounds"));
        }
        let (block, after) = after.split_at(length);
        let written = self.decode(block, is_stored, scratch)?;
        self.rest = after;
        if self.has_block_checksums {
            let (checksum, after) = after
                .split_first_chunk::<CHECKSUM_LEN>()
                .ok_or(CodecError::Underflow { codec: Compression::Lz4 })?;
            if u32::from_le_bytes(*checksum) != XxHash32::oneshot(0, block) {
                return Err(failed("a block's checksum does not match"));
            }
            self.rest = after;
        }
        Ok(Some(written))
    }

    fn decode(
        &self,
        block: &[u8],
        is_stored: bool,
        scratch: &mut Scratch,
    ) -> Result<usize, CodecError> {
        if is_stored {
            scratch.output_of(block.len()).copy_from_slice(block);
            return Ok(block.len());
        }
        let most = self.block_max.min(block.len().saturating_mul(MAX_EXPANSION));
        decompress_to_buffer(block, Some(most as i32), scratch.output_of(most)).map_err(failed)
    }
}

fn failed(reason: impl ToString) -> CodecError {
    corrupt(Compression::Lz4, reason)
}
