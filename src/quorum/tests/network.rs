//! A cluster of quorum nodes in one process: a network that loses, delays and cuts messages, disks
//! that lose unsynced data, and a record of what each node has committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use parking_lot::Mutex;

use super::{
    super::*,
    observers::{Client, endpoint},
    topic,
};
use crate::log::faulty::{Crash, FaultyDisk};

/// The network between the nodes, and what the nodes have published.
pub struct World {
    random: Random,
    up: BTreeMap<i32, (u64, Quorum)>,
    incarnation: u64,
    /// Connections (from, to) that carry no messages.
    pub cut: BTreeSet<(i32, i32)>,
    pub loss_percent: u64,
    pub delay_ms_max: u64,
    /// The batch that ends at an offset. It must be the same on every node, forever.
    committed: BTreeMap<i64, (i32, Vec<MetadataRecord>)>,
    /// The active leader of each epoch.
    leaders: BTreeMap<i32, i32>,
    /// Nodes whose stream has ended.
    pub ended: BTreeSet<i32>,
}

impl World {
    fn roll(&mut self, sides: u64) -> u64 {
        self.random.next_u64() % sides.max(1)
    }

    fn carries(&mut self, from: i32, to: i32) -> bool {
        !self.cut.contains(&(from, to)) && self.roll(100) >= self.loss_percent
    }

    fn delay(&mut self) -> Duration {
        let sides = self.delay_ms_max * 1_000 + 1;
        Duration::from_micros(self.roll(sides))
    }

    pub fn node(&self, id: i32) -> Option<Quorum> {
        self.up.get(&id).map(|it| it.1.clone())
    }

    fn see_batch(&mut self, node: i32, batch: CommittedBatch) {
        // A snapshot is published in place of the batches that it includes.
        if batch.records.is_empty() {
            return;
        }
        let seen = (batch.epoch, batch.records);
        let before = self.committed.entry(batch.last_offset).or_insert_with(|| seen.clone());
        assert_eq!(*before, seen, "node {node} has another batch at {}", batch.last_offset);
    }

    fn see_leader(&mut self, node: i32, leadership: Leadership) {
        if leadership.active {
            let leader = *self.leaders.entry(leadership.epoch).or_insert(node);
            assert_eq!(leader, node, "two leaders in epoch {}", leadership.epoch);
        }
    }
}

/// The transport of one node.
struct Wire {
    world: Arc<Mutex<World>>,
    from: i32,
    incarnation: u64,
}

impl RaftTransport for Wire {
    fn call(
        &self,
        to: Peer,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (world, from, incarnation) = (self.world.clone(), self.from, self.incarnation);
        let exchange = async move {
            let there = {
                let mut world = world.lock();
                let alive = world.up.get(&from).is_some_and(|it| it.0 == incarnation);
                (alive && world.carries(from, to.id)).then(|| world.delay())
            };
            let Some(there) = there else { return std::future::pending().await };
            tokio::time::sleep(there).await;
            let target = world.lock().up.get(&to.id).map(|it| it.1.clone());
            let Some(target) = target else {
                return Err(TransportError::Refused("it is down".into()));
            };
            let answer = target.answer(message).await;
            let back = {
                let mut world = world.lock();
                world.carries(to.id, from).then(|| world.delay())
            };
            let Some(back) = back else { return std::future::pending().await };
            tokio::time::sleep(back).await;
            answer.map_err(|error| TransportError::NoAnswer(error.to_string()))
        };
        Box::pin(async move {
            let late = || TransportError::NoAnswer("timed out".into());
            tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| Err(late()))
        })
    }
}

pub struct Cluster {
    pub world: Arc<Mutex<World>>,
    disks: BTreeMap<i32, FaultyDisk>,
    voters: Vec<i32>,
    /// The bootstrap servers of observers.
    pub bootstrap: Vec<i32>,
    pub snapshot_bytes: u64,
    proposed: u128,
    /// Topics whose creation was acknowledged.
    pub acknowledged: Vec<String>,
}

