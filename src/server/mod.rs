//! [`Server`]: composes a node from the layers below, starts it and stops it. `start_in` has the
//! order of a start, `stop` that of a stop.

mod cluster_bootstrap;
mod listeners;
mod raft_transport;
mod readiness;
mod signals;

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tracing::{error, info, warn};

use self::{
    listeners::{Bound, Listening},
    readiness::Probes,
    signals::Signals,
};
use crate::{
    base::{
        BrokerId,
        config::{BrokerConfig, Config},
        environment::{blocking, boot_id, in_place, new_uuid},
    },
    broker::{
        self, Broker, NotRegistered, OnReconfigured, Parts,
        lifecycle::{self, Lifecycle},
    },
    controller::{self, Controller, ControllerError},
    handlers::OwnChannel,
    log::{
        Disk, LogDirs, RealDisk,
        dirs::{DirsError, Owner},
    },
    metadata::MetadataRecord,
    net::{ConnectionLimits, Limits, Shutdown, UnknownHost},
    peers::{Network, Tcp},
    quorum::{CommittedStream, Quorum, QuorumError},
    telemetry::{self, Loggers, Metrics, StartProgress},
};

/// The longest time that a stop waits for connections to close.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The reason why a node cannot start or must stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    LogDirs(#[from] DirsError),
    #[error(transparent)]
    UnknownHost(#[from] UnknownHost),
    #[error("all log directories have failed")]
    AllDirsFailed,
    #[error("the metadata log has failed")]
    MetadataFailed,
    #[error("the task that writes transaction markers has failed")]
    TransactionsFailed,
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
    #[error("listener {name}: cannot listen on {address}: {source}")]
    Bind { name: String, address: String, source: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The environment of a node: disk, network, sockets and runtime. A simulation replaces them.
/// Time and randomness come from `base::environment`.
pub struct Environment {
    pub disk: Arc<dyn Disk>,
    pub network: Arc<dyn Network>,
    /// Whether the node listens on sockets. A simulation delivers requests without them.
    pub listens: bool,
    /// The runtime of the quorum, the controller, its listeners and this broker's heartbeats. They
    /// have their own runtime so that they continue while requests for data occupy all workers of
    /// the other one.
    pub control: Handle,
    /// The loggers whose levels clients can read and change.
    pub loggers: Loggers,
}

impl Environment {
    /// The real disk, network and sockets. The loggers ignore changes of their levels.
    pub fn real(control: Handle) -> Self {
        let (disk, network) = (Arc::new(RealDisk), Arc::new(Tcp));
        Self { disk, network, listens: true, control, loggers: Loggers::default() }
    }
}

/// A running node: a broker, a controller, or both.
pub struct Server {
    broker: Arc<Broker>,
    /// Ends the heartbeat task, as the first step of a stop.
    leave: watch::Sender<bool>,
    /// Stops listeners, connections and periodic tasks.
    stop: watch::Sender<bool>,
    /// Closes when the last connection has closed.
    connections: mpsc::Receiver<()>,
    limits: Arc<ConnectionLimits>,
    tasks: JoinSet<()>,
    /// The heartbeat task. `None` if this node is only a controller.
    lifecycle: Option<JoinHandle<Lifecycle>>,
    /// The bound address of each listener, by name.
    addresses: Vec<(String, SocketAddr)>,
    http_address: Option<SocketAddr>,
}

impl Server {
    /// Runs a node until SIGTERM, SIGINT or SIGHUP, then stops it cleanly. `main` calls this.
    ///
    /// # Errors
    /// If the start fails, if all log directories have failed, if metadata can no longer be
    /// applied, or if transactions can no longer be completed. In the last three cases the node
    /// does not stop cleanly.
    pub async fn run(config: Config, environment: Environment) -> Result<(), ServerError> {
        let mut signals = Signals::new()?;
        // The start runs in a task of its own: it may block on disks, and this task must react to
        // signals. An interrupted start leaves the same files as a crash, without clean markers.
        let start = Self::start_in(config, environment, |_| ());
        let mut starting = tokio::spawn(start);
        let server = tokio::select! {
            biased;
            started = &mut starting => started.map_err(io::Error::from)??,
            signal = signals.recv() => {
                info!(signal, "start cancelled");
                return Ok(());
            }
        };
        // A full or closed stdout is ignored.
        let _ = writeln!(io::stdout(), "{}", server.banner());
        let mut all_failed = server.broker.replicas.all_dirs_failed();
        let mut metadata_failed = server.broker.metadata_failed();
        let mut transactions_failed = server.broker.transactions_failed();
        tokio::select! {
            // As in Kafka, the process ends, so that its supervisor or an operator can react.
            Ok(_) = all_failed.wait_for(|failed| *failed) => return Err(ServerError::AllDirsFailed),
            Ok(_) = metadata_failed.wait_for(|failed| *failed) => {
                return Err(ServerError::MetadataFailed);
            }
            Ok(_) = transactions_failed.wait_for(|failed| *failed) => {
                return Err(ServerError::TransactionsFailed);
            }
            signal = signals.recv() => info!(signal, "stopping"),
        }
        server.stop().await
    }

    /// Starts a node with the real environment and one runtime for everything. Tests use it.
    pub async fn start(config: Config) -> Result<Self, ServerError> {
        Self::start_in(config, Environment::real(Handle::current()), |_| ()).await
    }

    /// Starts a node: opens its log directories, joins the quorum, registers, opens its logs, and
    /// listens. Returns once the broker is unfenced. `composed` is called with the broker before it
    /// receives any request or metadata.
    pub async fn start_in(
        config: Config,
        environment: Environment,
        composed: impl FnOnce(&Arc<Broker>),
    ) -> Result<Self, ServerError> {
        let mut tasks = JoinSet::new();
        let Composed {
            broker,
            stream,
            controllers,
            brokers,
            limits,
            settings,
            mut addresses,
            http_address,
            progress,
        } = compose(config, environment, &mut tasks).await?;
        composed(&broker);
        let (leave, leaving) = watch::channel(false);
        let (stop, stopping) = watch::channel(false);
        let (alive, connections) = mpsc::channel(1);
        let shutdown = Shutdown { signal: stopping.clone(), alive };
        // Controllers must reach each other first: without a leader nothing can be decided.
        controllers.serve((&broker, &limits), &shutdown, &mut tasks, &broker.node.control);
        broker.add_gauges();
        tasks.spawn(broker::apply_committed(Arc::clone(&broker), stream));
        if settings.cluster.is_controller {
            lifecycle::spawn_controller(&broker, &addresses, &mut tasks);
        }
        let mut lifecycle = None;
        if settings.cluster.is_broker {
            addresses.splice(0..0, brokers.addresses()?);
            let brokers = brokers.listen(&settings, &broker.node.runtime)?;
            let endpoints = lifecycle::endpoints(&settings.advertised_listeners, &addresses);
            let begin = Lifecycle::begin(Arc::clone(&broker), endpoints);
            let mut begun = on(&broker.node.control, begin).await??;
            progress.stage_ended("register");
            broker.replicas.start_replication();
            tokio::select! {
                biased;
                opened = begin_to_serve(&broker) => opened?,
                () = progress.tell() => {}
            }
            progress.stage_ended("logs");
            broker.spawn_tasks(&mut tasks, &stopping);
            let unfence = async move { begun.unfence().await.map(|()| begun) };
            let begun = on(&broker.node.control, unfence).await??;
            // Earlier connections wait in the backlog until the broker is unfenced and may lead.
            brokers.serve((&broker, &limits), &shutdown, &mut tasks, &broker.node.runtime);
            lifecycle = Some(broker.node.control.spawn(begun.run(leaving)));
        }
        progress.ready();
        Ok(Self {
            broker,
            leave,
            stop,
            connections,
            limits,
            tasks,
            lifecycle,
            addresses,
            http_address,
        })
    }

    /// The line on stdout after a start, as text or JSON: listeners, log directories, metrics URL.
    fn banner(&self) -> String {
        let settings = self.broker.settings();
        let listeners: Vec<_> =
            self.addresses.iter().map(|(name, address)| format!("{name}://{address}")).collect();
        let (listeners, version) = (listeners.join(","), env!("CARGO_PKG_VERSION"));
        let dirs: Vec<_> = settings.log_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let (dirs, node) = (dirs.join(","), self.broker.node.id);
        let metrics = self.http_address.map(|address| format!("http://{address}/metrics"));
        if settings.logging_json {
            return telemetry::json_line(serde_json::json!({
                "message": "listening", "version": version, "node": node, "listeners": listeners,
                "log_dirs": dirs, "metrics": metrics,
            }));
        }
        let metrics = metrics.as_deref().unwrap_or("off");
        format!(
            "sordini {version} node {node} listens on {listeners}, data in {dirs}, metrics at {metrics}"
        )
    }

    /// The bound address of each listener, by name. Tests use it to find the port for port 0.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The number of open connections on all listeners.
    pub fn open_connections(&self) -> usize {
        self.limits.open()
    }

    /// Stops the node: controlled shutdown, connections closed, coordinators resigned, logs closed,
    /// checkpoints and clean-shutdown markers written, quorum stopped.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        // Other brokers take over the leadership before the connections are closed.
        self.leave.send_replace(true);
        if let Some(lifecycle) = self.lifecycle.take()
            && let Ok(lifecycle) = lifecycle.await
            && self.broker.settings().cluster.controlled_shutdown_enable
        {
            lifecycle.shut_down().await;
        }
        self.stop.send_replace(true);
        if tokio::time::timeout(DRAIN_MAX, self.connections.recv()).await.is_err() {
            warn!("connections are still open, stopping anyway");
        }
        // A round that writes segments must end before its log is closed.
        self.broker.cleaner.stopped().await;
        self.tasks.shutdown().await;
        self.broker.replicas.stop_replication();
        self.broker.resign_coordinators();
        let broker = Arc::clone(&self.broker);
        if blocking(move || broker.replicas.close_logs()).await.is_err() {
            error!("the logs were not closed: the next start recovers them");
        }
        self.broker.quorum.clone().stop().await?;
        info!("stopped");
        Ok(())
    }
}

/// The parts of a node that a start creates before it serves any request.
struct Composed {
    broker: Arc<Broker>,
    /// The committed metadata after the broker's image.
    stream: CommittedStream,
    controllers: Listening,
    brokers: Bound,
    limits: Arc<ConnectionLimits>,
    /// The settings without dynamic broker configs.
    settings: Arc<BrokerConfig>,
    /// The bound address of each controller listener, by name.
    addresses: Vec<(String, SocketAddr)>,
    http_address: Option<SocketAddr>,
    progress: Arc<StartProgress>,
}

/// Creates the parts of a node: binds its listeners, opens its log directories, joins the quorum,
/// and creates the controller and the broker. Spawns the HTTP port on `tasks`.
async fn compose(
    config: Config,
    environment: Environment,
    tasks: &mut JoinSet<()>,
) -> Result<Composed, ServerError> {
    let Environment { disk, network, listens, control, loggers } = environment;
    let settings = Arc::clone(&config.broker);
    let observed = Observed::new(loggers);
    let progress = &observed.progress;
    raise_descriptor_limit();
    let limits = ConnectionLimits::new(in_place(|| Limits::resolve(&settings))?);
    // All ports are bound before anything is written, so a taken port leaves no directories.
    let bound = |listeners| Bound::all(if listens { listeners } else { &[] }, &settings);
    let controllers = bound(&settings.controller_listeners).await?;
    let brokers = bound(&settings.listeners).await?;
    let http_address = observed.serve_http(&settings, tasks, &control).await?;
    let new_cluster_id = cluster_bootstrap::new_cluster_id(&settings, &*disk, &*network).await;
    let mut log_dirs = open_log_dirs(disk, &settings, new_cluster_id)?;
    let found = log_dirs.list();
    progress.stage_ended("log_dirs");
    let addresses = controllers.addresses()?;
    let controllers = controllers.listen(&settings, &control)?;
    let config = Arc::new(ArcSwap::from_pointee(config));
    let quorum_config = cluster_bootstrap::quorum_config(&settings, &log_dirs, &network)?;
    let (quorum, image, stream) = on(&control, Quorum::start(quorum_config)).await??;
    let chosen = cluster_bootstrap::bootstrap_records(&settings, &**log_dirs.disk())?;
    let controller = start_controller(&control, &quorum, &config, chosen);
    progress.stage_ended("metadata");
    let on_reconfigured = limit_connections_again(&limits);
    let broker = Arc::new_cyclic(|broker| {
        Broker::new(Parts {
            config,
            on_reconfigured,
            log_dirs,
            found,
            image,
            quorum,
            controller,
            network,
            own_controller: Arc::new(OwnChannel::to_controller(Weak::clone(broker))),
            own_broker: Arc::new(OwnChannel::to_broker(Weak::clone(broker))),
            control,
            metrics: Arc::clone(&observed.metrics),
            loggers: Arc::clone(&observed.loggers),
            progress: Arc::clone(&observed.progress),
        })
    });
    in_place(|| broker.reconfigure(&broker.metadata()));
    observed.probes.watch(&broker);
    Ok(Composed {
        broker,
        stream,
        controllers,
        brokers,
        limits,
        settings,
        addresses,
        http_address,
        progress: observed.progress,
    })
}

/// Returns the function that applies changed connection limits. Host names in
/// `max.connections.per.ip.overrides` are resolved only if a limit has changed, because the name
/// service may be slow.
fn limit_connections_again(limits: &Arc<ConnectionLimits>) -> OnReconfigured {
    let limits = Arc::clone(limits);
    Box::new(move |before, now| {
        if before.max_connections == now.max_connections
            && before.max_connections_per_ip == now.max_connections_per_ip
        {
            return;
        }
        match Limits::resolve(now) {
            Ok(changed) => limits.set(changed),
            Err(error) => error!(%error, "changed connection limits are not applied"),
        }
    })
}

fn open_log_dirs(
    disk: Arc<dyn Disk>,
    settings: &BrokerConfig,
    new_cluster_id: String,
) -> Result<LogDirs, DirsError> {
    let owner = Owner {
        node_id: BrokerId(settings.node_id),
        cluster_id: None,
        new_cluster_id,
        boot_id: boot_id(),
    };
    LogDirs::open(disk, &settings.log_dirs, &settings.metadata_log_dir, &owner, new_uuid)
}

/// Metrics, start progress, probes and loggers: they exist before the broker does.
struct Observed {
    metrics: Arc<Metrics>,
    progress: Arc<StartProgress>,
    probes: Arc<Probes>,
    loggers: Arc<Loggers>,
}

impl Observed {
    fn new(loggers: Loggers) -> Self {
        let (metrics, progress) = (Metrics::new(), Arc::<StartProgress>::default());
        let collected = Arc::clone(&progress);
        metrics.add_collector(Box::new(move |scrape| collected.collect(scrape)));
        let probes = Arc::new(Probes::new(Arc::clone(&progress)));
        Self { metrics, progress, probes, loggers: Arc::new(loggers) }
    }

    /// Starts the HTTP port and returns its address. If the default port is taken, the node starts
    /// without it; if a configured port is taken, the start fails. The port is served on the
    /// control runtime, so that probes are answered while all other workers wait for a disk.
    async fn serve_http(
        &self,
        settings: &BrokerConfig,
        tasks: &mut JoinSet<()>,
        control: &Handle,
    ) -> Result<Option<SocketAddr>, ServerError> {
        let Some(http) = &settings.http_listener else { return Ok(None) };
        let address = format!("{}:{}", http.host, http.port);
        let bind = TcpListener::bind((http.host.clone(), http.port));
        let socket = match on(control, bind).await? {
            Ok(socket) => socket,
            Err(error) if !http.is_explicit => {
                warn!(%error, "metrics are off: cannot listen on the default address {address}");
                return Ok(None);
            }
            Err(source) => {
                return Err(ServerError::Bind { name: "http.listener".into(), address, source });
            }
        };
        let local = socket.local_addr()?;
        let (metrics, probes) = (Arc::clone(&self.metrics), Arc::clone(&self.probes));
        let serve = async move {
            if let Err(error) = telemetry::http::serve(socket, metrics, probes).await {
                error!(%error, "the HTTP port has failed");
            }
        };
        tasks.spawn_on(serve, control);
        Ok(Some(local))
    }
}

fn start_controller(
    runtime: &Handle,
    quorum: &Quorum,
    config: &Arc<ArcSwap<Config>>,
    bootstrap: Option<Vec<MetadataRecord>>,
) -> Controller {
    let _runtime = runtime.enter();
    Controller::start(quorum.clone(), controller::Settings::new(config), bootstrap)
}

/// Runs a step of the start on another runtime and waits for it.
async fn on<T: Send + 'static>(
    runtime: &Handle,
    step: impl Future<Output = T> + Send + 'static,
) -> Result<T, io::Error> {
    runtime.spawn(step).await.map_err(io::Error::other)
}

/// Opens the logs on blocking threads. This takes long after a crash of the machine.
async fn begin_to_serve(broker: &Arc<Broker>) -> Result<(), io::Error> {
    let broker = Arc::clone(broker);
    blocking(move || broker.begin_to_serve()).await.map_err(io::Error::other)
}

/// Raises the limit of open files to the allowed maximum. A broker needs a file per active segment
/// and a socket per connection.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            warn!(%error, "cannot raise the limit of open files, it stays at {:?}", limit.current);
        }
    }
}

#[cfg(test)]
mod tests;
