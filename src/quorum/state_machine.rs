//! openraft's state machine: applies committed batches to the image, publishes each, and writes
//! snapshots of the image. An observer drives the same machine without openraft.
// The error type is openraft's, and large; these paths are cold.
#![allow(clippy::result_large_err)]

use std::{io, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use openraft::{
    LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StorageIOError,
    storage::RaftStateMachine,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc, watch};

use super::{
    CommittedBatch,
    checkpoint::{self, Checkpoint, SnapshotId},
    checkpoint_file::CheckpointFile,
    format::{self, Contents, FormatError},
    log::Base,
    storage::{self, Installed, Storage},
    types::{Content, Entry, TypeConfig, epoch_of, log_id},
    voters::{self, StoredMembership, Voter},
};
use crate::{
    log::disk::{Disk, OpenMode},
    metadata::{Change, Image, MetadataRecord, TransactionFilter, diff},
    records::Batch,
};

type Failure = StorageError<i32>;
type Meta = SnapshotMeta<i32, Voter>;

/// The state that results from the applied batches.
pub struct Machine {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub image: Image,
    pub filter: TransactionFilter,
    pub applied: Option<LogId<i32>>,
    pub membership: StoredMembership,
    pub kraft_version: i16,
    /// The newest snapshot on disk.
    pub snapshot: Option<SnapshotAt>,
    pub published: Arc<ArcSwap<Image>>,
    /// `None` once nothing more will be applied.
    pub committed: Option<mpsc::UnboundedSender<CommittedBatch>>,
    /// The offset of the last applied record, for tasks that wait for it.
    pub progress: Arc<watch::Sender<i64>>,
    pub growth: Growth,
}

/// Counts how far the log has grown, and notifies when another snapshot is due.
pub struct Growth {
    pub since_snapshot: u64,
    pub snapshot_bytes: u64,
    pub enough: Arc<Notify>,
}

/// A snapshot on disk: its name, Raft's index of its last batch, and the voters as of then.
#[derive(Debug, Clone)]
pub struct SnapshotAt {
    pub id: SnapshotId,
    pub index: u64,
    pub membership: StoredMembership,
}

impl SnapshotAt {
    fn meta(&self) -> Meta {
        SnapshotMeta {
            last_log_id: Some(log_id(self.id.epoch, self.index)),
            last_membership: self.membership.clone(),
            snapshot_id: format!("{}-{}", self.id.end_offset, self.id.epoch),
        }
    }
}

impl Machine {
    /// Applies one batch of the log, and publishes the image. Returns the offset of its last
    /// record.
    pub fn apply(&mut self, at: LogId<i32>, bytes: Bytes) -> Result<i64, FormatError> {
        let batch = Batch::split_first(&mut bytes.clone())?;
        let last_offset = batch.header.last_offset();
        let (append_ms, records) = match format::decode(&batch)? {
            Contents::Records(records) => (batch.header.base_timestamp, records),
            Contents::Control(controls) => {
                if let Some(level) = voters::kraft_version_of(&controls)? {
                    self.kraft_version = level;
                }
                if let Some(membership) = voters::last_of(&controls)? {
                    self.kraft_version = 1;
                    self.membership = StoredMembership::new(Some(at), membership);
                }
                (self.image.timestamp_ms, Vec::new())
            }
        };
        self.applied = Some(at);
        let changes = apply(&mut self.image, &mut self.filter, &records);
        self.image.offset = last_offset;
        self.image.epoch = epoch_of(&at);
        self.image.timestamp_ms = append_ms;
        self.publish(records, changes);
        self.growth.since_snapshot += bytes.len() as u64;
        // The image lacks the records of an open transaction, so a snapshot could not replace them.
        if self.growth.since_snapshot >= self.growth.snapshot_bytes && !self.filter.is_open() {
            self.growth.enough.notify_one();
        }
        Ok(last_offset)
    }

    fn publish(&self, records: Vec<MetadataRecord>, changes: Vec<Change>) {
        let image = Arc::new(self.image.clone());
        self.published.store(image.clone());
        self.progress.send_replace(image.offset);
        let Some(committed) = &self.committed else { return };
        // This fails only while the node stops.
        let _ = committed.send(CommittedBatch {
            last_offset: image.offset,
            epoch: image.epoch,
            append_ms: image.timestamp_ms,
            records,
            changes,
            image,
        });
    }

    /// The content of a snapshot of the current state.
    fn content(&self) -> checkpoint::SnapshotContent {
        checkpoint::SnapshotContent {
            image: self.image.clone(),
            raft_index: self.applied.map_or(0, |applied| applied.index),
            membership: self.membership.clone(),
            kraft_version: self.kraft_version,
        }
    }

    /// Replaces the state with the leader's snapshot, which is on disk already. If `known` is
    /// `None`, the snapshot itself says its Raft index and its voters.
    pub fn take(
        &mut self,
        checkpoint: &Checkpoint,
        id: SnapshotId,
        known: Option<Installed>,
    ) -> Installed {
        let installed = known.unwrap_or_else(|| {
            let membership = checkpoint.membership.as_ref().unwrap_or(&self.membership).clone();
            Installed { base: id.base(checkpoint), membership }
        });
        let (index, membership) =
            (installed.base.index.saturating_sub(1), installed.membership.clone());
        let mut image = Image::default();
        for record in &checkpoint.records {
            image.apply(record);
        }
        image.offset = id.end_offset - 1;
        image.epoch = id.epoch;
        image.timestamp_ms = checkpoint.timestamp_ms;
        let changes = diff(&self.image, &image);
        (self.image, self.filter) = (image, TransactionFilter::default());
        self.applied = Some(log_id(id.epoch, index));
        self.membership = membership.clone();
        self.kraft_version = self.kraft_version.max(checkpoint.kraft_version);
        self.snapshot = Some(SnapshotAt { id, index, membership });
        self.growth.since_snapshot = 0;
        self.publish(Vec::new(), changes);
        installed
    }
}

/// Applies the records to the image. Those of an open transaction wait for its end.
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

/// openraft's view of the machine.
#[derive(Clone)]
pub struct StateMachine {
    machine: Arc<Mutex<Machine>>,
    storage: Storage,
}

fn snapshot_error(error: impl std::fmt::Display) -> Failure {
    let error = io::Error::other(error.to_string());
    StorageIOError::read_snapshot(None, &error).into()
}

impl StateMachine {
    pub fn new(machine: Machine, storage: Storage) -> Self {
        Self { machine: Arc::new(Mutex::new(machine)), storage }
    }

    /// Locks the state. The lock is held for one step and never across an await.
    pub fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock()
    }

    /// Writes a snapshot of the current state and makes it the newest. Does nothing while a
    /// metadata transaction is open, or if nothing was applied yet.
    pub async fn write_snapshot(&self) -> io::Result<()> {
        let (disk, dir, content) = {
            let mut machine = self.machine();
            if machine.filter.is_open() || machine.applied.is_none() {
                return Ok(());
            }
            machine.growth.since_snapshot = 0;
            (machine.disk.clone(), machine.dir.clone(), machine.content())
        };
        let (index, membership) = (content.raft_index, content.membership.clone());
        let place = (disk.clone(), dir.clone());
        let write = move || checkpoint::write(&*disk, &dir, &content);
        let id = storage::blocking(write).await?;
        self.storage.snapshot_written(index + 1);
        {
            let mut machine = self.machine();
            if machine.snapshot.as_ref().is_some_and(|known| known.id >= id) {
                return Ok(());
            }
            machine.snapshot = Some(SnapshotAt { id, index, membership });
        }
        storage::blocking(move || checkpoint::delete_before(&*place.0, &place.1, id)).await
    }

    /// The newest snapshot as an open file, which stays readable when another snapshot replaces it.
    fn newest(&self) -> io::Result<Option<Snapshot<TypeConfig>>> {
        let machine = self.machine();
        let Some(at) = &machine.snapshot else { return Ok(None) };
        let path = at.id.path(&machine.dir);
        let file = CheckpointFile::open(&*machine.disk, path, OpenMode::Read)?;
        Ok(Some(Snapshot { meta: at.meta(), snapshot: Box::new(file) }))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId<i32>>, StoredMembership), Failure> {
        let machine = self.machine();
        Ok((machine.applied, machine.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<i64>, Failure>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut machine = self.machine();
        let mut offsets = Vec::new();
        for entry in entries {
            let applied = match entry.content {
                Content::Batch { bytes, .. } => machine.apply(entry.log_id, bytes),
                _ => Err(FormatError::BadRecord),
            };
            let failed = |error: FormatError| StorageIOError::apply(entry.log_id, &error);
            offsets.push(applied.map_err(failed)?);
        }
        Ok(offsets)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<CheckpointFile>, Failure> {
        let machine = self.machine();
        let path = machine.dir.join("received.checkpoint.part");
        let file = CheckpointFile::open(&*machine.disk, path, OpenMode::Truncate);
        Ok(Box::new(file.map_err(snapshot_error)?))
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        file: Box<CheckpointFile>,
    ) -> Result<(), Failure> {
        let parts = meta.snapshot_id.split_once('-');
        let end = parts.and_then(|(end, _)| end.parse::<i64>().ok());
        let (Some(end_offset), Some(last)) = (end, meta.last_log_id) else {
            let error = io::Error::other("the snapshot's id has no offset");
            // openraft's purge waits for this snapshot, and the failure ends the wait.
            self.storage.thread.fail(&error);
            return Err(snapshot_error(error));
        };
        let id = SnapshotId { end_offset, epoch: epoch_of(&last) };
        let base = Base { index: last.index + 1, offset: end_offset, epoch: id.epoch };
        let installed = Installed { base, membership: meta.last_membership.clone() };
        let (disk, dir) = {
            let machine = self.machine();
            (machine.disk.clone(), machine.dir.clone())
        };
        let received = file.path().to_owned();
        // The log's thread installs it, so that batches after the snapshot become durable after it.
        let place = (disk.clone(), dir.clone());
        let install = move || checkpoint::install((&*place.0, &place.1), &received, id);
        let checkpoint = self.storage.thread.run(install);
        self.storage.snapshot_queued(installed.clone());
        let checkpoint = checkpoint.await.map_err(snapshot_error)?;
        self.machine().take(&checkpoint, id, Some(installed));
        self.storage.thread.run_soon(move || checkpoint::delete_before(&*disk, &dir, id));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, Failure> {
        self.newest().map_err(snapshot_error)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    /// Returns the newest snapshot, which `Inner::snapshot` wrote before it called openraft.
    /// openraft does not cause the write, because it would treat a full disk as a failed one.
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, Failure> {
        let newest = self.newest().map_err(snapshot_error)?;
        newest.ok_or_else(|| snapshot_error("there is nothing to write"))
    }
}
