//! Starting: newest snapshot, then the log after it, then an election.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use openraft::{Membership, Raft, ServerState, StoredMembership};
use tokio::sync::mpsc;

use super::{
    CommittedStream, Quorum, QuorumError,
    checkpoint::{Checkpoint, SnapshotId},
    files,
    format::{self, Contents},
    log::{Base, MetadataLog},
    network::NoPeers,
    state_machine::{StateMachine, apply},
    storage::Storage,
    types::log_id,
};
use crate::metadata::{Image, TransactionFilter};

#[derive(Debug, Clone)]
pub struct QuorumConfig {
    pub node_id: i32,
    /// `__cluster_metadata-0` in the metadata log directory; created if it is not there.
    pub dir: PathBuf,
    /// All voters, this node among them.
    pub voters: Vec<i32>,
    /// A snapshot is written when the log has grown by this many bytes
    /// (`metadata.log.max.record.bytes.between.snapshots`).
    pub snapshot_bytes: u64,
}

impl QuorumConfig {
    /// A quorum of one. Its snapshots come more often than Kafka's, since each start with 10,000
    /// partitions adds as many changes of leader epochs for the next to read.
    pub fn alone(node_id: i32, dir: PathBuf) -> Self {
        Self { node_id, dir, voters: vec![node_id], snapshot_bytes: 4 << 20 }
    }
}

/// What was found on disk.
struct Replayed {
    image: Image,
    filter: TransactionFilter,
    log: MetadataLog,
    snapshot: Option<(SnapshotId, u64)>,
}

fn replay(dir: &Path, roll_bytes: u64) -> Result<Replayed, QuorumError> {
    let io = |source| QuorumError::Io { path: dir.to_owned(), source };
    let (mut image, mut filter) = (Image::default(), TransactionFilter::default());
    let mut base = Base::default();
    let mut snapshot = None;
    if let Some(id) = SnapshotId::newest(dir).map_err(io)? {
        let checkpoint = Checkpoint::read(&id.path(dir))?;
        apply(&mut image, &mut filter, &checkpoint.records);
        image.offset = id.end_offset - 1;
        image.epoch = id.epoch;
        image.timestamp_ms = checkpoint.timestamp_ms;
        base = id.base(&checkpoint);
        snapshot = Some((id, base.index - 1));
    }
    let log = MetadataLog::open(dir, base, roll_bytes, |batch| {
        if let Contents::Records(records) = format::decode(batch)? {
            apply(&mut image, &mut filter, &records);
            image.timestamp_ms = batch.header.max_timestamp;
        }
        image.offset = batch.header.last_offset();
        image.epoch = batch.header.leader_epoch;
        Ok(())
    })?;
    Ok(Replayed { image, filter, log, snapshot })
}

fn raft_config(config: &QuorumConfig) -> Result<Arc<openraft::Config>, QuorumError> {
    let raft = openraft::Config {
        cluster_name: "__cluster_metadata".into(),
        heartbeat_interval: 500,
        election_timeout_min: 1_000,
        election_timeout_max: 2_000,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        // A sole voter is elected once, at start; it needs no clock, and so it sleeps when idle.
        enable_tick: config.voters.len() > 1,
        ..Default::default()
    };
    let valid = raft.validate().map_err(|error| QuorumError::Failed(error.to_string()))?;
    Ok(Arc::new(valid))
}

pub(super) async fn start(
    config: QuorumConfig,
) -> Result<(Quorum, Image, CommittedStream), QuorumError> {
    if !config.voters.contains(&config.node_id) {
        return Err(QuorumError::NotAVoter(config.node_id));
    }
    if config.voters.len() > 1 {
        return Err(QuorumError::TooManyVoters(config.voters.len()));
    }
    let dir = &config.dir;
    let io = |source| QuorumError::Io { path: dir.clone(), source };
    std::fs::create_dir_all(dir).map_err(io)?;
    files::write_partition_metadata(dir).map_err(io)?;
    let Replayed { image, filter, log, snapshot } = replay(dir, config.snapshot_bytes / 2)?;
    let applied = log.next_index().checked_sub(1).map(|at| log_id(log.last_epoch(), at));
    let voters: BTreeSet<i32> = config.voters.iter().copied().collect();
    let membership = Membership::new(vec![voters.clone()], voters);
    let published = Arc::new(ArcSwap::from_pointee(image.clone()));
    let (committed, stream) = mpsc::unbounded_channel();
    let machine = StateMachine {
        dir: dir.clone(),
        image: image.clone(),
        filter,
        applied,
        // The voters are configured, as with `controller.quorum.voters`, and not in the log.
        membership: StoredMembership::new(None, membership),
        snapshot,
        published: published.clone(),
        committed,
    };
    let snapshot_at = Arc::new(AtomicU64::new(0));
    let storage = Storage::new(log, dir.clone(), config.node_id, config.voters.as_slice().into());
    let failed = |error: &dyn std::fmt::Display| QuorumError::Failed(error.to_string());
    let raft = raft_config(&config)?;
    let raft = Raft::new(config.node_id, raft, NoPeers, storage.clone(), machine).await;
    let raft = raft.map_err(|error| failed(&error))?;
    raft.trigger().elect().await.map_err(|error| failed(&error))?;
    lead(&raft, &published, image.offset).await?;
    let quorum = Quorum { raft, storage, published, config: Arc::new(config), snapshot_at };
    Ok((quorum, image, CommittedStream(stream)))
}

/// Waits until this node leads and its first batch is committed.
async fn lead(
    raft: &Raft<super::types::TypeConfig>,
    published: &ArcSwap<Image>,
    replayed: i64,
) -> Result<(), QuorumError> {
    let mut metrics = raft.metrics();
    let led = async {
        loop {
            let (state, running) = {
                let metrics = metrics.borrow_and_update();
                (metrics.state, metrics.running_state.clone())
            };
            running.map_err(|error| QuorumError::Failed(error.to_string()))?;
            if state == ServerState::Leader && published.load().offset > replayed {
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
