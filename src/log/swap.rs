//! Completes or undoes a replacement of segments that a crash of Kafka has interrupted. Compaction
//! and the split of a segment replace segments (`LocalLog.replaceSegments`). A start handles the
//! files that are left, as Kafka's `LogLoader` does.
//!
//! Kafka writes the new segments as `*.cleaned`, renames them to `*.swap` from the last to the
//! first, renames the old segments to `*.deleted`, and removes the suffix from the new ones. So:
//! - `*.swap` files at or after the first `*.cleaned` file are from a replacement that had not
//!   touched the old segments yet. They are removed, and the old segments stay.
//! - All other `*.swap` files are the complete replacement. Old segments from the first of them to
//!   the end of the last are removed, and the new ones get their final names.

use std::path::Path;

use super::{
    LogError,
    disk::{Disk, OpenMode},
    error::During,
    names::{self, Kind},
    walk::{Step, Walk},
};

/// Completes or undoes an interrupted replacement, given the names in the log's directory. If a
/// crash interrupts this, too, the next call continues. Returns the base offsets of the new
/// segments.
pub(super) fn settle(disk: &dyn Disk, dir: &Path, names: &[String]) -> Result<Vec<i64>, LogError> {
    let with = |suffix: &str| -> Vec<(i64, Kind)> {
        let bare = names.iter().filter_map(|name| name.strip_suffix(suffix));
        bare.filter_map(names::parse_file).collect()
    };
    let first_cleaned = with(names::CLEANED).into_iter().map(|(offset, _)| offset).min();
    let (undone, mut swapped): (Vec<_>, Vec<_>) = with(names::SWAP)
        .into_iter()
        .partition(|(offset, _)| first_cleaned.is_some_and(|first| *offset >= first));
    let swap_path =
        |(offset, kind)| names::with_suffix(&names::file(dir, offset, kind), names::SWAP);
    // This comes before the removal of the `*.cleaned` files, which show that these files are
    // incomplete.
    for file in &undone {
        let path = swap_path(*file);
        disk.remove_file(&path).during("remove", &path)?;
    }
    if !undone.is_empty() {
        disk.sync_dir(dir).during("sync", dir)?;
    }
    if swapped.is_empty() {
        return Ok(Vec::new());
    }
    let logs = swapped.iter().filter(|(_, kind)| *kind == Kind::Log);
    let bases: Vec<i64> = logs.map(|(offset, _)| *offset).collect();
    let first = bases.iter().copied().min().unwrap_or(i64::MAX);
    let mut end = i64::MIN;
    for base in &bases {
        end = end.max(end_of(disk, &swap_path((*base, Kind::Log)), *base)?);
    }
    let old: Vec<_> = names
        .iter()
        .filter_map(|name| names::parse_file(name))
        .filter(|(offset, _)| (first..end).contains(offset))
        .collect();
    // The process that ended may not have synced the names. Without this, a crash of the machine
    // could lose them and keep a change that follows: the removal of an old segment without the
    // `*.swap` name of the new one, or the final name of the new one beside an old segment.
    disk.sync_dir(dir).during("sync", dir)?;
    for (offset, kind) in &old {
        let path = names::file(dir, *offset, *kind);
        disk.remove_file(&path).during("remove", &path)?;
    }
    if !old.is_empty() {
        // Otherwise an old segment could be back beside a new one after a crash of the machine.
        disk.sync_dir(dir).during("sync", dir)?;
    }
    // `.log` files come first: once one has its final name, another call removes nothing around it.
    swapped.sort_by_key(|(offset, kind)| (*kind != Kind::Log, *offset));
    for (offset, kind) in swapped {
        let from = swap_path((offset, kind));
        let to = names::file(dir, offset, kind);
        disk.rename(&from, &to).during("rename", &from)?;
    }
    tracing::info!(dir = %dir.display(), segments = ?bases, "interrupted compaction completed");
    Ok(bases)
}

/// Returns the offset after a segment's last batch. Invalid bytes are left to recovery.
fn end_of(disk: &dyn Disk, path: &Path, base_offset: i64) -> Result<i64, LogError> {
    let file = disk.open(path, OpenMode::Read).during("open", path)?;
    let size = file.len().during("look at", path)?;
    let mut end = base_offset;
    let mut walk = Walk::headers(&*file, 0, size);
    while let Step::Batch { header, .. } = walk.step().during("read", path)? {
        end = end.max(header.last_offset().saturating_add(1));
    }
    Ok(end)
}
