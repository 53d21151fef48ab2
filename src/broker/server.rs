//! Starting and stopping a broker, each in one written order.

use std::{
    io::{self, Write},
    net::{Ipv6Addr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, atomic::AtomicI64},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, TcpSocket, lookup_host},
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{Broker, ProducerIds, progress::Progress, sessions::SessionCache};
use crate::{
    base::{
        BrokerId,
        config::{BrokerConfig, Config, GroupSettings, Listener},
    },
    controller::{self, Controller, ControllerError},
    coordinator::{GroupCoordinator, group::GroupConfig},
    log::{
        LogDirs, RealDisk,
        dirs::{DirsError, FoundPartition, Owner},
        id_text,
    },
    metadata::Image,
    net::{self, ConnectionLimits, Limits, Shutdown, UnknownHost},
    partition::PartitionTable,
    peers::Tcp,
    quorum::{CommittedStream, Quorum, QuorumConfig, QuorumError},
    telemetry::{self, Metrics, http::HealthCheck},
};

/// How many requests may look times up in logs at once.
const LOOK_UPS_AT_ONCE: usize = 2;
/// Kafka's default of `socket.send.buffer.bytes` and `socket.receive.buffer.bytes`.
const SOCKET_BUFFER_DEFAULT: u32 = 100 << 10;
/// Where Linux tells one run of the machine from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How long a stop waits for connections to end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

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
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error("listener {name}: cannot listen on {address}: {source}")]
    Bind { name: String, address: String, source: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A running broker.
pub struct Server {
    broker: Arc<Broker>,
    stop: watch::Sender<bool>,
    /// Closes when the last connection has ended.
    connections: mpsc::Receiver<()>,
    tasks: JoinSet<()>,
    /// Where each listener really listens, by name.
    addresses: Vec<(String, SocketAddr)>,
    http_address: Option<SocketAddr>,
}

impl Server {
    /// Runs a broker until SIGTERM or SIGINT, and stops it cleanly.
    pub async fn run(config: Config) -> Result<(), ServerError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // A start reads the tails of all logs, and a task that blocks would see no signal: another
        // one starts. What an interrupted start leaves is what a crash leaves, and no clean marker.
        let mut starting = tokio::spawn(Self::start(config));
        let server = tokio::select! {
            biased;
            started = &mut starting => started.map_err(io::Error::from)??,
            _ = terminate.recv() => {
                info!("SIGTERM: the start is given up");
                return Ok(());
            }
            _ = interrupt.recv() => {
                info!("SIGINT: the start is given up");
                return Ok(());
            }
        };
        // It is for whoever looks; a file that is full or a pipe that is closed takes it or not.
        let _ = writeln!(io::stdout(), "{}", server.banner());
        let mut all_failed = server.broker.all_dirs_failed.subscribe();
        let mut metadata_failed = server.broker.metadata_failed.subscribe();
        tokio::select! {
            // As Kafka: nothing is left to serve, and whoever started it may know a remedy.
            Ok(_) = all_failed.wait_for(|failed| *failed) => return Err(ServerError::AllDirsFailed),
            Ok(_) = metadata_failed.wait_for(|failed| *failed) => {
                return Err(ServerError::MetadataFailed);
            }
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
        }
        server.stop().await
    }

    /// Opens the data, joins the quorum, registers, and listens.
    pub async fn start(config: Config) -> Result<Self, ServerError> {
        let settings = Arc::clone(&config.broker);
        let observed = Observed::default();
        let progress = &observed.progress;
        let mut tasks = JoinSet::new();
        raise_descriptor_limit();
        let limits = tokio::task::block_in_place(|| Limits::resolve(&settings))?;
        let mut log_dirs = open_log_dirs(&settings)?;
        // Whoever watches the start sees how far it is; the directories are this process's by now.
        let http_address = observed.serve_http(&settings, &mut tasks).await?;
        let found = log_dirs.list();
        progress.stage_ended("log_dirs");
        let config = Arc::new(ArcSwap::from_pointee(config));
        let quorum_config = QuorumConfig::alone(
            settings.node_id,
            settings.metadata_log_dir.join("__cluster_metadata-0"),
        );
        let (quorum, image, stream) = Quorum::start(quorum_config).await?;
        let controller_settings = controller::Settings::new(&config);
        let controller = Controller::start(quorum.clone(), controller_settings, None);
        progress.stage_ended("metadata");
        let parts = Parts { config, limits, log_dirs, found, quorum, controller };
        let broker = Arc::new(new_broker(parts, &observed, &image));
        observed.watch(&broker);
        let image = Arc::new(image);
        tokio::select! {
            biased;
            opened = spawn_apply_start(&broker, &image) => opened.map_err(io::Error::from)?,
            () = progress.tell() => {}
        }
        progress.stage_ended("logs");
        broker.remove_leftovers();
        broker.add_gauges();
        let (stop, stopping) = watch::channel(false);
        broker.spawn_tasks(&mut tasks, &stopping);
        tasks.spawn(apply_committed(Arc::clone(&broker), stream));

        let mut listeners = Vec::new();
        for listener in settings.listeners.iter().chain(&settings.controller_listeners) {
            listeners.push((listener, bind(listener, &settings).await?));
        }
        let addresses: Vec<_> = listeners
            .iter()
            .map(|(listener, socket)| Ok((listener.name.clone(), socket.local_addr()?)))
            .collect::<io::Result<_>>()?;
        broker.register(&addresses).await?;
        tasks.spawn(Arc::clone(&broker).keep_alive());
        progress.stage_ended("register");
        let (alive, connections) = mpsc::channel(1);
        let shutdown = Shutdown { signal: stopping, alive };
        for (listener, socket) in listeners {
            let name = Arc::from(listener.name.as_str());
            let (broker, limits) = (Arc::clone(&broker), Arc::clone(&broker.connection_limits));
            tasks.spawn(net::serve(socket, name, broker, limits, shutdown.clone()));
        }
        progress.ready();
        Ok(Self { broker, stop, connections, tasks, addresses, http_address })
    }

    /// One line: where it listens, where its data and its metrics are.
    fn banner(&self) -> String {
        let settings = self.broker.settings();
        let listeners: Vec<_> =
            self.addresses.iter().map(|(name, address)| format!("{name}://{address}")).collect();
        let dirs: Vec<_> = settings.log_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let http = match self.http_address {
            Some(address) => format!("http://{address}/metrics"),
            None => "off".to_owned(),
        };
        format!(
            "sordini {} node {} listens on {}, data in {}, metrics at {http}",
            env!("CARGO_PKG_VERSION"),
            self.broker.node_id,
            listeners.join(","),
            dirs.join(","),
        )
    }

    /// Where a listener listens; for tests and for port 0.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// A controlled stop: no new connections, the open ones end, coordinators and logs are closed,
    /// checkpoints and the clean-shutdown marker are written.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.stop.send_replace(true);
        if tokio::time::timeout(DRAIN_MAX, self.connections.recv()).await.is_err() {
            warn!("connections are still open; stopping without them");
        }
        self.tasks.shutdown().await;
        self.broker.resign_coordinators();
        let broker = Arc::clone(&self.broker);
        if tokio::task::spawn_blocking(move || broker.close_logs()).await.is_err() {
            error!("the logs were not closed: the next start recovers them");
        }
        self.broker.quorum.clone().stop().await?;
        info!("stopped");
        Ok(())
    }
}

