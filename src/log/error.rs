//! Errors of opening, reading and writing logs, and which of them mean that a disk has failed.

use crate::records::RecordError;
use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
};

/// The content of a file does not follow its format. The text continues a sentence that begins with
/// the file's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FormatError(Cow<'static, str>);

impl FormatError {
    pub(super) fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self(what.into())
    }
}

/// Why a log could not be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} {source}", path.display())]
    Format { path: PathBuf, source: FormatError },
    #[error("a batch of {size} bytes is larger than the segment size of {segment_bytes} bytes")]
    TooLarge { size: usize, segment_bytes: u64 },
    #[error("the batch at offset {base_offset} has {what}")]
    BadBatch { base_offset: i64, what: &'static str },
    #[error("the batch at offset {base_offset} lies before the log's end at {log_end}")]
    OffsetBehindEnd { base_offset: i64, log_end: i64 },
    #[error("offset {offset} is not between the log's start {log_start} and end {log_end}")]
    OutOfRange { offset: i64, log_start: i64, log_end: i64 },
    #[error("the log directory is not online")]
    NoDirectory,
    #[error("{} is closed to writes: an earlier write failed and could not be undone", dir.display())]
    Failed { dir: PathBuf },
}

impl LogError {
    /// Whether an operation on a file failed, as opposed to a file with wrong content.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Io { source, .. } if !is_content(source))
    }

    /// Whether the log directory must go offline. A full disk is no such failure: the write was
    /// undone, and there may be room later. Nor is a file with wrong content, which affects only
    /// its partition.
    pub fn is_disk_failure(&self) -> bool {
        match self {
            Self::Io { source, .. } => !is_passing(source),
            Self::Failed { .. } | Self::NoDirectory => true,
            Self::Format { .. }
            | Self::TooLarge { .. }
            | Self::BadBatch { .. }
            | Self::OffsetBehindEnd { .. }
            | Self::OutOfRange { .. } => false,
        }
    }
}

/// Whether the file was read but has wrong content, or too little of it.
fn is_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Whether the operating system returned an error that a later attempt will not get over.
pub fn is_lasting(error: &io::Error) -> bool {
    error.raw_os_error().is_some() && !is_passing(error)
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, WouldBlock};
    // EMFILE and ENFILE have no kind of their own.
    let too_many_files = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    is_content(error)
        || matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | WouldBlock)
        || too_many_files.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is not between the log's start {log_start} and end {log_end}")]
    OffsetOutOfRange { offset: i64, log_start: i64, log_end: i64 },
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is corrupt at {what}", path.display())]
    Corrupt { path: PathBuf, what: String },
    #[error("{} has malformed records at position {position}: {source}", path.display())]
    Records { path: PathBuf, position: u64, source: RecordError },
}

impl ReadError {
    /// Whether a file is gone, because its segment was deleted or compacted.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Adds to an error the operation that failed and the path of its file.
pub(super) trait During<T> {
    fn during(self, operation: &'static str, path: &Path) -> Result<T, LogError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, operation: &'static str, path: &Path) -> Result<T, LogError> {
        self.map_err(|source| LogError::Io { operation, path: path.to_owned(), source })
    }
}

impl<T> During<T> for Result<T, FormatError> {
    fn during(self, _: &'static str, path: &Path) -> Result<T, LogError> {
        self.map_err(|source| LogError::Format { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_has_says_nothing_against_its_disk() {
        let error =
            |source: io::Error| LogError::Io { operation: "read", path: "t".into(), source };
        let errno = |errno: rustix::io::Errno| io::Error::from(errno);
        for (source, fails, refuses) in [
            (errno(rustix::io::Errno::IO), true, true),
            (errno(rustix::io::Errno::NOSPC), false, true),
            (errno(rustix::io::Errno::MFILE), false, true),
            (io::ErrorKind::InvalidData.into(), false, false),
            (io::ErrorKind::UnexpectedEof.into(), false, false),
        ] {
            let error = error(source);
            assert_eq!((error.is_disk_failure(), error.is_refusal()), (fails, refuses), "{error}");
        }
    }
}
