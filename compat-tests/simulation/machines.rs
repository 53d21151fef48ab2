//! All machines of a simulation on one thread, and the scheduler that gives each one its turns.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use sordini::{
    base::config::Properties, broker::Broker, coordinator::group::partition_for, metadata::Image,
};

use crate::{
    network::SimNetwork,
    node::{BROKER_PORT, CONTROLLER_PORT, Clock, EPOCH_MS, Node, Process},
    random::Rng,
    wire::{Link, MachineId, Power, SharedWire},
};

/// Nodes 1 to `VOTERS` are voters. A simulation has at least as many nodes.
pub const VOTERS: i32 = 3;
/// The number of partitions of `__consumer_offsets`.
pub const OFFSETS_PARTITIONS: i32 = 2;
/// The number of partitions of `__transaction_state`.
pub const TRANSACTIONS_PARTITIONS: i32 = 2;
/// The names of the log directories of each node.
const LOG_DIRS: [&str; 2] = ["node", "more"];
/// Microseconds between two turns of a machine.
pub const TICK_US: u64 = 1_000;

/// The machines, one for each node and one for all clients, and the network between them.
pub struct Machines {
    pub wire: SharedWire,
    pub nodes: Vec<Node>,
    /// The process of all clients, on a machine of its own.
    pub clients: Process,
    pub rng: Rng,
    pub has_joining_voters: bool,
}

/// How the nodes are set up.
#[derive(Clone, Copy)]
pub struct Setup {
    pub nodes: usize,
    pub lag_max_ms: u64,
    /// Whether the first node bootstraps the quorum alone and the other controllers auto-join.
    pub has_joining_voters: bool,
}

/// The panics in this process, with place and message.
static PANICKED: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub fn panics() -> Vec<String> {
    std::mem::take(&mut *PANICKED.lock())
}

fn note_panics() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let what = format!("{place}: {}", info.payload_as_str().unwrap_or("?"));
            PANICKED.lock().push(what);
            previous(info);
        }));
    });
}

impl Machines {
    pub fn new(setup: Setup, seed: u64) -> Self {
        note_panics();
        let nodes = setup.nodes;
        let mut rng = Rng::new(seed);
        let wire = SharedWire::new(nodes + 1, Rng::new(rng.next()));
        let new_node = |machine: MachineId| {
            // Clocks have different offsets and rates.
            let offset_ms = rng.between(0, 2_000) as i64;
            let clock = Clock::new(offset_ms, rng.between(970, 1_030));
            Node::new(machine, wire.clone(), clock, properties(machine as i32 + 1, setup))
        };
        let nodes: Vec<_> = (0..nodes).map(new_node).collect();
        wire.lock().power[nodes.len()] = Power::Running;
        let clients = Process::new(rng.next(), 0);
        let has_joining_voters = setup.has_joining_voters;
        Self { wire, nodes, clients, rng, has_joining_voters }
    }

    pub fn now_us(&self) -> u64 {
        self.wire.lock().now_us
    }

    pub fn client_network(&self) -> SimNetwork {
        SimNetwork { wire: self.wire.clone(), machine: self.nodes.len() }
    }

    pub fn record(&self, what: std::fmt::Arguments<'_>) {
        self.wire.lock().record(what);
    }

    /// Sets the longest delay of packets on all links.
    pub fn slow_down(&self, delay_us: u64) {
        for link in self.wire.lock().links.iter_mut().flatten() {
            link.delay_us.1 = delay_us;
        }
    }

    /// Whether a node is not started, is paused, has a slow disk, or has a link that is cut or
    /// breaks connections.
    pub fn is_disturbed(&self, machine: MachineId) -> bool {
        let node = &self.nodes[machine];
        let links = &self.wire.lock().links;
        let is_bad = |link: &Link| link.is_cut || link.breaks_one_in > 0;
        !node.is_started()
            || node.is_paused
            || node.has_slow_disk
            || links[machine].iter().any(is_bad)
            || links.iter().any(|from| is_bad(&from[machine]))
    }

    /// Cuts a machine off from all others, or connects it again.
    pub fn set_cut(&self, machine: MachineId, is_cut: bool) {
        let links = &mut self.wire.lock().links;
        links[machine].iter_mut().for_each(|to| to.is_cut = is_cut);
        links.iter_mut().for_each(|from| from[machine].is_cut = is_cut);
    }