fn group_config(settings: &GroupSettings) -> GroupConfig {
    GroupConfig {
        min_session_timeout_ms: settings.min_session_timeout_ms,
        max_session_timeout_ms: settings.max_session_timeout_ms,
        initial_rebalance_delay_ms: settings.initial_rebalance_delay_ms,
        max_size: settings.max_size.max(0) as usize,
        offset_metadata_max_bytes: settings.offset_metadata_max_bytes.max(0) as usize,
        offsets_retention_ms: settings.offsets_retention_ms,
        offsets_retention_check_interval_ms: settings.offsets_retention_check_interval_ms,
        offsets_topic_num_partitions: settings.offsets_topic_num_partitions,
        ..GroupConfig::default()
    }
}

/// What a broker is made of, started in this order.
struct Parts {
    config: Arc<ArcSwap<Config>>,
    limits: Limits,
    log_dirs: LogDirs,
    found: Vec<FoundPartition>,
    quorum: Quorum,
    controller: Controller,
}

fn open_log_dirs(settings: &BrokerConfig) -> Result<LogDirs, DirsError> {
    let owner = Owner {
        node_id: BrokerId(settings.node_id),
        cluster_id: None,
        new_cluster_id: id_text::encode(Uuid::new_v4()),
        boot_id: std::fs::read_to_string(BOOT_ID).ok().map(|id| id.trim().to_owned()),
    };
    LogDirs::open(Arc::new(RealDisk), &settings.log_dirs, &owner, Uuid::new_v4)
}

/// What can be seen of a broker from outside, and before there is one.
struct Observed {
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    /// Empty until the broker is composed.
    health: Arc<OnceLock<HealthCheck>>,
}

impl Default for Observed {
    fn default() -> Self {
        let (metrics, progress) = (Metrics::new(), Arc::<Progress>::default());
        let collected = Arc::clone(&progress);
        metrics.add_collector(Box::new(move |scrape| collected.collect(scrape)));
        Self { metrics, progress, health: Arc::default() }
    }
}

impl Observed {
    fn watch(&self, broker: &Arc<Broker>) {
        // A start composes one broker.
        let _ = self.health.set(broker.health_check());
    }

    fn health_check(&self) -> HealthCheck {
        let (progress, health) = (Arc::clone(&self.progress), Arc::clone(&self.health));
        Arc::new(move || match health.get().filter(|_| progress.is_ready()) {
            Some(health) => health(),
            None => progress.health(),
        })
    }

