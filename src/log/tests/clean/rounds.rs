//! What a round leaves in the log.

use super::*;
use crate::log::{Disk, RealDisk, names::Kind};

fn bases(log: &Log) -> Vec<i64> {
    log.view().segments.iter().map(|segment| segment.base_offset).collect()
}

fn history(disk: &FaultyDisk) -> Log {
    let (mut log, _) = open(disk, small(), start(true, 0));
    write_history(&mut log);
    log
}

fn assert_no_leftovers(disk: &FaultyDisk) {
    let is_left = |path: &&std::path::PathBuf| {
        [".cleaned", ".swap", ".tmp"].iter().any(|suffix| path.to_string_lossy().ends_with(suffix))
    };
    assert_eq!(disk.paths().iter().find(is_left), None);
}

#[test]
fn a_round_keeps_what_consumers_see() {
    let disk = FaultyDisk::default();
    let mut log = history(&disk);
    log.set_config(Arc::new(LogConfig { segment_bytes: 2500, ..small() }));
    let (table, before) = (committed_table(&log), log.view());
    let state =
        |log: &Log| (log.log_start(), log.log_end(), log.recovery_point(), log.epochs().to_vec());
    let (segments, others) = (bases(&log).len(), state(&log));
    let (log, end) = clean_all(log, NOW);
    assert_eq!(end, *bases(&log).last().expect("has a segment"));
    assert_eq!(committed_table(&log), table);
    assert_eq!(state(&log), others);
    assert!(log.size() < before.size() / 2, "{} of {}", log.size(), before.size());
    assert!(bases(&log).len() < segments, "neighbouring segments become one");
    assert_eq!(bases(&log)[0], 0);
    assert_no_leftovers(&disk);
    let offsets: Vec<i64> = batches_of(&log).iter().map(|it| it.header.base_offset).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
}

/// The second round sets the delete horizons of markers whose transactions the first one has removed.
#[test]
fn a_third_round_without_new_records_changes_nothing() {
    let (log, end) = clean_all(history(&FaultyDisk::default()), NOW);
    let (log, _) = clean_all(log, NOW);
    let before = batches_of(&log);
    let shared = Shared::new(log);
    for first_dirty in [0, end] {
        let cleaned = run(&shared, first_dirty, NOW).expect("cleans");
        assert_eq!(cleaned.end_offset, end);
        assert!(batches_of(&shared.log.lock()) == before);
    }
}

#[test]
fn a_map_that_is_too_small_ends_the_round_earlier() {
    let disk = FaultyDisk::default();
    let log = history(&disk);
    let table = committed_table(&log);
    let range = cleanable(&log, 0);
    let small_map = CleanOptions { map_bytes: 4 * 24, load_factor: 1.0, ..options(NOW) };
    let shared = Shared::new(log);
    let mut ends = vec![0];
    while ends[ends.len() - 1] < range.end {
        let first_dirty = ends[ends.len() - 1];
        let range = CleanRange { first_dirty, ..range };
        let cleaned = clean::clean(&shared, range, &small_map, &mut Collected::default());
        ends.push(cleaned.expect("cleans").end_offset);
        assert!(ends.is_sorted_by(|a, b| a < b), "every round advances: {ends:?}");
        assert_eq!(committed_table(&shared.log.lock()), table);
    }
    assert!(ends.len() > 3, "{ends:?}");
}

#[test]
fn state_is_the_same_after_a_restart() {
    let disk = FaultyDisk::default();
    let (mut log, _) = clean_all(history(&disk), NOW);
    let (table, batches) = (committed_table(&log), batches_of(&log));
    let producers = |log: &Log| -> BTreeMap<i64, _> {
        let state = |(id, entry): (i64, &crate::log::ProducerEntry)| {
            (
                id,
                (
                    entry.epoch,
                    entry.last_batch().map(|last| (last.last_offset, last.last_sequence)),
                ),
            )
        };
        log.producers().map(state).collect()
    };
    let before = producers(&log);
    let check = |log: &Log| {
        assert_eq!(committed_table(log), table);
        assert_eq!(batches_of(log), batches);
        assert_eq!(producers(log), before);
        let repeated = of(4, 0, &[("h", Some("1")), ("c", Some("2"))]);
        let checked = log.check_producer(&repeated.header);
        assert!(matches!(checked, Ok(ProducerCheck::Duplicate { .. })), "{checked:?}");
    };
    let killed = disk.crash(Crash::Process);
    check(&open(&killed, small(), start(false, 0)).0);
    // Without snapshots, the state comes from what compaction has left.
    let killed = disk.crash(Crash::Process);
    for path in killed.paths() {
        if path.to_string_lossy().ends_with(".snapshot") {
            killed.remove_file(&path).expect("is there");
        }
    }
    check(&open(&killed, small(), start(false, 0)).0);
    let recovery_point = log.close().expect("closes");
    check(&open(&disk, small(), start(true, recovery_point)).0);
}