    /// Cuts a machine off from the other nodes, or connects it again. Clients still reach it.
    pub fn set_isolated(&self, machine: MachineId, is_isolated: bool) {
        let links = &mut self.wire.lock().links;
        for other in (0..self.nodes.len()).filter(|other| *other != machine) {
            links[machine][other].is_cut = is_isolated;
            links[other][machine].is_cut = is_isolated;
        }
    }

    /// Gives each machine one turn. A random machine begins.
    pub fn tick(&mut self) {
        self.wire.lock().now_us += TICK_US;
        let now_us = self.now_us();
        let count = self.nodes.len();
        let first = self.rng.next() as usize % (count + 1);
        for at in 0..=count {
            match (first + at) % (count + 1) {
                machine if machine == count => self.turn_of_clients(now_us),
                machine => self.nodes[machine].turn(now_us),
            }
        }
    }

    /// The leader of the quorum and its epoch, if all running nodes agree on them.
    pub fn quorum_leader(&self) -> Option<(i32, i32)> {
        let leaderships = self.nodes.iter().filter_map(Node::broker);
        let mut known = leaderships.map(|broker| *broker.quorum.leadership().borrow());
        let first = known.next()?;
        let first = (first.leader?, first.epoch);
        known.all(|it| (it.leader, it.epoch) == (Some(first.0), first.1)).then_some(first)
    }

    /// Brokers that are fenced in the metadata image of at least one node.
    pub fn fenced_brokers(&self) -> BTreeSet<i32> {
        let images = self.nodes.iter().filter_map(Node::broker).map(|broker| broker.metadata());
        let fenced = |image: Arc<Image>| -> Vec<i32> {
            image.brokers.values().filter(|it| it.fenced).map(|it| it.broker_id).collect()
        };
        images.flat_map(fenced).collect()
    }

    /// Whether, in the metadata image of every node, each partition has a leader and all its
    /// replicas are in the ISR.
    pub fn is_in_sync(&self) -> bool {
        let is_in_sync = |node: &Node| {
            // The image of a node that is still starting may be old.
            let Some(broker) = node.broker().filter(|_| node.is_started()) else { return false };
            let image = broker.metadata();
            let mut partitions = image.topics.iter().flat_map(|topic| topic.partitions.iter());
            partitions.all(|it| it.leader >= 0 && it.isr.len() == it.replicas.len())
        };
        self.nodes.iter().all(is_in_sync)
    }

    /// Whether all controllers are voters. True at once if they do not auto-join.
    pub fn has_all_voters(&self) -> bool {
        let has_all = |broker: &Arc<Broker>| {
            let voters = voters(broker);
            (1..=VOTERS).all(|id| voters.contains(&id))
        };
        !self.has_joining_voters || self.nodes.iter().filter_map(Node::broker).all(has_all)
    }

    /// The newest metadata image that a node has applied.
    pub fn newest_image(&self) -> Option<Arc<Image>> {
        let images = self.nodes.iter().filter_map(Node::broker).map(|broker| broker.metadata());
        images.max_by_key(|image| image.offset)
    }

    /// Metadata and quorum as each node knows them, as text for the report of a failure.
    pub fn state(&self) -> String {
        let mut state = String::new();
        for node in &self.nodes {
            let Some(broker) = node.broker() else {
                let _ = write!(state, "\nn{}: no broker; {:?}", node.id, node.start_failure());
                continue;
            };
            let image = broker.metadata();
            let leader = broker.quorum.leadership().borrow().leader;
            let started = node.is_started();
            let _ = write!(
                state,
                "\nn{}: started {started}, offset {}, controller {leader:?} of {:?}",
                node.id,
                image.offset,
                voters(broker)
            );
            for topic in image.topics.iter() {
                for (index, it) in topic.partitions.iter().enumerate() {
                    let _ = write!(
                        state,
                        "\n    {}-{index}: leader {} in {}, isr {:?} of {:?}",
                        topic.name, it.leader, it.leader_epoch, it.isr, it.replicas
                    );
                }
            }
        }
        state
    }

    fn turn_of_clients(&mut self, now_us: u64) {
        drop(self.wire.lock().deliver(self.nodes.len(), false));
        self.clients.run(client_time_ms(now_us), TICK_US / 1_000);
    }
}

