//! The zstd codec. The reader behaves like zstd-jni's `ZstdInputStreamNoFinalizer`.

use super::{CodecError, Scratch, corrupt};
use crate::records::Compression;
use zstd::zstd_safe::{self, DCtx, InBuffer, OutBuffer};

/// Size in bytes above which a decoder's context is not kept for the next batch. Batches from the
/// Java client need about 2 MiB.
pub(super) const KEPT_CONTEXT_MAX: usize = 4 << 20;

pub(super) fn compress(level: Option<i32>, input: &[u8]) -> Result<Vec<u8>, CodecError> {
    let range = zstd::compression_level_range();
    let level = level.unwrap_or(3).clamp(*range.start(), *range.end());
    zstd::bulk::compress(input, level).map_err(failed)
}

/// Decompresses a payload. As in Java, zstd itself limits the window of a frame to 128 MiB.
pub(super) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    /// The end of the input that Java's stream has read so far.
    read_to: usize,
    needs_input: bool,
    /// Whether no input was read since the end of a frame. If the input ends then, Java's stream
    /// ends without an error, even in the middle of another frame.
    is_frame_done: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn open(input: &'a [u8], scratch: &mut Scratch) -> Result<Self, CodecError> {
        context(scratch)?.init().map_err(named)?;
        Ok(Self { input, at: 0, read_to: 0, needs_input: true, is_frame_done: true })
    }

    pub(super) fn read(&mut self, scratch: &mut Scratch) -> Result<Option<usize>, CodecError> {
        context(scratch)?;
        let Scratch { zstd: Some(context), output, .. } = scratch else {
            unreachable!("the context was created above")
        };
        let mut output = OutBuffer::around(&mut output[..]);
        loop {
            if self.needs_input && !self.take_input(output.pos())? {
                return Ok(Some(output.pos()).filter(|written| *written > 0));
            }
            let mut input = InBuffer::around(&self.input[self.at..self.read_to]);
            let wanted = context.decompress_stream(&mut output, &mut input).map_err(named)?;
            self.at += input.pos();
            if wanted == 0 {
                self.is_frame_done = true;
                self.needs_input = self.at == self.read_to;
                if output.pos() > 0 {
                    return Ok(Some(output.pos()));
                }
                continue;
            }
            self.needs_input = output.pos() < output.capacity();
            if !self.needs_input {
                return Ok(Some(output.pos()));
            }
        }
    }

    /// Makes more input available, in the portions that Java's stream reads. Returns false if there
    /// is none. Fails if the input ends within a frame and all output has been returned.
    fn take_input(&mut self, written: usize) -> Result<bool, CodecError> {
        if self.read_to < self.input.len() {
            self.at = self.read_to;
            self.read_to = self.input.len().min(self.read_to + DCtx::in_size());
            self.is_frame_done = false;
            return Ok(true);
        }
        if self.is_frame_done || written > 0 {
            return Ok(false);
        }
        Err(failed("the frame is cut short"))
    }
}

fn context(scratch: &mut Scratch) -> Result<&mut DCtx<'static>, CodecError> {
    if scratch.zstd.is_none() {
        scratch.zstd = Some(DCtx::try_create().ok_or_else(|| failed("no memory"))?);
    }
    Ok(scratch.zstd.as_mut().expect("was created above"))
}

fn named(code: usize) -> CodecError {
    failed(zstd_safe::get_error_name(code))
}

fn failed(reason: impl ToString) -> CodecError {
    corrupt(Compression::Zstd, reason)
}
