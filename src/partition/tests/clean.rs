//! Compaction of a replica that serves producers and readers meanwhile.

use std::{ops::ControlFlow, thread};

use rustix::io::Errno;

use super::*;
use crate::{
    log::{
        DeletedSegment, LogError,
        clean::{CleanError, CleanOptions, CleanRange, Cleaned, Pace},
        faulty::Operation,
    },
    records::{BatchBuilder, BatchOptions},
};

/// Runs a step each time that bytes were read or written.
struct Steps<F> {
    step: F,
    deleted: Vec<DeletedSegment>,
}

impl<F: FnMut()> Pace for Steps<F> {
    fn passed(&mut self, _: u64) -> ControlFlow<()> {
        (self.step)();
        ControlFlow::Continue(())
    }

    fn replaced(&mut self, old: Vec<DeletedSegment>) {
        self.deleted.extend(old);
    }
}

fn of_key(key: u8) -> Batch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(NOW, Some(&[key]), Some(&[key; 200]), &[]);
    builder.build()
}

fn append(partition: &Arc<Partition>, key: u8) {
    let appended = partition.update(|core| core.append(&mut [of_key(key)], Acks::All, NOW));
    appended.expect("appends");
}

/// A leader with 30 records of five keys in several segments.
fn filled(disk: &FaultyDisk) -> (Arc<Partition>, Arc<AtomicUsize>) {
    let (partition, failures) = leader(disk, i64::MAX);
    (0..30).for_each(|at| append(&partition, at % 5));
    assert!(partition.view().log.segment_count() > 3);
    (partition, failures)
}

fn clean_with(
    partition: &Partition,
    step: impl FnMut(),
) -> (Result<Cleaned, CleanError>, Vec<DeletedSegment>) {
    let options = CleanOptions {
        map_bytes: 1 << 16,
        load_factor: 0.9,
        io_buffer_bytes: 500,
        hash_key: [1; 16],
        now_ms: NOW,
        delete_retention_ms: 1000,
    };
    let log = &partition.view().log;
    let (end, generation) = (log.active_base_offset(), log.generation());
    let range = CleanRange { first_dirty: 0, end, generation };
    let mut pace = Steps { step, deleted: Vec::new() };
    let cleaned = partition.clean(range, &options, &mut pace);
    (cleaned, pace.deleted)
}

fn offsets(partition: &Partition) -> Vec<i64> {
    let batches = partition.view().log.batches_from(0);
    batches.map(|batch| batch.expect("reads").header.base_offset).collect()
}

#[tokio::test]
async fn producers_and_readers_continue_during_a_round() {
    let disk = FaultyDisk::default();
    let (partition, failures) = filled(&disk);
    let first = partition.view();
    let end = first.log.active_base_offset();
    let (cleaned, deleted) = clean_with(&partition, || {
        append(&partition, 7);
        let last = *offsets(&partition).last().expect("has records");
        assert_eq!(last + 1, partition.view().log.log_end());
    });
    assert_eq!(cleaned.expect("cleans").end_offset, end);
    let left = offsets(&partition);
    // Before the end of the round, the last record of each key is left.
    assert_eq!(left.iter().filter(|offset| **offset < end).count(), 5, "{left:?}");
    let view = partition.view();
    assert!(view.log.replacements() > first.log.replacements());
    assert_eq!(view.log.generation(), first.log.generation());
    assert_eq!(view.high_watermark, view.log.log_end());
    // A reader that is slower than the removal of the old files takes a new view.
    (0..2).for_each(|_| first.log.close_idle_files());
    assert!(first.log.batches_from(0).all(|batch| batch.is_ok()));
    (0..2).for_each(|_| first.log.close_idle_files());
    deleted.into_iter().for_each(|segment| segment.remove().expect("removes"));
    let error = first.log.read(0, 1000, end, true).expect_err("is gone");
    assert!(partition.read_failed(&first, error));
    assert_eq!(failures.load(Ordering::SeqCst), 0);
}

