//! Where a configuration comes from: the defaults, a properties file, the environment and the
//! command line, each over the one before.

use config::{Map, Source, Value as Found};

use super::{Config, ConfigError, Properties, effects, ignored_configs, keys, parse};

/// What a broker without a file starts with.
pub const EMBEDDED: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("listeners", "PLAINTEXT://127.0.0.1:9092"),
    ("controller.listener.names", "CONTROLLER"),
    ("log.dirs", "./data"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
];

const EMBEDDED_NAME: &str = "the embedded defaults";

/// What the caller found outside; nothing here is opened or looked up.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The properties file's name, for messages, and its bytes. Without one, [`EMBEDDED`].
    pub file: Option<(String, Vec<u8>)>,
    /// All environment variables; those that begin with `KAFKA_` count.
    pub environment: Vec<(String, String)>,
    /// The pairs of `--override`.
    pub overrides: Vec<(String, String)>,
    /// This machine's name, which is advertised where no host is given.
    pub host_name: String,
}

/// A configuration and what its owner should hear about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<String>,
}

/// Joins the sources and checks the result. The first value that does not fit is the error.
pub fn load(sources: Sources) -> Result<Loaded, ConfigError> {
    let (base, origin) = match &sources.file {
        Some((name, bytes)) => (parse::properties(bytes)?, name.as_str()),
        None => {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            (EMBEDDED.iter().map(owned).collect(), EMBEDDED_NAME)
        }
    };
    let environment = from_environment(sources.environment);
    let layers = [
        Layer::new(origin, base),
        Layer::new("the environment", environment),
        Layer::new("the command line", sources.overrides),
    ];
    let (mut properties, origins) = join(layers)?;
    let mut warnings = Vec::new();
    adopt_legacy_keys(&mut properties, &mut warnings)?;
    effects::check_protection(&properties)?;
    warnings.extend(without_effect(&properties, &origins));
    fill_in(&mut properties);
    for name in properties.keys() {
        let origin = origins.get(name).map_or("", String::as_str);
        warnings.extend(unknown_key(name, origin));
    }
    let config = Config::new(properties, &sources.host_name)?;
    warnings.extend(unusable(&config));
    Ok(Loaded { config, warnings })
}

/// One source for the `config` crate, which takes a dot in a name for nesting. Names go through
/// it behind this mark, which it cannot take for a path, so they stay whole and case is kept.
const WHOLE: char = '\u{1f}';

#[derive(Clone, Debug)]
struct Layer {
    origin: String,
    pairs: Vec<(String, String)>,
}

