//! Moves of a replica to another log directory, and crashes during such moves.

use std::io;

use rustix::io::Errno;

use super::*;
use crate::{
    log::{dirs::SharedLogDirs, faulty::Operation},
    partition::{Copied, CopyError, Replaced},
};

const MOST: usize = 1 << 20;
const FUTURE: &str = "/b/t-0.0123456789abcdef0123456789abcdef-future";

/// A leader in the first of two log directories, which is moving to the second.
struct Site {
    disk: FaultyDisk,
    dirs: SharedLogDirs,
    partition: Arc<Partition>,
    failures: Arc<AtomicUsize>,
}

fn open_dirs(disk: &FaultyDisk) -> LogDirs {
    let paths = ["/a", "/b"].map(PathBuf::from);
    let new_cluster_id = "4L6g3nShT-eMCtK--X86sw".to_owned();
    let owner = Owner { node_id: BrokerId(1), cluster_id: None, new_cluster_id, boot_id: None };
    LogDirs::open(Arc::new(disk.clone()), &paths, &paths[0], &owner, Uuid::new_v4).expect("opens")
}

impl Site {
    fn new() -> Self {
        let disk = FaultyDisk::default();
        let dirs = SharedLogDirs::new(open_dirs(&disk));
        let (partition, failures) = leader_at(&disk, Path::new("/a/t-0"), i64::MAX);
        partition.begin_move(open_at(&disk, Path::new(FUTURE), i64::MAX));
        Self { disk, dirs, partition, failures }
    }

    /// Appends records without starting a flush, which would disturb the tests that count calls of
    /// the disk.
    fn append(&self, count: usize) {
        for _ in 0..count {
            let batches = &mut [batch(0, 1, 300)];
            let appended = self.partition.update(|core| core.append(batches, Acks::All, NOW));
            appended.expect("appends");
        }
    }

    /// Copies all records.
    fn copy(&self) {
        let lag = || match self.partition.copy_to_future(1000).expect("copies") {
            Copied::Some { lag, .. } => lag,
            Copied::Over => panic!("it has ended"),
        };
        while lag() > 0 {}
    }

    fn replace(&self, most: usize) -> Result<Replaced, CopyError> {
        self.partition.replace_with_future(most, &self.dirs, Uuid::from_u128(7))
    }

    fn ends_of_future(&self) -> (i64, i64) {
        let view = self.partition.future_view().expect("it moves");
        (view.log.log_start(), view.log.log_end())
    }
}

/// The batches of a log, with their epochs.
fn content(log: &Log) -> Vec<(i64, i32)> {
    let batches = log.view().batches_from(0).map(|batch| batch.expect("is readable").header);
    batches.map(|header| (header.base_offset, header.leader_epoch)).collect()
}

#[tokio::test]
async fn a_copy_takes_over_the_first_dirty_offset() {
    let site = Site::new();
    site.append(20);
    site.partition.update(|core| {
        core.log_mut().roll(20, NOW).expect("rolls");
        core.log_mut().set_first_dirty(20);
    });
    site.copy();
    site.partition.ready_future().expect("syncs");
    let of_copy = || site.partition.future_view().expect("it moves").log.first_dirty();
    assert_eq!(of_copy(), Some(20));
    site.append(5);
    site.partition.update(|core| {
        core.log_mut().roll(25, NOW).expect("rolls");
        core.log_mut().set_first_dirty(25);
    });
    site.copy();
    assert_eq!(of_copy(), Some(20), "a later round has not cleaned the copy");
    assert!(matches!(site.replace(MOST), Ok(Replaced::Done(Ok(_)))));
    assert_eq!(site.partition.view().log.first_dirty(), Some(20));
}

