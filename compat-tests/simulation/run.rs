//! One run: a cluster, its clients, faults for a while, and then a time in which everything must
//! get on again.

use std::collections::BTreeMap;

use crate::{
    admin::{self, TOPICS},
    check::Checks,
    client::Client,
    cluster::{Cluster, panics},
    consume,
    faults::Faults,
    history::SharedHistory,
    produce,
};

const NODES: usize = 3;
/// When the first fault may come.
const CALM_MS: u64 = 3_000;
const FAULTS_MS: u64 = 30_000;
/// After the last fault everything must be well within this.
const RECOVERY_MS: u64 = 30_000;
/// And then clients get on within this.
const PROGRESS_MS: u64 = 6_000;

pub struct Outcome {
    pub hash: u64,
    pub wrong: Option<String>,
    pub summary: String,
    /// The end of the trace.
    pub last: Vec<String>,
}

struct Run {
    cluster: Cluster,
    checks: Checks,
    faults: Faults,
    history: SharedHistory,
    may_fault: bool,
}

pub fn run(seed: u64) -> Outcome {
    let mut cluster = Cluster::new(NODES, seed);
    let history = SharedHistory::default();
    let faults = Faults::new(cluster.chance.next(), CALM_MS);
    for node in &mut cluster.nodes {
        node.start();
    }
    spawn_clients(&mut cluster, &history);
    let checks = Checks::default();
    let mut run = Run { cluster, checks, faults, history, may_fault: true };
    let wrong = run.all_of_it().err();
    run.outcome(wrong)
}

fn spawn_clients(cluster: &mut Cluster, history: &SharedHistory) {
    let mut clients = Vec::new();
    let mut client = |name: String| {
        let seed = cluster.chance.next();
        let network = cluster.client_network();
        Client::new(name, network, NODES, seed, history.clone())
    };
    let admin = client("admin".to_owned());
    for (topic, partitions) in TOPICS {
        for partition in 0..partitions {
            let place = (topic.to_owned(), partition);
            let name = |what| format!("{what}-{topic}-{partition}");
            clients.push((place.clone(), client(name("plain")), client(name("idempotent"))));
        }
    }
    let readers: Vec<_> = clients
        .iter()
        .map(|(place, ..)| (place.clone(), client(format!("reader-{}-{}", place.0, place.1))))
        .collect();
    let groups = [client("group-a".to_owned()), client("group-b".to_owned())];
    cluster.clients.enter(0, |runtime| {
        runtime.spawn(admin::run(admin, NODES as i32));
        for (place, plain, idempotent) in clients {
            runtime.spawn(produce::run(plain, place.clone(), false));
            runtime.spawn(produce::run(idempotent, place, true));
        }
        for (place, reader) in readers {
            runtime.spawn(consume::read(reader, place));
        }
        for group in groups {
            runtime.spawn(consume::commit(group, ("first".to_owned(), 0)));
        }
    });
}

impl Run {
    fn all_of_it(&mut self) -> Result<(), String> {
        self.until_ms(CALM_MS + FAULTS_MS)?;
        self.may_fault = false;
        let limit_ms = CALM_MS + FAULTS_MS + RECOVERY_MS;
        while !(self.faults.are_over() && self.is_well()) {
            if self.now_ms() >= limit_ms {
                return Err(format!("not well in time: {}", self.cluster.state()));
            }
            self.step()?;
        }
        let recovered_ms = self.now_ms();
        let before = self.history.lock().progress.clone();
        self.until_ms(recovered_ms + PROGRESS_MS)?;
        self.progress_since(&before)
    }

    fn now_ms(&self) -> u64 {
        self.cluster.now_us() / 1_000
    }

    fn until_ms(&mut self, until_ms: u64) -> Result<(), String> {
        while self.now_ms() < until_ms {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.faults.step(&mut self.cluster, self.may_fault);
        self.cluster.tick();
        let checked = self.checks.step(&self.cluster.nodes, &self.history);
        for told in self.checks.told.drain(..) {
            self.cluster.tell(format_args!("{told}"));
        }
        checked?;
        panics().pop().map_or(Ok(()), |panic| Err(format!("panicked at {panic}")))
    }

    fn is_well(&self) -> bool {
        self.cluster.nodes.iter().all(|it| it.is_started()) && self.cluster.is_in_sync()
    }

    fn progress_since(&self, before: &BTreeMap<String, u64>) -> Result<(), String> {
        let history = self.history.lock();
        for (client, count) in &history.progress {
            if client != "admin" && before.get(client) == Some(count) {
                return Err(format!("{client} does not get on: {}", self.cluster.state()));
            }
        }
        Ok(())
    }

    fn outcome(self, wrong: Option<String>) -> Outcome {
        let history = self.history.lock();
        let wire = self.cluster.wire.lock();
        let clients: u64 = history.progress.values().sum();
        let summary = format!(
            "{} ms, {} records committed, {clients} answers, faults {:?}, errors {:?}",
            wire.now_us / 1_000,
            self.checks.committed_records(),
            self.faults.counts,
            history.errors,
        );
        let last = wire.trace.last().map(str::to_owned).collect();
        Outcome { hash: wire.trace.hash(), wrong, summary, last }
    }
}
