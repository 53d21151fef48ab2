//! The gzip codec. The reader behaves like `java.util.zip.GZIPInputStream`. It reads the framing
//! itself, because flate2 differs from Java after the end of a member: Java drops bytes that are
//! not a gzip header, and does not look for another member if too few bytes are left.

use super::{CodecError, Scratch, corrupt};
use crate::records::Compression;
use flate2::{Crc, Decompress, FlushDecompress, Status};
use std::io::Write;

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const DEFLATE: u8 = 8;
const HEADER_CRC: u8 = 0x02;
const EXTRA: u8 = 0x04;
const NAME: u8 = 0x08;
const COMMENT: u8 = 0x10;

/// How many compressed bytes Kafka's stream reads at a time.
const READ_LEN: usize = 8 * 1024;
/// Size in bytes of the trailer at the end of a member.
const TRAILER_LEN: usize = 8;
/// Java looks for another member only if more bytes than this are left: the trailer of this member,
/// and header and trailer of the next.
const MEMBER_LEN_MIN: usize = 26;

pub(super) fn compress(level: Option<i32>, input: &[u8]) -> Result<Vec<u8>, CodecError> {
    let level = level.filter(|level| *level >= 0).unwrap_or(6).clamp(0, 9);
    let level = flate2::Compression::new(level as u32);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(input).and_then(|()| encoder.finish()).map_err(failed)
}

pub(super) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    /// The end of the input that Java's stream has read so far.
    read_to: usize,
    crc: Crc,
    is_member_done: bool,
    is_done: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn open(input: &'a [u8], scratch: &mut Scratch) -> Result<Self, CodecError> {
        let at = header_len(input).map_err(failed)?;
        let reader =
            Self { input, at, read_to: at, crc: Crc::new(), is_member_done: false, is_done: false };
        inflater(scratch).reset(false);
        Ok(reader)
    }

    pub(super) fn read(&mut self, scratch: &mut Scratch) -> Result<Option<usize>, CodecError> {
        while !self.is_done {
            if self.is_member_done {
                self.finish_member(scratch)?;
                continue;
            }
            let written = self.inflate(scratch)?;
            if written > 0 {
                self.crc.update(&scratch.output[..written]);
                return Ok(Some(written));
            }
        }
        Ok(None)
    }

    fn inflate(&mut self, scratch: &mut Scratch) -> Result<usize, CodecError> {
        if self.at == self.read_to {
            if self.read_to == self.input.len() {
                return Err(failed("the stream is cut short"));
            }
            self.read_to = self.input.len().min(self.at + READ_LEN);
        }
        inflater(scratch);
        let (inflate, output) = (scratch.inflate.as_mut(), &mut scratch.output);
        let inflate = inflate.expect("was created above");
        let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
        let input = &self.input[self.at..self.read_to];
        let status = inflate.decompress(input, output, FlushDecompress::None).map_err(failed)?;
        let read = (inflate.total_in() - before_in) as usize;
        let written = (inflate.total_out() - before_out) as usize;
        self.at += read;
        self.is_member_done = status == Status::StreamEnd;
        if read == 0 && written == 0 && !self.is_member_done {
            return Err(failed("the stream is stuck"));
        }
        Ok(written)
    }

    /// Checks the trailer, and continues with the next member if there is one.
    fn finish_member(&mut self, scratch: &mut Scratch) -> Result<(), CodecError> {
        let trailer = self.input[self.at..].first_chunk::<TRAILER_LEN>();
        let trailer = trailer.ok_or_else(|| failed("the trailer is cut short"))?;
        let expected = u64::from(self.crc.amount()) << 32 | u64::from(self.crc.sum());
        if u64::from_le_bytes(*trailer) != expected {
            return Err(failed("the trailer does not match"));
        }
        let left = self.read_to - self.at;
        self.at += TRAILER_LEN;
        let is_more_to_read = self.input.len() > self.read_to.max(self.at);
        let next = match is_more_to_read || left > MEMBER_LEN_MIN {
            true => header_len(&self.input[self.at..]).ok(),
            false => None,
        };
        let Some(header_len) = next else {
            self.is_done = true;
            return Ok(());
        };
        self.at += header_len;
        self.read_to = self.read_to.max(self.at);
        self.crc.reset();
        self.is_member_done = false;
        inflater(scratch).reset(false);
        Ok(())
    }
}

fn inflater(scratch: &mut Scratch) -> &mut Decompress {
    scratch.inflate.get_or_insert_with(|| Decompress::new(false))
}

/// The size in bytes of the member header at the start of `input`.
fn header_len(input: &[u8]) -> Result<usize, &'static str> {
    const CUT: &str = "the header is cut short";
    let fixed = input.first_chunk::<10>().ok_or(CUT)?;
    if !fixed.starts_with(&MAGIC) {
        return Err("no gzip header");
    }
    if fixed[2] != DEFLATE {
        return Err("the compression method is unknown");
    }
    let (flags, mut at) = (fixed[3], fixed.len());
    if flags & EXTRA != 0 {
        let len = input.get(at..at + 2).ok_or(CUT)?;
        at += 2 + usize::from(u16::from_le_bytes([len[0], len[1]]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let rest = input.get(at..).ok_or(CUT)?;
            at += 1 + rest.iter().position(|byte| *byte == 0).ok_or(CUT)?;
        }
    }
    let header = input.get(..at).ok_or(CUT)?;
    if flags & HEADER_CRC != 0 {
        let stored = input.get(at..at + 2).ok_or(CUT)?;
        let mut crc = Crc::new();
        crc.update(header);
        if stored != &crc.sum().to_le_bytes()[..2] {
            return Err("the header's checksum does not match");
        }
        at += 2;
    }
    Ok(at)
}

fn failed(reason: impl ToString) -> CodecError {
    corrupt(Compression::Gzip, reason)
}
