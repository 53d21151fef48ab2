//! A machine: its clock, its disk, and its process. The process has its own tokio runtime; dropping
//! the runtime simulates kill -9.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use sordini::{
    base::{
        config::{Config, Properties},
        environment::{Simulated, simulate},
        planted_bugs::{Bug, plant},
        random::Random,
    },
    broker::Broker,
    log::{
        Disk,
        faulty::{Crash, FaultyDisk},
    },
    net::{ConnectionLimits, Limits},
    server::{Environment, Server},
    telemetry::Loggers,
};
use tokio::{
    runtime::{Handle, Runtime},
    time,
};

use crate::{
    network::SimNetwork,
    serve::serve,
    wire::{Accepted, MachineId, Power, SharedWire},
};

pub const BROKER_PORT: u16 = 9092;
pub const CONTROLLER_PORT: u16 = 9093;

/// Wall-clock time at the start of a simulation.
pub const EPOCH_MS: i64 = 1_900_000_000_000;

/// A process on a machine: its runtime, and its simulated clock, random numbers and disk speed.
pub struct Process {
    runtime: Option<Runtime>,
    machine: Option<Simulated>,
}

/// The bugs that can be planted, by name, each with a seed that has found it.
pub const BUGS: [(&str, Bug, u64); 15] = [
    ("skip-truncation", Bug::SkipTruncation, 2),
    ("early-ack", Bug::EarlyAck, 2),
    ("stale-isr", Bug::StaleIsr, 25),
    ("missing-fence", Bug::MissingFence, 14),
    ("lost-waiter", Bug::LostWaiter, 5),
    ("early-coordinator-answer", Bug::EarlyCoordinatorAnswer, 2),
    ("early-stable-offset", Bug::EarlyStableOffset, 2),
    ("lost-marker", Bug::LostMarker, 24),
    ("old-coordinator-marker", Bug::OldCoordinatorMarker, 6),
    ("lost-pending-offset", Bug::LostPendingOffset, 2),
    ("late-end-txn", Bug::LateEndTxn, 1),
    ("no-producer-state", Bug::NoProducerState, 3),
    ("assign-before-revoke", Bug::AssignBeforeRevoke, 8),
    ("early-heartbeat-answer", Bug::EarlyHeartbeatAnswer, 8),
    ("kept-group-offsets", Bug::KeptGroupOffsets, 8),
];

fn planted() -> Option<Bug> {
    let asked = std::env::var("SIMULATION_BUG").ok()?;
    Some(BUGS.iter().find(|(name, ..)| *name == asked).expect("a known bug").1)
}

