//! dirs
pub struct LogDirs;
