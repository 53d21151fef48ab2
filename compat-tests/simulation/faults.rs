//! Faults that are drawn from the seed, and their ends.

use std::collections::{BTreeMap, HashSet};

use sordini::log::faulty::Crash;

use crate::{
    machines::Machines,
    random::Rng,
    wire::{Link, MachineId},
};

/// Least and most milliseconds between two faults.
const PAUSE_MS: (u64, u64) = (100, 4_000);
/// The shortest time that a node is isolated: `broker.session.timeout.ms`, after which other nodes
/// lead its partitions.
const ISOLATION_MS_MIN: u64 = 2_000;

/// The active faults of a run, and when the next one begins.
pub struct Faults {
    rng: Rng,
    active: Vec<Active>,
    next_ms: u64,
    /// The machine whose disk lost unsynced data. No other machine may lose any until all replicas
    /// are in sync again.
    lossy: Option<MachineId>,
    pub counts: BTreeMap<&'static str, u64>,
}

struct Active {
    until_ms: u64,
    machine: Option<MachineId>,
    undo: Undo,
}

#[derive(Clone)]
enum Undo {
    Start,
    Resume,
    /// Restart after a controlled shutdown that has begun.
    Stopped,
    Links(Vec<(MachineId, MachineId)>),
    Disk,
}