pub fn dir() -> PathBuf {
    PathBuf::from("/data/__cluster_metadata-0")
}

impl Cluster {
    pub fn new(seed: u64, ids: &[i32]) -> Self {
        let world = World {
            random: Random::new(seed),
            up: BTreeMap::new(),
            incarnation: 0,
            cut: BTreeSet::new(),
            loss_percent: 0,
            delay_ms_max: 2,
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            ended: BTreeSet::new(),
        };
        let disks = ids.iter().map(|id| (*id, FaultyDisk::default())).collect();
        let world = Arc::new(Mutex::new(world));
        let voters = ids.to_vec();
        let bootstrap = ids.to_vec();
        Self {
            world,
            disks,
            voters,
            bootstrap,
            snapshot_bytes: 1 << 20,
            proposed: 0,
            acknowledged: vec![],
        }
    }

    /// Adds an observer, without starting it.
    pub fn add_observer(&mut self, id: i32) {
        self.disks.insert(id, FaultyDisk::default());
    }

    pub async fn started(seed: u64, ids: &[i32]) -> Self {
        let mut cluster = Self::new(seed, ids);
        for id in ids {
            cluster.start(*id).await;
        }
        cluster
    }

    pub fn disk(&self, id: i32) -> FaultyDisk {
        self.disks[&id].clone()
    }

    pub fn roll(&self, sides: u64) -> u64 {
        self.world.lock().roll(sides)
    }

    pub fn ids(&self) -> Vec<i32> {
        self.disks.keys().copied().collect()
    }

    pub fn config(&self, id: i32) -> QuorumConfig {
        let (seed, incarnation) = {
            let mut world = self.world.lock();
            world.incarnation += 1;
            (world.random.next_u64(), world.incarnation)
        };
        let voter = |&id: &i32| Voter::new(id, uuid::Uuid::nil(), endpoint(id));
        QuorumConfig {
            cluster_id: "c".into(),
            disk: Arc::new(self.disks[&id].clone()),
            voters: self.voters.iter().map(voter).collect(),
            observe: Some(Observe {
                client: Arc::new(Client(self.world.clone())),
                bootstrap: self.bootstrap.iter().map(|id| endpoint(*id)).collect(),
                directory_id: uuid::Uuid::from_u128(id as u128),
            }),
            transport: Arc::new(Wire { world: self.world.clone(), from: id, incarnation }),
            snapshot_bytes: self.snapshot_bytes,
            seed,
            ..QuorumConfig::alone(id, dir())
        }
    }

