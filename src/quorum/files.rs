//! The small files beside the log: `quorum-state`, `partition.metadata`,
//! `leader-epoch-checkpoint`. Formats: Kafka's `FileQuorumStateStore`, `PartitionMetadataFile` and
//! `LeaderEpochCheckpointFile`.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use crate::log::disk::{self, Disk, FileDurability, OpenMode};

/// The content of `quorum-state`: the vote, in KRaft's format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuorumState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// -1 when there is none.
    pub leader_id: i32,
    pub leader_epoch: i32,
    /// -1 when there was no vote in this epoch.
    pub voted_id: i32,
    /// In version 1, base64; nil when there was no vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voted_directory_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_offset: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_voters: Option<Vec<CurrentVoter>>,
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
    /// Reads the file. `None` if it does not exist. Fails with `InvalidData` if it cannot be
    /// parsed.
    pub fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Self>> {
        match disk::read_file(disk, &dir.join(QUORUM_STATE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file as a whole.
    pub fn write(&self, disk: &dyn Disk, dir: &Path, durability: FileDurability) -> io::Result<()> {
        replace(disk, &dir.join(QUORUM_STATE), &serde_json::to_vec(self)?, durability)
    }
}

/// Writes a file under another name and renames it, so that a reader finds the old or the new one.
/// If the disk is full, the new content overwrites the old one in place.
fn replace(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    durability: FileDurability,
) -> io::Result<()> {
    match disk::replace_file(disk, path, bytes, durability) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            let mut temporary = path.as_os_str().to_owned();
            temporary.push(".tmp");
            let _ = disk.remove_file(Path::new(&temporary));
            overwrite(disk, path, bytes, durability).map_err(|_| error)
        }
        replaced => replaced,
    }
}

/// Overwrites a file in place. Fails unless old and new content fit into one sector, which a disk
/// writes as a whole or not at all. A start has to write its vote, and a full disk must not prevent
/// the start, because without it no client can read what the disk has.
fn overwrite(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    durability: FileDurability,
) -> io::Result<()> {
    const SECTOR: usize = 512;
    let file = disk.open(path, OpenMode::Write)?;
    let before = file.len()? as usize;
    if before == 0 || bytes.len().max(before) > SECTOR {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let mut padded = bytes.to_vec();
    // If the process ends before the truncation, no rest of a longer file may follow the new
    // content.
    padded.resize(bytes.len().max(before), b'\n');
    disk::write_all_at(&*file, &padded, 0)?;
    file.truncate(bytes.len() as u64)?;
    if durability == FileDurability::Synced { file.sync_data() } else { Ok(()) }
}

/// Writes `partition.metadata` unless it exists. The topic id is the same in every cluster.
pub fn write_partition_metadata(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let path = dir.join("partition.metadata");
    if disk.len(&path).is_ok_and(|len| len > 0) {
        return Ok(());
    }
    let text = b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ";
    disk::replace_file(disk, &path, text, FileDurability::PageCache)
}

/// Writes `leader-epoch-checkpoint`: the epochs and their first offsets, in order.
pub fn write_leader_epochs(disk: &dyn Disk, dir: &Path, epochs: &[(i32, i64)]) -> io::Result<()> {
    let mut text = format!("0\n{}\n", epochs.len());
    for (epoch, offset) in epochs {
        text.push_str(&format!("{epoch} {offset}\n"));
    }
    let path = dir.join("leader-epoch-checkpoint");
    replace(disk, &path, text.as_bytes(), FileDurability::PageCache)
}