/// Indexes of the new segment are like those that a start builds.
#[test]
fn indexes_are_as_rebuilt_ones() {
    let disk = FaultyDisk::default();
    let (log, _) = clean_all(history(&disk), NOW);
    let (other, kinds) = (disk.crash(Crash::Process), [Kind::Index, Kind::TimeIndex]);
    let sealed = bases(&log);
    for base in &sealed {
        for kind in kinds {
            other.remove_file(&path(*base, kind)).expect("is there");
        }
    }
    let (rebuilt, recovery) = open(&other, small(), start(false, 0));
    assert!(recovery.rebuilt_indexes.contains(&0));
    for base in &sealed[..sealed.len() - 1] {
        for kind in kinds {
            let read = |disk: &FaultyDisk| crate::log::disk::read_file(disk, &path(*base, kind));
            assert_eq!(read(&disk).expect("reads"), read(&other).expect("reads"), "{base}");
        }
    }
    let timestamps = |log: &Log| log.view().max_timestamp().expect("reads");
    assert_eq!(timestamps(&rebuilt), timestamps(&log));
}

fn path(base: i64, kind: Kind) -> std::path::PathBuf {
    crate::log::names::file(Path::new(DIR), base, kind)
}

/// The transaction index has the transactions whose records or markers are left.
#[test]
fn transaction_index_lists_what_is_left() {
    let disk = FaultyDisk::default();
    let log = history(&disk);
    let all = log.view().aborted_between(0, i64::MAX).expect("reads");
    assert!(all.len() >= 4);
    let (log, end) = clean_all(log, NOW);
    let markers: Vec<i64> = batches_of(&log)
        .iter()
        .filter(|batch| batch.header.is_control() && batch.header.record_count > 0)
        .map(|batch| batch.header.base_offset)
        .collect();
    let left = log.view().aborted_between(0, i64::MAX).expect("reads");
    let expected: Vec<_> =
        all.iter().filter(|txn| markers.contains(&txn.last_offset)).copied().collect();
    assert_eq!(left, expected);
    // A start accepts the file.
    let (again, recovery) = open(&disk.crash(Crash::Process), small(), start(false, end));
    assert_eq!(recovery.rebuilt_txn_indexes, [0; 0]);
    assert_eq!(again.view().aborted_between(0, i64::MAX).expect("reads"), left);
    // The next round removes transactions from the index of which no batch is left.
    let batches = batches_of(&log);
    let expected: Vec<_> = left
        .iter()
        .filter(|txn| {
            let is_part = |batch: &&Batch| {
                let offsets = txn.first_offset..txn.last_offset;
                batch.header.producer_id == txn.producer_id
                    && offsets.contains(&batch.header.base_offset)
            };
            batches.iter().any(|batch| is_part(&batch))
        })
        .copied()
        .collect();
    assert!(expected.len() < left.len());
    let (log, _) = clean_all(log, NOW);
    assert_eq!(log.view().aborted_between(0, end).expect("reads"), expected);
}

#[test]
fn modification_time_is_that_of_the_last_old_segment() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("t-0");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let opened = Log::open(disk, &path, Arc::new(small()), start(true, 0));
    let mut log = opened.expect("opens").0;
    write_history(&mut log);
    let bases = bases(&log);
    for (index, base) in bases.iter().enumerate() {
        let file = crate::log::names::file(&path, *base, Kind::Log);
        RealDisk.set_modified_ms(&file, 1_000_000 + index as i64).expect("sets");
    }
    let large = Arc::new(LogConfig { segment_bytes: 1 << 20, ..small() });
    log.set_config(large);
    let table = committed_table(&log);
    let (log, _) = clean_all(log, NOW);
    assert_eq!(log.view().segment_count(), 2);
    let first = crate::log::names::file(&path, 0, Kind::Log);
    let modified = RealDisk.modified_ms(&first).expect("is there");
    assert_eq!(modified, 1_000_000 + bases.len() as i64 - 2);
    assert_eq!(committed_table(&log), table);
    let reopened =
        Log::open(Arc::new(RealDisk), &path, Arc::new(small()), start(false, 0)).expect("opens");
    assert_eq!(committed_table(&reopened.0), table);
}

#[test]
fn round_leaves_the_page_cache_as_it_was() {
    for are_cached in [true, false] {
        let disk = FaultyDisk::default();
        let mut log = history(&disk);
        log.flush().expect("flushes");
        let files = |log: &Log| -> Vec<_> {
            let view = log.view();
            let closed = &view.segments[..view.segment_count() - 1];
            closed.iter().map(|segment| segment.file().expect("opens")).collect()
        };
        let old = files(&log);
        if !are_cached {
            disk.drop_from_cache(|path| path.extension().is_some_and(|it| it == "log"));
        }
        let (log, _) = clean_all(log, NOW);
        let new = files(&log);
        assert!(old.len() >= 3 && !new.is_empty(), "{} and {}", old.len(), new.len());
        for file in old.iter().chain(&new) {
            assert_eq!(file.is_cached(0, 1), are_cached, "{file:?}");
        }
    }
}

