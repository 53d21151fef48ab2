//! Changes of names that were not synced, of which a crash keeps any part.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The changes since the last sync, in their order.
#[derive(Debug, Default)]
pub struct NameChanges(Vec<Change>);

#[derive(Debug)]
enum Change {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameChanges {
    pub fn create(&mut self, path: &Path, node: usize) {
        self.0.push(Change::Create(path.to_owned(), node));
    }

    pub fn rename(&mut self, from: &Path, to: &Path) {
        self.0.push(Change::Rename(from.to_owned(), to.to_owned()));
    }

    pub fn remove(&mut self, path: &Path) {
        self.0.push(Change::Remove(path.to_owned()));
    }

    /// Forgets the changes in a directory, which was synced.
    pub fn synced(&mut self, dir: &Path) {
        self.0.retain(|change| {
            let (Change::Create(path, _) | Change::Rename(path, _) | Change::Remove(path)) = change;
            path.parent() != Some(dir)
        });
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Applies those changes to `names` whose bits are set in `kept`.
    pub fn apply(&self, kept: u64, names: &mut BTreeMap<PathBuf, usize>) {
        let is_kept = |index: usize| kept >> (index % 64) & 1 == 1;
        for (_, change) in self.0.iter().enumerate().filter(|(index, _)| is_kept(*index)) {
            match change {
                Change::Create(path, node) => {
                    names.insert(path.clone(), *node);
                }
                Change::Rename(from, to) => {
                    if let Some(node) = names.remove(from) {
                        names.insert(to.clone(), node);
                    }
                }
                Change::Remove(path) => {
                    names.remove(path);
                }
            }
        }
    }
}
