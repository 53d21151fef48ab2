//! The start of the quorum: reads the newest snapshot and replays the log after it. A quorum of one
//! has committed its whole log and leads when the start returns. One of several voters learns later
//! what is committed and which node leads.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use openraft::Raft;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use super::{
    CommittedStream, Inner, Leadership, Quorum, QuorumError,
    candidacy::Candidacy,
    change,
    checkpoint::{Checkpoint, SnapshotId},
    elections::{self, LeaderContact, Timeouts},
    files,
    format::{self, Contents},
    log::{Base, MetadataLog},
    network::{Network, NoPeers, RaftTransport},
    observer::Observe,
    state_machine::{Growth, Machine, SnapshotAt, StateMachine, apply},
    storage::{Storage, VoterState},
    types::{TypeConfig, epoch_of, leads, log_id},
    voters::{self, Endpoint, Membership, StoredMembership, Voter},
};
use crate::{
    base::{METADATA_TOPIC, random::Random},
    log::{Disk, RealDisk},
    metadata::{Image, TransactionFilter},
};

/// What a node needs to take part in the quorum.
#[derive(Clone)]
pub struct QuorumConfig {
    pub node_id: i32,
    pub cluster_id: String,
    /// `__cluster_metadata-0` in the metadata log directory. Created if it does not exist.
    pub dir: PathBuf,
    pub disk: Arc<dyn Disk>,
    /// `controller.quorum.voters`. Voters in the log or in a snapshot take precedence.
    pub voters: Vec<Voter>,
    pub transport: Arc<dyn RaftTransport>,
    pub timeouts: Timeouts,
    /// How to follow the log as an observer. If it is `None`, this node has to be a voter.
    pub observe: Option<Observe>,
    /// A snapshot is written when the log has grown by this many bytes
    /// (`metadata.log.max.record.bytes.between.snapshots`).
    pub snapshot_bytes: u64,
    /// Seed of the random election timeouts.
    pub seed: u64,
}

impl QuorumConfig {
    /// The configuration of a quorum of one. It writes snapshots more often than Kafka, because
    /// each start with 10,000 partitions adds as many changes of leader epochs, which the next
    /// start has to read.
    pub fn alone(node_id: i32, dir: PathBuf) -> Self {
        Self {
            node_id,
            cluster_id: String::new(),
            dir,
            disk: Arc::new(RealDisk),
            voters: vec![Voter::new(node_id, uuid::Uuid::nil(), Endpoint::default())],
            transport: Arc::new(NoPeers),
            timeouts: Timeouts::default(),
            observe: None,
            snapshot_bytes: 4 << 20,
            seed: 0,
        }
    }
}

impl QuorumConfig {
    /// The id of the metadata log directory. Nil without `observe`, because no other node needs it
    /// then.
    pub(super) fn directory_id(&self) -> uuid::Uuid {
        self.observe.as_ref().map_or(uuid::Uuid::nil(), |observe| observe.directory_id)
    }

    /// Whether this node is one of the voters. The directory ids must be equal, unless one of them
    /// is nil.
    pub(super) fn is_voter(&self, membership: &Membership) -> bool {
        let own = self.directory_id();
        let is_here = |voter: &Voter| {
            voter.directory_id.is_nil() || own.is_nil() || voter.directory_id == own
        };
        membership.voter_ids().any(|id| id == self.node_id)
            && membership.get_node(&self.node_id).is_some_and(is_here)
    }
}

/// The state that a start has read from disk.
struct Replayed {
    /// As of `applied`.
    image: Image,
    filter: TransactionFilter,
    log: MetadataLog,
    snapshot: Option<SnapshotAt>,
    /// Epoch and Raft index of the last batch that is known to be committed.
    applied: Option<(i32, u64)>,
    known: VoterState,
}

/// The state at the end of the newest snapshot, or the initial state if there is none.
struct AtSnapshot {
    image: Image,
    base: Base,
    snapshot: Option<SnapshotAt>,
    membership: StoredMembership,
    kraft_version: i16,
}

fn read_snapshot(config: &QuorumConfig) -> Result<AtSnapshot, QuorumError> {
    let io = |source| QuorumError::Io { path: config.dir.clone(), source };
    let configured = StoredMembership::new(None, voters::of_voters(&config.voters));
    let mut found = AtSnapshot {
        image: Image::default(),
        base: Base::default(),
        snapshot: None,
        membership: configured,
        kraft_version: 0,
    };
    let Some(id) = SnapshotId::newest(&*config.disk, &config.dir).map_err(io)? else {
        return Ok(found);
    };
    let checkpoint = Checkpoint::read(&*config.disk, &id.path(&config.dir))?;
    found.base = id.base(&checkpoint);
    found.kraft_version = checkpoint.kraft_version;
    if let Some(membership) = checkpoint.membership {
        found.membership = membership;
    }
    let mut filter = TransactionFilter::default();
    apply(&mut found.image, &mut filter, &checkpoint.records);
    found.image.timestamp_ms = checkpoint.timestamp_ms;
    if let Some(index) = found.base.index.checked_sub(1) {
        found.image.offset = id.end_offset - 1;
        found.image.epoch = id.epoch;
        let membership = found.membership.clone();
        found.snapshot = Some(SnapshotAt { id, index, membership });
    }
    Ok(found)
}

