//! Names of files and directories in a log directory (Kafka's `LogFileUtils`, `LocalLog`,
//! `UnifiedLog`).

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::base::TopicPartition;

pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
pub const PARTITION_METADATA: &str = "partition.metadata";
pub const META_PROPERTIES: &str = "meta.properties";
pub const LOCK: &str = ".lock";
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Suffix of files that will be removed later.
pub const DELETED: &str = ".deleted";
/// Suffix of a new segment while compaction writes it.
pub const CLEANED: &str = ".cleaned";
/// Suffix of a complete new segment until it replaces old ones.
pub const SWAP: &str = ".swap";
const DELETE_DIR: &str = "-delete";
const STRAY_DIR: &str = "-stray";
const FUTURE_DIR: &str = "-future";
const TOPIC_NAME_MAX: usize = 249;
const DIR_NAME_MAX: usize = 255;

/// The files of a segment that are named by its base offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Log,
    Index,
    TimeIndex,
    TxnIndex,
    Snapshot,
}

impl Kind {
    pub const ALL: [Self; 5] =
        [Self::Log, Self::Index, Self::TimeIndex, Self::TxnIndex, Self::Snapshot];

    pub fn suffix(self) -> &'static str {
        match self {
            Self::Log => ".log",
            Self::Index => ".index",
            Self::TimeIndex => ".timeindex",
            Self::TxnIndex => ".txnindex",
            Self::Snapshot => ".snapshot",
        }
    }
}

/// `<20 digits of the offset><suffix>` in `dir`.
pub fn file(dir: &Path, offset: i64, kind: Kind) -> PathBuf {
    dir.join(format!("{offset:020}{}", kind.suffix()))
}

/// The offset and kind in the name of a file; `None` unless the name is one that [`file`] builds.
pub fn parse_file(name: &str) -> Option<(i64, Kind)> {
    let (digits, suffix) = name.split_at_checked(20)?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.suffix() == suffix)?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, kind))
}

/// Appends a suffix to a path.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether a file remains from a deletion, a compaction or a replacement that did not finish.
pub fn is_leftover(name: &str) -> bool {
    name.ends_with(DELETED) || name.ends_with(CLEANED) || name.ends_with(".tmp")
}

/// The topic and partition in the name of a directory; `None` if it is not a partition's directory.
pub fn parse_partition_dir(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    if partition.is_empty() || !partition.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > TOPIC_NAME_MAX || !topic.chars().all(legal) {
        return None;
    }
    Some(TopicPartition::new(topic, partition.parse().ok()?))
}

/// The name that a partition's directory gets before it is removed: unique, and at most 255 bytes
/// long.
pub fn delete_dir(partition: &TopicPartition, unique: Uuid) -> String {
    capped_dir(partition, unique, DELETE_DIR)
}

/// The name of a partition's directory that is kept but not used: unique, and at most 255 bytes
/// long.
pub fn stray_dir(partition: &TopicPartition, unique: Uuid) -> String {
    capped_dir(partition, unique, STRAY_DIR)
}

/// Cuts the topic's name where the whole would be too long for a file system.
fn capped_dir(partition: &TopicPartition, unique: Uuid, suffix: &str) -> String {
    let tail = format!("-{}.{}{suffix}", partition.partition, unique.simple());
    let topic = &partition.topic[..partition.topic.len().min(DIR_NAME_MAX - tail.len())];
    format!("{topic}{tail}")
}

pub fn is_delete_dir(name: &str) -> bool {
    before_unique(name, DELETE_DIR).is_some()
}

/// The name of the directory of a future replica. `None` if the name would be longer than file
/// systems allow (255 bytes).
pub fn future_dir(partition: &TopicPartition, unique: Uuid) -> Option<String> {
    let name = format!("{partition}.{}{FUTURE_DIR}", unique.simple());
    (name.len() <= DIR_NAME_MAX).then_some(name)
}

/// The partition in the name of a directory; `None` unless the name is one that [`future_dir`]
/// builds.
pub fn parse_future_dir(name: &str) -> Option<TopicPartition> {
    parse_partition_dir(before_unique(name, FUTURE_DIR)?)
}

fn before_unique<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let (before, unique) = name.strip_suffix(suffix)?.rsplit_once('.')?;
    let is_unique = unique.len() == 32 && unique.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_unique.then_some(before)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_kafkas() {
        let path = file(Path::new("/d/t-0"), 42, Kind::TimeIndex);
        assert_eq!(path, Path::new("/d/t-0/00000000000000000042.timeindex"));
        assert_eq!(with_suffix(&path, DELETED).extension(), Some("deleted".as_ref()));
        assert!(is_delete_dir(&delete_dir(&TopicPartition::new("a.b-c", 7), Uuid::nil())));
        assert!(!is_delete_dir("my-delete"));
        for other in ["0.log", "0000000000000000000a.log", "00000000000000000042.log.deleted"] {
            assert_eq!(parse_file(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn files_round_trip(offset in 0..i64::MAX, kind in 0..5usize) {
            let path = file(Path::new(""), offset, Kind::ALL[kind]);
            let name = path.to_str().expect("is UTF-8");
            prop_assert_eq!(parse_file(name), Some((offset, Kind::ALL[kind])));
        }

        #[test]
        fn partitions_round_trip(topic in "[a-zA-Z0-9._-]{1,249}", partition in 0..i32::MAX) {
            let partition = TopicPartition::new(topic, partition);
            prop_assert_eq!(parse_partition_dir(&partition.to_string()), Some(partition.clone()));
            let deleted = delete_dir(&partition, Uuid::max());
            prop_assert!(deleted.len() <= 255 && is_delete_dir(&deleted));
            prop_assert_eq!(parse_partition_dir(&deleted), None);
            let stray = stray_dir(&partition, Uuid::max());
            prop_assert!(stray.len() <= 255 && !is_delete_dir(&stray));
            prop_assert_eq!(parse_partition_dir(&stray), None);
            prop_assert_eq!(parse_future_dir(&stray), None);
            let future = future_dir(&partition, Uuid::max());
            let is_long = partition.to_string().len() > 255 - 40;
            prop_assert_eq!(future.is_none(), is_long);
            if let Some(future) = future {
                prop_assert_eq!(parse_future_dir(&future), Some(partition));
                prop_assert_eq!(parse_partition_dir(&future), None);
                prop_assert!(!is_delete_dir(&future));
            }
        }
    }
}