    /// Starts the HTTP port. A default port that another broker of this machine has is no reason to
    /// fail; one that was asked for is.
    async fn serve_http(
        &self,
        settings: &BrokerConfig,
        tasks: &mut JoinSet<()>,
    ) -> Result<Option<SocketAddr>, ServerError> {
        let Some(http) = &settings.http_listener else { return Ok(None) };
        let address = format!("{}:{}", http.host, http.port);
        let socket = match TcpListener::bind((http.host.as_str(), http.port)).await {
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
        let (metrics, health) = (Arc::clone(&self.metrics), self.health_check());
        tasks.spawn(async move {
            if let Err(error) = telemetry::http::serve(socket, metrics, health).await {
                error!(%error, "the HTTP port has failed");
            }
        });
        Ok(Some(local))
    }
}

/// Logs are opened on threads that may wait for the disk, so that the HTTP port answers meanwhile.
fn spawn_apply_start(broker: &Arc<Broker>, image: &Arc<Image>) -> JoinHandle<()> {
    let (broker, image) = (Arc::clone(broker), Arc::clone(image));
    tokio::task::spawn_blocking(move || broker.apply_start(&image))
}

fn new_broker(parts: Parts, observed: &Observed, image: &Image) -> Broker {
    let Parts { config, limits, log_dirs, found, quorum, controller } = parts;
    let settings = Arc::clone(&config.load().broker);
    let slots = settings.max_incremental_fetch_session_cache_slots.max(0) as usize;
    Broker {
        node_id: settings.node_id,
        cluster_id: Arc::from(log_dirs.cluster_id()),
        config,
        metadata: ArcSwap::from_pointee(image.clone()),
        applied: watch::channel(image.offset).0,
        partitions: PartitionTable::default(),
        log_dirs: Mutex::new(log_dirs),
        unopened: Mutex::default(),
        told_ms: AtomicI64::new(0),
        applying: Mutex::default(),
        all_dirs_failed: watch::channel(false).0,
        metadata_failed: watch::channel(false).0,
        look_ups: Semaphore::new(LOOK_UPS_AT_ONCE),
        found: Mutex::new(found.into_iter().map(|it| (it.partition.clone(), it)).collect()),
        quorum,
        controller,
        network: Arc::new(Tcp),
        idle: Default::default(),
        groups: GroupCoordinator::new(group_config(&settings.group)),
        metrics: Arc::clone(&observed.metrics),
        connection_limits: ConnectionLimits::new(limits),
        producer_ids: ProducerIds::default(),
        auto_creating: Mutex::default(),
        sessions: Mutex::new(SessionCache::new(slots)),
        runtime: tokio::runtime::Handle::current(),
        progress: Arc::clone(&observed.progress),
        settled: AtomicI64::new(0),
    }
}

/// Ends only when the quorum has, or when a batch cannot be applied: then this broker's state is not
/// the cluster's any more, and it must not go on.
async fn apply_committed(broker: Arc<Broker>, mut stream: CommittedStream) {
    while let Some(batch) = stream.next().await {
        let apply = AssertUnwindSafe(|| broker.apply(&batch));
        // Opening logs touches the disk; other tasks of this worker go elsewhere meanwhile.
        if tokio::task::block_in_place(|| catch_unwind(apply)).is_err() {
            error!(offset = batch.last_offset, "committed metadata cannot be applied");
            break;
        }
    }
    broker.metadata_failed.send_replace(true);
}

async fn bind(listener: &Listener, settings: &BrokerConfig) -> Result<TcpListener, ServerError> {
    // Any address means any of both families, as for Java's sockets, however it is written.
    let host = match listener.host.as_str() {
        "" | "0.0.0.0" if has_ipv6() => "::",
        "" => "0.0.0.0",
        host => host,
    };
    let error = |source| ServerError::Bind {
        name: listener.name.clone(),
        address: format!("{host}:{}", listener.port),
        source,
    };
    let address = lookup_host((host, listener.port))
        .await
        .and_then(|mut found| found.next().ok_or(io::ErrorKind::AddrNotAvailable.into()))
        .map_err(error)?;
    let listen = || -> io::Result<TcpListener> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => {
                let socket = TcpSocket::new_v6()?;
                rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
                socket
            }
        };
        socket.set_reuseaddr(true)?;
        // Accepted sockets take their sizes from the listening one.
        if let Some(size) = buffer_size(settings.socket_receive_buffer_bytes) {
            socket.set_recv_buffer_size(size)?;
        }
        if let Some(size) = buffer_size(settings.socket_send_buffer_bytes) {
            socket.set_send_buffer_size(size)?;
        }
        socket.bind(address)?;
        socket.listen(settings.socket_listen_backlog.max(1) as u32)
    };
    listen().map_err(error)
}

/// Kafka's default size would bound what the system grows by itself to what a connection needs:
/// only another size is set. -1 leaves it to the system in Kafka too.
fn buffer_size(configured: i32) -> Option<u32> {
    u32::try_from(configured).ok().filter(|size| *size > 0 && *size != SOCKET_BUFFER_DEFAULT)
}

fn has_ipv6() -> bool {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    TcpSocket::new_v6().is_ok_and(|socket| socket.bind(any).is_ok())
}

/// A broker holds a file per busy log and a socket per connection: it takes what the system allows.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            warn!(%error, "the limit of open files stays at {:?}", limit.current);
        }
    }
}
