//! Checkpoint files (Kafka's `CheckpointFile`): text with a version, a count, then one entry per
//! line. The checkpoints of a log directory have `topic partition offset` in each line.

use std::collections::HashMap;

use super::FormatError;
use crate::base::TopicPartition;

pub const RECOVERY_POINT: &str = "recovery-point-offset-checkpoint";
/// Sordini's own checkpoint. The boot id of the machine and the mount of the file system are at the
/// end of its name.
pub const SETTLED: &str = "settled-offset-checkpoint";
pub const LOG_START: &str = "log-start-offset-checkpoint";
/// First dirty offsets, which the cleaner has reached.
pub const CLEANER: &str = "cleaner-offset-checkpoint";
pub const REPLICATION: &str = "replication-offset-checkpoint";

const VERSION: &str = "0";

/// An offset for each partition of a log directory.
pub type Offsets = HashMap<TopicPartition, i64>;

pub fn encode<'a>(offsets: impl IntoIterator<Item = (&'a TopicPartition, i64)>) -> String {
    let lines = offsets
        .into_iter()
        .map(|(partition, offset)| format!("{} {} {offset}", partition.topic, partition.partition));
    encode_lines(lines)
}

pub fn decode(bytes: &[u8]) -> Result<Offsets, FormatError> {
    let entries = decode_lines(bytes, |fields| {
        let [topic, partition, offset] = *fields else { return None };
        let partition = TopicPartition::new(topic, partition.parse().ok()?);
        Some((partition, offset.parse().ok()?))
    })?;
    Ok(entries.into_iter().collect())
}

/// Encodes the lines of a checkpoint file, with version and count before them.
pub(super) fn encode_lines(lines: impl Iterator<Item = String>) -> String {
    let (mut body, mut count) = (String::new(), 0);
    for line in lines {
        body += &line;
        body.push('\n');
        count += 1;
    }
    format!("{VERSION}\n{count}\n{body}")
}

/// Decodes the entries of a checkpoint file. An empty file, as Kafka creates it at first, has none.
pub(super) fn decode_lines<T>(
    bytes: &[u8],
    entry: impl Fn(&[&str]) -> Option<T>,
) -> Result<Vec<T>, FormatError> {
    let text = std::str::from_utf8(bytes).map_err(|_| FormatError::new("is not UTF-8"))?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut lines = text.lines();
    if lines.next() != Some(VERSION) {
        return Err(FormatError::new("has an unknown version"));
    }
    let count = lines.next().and_then(|line| line.parse::<usize>().ok());
    let count = count.ok_or_else(|| FormatError::new("has no count in its second line"))?;
    let mut entries = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let read = entry(&fields);
        entries.push(read.ok_or_else(|| FormatError::new(format!("has a bad line: {line:?}")))?);
    }
    if entries.len() != count {
        let found = entries.len();
        return Err(FormatError::new(format!("declares {count} entries but has {found}")));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_kafkas() {
        let partition = TopicPartition::new("t", 3);
        let text = encode([(&partition, 17)]);
        assert_eq!(text, "0\n1\nt 3 17\n");
        assert_eq!(decode(b"").expect("is empty"), Offsets::new());
    }

    #[test]
    fn damaged_checkpoint_is_rejected() {
        for damaged in ["1\n0\n", "0\n", "0\n2\nt 0 1\n", "0\n1\nt 0\n", "0\n1\nt 0 x\n", "\0\0"] {
            assert!(decode(damaged.as_bytes()).is_err(), "{damaged:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(
            offsets in prop::collection::hash_map(("[a-z.]{1,9}", 0..9i32), any::<i64>(), 0..9)
        ) {
            let offsets: Offsets = offsets
                .into_iter()
                .map(|((topic, partition), offset)| (TopicPartition::new(topic, partition), offset))
                .collect();
            let text = encode(offsets.iter().map(|(partition, offset)| (partition, *offset)));
            prop_assert_eq!(decode(text.as_bytes()).expect("decodes"), offsets);
        }
    }
}
