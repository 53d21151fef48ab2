//! openraft's log storage over `MetadataLog`, and the vote in `quorum-state`.
// The error type is openraft's, and large; these paths are cold.
#![allow(clippy::result_large_err)]

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::{Bytes, BytesMut};
use openraft::{
    EntryPayload, LeaderId, LogId, LogState, OptionalSend, RaftLogReader, StorageError,
    StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};

use super::{
    files::{CurrentVoter, QuorumState},
    format::{self, Contents, LEADER_CHANGE, LeaderChangeMessage, Stamp},
    log::MetadataLog,
    types::{Durability, Proposal, TypeConfig, log_id},
};
use crate::base::clock::now_ms;

type Entry = openraft::Entry<TypeConfig>;
type Failure = StorageError<i32>;

/// The log and the vote of one node.
#[derive(Clone)]
pub struct Storage {
    /// Held only for a write to the page cache or a read, never over an await.
    log: Arc<Mutex<MetadataLog>>,
    dir: PathBuf,
    node_id: i32,
    voters: Arc<[i32]>,
}

fn read_error(error: impl std::error::Error + 'static) -> Failure {
    StorageIOError::read_logs(&error).into()
}

fn write_error(error: impl std::error::Error + 'static) -> Failure {
    StorageIOError::write_logs(&error).into()
}

impl Storage {
    pub fn new(log: MetadataLog, dir: PathBuf, node_id: i32, voters: Arc<[i32]>) -> Self {
        Self { log: Arc::new(Mutex::new(log)), dir, node_id, voters }
    }

    pub fn log(&self) -> std::sync::MutexGuard<'_, MetadataLog> {
        self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Alone, this node cannot be asked for a second vote in an epoch, and its log tells the epoch
    /// that it has reached; so its vote need not be on disk before it leads.
    fn is_alone(&self) -> bool {
        *self.voters == [self.node_id]
    }

    fn encode(&self, entry: &Entry, base_offset: i64) -> (Bytes, Durability) {
        let epoch = entry.log_id.leader_id.term as i32;
        match &entry.payload {
            EntryPayload::Normal(proposal) => {
                let stamp = Stamp { base_offset, epoch, append_ms: proposal.append_ms };
                (format::encode_records(&stamp, &proposal.records), proposal.durability)
            }
            // The voters are configured; a change of them is written like a new leader's start.
            EntryPayload::Blank | EntryPayload::Membership(_) => {
                let stamp = Stamp { base_offset, epoch, append_ms: now_ms() };
                let value = self.leader_change();
                (format::encode_control(&stamp, LEADER_CHANGE, &value), Durability::Deferred)
            }
        }
    }

    fn leader_change(&self) -> BytesMut {
        let voter = |&voter_id: &i32| format::Voter { voter_id, ..Default::default() };
        let voters: Vec<_> = self.voters.iter().map(voter).collect();
        let granting_voters =
            if self.is_alone() { voters.clone() } else { vec![voter(&self.node_id)] };
        let leader_id = self.node_id;
        let message = LeaderChangeMessage { version: 0, leader_id, voters, granting_voters };
        let mut value = BytesMut::new();
        message.encode(&mut value, 0);
        value
    }

    fn decode(&self, index: u64, batch: &crate::records::Batch) -> Result<Entry, Failure> {
        let payload = match format::decode(batch).map_err(read_error)? {
            Contents::Control(..) => EntryPayload::Blank,
            Contents::Records(records) => EntryPayload::Normal(Proposal {
                append_ms: batch.header.base_timestamp,
                durability: Durability::Synced,
                records,
            }),
        };
        Ok(Entry { log_id: log_id(batch.header.leader_epoch, index), payload })
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
            let Some(batch) = log.read(index).map_err(read_error)? else { break };
            entries.push(self.decode(index, &batch)?);
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for Storage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, Failure> {
        let log = self.log();
        let purged = log.first_index().checked_sub(1).map(|at| log_id(log.epoch_before(), at));
        let last = log.next_index().checked_sub(1).map(|at| log_id(log.last_epoch(), at));
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<i32>) -> Result<(), Failure> {
        let voted = vote.leader_id.voted_for.unwrap_or(-1);
        let (leader_id, voted_id) = if vote.committed { (voted, -1) } else { (-1, voted) };
        let state = QuorumState {
            cluster_id: String::new(),
            leader_id,
            leader_epoch: vote.leader_id.term as i32,
            voted_id,
            applied_offset: 0,
            current_voters: self.voters.iter().map(|&voter_id| CurrentVoter { voter_id }).collect(),
            data_version: 0,
        };
        // A lone voter's candidacy lasts no time; only its leadership is worth a file.
        if self.is_alone() && !vote.committed {
            return Ok(());
        }
        let saved = state.write(&self.dir, !self.is_alone());
        saved.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    /// The vote is never read as committed: after a restart a leader has to be elected again, in a
    /// new epoch, as in Kafka.
    async fn read_vote(&mut self) -> Result<Option<Vote<i32>>, Failure> {
        let state = match QuorumState::read(&self.dir) {
            Ok(state) => state,
            // Not synced when alone, so a crash may leave nothing in it; the log tells the epoch.
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
        Ok((epoch > 0).then_some(Vote { leader_id, committed: false }))
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
        let mut deferred = self.is_alone();
        let sync = {
            let mut log = self.log();
            for entry in entries {
                let (bytes, durability) = self.encode(&entry, log.end_offset());
                log.append(&bytes).map_err(write_error)?;
                deferred &= durability == Durability::Deferred;
            }
            if deferred { None } else { Some(log.sync()) }
        };
        match sync {
            None => callback.log_io_completed(Ok(())),
            Some(sync) => {
                tokio::task::spawn_blocking(move || callback.log_io_completed(sync()));
            }
        }
        Ok(())
    }

    async fn truncate(&mut self, since: LogId<i32>) -> Result<(), Failure> {
        self.log().truncate(since.index).map_err(write_error)
    }

    async fn purge(&mut self, upto: LogId<i32>) -> Result<(), Failure> {
        self.log().purge(upto.index).map_err(write_error)
    }
}
