//! The metadata log and the thread on which it is synced. Everything else that may wait for its disk
//! runs on the same thread, in one order with the syncs: received snapshots, deletions of segments,
//! reservations of room, and votes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{oneshot, watch};

use super::log::MetadataLog;
use crate::base::environment::{DiskThread, Panicked, without_panic};

/// The metadata log of a node and its thread. All handles to the log share it.
#[derive(Debug)]
pub struct LogThread {
    /// Held only for a write to the page cache or a read, never across an await.
    log: Mutex<MetadataLog>,
    pub(super) thread: DiskThread,
    /// True while a queued sync has not begun. That sync covers everything that is in the log now.
    is_sync_queued: AtomicBool,
    /// Incremented when more entries may count as durable.
    changed: watch::Sender<u64>,
    /// Why the log cannot be written any more.
    failure: watch::Sender<Option<String>>,
}

impl LogThread {
    pub fn start(log: MetadataLog) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            log: Mutex::new(log),
            thread: DiskThread::start("metadata-log")?,
            is_sync_queued: AtomicBool::new(false),
            changed: watch::channel(0).0,
            failure: watch::channel(None).0,
        }))
    }

    pub fn log(&self) -> MutexGuard<'_, MetadataLog> {
        self.log.lock()
    }

    /// Subscribes to `notify_changed`.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Notes that more entries may count as durable. A sync that ends does this, too.
    pub fn notify_changed(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Marks the log as failed for good. After a failed sync, the content of the disk is unknown.
    pub fn fail(&self, error: &io::Error) {
        self.failure.send_replace(Some(error.to_string()));
    }

    /// Subscribes to the failure of the log: the reason, once it has failed.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    /// Returns an error with the reason if the log has failed.
    pub fn check_failure(&self) -> io::Result<()> {
        self.failure.borrow().clone().map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    /// Queues work after the jobs that are queued already. `complete` receives the result on the
    /// thread. If the work fails or panics, the content of the disk is unknown and the log fails.
    fn queue<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
        complete: impl FnOnce(io::Result<T>) + Send + 'static,
    ) {
        let shared = self.clone();
        let work = || without_panic(work).unwrap_or_else(|| Err(io::Error::other(Panicked)));
        self.thread.spawn(work, move |done| {
            if let Err(error) = &done {
                shared.fail(error);
            }
            if without_panic(|| complete(done)).is_none() {
                shared.fail(&io::Error::other(Panicked));
            }
        });
    }

    /// Queues a sync. `report` receives the result on the thread.
    pub fn sync_then(self: &Arc<Self>, report: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.is_sync_queued.store(true, Ordering::Release);
        let (shared, synced) = (self.clone(), self.clone());
        let work = move || {
            shared.is_sync_queued.store(false, Ordering::Release);
            let (mark, sync) = shared.log().sync();
            sync().map(|()| mark)
        };
        self.queue(work, move |done| {
            let done = done.map(|mark| {
                synced.log().synced(mark);
                synced.notify_changed();
            });
            report(done);
        });
    }

    /// Queues a sync, unless one is queued already, and does not wait for it.
    pub fn sync_soon(self: &Arc<Self>) {
        if !self.is_sync_queued.swap(true, Ordering::AcqRel) {
            // `queue` stores the error; `failure` and `check_failure` return it.
            self.sync_then(drop);
        }
    }

    /// Waits until everything that is in the log is durable.
    pub async fn sync(self: &Arc<Self>) -> io::Result<()> {
        let (reply, result) = oneshot::channel();
        self.sync_then(|done| drop(reply.send(done)));
        result.await.map_err(io::Error::other)?
    }

    /// Queues work. The returned future waits for its result. The work is done even if the future
    /// is dropped.
    pub fn run<T: Send + 'static, Work>(
        self: &Arc<Self>,
        work: Work,
    ) -> impl Future<Output = io::Result<T>> + Send + use<T, Work>
    where
        Work: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        self.queue(work, |done| drop(reply.send(done)));
        async { result.await.map_err(io::Error::other)? }
    }

    /// Queues work and does not wait for it.
    pub fn run_soon(self: &Arc<Self>, work: impl FnOnce() -> io::Result<()> + Send + 'static) {
        self.queue(work, drop);
    }
}
