//! Readers that hold a view of deleted segments while other segments get the same names.

use super::*;
use crate::log::{
    LogView,
    disk::{OpenMode, read_exact_at},
    names::Kind,
};

/// A log whose segments begin at 0, 3, 6 and 9, three batches in each.
fn filled(disk: &FaultyDisk) -> Log {
    let (mut log, _) = open(disk, small(), start(true, 0));
    fill(&mut log);
    assert_eq!(bases(&log), [0, 3, 6, 9]);
    log
}

fn fill(log: &mut Log) {
    while log.log_end() < 12 {
        append(log, 1, 239);
    }
}

fn bases(log: &Log) -> Vec<i64> {
    log.segments.iter().map(|segment| segment.base_offset).collect()
}

/// A view whose segments have no open file.
fn idle_view(log: &Log) -> LogView {
    let view = log.view();
    // The second of two calls closes what was not used in between.
    view.close_idle_files();
    view.close_idle_files();
    view
}

/// The bytes of the batch at `offset`.
fn read(view: &LogView, offset: i64) -> Result<Vec<u8>, ReadError> {
    let slice = view.read(offset, 1, view.log_end(), true)?;
    let mut bytes = vec![0; slice.len];
    read_exact_at(&*slice.file, &mut bytes, slice.position).expect("reads");
    Ok(bytes)
}

#[track_caller]
fn assert_gone(view: &LogView, offset: i64) {
    let error = read(view, offset).expect_err("its segment is gone");
    let is_not_found = |source: &std::io::Error| source.kind() == std::io::ErrorKind::NotFound;
    assert!(matches!(&error, ReadError::Io { source, .. } if is_not_found(source)), "{error}");
}

#[test]
fn view_does_not_read_a_segment_created_after_truncation() {
    let mut log = filled(&FaultyDisk::default());
    let view = idle_view(&log);
    log.truncate_to(5, 5).expect("cuts");
    fill(&mut log);
    assert_eq!(bases(&log), [0, 3, 6, 9]);
    assert_gone(&view, 6);
    assert_gone(&view, 11);
    assert!(view.max_timestamp().is_err(), "the largest timestamp was in a truncated segment");
    assert!(read(&view, 4).is_ok(), "the truncation has kept the segment");
    assert!(read(&log.view(), 6).is_ok());
}

#[test]
fn view_does_not_read_a_segment_created_after_a_restart_at_its_offset() {
    let mut log = filled(&FaultyDisk::default());
    let view = idle_view(&log);
    log.truncate_fully_and_start_at(0, NOW).expect("starts again");
    fill(&mut log);
    assert_gone(&view, 0);
    assert!(read(&log.view(), 0).is_ok());
}

#[test]
fn view_reads_deleted_segments_beside_new_ones_of_the_same_name() {
    let disk = FaultyDisk::default();
    let mut log = filled(&disk);
    let view = idle_view(&log);
    let written: Vec<_> = (0..12).map(|offset| bytes_of(&batch(offset, 1, 239))).collect();
    log.set_config(Arc::new(LogConfig { retention_bytes: 0, ..small() }));
    let mut first = log.apply_retention(NOW, 12, usize::MAX).expect("runs");
    assert_eq!(first.len(), 4);

    log.truncate_fully_and_start_at(0, NOW).expect("starts again");
    while log.log_end() < 12 {
        append(&mut log, 1, 240);
    }
    for offset in 0..12 {
        assert_eq!(read(&view, offset).expect("is still there"), written[offset as usize]);
    }

    // The directory of a deleted topic is renamed, too.
    let renamed = Path::new("/data/t-0.gone-delete");
    disk.rename(Path::new(DIR), renamed).expect("renames");
    log.set_dir(renamed);
    let (mut other, _) = open(&disk, small(), start(true, 0));
    fill(&mut other);
    view.close_idle_files();
    view.close_idle_files();
    assert_eq!(read(&view, 7).expect("is still there"), written[7]);
    first.remove(2).remove().expect("is removed");
    view.close_idle_files();
    view.close_idle_files();
    assert_gone(&view, 7);
}

/// The files of the segment that is deleted later replace those of the earlier one.
#[test]
fn segments_deleted_under_the_same_name_are_not_mixed_up() {
    let disk = FaultyDisk::default();
    let mut log = filled(&disk);
    let earlier = idle_view(&log);
    log.set_config(Arc::new(LogConfig { retention_bytes: 0, ..small() }));
    let earlier_deleted = log.apply_retention(NOW, 12, usize::MAX).expect("runs");
    log.truncate_fully_and_start_at(0, NOW).expect("starts again");
    fill(&mut log);
    let later = idle_view(&log);
    let later_deleted = log.apply_retention(NOW, 12, usize::MAX).expect("runs");
    assert_gone(&earlier, 4);
    earlier_deleted.into_iter().for_each(|segment| segment.remove().expect("has no files"));
    assert!(read(&later, 4).is_ok());
    later_deleted.into_iter().for_each(|segment| segment.remove().expect("is removed"));
    let is_left = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(".deleted");
    assert!(!disk.paths().iter().any(is_left), "{:?}", disk.paths());
}

#[test]
fn deleted_segment_without_an_index_does_not_get_that_of_an_earlier_one() {
    let disk = FaultyDisk::default();
    let mut log = filled(&disk);
    log.set_config(Arc::new(LogConfig { retention_bytes: 0, ..small() }));
    let earlier_deleted = log.apply_retention(NOW, 12, usize::MAX).expect("runs");
    log.truncate_fully_and_start_at(0, NOW).expect("starts again");
    fill(&mut log);
    let later = log.segments[0].clone();
    disk.remove_file(&later.path(Kind::Index)).expect("is there");
    let later_deleted = log.apply_retention(NOW, 12, usize::MAX).expect("runs");
    assert!(later.files.open(Kind::Log, OpenMode::Read).is_ok());
    let index = later.files.open(Kind::Index, OpenMode::Read);
    assert!(index.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound));
    drop((earlier_deleted, later_deleted));
}

#[test]
fn flush_ends_well_if_its_segments_are_truncated_meanwhile() {
    let mut log = filled(&FaultyDisk::default());
    let flush = log.begin_flush().expect("there is something to sync");
    idle_view(&log);
    log.truncate_to(2, 2).expect("cuts");
    let flushed = flush.run().expect("what is gone needs no sync");
    log.flushed(flushed);
    assert_eq!(log.recovery_point(), 0);
}
