//! The typed view of a broker's configuration.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    ClusterConfig, ConfigError, Properties,
    groups::{self, ConsumerGroupSettings, GroupSettings},
    listeners::{Listener, Listeners, SecurityProtocol},
    parse::host_and_port,
    values::Values,
};

/// The listener of `/metrics` and `/health`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpListener {
    pub host: String,
    pub port: u16,
    /// False for the default. If the default port is taken, for example by a second broker on the
    /// machine, the start logs a warning. If a configured port is taken, the start fails.
    pub is_explicit: bool,
}

/// `max.connections.per.ip`, and its overrides by host as they are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PerIpLimits {
    pub max: i32,
    pub overrides: BTreeMap<String, i32>,
}

/// The settings of transaction coordinators, and of partition leaders that ask them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionSettings {
    pub transaction_max_timeout_ms: i32,
    pub transactional_id_expiration_ms: i32,
    pub transaction_abort_timed_out_transaction_cleanup_interval_ms: i32,
    pub transaction_remove_expired_transaction_cleanup_interval_ms: i32,
    pub transaction_state_log_num_partitions: i32,
    pub transaction_state_log_replication_factor: i16,
    pub transaction_state_log_min_isr: i32,
    pub transaction_state_log_segment_bytes: i32,
    pub transaction_partition_verification_enable: bool,
    pub add_partitions_to_txn_retry_backoff_ms: i32,
    pub add_partitions_to_txn_retry_backoff_max_ms: i32,
}

/// The settings of the threads that compact logs (`CleanerConfig` of Kafka).
#[derive(Clone, PartialEq, Debug)]
pub struct CleanerSettings {
    pub log_cleaner_enable: bool,
    pub log_cleaner_threads: i32,
    /// Bytes of the maps of all threads together.
    pub log_cleaner_dedupe_buffer_size: i64,
    /// Bytes of the buffers of all threads together.
    pub log_cleaner_io_buffer_size: i32,
    pub log_cleaner_io_buffer_load_factor: f64,
    pub log_cleaner_io_max_bytes_per_second: f64,
    pub log_cleaner_backoff_ms: i64,
}

/// All settings of a broker. Names are Kafka's with `_` for `.`, and units are last.
#[derive(Clone, PartialEq, Debug)]
pub struct BrokerConfig {
    pub node_id: i32,
    pub broker_rack: Option<String>,
    /// The host of advertised listeners that have none.
    pub host_name: String,

    /// The listeners for clients and brokers, without those of `controller.listener.names`.
    pub listeners: Vec<Listener>,
    pub controller_listeners: Vec<Listener>,
    /// Where other nodes reach this controller. Empty if it has no listener for them.
    pub advertised_controller_listeners: Vec<Listener>,
    pub advertised_listeners: Vec<Listener>,
    pub inter_broker_listener: String,
    /// `None`: metrics and health are off.
    pub http_listener: Option<HttpListener>,
    pub logging_level: String,
    pub logging_json: bool,

    pub log_dirs: Vec<PathBuf>,
    /// Those of `log_dirs` that get no new partitions.
    pub cordoned_log_dirs: Vec<PathBuf>,
    pub metadata_log_dir: PathBuf,

    pub num_partitions: i32,
    pub default_replication_factor: i32,
    pub min_insync_replicas: i32,
    pub auto_create_topics_enable: bool,
    pub delete_topic_enable: bool,

    pub socket_send_buffer_bytes: i32,
    pub socket_receive_buffer_bytes: i32,
    pub socket_request_max_bytes: i32,
    /// `None` unless it is configured. The limit of the system applies then.
    pub socket_listen_backlog: Option<i32>,
    pub connections_max_idle_ms: i64,
    pub max_connections: i32,
    pub max_connections_per_ip: PerIpLimits,
    pub num_recovery_threads_per_data_dir: i32,
    pub background_threads: i32,
    /// `None` stands for the number of log directories.
    pub num_replica_alter_log_dirs_threads: Option<i64>,

    pub fetch_max_bytes: i32,
    pub max_incremental_fetch_session_cache_slots: i32,
    pub max_request_partition_size_limit: i32,

