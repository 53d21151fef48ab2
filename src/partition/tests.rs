//! Durability and roles of a replica, on a disk that forgets and fails.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{AppendError, Core, DeleteRecordsError, Partition, Role};
use crate::{
    base::TopicPartition,
    log::{
        Disk, Log, LogConfig, LogStart,
        faulty::{Crash, FaultyDisk},
        testing::{batch, of_producer},
    },
};

const DIR: &str = "/data/t-0";
const NOW: i64 = 1_000_000;
const LEADER: Role = Role::Leader { epoch: 0 };

fn open(disk: &FaultyDisk, flush_messages: i64) -> Log {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let config = LogConfig { segment_bytes: 2000, flush_messages, ..LogConfig::default() };
    let start = LogStart { recovery_point: 0, log_start: None, clean: false, now_ms: NOW };
    Log::open(disk, Path::new(DIR), Arc::new(config), start).expect("opens").0
}

/// A leader, and how often its disk was said to have failed.
fn leader(disk: &FaultyDisk, flush_messages: i64) -> (Arc<Partition>, Arc<AtomicUsize>) {
    let failures = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&failures);
    let on_failure = Box::new(move |_: &Partition, _: &_| {
        told.fetch_add(1, Ordering::SeqCst);
    });
    let core = Core::new(open(disk, flush_messages), LEADER, 0);
    let id = TopicPartition::new("t", 0);
    (Arc::new(Partition::new(id, core, on_failure, Arc::default())), failures)
}

