//! One run: nodes and their clients under faults for a while. After the last fault, all nodes must
//! recover and every client must make progress again.

use std::collections::BTreeMap;

use sordini::log::faulty::Crash;

use crate::{
    admin::{self, TOPICS},
    check::Checks,
    client::Client,
    committed_reads, consume, consumers, coordinator_probe,
    faults::Faults,
    history::{SharedHistory, TimedOut, Unanswered},
    machines::{Machines, Setup, VOTERS, panics},
    members,
    node::{EPOCH_MS, Node},
    pipelined,
    points::{Point, Watch},
    produce,
    random::Rng,
    transaction_requests::Versions,
    transactional,
    wire::DELAY_US,
};

const NODES: usize = 3;
/// One seed in five has two more nodes, which are brokers only.
const LARGE_ONE_IN: u64 = 5;
const NODES_LARGE: usize = 5;
/// No fault before this time.
const CALM_MS: u64 = 3_000;
const FAULTS_MS: u64 = 20_000;
/// All nodes must recover within this time after the last fault.
const RECOVERY_MS: u64 = 30_000;
/// After that, every client must make progress within this time. A broker that asks another one
/// over a connection that was lost without notice waits `request.timeout.ms` and five seconds more.
const PROGRESS_MS: u64 = 12_000;
/// After that, consumer groups must converge within this time. A regular expression is resolved once
/// in ten seconds.
const SETTLE_MS: u64 = 15_000;
/// One seed in three has one fault at a time.
const IN_TURN_ONE_IN: u64 = 3;
/// Of these, one in two has its faults at named points of transactions.
const AT_POINTS_ONE_IN: u64 = 2 * IN_TURN_ONE_IN;
/// If no transaction reaches a named point within this time, because one node leads too many
/// partitions, another point is chosen.
const POINT_MS: u64 = 5_000;
/// Number of points that are tried for one fault.
const POINTS_MAX: u64 = 8;
/// Number of faults in such a run.
const TURNS: u64 = 6;
/// Of the other seeds, one in four has a quorum that voters leave and join.
const JOINING_ONE_IN: u64 = 4;
/// Of the other seeds, one in eight has slow disks instead of several faults at a time, and one in
/// eight has a quorum leader with a slow disk while another voter is down.
const SLOW_ONE_IN: u64 = 8;
/// Of eleven seeds, those with a larger remainder than this have members of consumer groups.
const WITHOUT_CONSUMERS_MAX: u64 = 6;
/// Every client must make progress within this time while only one node is gone.
const FAILOVER_MS: u64 = 10_000;
/// Transaction coordinators must serve on other nodes within this time after the process of a node
/// ends, after the process of the active controller ends (the quorum elects another one first), and
/// after any other fault of a node.
const COORDINATORS_MS: u64 = 2_000;
const COORDINATORS_AFTER_ELECTION_MS: u64 = 5_000;
const COORDINATORS_OTHER_MS: u64 = 10_000;
/// A node that was undisturbed for this long has no excuse for a timeout.
const UNDISTURBED_MS: u64 = 5_000;
/// The longest time of one operation of a slow disk.
const SLOW_OPERATION_MS: u64 = 10_000;
/// Requests in flight when a node fails may still be answered for this long.
const UNDER_WAY_MS: u64 = 500;

/// The read-process-write workers by transactional id.
const WORKERS: [(&str, Versions); 2] =
    [("transactional-1", Versions::FIRST), ("transactional-2", Versions::SECOND)];

/// The result of one run.
pub struct Outcome {
    pub hash: u64,
    pub wrong: Option<String>,
    pub summary: String,
    /// The end of the trace.
    pub last: Vec<String>,
}

/// What happens to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NodeFault {
    /// Its process ends.
    Killed,
    /// Its machine loses power, and what its disk has not synced.
    LosesPower,
    Paused,
    /// Its links to all other machines are cut.
    Cut,
    /// Its links to other nodes are cut. Clients still reach it, and may get stale responses.
    Isolated,
}

