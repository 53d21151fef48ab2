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
    /// Whether a mark of a record with a key says that it is the last one of its key.
    is_exact: bool,
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
        Self { range, shift, bits, is_exact: shift == 0 }
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

    /// Marks the offsets of a batch in which a record without a later one of its key may have any
    /// of these offsets.
    pub fn mark_vaguely(&mut self, first: i64, last: i64) {
        self.is_exact = false;
        self.mark(first, last);
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
        (self.bit_of(first)..=self.bit_of(last)).any(|bit| self.is_marked(bit))
    }

    /// Whether the record with a key at this offset is the last one of its key; `None` if only the
    /// map can say it.
    pub fn is_last(&self, offset: i64) -> Option<bool> {
        let is_known = self.is_exact && self.range.contains(&offset);
        is_known.then(|| self.is_marked(self.bit_of(offset)))
    }

    fn is_marked(&self, bit: usize) -> bool {
        (self.bits[bit / 64] >> (bit % 64)) & 1 == 1
    }

    fn bit_of(&self, offset: i64) -> usize {
        (offset.abs_diff(self.range.start) >> self.shift) as usize
    }
}