/// The log's end after the machine has crashed, its batches checked on the way.
fn end_after_crash(disk: &FaultyDisk) -> i64 {
    let log = open(&disk.crash(Crash::LoseUnsynced), 1);
    let mut next = 0;
    for batch in log.view().batches_from(0) {
        let batch = batch.expect("is readable");
        batch.verify_crc().expect("is whole");
        assert_eq!(batch.header.base_offset, next, "offsets have no gap");
        next = batch.header.last_offset() + 1;
    }
    assert_eq!(next, log.log_end());
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_is_acknowledged_survives_the_machine() {
    let disk = FaultyDisk::default();
    let (partition, failures) = leader(&disk, 1);
    let write = |task: i64| {
        let (partition, disk) = (Arc::clone(&partition), disk.clone());
        async move {
            for n in 0..25 {
                let appended =
                    partition.append(&mut [batch(0, 2, 150)], NOW + n).expect("the disk takes it");
                assert!(partition.wait_committed(appended.last_offset + 1).await);
                if (n + task) % 4 == 0 {
                    let end = end_after_crash(&disk);
                    assert!(end > appended.last_offset, "{end}: acknowledged {appended:?}");
                }
            }
        }
    };
    let tasks: Vec<_> = (0..4).map(|task| tokio::spawn(write(task))).collect();
    for task in tasks {
        task.await.expect("nothing acknowledged is lost");
    }
    assert_eq!(partition.view().high_watermark, 200);
    assert_eq!(failures.load(Ordering::SeqCst), 0);
}

#[test]
fn the_high_watermark_and_repetitions_wait_for_the_disk() {
    let disk = FaultyDisk::default();
    let mut core = Core::new(open(&disk, 1), LEADER, 0);
    let sent = of_producer(batch(0, 3, 50), 7, 0, 0);
    let appended = core.append(&mut [sent.clone()], NOW).expect("appends");
    assert!(appended.flush_due && !appended.duplicate);
    assert_eq!(core.high_watermark(), 0);
    let repeated = core.append(&mut [sent.clone()], NOW).expect("is known");
    assert!(repeated.flush_due && repeated.duplicate, "it is no more durable than before");
    let flush = core.begin_flush().expect("there is something to sync");
    core.flushed(flush.run().expect("syncs"));
    assert_eq!(core.high_watermark(), 3);
    let repeated = core.append(&mut [sent], NOW).expect("is known");
    assert!(!repeated.flush_due && repeated.duplicate);
}

#[tokio::test]
async fn a_flush_that_fails_takes_the_replica_offline() {
    let disk = FaultyDisk::default();
    let (partition, failures) = leader(&disk, 1);
    partition.append(&mut [batch(0, 1, 50)], NOW).expect("appends");
    assert!(partition.wait_committed(1).await);
    // One call is the write, the next is the sync.
    let appended = partition.update(|core| core.append(&mut [batch(0, 1, 50)], NOW));
    let end = appended.expect("appends").last_offset + 1;
    disk.fail_after(Some(0));
    partition.flush();
    let waited = tokio::time::timeout(Duration::from_secs(10), partition.wait_committed(end));
    assert_eq!(waited.await, Ok(false), "it is not acknowledged");
    assert_eq!(partition.view().role, Role::Offline);
    disk.fail_after(None);
    let refused = partition.append(&mut [batch(0, 1, 50)], NOW);
    assert!(matches!(refused, Err(AppendError::Offline)), "{refused:?}");
    while failures.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    partition.update(|core| core.set_role(LEADER));
    assert_eq!(partition.view().role, Role::Offline, "metadata does not repair a disk");
    assert!(partition.close().is_err(), "and its stop is not clean");
}

#[tokio::test]
async fn a_removed_replica_lets_waiters_go_and_touches_nothing() {
    let disk = FaultyDisk::default();
    let (partition, _) = leader(&disk, 1);
    let appended = partition.update(|core| core.append(&mut [batch(0, 1, 50)], NOW));
    let end = appended.expect("appends").last_offset + 1;
    let waiting = Arc::clone(&partition);
    let waiting = tokio::spawn(async move { waiting.wait_committed(end).await });
    tokio::task::yield_now().await;
    partition.retire();
    assert!(!waiting.await.expect("ends"), "it is told");
    assert!(!partition.wait_committed(end).await, "and who comes later too");
    let before = disk.paths();
    partition.update(|core| {
        core.set_role(LEADER);
        assert_eq!(core.role(), Role::Closed);
        assert_eq!(core.apply_retention(i64::MAX, 1).expect("does nothing").len(), 0);
        assert!(!core.is_flush_due_by_time(i64::MAX));
        let refused = core.append(&mut [batch(0, 1, 50)], NOW);
        assert!(matches!(refused, Err(AppendError::NotLeader)), "{refused:?}");
        let refused = core.delete_records(1);
        assert!(matches!(refused, Err(DeleteRecordsError::NotLeader)), "{refused:?}");
    });
    assert_eq!(disk.paths(), before);
}

#[test]
fn a_full_disk_is_refused_and_nothing_is_written() {
    let disk = FaultyDisk::default();
    let mut core = Core::new(open(&disk, i64::MAX), LEADER, 0);
    core.append(&mut [batch(0, 1, 500)], NOW).expect("appends");
    for room in 0..700 {
        disk.set_room(Some(room));
        if core.append(&mut [batch(0, 1, 500)], NOW).is_ok() {
            break;
        }
        assert_eq!(core.high_watermark(), core.log().log_end());
    }
    disk.set_room(None);
    let appended = core.append(&mut [batch(0, 1, 500)], NOW).expect("there is room");
    assert_eq!(appended.first_offset, 2, "one of those before had room enough");
    assert_eq!(open(&disk.crash(Crash::Process), 1).log_end(), 3);
}

#[tokio::test]
async fn a_closed_segment_is_made_durable() {
    let disk = FaultyDisk::default();
    let (partition, _) = leader(&disk, i64::MAX);
    while partition.with_log(|log| log.view().segment_count()) < 3 {
        partition.append(&mut [batch(0, 1, 500)], NOW).expect("appends");
    }
    let closed = partition.with_log(|log| log.view().active_base_offset());
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while partition.view().log.recovery_point() < closed {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("a start after a crash reads from the last segment on");
}