struct Run {
    machines: Machines,
    checks: Checks,
    faults: Faults,
    history: SharedHistory,
    may_fault: bool,
    /// When each machine or one of its links was last disturbed, in milliseconds.
    disturbed_ms: Vec<u64>,
}

/// Runs one seed to its end or to the first violation of an invariant.
pub fn run(seed: u64) -> Outcome {
    let is_in_turn = seed.is_multiple_of(IN_TURN_ONE_IN);
    // With one fault at a time, a leader must not depend on a short lag limit to make progress.
    let lag_max_ms = if is_in_turn { 30_000 } else { 1_500 };
    let nodes = if seed.is_multiple_of(LARGE_ONE_IN) { NODES_LARGE } else { NODES };
    let has_joining_voters = !is_in_turn && seed % JOINING_ONE_IN == 2;
    let mut machines = Machines::new(Setup { nodes, lag_max_ms, has_joining_voters }, seed);
    let history = SharedHistory::default();
    let faults = Faults::new(machines.rng.next(), CALM_MS);
    for node in &mut machines.nodes {
        node.start();
    }
    let has_consumers = seed % 11 > WITHOUT_CONSUMERS_MAX;
    spawn_clients(&mut machines, &history, has_consumers);
    let checks = Checks::default();
    let mut run =
        Run { machines, checks, faults, history, may_fault: true, disturbed_ms: vec![0; nodes] };
    let wrong = match seed % SLOW_ONE_IN {
        _ if seed.is_multiple_of(AT_POINTS_ONE_IN) => run.faults_at_points(),
        _ if is_in_turn => run.one_fault_at_a_time(),
        4 => run.slow_disks(),
        7 => run.slow_leader_and_lost_voter(),
        _ => run.several_faults(),
    };
    let wrong = wrong.err();
    run.outcome(wrong)
}

fn spawn_clients(machines: &mut Machines, history: &SharedHistory, has_consumers: bool) {
    let has_joining_voters = machines.has_joining_voters;
    let nodes = machines.nodes.len();
    let mut clients = Vec::new();
    let mut client = |name: String| {
        let seed = machines.rng.next();
        history.lock().progress.insert(name.clone(), 0);
        let network = machines.client_network();
        Client::new(name, network, nodes, seed, history.clone())
    };
    let admin = client("admin".to_owned());
    for (topic, partitions) in TOPICS {
        for partition in 0..partitions {
            let place = (topic.to_owned(), partition);
            let name = |what| format!("{what}-{topic}-{partition}");
            clients.push((place.clone(), client(name("plain"))));
        }
    }
    let readers: Vec<_> = clients
        .iter()
        .map(|(place, _)| (place.clone(), client(format!("reader-{}-{}", place.0, place.1))))
        .collect();
    let committed_readers: Vec<_> = clients
        .iter()
        .map(|(place, _)| (place.clone(), client(format!("committed-{}-{}", place.0, place.1))))
        .collect();
    let workers = WORKERS.map(|(name, versions)| (client(name.to_owned()), versions));
    let idempotent = TOPICS.map(|(topic, _)| (client(format!("idempotent-{topic}")), topic));
    let group = client("group".to_owned());
    let members = ["member-a", "member-b"].map(|name| client(name.to_owned()));
    history.lock().progress.insert("members".to_owned(), 0);
    let roles = consumers::roles().into_iter().filter(|_| has_consumers);
    let consumers: Vec<_> = roles.map(|role| (client(role.name.to_owned()), role)).collect();
    let growing = has_consumers.then(|| client("admin".to_owned()));
    for (_, role) in &consumers {
        history.lock().progress.insert(role.settings.group.to_owned(), 0);
    }
    machines.clients.enter(0, |runtime| {
        runtime.spawn(admin::run(admin, nodes as i32, has_joining_voters));
        for (place, plain) in clients {
            runtime.spawn(produce::run(plain, place));
        }
        for (producer, topic) in idempotent {
            runtime.spawn(pipelined::run(producer, topic.to_owned()));
        }
        for (place, reader) in readers {
            runtime.spawn(consume::read(reader, place));
        }
        for (place, reader) in committed_readers {
            runtime.spawn(committed_reads::read(reader, place));
        }
        for (worker, versions) in workers {
            runtime.spawn(transactional::run(worker, versions));
        }
        runtime.spawn(consume::commit(group, ("first".to_owned(), 0)));
        for member in members {
            let topic = ("first".to_owned(), 2);
            runtime.spawn(members::run(member, "members".to_owned(), topic));
        }
        if let Some(client) = growing {
            runtime.spawn(consumers::grow(client));
        }
        for (client, role) in consumers {
            runtime.spawn(consumers::run(client, role));
        }
    });
}