impl Layer {
    fn new(origin: &str, pairs: Vec<(String, String)>) -> Self {
        Self { origin: origin.to_owned(), pairs }
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Found>, config::ConfigError> {
        let found = self.pairs.iter().map(|(name, value)| {
            let value = Found::new(Some(&self.origin), value.as_str());
            (format!("{WHOLE}{name}"), value)
        });
        Ok(found.collect())
    }
}

fn join(layers: [Layer; 3]) -> Result<(Properties, Properties), ConfigError> {
    let refused = |error: config::ConfigError| ConfigError::config(error.to_string());
    let mut builder = config::Config::builder();
    for layer in layers {
        builder = builder.add_source(layer);
    }
    let joined = builder.build().map_err(refused)?;
    let mut properties = Properties::new();
    let mut origins = Properties::new();
    for (name, value) in joined.collect().map_err(refused)? {
        let name = name.trim_start_matches(WHOLE).to_owned();
        origins.insert(name.clone(), value.origin().unwrap_or_default().to_owned());
        properties.insert(name, value.into_string().map_err(refused)?);
    }
    Ok((properties, origins))
}

/// Variables of the stock container images and of Kubernetes that are no configuration.
const NO_CONFIGURATION: &[&str] = &[
    "KAFKA_VERSION",
    "KAFKA_HOME",
    "KAFKA_HEAP_OPTS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_OPTS",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
];

/// `KAFKA_LOG_DIRS` is `log.dirs`; `___` is `-` and `__` is `_` (KIP-975).
fn from_environment(environment: Vec<(String, String)>) -> Vec<(String, String)> {
    let pairs = environment.into_iter().filter_map(|(variable, value)| {
        let name = variable.strip_prefix("KAFKA_")?;
        // What Kubernetes sets for a service that is called kafka.
        let is_service_link = name.starts_with("PORT_")
            || name.starts_with("SERVICE_")
            || (name == "PORT" && value.contains("://"));
        if NO_CONFIGURATION.contains(&variable.as_str()) || is_service_link {
            return None;
        }
        let name = name.to_lowercase().replace('_', ".").replace("...", "-").replace("..", "_");
        Some((name, value))
    });
    pairs.collect()
}

/// Keys that Kafka has dropped, but that files out there still have.
fn adopt_legacy_keys(
    properties: &mut Properties,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    for (host, port, listeners) in [
        ("host.name", "port", "listeners"),
        ("advertised.host.name", "advertised.port", "advertised.listeners"),
    ] {
        let (host, port) = (properties.remove(host), properties.remove(port));
        if host.is_none() && port.is_none() {
            continue;
        }
        let kept = match (properties.get(listeners), listeners) {
            (Some(listeners), _) => listeners.clone(),
            (None, _) => {
                let host = host.as_deref().unwrap_or_default().trim();
                let port = port.as_deref().unwrap_or("9092").trim();
                let value = format!("PLAINTEXT://{host}:{port}");
                properties.insert(listeners.to_owned(), value.clone());
                value
            }
        };
        warnings.push(format!(
            "host.name and port (also advertised.*) are keys of old: {listeners} takes their \
             place, here {listeners}={kept}"
        ));
    }
    let zookeeper: Vec<String> =
        properties.keys().filter(|name| name.starts_with("zookeeper.")).cloned().collect();
    if zookeeper.iter().any(|name| name == "zookeeper.connect") {
        warnings.push(
            "zookeeper.connect has no effect: there is no ZooKeeper, this node keeps the cluster's \
             metadata itself in a log beside its data (process.roles=broker,controller)"
                .to_owned(),
        );
    }
    for name in zookeeper {
        properties.remove(&name);
    }
    let node_id = properties.get("node.id").map(|id| id.trim());
    let broker_id = properties.get("broker.id").map(|id| id.trim());
    match (node_id, broker_id) {
        (Some(node), Some(broker)) if node != broker && broker != "-1" => {
            Err(ConfigError::config("You must set `node.id` to the same value as `broker.id`."))
        }
        _ => Ok(()),
    }
}

/// Keys that Kafka demands and that have one sensible value on a node alone. Kafka shows
/// `broker.id` as set, too.
fn fill_in(properties: &mut Properties) {
    let broker_id = properties.get("broker.id").filter(|id| id.trim() != "-1").cloned();
    let node_id = properties.get("node.id").cloned().or(broker_id);
    let node_id = node_id.unwrap_or_else(|| "1".to_owned());
    properties.insert("node.id".to_owned(), node_id.clone());
    properties.insert("broker.id".to_owned(), node_id);
    let default = |properties: &mut Properties, name: &str, value: &str| {
        properties.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    default(properties, "process.roles", "broker,controller");
    default(properties, "controller.listener.names", "CONTROLLER");
}

/// One warning for all keys that somebody has set and that do nothing yet.
fn without_effect(properties: &Properties, origins: &Properties) -> Option<String> {
    let is_embedded = |name: &str| origins.get(name).is_some_and(|origin| origin == EMBEDDED_NAME);
    let set = properties.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let set = set.filter(|(name, _)| !is_embedded(name));
    let names = ignored_configs(set, keys::find_static);
    (!names.is_empty())
        .then(|| format!("keys are set that have no effect yet: {}", names.join(", ")))
}

fn unknown_key(name: &str, origin: &str) -> Option<String> {
    const FREE: &[&str] = &["config.providers.", "rsm.config.", "rlmm.config."];
    let is_known =
        keys::find_static(name).is_some() || FREE.iter().any(|prefix| name.starts_with(prefix));
    (!is_known).then(|| format!("{name} in {origin} is no known key and has no effect"))
}

/// Settings that Kafka would take, too, and then never get to work with.
fn unusable(config: &Config) -> Option<String> {
    let factor = config.broker.group.offsets_topic_replication_factor;
    let cluster = &config.broker.cluster;
    let is_alone = cluster.is_controller
        && cluster.controller_quorum_voters.len() <= 1
        && cluster.controller_quorum_bootstrap_servers.len() <= 1
        && config.broker.controller_listeners.is_empty();
    (is_alone && factor > 1).then(|| {
        format!(
            "offsets.topic.replication.factor is {factor}, but this broker is alone: consumer \
             groups will wait for __consumer_offsets until it is set to 1"
        )
    })
}