    pub async fn start(&mut self, id: i32) {
        let config = self.config(id);
        let (quorum, _, mut stream) = Quorum::start(config).await.expect("starts");
        let (world, mut leadership) = (self.world.clone(), quorum.leadership());
        {
            let mut world = world.lock();
            let incarnation = world.incarnation;
            world.up.insert(id, (incarnation, quorum));
        }
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    batch = stream.next() => match batch {
                        Some(batch) => world.lock().see_batch(id, batch),
                        None => {
                            world.lock().ended.insert(id);
                            return;
                        }
                    },
                    changed = leadership.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let now = *leadership.borrow_and_update();
                        world.lock().see_leader(id, now);
                    }
                }
            }
        });
    }

    /// Ends a node at once. Nothing that it does from now on reaches its disk or other nodes.
    pub async fn crash(&mut self, id: i32, crash: Crash) {
        let Some((_, quorum)) = self.world.lock().up.remove(&id) else { return };
        let after = self.disks[&id].crash(crash);
        self.disks.insert(id, after);
        let _ = quorum.stop().await;
    }

    pub fn node(&self, id: i32) -> Quorum {
        self.world.lock().up[&id].1.clone()
    }

    /// The state of the quorum on every node, for messages of failed assertions.
    pub fn states(&self) -> Vec<String> {
        let state = |id: &i32| {
            let node = self.node(*id);
            let metrics = node.raft().map(|raft| raft.metrics().borrow().to_string());
            format!("{id}: {:?} {metrics:?}", *node.leadership().borrow())
        };
        self.up().iter().map(state).collect()
    }

    pub fn up(&self) -> Vec<i32> {
        self.world.lock().up.keys().copied().collect()
    }

    /// Cuts a node off, in one direction or both.
    pub fn cut(&self, id: i32, others_too: bool) {
        let ids = self.ids();
        let mut world = self.world.lock();
        for other in ids.into_iter().filter(|other| *other != id) {
            world.cut.insert((id, other));
            if others_too {
                world.cut.insert((other, id));
            }
        }
    }

    pub fn heal(&self) {
        let mut world = self.world.lock();
        world.cut.clear();
        world.loss_percent = 0;
    }

    /// The active leader and its epoch, or `None` if there is none within the time.
    pub async fn leader(&self, within: Duration) -> Option<(i32, i32)> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let nodes: Vec<_> = {
                let world = self.world.lock();
                world.up.iter().map(|(id, (_, quorum))| (*id, quorum.clone())).collect()
            };
            let leaderships = nodes.iter().map(|(id, it)| (*id, *it.leadership().borrow()));
            let newest = leaderships.filter(|it| it.1.active).max_by_key(|it| it.1.epoch);
            if let Some((id, leadership)) = newest {
                return Some((id, leadership.epoch));
            }
            if tokio::time::Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Creates a topic on the active leader. Returns whether that was acknowledged.
    pub async fn propose(&mut self) -> bool {
        let Some((leader, epoch)) = self.leader(Duration::from_secs(5)).await else {
            return false;
        };
        self.proposed += 1;
        let name = format!("t{}", self.proposed);
        let record = crate::metadata::records::TopicRecord {
            name: name.clone(),
            topic_id: uuid::Uuid::from_u128(1_000 + self.proposed),
        };
        let node = self.node(leader);
        let proposal = node.propose(epoch, vec![record.into()]);
        let outcome = tokio::time::timeout(Duration::from_secs(3), proposal).await;
        let acknowledged = matches!(outcome, Ok(Ok(_)));
        if acknowledged {
            self.acknowledged.push(name);
        }
        acknowledged
    }

    /// Cuts a follower off and commits 100 batches without it. Returns the leader and the follower.
    pub async fn leave_one_behind(&mut self) -> (i32, i32) {
        assert!(self.propose().await);
        let (leader, _) = self.leader(Duration::from_secs(5)).await.expect("a leader");
        let lagging = self.ids().into_iter().find(|id| *id != leader).unwrap();
        self.cut(lagging, true);
        for _ in 0..100 {
            assert!(self.propose().await);
        }
        (leader, lagging)
    }

    /// Heals the network, waits until all nodes have committed the same, and compares all logs.
    pub async fn settle(&mut self) {
        self.heal();
        for _ in 0..20 {
            if self.propose().await {
                break;
            }
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let ends: BTreeSet<i64> =
                self.up().iter().map(|id| self.node(*id).image().offset).collect();
            if ends.len() == 1 {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{ends:?} {:?}", self.states());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let images: Vec<_> = self.up().iter().map(|id| self.node(*id).image()).collect();
        for image in &images {
            assert_eq!(image.records(), images[0].records());
            for name in &self.acknowledged {
                assert!(image.topic(name).is_some(), "{name} was acknowledged and is lost");
            }
        }
        self.compare_logs();
    }

    fn compare_logs(&self) {
        let nodes: Vec<_> = self.up().iter().map(|id| self.node(*id)).collect();
        for node in &nodes {
            for other in &nodes {
                let (log, theirs) = (node.inner.storage.log(), {
                    if Arc::ptr_eq(&node.inner, &other.inner) {
                        continue;
                    }
                    other.inner.storage.log()
                });
                let from = log.first_index().max(theirs.first_index());
                for index in from..log.next_index().min(theirs.next_index()) {
                    assert_eq!(log.read(index).unwrap(), theirs.read(index).unwrap());
                }
            }
        }
    }
}

/// Records for a batch of some size.
pub fn records(count: usize) -> Vec<MetadataRecord> {
    (0..count).map(|at| topic(&"x".repeat(at + 1))).collect()
}
