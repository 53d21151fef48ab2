//! Why a round of compaction ends early.

use std::{io, path::PathBuf};

use super::{
    super::{LogError, ReadError},
    BatchProblem,
};

/// Why a round ended before its end offset. The segments that it has replaced stay replaced.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// The log was truncated, moved or closed, or the caller requested it.
    #[error("cleaning was aborted")]
    Aborted,
    /// The log has something that compaction does not understand. Another attempt fails, too.
    #[error("cannot clean {}: {problem}", path.display())]
    Uncleanable { path: PathBuf, problem: Uncleanable },
    /// An operation on a file failed. If the disk is full, the round can be repeated later.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What makes a log uncleanable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Uncleanable {
    #[error(transparent)]
    Batch(#[from] BatchProblem),
    #[error("{0}")]
    Corrupt(String),
    #[error("offset {offset} is too far from the base offset {base_offset} of its segment")]
    OffsetOverflow { base_offset: i64, offset: i64 },
    #[error("the new segment would have more than 2 GiB")]
    SegmentTooLarge,
}

impl From<ReadError> for CleanError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io { path, source } if source.kind() != io::ErrorKind::UnexpectedEof => {
                Self::Log(LogError::Io { operation: "read", path, source })
            }
            ReadError::Io { path, .. } => {
                let problem = Uncleanable::Corrupt("the file is too short".to_owned());
                Self::Uncleanable { path, problem }
            }
            ReadError::Corrupt { path, what } => {
                Self::Uncleanable { path, problem: Uncleanable::Corrupt(what) }
            }
            ReadError::Records { path, position, source } => {
                let what = format!("position {position}: {source}");
                Self::Uncleanable { path, problem: Uncleanable::Corrupt(what) }
            }
            // The log start has passed the offset.
            ReadError::OffsetOutOfRange { .. } => Self::Aborted,
        }
    }
}
