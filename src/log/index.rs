//! The entries of index files, and the search in such a file. The entries of `.txnindex` are in
//! `aborted`.
//!
//! An offset index maps the last offset of a batch to the position of the batch. A time index maps
//! the largest timestamp so far to the last offset of the batch that has it. Both are sparse, and
//! both numbers of an entry are larger than those of the entry before. Callers check an entry
//! against the `.log` file before they use it.

use std::io;

use super::disk::{DiskFile, read_exact_at};

/// A fixed-size entry of an index file. Offset and time indexes store offsets relative to the
/// segment's base offset.
pub trait Entry: Copy {
    const LEN: usize;
    fn decode(bytes: &[u8], base_offset: i64) -> Self;
    fn encode(&self, out: &mut Vec<u8>, base_offset: i64);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetEntry {
    pub offset: i64,
    /// Position of the batch's first byte in the `.log` file.
    pub position: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeEntry {
    pub timestamp: i64,
    pub offset: i64,
}

fn relative(offset: i64, base_offset: i64) -> [u8; 4] {
    let relative = i32::try_from(offset - base_offset).expect("the segment rolls before overflow");
    relative.to_be_bytes()
}

fn absolute(bytes: &[u8], base_offset: i64) -> i64 {
    let relative = i32::from_be_bytes(bytes.try_into().expect("four bytes"));
    base_offset.wrapping_add(i64::from(relative))
}

impl Entry for OffsetEntry {
    const LEN: usize = 8;

    fn decode(bytes: &[u8], base_offset: i64) -> Self {
        let position = u32::from_be_bytes(bytes[4..8].try_into().expect("four bytes"));
        Self { offset: absolute(&bytes[..4], base_offset), position }
    }

    fn encode(&self, out: &mut Vec<u8>, base_offset: i64) {
        out.extend_from_slice(&relative(self.offset, base_offset));
        out.extend_from_slice(&self.position.to_be_bytes());
    }
}

impl Entry for TimeEntry {
    const LEN: usize = 12;

    fn decode(bytes: &[u8], base_offset: i64) -> Self {
        let timestamp = i64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
        Self { timestamp, offset: absolute(&bytes[8..12], base_offset) }
    }

    fn encode(&self, out: &mut Vec<u8>, base_offset: i64) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&relative(self.offset, base_offset));
    }
}

/// Most bytes of an index file that are read at once.
const BLOCK: usize = 2048;
/// The largest [`Entry::LEN`]: that of `AbortedTxn`.
const LEN_MAX: usize = 34;

/// The first `count` entries of an index file.
pub struct Entries<'a> {
    pub file: &'a dyn DiskFile,
    pub base_offset: i64,
    pub count: u32,
}

impl Entries<'_> {
    pub fn get<E: Entry>(&self, slot: u32) -> io::Result<E> {
        let mut bytes = [0; LEN_MAX];
        read_exact_at(self.file, &mut bytes[..E::LEN], u64::from(slot) * E::LEN as u64)?;
        Ok(E::decode(&bytes[..E::LEN], self.base_offset))
    }

    /// Entries from `slot` on, as many as one read returns. Empty if `slot` is after the last
    /// entry.
    pub fn block<E: Entry>(&self, slot: u32) -> io::Result<Vec<E>> {
        let count = (self.count.saturating_sub(slot) as usize).min(BLOCK / E::LEN);
        let mut bytes = vec![0; count * E::LEN];
        read_exact_at(self.file, &mut bytes, u64::from(slot) * E::LEN as u64)?;
        let entries = bytes.chunks_exact(E::LEN);
        Ok(entries.map(|bytes| E::decode(bytes, self.base_offset)).collect())
    }

    /// Number of entries before the first one for which `after` is true.
    pub fn partition_point<E: Entry>(&self, after: impl Fn(&E) -> bool) -> io::Result<u32> {
        Ok(self.search(after)?.0)
    }

    /// The last entry for which `after` is false.
    pub fn floor<E: Entry>(&self, after: impl Fn(&E) -> bool) -> io::Result<Option<E>> {
        Ok(self.search(after)?.1)
    }

    /// Searches for the number of entries before the first one for which `after` is true, and the
    /// last of them. Once the search has narrowed down to one block, the block is read at once.
    fn search<E: Entry>(&self, after: impl Fn(&E) -> bool) -> io::Result<(u32, Option<E>)> {
        let (mut low, mut high) = (0, self.count);
        while (high - low) as usize * E::LEN > BLOCK {
            let middle = low + (high - low) / 2;
            match after(&self.get(middle)?) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        let first = low.saturating_sub(1);
        let mut block = vec![0; (high - first) as usize * E::LEN];
        read_exact_at(self.file, &mut block, u64::from(first) * E::LEN as u64)?;
        let mut before = (first, None);
        for bytes in block.chunks_exact(E::LEN) {
            let entry = E::decode(bytes, self.base_offset);
            if after(&entry) {
                break;
            }
            before = (before.0 + 1, Some(entry));
        }
        Ok(before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::disk::{Disk, OpenMode, RealDisk, write_all_at};

    #[test]
    fn bytes_are_kafkas() {
        let mut out = Vec::new();
        OffsetEntry { offset: 2030, position: 4096 }.encode(&mut out, 2023);
        assert_eq!(out, [0, 0, 0, 7, 0, 0, 16, 0]);
        out.clear();
        TimeEntry { timestamp: 1 << 40, offset: 2024 }.encode(&mut out, 2023);
        assert_eq!(out, [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    proptest! {
        #[test]
        fn entries_round_trip(base in 0..1i64 << 60, relative in 0..i32::MAX, number: u32) {
            let offset = base + i64::from(relative);
            let entry = OffsetEntry { offset, position: number };
            let mut out = Vec::new();
            entry.encode(&mut out, base);
            prop_assert_eq!(OffsetEntry::decode(&out, base), entry);
            let entry = TimeEntry { timestamp: i64::from(number) - 5, offset };
            out.clear();
            entry.encode(&mut out, base);
            prop_assert_eq!(TimeEntry::decode(&out, base), entry);
        }

        #[test]
        fn search_is_that_of_a_slice(
            mut offsets in prop::collection::vec(0..1000i64, 0..900), wanted in 0..1000i64
        ) {
            offsets.sort_unstable();
            let dir = tempfile::tempdir().expect("temporary directory");
            let path = dir.path().join("i");
            let file = RealDisk.open(&path, OpenMode::Create).expect("creates");
            let mut bytes = Vec::new();
            for offset in &offsets {
                OffsetEntry { offset: *offset, position: 1 }.encode(&mut bytes, 0);
            }
            write_all_at(&*file, &bytes, 0).expect("writes");
            let entries = Entries { file: &*file, base_offset: 0, count: offsets.len() as u32 };
            let floor = entries.floor(|entry: &OffsetEntry| entry.offset > wanted).expect("reads");
            let expected = offsets.iter().rfind(|offset| **offset <= wanted);
            prop_assert_eq!(floor.map(|entry| entry.offset), expected.copied());
        }
    }
}