/// Reads the newest snapshot and the log. Unless this node is the only voter, the image is the
/// snapshot's, because later batches may not be committed.
fn replay(config: &QuorumConfig) -> Result<Replayed, QuorumError> {
    let AtSnapshot { image: at_snapshot, base, snapshot, membership, mut kraft_version } =
        read_snapshot(config)?;
    let (mut image, mut filter) = (at_snapshot.clone(), TransactionFilter::default());
    let mut memberships = vec![membership];
    let mut index = base.index;
    let place = (&config.disk, config.dir.as_path());
    let log = MetadataLog::open(place, base, config.snapshot_bytes / 2, |batch| {
        let header = &batch.header;
        match format::decode(batch)? {
            Contents::Records(records) => {
                apply(&mut image, &mut filter, &records);
                image.timestamp_ms = header.max_timestamp;
            }
            Contents::Control(controls) => {
                if let Some(level) = voters::kraft_version_of(&controls)? {
                    kraft_version = level;
                }
                if let Some(membership) = voters::last_of(&controls)? {
                    let at = Some(log_id(header.leader_epoch, index));
                    memberships.push(StoredMembership::new(at, membership));
                }
            }
        }
        image.offset = header.last_offset();
        image.epoch = header.leader_epoch;
        index += 1;
        Ok(())
    })?;
    if log.next_index() < index {
        // The log did not continue where the snapshot ends, so `MetadataLog::open` has emptied it.
        memberships.truncate(1);
    }
    let mut log = log;
    drop_own_removal(config, &mut log, &mut memberships)?;
    let effective: &Membership = memberships.last().expect("has one").membership();
    let mut applied = log.last_log_id();
    if !voters::is_alone(effective, config.node_id) || log.next_index() < index {
        (image, filter) = (at_snapshot, TransactionFilter::default());
        applied = base.last();
    }
    let known = VoterState { memberships, kraft_version, vote: None };
    Ok(Replayed { image, filter, log, snapshot, applied, known })
}

/// Truncates the change of the voters with which this node, as the leader of the log's last epoch,
/// removed itself. This node is no voter in that change, so its copy does not count: if the change
/// is committed, other voters have it. If it is not, this node's vote is still needed, but openraft
/// would not let it become a candidate.
fn drop_own_removal(
    config: &QuorumConfig,
    log: &mut MetadataLog,
    memberships: &mut Vec<StoredMembership>,
) -> Result<(), QuorumError> {
    let io = |source| QuorumError::Io { path: config.dir.clone(), source };
    let [.., before, last] = memberships.as_slice() else { return Ok(()) };
    let Some(at) = *last.log_id() else { return Ok(()) };
    let is_removal = config.is_voter(before.membership()) && !config.is_voter(last.membership());
    if !is_removal || epoch_of(&at) != log.last_epoch() {
        return Ok(());
    }
    let first = log.start_of_last_epoch().map(|index| log.read(index)).transpose().map_err(io)?;
    let leader = first.flatten().and_then(|bytes| format::leader_of(&bytes));
    if leader == Some(config.node_id) {
        log.truncate(at.index).map_err(io)?;
        log.sync().1().map_err(io)?;
        memberships.pop();
    }
    Ok(())
}

fn raft_config(config: &QuorumConfig) -> Result<Arc<openraft::Config>, QuorumError> {
    let timeouts = &config.timeouts;
    let raft = openraft::Config {
        cluster_name: METADATA_TOPIC.into(),
        // openraft's request timeout. Heartbeats and elections are in `elections`.
        heartbeat_interval: timeouts.response_timeout().as_millis() as u64,
        enable_heartbeat: false,
        enable_elect: false,
        election_timeout_min: timeouts.lease().as_millis() as u64 - 1,
        election_timeout_max: timeouts.lease().as_millis() as u64,
        install_snapshot_timeout: 10_000,
        snapshot_max_chunk_size: 1 << 20,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        // Without ticks, an idle sole voter sleeps: it is elected once, at the start. `elections`
        // turns the ticks on for all others.
        enable_tick: false,
        ..Default::default()
    };
    let valid = raft.validate().map_err(|error| QuorumError::Failed(error.to_string()))?;
    Ok(Arc::new(valid))
}

