//! Leader epochs: which epoch wrote which offsets (KIP-101, KIP-320; Kafka's
//! `LeaderEpochFileCache`), and the `leader-epoch-checkpoint` file with one `epoch start-offset`
//! per line.

use super::{
    FormatError,
    checkpoint::{decode_lines, encode_lines},
};

/// An epoch and the first offset that its leader wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    pub epoch: i32,
    pub start_offset: i64,
}

/// The value in requests and responses for "no epoch".
const UNDEFINED_EPOCH: i32 = -1;

/// The leader epochs of a log. Epochs and start offsets both ascend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<EpochEntry>,
}

impl Epochs {
    pub fn encode(&self) -> String {
        let line = |entry: &EpochEntry| format!("{} {}", entry.epoch, entry.start_offset);
        encode_lines(self.entries.iter().map(line))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let entries = decode_lines(bytes, |fields| {
            let [epoch, start_offset] = *fields else { return None };
            let (epoch, start_offset) = (epoch.parse().ok()?, start_offset.parse().ok()?);
            Some(EpochEntry { epoch, start_offset })
        })?;
        let mut epochs = Self::default();
        for entry in entries {
            if entry.epoch < 0 || entry.start_offset < 0 {
                return Err(FormatError::new("has a negative epoch or offset"));
            }
            epochs.assign(entry.epoch, entry.start_offset);
        }
        Ok(epochs)
    }

    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// Records that `epoch` starts at `start_offset`, and removes entries that contradict this.
    /// Returns whether anything changed.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        assert!(epoch >= 0 && start_offset >= 0, "epoch {epoch} at {start_offset}");
        if self
            .latest()
            .is_some_and(|last| last.epoch == epoch && last.start_offset <= start_offset)
        {
            return false;
        }
        let contradicts =
            |entry: &EpochEntry| entry.epoch >= epoch || entry.start_offset >= start_offset;
        while self.entries.last().is_some_and(contradicts) {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// Removes epochs that start at or after `end_offset`. Returns whether anything changed.
    pub fn truncate_from_end(&mut self, end_offset: i64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.start_offset < end_offset);
        self.entries.len() != before
    }

    /// Makes the epoch that wrote `start_offset` start there, and removes the earlier ones. Returns
    /// whether anything changed.
    pub fn truncate_from_start(&mut self, start_offset: i64) -> bool {
        let before = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        let Some(last) = before.checked_sub(1) else { return false };
        let changed = last > 0 || self.entries[last].start_offset != start_offset;
        self.entries[last].start_offset = start_offset;
        self.entries.drain(..last);
        changed
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Returns the largest epoch up to `epoch` with its end offset. The latest epoch ends at
    /// `log_end`. If all entries are of later epochs, returns `epoch` with the first start offset.
    /// `None` if `epoch` is -1 or later than the latest, or if there is no entry.
    pub fn end_offset_for(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        let latest = self.latest()?;
        if epoch == latest.epoch {
            return Some((epoch, log_end));
        }
        if epoch == UNDEFINED_EPOCH {
            return None;
        }
        let higher = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end_offset = self.entries.get(higher)?.start_offset;
        let floor = higher.checked_sub(1).map(|floor| self.entries[floor].epoch);
        Some((floor.unwrap_or(epoch), end_offset))
    }

    /// The epoch that wrote `offset`.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        Some(self.entries[after.checked_sub(1)?].epoch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, start_offset) in entries {
            epochs.assign(*epoch, *start_offset);
        }
        epochs
    }

    #[test]
    fn ends_are_the_next_epochs_starts() {
        let epochs = epochs(&[(2, 10), (4, 20), (7, 30)]);
        assert_eq!(epochs.end_offset_for(7, 99), Some((7, 99)));
        assert_eq!(epochs.end_offset_for(8, 99), None);
        assert_eq!(epochs.end_offset_for(5, 99), Some((4, 30)));
        assert_eq!(epochs.end_offset_for(2, 99), Some((2, 20)));
        assert_eq!(epochs.end_offset_for(1, 99), Some((1, 10)));
        assert_eq!(epochs.end_offset_for(-1, 99), None);
        assert_eq!(epochs.end_offset_for(-2, 99), Some((-2, 10)));
        assert_eq!(Epochs::default().end_offset_for(0, 0), None);
        assert_eq!(epochs.epoch_for_offset(9), None);
        assert_eq!(epochs.epoch_for_offset(29), Some(4));
    }

    #[test]
    fn contradicted_entries_give_way() {
        let mut epochs = epochs(&[(2, 10), (4, 20)]);
        assert!(!epochs.assign(4, 25));
        assert!(epochs.assign(5, 15));
        assert_eq!(epochs, self::epochs(&[(2, 10), (5, 15)]));
        assert!(epochs.assign(6, 15));
        assert_eq!(epochs, self::epochs(&[(2, 10), (6, 15)]));
    }

    #[test]
    fn truncations_keep_what_is_between() {
        let mut epochs = epochs(&[(2, 10), (4, 20), (7, 30)]);
        assert!(epochs.truncate_from_start(25));
        assert!(!epochs.truncate_from_start(25));
        assert_eq!(epochs, self::epochs(&[(4, 25), (7, 30)]));
        assert!(epochs.truncate_from_end(30));
        assert!(!epochs.truncate_from_end(30));
        assert_eq!(epochs, self::epochs(&[(4, 25)]));
    }

    #[test]
    fn damaged_checkpoint_is_rejected() {
        for damaged in ["0\n1\n1\n", "0\n1\n-1 0\n", "0\n1\n1 -5\n", "0\n0\n1 1\n", "\0"] {
            assert!(Epochs::decode(damaged.as_bytes()).is_err(), "{damaged:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(steps in prop::collection::vec((0..5i32, 0..100i64), 0..20)) {
            let mut written = Epochs::default();
            let (mut epoch, mut offset) = (0, 0);
            for (epochs, offsets) in steps {
                (epoch, offset) = (epoch + epochs, offset + offsets);
                written.assign(epoch, offset);
            }
            prop_assert_eq!(Epochs::decode(written.encode().as_bytes()), Ok(written));
        }
    }
}