impl Run {
    fn several_faults(&mut self) -> Result<(), String> {
        self.until_ms(CALM_MS + FAULTS_MS)?;
        self.may_fault = false;
        self.until_recovered()?;
        self.all_make_progress()
    }

    /// Disk operations of one node or of all take seconds. The quorum must keep its leader and no
    /// broker may be fenced, because all nodes still respond.
    fn slow_disks(&mut self) -> Result<(), String> {
        self.until_ms(CALM_MS)?;
        self.may_fault = false;
        self.until_recovered()?;
        let mut rng = Rng::new(self.machines.rng.next());
        let count = self.machines.nodes.len() as u64;
        // Either all nodes or a random one.
        let one = rng.one_in(2).then(|| rng.between(0, count - 1) as usize);
        let slow: Vec<_> = one.map_or((0..count as usize).collect(), |one| vec![one]);
        self.set_slow_disks(&slow, true);
        self.keep_leader(FAULTS_MS, None)?;
        self.end_slow_disks(&slow)?;
        self.until_recovered()?;
        self.all_make_progress()
    }

    /// Disk operations of the quorum's leader take seconds and another voter is down. The leader
    /// must stay, because a majority still responds to it.
    fn slow_leader_and_lost_voter(&mut self) -> Result<(), String> {
        self.until_ms(CALM_MS)?;
        self.may_fault = false;
        self.until_recovered()?;
        let mut rng = Rng::new(self.machines.rng.next());
        let Some((leader, _)) = self.machines.quorum_leader() else {
            return Err("the quorum has no leader after calm".to_owned());
        };
        let slow = leader as usize - 1;
        let lost = (slow + rng.between(1, VOTERS as u64 - 1) as usize) % VOTERS as usize;
        self.set_slow_disks(&[slow], true);
        self.keep_leader(rng.between(0, 3_000), None)?;
        self.machines.record(format_args!("n{} fails", lost + 1));
        self.machines.nodes[lost].crash(Crash::Process);
        self.keep_leader(FAULTS_MS, Some(lost as i32 + 1))?;
        self.machines.nodes[lost].start();
        self.end_slow_disks(&[slow])?;
        self.until_recovered()?;
        self.all_make_progress()
    }

    fn set_slow_disks(&mut self, machines: &[usize], are_slow: bool) {
        self.machines.record(format_args!("the disks of {machines:?} are slow: {are_slow}"));
        for machine in machines {
            self.machines.nodes[*machine].set_slow_disk(are_slow);
        }
    }

    /// Makes the disks fast, and runs until the last operation that began before is complete. Until
    /// then, a broker may still wait for it before it leads a partition or loads a coordinator.
    fn end_slow_disks(&mut self, machines: &[usize]) -> Result<(), String> {
        self.set_slow_disks(machines, false);
        self.until_ms(self.now_ms() + SLOW_OPERATION_MS)
    }

    /// Runs for `ms`. It is an error if the quorum's leader changes or a broker other than `lost`
    /// is fenced.
    fn keep_leader(&mut self, ms: u64, lost: Option<i32>) -> Result<(), String> {
        let leader = self.machines.quorum_leader();
        let until_ms = self.now_ms() + ms;
        while self.now_ms() < until_ms {
            self.step()?;
            let now = self.machines.quorum_leader();
            if now != leader {
                return Err(format!("slow disks: the quorum is led by {now:?} after {leader:?}"));
            }
            let mut fenced = self.machines.fenced_brokers();
            fenced.retain(|broker| Some(*broker) != lost);
            if !fenced.is_empty() {
                return Err(format!("slow disks: brokers {fenced:?} are fenced"));
            }
        }
        Ok(())
    }