#[tokio::test]
async fn a_copy_takes_the_place_while_producers_go_on() {
    let site = Site::new();
    site.append(20);
    let before = site.partition.view();
    assert!(matches!(site.replace(MOST), Ok(Replaced::Cancelled)), "it is not ready");
    site.copy();
    assert_eq!(site.ends_of_future(), (0, 20));
    site.partition.ready_future().expect("is durable");
    site.append(100);
    assert!(matches!(site.replace(1000), Ok(Replaced::NotCaughtUp)), "there is too much to copy");
    let left = match site.replace(MOST).expect("is exchanged") {
        Replaced::Done(left) => left.expect("the old directory is renamed"),
        other => panic!("{other:?}"),
    };
    assert_eq!(site.partition.log_dir().as_path(), Path::new("/b"));
    assert!(site.partition.future_view().is_none());
    let view = site.partition.view();
    assert_eq!((view.log.log_end(), view.high_watermark), (120, 120));
    assert_eq!(view.log.recovery_point(), 120, "all of it is durable");
    before.log.batches_from(0).for_each(|batch| drop(batch.expect("slow readers go on")));
    site.append(1);
    left.remove().expect("is removed");
    let log = open_at(&site.disk, Path::new("/b/t-0"), 1);
    assert_eq!(content(&log), (0..121).map(|offset| (offset, 0)).collect::<Vec<_>>());
    assert!(site.disk.paths().iter().all(|path| !path.starts_with("/a/t-0")));
    assert_eq!(site.failures.load(Ordering::SeqCst), 0);
}

