//! The lz4 codec. It reads and writes frames like Kafka's `Lz4BlockInputStream` and
//! `Lz4BlockOutputStream`, and writes independent blocks of 64 KiB.
//!
//! The reader parses the frame itself. The reader of `lz4_flex` allocates any block size that a
//! frame declares, and it checks more than Kafka, which ignores the size and the checksum of the
//! content, and bytes after the frame.

use super::{CodecError, Scratch, corrupt};
use crate::records::Compression;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use std::io::Write;
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
/// A byte of a compressed block yields at most this many bytes.
const MAX_EXPANSION: usize = 255;
/// Bytes of a checksum.
const CHECKSUM_LEN: usize = 4;

pub(super) fn compress(input: &[u8]) -> Result<Vec<u8>, CodecError> {
    let frame = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
    encoder.write_all(input).map_err(failed)?;
    encoder.finish().map_err(failed)
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
        lz4_flex::block::decompress_into(block, scratch.output_of(most)).map_err(failed)
    }
}

fn failed(reason: impl ToString) -> CodecError {
    corrupt(Compression::Lz4, reason)
}
