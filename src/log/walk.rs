//! Walks over the batches in a segment's file: reads only their headers, or reads and checks every
//! byte.

use std::io;

use super::disk::{DiskFile, read_exact_at};
use crate::records::{
    Batch, BatchHeader,
    batch::{CRC_START, HEADER_LEN},
};

/// Bytes that a walk over headers reads at once: the headers of many small batches, for little more
/// than the cost of one header.
const HEADERS_LEN: usize = 4096;
/// Bytes that a checked walk reads at once, at least.
const CHUNK_LEN: usize = 1 << 20;

/// What a walk has found at its position.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Batch {
        header: BatchHeader,
        position: u64,
    },
    /// The end of the walk.
    End,
    /// Bytes that are not a complete, valid batch.
    Torn {
        position: u64,
        what: String,
    },
}

/// A walk over a part of a file.
pub struct Walk<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    buf: Vec<u8>,
    /// Position of the buffer's first byte.
    buf_position: u64,
    /// Batches that end at or after this offset are checked.
    check_from: i64,
    /// Whether such a batch was reached. From there on, everything is read.
    is_checking: bool,
}

impl<'a> Walk<'a> {
    /// A walk that reads only headers.
    pub fn headers(file: &'a dyn DiskFile, position: u64, end: u64) -> Self {
        Self {
            file,
            position,
            end,
            buf: Vec::new(),
            buf_position: position,
            check_from: i64::MAX,
            is_checking: false,
        }
    }

    /// A walk that reads everything, and checks lengths, CRCs and the plausibility of headers.
    pub fn checked(file: &'a dyn DiskFile, position: u64, end: u64) -> Self {
        Self { check_from: i64::MIN, is_checking: true, ..Self::headers(file, position, end) }
    }

    /// A walk that checks batches from the one that contains `offset` on. Of those before, it reads
    /// only the headers.
    pub fn checked_from(offset: i64, file: &'a dyn DiskFile, position: u64, end: u64) -> Self {
        Self { check_from: offset, ..Self::headers(file, position, end) }
    }

    /// Whether the batch of the last step was read and checked.
    pub fn is_checking(&self) -> bool {
        self.is_checking
    }

    /// Moves past the next batch and returns it. Fails only if the file cannot be read: invalid
    /// bytes are [`Step::Torn`].
    pub fn step(&mut self) -> io::Result<Step> {
        let position = self.position;
        let left = self.end.saturating_sub(position);
        if left == 0 {
            return Ok(Step::End);
        }
        let torn = |what: String| Ok(Step::Torn { position, what });
        if left < HEADER_LEN as u64 {
            return torn(format!("{left} bytes are too few for a batch"));
        }
        self.fill(HEADER_LEN)?;
        let at = (position - self.buf_position) as usize;
        let header = match BatchHeader::parse(&self.buf[at..]) {
            Ok(header) => header,
            Err(error) => return torn(error.to_string()),
        };
        if header.size() as u64 > left {
            return torn(format!("a batch of {} bytes where {left} bytes are left", header.size()));
        }
        if header.base_offset < 0 || header.last_offset_delta < 0 {
            return torn("offsets are negative".to_owned());
        }
        if header.base_offset.checked_add(i64::from(header.last_offset_delta) + 1).is_none() {
            return torn("offsets overflow".to_owned());
        }
        if header.last_offset() >= self.check_from {
            self.is_checking = true;
            self.fill(header.size())?;
            let at = (position - self.buf_position) as usize;
            let computed = crc32c::crc32c(&self.buf[at + CRC_START..at + header.size()]);
            if computed != header.crc {
                return torn(format!("stored CRC {:#010x}, computed {computed:#010x}", header.crc));
            }
        }
        self.position += header.size() as u64;
        Ok(Step::Batch { header, position })
    }

    /// Reads the next `len` bytes into the buffer if they are not there yet. The file must have
    /// them.
    fn fill(&mut self, len: usize) -> io::Result<()> {
        let at = self.position.wrapping_sub(self.buf_position) as usize;
        if at.checked_add(len).is_some_and(|end| end <= self.buf.len()) {
            return Ok(());
        }
        // If headers are close to each other, more of them are read at once.
        let is_close = at > 0 && at <= self.buf.len();
        let want = len.max(match (self.is_checking, is_close) {
            (true, _) => CHUNK_LEN,
            (false, true) => 4 * HEADERS_LEN,
            (false, false) => HEADERS_LEN,
        });
        let want = (want as u64).min(self.end - self.position) as usize;
        self.buf.resize(want, 0);
        self.buf_position = self.position;
        read_exact_at(self.file, &mut self.buf, self.position)
    }
}

/// Reads the batch whose header is at `position`.
pub fn read_batch(file: &dyn DiskFile, header: &BatchHeader, position: u64) -> io::Result<Batch> {
    let mut payload = vec![0; header.size() - HEADER_LEN];
    read_exact_at(file, &mut payload, position + HEADER_LEN as u64)?;
    Ok(Batch { header: *header, payload: payload.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{
        disk::{Disk, OpenMode, RealDisk, write_all_at},
        testing::{batch, bytes_of},
    };

    fn steps(bytes: &[u8], checked: bool) -> (usize, Step) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = RealDisk.open(&dir.path().join("a"), OpenMode::Create).expect("creates");
        write_all_at(&*file, bytes, 0).expect("writes");
        let end = bytes.len() as u64;
        let mut walk = match checked {
            true => Walk::checked(&*file, 0, end),
            false => Walk::headers(&*file, 0, end),
        };
        for count in 0.. {
            match walk.step().expect("reads") {
                Step::Batch { .. } => {}
                last => return (count, last),
            }
        }
        unreachable!("a walk ends")
    }

    #[test]
    fn walks_over_small_and_large_batches() {
        let sizes = [1, 4000, 3, 70_000, 2 << 20, 5];
        let mut offset = 0;
        let batches = sizes.map(|size| {
            offset += 1;
            bytes_of(&batch(offset - 1, 1, size))
        });
        let bytes = batches.concat();
        assert_eq!(steps(&bytes, false), (6, Step::End));
        assert_eq!(steps(&bytes, true), (6, Step::End));
    }

    #[test]
    fn a_torn_or_flipped_batch_ends_the_walk() {
        let bytes = [bytes_of(&batch(0, 1, 100)), bytes_of(&batch(1, 2, 100))].concat();
        let first = bytes.len() / 2;
        for len in first + 1..bytes.len() {
            let (count, last) = steps(&bytes[..len], true);
            assert!(count == 1 && matches!(last, Step::Torn { .. }), "{len}: {last:?}");
        }
        for at in (first + 8..bytes.len()).filter(|at| !(first + 12..first + 16).contains(at)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            let (count, last) = steps(&flipped, true);
            assert!(count == 1 && matches!(last, Step::Torn { .. }), "{at}: {last:?}");
        }
    }
}