impl Process {
    pub fn new(seed: u64, boots: u32) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build();
        plant(planted());
        let random = Random::new(seed);
        let machine = Simulated { now_ms: 0, random, boots, has_slow_disk: false };
        Self { runtime: Some(runtime.expect("no resources are needed")), machine: Some(machine) }
    }

    /// Runs `work` with the process's simulated environment, at `now_ms` of the machine's clock.
    pub fn enter<T>(&mut self, now_ms: i64, work: impl FnOnce(&Runtime) -> T) -> T {
        let runtime = self.runtime.as_ref().expect("it lives until it is dropped");
        if let Some(machine) = &mut self.machine {
            machine.now_ms = now_ms;
        }
        simulate(self.machine.take());
        let done = work(runtime);
        self.machine = simulate(None);
        done
    }

    /// Runs the process's tasks and timers for `ms` milliseconds.
    pub fn run(&mut self, now_ms: i64, ms: u64) {
        self.enter(now_ms, |it| {
            it.block_on(async { time::sleep(Duration::from_millis(ms)).await })
        });
    }

    /// Advances the process's time by `ms` at once, as after a pause.
    pub fn jump(&mut self, now_ms: i64, ms: u64) {
        self.enter(now_ms, |it| {
            it.block_on(async { time::advance(Duration::from_millis(ms)).await })
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let runtime = self.runtime.take();
        simulate(self.machine.take());
        drop(runtime);
        simulate(None);
    }
}

/// The clock of a machine, with its own offset and rate.
#[derive(Clone, Copy)]
pub struct Clock {
    pub offset_ms: i64,
    /// Speed in thousandths of real time.
    pub rate: u64,
    /// The real time up to the last `pass`, in microseconds.
    accounted_us: u64,
    /// The time that has passed on this clock.
    passed_ms: u64,
    /// Less than a millisecond of this clock, in thousandths of a microsecond.
    rest: u64,
}

impl Clock {
    pub fn new(offset_ms: i64, rate: u64) -> Self {
        Self { offset_ms, rate, accounted_us: 0, passed_ms: 0, rest: 0 }
    }

    pub fn now_ms(&self) -> i64 {
        EPOCH_MS + self.offset_ms + self.passed_ms as i64
    }

    /// Advances the clock to `now_us` of real time. Returns its milliseconds since the last call.
    fn pass(&mut self, now_us: u64) -> u64 {
        self.rest += (now_us - self.accounted_us) * self.rate;
        self.accounted_us = now_us;
        let ms = self.rest / 1_000_000;
        self.rest %= 1_000_000;
        self.passed_ms += ms;
        ms
    }
}

type Started = Arc<Mutex<Option<Result<Server, String>>>>;

/// A node: its machine, and its process if it runs.
pub struct Node {
    pub id: i32,
    pub machine: MachineId,
    pub disk: FaultyDisk,
    pub clock: Clock,
    pub is_paused: bool,
    pub has_slow_disk: bool,
    /// Number of processes started so far.
    pub starts: u32,
    pub boots: u32,
    wire: SharedWire,
    properties: Properties,
    running: Option<Running>,
}

struct Running {
    // Dropped before the runtime, whose tasks hold it too.
    broker: Arc<OnceLock<Arc<Broker>>>,
    started: Started,
    /// Set when a controlled shutdown is complete.
    stopped: Arc<OnceLock<()>>,
    waiting: Vec<Accepted>,
    /// The limits of its connections. `None` until it serves the first one.
    limits: Option<Arc<ConnectionLimits>>,
    process: Process,
}

impl Node {
    pub fn new(machine: MachineId, wire: SharedWire, clock: Clock, properties: Properties) -> Self {
        let id = machine as i32 + 1;
        let mut names = wire.lock();
        for port in [BROKER_PORT, CONTROLLER_PORT] {
            names.name(&format!("n{id}"), port, machine);
        }
        drop(names);
        let disk = FaultyDisk::default();
        // The parent of `log.dirs` exists, as on a machine that an administrator prepared.
        let made = disk.create_dir_all("/sim".as_ref()).and_then(|()| disk.sync_dir("/".as_ref()));
        made.expect("a new disk takes it");
        Self {
            id,
            machine,
            disk,
            clock,
            is_paused: false,
            has_slow_disk: false,
            starts: 0,
            boots: 0,
            wire,
            properties,
            running: None,
        }
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The broker of the running process. `None` until the server has composed it.
    pub fn broker(&self) -> Option<&Arc<Broker>> {
        self.running.as_ref()?.broker.get()
    }

    /// Whether the server has started.
    pub fn is_started(&self) -> bool {
        let started = self.running.as_ref().map(|it| &it.started);
        started.is_some_and(|it| matches!(&*it.lock(), Some(Ok(_))))
    }

    /// The error of a failed start.
    pub fn start_failure(&self) -> Option<String> {
        match &*self.running.as_ref()?.started.lock() {
            Some(Err(error)) => Some(error.clone()),
            _ => None,
        }
    }

    pub fn start(&mut self) {
        self.starts += 1;
        self.wire.lock().power[self.machine] = Power::NoProcess;
        let mut process = Process::new(self.wire.lock().rng.next(), self.boots);
        let (broker, started) = (Arc::new(OnceLock::new()), Started::default());
        let (composed, done) = (Arc::clone(&broker), Arc::clone(&started));
        let network = SimNetwork { wire: self.wire.clone(), machine: self.machine };
        let disk = Arc::new(self.disk.clone());
        let config = Config::new(self.properties.clone(), "sim").expect("valid properties");
        let start = async move {
            let network = Arc::new(network);
            let control = Handle::current();
            let loggers = Loggers::default();
            let environment = Environment { disk, network, listens: false, control, loggers };
            let composed = |broker: &Arc<Broker>| {
                let _ = composed.set(Arc::clone(broker));
            };
            let server = Server::start_in(config, environment, composed).await;
            *done.lock() = Some(server.map_err(|error| error.to_string()));
        };
        process.enter(self.clock.now_ms(), |runtime| drop(runtime.spawn(start)));
        self.running = Some(Running {
            broker,
            started,
            stopped: Arc::default(),
            waiting: Vec::new(),
            limits: None,
            process,
        });
    }

    /// Ends the process at once. After `Crash::Process` the machine still refuses connections.
    /// After the other crashes it is off until the next start, and its disk has lost unsynced data.
    pub fn crash(&mut self, crash: Crash) {
        self.running = None;
        self.is_paused = false;
        self.disk = self.disk.crash(crash);
        let power = match crash {
            Crash::Process => Power::NoProcess,
            Crash::LoseUnsynced | Crash::LoseNames(_) | Crash::Tear(_) => {
                self.boots += 1;
                Power::Off
            }
        };
        self.wire.lock().process_ended(self.machine, power);
    }

    /// Begins a controlled shutdown, as SIGTERM does.
    pub fn begin_stop(&mut self) {
        let now_ms = self.clock.now_ms();
        let Some(running) = &mut self.running else { return };
        let Some(Ok(server)) = running.started.lock().take() else { return };
        let stopped = Arc::clone(&running.stopped);
        let stop = async move {
            // The checks see the effects of a failed shutdown after the next start.
            let _ = server.stop().await;
            let _ = stopped.set(());
        };
        running.process.enter(now_ms, |runtime| drop(runtime.spawn(stop)));
    }

    /// Makes every blocking disk operation slow, or fast again.
    pub fn set_slow_disk(&mut self, is_slow: bool) {
        self.has_slow_disk = is_slow;
        if let Some(running) = &mut self.running
            && let Some(machine) = &mut running.process.machine
        {
            machine.has_slow_disk = is_slow;
        }
    }

    pub fn has_stopped(&self) -> bool {
        self.running.as_ref().is_some_and(|it| it.stopped.get().is_some())
    }

    /// Gives the node a turn: delivers packets, then runs tasks and timers that are due.
    pub fn turn(&mut self, now_us: u64) {
        let accepted = self.wire.lock().deliver(self.machine, self.is_paused);
        let Some(running) = &mut self.running else {
            self.clock.pass(now_us);
            return;
        };
        running.waiting.extend(accepted);
        if self.is_paused {
            return;
        }
        let before_ms = self.clock.now_ms();
        let ms = self.clock.pass(now_us);
        if ms > 5 {
            running.process.jump(self.clock.now_ms(), ms - 1);
        }
        running.hand_over(&self.wire, before_ms);
        running.process.run(self.clock.now_ms(), ms.min(1));
        if running.broker.get().is_some() {
            let mut wire = self.wire.lock();
            if wire.power[self.machine] != Power::Running {
                wire.power[self.machine] = Power::Running;
            }
        }
    }
}

impl Running {
    /// Hands accepted connections to the broker. Until the broker serves their port, they wait, as
    /// in the backlog of a listening socket.
    fn hand_over(&mut self, wire: &SharedWire, now_ms: i64) {
        let Some(broker) = self.broker.get() else { return };
        let waiting = std::mem::take(&mut self.waiting);
        let is_served = |it: &Accepted| broker.serves() || it.port == CONTROLLER_PORT;
        let (served, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_served);
        self.waiting = waiting;
        let limits = Arc::clone(self.limits.get_or_insert_with(|| {
            let limits = Limits::resolve(&broker.settings()).expect("no overrides by host name");
            ConnectionLimits::new(limits)
        }));
        self.process.enter(now_ms, |runtime| {
            for accepted in served {
                let (broker, limits) = (Arc::clone(broker), Arc::clone(&limits));
                let on_controller_listener = accepted.port == CONTROLLER_PORT;
                let wire = wire.clone();
                runtime.spawn(serve(broker, limits, wire, accepted, on_controller_listener));
            }
        });
    }
}