    pub log_retention_check_interval_ms: i64,
    pub log_flush_scheduler_interval_ms: i64,
    pub log_flush_offset_checkpoint_interval_ms: i32,
    pub replica_high_watermark_checkpoint_interval_ms: i64,
    pub log_initial_task_delay_ms: i64,

    pub unstable_api_versions_enable: bool,
    pub producer_id_expiration_ms: i32,
    pub producer_id_expiration_check_interval_ms: i32,

    pub cleaner: CleanerSettings,
    pub group: GroupSettings,
    pub consumer_group: ConsumerGroupSettings,
    pub transaction: TransactionSettings,
    pub cluster: ClusterConfig,
}

impl BrokerConfig {
    pub(super) fn from_values(
        values: &Values,
        statics: &Properties,
        host_name: &str,
    ) -> Result<Self, ConfigError> {
        check(values)?;
        let listeners = Listeners::from_values(values, host_name)?;
        let broker = Self::read(values, statics, listeners, host_name)?;
        broker.check_security()?;
        let has_controllers = !broker.controller_listeners.is_empty();
        broker.cluster.check(broker.node_id, has_controllers)?;
        Ok(broker)
    }

    fn read(
        values: &Values,
        statics: &Properties,
        listeners: Listeners,
        host_name: &str,
    ) -> Result<Self, ConfigError> {
        let log_dirs = log_dirs(values);
        // If a listener has the default port of `http.listener`, metrics and health are off.
        let mut all = listeners.broker.iter().chain(&listeners.controller);
        let http_listener = http_listener(values, statics)?
            .filter(|http| http.is_explicit || !all.any(|it| it.port == http.port));
        let metadata_log_dir = values.text("metadata.log.dir").map(PathBuf::from);
        Ok(Self {
            node_id: values.i32("node.id"),
            broker_rack: values.text("broker.rack").map(str::to_owned),
            host_name: host_name.to_owned(),
            listeners: listeners.broker,
            controller_listeners: listeners.controller,
            advertised_controller_listeners: listeners.advertised_controller,
            advertised_listeners: listeners.advertised,
            inter_broker_listener: listeners.inter_broker,
            http_listener,
            logging_level: values.text("logging.level").unwrap_or_default().to_owned(),
            logging_json: values.text("logging.format") == Some("json"),
            metadata_log_dir: metadata_log_dir.or(log_dirs.first().cloned()).unwrap_or_default(),
            cordoned_log_dirs: cordoned(values, &log_dirs),
            log_dirs,
            num_partitions: values.i32("num.partitions"),
            default_replication_factor: values.i32("default.replication.factor"),
            min_insync_replicas: values.i32("min.insync.replicas"),
            auto_create_topics_enable: values.bool("auto.create.topics.enable"),
            delete_topic_enable: values.bool("delete.topic.enable"),
            socket_send_buffer_bytes: values.i32("socket.send.buffer.bytes"),
            socket_receive_buffer_bytes: values.i32("socket.receive.buffer.bytes"),
            socket_request_max_bytes: values.i32("socket.request.max.bytes"),
            socket_listen_backlog: listen_backlog(values, statics),
            connections_max_idle_ms: values.i64("connections.max.idle.ms"),
            max_connections: values.i32("max.connections"),
            max_connections_per_ip: per_ip_limits(values)?,
            background_threads: values.i32("background.threads"),
            num_recovery_threads_per_data_dir: values.i32("num.recovery.threads.per.data.dir"),
            num_replica_alter_log_dirs_threads: values.long("num.replica.alter.log.dirs.threads"),
            fetch_max_bytes: values.i32("fetch.max.bytes"),
            max_incremental_fetch_session_cache_slots: values
                .i32("max.incremental.fetch.session.cache.slots"),
            max_request_partition_size_limit: values.i32("max.request.partition.size.limit"),
            log_retention_check_interval_ms: values.i64("log.retention.check.interval.ms"),
            log_flush_scheduler_interval_ms: values.i64("log.flush.scheduler.interval.ms"),
            log_flush_offset_checkpoint_interval_ms: values
                .i32("log.flush.offset.checkpoint.interval.ms"),
            replica_high_watermark_checkpoint_interval_ms: values
                .i64("replica.high.watermark.checkpoint.interval.ms"),
            log_initial_task_delay_ms: values.i64("log.initial.task.delay.ms"),
            unstable_api_versions_enable: values.bool("unstable.api.versions.enable"),
            producer_id_expiration_ms: values.i32("producer.id.expiration.ms"),
            producer_id_expiration_check_interval_ms: values
                .i32("producer.id.expiration.check.interval.ms"),
            cleaner: CleanerSettings::read(values),
            group: GroupSettings::read(values),
            consumer_group: ConsumerGroupSettings::read(values)?,
            transaction: TransactionSettings::read(values),
            cluster: ClusterConfig::from_values(values),
        })
    }

