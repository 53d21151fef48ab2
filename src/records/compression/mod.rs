//! The codecs of record batches, with a hard limit on what comes out.
//!
//! Whoever sends a batch chooses the lengths inside it, so each decoder checks them against the
//! limit before it allocates: the output never grows past the limit, and nothing else than the
//! output is large. What is written is framed as the Java client frames it.

mod lz4;
mod snappy;

use super::Compression;
use bytes::Bytes;
use std::io::{Read, Write};
use zstd::zstd_safe;

/// The first allocation for an output of unknown size, in bytes.
const FIRST_OUTPUT: usize = 16 * 1024;

#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum CodecError {
    #[error("decompressed records exceed the limit of {limit} bytes")]
    TooLarge { limit: usize },
    #[error("{codec:?} data is corrupt: {reason}")]
    Corrupt { codec: Compression, reason: String },
}

fn corrupt(codec: Compression, reason: impl ToString) -> CodecError {
    CodecError::Corrupt { codec, reason: reason.to_string() }
}

/// Decompresses a batch's payload to at most `limit` bytes. `None` copies.
pub fn decompress(codec: Compression, input: &[u8], limit: usize) -> Result<Bytes, CodecError> {
    let output = match codec {
        Compression::None if input.len() > limit => return Err(CodecError::TooLarge { limit }),
        Compression::None => input.to_vec(),
        Compression::Gzip => gunzip(input, limit)?,
        Compression::Snappy => snappy::decompress(input, limit)?,
        Compression::Lz4 => lz4::decompress(input, limit)?,
        Compression::Zstd => unzstd(input, limit)?,
    };
    debug_assert!(output.len() <= limit);
    Ok(output.into())
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
        Compression::Gzip => {
            let level = level.filter(|level| *level >= 0).unwrap_or(6).clamp(0, 9);
            let level = flate2::Compression::new(level as u32);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            let written = encoder.write_all(input).and_then(|()| encoder.finish());
            written.map_err(|error| corrupt(codec, error))
        }
        Compression::Snappy => snappy::compress(input),
        Compression::Lz4 => lz4::compress(input),
        Compression::Zstd => {
            let range = zstd::compression_level_range();
            let level = level.unwrap_or(3).clamp(*range.start(), *range.end());
            zstd::bulk::compress(input, level).map_err(|error| corrupt(codec, error))
        }
    }
}

/// Whether the payload starts as this codec's output does. Snappy has no mark of its own when it is
/// not framed, so only emptiness is refused.
pub fn looks_like(codec: Compression, payload: &[u8]) -> bool {
    match codec {
        Compression::None => true,
        Compression::Gzip => payload.starts_with(&[0x1f, 0x8b]),
        Compression::Snappy => !payload.is_empty(),
        Compression::Lz4 => payload.starts_with(&lz4::MAGIC),
        // A zstd stream may open with a skippable frame.
        Compression::Zstd => {
            payload.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
                || payload.get(1..4) == Some(&[0x2a, 0x4d, 0x18])
        }
    }
}

fn gunzip(input: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut decoder = flate2::read::MultiGzDecoder::new(input);
    let mut output = vec![];
    let mut filled = 0;
    loop {
        if filled == output.len() && filled < limit {
            output.resize(next_capacity(filled, limit), 0);
        }
        // One byte over the limit tells "exactly full" from "more to come".
        let mut probe = [0];
        let room = if filled == limit { &mut probe[..] } else { &mut output[filled..] };
        let read = decoder.read(room).map_err(|error| corrupt(Compression::Gzip, error))?;
        if read == 0 {
            output.truncate(filled);
            return Ok(output);
        }
        if filled == limit {
            return Err(CodecError::TooLarge { limit });
        }
        filled += read;
    }
}

/// How large an output of `used` bytes may grow next: doubling, never past the limit.
fn next_capacity(used: usize, limit: usize) -> usize {
    used.saturating_mul(2).max(FIRST_OUTPUT).min(limit)
}

/// Decompresses in one shot into the output, because the streaming decoder allocates whatever
/// window the frame asks for. Where no frame tells its size, the output grows until it fits.
fn unzstd(input: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let codec = Compression::Zstd;
    if input.is_empty() {
        return Err(corrupt(codec, "no frame"));
    }
    let declared = zstd_safe::get_frame_content_size(input)
        .map_err(|_| corrupt(codec, "no zstd frame"))?
        .map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    if declared.is_some_and(|size| size > limit) {
        return Err(CodecError::TooLarge { limit });
    }
    let mut context = zstd_safe::DCtx::try_create().ok_or_else(|| corrupt(codec, "no memory"))?;
    let mut capacity = declared.unwrap_or(input.len().saturating_mul(4)).max(FIRST_OUTPUT);
    loop {
        capacity = capacity.min(limit);
        let mut output = Vec::with_capacity(capacity);
        let reason = match context.decompress(&mut output, input) {
            Ok(_) if output.len() <= limit => return Ok(output),
            Ok(_) => return Err(CodecError::TooLarge { limit }),
            Err(code) => zstd_safe::get_error_name(code),
        };
        if reason != DESTINATION_TOO_SMALL {
            return Err(corrupt(codec, reason));
        }
        if capacity == limit {
            return Err(CodecError::TooLarge { limit });
        }
        capacity = next_capacity(capacity, limit);
    }
}

/// The library's name for its error 70, which is part of its stable interface.
const DESTINATION_TOO_SMALL: &str = "Destination buffer is too small";

#[cfg(test)]
mod tests;
