//! Which parts of the dirty range may have records that stay.

use std::ops::Range;

use super::OffsetMap;

/// Largest number of bits, 1 MiB. In a range with more offsets, several share a bit.
const BITS_MAX: u64 = 1 << 23;

/// Marks offsets of a range whose records may stay. If a batch has none, each of its records has a
/// later one of the same key, so it goes without being decompressed.
#[derive(Debug)]
pub struct Survivors {
    range: Range<i64>,
    /// A bit stands for `1 << shift` offsets.
    shift: u32,
    bits: Vec<u64>,
}

impl Survivors {
    /// No offset of the range is marked. Those outside always are.
    pub fn new(range: Range<i64>) -> Self {
        let offsets = if range.is_empty() { 0 } else { range.end.abs_diff(range.start) };
        let mut shift = 0;
        while offsets >> shift > BITS_MAX {
            shift += 1;
        }
        let bits = vec![0; ((offsets >> shift) / 64 + 1) as usize];
        Self { range, shift, bits }
    }

    /// Marks the offsets from `first` to `last`.
    pub fn mark(&mut self, first: i64, last: i64) {
        let (first, last) =
            (first.max(self.range.start), last.min(self.range.end.saturating_sub(1)));
        if first <= last && !self.range.is_empty() {
            for bit in self.bit_of(first)..=self.bit_of(last) {
                self.bits[bit / 64] |= 1 << (bit % 64);
            }
        }
    }

    /// Marks the last offset of each key.
    pub fn mark_all(&mut self, map: &OffsetMap) {
        for offset in map.offsets() {
            self.mark(offset, offset);
        }
    }

    /// Whether an offset from `first` to `last` is marked.
    pub fn has_any(&self, first: i64, last: i64) -> bool {
        if !self.range.contains(&first) || !self.range.contains(&last) || last < first {
            return true;
        }
        let is_marked = |bit: usize| (self.bits[bit / 64] >> (bit % 64)) & 1 == 1;
        (self.bit_of(first)..=self.bit_of(last)).any(is_marked)
    }

    fn bit_of(&self, offset: i64) -> usize {
        (offset.abs_diff(self.range.start) >> self.shift) as usize
    }
}
