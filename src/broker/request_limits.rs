//! [`RequestLimits`]: how many requests may do expensive work at the same time.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::base::blocking_limits::BlockingLimits;

/// The number of requests that may look up timestamps in logs at the same time.
const LOOK_UPS_AT_ONCE: usize = 2;
/// The number of fetches of one log directory that may read uncached indexes at the same time.
const FETCH_LOOK_UPS_AT_ONCE: usize = 32;
/// The number of requests that may describe log directories at the same time.
const DIR_DESCRIPTIONS_AT_ONCE: usize = 2;
/// The number of produce requests that may decompress large batches at the same time (the default
/// of Kafka's `num.io.threads`). Each may need 128 MiB for a zstd window.
const DECOMPRESSIONS_AT_ONCE: usize = 8;

/// Limits of concurrent work, which the handlers respect. Each limit is independent of the others.
pub struct RequestLimits {
    /// Limits how many requests look up timestamps in logs at the same time.
    pub look_ups: Semaphore,
    /// Threads that read indexes for fetches whose pages are not cached, by the log directory. All
    /// fetches from several directories share the key `None`.
    pub fetch_look_ups: BlockingLimits<Option<Arc<PathBuf>>>,
    /// Threads that ask the file systems for the space in their log directories.
    pub dir_descriptions: BlockingLimits<()>,
    /// Limits how many produce requests decompress large batches at the same time.
    pub decompressions: Semaphore,
    /// Topics that are being created automatically, because a request named them.
    pub auto_creating: Mutex<HashSet<String>>,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            look_ups: Semaphore::new(LOOK_UPS_AT_ONCE),
            fetch_look_ups: BlockingLimits::new(FETCH_LOOK_UPS_AT_ONCE),
            dir_descriptions: BlockingLimits::new(DIR_DESCRIPTIONS_AT_ONCE),
            decompressions: Semaphore::new(DECOMPRESSIONS_AT_ONCE),
            auto_creating: Mutex::default(),
        }
    }
}
