//! Counts what happens to logs while they are compacted. A round has `*.cleaned` and `*.swap` files
//! while it rewrites a log.

use std::path::Path;

use sordini::{log::faulty::FaultyDisk, partition::View};

/// The suffixes of the files of a round.
const SUFFIXES: [&str; 2] = [".cleaned", ".swap"];

#[derive(Debug, Default)]
pub struct Rounds {
    ended: u64,
    /// Crashes during a round.
    crashes: u64,
    /// Changes of the role or the leader epoch during a round.
    role_changes: u64,
    truncations: u64,
    /// Moves to another log directory that began during a round.
    moves: u64,
}

impl Rounds {
    /// Notes the crash of a node.
    pub fn note_crash(&mut self, disk: &FaultyDisk) {
        self.crashes += u64::from(has_round(disk, Path::new("/")));
    }

    /// Notes that a replica whose log is in `dir` begins to move to another log directory.
    pub fn note_move(&mut self, disk: &FaultyDisk, dir: &Path) {
        self.moves += u64::from(has_round(disk, dir));
    }

    /// Notes a change of a replica whose log is in `dir`.
    pub fn note_change(&mut self, disk: &FaultyDisk, dir: &Path, before: &View, after: &View) {
        let first_dirty = |view: &View| view.log.first_dirty().unwrap_or(0);
        self.ended += u64::from(first_dirty(after) > first_dirty(before));
        let has_role_change = before.role != after.role;
        let is_truncated = before.log.generation() != after.log.generation();
        if (has_role_change || is_truncated) && has_round(disk, dir) {
            self.role_changes += u64::from(has_role_change);
            self.truncations += u64::from(is_truncated);
        }
    }
}

fn has_round(disk: &FaultyDisk, dir: &Path) -> bool {
    let is_new = |path: &Path| {
        let name = path.to_string_lossy();
        path.starts_with(dir) && SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
    };
    disk.paths().iter().any(|path| is_new(path))
}