    /// Lets one node fail at a time. The others suffice to continue.
    fn one_fault_at_a_time(&mut self) -> Result<(), String> {
        let mut rng = self.begin_turns()?;
        let first = rng.next() % self.machines.nodes.len() as u64;
        for turn in 0..TURNS {
            self.until_recovered()?;
            // Sometimes leaders change just after all nodes have recovered.
            if rng.one_in(2) {
                self.elect_preferred();
            }
            let rest_max_ms = [0, 50, 2_000][rng.between(0, 2) as usize];
            self.until_ms(self.now_ms() + rng.between(0, rest_max_ms))?;
            let machine = (first + turn) as usize % self.machines.nodes.len();
            let how = match rng.between(0, 9) {
                0..=5 => NodeFault::Killed,
                6 => NodeFault::LosesPower,
                7 => NodeFault::Paused,
                _ => NodeFault::Cut,
            };
            self.fail_node(machine, how, &mut rng)?;
        }
        self.until_recovered()?;
        self.all_make_progress()
    }

    /// Lets one node fail at a time, each at a named point of a transaction.
    fn faults_at_points(&mut self) -> Result<(), String> {
        let mut rng = self.begin_turns()?;
        for _ in 0..TURNS {
            self.until_recovered()?;
            self.elect_preferred();
            let how = [NodeFault::Killed, NodeFault::Paused, NodeFault::Cut, NodeFault::Isolated];
            let how = how[rng.between(0, how.len() as u64 - 1) as usize];
            let machine = self.until_point(how, &mut rng)?;
            self.fail_node(machine, how, &mut rng)?;
        }
        self.until_recovered()?;
        self.all_make_progress()
    }

    /// Ends the time without faults at the beginning of a run with one fault at a time.
    fn begin_turns(&mut self) -> Result<Rng, String> {
        self.until_ms(CALM_MS)?;
        self.may_fault = false;
        let mut rng = Rng::new(self.machines.rng.next());
        let delay_us = if rng.one_in(2) { DELAY_US.1 } else { rng.between(5_000, 40_000) };
        self.machines.slow_down(delay_us);
        Ok(rng)
    }

    /// Runs until a transaction reaches a random named point. Returns the node that is to fail.
    fn until_point(&mut self, how: NodeFault, rng: &mut Rng) -> Result<usize, String> {
        for _ in 0..POINTS_MAX {
            let point = match how {
                NodeFault::Isolated => Point::with_markers_in_flight(rng),
                _ => Point::random(rng),
            };
            let mut watch = Watch::new(point);
            let until_ms = self.now_ms() + POINT_MS;
            while self.now_ms() < until_ms {
                self.step()?;
                if let Some((machine, id)) = watch.step(&self.machines) {
                    let Point { target, stage } = point;
                    let node = machine + 1;
                    self.machines.record(format_args!("{id} at {stage:?}: {target:?} is n{node}"));
                    return Ok(machine);
                }
            }
            self.machines.record(format_args!("no transaction at {point:?}"));
        }
        Err(format!("no transaction reaches any of {POINTS_MAX} points"))
    }