pub(super) async fn start(
    config: QuorumConfig,
) -> Result<(Quorum, Image, CommittedStream), QuorumError> {
    let (disk, dir) = (&config.disk, &config.dir);
    let io = |source| QuorumError::Io { path: dir.clone(), source };
    let is_new = disk.list(dir).is_err();
    disk.create_dir_all(dir).map_err(io)?;
    files::write_partition_metadata(&**disk, dir).map_err(io)?;
    let replayed = replay(&config)?;
    if let Some(above) = dir.parent().filter(|_| is_new) {
        disk.sync_dir(above).map_err(io)?;
    }
    let image = replayed.image.clone();
    let (quorum, stream) = assemble(config, replayed)?;
    let inner = &quorum.inner;
    let failure = inner.storage.thread.failure();
    tokio::spawn(elections::watch_disk(Arc::downgrade(inner), failure));
    if !quorum.is_voter() {
        quorum.observe().await?;
        return Ok((quorum, image, stream));
    }
    let is_alone = inner.storage.is_alone();
    let raft = quorum.start_raft().await?;
    if is_alone {
        let failed = |error: openraft::error::Fatal<i32>| QuorumError::Failed(error.to_string());
        raft.trigger().elect().await.map_err(failed)?;
        lead(&raft, &inner.published, image.offset).await?;
        // A sole voter sends no heartbeats, which otherwise call this.
        change::tidy_up(inner, &raft, false);
    }
    Ok((quorum, image, stream))
}

/// Connects the parts of the quorum, with the state that was read from disk. Starts no task.
fn assemble(
    config: QuorumConfig,
    replayed: Replayed,
) -> Result<(Quorum, CommittedStream), QuorumError> {
    let Replayed { image, filter, log, snapshot, applied, known } = replayed;
    let place = (config.disk.clone(), config.dir.clone());
    let published = Arc::new(ArcSwap::from_pointee(image.clone()));
    let (committed, stream) = mpsc::unbounded_channel();
    let enough = Arc::new(Notify::new());
    let progress = Arc::new(watch::channel(image.offset).0);
    let machine = Machine {
        disk: place.0.clone(),
        dir: place.1.clone(),
        image,
        filter,
        applied: applied.map(|(epoch, index)| log_id(epoch, index)),
        membership: membership_at(&known, applied),
        kraft_version: known.kraft_version,
        snapshot,
        published: published.clone(),
        committed: Some(committed),
        progress: progress.clone(),
        growth: Growth {
            since_snapshot: log.written_bytes(),
            snapshot_bytes: config.snapshot_bytes,
            enough: enough.clone(),
        },
    };
    let io = |source| QuorumError::Io { path: config.dir.clone(), source };
    let storage = Storage::new(log, place, config.node_id, known).map_err(io)?;
    let network = Network::new(config.transport.clone(), &config.cluster_id, storage.clone());
    let machine = StateMachine::new(machine, storage.clone());
    let inner = Inner {
        raft: ArcSwapOption::empty(),
        random: Mutex::new(Random::new(config.seed)),
        contact: Mutex::new(LeaderContact::default()),
        candidacy: Candidacy::default(),
        config,
        network,
        storage,
        machine,
        published,
        leadership: watch::channel(Leadership::default()).0,
        enough,
        progress,
        observers: Mutex::default(),
        followed: Mutex::default(),
        observing: watch::channel(false).0,
        observer_task: tokio::sync::Mutex::default(),
        installing: Arc::default(),
        has_no_room: Arc::default(),
        expects_loss: AtomicBool::new(false),
        changing: Arc::default(),
    };
    Ok((Quorum { inner: Arc::new(inner) }, CommittedStream(stream)))
}

/// The voters as of a batch.
fn membership_at(known: &VoterState, applied: Option<(i32, u64)>) -> StoredMembership {
    let applied = applied.map(|(_, index)| index);
    let is_before = |it: &&StoredMembership| it.log_id().map(|log_id| log_id.index) <= applied;
    let found = known.memberships.iter().rev().find(is_before);
    found.unwrap_or(&known.memberships[0]).clone()
}

impl Quorum {
    /// Starts Raft, which makes this node a member of the quorum.
    pub(super) async fn start_raft(&self) -> Result<Raft<TypeConfig>, QuorumError> {
        let inner = &self.inner;
        let (id, config) = (inner.config.node_id, raft_config(&inner.config)?);
        let (storage, machine) = (inner.storage.clone(), inner.machine.clone());
        let raft = Raft::new(id, config, inner.network.clone(), storage, machine).await;
        let raft = raft.map_err(|error| QuorumError::Failed(error.to_string()))?;
        if !inner.storage.is_alone() {
            // Entries that the last process left in the page cache have to become durable to count.
            inner.storage.thread.sync_soon();
        }
        inner.raft.store(Some(Arc::new(raft.clone())));
        elections::spawn(&self.inner, &raft);
        Ok(raft)
    }
}

/// Waits until this node leads and its first batch is committed.
async fn lead(
    raft: &Raft<TypeConfig>,
    published: &ArcSwap<Image>,
    replayed: i64,
) -> Result<(), QuorumError> {
    let mut metrics = raft.metrics();
    let led = async {
        loop {
            let (leads, running) = {
                let metrics = metrics.borrow_and_update();
                (leads(&metrics), metrics.running_state.clone())
            };
            running.map_err(|error| QuorumError::Failed(error.to_string()))?;
            if leads && published.load().offset > replayed {
                return Ok(());
            }
            if metrics.changed().await.is_err() {
                return Err(QuorumError::Failed("it stopped while it started".into()));
            }
        }
    };
    let timed = tokio::time::timeout(Duration::from_secs(30), led).await;
    timed.map_err(|_| QuorumError::Failed("no leader within 30 s".into()))?
}
