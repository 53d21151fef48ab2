//! Directories that Apache Kafka leaves if it is killed while it replaces segments.

use super::*;
use crate::log::{
    disk::{OpenMode, write_all_at},
    names::{self, Kind},
};

const KINDS: [Kind; 4] = [Kind::Log, Kind::Index, Kind::TimeIndex, Kind::TxnIndex];

/// A log whose segments begin at 0, 3, 6 and 9, three batches in each.
fn original(disk: &FaultyDisk) -> Vec<u8> {
    let (mut log, _) = open(disk, small(), start(true, 0));
    let written = (0..12).flat_map(|_| append(&mut log, 1, 239)).collect();
    assert_eq!(log.view().segment_count(), 4);
    log.close().expect("closes");
    written
}

/// A new segment as compaction writes it: with empty index files and without a `.txnindex` file.
fn write_cleaned(disk: &FaultyDisk, base: i64, batches: &[Batch]) {
    for kind in [Kind::Log, Kind::Index, Kind::TimeIndex] {
        let path = names::with_suffix(&names::file(Path::new(DIR), base, kind), names::CLEANED);
        let file = disk.open(&path, OpenMode::Truncate).expect("creates");
        if kind == Kind::Log {
            let bytes: Vec<u8> = batches.iter().flat_map(bytes_of).collect();
            write_all_at(&*file, &bytes, 0).expect("writes");
        }
    }
}

/// The renames of `LocalLog.replaceSegments` in its order, and the number of renames after which
/// the replacement is completed rather than undone.
fn renames(new: &[i64], old: &[i64]) -> (Vec<(String, String)>, usize) {
    let name = |base: i64, kind: Kind, suffix: &str| {
        let path = names::with_suffix(&names::file(Path::new(DIR), base, kind), suffix);
        path.to_str().expect("is UTF-8").to_owned()
    };
    let mut all = Vec::new();
    let mut step = |base: i64, from: &str, to: &str| {
        all.extend(KINDS.map(|kind| (name(base, kind, from), name(base, kind, to))));
    };
    new.iter().rev().for_each(|base| step(*base, names::CLEANED, names::SWAP));
    old.iter().for_each(|base| step(*base, "", names::DELETED));
    new.iter().for_each(|base| step(*base, names::SWAP, ""));
    (all, KINDS.len() * new.len())
}

/// Kills Kafka after each rename, and interrupts some of the starts that follow.
fn check_every_step(new: &[(i64, Vec<Batch>)], old: &[i64], expected: &[u8]) {
    let bases: Vec<i64> = new.iter().map(|(base, _)| *base).collect();
    let (all, decided) = renames(&bases, old);
    for done in 0..=all.len() {
        for calls in [None, Some(1), Some(2), Some(3), Some(5), Some(8)] {
            let disk = FaultyDisk::default();
            let before = original(&disk);
            for (base, batches) in new {
                write_cleaned(&disk, *base, batches);
            }
            for (from, to) in &all[..done] {
                // Not every segment has every file.
                let _ = disk.rename(Path::new(from), Path::new(to));
            }
            let mut at = start(false, 9);
            if calls.is_some() {
                disk.fail_after(calls);
                let shared: Arc<dyn Disk> = Arc::new(disk.clone());
                let _ = Log::open(shared, Path::new(DIR), Arc::new(small()), at);
                disk.fail_after(None);
                at = start(false, 0);
            }
            let disk = disk.crash(Crash::Process);
            let (log, recovery) = open(&disk, small(), at);
            // The files of the last new segment but its log and indexes do not exist.
            let content = if done + 2 > decided { expected } else { &before };
            assert_eq!(read_all(&log, 0), content, "after {done} renames: {recovery:?}");
            let left = |path: &&std::path::PathBuf| {
                path.to_string_lossy().ends_with(names::SWAP)
                    || names::is_leftover(&path.to_string_lossy())
            };
            assert_eq!(disk.paths().iter().find(left), None, "after {done} renames");
        }
    }
}

#[test]
fn an_interrupted_compaction_is_completed_or_undone_as_in_kafka() {
    // Of nine batches in three segments, two remain. The last segment keeps its last batch.
    let kept = [batch(1, 1, 239), batch(8, 1, 239)];
    let tail = (9..12).map(|offset| batch(offset, 1, 239));
    let expected: Vec<u8> =
        kept.iter().cloned().chain(tail).flat_map(|batch| bytes_of(&batch)).collect();
    check_every_step(&[(0, kept.to_vec())], &[0, 3, 6], &expected);
}

#[test]
fn an_interrupted_split_is_completed_or_undone_as_in_kafka() {
    let first = vec![batch(3, 1, 239)];
    let rest = vec![batch(4, 1, 239), batch(5, 1, 239)];
    let disk = FaultyDisk::default();
    let expected = original(&disk);
    check_every_step(&[(3, first), (4, rest)], &[3], &expected);
}

/// Compaction has removed all records of the last old segment, and Kafka had not renamed that
/// segment yet. It stays, because the new segment ends before it, and will be compacted again.
#[test]
fn old_segments_behind_the_new_one_stay() {
    let disk = FaultyDisk::default();
    original(&disk);
    write_cleaned(&disk, 0, &[batch(1, 1, 239)]);
    let (all, decided) = renames(&[0], &[0]);
    for (from, to) in &all[..decided] {
        let _ = disk.rename(Path::new(from), Path::new(to));
    }
    let (log, recovery) = open(&disk, small(), start(false, 12));
    assert_eq!(recovery.swapped_segments, [0]);
    assert_eq!((log.view().segment_count(), log.log_end()), (4, 12));
    let expected: Vec<u8> =
        [1].into_iter().chain(3..12).flat_map(|at| bytes_of(&batch(at, 1, 239))).collect();
    assert_eq!(read_all(&log, 0), expected);
}