    /// Lets a node fail, checks that coordinators move and that clients make progress, and brings
    /// the node back. Clients of an isolated node may make no progress.
    fn fail_node(&mut self, machine: usize, how: NodeFault, rng: &mut Rng) -> Result<(), String> {
        self.machines.record(format_args!("n{} fails: {how:?}", machine + 1));
        let began_ms = self.now_ms();
        let leader = self.machines.quorum_leader();
        let is_controller = leader.is_none_or(|(leader, _)| leader as usize == machine + 1);
        match how {
            NodeFault::Killed => self.machines.nodes[machine].crash(Crash::Process),
            NodeFault::LosesPower => self.machines.nodes[machine].crash(Crash::LoseUnsynced),
            NodeFault::Paused => self.machines.nodes[machine].is_paused = true,
            NodeFault::Cut => self.machines.set_cut(machine, true),
            NodeFault::Isolated => self.machines.set_isolated(machine, true),
        }
        let limit_ms = match how {
            NodeFault::Killed if is_controller => COORDINATORS_AFTER_ELECTION_MS,
            NodeFault::Killed => COORDINATORS_MS,
            _ => COORDINATORS_OTHER_MS,
        };
        self.until_coordinators_serve(machine, limit_ms)?;
        if how != NodeFault::Isolated {
            self.until_ms(began_ms + UNDER_WAY_MS)?;
            self.make_progress_within((began_ms + FAILOVER_MS).saturating_sub(self.now_ms()))?;
        }
        self.until_ms(self.now_ms() + rng.between(0, 1_000))?;
        self.machines.record(format_args!("n{} comes back", machine + 1));
        match how {
            NodeFault::Killed | NodeFault::LosesPower => self.machines.nodes[machine].start(),
            NodeFault::Paused => self.machines.nodes[machine].is_paused = false,
            NodeFault::Cut => self.machines.set_cut(machine, false),
            NodeFault::Isolated => self.machines.set_isolated(machine, false),
        }
        Ok(())
    }

    /// Runs until nodes other than `lost` serve as coordinators of all transactional ids.
    fn until_coordinators_serve(&mut self, lost: usize, ms: u64) -> Result<(), String> {
        let limit_ms = self.now_ms() + ms;
        let others = self.machines.nodes.iter().filter(|it| it.machine != lost);
        let brokers: Vec<i32> = others.map(|it| it.id).collect();
        let names = WORKERS.map(|(id, _)| format!("probe-{id}"));
        for ((id, _), name) in WORKERS.iter().zip(&names) {
            self.history.lock().served.remove(name);
            let (client, brokers) = (self.new_client(name.clone()), brokers.clone());
            let probe = coordinator_probe::run(client, (*id).to_owned(), brokers);
            self.machines.clients.enter(0, |runtime| drop(runtime.spawn(probe)));
        }
        while !names.iter().all(|name| self.history.lock().served.contains(name)) {
            if self.now_ms() >= limit_ms {
                let state = self.machines.state();
                return Err(format!("transaction coordinators do not serve in {ms} ms: {state}"));
            }
            self.step()?;
        }
        Ok(())
    }

    fn new_client(&mut self, name: String) -> Client {
        let (seed, network) = (self.machines.rng.next(), self.machines.client_network());
        Client::new(name, network, self.machines.nodes.len(), seed, self.history.clone())
    }

    fn elect_preferred(&mut self) {
        let client = self.new_client("elections".to_owned());
        self.machines
            .clients
            .enter(0, |runtime| drop(runtime.spawn(admin::elect_preferred(client))));
    }

    fn until_recovered(&mut self) -> Result<(), String> {
        let limit_ms = self.now_ms() + RECOVERY_MS;
        while !(self.faults.are_over() && self.is_recovered()) {
            if self.now_ms() >= limit_ms {
                return Err(format!("not recovered in time: {}", self.machines.state()));
            }
            self.step()?;
        }
        Ok(())
    }

    fn all_make_progress(&mut self) -> Result<(), String> {
        self.make_progress_within(PROGRESS_MS)?;
        self.until_groups_settle()
    }

    /// Runs until the members of consumer groups stay and the groups have converged.
    fn until_groups_settle(&mut self) -> Result<(), String> {
        self.history.lock().consumers.must_settle = true;
        let limit_ms = self.now_ms() + SETTLE_MS;
        while let Some(unsettled) = self.unsettled_group() {
            if self.now_ms() >= limit_ms {
                return Err(format!("not settled in {SETTLE_MS} ms: {unsettled}"));
            }
            self.until_ms(self.now_ms() + 20)?;
        }
        Ok(())
    }

