//! Fetches of records that are not in the page cache, while the disk does not respond.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use sordini::{
    log::faulty::{FaultyDisk, Operation},
    server::Environment,
};

use super::{
    TOPIC, ask,
    broker::{Broker, batch, runtime, start_in},
    is_answered,
    shared::{client::FETCH_VERSION, requests},
};

/// A disk whose cold reads a test can block. Dropping it releases them, so that no thread hangs.
struct HeldReads(FaultyDisk);

impl Drop for HeldReads {
    fn drop(&mut self) {
        self.0.allow_cold_reads(None);
    }
}

/// Number of batches: more than a segment caches positions for.
const BATCHES: i64 = 40;

/// Drops the topic's files from the (simulated) page cache, and blocks all reads from the disk.
fn make_cold(disk: &FaultyDisk) {
    disk.allow_cold_reads(Some(0));
    disk.drop_from_cache(is_of_topic);
}

fn is_of_topic(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("t-0"))
}

/// Runs a test against a broker whose connections share one worker, on a disk in memory.
fn with_one_worker(test: impl FnOnce(&FaultyDisk, &Broker)) {
    let (data, control) = (runtime(1), runtime(1));
    let held = HeldReads(FaultyDisk::default());
    let environment = Environment {
        disk: Arc::new(held.0.clone()),
        ..Environment::real(control.handle().clone())
    };
    let broker = data.block_on(start_in(&[], environment));
    let mut client = broker.client_with_topic();
    for offset in 0..BATCHES {
        client.send_produce((TOPIC, 0), -1, &batch(b"cold")).expect("is sent");
        let produced = client.receive_produce().expect("answered");
        assert_eq!(produced, Ok(offset));
    }
    test(&held.0, &broker);
    drop(held);
    // The shutdown fails if the test made the disk fail.
    let _ = data.block_on(broker.server.stop());
}

fn wait_for_a_cold_read(disk: &FaultyDisk) {
    let began = Instant::now();
    while disk.waiting_cold_reads() == 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "nothing reads from the disk");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_fetch_that_waits_for_the_disk_delays_no_other_connection() {
    with_one_worker(|disk, broker| {
        let (mut consumer, mut other) = (broker.client(), broker.client());
        // The segment reads the position of the first batch from the disk. That of the last one
        // is cached.
        for (offset, max_wait_ms) in [(0, 0), (0, 100), (BATCHES - 1, 0)] {
            make_cold(disk);
            let request = requests::fetch(TOPIC, [(0, offset)], 1 << 20)
                .with_max_wait_ms(max_wait_ms)
                .with_min_bytes(1 << 20);
            consumer.send(FETCH_VERSION, &request).expect("is sent");
            wait_for_a_cold_read(disk);
            ask(&mut other);
            assert!(is_answered(&mut other), "the worker waits for the disk");
            disk.allow_cold_reads(None);
            let fetched = consumer.receive_fetch().expect("answered");
            assert_eq!((fetched.code, fetched.high_watermark), (0, BATCHES));
            let count = fetched.records.windows(4).filter(|window| window == b"cold").count();
            assert_eq!(count as i64, BATCHES - offset);
        }
    });
}

#[test]
fn a_fetch_of_what_the_disk_cannot_read_is_a_storage_error() {
    const KAFKA_STORAGE_ERROR: i16 = 56;
    with_one_worker(|disk, broker| {
        let (mut consumer, mut other) = (broker.client(), broker.client());
        disk.fail_files(Some(|operation, path| {
            (operation == Operation::Read && is_of_topic(path)).then_some(Errno::IO)
        }));
        make_cold(disk);
        consumer.send_fetch((TOPIC, 0), 0, 0).expect("is sent");
        wait_for_a_cold_read(disk);
        // A second read would block, and the worker with it.
        disk.allow_cold_reads(Some(1));
        let fetched = consumer.receive_fetch().expect("answered");
        assert_eq!(fetched.code, KAFKA_STORAGE_ERROR);
        ask(&mut other);
        assert!(is_answered(&mut other), "the worker waits for the disk");
    });
}