/// Nothing of the cleaner but names and pointers is behind the lock that producers need.
#[tokio::test]
async fn producers_do_not_wait_for_a_sync_of_the_cleaner() {
    let disk = FaultyDisk::default();
    let (partition, _) = filled(&disk);
    disk.allow_syncs(Some(0));
    thread::scope(|scope| {
        let round = scope.spawn(|| clean_with(&partition, || {}).0);
        let mut syncs = 0;
        while !round.is_finished() {
            if disk.waiting_syncs() > 0 {
                append(&partition, 9);
                syncs += 1;
                disk.allow_syncs(Some(1));
                while disk.allowed_syncs() == Some(1) {
                    thread::yield_now();
                }
            }
            thread::yield_now();
        }
        round.join().expect("does not panic").expect("cleans");
        assert!(syncs >= 6, "{syncs}");
    });
    disk.allow_syncs(None);
    assert_eq!(partition.view().high_watermark, partition.view().log.log_end());
}

#[tokio::test]
async fn round_ends_when_the_replica_is_out_of_service() {
    for role in [Role::Closed, Role::Offline] {
        let disk = FaultyDisk::default();
        let (partition, _) = filled(&disk);
        let before = offsets(&partition);
        let (cleaned, deleted) =
            clean_with(&partition, || partition.update(|core| core.set_role(role)));
        assert!(matches!(cleaned, Err(CleanError::Aborted)), "{cleaned:?}");
        assert_eq!((deleted.len(), offsets(&partition)), (0, before));
        let is_left = |path: &&PathBuf| path.to_string_lossy().ends_with(".cleaned");
        assert_eq!(disk.paths().iter().find(is_left), None);
    }
}

#[tokio::test]
async fn truncation_ends_a_round() {
    let disk = FaultyDisk::default();
    let (partition, failures) = filled(&disk);
    let mut steps = 0;
    let (cleaned, _) = clean_with(&partition, || {
        steps += 1;
        if steps == 3 {
            let cut = |core: &mut Core| core.log_mut().truncate_to(8, 8);
            partition.update(cut).expect("cuts");
        }
    });
    assert!(matches!(cleaned, Err(CleanError::Aborted)), "{cleaned:?}");
    assert_eq!(offsets(&partition), (0..8).collect::<Vec<_>>());
    assert_eq!(failures.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn disk_failure_is_returned_to_the_caller() {
    let disk = FaultyDisk::default();
    let (partition, _) = filled(&disk);
    let before = offsets(&partition);
    disk.fail_files(Some(|operation, path| {
        let is_new = path.to_string_lossy().ends_with(".log.cleaned");
        (operation == Operation::Sync && is_new).then_some(Errno::IO)
    }));
    let (cleaned, _) = clean_with(&partition, || {});
    assert!(matches!(&cleaned, Err(CleanError::Log(error)) if error.is_disk_failure()));
    assert_eq!(offsets(&partition), before);
    // A full disk is no failure.
    disk.fail_files(Some(|operation, path| {
        let is_new = path.to_string_lossy().ends_with(".index.cleaned");
        (operation == Operation::Write && is_new).then_some(Errno::NOSPC)
    }));
    let config = LogConfig { index_interval_bytes: 10, ..LogConfig::default() };
    partition.update(|core| core.log_mut().set_config(Arc::new(config)));
    let (cleaned, _) = clean_with(&partition, || {});
    let is_full = |error: &LogError| !error.is_disk_failure();
    assert!(matches!(&cleaned, Err(CleanError::Log(error)) if is_full(error)), "{cleaned:?}");
    assert_eq!(offsets(&partition), before);
}

/// A copy to another directory reads the log while it is compacted.
#[tokio::test]
async fn move_continues_beside_a_round() {
    let disk = FaultyDisk::default();
    let (partition, failures) = filled(&disk);
    let future = Path::new("/data/t-0.0123456789abcdef0123456789abcdef-future");
    partition.begin_move(open_at(&disk, future, i64::MAX));
    let copy = || partition.copy_to_future(600).expect("copies");
    let (cleaned, deleted) = clean_with(&partition, || {
        copy();
    });
    cleaned.expect("cleans");
    deleted.into_iter().for_each(|segment| segment.remove().expect("removes"));
    let is_complete =
        (0..1000).any(|_| matches!(copy(), crate::partition::Copied::Some { lag: 0, .. }));
    assert!(is_complete);
    let copied = partition.future_view().expect("is moving");
    assert_eq!(copied.log.log_end(), partition.view().log.log_end());
    let in_copy: Vec<i64> =
        copied.log.batches_from(0).map(|it| it.expect("reads").header.base_offset).collect();
    assert!(offsets(&partition).iter().all(|offset| in_copy.contains(offset)));
    assert_eq!(failures.load(Ordering::SeqCst), 0);
}
