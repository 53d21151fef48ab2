//! Log: appends, look-ups in the indexes, and recovery.

use std::{path::Path, sync::Arc};

use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use sordini::{
    log::{Disk, Log, LogConfig, LogStart, RealDisk},
    records::Batch,
};
use tempfile::TempDir;

use crate::{NOW_MS, batch, disk::Discarding};

const START: LogStart =
    LogStart { recovery_point: 0, settled: 0, log_start: None, clean: false, now_ms: NOW_MS };

/// A temporary directory on the file system of the build. `/tmp` may be in memory.
pub fn dir() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

pub fn open(disk: Arc<dyn Disk>, dir: &Path, config: LogConfig) -> Log {
    Log::open(disk, &dir.join("topic-0"), Arc::new(config), START).expect("opens").0
}

fn append_to(bencher: Bencher, disk: Arc<dyn Disk>, batch: Batch) {
    let dir = dir();
    let mut log = open(disk, dir.path(), LogConfig::default());
    let mut batches = [batch];
    let size = batches[0].size();
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| log.append(&mut batches, 0, NOW_MS).expect("appends"));
}

#[divan::bench(sample_size = 1000)]
fn append_100_b(bencher: Bencher) {
    append_to(bencher, Arc::new(RealDisk), batch(1, 100));
}

#[divan::bench(sample_size = 1000)]
fn append_1_kib(bencher: Bencher) {
    append_to(bencher, Arc::new(RealDisk), batch(1, 1024));
}

#[divan::bench(sample_size = 50)]
fn append_64_kib(bencher: Bencher) {
    append_to(bencher, Arc::new(RealDisk), batch(63, 1024));
}

#[divan::bench(sample_size = 1000)]
fn append_64_kib_discarded(bencher: Bencher) {
    append_to(bencher, Arc::new(Discarding), batch(63, 1024));
}

/// Number of index entries of a segment of 1 GiB in batches of 4 KiB.
const ENTRIES: i64 = 1 << 18;

/// A log in one segment, with an index entry for each batch.
fn indexed(dir: &TempDir) -> Log {
    let config = LogConfig { index_interval_bytes: 0, ..LogConfig::default() };
    let mut log = open(Arc::new(RealDisk), dir.path(), config);
    let mut group = vec![batch(1, 10); 512];
    for at in 0..ENTRIES / 512 {
        for (batch, place) in group.iter_mut().zip(at * 512..) {
            batch.header.base_timestamp = place;
            batch.header.max_timestamp = place;
        }
        log.append(&mut group, 0, NOW_MS).expect("appends");
    }
    log
}

/// Offsets in a scattered order, which makes caches ineffective.
fn scattered() -> impl FnMut() -> i64 {
    let mut state = 0i64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 33) & (ENTRIES - 1)
    }
}

#[divan::bench(sample_size = 100)]
fn read_at_random(bencher: Bencher) {
    let dir = dir();
    let log = indexed(&dir);
    let (view, mut offset) = (log.view(), scattered());
    bencher
        .counter(ItemsCount::new(1usize))
        .bench_local(|| view.read(offset(), 1 << 20, view.log_end(), true).expect("reads"));
}

#[divan::bench(sample_size = 1000)]
fn read_at_end(bencher: Bencher) {
    let dir = dir();
    let log = indexed(&dir);
    let view = log.view();
    bencher.bench_local(|| {
        view.read(view.log_end() - 1, 1 << 20, view.log_end(), true).expect("reads")
    });
}

#[divan::bench(sample_size = 100)]
fn offset_for_time(bencher: Bencher) {
    let dir = dir();
    let log = indexed(&dir);
    let (view, mut timestamp) = (log.view(), scattered());
    bencher
        .counter(ItemsCount::new(1usize))
        .bench_local(|| view.offset_for_timestamp(timestamp(), view.log_end()).expect("looks up"));
}

/// Recovers 64 MiB of unflushed log, as a start after kill -9 does.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn recover_64_mib(bencher: Bencher) {
    let dir = dir();
    let mut log = open(Arc::new(RealDisk), dir.path(), LogConfig::default());
    let mut group = vec![batch(15, 1024); 256];
    for _ in 0..16 {
        log.append(&mut group, 0, NOW_MS).expect("appends");
    }
    let size = log.size();
    drop(log);
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| open(Arc::new(RealDisk), dir.path(), LogConfig::default()).log_end());
}
