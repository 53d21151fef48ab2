//! The checkpoint files of a log directory: an offset for each of its partitions.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{
        FormatError, LogError,
        checkpoint::{self, Offsets},
        disk::{Disk, FileDurability, replace_file},
        error::During,
    },
    read_if_there,
};

/// A checkpoint file of a log directory.
#[derive(Debug)]
pub struct CheckpointFile {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) durability: FileDurability,
    /// Whether a start works without the file. It then reads more of the logs.
    pub(super) is_hint: bool,
}

impl CheckpointFile {
    /// Replaces the content of the file. A hint that cannot be written is removed instead.
    pub fn replace(&self, offsets: &Offsets) -> Result<(), LogError> {
        let text =
            checkpoint::encode(offsets.iter().map(|(partition, offset)| (partition, *offset)));
        let written = replace_file(&*self.disk, &self.path, text.as_bytes(), self.durability);
        match written {
            Err(error) if self.is_hint => {
                tracing::warn!(path = %self.path.display(), %error, "checkpoint not written");
                self.remove()
            }
            written => written.during("write", &self.path),
        }
    }

    /// Removes the file, because a start must not use old offsets: a log may have been truncated
    /// since.
    fn remove(&self) -> Result<(), LogError> {
        match self.disk.remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.during("remove", &self.path),
        }
    }
}

/// Identifies the run of the machine and the mount of the file system for which settled offsets
/// hold. `None` if one of them is unknown: unsynced data may be gone, so logs are checked from
/// their recovery points.
pub(super) fn run_of(boot_id: Option<&str>, mounting: Option<String>) -> Option<String> {
    Some(format!("{}.{}", boot_id?, mounting?))
}

pub(super) fn settled_name(run: &str) -> String {
    format!("{}.{run}", checkpoint::SETTLED)
}

/// Reads the settled offsets of this run and mount. Removes the files of earlier ones.
pub(super) fn read_settled(
    disk: &dyn Disk,
    dir: &Path,
    run: Option<&str>,
) -> Result<Offsets, LogError> {
    let own = run.map(settled_name);
    for entry in disk.list(dir).during("list", dir)? {
        if entry.name.starts_with(checkpoint::SETTLED) && Some(&entry.name) != own.as_ref() {
            let path = dir.join(&entry.name);
            disk.remove_file(&path).during("remove", &path)?;
        }
    }
    own.map_or_else(|| Ok(Offsets::new()), |name| read_checkpoint(disk, dir, &name))
}

/// Reads a checkpoint. A damaged one counts as empty, as in Kafka: logs are checked completely, and
/// start at their first segments.
pub(super) fn read_checkpoint(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
) -> Result<Offsets, LogError> {
    let path = dir.join(name);
    let Some(bytes) = read_if_there(disk, &path)? else { return Ok(Offsets::new()) };
    let offsets = checkpoint::decode(&bytes);
    Ok(offsets.unwrap_or_else(|error: FormatError| {
        tracing::warn!(path = %path.display(), %error, "checkpoint is damaged and not used");
        Offsets::new()
    }))
}