    /// A consumer group that has not converged, with the reason.
    fn unsettled_group(&self) -> Option<String> {
        let Some(image) = self.machines.newest_image() else { return Some("no image".to_owned()) };
        let topics = consumers::NAMES.iter().filter_map(|name| image.topic(name));
        let topics: Vec<_> = topics.map(|it| (it.id, it.partitions.len() as i32)).collect();
        let groups = &self.checks.contents.consumer_groups;
        let history = self.history.lock();
        let running = history.consumers.members.iter();
        let mut unsettled = running.filter_map(|(group, members)| {
            Some(format!("{group}: {}", groups.unsettled(group, members, &topics)?))
        });
        unsettled.next()
    }

    fn make_progress_within(&mut self, ms: u64) -> Result<(), String> {
        let limit_ms = self.now_ms() + ms;
        let before = self.history.lock().progress.clone();
        while let Some(client) = self.client_without_progress(&before) {
            if self.now_ms() >= limit_ms {
                let state = self.machines.state();
                return Err(format!("{client} makes no progress in {ms} ms: {state}"));
            }
            self.step()?;
        }
        Ok(())
    }

    fn client_without_progress(&self, before: &BTreeMap<String, u64>) -> Option<String> {
        let history = self.history.lock();
        let mut still = history.progress.iter().filter(|it| before.get(it.0) == Some(it.1));
        still.find(|(client, _)| *client != "admin").map(|(client, _)| client.clone())
    }

    fn now_ms(&self) -> u64 {
        self.machines.now_us() / 1_000
    }

    fn until_ms(&mut self, until_ms: u64) -> Result<(), String> {
        while self.now_ms() < until_ms {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.faults.step(&mut self.machines, self.may_fault);
        self.machines.tick();
        let checked = self.checks.step(&self.machines.nodes, &self.history, self.now_ms());
        for line in self.checks.trace_lines.drain(..) {
            self.machines.record(format_args!("{line}"));
        }
        checked?;
        self.check_answers()?;
        panics().pop().map_or(Ok(()), |panic| Err(format!("panicked at {panic}")))
    }

    /// Checks that undisturbed brokers answered requests, and that their timeouts were right.
    fn check_answers(&mut self) -> Result<(), String> {
        let now_ms = self.now_ms();
        for (machine, disturbed_ms) in self.disturbed_ms.iter_mut().enumerate() {
            if self.machines.is_disturbed(machine) {
                *disturbed_ms = now_ms;
            }
        }
        for Unanswered { client, host, opened_ms, waited } in
            self.history.lock().unanswered.drain(..)
        {
            let node = self.machines.nodes.iter().find(|it| format!("n{}", it.id) == host);
            let disturbed_ms = node.map_or(now_ms, |it| self.disturbed_ms[it.machine]);
            if opened_ms - EPOCH_MS > disturbed_ms as i64 {
                return Err(format!("{client} was not answered by {host} in {waited:?}"));
            }
        }
        for TimedOut { host, place, first } in self.history.lock().timed_out.drain(..) {
            let node = self.machines.nodes.iter().find(|it| format!("n{}", it.id) == host);
            let was_undisturbed =
                |it: &&Node| self.disturbed_ms[it.machine] + UNDISTURBED_MS < now_ms;
            if let Some(node) = node.filter(was_undisturbed) {
                self.checks.timed_out(node, &place, &first)?;
            }
        }
        Ok(())
    }

    fn is_recovered(&self) -> bool {
        self.machines.nodes.iter().all(|it| it.is_started())
            && self.machines.is_in_sync()
            && self.machines.has_all_voters()
    }

    fn outcome(self, wrong: Option<String>) -> Outcome {
        let history = self.history.lock();
        let wire = self.machines.wire.lock();
        let clients: u64 = history.progress.values().sum();
        let summary = format!(
            "{} ms, {} records committed, {} transactions, {clients} answers, faults {:?}, \
             compaction {:?}, {:?}, errors {:?}",
            wire.now_us / 1_000,
            self.checks.committed_records(),
            self.checks.contents.transactions.ended(),
            self.faults.counts,
            self.checks.rounds,
            self.checks.contents.consumer_groups.counts,
            history.errors,
        );
        let last = wire.trace.last().map(str::to_owned).collect();
        Outcome { hash: wire.trace.hash(), wrong, summary, last }
    }
}
