//! openraft's state machine: applies committed batches to the image, publishes each, and writes
//! snapshots of it.
// The error type is openraft's, and large; these paths are cold.
#![allow(clippy::result_large_err)]

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use openraft::{
    EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError,
    StorageIOError, StoredMembership, storage::RaftStateMachine,
};
use tokio::sync::mpsc;

use super::{
    CommittedBatch,
    checkpoint::{self, Checkpoint, SnapshotId},
    checkpoint_file::CheckpointFile,
    types::{TypeConfig, log_id},
};
use crate::metadata::{Change, Image, MetadataRecord, TransactionFilter, snapshot};

type Failure = StorageError<i32>;
type Meta = SnapshotMeta<i32, ()>;

pub struct StateMachine {
    pub dir: PathBuf,
    pub image: Image,
    pub filter: TransactionFilter,
    pub applied: Option<LogId<i32>>,
    pub membership: StoredMembership<i32, ()>,
    /// The newest snapshot on disk and Raft's index of its last batch.
    pub snapshot: Option<(SnapshotId, u64)>,
    pub published: Arc<ArcSwap<Image>>,
    pub committed: mpsc::UnboundedSender<CommittedBatch>,
}

impl StateMachine {
    /// Moves the image over one batch, a control batch being one without records.
    fn apply_batch(&mut self, epoch: i32, append_ms: i64, records: Vec<MetadataRecord>) -> i64 {
        let before = self.image.offset;
        let last_offset = before + records.len().max(1) as i64;
        let changes = apply(&mut self.image, &mut self.filter, &records);
        self.image.offset = last_offset;
        self.image.epoch = epoch;
        self.image.timestamp_ms = append_ms;
        self.publish(CommittedBatch {
            last_offset,
            epoch,
            append_ms,
            records,
            changes,
            image: Arc::new(self.image.clone()),
        });
        last_offset
    }

    fn publish(&self, batch: CommittedBatch) {
        self.published.store(batch.image.clone());
        // Nobody listens while a node stops.
        let _ = self.committed.send(batch);
    }

    fn meta(&self, id: SnapshotId, index: u64) -> Meta {
        SnapshotMeta {
            last_log_id: Some(log_id(id.epoch, index)),
            last_membership: self.membership.clone(),
            snapshot_id: format!("{}-{}", id.end_offset, id.epoch),
        }
    }
}

/// Applies the records that count; those of an open transaction wait for its end.
pub fn apply(
    image: &mut Image,
    filter: &mut TransactionFilter,
    records: &[MetadataRecord],
) -> Vec<Change> {
    let mut changes = Vec::with_capacity(records.len());
    for record in records {
        filter.pass(record.clone(), |record| changes.push(image.apply(&record)));
    }
    changes
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<i32>>, StoredMembership<i32, ()>), Failure> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<i64>, Failure>
    where
        I: IntoIterator<Item = openraft::Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut offsets = Vec::new();
        for entry in entries {
            let epoch = entry.log_id.leader_id.term as i32;
            self.applied = Some(entry.log_id);
            let (append_ms, records) = match entry.payload {
                EntryPayload::Normal(proposal) => (proposal.append_ms, proposal.records),
                EntryPayload::Blank => (self.image.timestamp_ms, Vec::new()),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(self.applied, membership);
                    (self.image.timestamp_ms, Vec::new())
                }
            };
            offsets.push(self.apply_batch(epoch, append_ms, records));
        }
        Ok(offsets)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let index = self.applied.map_or(0, |applied| applied.index);
        let id = SnapshotId { end_offset: self.image.offset + 1, epoch: self.image.epoch };
        let meta = self.meta(id, index);
        // An open transaction is not in the image, so no snapshot can stand for the log after it.
        let open = self.filter.is_open();
        if !open {
            self.snapshot = Some((id, index));
        }
        Builder { dir: self.dir.clone(), image: self.image.clone(), index, meta, open }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<CheckpointFile>, Failure> {
        let path = self.dir.join("received.checkpoint.part");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StorageIOError::write_snapshot(None, &error).into())
            }
            _ => Ok(Box::new(CheckpointFile::new(path))),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        file: Box<CheckpointFile>,
    ) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| {
            let text = std::io::Error::other(error.to_string());
            Failure::from(StorageIOError::read_snapshot(Some(meta.signature()), &text))
        };
        let checkpoint = Checkpoint::read(file.path()).map_err(|error| failed(&error))?;
        let parts = meta.snapshot_id.split_once('-');
        let end = parts.and_then(|(end, _)| end.parse::<i64>().ok());
        let (Some(end_offset), Some(last)) = (end, meta.last_log_id) else {
            return Err(failed(&std::io::Error::other("the snapshot's id has no offset")));
        };
        let id = SnapshotId { end_offset, epoch: last.leader_id.term as i32 };
        std::fs::rename(file.path(), id.path(&self.dir)).map_err(|error| failed(&error))?;
        super::files::sync_dir(&self.dir).map_err(|error| failed(&error))?;
        let mut image = Image::default();
        for record in &checkpoint.records {
            image.apply(record);
        }
        image.offset = id.end_offset - 1;
        image.epoch = id.epoch;
        image.timestamp_ms = checkpoint.timestamp_ms;
        let changes = snapshot::diff(&self.image, &image);
        (self.image, self.filter) = (image, TransactionFilter::default());
        (self.applied, self.membership) = (meta.last_log_id, meta.last_membership.clone());
        self.snapshot = Some((id, last.index));
        self.publish(CommittedBatch {
            last_offset: self.image.offset,
            epoch: self.image.epoch,
            append_ms: self.image.timestamp_ms,
            records: Vec::new(),
            changes,
            image: Arc::new(self.image.clone()),
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, Failure> {
        Ok(self.snapshot.map(|(id, index)| Snapshot {
            meta: self.meta(id, index),
            snapshot: Box::new(CheckpointFile::new(id.path(&self.dir))),
        }))
    }
}

/// An image on its way to disk.
pub struct Builder {
    dir: PathBuf,
    image: Image,
    index: u64,
    meta: Meta,
    open: bool,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, Failure> {
        let failed = |error: &std::io::Error| {
            Failure::from(StorageIOError::write_snapshot(Some(self.meta.signature()), error))
        };
        if self.open {
            let error = std::io::Error::other("a metadata transaction is open");
            return Err(failed(&error));
        }
        let (dir, image, index) = (self.dir.clone(), self.image.clone(), self.index);
        let write = move || checkpoint::write(&dir, &image, index);
        let written = tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other);
        let id = written.and_then(|written| written).map_err(|error| failed(&error))?;
        let snapshot = Box::new(CheckpointFile::new(id.path(&self.dir)));
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}
