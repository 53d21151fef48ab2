//! The small files beside the log: `quorum-state`, `partition.metadata`,
//! `leader-epoch-checkpoint`. Formats: Kafka's `FileQuorumStateStore`, `PartitionMetadataFile` and
//! `LeaderEpochCheckpointFile`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use serde::{Deserialize, Serialize};

/// The vote, as KRaft keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuorumState {
    #[serde(default)]
    pub cluster_id: String,
    /// -1 when there is none.
    pub leader_id: i32,
    pub leader_epoch: i32,
    /// -1 when there was no vote in this epoch.
    pub voted_id: i32,
    #[serde(default)]
    pub applied_offset: i64,
    #[serde(default)]
    pub current_voters: Vec<CurrentVoter>,
    #[serde(rename = "data_version")]
    pub data_version: i16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CurrentVoter {
    pub voter_id: i32,
}

const QUORUM_STATE: &str = "quorum-state";

impl QuorumState {
    /// `None` when there is no such file; an error when it cannot be understood.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(dir.join(QUORUM_STATE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file as a whole. Durable on return only if `sync`.
    pub fn write(&self, dir: &Path, sync: bool) -> io::Result<()> {
        replace(&dir.join(QUORUM_STATE), &serde_json::to_vec(self)?, sync)
    }
}

/// Writes a file under another name and renames it, so that a reader finds the old or the new one.
/// On a full disk it goes into the room of the old one.
pub fn replace(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        if sync { file.sync_all() } else { Ok(()) }
    };
    match write() {
        Ok(()) => fs::rename(&temporary, path)?,
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            let _ = fs::remove_file(&temporary);
            return overwrite(path, bytes, sync).map_err(|_| error);
        }
        Err(error) => return Err(error),
    }
    match path.parent() {
        Some(dir) if sync => sync_dir(dir),
        _ => Ok(()),
    }
}

/// What fits into one sector is there as a whole or not at all. A start has to write its vote, and
/// without a start nobody can read what a full disk has.
fn overwrite(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    const SECTOR: usize = 512;
    let file = OpenOptions::new().write(true).open(path)?;
    let before = file.metadata()?.len() as usize;
    if before == 0 || bytes.len().max(before) > SECTOR {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let mut padded = bytes.to_vec();
    // Should it end here, a longer file's end must not follow the shorter one.
    padded.resize(bytes.len().max(before), b'\n');
    file.write_all_at(&padded, 0)?;
    file.set_len(bytes.len() as u64)?;
    if sync { file.sync_all() } else { Ok(()) }
}

pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The topic id of `__cluster_metadata` is the same in every cluster.
pub fn write_partition_metadata(dir: &Path) -> io::Result<()> {
    let path = dir.join("partition.metadata");
    if path.exists() {
        return Ok(());
    }
    fs::write(path, "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ")
}

/// Epochs and their first offsets, in order.
pub fn write_leader_epochs(dir: &Path, epochs: &[(i32, i64)]) -> io::Result<()> {
    let mut text = format!("0\n{}\n", epochs.len());
    for (epoch, offset) in epochs {
        text.push_str(&format!("{epoch} {offset}\n"));
    }
    replace(&dir.join("leader-epoch-checkpoint"), text.as_bytes(), false)
}