    /// Refuses a listener whose security protocol is not supported, because it would be less secure
    /// than configured.
    fn check_security(&self) -> Result<(), ConfigError> {
        let all = self.listeners.iter().chain(&self.controller_listeners);
        match all.into_iter().find(|listener| listener.protocol != SecurityProtocol::Plaintext) {
            None => Ok(()),
            Some(listener) => Err(ConfigError::config(format!(
                "Invalid value {} for configuration listeners: the security protocol {} is not \
                 supported yet, only PLAINTEXT is",
                listener.name,
                listener.protocol.name()
            ))),
        }
    }
}

impl CleanerSettings {
    fn read(values: &Values) -> Self {
        // With NaN, no two settings would be equal.
        let number = |name: &str, instead_of_nan: f64| {
            Some(values.f64(name)).filter(|number| !number.is_nan()).unwrap_or(instead_of_nan)
        };
        Self {
            log_cleaner_enable: values.bool("log.cleaner.enable"),
            log_cleaner_threads: values.i32("log.cleaner.threads"),
            log_cleaner_dedupe_buffer_size: values.i64("log.cleaner.dedupe.buffer.size"),
            log_cleaner_io_buffer_size: values.i32("log.cleaner.io.buffer.size"),
            log_cleaner_io_buffer_load_factor: number("log.cleaner.io.buffer.load.factor", 0.0),
            log_cleaner_io_max_bytes_per_second: number(
                "log.cleaner.io.max.bytes.per.second",
                f64::MAX,
            ),
            log_cleaner_backoff_ms: values.i64("log.cleaner.backoff.ms"),
        }
    }
}

impl TransactionSettings {
    fn read(values: &Values) -> Self {
        Self {
            transaction_max_timeout_ms: values.i32("transaction.max.timeout.ms"),
            transactional_id_expiration_ms: values.i32("transactional.id.expiration.ms"),
            transaction_abort_timed_out_transaction_cleanup_interval_ms: values
                .i32("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
            transaction_remove_expired_transaction_cleanup_interval_ms: values
                .i32("transaction.remove.expired.transaction.cleanup.interval.ms"),
            transaction_state_log_num_partitions: values
                .i32("transaction.state.log.num.partitions"),
            transaction_state_log_replication_factor: values
                .i16("transaction.state.log.replication.factor"),
            transaction_state_log_min_isr: values.i32("transaction.state.log.min.isr"),
            transaction_state_log_segment_bytes: values.i32("transaction.state.log.segment.bytes"),
            transaction_partition_verification_enable: values
                .bool("transaction.partition.verification.enable"),
            add_partitions_to_txn_retry_backoff_ms: values
                .i32("add.partitions.to.txn.retry.backoff.ms"),
            add_partitions_to_txn_retry_backoff_max_ms: values
                .i32("add.partitions.to.txn.retry.backoff.max.ms"),
        }
    }
}

fn log_dirs(values: &Values) -> Vec<PathBuf> {
    let dirs = values.list("log.dirs").or(values.list("log.dir")).unwrap_or_default();
    dirs.iter().map(PathBuf::from).collect()
}

fn cordoned(values: &Values, log_dirs: &[PathBuf]) -> Vec<PathBuf> {
    let named = values.list("cordoned.log.dirs").unwrap_or_default();
    let is_cordoned =
        |dir: &&PathBuf| named.iter().any(|name| name == "*" || dir.as_path() == Path::new(name));
    log_dirs.iter().filter(is_cordoned).cloned().collect()
}

fn http_listener(
    values: &Values,
    statics: &Properties,
) -> Result<Option<HttpListener>, ConfigError> {
    const NAME: &str = "http.listener";
    let text = values.text(NAME).unwrap_or_default();
    if text.is_empty() || text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let address = text.strip_prefix("http://").unwrap_or(text);
    let parsed = match address.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| ("0.0.0.0", port)),
        None => host_and_port(address),
    };
    match parsed {
        Some((host, port)) => Ok(Some(HttpListener {
            host: host.to_owned(),
            port,
            is_explicit: statics.contains_key(NAME),
        })),
        None => Err(super::parse::invalid(NAME, text, "It must be host:port, or none")),
    }
}

