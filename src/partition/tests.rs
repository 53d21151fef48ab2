//! Durability and roles of a replica, on a simulated disk that fails and loses unsynced data.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use uuid::Uuid;

use super::{
    Acks, AppendError, Core, DeleteRecordsError, FlushQueue, Partition, PartitionCallbacks, Role,
    Urgency,
};
use crate::{
    base::{BrokerId, TopicPartition},
    log::{
        Disk, Log, LogConfig, LogDirs, LogStart, ProducerCheck, ReadError,
        dirs::Owner,
        faulty::{Crash, FaultyDisk},
        testing::{batch, of_producer},
    },
    records::Batch,
};

mod clean;
mod moves;
mod replicas;
mod transactions;

const DIR: &str = "/data/t-0";
const NOW: i64 = 1_000_000;
const LEADER: Role = Role::Leader { epoch: 0 };

fn open(disk: &FaultyDisk, flush_messages: i64) -> Log {
    open_at(disk, Path::new(DIR), flush_messages)
}

fn open_at(disk: &FaultyDisk, path: &Path, flush_messages: i64) -> Log {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let config = LogConfig { segment_bytes: 2000, flush_messages, ..LogConfig::default() };
    let start =
        LogStart { recovery_point: 0, settled: 0, log_start: None, clean: false, now_ms: NOW };
    Log::open(disk, path, Arc::new(config), start).expect("opens").0
}

/// A leader, and the number of failures that it has reported.
fn leader(disk: &FaultyDisk, flush_messages: i64) -> (Arc<Partition>, Arc<AtomicUsize>) {
    leader_at(disk, Path::new(DIR), flush_messages)
}

fn leader_at(
    disk: &FaultyDisk,
    path: &Path,
    flush_messages: i64,
) -> (Arc<Partition>, Arc<AtomicUsize>) {
    serving(open_at(disk, path, flush_messages))
}

fn serving(log: Log) -> (Arc<Partition>, Arc<AtomicUsize>) {
    let failures = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&failures);
    let on_failure = Box::new(move |_: &Partition, _: &_| {
        told.fetch_add(1, Ordering::SeqCst);
    });
    let core = Core::new(log, LEADER, 0);
    let id = TopicPartition::new("t", 0);
    let callbacks = PartitionCallbacks { on_failure, ..PartitionCallbacks::default() };
    (Arc::new(Partition::new(id, core, callbacks)), failures)
}

/// Opens the log after a crash and checks its batches.
fn after(disk: &FaultyDisk, crash: Crash) -> Log {
    let log = open(&disk.crash(crash), 1);
    let mut next = 0;
    for batch in log.view().batches_from(0) {
        let batch = batch.expect("is readable");
        batch.verify_crc().expect("is whole");
        assert_eq!(batch.header.base_offset, next, "offsets have no gap");
        next = batch.header.last_offset() + 1;
    }
    assert_eq!(next, log.log_end());
    log
}