#[test]
fn invalid_batch_makes_the_log_uncleanable() {
    let disk = FaultyDisk::default();
    let log = history(&disk);
    let before = disk.paths();
    disk.flip(&path(0, Kind::Log), 100, 1);
    let shared = Shared::new(log);
    let error = run(&shared, 0, NOW).expect_err("is damaged");
    assert!(matches!(error, CleanError::Uncleanable { .. }), "{error}");
    assert_eq!(disk.paths(), before);
}

/// The first group is compacted already when the round finds the batch in the second one.
#[test]
fn invalid_batch_in_a_later_group_loses_nothing() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk, small(), start(true, 0));
    put(&mut log, plain(&[("a", Some("old")), ("kept", Some("1"))]));
    write_history(&mut log);
    let (table, before) = (committed_table(&log), batches_of(&log));
    let old = bases(&log);
    let range = cleanable(&log, old[3]);
    let damaged = path(old[1], Kind::Log);
    disk.flip(&damaged, 100, 1);
    let (shared, mut pace) = (Shared::new(log), Collected::default());
    for _ in 0..2 {
        let error = clean::clean(&shared, range, &options(NOW), &mut pace);
        let error = error.expect_err("is damaged");
        assert!(
            matches!(&error, CleanError::Uncleanable { path, .. } if *path == damaged),
            "{error}"
        );
        assert_no_leftovers(&disk);
    }
    let log = shared.into_log();
    assert_eq!(log.view().first_dirty(), None, "nothing is clean");
    assert_eq!(
        (bases(&log), pace.deleted.len()),
        (old.clone(), 1),
        "the group of the first segment"
    );
    let mut batches = log.view().batches_from(0);
    let kept = batches.next().expect("is there").expect("reads");
    assert_eq!((kept.header.base_offset, kept.header.record_count), (0, 1));
    assert!(batches.any(|batch| batch.is_err()), "the damaged batch is still there");
    let after: Vec<Batch> = log.view().batches_from(old[2]).map(|it| it.expect("reads")).collect();
    let unchanged = before.iter().filter(|batch| batch.header.base_offset >= old[2]);
    assert!(after.iter().eq(unchanged));
    // The rest of the damaged batch is intact, too.
    disk.flip(&damaged, 100, 1);
    assert!(batches_of(&log).len() < before.len());
    assert_eq!(committed_table(&log), table);
    let (again, _) = open(&disk.crash(Crash::Process), small(), start(false, 0));
    assert_eq!(committed_table(&again), table);
    let (log, _) = clean_all(log, NOW);
    assert_eq!(committed_table(&log), table);
}

#[test]
fn full_disk_gives_the_round_up() {
    let disk = FaultyDisk::default();
    let log = history(&disk);
    let table = committed_table(&log);
    let shared = Shared::new(log);
    for room in [0, 1, 100, 700] {
        disk.set_room(Some(room));
        let error = run(&shared, 0, NOW).expect_err("has no room");
        let is_passing = |error: &LogError| !error.is_disk_failure();
        assert!(matches!(&error, CleanError::Log(error) if is_passing(error)), "{room}: {error}");
        assert_no_leftovers(&disk);
        assert_eq!(committed_table(&shared.log.lock()), table);
    }
    disk.set_room(None);
    put(&mut shared.log.lock(), plain(&[("z", None)]));
    run(&shared, 0, NOW).expect("has room now");
    assert_eq!(committed_table(&shared.log.lock()), table);
}

/// A rename that fails halfway does not take the log out of service if the old files can be removed.
#[test]
fn old_segment_that_cannot_be_renamed_is_removed() {
    let disk = FaultyDisk::default();
    let log = history(&disk);
    let table = committed_table(&log);
    disk.fail_files(Some(|operation, path| {
        let is_index = path.to_string_lossy().ends_with("0.timeindex");
        let fails = operation == crate::log::faulty::Operation::Rename && is_index;
        fails.then_some(rustix::io::Errno::NOSPC)
    }));
    let (log, end) = clean_all(log, NOW);
    disk.fail_files(None);
    assert_eq!(committed_table(&log), table);
    let (again, _) = open(&disk.crash(Crash::LoseUnsynced), small(), start(false, end));
    assert_eq!(again.view().first_base_offset(), 0);
}

#[test]
fn caller_aborts_a_round() {
    let disk = FaultyDisk::default();
    let log = history(&disk);
    let (table, size, total) = (committed_table(&log), log.size(), log.size() * 3);
    let range = cleanable(&log, 0);
    let shared = Shared::new(log);
    let mut is_aborted = 0;
    for bytes_left in (1..total).step_by(500) {
        let mut pace = Collected { bytes_left, ..Collected::default() };
        match clean::clean(&shared, range, &options(NOW), &mut pace) {
            Err(CleanError::Aborted) => is_aborted += 1,
            ended => drop(ended.expect("has no other error")),
        }
        assert_eq!(committed_table(&shared.log.lock()), table);
        assert_no_leftovers(&disk);
        pace.deleted.into_iter().for_each(|segment| segment.remove().expect("removes"));
    }
    assert!(is_aborted > 2, "{is_aborted}");
    assert!(shared.log.lock().size() < size);
}
