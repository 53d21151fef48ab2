//! Snapshots: `<end offset>-<epoch>.checkpoint`, a log of its own that starts at offset 0 with a
//! header and ends with a footer. Format: Kafka's `RecordsSnapshotWriter` and `Snapshots`.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};

use super::{
    format::{self, Contents, Control, FormatError, Stamp},
    log::Base,
    types::{epoch_of, log_id},
    voters::{self, StoredMembership},
};
use crate::{
    log::disk::{self, Disk, OpenMode},
    metadata::{Image, MetadataRecord},
    protocol::schema::WireMessage,
    records::{Batch, ControlRecordType},
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

/// The content of a snapshot file.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub records: Vec<MetadataRecord>,
    /// The timestamp of the last record that the snapshot includes, in milliseconds since the Unix
    /// epoch.
    pub timestamp_ms: i64,
    /// Raft's index of the last batch that the snapshot includes. `None` if Apache Kafka wrote it.
    raft_index: Option<u64>,
    /// The voters. `None` if they are configured.
    pub membership: Option<StoredMembership>,
    pub kraft_version: i16,
}

impl Checkpoint {
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.to_owned(), source };
        let format = |source| CheckpointError::Format { path: path.to_owned(), source };
        let mut bytes = Bytes::from(disk::read_file(disk, path).map_err(io)?);
        let mut checkpoint = Self {
            records: Vec::new(),
            timestamp_ms: 0,
            raft_index: None,
            membership: None,
            kraft_version: 0,
        };
        let mut complete = false;
        while !bytes.is_empty() {
            let batch = Batch::split_first(&mut bytes).map_err(|error| format(error.into()))?;
            batch.verify_crc().map_err(|error| format(error.into()))?;
            match format::decode(&batch).map_err(format)? {
                Contents::Records(records) => checkpoint.records.extend(records),
                Contents::Control(controls) => {
                    checkpoint.take_controls(&controls).map_err(format)?;
                    complete |=
                        controls.iter().any(|it| it.kind == ControlRecordType::SnapshotFooter);
                }
            }
        }
        if !complete {
            return Err(CheckpointError::Incomplete { path: path.to_owned() });
        }
        Ok(checkpoint)
    }

    fn take_controls(&mut self, controls: &[Control]) -> Result<(), FormatError> {
        let mut voters_at = None;
        if let Some(header) =
            controls.iter().find(|it| it.kind == ControlRecordType::SnapshotHeader)
        {
            let header = format::SnapshotHeader::decode(header.value.clone(), 0)?;
            self.timestamp_ms = header.last_contained_log_timestamp;
            self.raft_index = u64::try_from(header.raft_index).ok();
            let index = u64::try_from(header.voters_index).ok();
            voters_at = index.map(|index| log_id(header.voters_epoch, index));
        }
        if let Some(level) = voters::kraft_version_of(controls)? {
            self.kraft_version = level;
        }
        if let Some(membership) = voters::last_of(controls)? {
            self.membership = Some(StoredMembership::new(voters_at, membership));
        }
        Ok(())
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

    pub fn newest(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Self>> {
        Ok(disk.list(dir)?.iter().filter_map(|entry| Self::parse(&entry.name)).max())
    }

    /// The base of the log after this snapshot. A snapshot of Apache Kafka has no Raft index. Its
    /// last offset serves as the index: it is the same on every node and never below the number of
    /// batches.
    pub fn base(&self, checkpoint: &Checkpoint) -> Base {
        // The snapshot of `kafka-storage format` only names the voters. It replaces no batches.
        if self.end_offset <= 0 {
            return Base::default();
        }
        let last = self.end_offset.saturating_sub(1) as u64;
        let index = checkpoint.raft_index.unwrap_or(last) + 1;
        Base { index, offset: self.end_offset, epoch: self.epoch }
    }
}

/// The content of a snapshot to write.
pub struct SnapshotContent {
    pub image: Image,
    /// Raft's index of the last batch that the image includes.
    pub raft_index: u64,
    pub membership: StoredMembership,
    pub kraft_version: i16,
}

impl SnapshotContent {
    pub fn id(&self) -> SnapshotId {
        SnapshotId { end_offset: self.image.offset + 1, epoch: self.image.epoch }
    }

    fn controls(&self) -> Vec<Control> {
        let mut value = BytesMut::new();
        let voters_at = *self.membership.log_id();
        let header = format::SnapshotHeader {
            version: 0,
            last_contained_log_timestamp: self.image.timestamp_ms,
            raft_index: self.raft_index as i64,
            voters_index: voters_at.map_or(-1, |at| at.index as i64),
            voters_epoch: voters_at.map_or(-1, |at| epoch_of(&at)),
        };
        header.encode(&mut value, 0);
        let mut controls =
            vec![Control { kind: ControlRecordType::SnapshotHeader, value: value.freeze() }];
        if self.kraft_version > 0 {
            controls.push(voters::kraft_version(self.kraft_version));
            let value = voters::encode(self.membership.membership());
            controls.push(Control { kind: ControlRecordType::KraftVoters, value });
        }
        controls
    }

    fn write_batches(&self, mut out: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let image = &self.image;
        let (epoch, append_ms) = (image.epoch, image.timestamp_ms);
        let mut stamp = Stamp { base_offset: 0, epoch, append_ms };
        let controls = self.controls();
        out(&format::encode_control(&stamp, &controls))?;
        stamp.base_offset += controls.len() as i64;
        for records in image.records().chunks(RECORDS_PER_BATCH) {
            out(&format::encode_records(&stamp, records))?;
            stamp.base_offset += records.len() as i64;
        }
        let mut value = BytesMut::new();
        format::SnapshotFooter::default().encode(&mut value, 0);
        let footer = Control { kind: ControlRecordType::SnapshotFooter, value: value.freeze() };
        out(&format::encode_control(&stamp, &[footer]))
    }
}

/// Writes a snapshot. Durable on return.
pub fn write(disk: &dyn Disk, dir: &Path, content: &SnapshotContent) -> io::Result<SnapshotId> {
    let id = content.id();
    let path = id.path(dir);
    let part = path.with_extension("checkpoint.part");
    let written = write_part(disk, &part, content);
    if let Err(error) = written {
        // The incomplete file must not take up room. The next snapshot is written from the start.
        let _ = disk.remove_file(&part);
        return Err(error);
    }
    disk.rename(&part, &path)?;
    disk.sync_dir(dir)?;
    Ok(id)
}

fn write_part(disk: &dyn Disk, part: &Path, content: &SnapshotContent) -> io::Result<()> {
    let file = disk.open(part, OpenMode::Truncate)?;
    let mut at = 0;
    content.write_batches(|bytes| {
        disk::write_all_at(&*file, bytes, at)?;
        at += bytes.len() as u64;
        Ok(())
    })?;
    file.sync_data()
}

/// Gives a received snapshot its name. Durable on return. The caller deletes older snapshots once
/// no reader opens them any more.
pub fn install(
    (disk, dir): (&dyn Disk, &Path),
    received: &Path,
    id: SnapshotId,
) -> io::Result<Checkpoint> {
    let checkpoint = Checkpoint::read(disk, received).map_err(io::Error::other)?;
    disk.rename(received, &id.path(dir))?;
    disk.sync_dir(dir)?;
    Ok(checkpoint)
}

/// Deletes all snapshots older than the newest.
pub fn delete_before(disk: &dyn Disk, dir: &Path, newest: SnapshotId) -> io::Result<()> {
    for entry in disk.list(dir)? {
        if SnapshotId::parse(&entry.name).is_some_and(|id| id < newest) {
            match disk.remove_file(&dir.join(entry.name)) {
                // Another thread deletes snapshots at the same time.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}