/// Appends a batch of an idempotent producer, every third one twice, and waits until it is
/// committed.
async fn acknowledge(partition: &Arc<Partition>, producer: i64, n: i32) -> (Batch, i64) {
    let sent = of_producer(batch(0, 2, 150), producer, 0, n * 2);
    let mut answer =
        partition.append(&mut [sent.clone()], Acks::All, NOW).expect("the disk takes it");
    if n % 3 == 0 {
        let first = answer.first_offset;
        answer = partition.append(&mut [sent.clone()], Acks::All, NOW).expect("is known");
        assert!(answer.duplicate && answer.first_offset == first, "it is there once");
    }
    assert!(partition.wait_committed(answer.last_offset + 1, 0).await);
    (sent, answer.first_offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn acknowledged_records_survive_a_machine_crash() {
    let disk = FaultyDisk::default();
    let (partition, failures) = leader(&disk, 1);
    let write = |task: i32| {
        let (partition, disk) = (Arc::clone(&partition), disk.clone());
        async move {
            for n in 0..25 {
                let (sent, first) = acknowledge(&partition, i64::from(task), n).await;
                if (n + task) % 4 != 0 {
                    continue;
                }
                for crash in [Crash::LoseUnsynced, Crash::Tear(20), Crash::Tear(70)] {
                    let log = after(&disk, crash);
                    let end = log.log_end();
                    assert!(end > first + 1, "{crash:?}: {end}, acknowledged at {first}");
                    let known = log.check_producer(&sent.header);
                    let Ok(ProducerCheck::Duplicate { base_offset, .. }) = known else {
                        panic!("{crash:?}: its producer may repeat it, {known:?}");
                    };
                    assert_eq!(base_offset, first, "{crash:?}");
                }
            }
        }
    };
    let tasks: Vec<_> = (0..4).map(|task| tokio::spawn(write(task))).collect();
    for task in tasks {
        task.await.expect("nothing acknowledged is lost");
    }
    assert_eq!(partition.view().high_watermark, 200);
    assert!(partition.with_log(|log| log.view().segment_count()) > 5, "segments have rolled");
    assert_eq!(failures.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_new_topic_survives_the_machine_with_its_first_record() {
    let disk = FaultyDisk::default();
    let dir = [PathBuf::from("/data/logs")];
    let open_dirs = |disk: &FaultyDisk| {
        let new_cluster_id = "4L6g3nShT-eMCtK--X86sw".to_owned();
        let owner = Owner { node_id: BrokerId(1), cluster_id: None, new_cluster_id, boot_id: None };
        LogDirs::open(Arc::new(disk.clone()), &dir, &dir[0], &owner, Uuid::new_v4).expect("opens")
    };
    let mut dirs = open_dirs(&disk);
    let name = TopicPartition::new("t", 0);
    let mut place = dirs.place(&name, |_| false, &[]).expect("is online");
    place.create(Uuid::new_v4()).expect("is made");
    let (partition, _) = leader_at(&disk, &place.path, 1);
    partition.append(&mut [batch(0, 1, 50)], Acks::All, NOW).expect("appends");
    assert!(partition.wait_committed(1, 0).await);
    let disk = disk.crash(Crash::LoseUnsynced);
    let found = open_dirs(&disk).list();
    assert_eq!(found.iter().map(|it| &it.partition).collect::<Vec<_>>(), [&name]);
    assert_eq!(open_at(&disk, &found[0].path, 1).log_end(), 1, "the record is there");
}

#[tokio::test]
async fn read_error_reports_a_disk_failure() {
    let disk = FaultyDisk::default();
    let (partition, _) = leader(&disk, i64::MAX);
    for _ in 0..50 {
        partition.append(&mut [batch(0, 1, 200)], Acks::All, NOW).expect("appends");
    }
    partition.close().expect("closes");
    // After a clean stop the log is opened without a scan, so a read has to search its files.
    let start =
        LogStart { recovery_point: 50, settled: 0, log_start: None, clean: true, now_ms: NOW };
    let config = Arc::new(LogConfig { segment_bytes: 2000, ..LogConfig::default() });
    let log = Log::open(Arc::new(disk.clone()), Path::new(DIR), config, start).expect("opens").0;
    let (partition, failures) = serving(log);
    let read = || partition.view().log.read(3, 1, 50, true);
    disk.fail_reads(true);
    let error = read().expect_err("nothing can be read");
    assert!(matches!(error, ReadError::Io { .. }), "{error:?}");
    assert!(!partition.read_failed(&partition.view(), error));
    assert_eq!(failures.load(Ordering::SeqCst), 1, "its log directory goes offline");
    disk.fail_reads(false);
    let first = Path::new(DIR).join("00000000000000000000.log");
    disk.flip(&first, 8, 0x80);
    let error = partition.view().log.read(0, 1, 50, true).expect_err("its length is negative");
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error:?}");
}

/// Undoing a failed append truncates the log. Readers of an older view must not repeat their read
/// forever.
#[tokio::test]
async fn an_undone_append_is_published() {
    let disk = FaultyDisk::default();
    let (partition, failures) = leader(&disk, i64::MAX);
    partition.append(&mut [batch(0, 1, 500)], Acks::Leader, NOW).expect("appends");
    disk.set_room(Some(3000));
    let mut batches: Vec<Batch> = (0..20).map(|_| batch(0, 1, 500)).collect();
    partition.append(&mut batches, Acks::Leader, NOW).expect_err("has no room");
    let view = partition.view();
    assert_eq!(view.log.generation(), partition.with_log(Log::generation));
    disk.fail_reads(true);
    let error = view.log.batches_from(0).next().expect("a batch").expect_err("cannot be read");
    assert!(!partition.read_failed(&view, error), "the log is not another");
    assert_eq!(failures.load(Ordering::SeqCst), 1);
}

/// A view may show records that a follower has truncated since. Failing to read them is no disk
/// failure.
#[tokio::test]
async fn reading_truncated_records_is_no_disk_failure() {
    let (partition, failures) = leader(&FaultyDisk::default(), i64::MAX);
    for _ in 0..3 {
        partition.append(&mut [batch(0, 1, 200)], Acks::Leader, NOW).expect("appends");
    }
    let before = partition.view();
    partition.update(|core| core.log_mut().truncate_to(1, 1)).expect("cuts");
    let error = before.log.read(2, 1000, 3, true).expect_err("is gone");
    assert!(partition.read_failed(&before, error));
    assert_eq!(failures.load(Ordering::SeqCst), 0);
    assert_ne!(partition.view().role, Role::Offline);
}

#[test]
fn high_watermark_and_duplicates_wait_for_the_flush() {
    let disk = FaultyDisk::default();
    let mut core = Core::new(open(&disk, 1), LEADER, 0);
    let sent = of_producer(batch(0, 3, 50), 7, 0, 0);
    let appended = core.append(&mut [sent.clone()], Acks::All, NOW).expect("appends");
    assert!(appended.flush_due && !appended.duplicate);
    assert_eq!(core.high_watermark(), 0);
    let repeated = core.append(&mut [sent.clone()], Acks::All, NOW).expect("is known");
    assert!(repeated.flush_due && repeated.duplicate, "it is no more durable than before");
    let flush = core.begin_flush().expect("there is something to sync");
    core.flushed(flush.run().expect("syncs"), NOW);
    assert_eq!(core.high_watermark(), 3);
    let repeated = core.append(&mut [sent], Acks::All, NOW).expect("is known");
    assert!(!repeated.flush_due && repeated.duplicate);
}

#[tokio::test]
async fn a_flush_that_fails_takes_the_replica_offline() {
    let disk = FaultyDisk::default();
    let (partition, failures) = leader(&disk, 1);
    partition.append(&mut [batch(0, 1, 50)], Acks::All, NOW).expect("appends");
    assert!(partition.wait_committed(1, 0).await);
    // The write succeeds, the sync after it fails.
    let appended = partition.update(|core| core.append(&mut [batch(0, 1, 50)], Acks::All, NOW));
    let end = appended.expect("appends").last_offset + 1;
    disk.fail_after(Some(0));
    partition.flush(Urgency::Urgent);
    let waited = tokio::time::timeout(Duration::from_secs(10), partition.wait_committed(end, 0));
    assert_eq!(waited.await, Ok(false), "it is not acknowledged");
    assert_eq!(partition.view().role, Role::Offline);
    disk.fail_after(None);
    let refused = partition.append(&mut [batch(0, 1, 50)], Acks::All, NOW);
    assert!(matches!(refused, Err(AppendError::Offline)), "{refused:?}");
    while failures.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    partition.update(|core| core.set_role(LEADER));
    assert_eq!(partition.view().role, Role::Offline, "metadata does not repair a disk");
    assert!(partition.close().is_err(), "and its stop is not clean");
}

#[tokio::test]
async fn flushes_by_time_are_bounded_and_do_not_delay_producers() {
    let (disk, flushes) = (FaultyDisk::default(), FlushQueue::new(3));
    let partition = |at: i32| {
        let log = open_at(&disk, Path::new(&format!("/data/t-{at}")), 1);
        let core = Core::new(log, LEADER, 0);
        let callbacks =
            PartitionCallbacks { flushes: Arc::clone(&flushes), ..PartitionCallbacks::default() };
        Arc::new(Partition::new(TopicPartition::new("t", at), core, callbacks))
    };
    let partitions: Vec<_> = (0..100).map(partition).collect();
    let append = |partition: &Arc<Partition>| {
        let appended = partition.update(|core| core.append(&mut [batch(0, 1, 50)], Acks::All, NOW));
        appended.expect("appends").last_offset + 1
    };
    disk.set_sync_delay(Duration::from_millis(5));
    for partition in &partitions {
        append(partition);
        partition.flush(Urgency::Background);
    }
    // The last partition in the queue, but a producer waits for its flush.
    let last = &partitions[99];
    let end = append(last);
    last.flush(Urgency::Urgent);
    let waited = tokio::time::timeout(Duration::from_secs(10), last.wait_committed(end, 0));
    assert_eq!(waited.await, Ok(true));
    let is_flushed = |it: &&Arc<Partition>| it.view().log.recovery_point() > 0;
    let flushed = partitions.iter().filter(is_flushed).count();
    assert!(flushed < 50, "{flushed} others came first");
    while !partitions.iter().all(|it| is_flushed(&it)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(disk.most_syncs_at_once() <= 4, "{} at once", disk.most_syncs_at_once());
}

#[tokio::test]
async fn removed_replica_ends_waiters_and_writes_nothing() {
    let disk = FaultyDisk::default();
    let (partition, _) = leader(&disk, 1);
    let appended = partition.update(|core| core.append(&mut [batch(0, 1, 50)], Acks::All, NOW));
    let end = appended.expect("appends").last_offset + 1;
    let waiting = Arc::clone(&partition);
    let waiting = tokio::spawn(async move { waiting.wait_committed(end, 0).await });
    tokio::task::yield_now().await;
    partition.retire();
    assert!(!waiting.await.expect("ends"), "it is told");
    assert!(!partition.wait_committed(end, 0).await, "and who comes later too");
    let before = disk.paths();
    partition.update(|core| {
        core.set_role(LEADER);
        assert_eq!(core.role(), Role::Closed);
        assert_eq!(core.apply_retention(i64::MAX, 1).expect("does nothing").len(), 0);
        assert!(!core.is_flush_due_by_time(i64::MAX));
        let refused = core.append(&mut [batch(0, 1, 50)], Acks::All, NOW);
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
    core.append(&mut [batch(0, 1, 500)], Acks::All, NOW).expect("appends");
    for room in 0..700 {
        disk.set_room(Some(room));
        if core.append(&mut [batch(0, 1, 500)], Acks::All, NOW).is_ok() {
            break;
        }
        assert_eq!(core.high_watermark(), core.log().log_end());
    }
    disk.set_room(None);
    let appended = core.append(&mut [batch(0, 1, 500)], Acks::All, NOW).expect("there is room");
    assert_eq!(appended.first_offset, 2, "one of those before had room enough");
    assert_eq!(open(&disk.crash(Crash::Process), 1).log_end(), 3);
}

#[tokio::test]
async fn a_closed_segment_is_made_durable() {
    let disk = FaultyDisk::default();
    let (partition, _) = leader(&disk, i64::MAX);
    while partition.with_log(|log| log.view().segment_count()) < 3 {
        partition.append(&mut [batch(0, 1, 500)], Acks::All, NOW).expect("appends");
    }
    let closed = partition.with_log(|log| log.view().active_base_offset());
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while partition.view().log.recovery_point() < closed {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("a start after a crash reads from the last segment on");
}

#[tokio::test]
async fn a_look_at_a_locked_partition_does_not_wait() {
    let (partition, _) = leader(&FaultyDisk::default(), i64::MAX);
    assert_eq!(partition.is_stuck(NOW), Some(false));
    let _appending = partition.lock();
    assert_eq!(partition.is_stuck(NOW), None);
}