/// The configured backlog only. Kafka's default of 50 makes clients wait for a second if more of
/// them connect at once.
fn listen_backlog(values: &Values, statics: &Properties) -> Option<i32> {
    const NAME: &str = "socket.listen.backlog.size";
    statics.contains_key(NAME).then(|| values.i32(NAME))
}

fn per_ip_limits(values: &Values) -> Result<PerIpLimits, ConfigError> {
    const NAME: &str = "max.connections.per.ip.overrides";
    let text = values.text(NAME).unwrap_or_default();
    let mut overrides = BTreeMap::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let parsed = entry.rsplit_once(':').and_then(|(host, count)| {
            let count: i32 = count.trim().parse().ok()?;
            Some((host.trim(), count))
        });
        let Some((host, count)) = parsed else {
            return Err(super::parse::invalid(NAME, text, "Each entry must be host:count"));
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-_.:%[]".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            let message = format!("{NAME} contains invalid addresses : {host}");
            return Err(ConfigError::config(message));
        }
        overrides.insert(host.to_owned(), count);
    }
    let max = values.i32("max.connections.per.ip");
    if max == 0 && overrides.is_empty() {
        return Err(ConfigError::requirement(format!(
            "max.connections.per.ip can be set to zero only if {NAME} property is set."
        )));
    }
    Ok(PerIpLimits { max, overrides })
}

/// Checks the rules about several keys (`AbstractKafkaConfig.validateValues` and
/// `GroupCoordinatorConfig` of Kafka).
fn check(values: &Values) -> Result<(), ConfigError> {
    let require = |holds: bool, message: &str| match holds {
        true => Ok(()),
        false => Err(ConfigError::requirement(message)),
    };
    let retention_ms = super::topic::retention_ms(values);
    require(
        retention_ms != 0,
        "log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
    )?;
    require(super::topic::roll_ms(values) >= 1, "log.roll.ms must be greater than or equal to 1")?;
    require(
        super::topic::roll_jitter_ms(values) >= 0,
        "log.roll.jitter.ms must be greater than or equal to 0",
    )?;
    require(
        values.i64("replica.fetch.wait.max.ms") <= values.i64("replica.lag.time.max.ms"),
        "replica.fetch.wait.max.ms should always be less than or equal to \
         replica.lag.time.max.ms to prevent frequent changes in ISR",
    )?;
    // Kafka divides by it, so its broker does not start with 0 either.
    let threads = values.i64("log.cleaner.threads");
    require(threads > 0, "log.cleaner.threads must be at least 1.")?;
    require(
        values.i64("log.cleaner.dedupe.buffer.size") / threads > 1024 * 1024,
        "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.",
    )?;
    let codec = values.i64("offsets.topic.compression.codec");
    require((0..=4).contains(&codec), &format!("Unknown compression type id: {codec}"))?;
    let protocols = values.list("group.coordinator.rebalance.protocols").unwrap_or_default();
    require(
        protocols.iter().any(|protocol| protocol == "classic"),
        "Disabling the 'classic' protocol is not supported.",
    )?;
    check_cordoned(values)?;
    groups::check_limits(values)
}

fn check_cordoned(values: &Values) -> Result<(), ConfigError> {
    let dirs = log_dirs(values);
    let cordoned = values.list("cordoned.log.dirs").unwrap_or_default();
    let is_missing = |dir: &&String| *dir != "*" && !dirs.contains(&PathBuf::from(dir));
    let missing: Vec<&str> = cordoned.iter().filter(is_missing).map(String::as_str).collect();
    match missing.as_slice() {
        [] => Ok(()),
        missing => Err(ConfigError::requirement(format!(
            "All entries in cordoned.log.dirs must be present in log.dirs or log.dir. Missing \
             entries : {}",
            missing.join(",")
        ))),
    }
}
