//! The entries of a `.txnindex` file: aborted transactions (Kafka's `AbortedTxn`), and the part of
//! a segment's transaction index that is in memory. `txn_index` reads and writes the file.

use parking_lot::{Mutex, MutexGuard};

use super::{disk::FileDurability, index::Entry};

const VERSION: i16 = 0;

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTxn {
    pub producer_id: i64,
    pub first_offset: i64,
    /// Offset of the marker that aborted it.
    pub last_offset: i64,
    /// The first offset of the oldest transaction that is still open, or the offset after the marker
    /// if there is none. The high watermark does not limit it.
    pub last_stable_offset: i64,
}

impl Entry for AbortedTxn {
    const LEN: usize = 34;

    fn decode(bytes: &[u8], _: i64) -> Self {
        let field = |at: usize| {
            i64::from_be_bytes(bytes[2 + 8 * at..10 + 8 * at].try_into().expect("eight bytes"))
        };
        Self {
            producer_id: field(0),
            first_offset: field(1),
            last_offset: field(2),
            last_stable_offset: field(3),
        }
    }

    fn encode(&self, out: &mut Vec<u8>, _: i64) {
        out.extend_from_slice(&VERSION.to_be_bytes());
        for field in
            [self.producer_id, self.first_offset, self.last_offset, self.last_stable_offset]
        {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }
}

/// Decodes a transaction index file; `None` if it is damaged. Markers must be at `base_offset` or
/// later, and before `next`.
pub(super) fn decode_all(bytes: &[u8], base_offset: i64, next: i64) -> Option<Vec<AbortedTxn>> {
    if !bytes.len().is_multiple_of(AbortedTxn::LEN) {
        return None;
    }
    let mut all: Vec<AbortedTxn> = Vec::with_capacity(bytes.len() / AbortedTxn::LEN);
    for bytes in bytes.chunks_exact(AbortedTxn::LEN) {
        let entry = AbortedTxn::decode(bytes, base_offset);
        let is_ascending = all.last().is_none_or(|before| {
            before.last_offset < entry.last_offset
                && before.last_stable_offset <= entry.last_stable_offset
        });
        let is_sound = bytes[..2] == VERSION.to_be_bytes()
            && (base_offset..next).contains(&entry.last_offset)
            && (0..entry.last_offset).contains(&entry.first_offset)
            && entry.last_stable_offset <= entry.last_offset + 1;
        if !is_sound || !is_ascending {
            return None;
        }
        all.push(entry);
    }
    Some(all)
}

/// The transaction index of one segment.
#[derive(Debug, Default)]
pub(super) struct TxnIndex(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// Number of entries in the file.
    pub stored: u32,
    /// The offset of the last marker in the file.
    pub last_stored: Option<i64>,
    /// Entries that are not in the file yet.
    pub pending: Vec<AbortedTxn>,
    /// Set if the file is damaged or has wrong entries. The pending entries then replace the file,
    /// with this durability.
    pub replaced: Option<FileDurability>,
    /// Whether entries were written or cut since the last flush.
    pub is_dirty: bool,
    /// A write failed, and none has succeeded since.
    pub has_failed: bool,
}

impl State {
    /// Whether writing the pending entries creates or replaces the file.
    pub fn makes_file(&self) -> bool {
        self.replaced.is_some() || (self.stored == 0 && !self.pending.is_empty())
    }
}

impl TxnIndex {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}
