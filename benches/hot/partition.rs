//! What a partition adds to the cost of its log: the lock, the view, and the check for waiters.

use std::sync::Arc;

use divan::Bencher;
use sordini::{
    base::TopicPartition,
    log::LogConfig,
    partition::{Acks, Core, Partition, PartitionCallbacks, Role},
};
use tempfile::TempDir;

use crate::{
    NOW_MS, batch,
    disk::Discarding,
    log::{dir, open},
};

/// A partition whose log discards its bytes. The benches in [`crate::log`] measure the writes.
fn partition(dir: &TempDir) -> Arc<Partition> {
    let log = open(Arc::new(Discarding), dir.path(), LogConfig::default());
    let core = Core::new(log, Role::Leader { epoch: 0 }, 0);
    let id = TopicPartition::new("topic", 0);
    Arc::new(Partition::new(id, core, PartitionCallbacks::default()))
}

#[divan::bench(sample_size = 1000)]
fn append_discarded(bencher: Bencher) {
    let dir = dir();
    let partition = partition(&dir);
    let mut batches = [batch(1, 100)];
    bencher.bench_local(|| partition.append(&mut batches, Acks::All, NOW_MS).expect("appends"));
}

#[divan::bench(sample_size = 1000)]
fn core_append_discarded(bencher: Bencher) {
    let dir = dir();
    let log = open(Arc::new(Discarding), dir.path(), LogConfig::default());
    let mut core = Core::new(log, Role::Leader { epoch: 0 }, 0);
    let mut batches = [batch(1, 100)];
    bencher.bench_local(|| core.append(&mut batches, Acks::All, NOW_MS).expect("appends"));
}

#[divan::bench(threads = [1, 2], sample_size = 1000)]
fn view(bencher: Bencher) {
    let dir = dir();
    let partition = partition(&dir);
    bencher.bench(|| partition.view());
}