/// A slow disk sync delays neither producers nor tasks that need the log directories.
#[tokio::test]
async fn an_exchange_holds_no_lock_while_a_disk_syncs() {
    let site = Arc::new(Site::new());
    site.append(20);
    site.copy();
    site.partition.ready_future().expect("is durable");
    site.append(20);
    // Now the log has more durable records than the copy, so the exchange has to flush the copy.
    site.partition.flush_now();
    site.disk.allow_syncs(Some(0));
    let moving = Arc::clone(&site);
    let exchange = std::thread::spawn(move || moving.replace(MOST));
    let mut syncs = 0;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !exchange.is_finished() {
        assert!(std::time::Instant::now() < deadline, "the exchange does not end");
        if site.disk.waiting_syncs() == 0 {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        assert!(site.dirs.try_lock().is_some(), "the directories are locked during sync {syncs}");
        assert!(site.partition.core.try_lock().is_some(), "the core is locked during sync {syncs}");
        site.append(1);
        syncs += 1;
        site.disk.allow_syncs(Some(1));
        while site.disk.allowed_syncs() == Some(1) {
            std::thread::yield_now();
        }
    }
    let replaced = exchange.join().expect("does not panic");
    assert!(matches!(replaced, Ok(Replaced::Done(Ok(_)))), "{replaced:?}");
    assert!(syncs >= 5, "the copy's log, both directories, and the log after: {syncs}");
    let view = site.partition.view();
    assert_eq!(view.log.log_end(), 40 + i64::from(syncs));
    let log = open_at(&site.disk, Path::new("/b/t-0"), i64::MAX);
    assert_eq!(content(&log).len(), 40 + syncs as usize);
}

/// During the exchange, a flush of the old log does not make records of the copy durable.
#[tokio::test]
async fn a_flush_during_the_exchange_does_not_count() {
    let site = Site::new();
    site.append(4);
    let flush = site.partition.update(Core::begin_flush).expect("there is something to sync");
    let flushed = flush.run().expect("syncs");
    site.partition.update(|core| {
        core.hold_flushes();
        core.flushed(flushed, NOW);
    });
    assert_eq!(site.partition.view().log.recovery_point(), 0);
    site.partition.update(Core::release_flushes);
    site.partition.flush_now();
    assert_eq!(site.partition.view().log.recovery_point(), 4);
}

/// If the disk of the old directory fails, the replica continues with the copy.
#[tokio::test]
async fn flushes_count_after_the_old_directory_could_not_be_renamed() {
    let site = Site::new();
    site.append(4);
    site.copy();
    site.partition.ready_future().expect("is durable");
    site.disk.fail_files(Some(|operation, path| {
        (operation == Operation::Rename && path.starts_with("/a")).then_some(Errno::IO)
    }));
    let replaced = site.replace(MOST);
    assert!(matches!(replaced, Ok(Replaced::Done(Err(_)))), "{replaced:?}");
    site.append(1);
    site.partition.flush_now();
    assert_eq!(site.partition.view().log.recovery_point(), 5);
}

/// The records of a copy are not durable while a crash may undo its new name, although its files
/// were synced.
#[tokio::test]
async fn nothing_new_is_durable_before_the_copy_has_its_name() {
    let site = Site::new();
    site.append(4);
    site.copy();
    site.partition.ready_future().expect("is durable");
    assert_eq!(site.partition.view().log.recovery_point(), 0);
    site.disk.fail_files(Some(|operation, path| {
        (operation == Operation::Sync && path == Path::new("/b")).then_some(Errno::IO)
    }));
    let replaced = site.replace(MOST);
    assert!(matches!(replaced, Ok(Replaced::RenameNotDurable(_))), "{replaced:?}");
    site.partition.flush_now();
    assert_eq!(site.partition.view().log.recovery_point(), 0);
}

#[tokio::test]
async fn late_reader_retries_on_the_copy() {
    let site = Site::new();
    site.append(5);
    let before = site.partition.view();
    site.copy();
    site.partition.ready_future().expect("is durable");
    assert!(matches!(site.replace(MOST), Ok(Replaced::Done(Ok(_)))));
    let gone = || ReadError::Io {
        path: "/a/t-0/00000000000000000000.log".into(),
        source: io::ErrorKind::NotFound.into(),
    };
    assert!(site.partition.read_failed(&before, gone()));
    assert!(!site.partition.read_failed(&site.partition.view(), gone()));
    assert_eq!(site.failures.load(Ordering::SeqCst), 0);
}

/// The replica moves away and back, so other files have the paths of those that the reader holds.
#[tokio::test]
async fn late_reader_opens_the_files_of_the_replaced_log() {
    let site = Site::new();
    site.append(20);
    let before = site.partition.view();
    let move_to = |future: &str, unique: u128| {
        site.partition.begin_move(open_at(&site.disk, Path::new(future), i64::MAX));
        site.copy();
        site.partition.ready_future().expect("is durable");
        let replaced =
            site.partition.replace_with_future(MOST, &site.dirs, Uuid::from_u128(unique));
        match replaced.expect("is exchanged") {
            Replaced::Done(left) => left.expect("the old directory is renamed"),
            other => panic!("{other:?}"),
        }
    };
    let left = move_to(FUTURE, 7);
    move_to("/a/t-0.0123456789abcdef0123456789abcdef-future", 8);
    assert_eq!(site.partition.log_dir().as_path(), Path::new("/a"));
    // Reading the wrong file would find a damaged batch.
    site.disk.flip(Path::new("/a/t-0/00000000000000000000.log"), 100, 1);
    let close = || (0..2).for_each(|_| before.log.close_idle_files());
    close();
    let read: Vec<_> = before.log.batches_from(0).map(|batch| batch.expect("reads")).collect();
    assert_eq!(read.len(), 20);
    close();
    left.remove().expect("is removed");
    let error = before.log.batches_from(0).next().expect("a batch").expect_err("is gone");
    assert!(site.partition.read_failed(&before, error), "the reader takes a new view");
    assert_eq!(site.failures.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn flush_of_the_old_log_does_not_count_for_the_copy() {
    let site = Site::new();
    site.append(4);
    let flush = site.partition.update(Core::begin_flush).expect("there is something to sync");
    let moves = site.partition.update(|core| core.moves());
    site.copy();
    site.partition.ready_future().expect("is durable");
    assert!(matches!(site.replace(MOST), Ok(Replaced::Done(Ok(_)))));
    drop(flush.run());
    assert_ne!(site.partition.update(|core| core.moves()), moves);
    site.append(1);
    site.partition.flush_now();
    assert_eq!(site.partition.view().log.recovery_point(), 5);
    assert!(matches!(site.partition.view().role, Role::Leader { .. }));
}

#[tokio::test]
async fn a_copy_is_cut_where_its_log_was() {
    let site = Site::new();
    let write = |epoch: i32, count: usize| {
        site.partition.update(|core| {
            for _ in 0..count {
                core.log_mut().append(&mut [batch(0, 1, 300)], epoch, NOW).expect("appends");
            }
        });
    };
    let same = || {
        site.copy();
        let found = site.disk.crash(Crash::Process);
        let [here, there] =
            ["/a/t-0", FUTURE].map(|path| open_at(&found, Path::new(path), i64::MAX));
        assert_eq!(content(&here), content(&there));
        assert_eq!(here.epochs(), there.epochs());
    };
    write(1, 5);
    write(3, 5);
    same();
    // A later epoch has the same offsets.
    site.partition.update(|core| core.log_mut().truncate_to(7, 0).expect("is cut"));
    write(4, 6);
    same();
    // The epochs in between were truncated, too.
    site.partition.update(|core| core.log_mut().truncate_to(3, 0).expect("is cut"));
    write(6, 2);
    write(7, 9);
    same();
    // The log has nothing in common with the copy any more.
    site.partition.update(|core| {
        core.log_mut().truncate_fully_and_start_at(2, NOW).expect("begins anew");
    });
    same();
    write(8, 3);
    same();
}

#[tokio::test]
async fn a_copy_begins_where_its_log_begins() {
    let site = Site::new();
    site.partition.append(&mut [batch(0, 10, 300)], Acks::All, NOW).expect("appends");
    site.append(20);
    site.copy();
    let delete = |offset| site.partition.update(|core| core.delete_records(offset));
    delete(4).expect("within the first batch");
    site.copy();
    assert_eq!(site.ends_of_future(), (4, 30));
    site.partition.take_future();
    site.partition.begin_move(open_at(&site.disk, Path::new("/b/again"), i64::MAX));
    site.copy();
    assert_eq!(site.ends_of_future(), (4, 30), "though it begins within a batch");
    delete(30).expect("everything");
    site.copy();
    site.partition.ready_future().expect("is durable");
    assert!(matches!(site.replace(MOST), Ok(Replaced::Done(Ok(_)))));
    let view = site.partition.view();
    assert_eq!((view.log.log_start(), view.log.log_end()), (30, 30));
}

#[tokio::test]
async fn a_replica_out_of_service_is_not_exchanged() {
    let site = Site::new();
    site.append(3);
    site.copy();
    site.partition.ready_future().expect("is durable");
    site.partition.fail();
    assert!(matches!(site.partition.copy_to_future(MOST), Ok(Copied::Over)));
    assert!(matches!(site.replace(MOST), Ok(Replaced::Cancelled)));
    assert!(site.disk.paths().iter().any(|path| path.starts_with(FUTURE)), "it is left alone");
}

/// After a crash at any point of the exchange, each directory with the replica's name has all
/// records.
#[tokio::test]
async fn a_crash_in_the_exchange_loses_nothing() {
    let mut ends = 0;
    for calls in 0.. {
        let site = Site::new();
        site.append(10);
        site.copy();
        site.partition.ready_future().expect("is durable");
        site.append(5);
        site.partition.flush_now();
        site.disk.fail_after(Some(calls));
        let replaced = site.replace(MOST);
        let crashed = site.disk.crash(Crash::LoseUnsynced);
        let found = open_dirs(&crashed).list();
        let whole: Vec<_> = found.iter().filter(|it| !it.is_future).collect();
        assert!(!whole.is_empty(), "{calls}: {found:?}");
        for replica in whole {
            let log = open_at(&crashed, &replica.path, 1);
            assert_eq!(log.log_end(), 15, "{calls}: {}", replica.path.display());
        }
        if let Ok(Replaced::RenameNotDurable(_)) = replaced {
            assert_eq!(site.partition.log_dir().as_path(), Path::new("/b"));
        } else if let Ok(Replaced::Done(left)) = replaced {
            assert_eq!(site.partition.log_dir().as_path(), Path::new("/b"));
            ends += 1;
            if left.is_ok() {
                assert_eq!(found.len(), 1, "{found:?}");
                break;
            }
        } else {
            assert_eq!(site.partition.log_dir().as_path(), Path::new("/a"), "{calls}");
            let future = site.partition.future_view().expect("it may be tried again");
            assert!(future.log_dir == Path::new("/b") && site.partition.take_future().is_some());
        }
    }
    assert!(ends > 1, "also where the old directory could not be renamed");
}