impl Faults {
    pub fn new(seed: u64, first_ms: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            active: Vec::new(),
            next_ms: first_ms,
            lossy: None,
            counts: BTreeMap::new(),
        }
    }

    /// Ends and begins faults. The caller calls it before each tick.
    pub fn step(&mut self, machines: &mut Machines, may_begin: bool) {
        let now_ms = machines.now_us() / 1_000;
        self.restart_failed(machines, now_ms);
        let is_over = |it: &Active| it.until_ms <= now_ms || !may_begin;
        let (over, active): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.active).into_iter().partition(is_over);
        self.active = active;
        for fault in over {
            self.undo(machines, fault, now_ms);
        }
        if may_begin && now_ms >= self.next_ms {
            self.next_ms = now_ms + self.rng.between(PAUSE_MS.0, PAUSE_MS.1);
            self.begin(machines, now_ms);
        }
    }

    /// Ends processes that have failed and schedules their restart, as a supervisor does.
    fn restart_failed(&mut self, machines: &mut Machines, now_ms: u64) {
        for machine in 0..machines.nodes.len() {
            let node = &mut machines.nodes[machine];
            let failure = node.start_failure();
            if failure.is_none() && !node.broker().is_some_and(|it| it.has_failed()) {
                continue;
            }
            node.crash(Crash::Process);
            let id = node.id;
            machines.record(format_args!("n{id} has ended: {failure:?}"));
            let until_ms = now_ms + self.rng.between(200, 1_000);
            let (machine, undo) = (Some(machine), Undo::Start);
            self.active.push(Active { until_ms, machine, undo });
        }
    }

    fn is_affected(&self, machine: MachineId) -> bool {
        self.active.iter().any(|it| it.machine == Some(machine))
    }

    fn begin(&mut self, machines: &mut Machines, now_ms: u64) {
        let count = machines.nodes.len();
        let machine = self.rng.between(0, count as u64 - 1) as MachineId;
        let mut length = self.rng.between(50, 5_000);
        let kind = self.rng.between(0, 18);
        if self.lossy.is_some() && machines.is_in_sync() {
            self.lossy = None;
        }
        // The controller treats every unclean end of a process as a possible loss of data.
        let may_end = self.lossy.is_none_or(|lossy| lossy == machine);
        let is_free = !self.is_affected(machine) && machines.nodes[machine].is_started();
        let (name, machine, undo) = match kind {
            0..=9 | 15..=17 if !is_free => return,
            0..=4 | 9 if !may_end => return,
            0..=2 => {
                machines.nodes[machine].crash(Crash::Process);
                ("kill", Some(machine), Undo::Start)
            }
            3..=4 => {
                let Some(crash) = self.power_loss(machines, machine) else { return };
                machines.nodes[machine].crash(crash);
                ("power loss", Some(machine), Undo::Start)
            }
            5..=6 => {
                machines.nodes[machine].is_paused = true;
                ("pause", Some(machine), Undo::Resume)
            }
            7..=8 => {
                machines.nodes[machine].begin_stop();
                ("stop", Some(machine), Undo::Stopped)
            }
            9 => {
                let disk = &machines.nodes[machine].disk;
                match self.rng.one_in(2) {
                    true => disk.set_room(Some(self.rng.between(0, 20_000))),
                    false => disk.fail_after(Some(self.rng.between(0, 200) as u32)),
                }
                ("disk", Some(machine), Undo::Disk)
            }
            10..=12 => ("cut", None, self.cut(machines, machine)),
            13..=14 => ("bad links", None, self.degrade_links(machines)),
            15..=17 => {
                length += ISOLATION_MS_MIN;
                ("isolation", None, isolate(machines, machine))
            }
            _ => {
                let step = self.rng.between(0, 6_000) as i64 - 3_000;
                machines.nodes[machine].clock.offset_ms += step;
                machines.wire.lock().break_connections(4);
                ("clock", None, Undo::Links(Vec::new()))
            }
        };
        *self.counts.entry(name).or_default() += 1;
        machines.record(format_args!("fault: {name} at {machine:?} for {length} ms"));
        self.active.push(Active { until_ms: now_ms + length, machine, undo });
    }

    /// Chooses how a machine loses power. `None` if it must not: Kafka's guarantees hold only if at
    /// most one replica loses data, and the others have that data.
    fn power_loss(&mut self, machines: &Machines, machine: MachineId) -> Option<Crash> {
        let is_disk_bad = self.active.iter().any(|it| matches!(it.undo, Undo::Disk));
        if self.lossy.is_none() && (is_disk_bad || !machines.is_in_sync()) {
            return None;
        }
        self.lossy = Some(machine);
        Some(match self.rng.one_in(2) {
            true => Crash::LoseUnsynced,
            false => Crash::Tear(self.rng.between(0, 99) as u8),
        })
    }

    /// Cuts links between a machine and some others (clients included), in one direction or both.
    fn cut(&mut self, machines: &Machines, machine: MachineId) -> Undo {
        let mut wire = machines.wire.lock();
        let mut cut = Vec::new();
        let directions = self.rng.between(0, 2);
        for other in (0..wire.links.len()).filter(|other| *other != machine) {
            if self.rng.one_in(3) {
                continue;
            }
            if directions != 0 {
                cut.push((machine, other));
            }
            if directions != 1 {
                cut.push((other, machine));
            }
        }
        for (from, to) in &cut {
            wire.links[*from][*to].is_cut = true;
        }
        Undo::Links(cut)
    }

    /// Gives some links long delays and connections that break.
    fn degrade_links(&mut self, machines: &Machines) -> Undo {
        let mut wire = machines.wire.lock();
        let count = wire.links.len();
        let mut worse = Vec::new();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            if self.rng.one_in(2) {
                let link = &mut wire.links[from][to];
                link.delay_us = (100, self.rng.between(1_000, 400_000));
                link.breaks_one_in = self.rng.between(5, 100);
                worse.push((from, to));
            }
        }
        Undo::Links(worse)
    }

    fn undo(&mut self, machines: &mut Machines, fault: Active, now_ms: u64) {
        let node = fault.machine.map(|machine| &mut machines.nodes[machine]);
        match (fault.undo.clone(), node) {
            (Undo::Start, Some(node)) if !node.is_running() => node.start(),
            (Undo::Resume, Some(node)) => node.is_paused = false,
            (Undo::Stopped, Some(node)) if node.has_stopped() => {
                node.crash(Crash::Process);
                node.start();
            }
            // Its controlled shutdown goes on until other brokers lead its partitions.
            (Undo::Stopped, Some(_)) => {
                self.active.push(Active { until_ms: now_ms + 100, ..fault });
                return;
            }
            (Undo::Disk, Some(node)) => {
                node.disk.set_room(None);
                node.disk.fail_after(None);
                // Logs that went offline stay offline until a restart.
                node.crash(Crash::Process);
                node.start();
            }
            (Undo::Links(links), _) => {
                let mut wire = machines.wire.lock();
                let others = self.active.iter().filter_map(|other| match &other.undo {
                    Undo::Links(links) => Some(links),
                    _ => None,
                });
                let still_faulty: HashSet<_> = others.flatten().collect();
                for link in links.iter().filter(|link| !still_faulty.contains(link)) {
                    wire.links[link.0][link.1] = Link::default();
                }
            }
            _ => {}
        }
        machines.record(format_args!("over at {:?}", fault.machine));
    }

    pub fn are_over(&self) -> bool {
        self.active.is_empty()
    }
}

/// Cuts all links between a node and the other nodes. Clients still reach it.
fn isolate(machines: &Machines, machine: MachineId) -> Undo {
    let others = (0..machines.nodes.len()).filter(|other| *other != machine);
    let cut: Vec<_> = others.flat_map(|other| [(machine, other), (other, machine)]).collect();
    let mut wire = machines.wire.lock();
    for (from, to) in &cut {
        wire.links[*from][*to].is_cut = true;
    }
    Undo::Links(cut)
}