/// The log directories of a node. The first one has the metadata log.
pub fn log_dirs(node: i32) -> [String; 2] {
    LOG_DIRS.map(|name| format!("/sim/{name}{node}"))
}

/// The partition of `__transaction_state` that stores a transactional id.
pub fn transaction_partition(id: &str) -> i32 {
    partition_for(id, TRANSACTIONS_PARTITIONS)
}

/// The voters that a node knows.
fn voters(broker: &Broker) -> Vec<i32> {
    broker.quorum.status().voters.iter().map(|it| it.replica_id).collect()
}

fn client_time_ms(now_us: u64) -> i64 {
    EPOCH_MS + (now_us / 1_000) as i64
}

/// The properties of a node. Timeouts are short, so that much happens in little time.
fn properties(id: i32, setup: Setup) -> Properties {
    let addresses = (1..=VOTERS).map(|id| format!("n{id}:{CONTROLLER_PORT}"));
    let (quorum, controllers): (_, Vec<_>) = match setup.has_joining_voters {
        true => ("controller.quorum.bootstrap.servers", addresses.collect()),
        false => {
            let voters = addresses.zip(1..).map(|(address, id)| format!("{id}@{address}"));
            ("controller.quorum.voters", voters.collect())
        }
    };
    let broker = format!("PLAINTEXT://n{id}:{BROKER_PORT}");
    let (roles, listeners) = match id <= VOTERS {
        true => ("broker,controller", format!("{broker},CONTROLLER://n{id}:{CONTROLLER_PORT}")),
        false => ("broker", broker),
    };
    let own: [(&str, String); 10] = [
        ("node.id", id.to_string()),
        ("process.roles", roles.to_owned()),
        ("listeners", listeners),
        ("advertised.listeners", format!("PLAINTEXT://n{id}:{BROKER_PORT}")),
        (quorum, controllers.join(",")),
        ("controller.quorum.auto.join.enable", setup.has_joining_voters.to_string()),
        ("log.dirs", log_dirs(id).join(",")),
        ("replica.lag.time.max.ms", setup.lag_max_ms.to_string()),
        ("offsets.topic.num.partitions", OFFSETS_PARTITIONS.to_string()),
        ("transaction.state.log.num.partitions", TRANSACTIONS_PARTITIONS.to_string()),
    ];
    let shared = [
        ("controller.listener.names", "CONTROLLER"),
        ("http.listener", "none"),
        ("num.recovery.threads.per.data.dir", "1"),
        ("controller.quorum.election.timeout.ms", "500"),
        ("controller.quorum.fetch.timeout.ms", "1000"),
        ("broker.heartbeat.interval.ms", "300"),
        ("broker.session.timeout.ms", "2000"),
        ("replica.fetch.wait.max.ms", "200"),
        ("replica.fetch.backoff.ms", "100"),
        ("replica.socket.timeout.ms", "2000"),
        ("replica.high.watermark.checkpoint.interval.ms", "500"),
        ("log.flush.offset.checkpoint.interval.ms", "1000"),
        ("request.timeout.ms", "3000"),
        ("default.replication.factor", "3"),
        ("min.insync.replicas", "2"),
        ("offsets.topic.replication.factor", "3"),
        ("transaction.state.log.replication.factor", "3"),
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "300"),
        ("share.coordinator.state.topic.replication.factor", "3"),
        ("group.min.session.timeout.ms", "500"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("group.consumer.min.session.timeout.ms", "500"),
        ("group.consumer.session.timeout.ms", "2000"),
        ("group.consumer.min.heartbeat.interval.ms", "100"),
        ("group.consumer.heartbeat.interval.ms", "300"),
        ("group.consumer.assignment.interval.ms", "500"),
        ("unclean.leader.election.enable", "false"),
        ("log.roll.ms", "4000"),
        ("log.retention.ms", "-1"),
        ("log.cleaner.backoff.ms", "1000"),
        ("log.cleaner.min.cleanable.ratio", "0.1"),
        // So slow that faults happen during rounds.
        ("log.cleaner.io.max.bytes.per.second", "10000"),
        ("leader.imbalance.check.interval.seconds", "5"),
    ];
    let shared = shared.map(|(name, value)| (name.to_owned(), value.to_owned()));
    own.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(shared).collect()
}
