//! Snapshots: `<end offset>-<epoch>.checkpoint`, a log of its own that starts at offset 0 with a
//! header and ends with a footer. Format: Kafka's `RecordsSnapshotWriter` and `Snapshots`.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};

use super::{
    files,
    format::{self, Contents, FormatError, SNAPSHOT_FOOTER, SNAPSHOT_HEADER, Stamp},
    log::Base,
};
use crate::{
    metadata::{Image, MetadataRecord},
    records::Batch,
};

/// Records per batch; small enough for Kafka's 8 MiB bound on a batch.
const RECORDS_PER_BATCH: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Format { path: PathBuf, source: FormatError },
    #[error("{path} ends before its footer")]
    Incomplete { path: PathBuf },
}

/// What a snapshot file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub records: Vec<MetadataRecord>,
    /// Of the last record that the snapshot includes, milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Raft's index of the last batch that the snapshot includes, if its writer said so.
    raft_index: Option<u64>,
}

impl Checkpoint {
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.to_owned(), source };
        let format = |source| CheckpointError::Format { path: path.to_owned(), source };
        let mut bytes = Bytes::from(fs::read(path).map_err(io)?);
        let mut checkpoint = Self { records: Vec::new(), timestamp_ms: 0, raft_index: None };
        let mut complete = false;
        while !bytes.is_empty() {
            let batch = Batch::split_first(&mut bytes).map_err(|error| format(error.into()))?;
            batch.verify_crc().map_err(|error| format(error.into()))?;
            match format::decode(&batch).map_err(format)? {
                Contents::Records(records) => checkpoint.records.extend(records),
                Contents::Control(SNAPSHOT_HEADER, value) => {
                    let header = format::SnapshotHeader::decode(value, 0);
                    let header = header.map_err(|error| format(error.into()))?;
                    checkpoint.timestamp_ms = header.last_contained_log_timestamp;
                    checkpoint.raft_index = u64::try_from(header.raft_index).ok();
                }
                Contents::Control(SNAPSHOT_FOOTER, _) => complete = true,
                Contents::Control(..) => {}
            }
        }
        if !complete {
            return Err(CheckpointError::Incomplete { path: path.to_owned() });
        }
        Ok(checkpoint)
    }
}

/// A snapshot's name: the offset after its last record, and the epoch of that record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    pub end_offset: i64,
    pub epoch: i32,
}

impl SnapshotId {
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{:020}-{:010}.checkpoint", self.end_offset, self.epoch))
    }

    fn parse(name: &str) -> Option<Self> {
        let (offset, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
        Some(Self { end_offset: offset.parse().ok()?, epoch: epoch.parse().ok()? })
    }

    pub fn newest(dir: &Path) -> io::Result<Option<Self>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(dir)? {
            ids.extend(entry?.file_name().to_str().and_then(Self::parse));
        }
        Ok(ids.into_iter().max())
    }

    /// Where the log goes on after this snapshot. A snapshot of Apache Kafka's says no Raft index;
    /// its last offset serves, being the same on every node and never below the true count.
    pub fn base(&self, checkpoint: &Checkpoint) -> Base {
        let last = self.end_offset.saturating_sub(1).max(0) as u64;
        let index = checkpoint.raft_index.unwrap_or(last) + 1;
        Base { index, offset: self.end_offset, epoch: self.epoch }
    }
}

/// Writes a snapshot of the image and deletes those before it. Durable on return.
pub fn write(dir: &Path, image: &Image, raft_index: u64) -> io::Result<SnapshotId> {
    let id = SnapshotId { end_offset: image.offset + 1, epoch: image.epoch };
    let path = id.path(dir);
    let part = path.with_extension("checkpoint.part");
    let mut file = io::BufWriter::new(File::create(&part)?);
    write_batches(&mut file, image, raft_index)?;
    file.into_inner()?.sync_all()?;
    fs::rename(&part, &path)?;
    files::sync_dir(dir)?;
    delete_before(dir, id)?;
    Ok(id)
}

fn write_batches(out: &mut impl Write, image: &Image, raft_index: u64) -> io::Result<()> {
    let append_ms = image.timestamp_ms;
    let mut stamp = Stamp { base_offset: 0, epoch: image.epoch, append_ms };
    let mut value = BytesMut::new();
    let header = format::SnapshotHeader {
        version: 0,
        last_contained_log_timestamp: image.timestamp_ms,
        raft_index: raft_index as i64,
    };
    header.encode(&mut value, 0);
    out.write_all(&format::encode_control(&stamp, SNAPSHOT_HEADER, &value))?;
    stamp.base_offset += 1;
    for records in image.records().chunks(RECORDS_PER_BATCH) {
        out.write_all(&format::encode_records(&stamp, records))?;
        stamp.base_offset += records.len() as i64;
    }
    value.clear();
    format::SnapshotFooter::default().encode(&mut value, 0);
    out.write_all(&format::encode_control(&stamp, SNAPSHOT_FOOTER, &value))
}

fn delete_before(dir: &Path, newest: SnapshotId) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(SnapshotId::parse);
        if id.is_some_and(|id| id < newest) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
