//! log

pub trait DiskFile: Send + Sync {}
