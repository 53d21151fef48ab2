//! openraft's log storage over `MetadataLog`, and the vote in `quorum-state`.
// The error type is openraft's, and large; these paths are cold.
#![allow(clippy::result_large_err)]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use openraft::{
    LeaderId, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::{
    files::{CurrentVoter, QuorumState},
    format::{self, Control, LeaderChangeMessage, Stamp},
    log::{Base, MetadataLog},
    log_thread::LogThread,
    segment_files::{Obsolete, Reservation},
    types::{Content, Durability, Entry, TypeConfig, log_id},
    voters::{self, Membership, StoredMembership},
};
use crate::{
    base::{
        environment::{is_single_threaded, now_ms},
        kafka_uuid,
    },
    log::disk,
    metadata::records::NoOpRecord,
    protocol::schema::WireMessage,
    records::{Batch, ControlRecordType},
};

type Failure = StorageError<i32>;

/// The most bytes of entries in one message to another voter. A larger batch is sent alone.
const SEND_BYTES_MAX: usize = 1 << 20;

/// More room is reserved once less than this is left, in bytes.
const RESERVE_AHEAD_BYTES: u64 = 16 << 10;

/// The log and the vote of one node.
#[derive(Clone)]
pub struct Storage {
    pub thread: Arc<LogThread>,
    disk: Arc<dyn disk::Disk>,
    dir: Arc<PathBuf>,
    node_id: i32,
    voter_state: Arc<Mutex<VoterState>>,
    /// The newest snapshot from the leader whose installation is queued or done.
    installed: Arc<watch::Sender<Option<Installed>>>,
    /// The Raft index after the newest snapshot. Jobs that are queued on the log's thread from now
    /// on run after that snapshot is on disk.
    snapshot_end: Arc<AtomicU64>,
    /// Held while the disk reserves room, so that only one such job is queued at a time.
    reserving: Arc<tokio::sync::Mutex<()>>,
    /// The last entry that each other voter has on disk, as it reported to this leader.
    pub acknowledged: Arc<Mutex<BTreeMap<i32, LogId<i32>>>>,
}

/// The voters, their feature level and the vote, from the newest snapshot and the log.
#[derive(Debug, Clone)]
pub struct VoterState {
    /// The voters as of the snapshot, then every change in the log after it.
    pub memberships: Vec<StoredMembership>,
    /// 1 if the voters are in the log, 0 if they are configured.
    pub kraft_version: i16,
    /// The last vote that openraft saved.
    pub vote: Option<Vote<i32>>,
}

impl VoterState {
    pub fn effective(&self) -> &StoredMembership {
        self.memberships.last().expect("the first one stays")
    }

    fn note(&mut self, log_id: LogId<i32>, membership: Membership) {
        self.memberships.push(StoredMembership::new(Some(log_id), membership));
    }

    /// Forgets the changes from the index on.
    fn truncate(&mut self, index: u64) {
        let at = |it: &StoredMembership| it.log_id().map(|log_id| log_id.index);
        while self.memberships.len() > 1 && at(self.effective()) >= Some(index) {
            self.memberships.pop();
        }
    }

    /// Forgets voters that were replaced at or before the index.
    fn purge(&mut self, upto: u64) {
        let at = |it: &StoredMembership| it.log_id().map(|log_id| log_id.index);
        while self.memberships.get(1).is_some_and(|next| at(next) <= Some(upto)) {
            self.memberships.remove(0);
        }
    }
}

/// Where the log continues after a snapshot from the leader, and the voters as of then.
#[derive(Debug, Clone)]
pub struct Installed {
    pub base: Base,
    pub membership: StoredMembership,
}

fn read_error(error: impl std::error::Error + 'static) -> Failure {
    StorageIOError::read_logs(&error).into()
}

fn write_error(error: impl std::error::Error + 'static) -> Failure {
    StorageIOError::write_logs(&error).into()
}

