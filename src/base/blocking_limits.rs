//! Limits of how many blocking threads one kind of work occupies, for each volume on its own.
//!
//! All work of the runtime shares its blocking threads. A volume that does not respond must not
//! occupy all of them, because then the work on other volumes would stop, too.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::environment::{Panicked, blocking};

/// At most `max` threads for each key. A key names a volume, or what else may stop responding
/// independently of other keys.
#[derive(Debug)]
pub struct BlockingLimits<K> {
    max: usize,
    by_key: Mutex<BTreeMap<K, Arc<Semaphore>>>,
}

impl<K: Ord> BlockingLimits<K> {
    pub const fn new(max: usize) -> Self {
        Self { max, by_key: Mutex::new(BTreeMap::new()) }
    }

    /// Runs work on a blocking thread and waits for its result. If the key's threads are all
    /// occupied, waits until one of them has finished. A thread counts until its work ends, also
    /// if the caller no longer waits for the result.
    pub async fn run<T: Send + 'static>(
        &self,
        key: K,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let permit = self.semaphore(key).acquire_owned().await.expect("never closed");
        blocking(move || {
            let _permit = permit;
            work()
        })
        .await
    }

    fn semaphore(&self, key: K) -> Arc<Semaphore> {
        let mut by_key = self.by_key.lock();
        Arc::clone(by_key.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.max))))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    /// The callers stop waiting, as they do when their clients disconnect.
    #[tokio::test]
    async fn hung_work_occupies_few_threads_and_leaves_other_keys_alone() {
        let limits = BlockingLimits::new(2);
        let began = Arc::new(AtomicUsize::new(0));
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        for _ in 0..5 {
            let (began, released) = (Arc::clone(&began), Arc::clone(&released));
            let hung = limits.run("hung", move || {
                began.fetch_add(1, Ordering::Relaxed);
                // Ends when the sender is dropped.
                let _ = released.lock().recv();
            });
            assert!(timeout(Duration::from_millis(100), hung).await.is_err());
        }
        assert_eq!(limits.run("healthy", || 7).await.expect("runs"), 7);
        while began.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(release);
        assert_eq!(limits.run("hung", || 8).await.expect("runs again"), 8);
        assert_eq!(began.load(Ordering::Relaxed), 2, "work without a caller never began");
    }
}
