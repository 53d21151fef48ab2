//! Coverage-guided fuzz targets: one function for each decoder of the wire and each format on disk.
//!
//! No input may make a function panic, overflow, or run for ever. Where a format has both
//! directions, what was decoded must also survive being encoded and decoded again.
//! `scripts/fuzz` builds and runs the targets.

mod compaction;
mod disk;
mod patterns;
mod wire;

pub use compaction::compacted_batches;
pub use disk::{log_directories, log_files, metadata_snapshots, properties};
pub use patterns::patterns;
pub use wire::{
    batches, codecs, group_records, metadata_records, produced_batches, raft_messages,
    request_headers, requests, transaction_records,
};

use sordini::records::{
    BatchHeader,
    batch::{HEADER_LEN, LOG_OVERHEAD},
};

/// The rest of a fuzz input. Its methods take bytes off the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or_default()
    }

    /// Takes a piece whose length is in the two bytes before it. If too few bytes are left, takes
    /// them.
    fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(u16::from_be_bytes([self.byte(), self.byte()]) % 1024);
        self.0.split_off(..len.min(self.0.len())).unwrap_or_default()
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }

    fn small(&mut self) -> i64 {
        i64::from(self.byte() as i8)
    }

    /// Builds batches. Most have headers with small numbers, some have arbitrary bytes. All have
    /// valid CRCs.
    fn batches(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut next_offset = 0;
        while !self.0.is_empty() {
            match self.byte() % 8 {
                0 => out.extend_from_slice(self.piece()),
                _ => next_offset = self.batch(next_offset, &mut out),
            }
        }
        seal_batches(&mut out);
        out
    }

    /// Appends one batch, and returns the offset after it.
    fn batch(&mut self, next_offset: i64, out: &mut Vec<u8>) -> i64 {
        let base_offset = next_offset + self.small().max(0) % 4;
        let last_offset_delta = self.small().max(0) as i32;
        let mut header = BatchHeader {
            base_offset,
            batch_length: 0,
            leader_epoch: self.small() as i32 / 16,
            magic: 2,
            crc: 0,
            attributes: self.byte() as i16,
            last_offset_delta,
            base_timestamp: 1_700_000_000_000 + self.small(),
            max_timestamp: 1_700_000_000_000 + self.small(),
            producer_id: self.small(),
            producer_epoch: self.small() as i16,
            base_sequence: self.small() as i32,
            record_count: last_offset_delta + 1 + self.small() as i32 / 64,
        };
        let payload = self.piece();
        header.batch_length = (HEADER_LEN - LOG_OVERHEAD + payload.len()) as i32;
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(payload);
        base_offset + i64::from(last_offset_delta) + 1
    }
}

const LENGTH_AT: usize = 8;
const LENGTH_END: usize = 12;
const CRC_AT: usize = 17;
const CRC_END: usize = 21;

/// Sets the CRC of each batch, so that the fuzzer reaches the code behind the CRC check.
fn seal_batches(mut bytes: &mut [u8]) {
    while bytes.len() > CRC_END {
        let length = bytes[LENGTH_AT..LENGTH_END].try_into().expect("four bytes");
        let Ok(length) = usize::try_from(i32::from_be_bytes(length)) else { return };
        let end = LENGTH_END.saturating_add(length);
        if end <= CRC_END || end > bytes.len() {
            return;
        }
        let crc = crc32c::crc32c(&bytes[CRC_END..end]);
        bytes[CRC_AT..CRC_END].copy_from_slice(&crc.to_be_bytes());
        bytes = &mut bytes[end..];
    }
}