/// Runs blocking work on a thread for it, or in place if the runtime has only one thread.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if is_single_threaded() {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl Storage {
    pub fn new(
        log: MetadataLog,
        (disk, dir): (Arc<dyn disk::Disk>, PathBuf),
        node_id: i32,
        known: VoterState,
    ) -> io::Result<Self> {
        let snapshot_end = Arc::new(AtomicU64::new(log.first_index()));
        Ok(Self {
            thread: LogThread::start(log)?,
            disk,
            dir: Arc::new(dir),
            node_id,
            voter_state: Arc::new(Mutex::new(known)),
            installed: Arc::new(watch::channel(None).0),
            snapshot_end,
            reserving: Arc::default(),
            acknowledged: Arc::default(),
        })
    }

    pub fn node_id(&self) -> i32 {
        self.node_id
    }

    pub fn log(&self) -> MutexGuard<'_, MetadataLog> {
        self.thread.log()
    }

    pub fn voter_state(&self) -> MutexGuard<'_, VoterState> {
        self.voter_state.lock()
    }

    /// Whether this node is the only voter. Its vote then need not be on disk before it leads: no
    /// other node asks for a vote in the same epoch, and the log has the last epoch.
    pub fn is_alone(&self) -> bool {
        voters::is_alone(self.voter_state().effective().membership(), self.node_id)
    }

    /// Notes that the installation of a snapshot from the leader is queued on the log's thread, so
    /// that the log can continue after it. Jobs that rely on the snapshot have to be queued later.
    pub fn snapshot_queued(&self, installed: Installed) {
        self.snapshot_written(installed.base.index);
        self.installed.send_replace(Some(installed));
    }

    /// Notes that a snapshot of everything before the index is on disk.
    pub fn snapshot_written(&self, end: u64) {
        self.snapshot_end.fetch_max(end, Ordering::AcqRel);
    }

    /// The size of those entries that this log lacks, in bytes.
    pub fn missing_bytes(&self, entries: &[Entry]) -> u64 {
        let end = self.log().next_index();
        let missing = entries.iter().filter(|entry| entry.log_id.index >= end);
        let sizes = missing.map(|entry| match &entry.content {
            Content::Batch { bytes, .. } => bytes.len() as u64,
            Content::Blank | Content::Proposal(_) | Content::Membership(_) => 0,
        });
        sizes.sum()
    }

    /// Waits until room for a batch of `len` bytes is reserved. Fails if the disk is full.
    pub async fn reserve(&self, len: u64) -> io::Result<()> {
        self.reserve_and_report(len, |_| {}).await
    }

    /// Reserves room as `reserve` does. `report` receives each result of the disk on the log's
    /// thread, also if the returned future is dropped before.
    pub async fn reserve_and_report(
        &self,
        len: u64,
        report: impl Fn(&io::Result<()>) + Clone + Send + 'static,
    ) -> io::Result<()> {
        while self.log().reservation(len)?.is_some() {
            let guard = self.reserving.clone().lock_owned().await;
            // Another caller may have reserved it in the meantime.
            let Some(reservation) = self.log().reservation(len)? else { break };
            self.set_aside(reservation, guard, report.clone()).await??;
        }
        Ok(())
    }

    /// Starts to reserve room before it is needed, so that entries need not wait for it.
    fn reserve_ahead(&self) {
        let Ok(guard) = self.reserving.clone().try_lock_owned() else { return };
        let reservation = self.log().reservation(RESERVE_AHEAD_BYTES);
        // If this fails, `reserve` tries again and reports why.
        if let Ok(Some(reservation)) = reservation {
            drop(self.set_aside(reservation, guard, |_| {}));
        }
    }

    /// Queues a reservation on the log's thread, which then calls `report` with the result. The
    /// inner result is an error if the disk is full: that does not make the log fail.
    fn set_aside<Report>(
        &self,
        reservation: Reservation,
        guard: tokio::sync::OwnedMutexGuard<()>,
        report: Report,
    ) -> impl Future<Output = io::Result<io::Result<()>>> + Send + use<Report>
    where
        Report: Fn(&io::Result<()>) + Send + 'static,
    {
        let storage = self.clone();
        self.thread.run(move || {
            let made = reservation.make();
            if made.is_ok() {
                storage.log().reserved(&reservation);
            }
            drop(guard);
            report(&made);
            Ok(made)
        })
    }

    /// The bytes of an entry, which this leader encodes if they are not encoded yet.
    fn encode(&self, entry: &Entry, base_offset: i64) -> (Bytes, Durability) {
        let epoch = entry.log_id.leader_id.term as i32;
        let stamp = |append_ms| Stamp { base_offset, epoch, append_ms };
        match &entry.content {
            Content::Proposal(proposal) if proposal.epoch == epoch => {
                let bytes = format::encode_records(&stamp(proposal.append_ms), &proposal.records);
                (bytes, proposal.durability)
            }
            // The records were decided in another epoch and may contradict batches since then.
            Content::Proposal(proposal) => {
                let nothing = [NoOpRecord {}.into()];
                let bytes = format::encode_records(&stamp(proposal.append_ms), &nothing);
                (bytes, Durability::Deferred)
            }
            Content::Blank => {
                let control =
                    Control { kind: ControlRecordType::LeaderChange, value: self.leader_change() };
                (format::encode_control(&stamp(now_ms()), &[control]), Durability::Deferred)
            }
            Content::Membership(membership) => {
                let mut controls = vec![];
                if self.voter_state().memberships.iter().all(|known| known.log_id().is_none()) {
                    controls.push(voters::kraft_version(1));
                }
                controls.push(Control {
                    kind: ControlRecordType::KraftVoters,
                    value: voters::encode(membership),
                });
                (format::encode_control(&stamp(now_ms()), &controls), Durability::Synced)
            }
            Content::Batch { bytes, .. } => (bytes.clone(), Durability::Synced),
        }
    }

    fn leader_change(&self) -> Bytes {
        let known = self.voter_state();
        let membership = known.effective().membership();
        let voters: Vec<_> = voters::voters(membership)
            .into_iter()
            .map(|it| format::Voter { voter_id: it.id, voter_directory_id: it.directory_id })
            .collect();
        let own = voters.iter().filter(|voter| voter.voter_id == self.node_id);
        let granting_voters = own.cloned().collect();
        // Kafka writes and reads only version 0, whatever `kraft.version` is.
        let (leader_id, version) = (self.node_id, 0);
        let message = LeaderChangeMessage { version, leader_id, voters, granting_voters };
        let mut value = BytesMut::new();
        message.encode(&mut value, version);
        value.freeze()
    }

    /// Writes entries to the page cache. Returns whether they have to be synced before they count.
    fn write(&self, entries: impl IntoIterator<Item = Entry>) -> io::Result<bool> {
        let mut deferred = self.is_alone();
        let mut log = self.log();
        for entry in entries {
            let (bytes, durability) = self.encode(&entry, log.end_offset());
            let membership = match entry.content {
                Content::Membership(membership) => Some(membership),
                Content::Batch { membership, .. } => membership,
                Content::Blank | Content::Proposal(_) => None,
            };
            if let Some(membership) = membership {
                self.change_voters(entry.log_id, membership)?;
            }
            log.append(&bytes)?;
            deferred &= durability == Durability::Deferred;
        }
        drop(log);
        self.reserve_ahead();
        Ok(!deferred)
    }

    /// Notes a change of the voters that goes into the log. openraft uses it from then on, before
    /// it is committed. If this node was the only voter until now, its vote is synced to disk.
    pub fn change_voters(&self, log_id: LogId<i32>, membership: Membership) -> io::Result<()> {
        let was_alone = self.is_alone();
        let vote = {
            let mut known = self.voter_state();
            known.kraft_version = 1;
            known.note(log_id, membership);
            known.vote
        };
        match vote {
            Some(vote) if was_alone && !self.is_alone() => {
                self.write_vote(&vote, disk::FileDurability::Synced)
            }
            _ => Ok(()),
        }
    }

    fn write_vote(&self, vote: &Vote<i32>, durability: disk::FileDurability) -> io::Result<()> {
        let voted = vote.leader_id.voted_for.unwrap_or(-1);
        let (leader_id, voted_id) = if vote.committed { (voted, -1) } else { (-1, voted) };
        let leader_epoch = vote.leader_id.term as i32;
        let known = self.voter_state();
        let membership = known.effective().membership();
        let is_configured = known.kraft_version == 0;
        let voter = |id| membership.get_node(&id).map_or(uuid::Uuid::nil(), |it| it.directory_id);
        let ids = membership.voter_ids().map(|voter_id| CurrentVoter { voter_id }).collect();
        let state = QuorumState {
            cluster_id: is_configured.then(String::new),
            leader_id,
            leader_epoch,
            voted_id,
            voted_directory_id: (!is_configured).then(|| kafka_uuid::encode(voter(voted_id))),
            applied_offset: is_configured.then_some(0),
            current_voters: is_configured.then_some(ids),
            data_version: known.kraft_version.clamp(0, 1),
        };
        drop(known);
        state.write(&*self.disk, &self.dir, durability)
    }

    fn entry(&self, index: u64, bytes: Bytes) -> Result<Entry, Failure> {
        let batch = Batch::split_first(&mut bytes.clone()).map_err(read_error)?;
        let controls = format::controls(&batch).map_err(read_error)?;
        let membership = voters::last_of(&controls).map_err(read_error)?;
        let log_id = log_id(batch.header.leader_epoch, index);
        Ok(Entry { log_id, content: Content::Batch { bytes, membership } })
    }

    /// Removes the batches from the index on.
    pub fn cut(&self, index: u64) -> io::Result<()> {
        self.voter_state().truncate(index);
        self.log().truncate(index)?;
        self.thread.sync_soon();
        Ok(())
    }

    /// Purges the batches up to the index, which a snapshot includes.
    pub fn forget(&self, upto: u64) {
        self.voter_state().purge(upto);
        let obsolete = self.log().purge(upto);
        if !obsolete.is_empty() {
            self.delete_soon(obsolete, |_| {});
        }
    }

    /// Continues the log after a snapshot whose installation is queued or done.
    pub fn begin_at(&self, installed: Installed) -> io::Result<()> {
        self.voter_state().memberships = vec![installed.membership];
        let obsolete = self.log().continue_after(installed.base)?;
        self.delete_soon(obsolete, |storage| {
            storage.log().snapshot_is_durable();
            storage.thread.sync_soon();
        });
        Ok(())
    }

    /// Queues the deletion of segments after the jobs that are queued already. One of those writes
    /// the snapshot that replaces the segments.
    fn delete_soon(&self, obsolete: Obsolete, then: fn(&Self)) {
        let storage = self.clone();
        self.thread.run_soon(move || {
            // If the snapshot could not be written, the segments are kept.
            storage.thread.check_failure()?;
            obsolete.delete()?;
            then(&storage);
            Ok(())
        });
    }

    /// Waits until the installation of a leader's snapshot that includes the index is queued.
    async fn wait_installed(&self, upto: u64) -> io::Result<Option<Installed>> {
        let mut installed = self.installed.subscribe();
        let is_there = |it: &Option<Installed>| it.as_ref().is_some_and(|it| it.base.index > upto);
        let mut failure = self.thread.failure();
        tokio::select! {
            biased;
            installed = installed.wait_for(is_there) => {
                Ok(installed.map_err(io::Error::other)?.clone())
            }
            _ = failure.wait_for(Option::is_some) => {
                Err(self.thread.check_failure().err().unwrap_or_else(|| io::ErrorKind::Other.into()))
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for Storage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, Failure> {
        let log = self.log();
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => log.first_index(),
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => log.next_index(),
        };
        let mut entries = Vec::new();
        for index in start.max(log.first_index())..end {
            let Some(bytes) = log.read(index).map_err(read_error)? else { break };
            entries.push(self.entry(index, bytes)?);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, Failure> {
        let mut bytes = 0;
        let sizes = (start..end).map(|at| self.log().position(at).map_or(0, |it| it.0.size));
        let fitting = sizes.take_while(|&size| {
            bytes += size as usize;
            bytes <= SEND_BYTES_MAX
        });
        let count = fitting.count().max(1) as u64;
        self.try_get_log_entries(start..end.min(start + count)).await
    }
}

impl RaftLogStorage<TypeConfig> for Storage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, Failure> {
        let log = self.log();
        let id = |(epoch, index)| log_id(epoch, index);
        Ok(LogState {
            last_purged_log_id: log.purged().map(id),
            last_log_id: log.last_log_id().map(id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<i32>) -> Result<(), Failure> {
        self.voter_state().vote = Some(*vote);
        let alone = self.is_alone();
        // A sole voter is elected at once, so only its leadership is saved.
        if alone && !vote.committed {
            return Ok(());
        }
        let (storage, vote) = (self.clone(), *vote);
        let write = move || storage.write_vote(&vote, disk::FileDurability::Synced);
        let saved = if alone {
            self.write_vote(&vote, disk::FileDurability::PageCache)
        } else if vote.committed {
            // Saving a leader that is already elected need not wait: this node's own vote is on
            // disk, and entries of the epoch are synced after this write.
            self.thread.run_soon(write);
            Ok(())
        } else {
            self.thread.run(write).await
        };
        saved.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    /// The vote is never read as committed: after a restart a leader has to be elected again, in a
    /// new epoch, as in Kafka.
    async fn read_vote(&mut self) -> Result<Option<Vote<i32>>, Failure> {
        let state = match QuorumState::read(&*self.disk, &self.dir) {
            Ok(state) => state,
            // A sole voter does not sync the file, so a crash may destroy it. The log has the
            // epoch.
            Err(error) if self.is_alone() && error.kind() == io::ErrorKind::InvalidData => None,
            Err(error) => return Err(StorageIOError::read_vote(&error).into()),
        };
        let reached = self.log().last_epoch();
        let saved = state.filter(|state| state.leader_epoch >= reached).map(|state| {
            let voted = if state.voted_id >= 0 { state.voted_id } else { state.leader_id };
            (state.leader_epoch, (voted >= 0).then_some(voted))
        });
        let (epoch, voted_for) = saved.unwrap_or((reached, None));
        let leader_id = LeaderId { term: epoch as u64, voted_for };
        let vote = (epoch > 0).then_some(Vote { leader_id, committed: false });
        self.voter_state().vote = vote;
        Ok(vote)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.thread.check_failure().map_err(write_error)?;
        let must_sync = self.write(entries).map_err(write_error)?;
        match must_sync {
            // openraft commits the entries as soon as this node's copy is complete.
            true if self.is_alone() => {
                self.thread.sync_then(|done| callback.log_io_completed(done))
            }
            // openraft also waits for other voters, and `durability` holds back their responses.
            true => {
                self.thread.sync_soon();
                callback.log_io_completed(Ok(()));
            }
            false => callback.log_io_completed(Ok(())),
        }
        Ok(())
    }

    async fn truncate(&mut self, since: LogId<i32>) -> Result<(), Failure> {
        self.cut(since.index).map_err(write_error)
    }

    async fn purge(&mut self, upto: LogId<i32>) -> Result<(), Failure> {
        // The batches may be deleted once the write of the snapshot that replaces them is queued
        // ahead of the deletion. openraft installs the snapshot at the same time.
        let is_beyond = self.log().next_index() <= upto.index;
        let is_written = self.snapshot_end.load(Ordering::Acquire) > upto.index;
        if is_beyond || !is_written {
            let installed = self.wait_installed(upto.index).await.map_err(write_error)?;
            if let Some(installed) = installed.filter(|_| is_beyond) {
                return self.begin_at(installed).map_err(write_error);
            }
        }
        self.forget(upto.index);
        Ok(())
    }
}
