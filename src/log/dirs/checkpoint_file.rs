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
        disk::{Disk, Durability, replace_file},
        error::During,
    },
    read_if_there,
};

/// A checkpoint file of a log directory.
#[derive(Debug)]
pub struct CheckpointFile {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) durability: Durability,
    /// A start can do without it, at a cost.
    pub(super) is_hint: bool,
}

impl CheckpointFile {
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

    /// A start must not use the old content: a log may have been cut since.
    fn remove(&self) -> Result<(), LogError> {
        match self.disk.remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.during("remove", &self.path),
        }
    }
}

/// The run of the machine and the mounting of the file system that settled offsets hold for. Without
/// either, what was written may be gone, and logs are checked from their recovery points on.
pub(super) fn run_of(boot_id: Option<&str>, mounting: Option<String>) -> Option<String> {
    Some(format!("{}.{}", boot_id?, mounting?))
}

pub(super) fn settled_name(run: &str) -> String {
    format!("{}.{run}", checkpoint::SETTLED)
}

/// What this run of the machine and mounting has settled; removes what former ones left.
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

/// A damaged checkpoint is as good as none: everything is checked, and starts at its first
/// segment, as in Kafka.
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
