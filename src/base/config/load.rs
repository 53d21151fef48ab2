//! Loads a configuration from its sources. In increasing precedence: the defaults, a properties
//! file, the environment, and the command line.

use std::fmt;

use config::{Map, Source, Value as Found};

use super::{
    Config, ConfigError, FileAccess, Properties, defaults, effects, ignored_configs, keys, parse,
    providers,
};

/// The sources that the caller has read. Only `files` opens anything.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The properties file's name, for messages, and its bytes. Without a file, defaults make a
    /// broker that serves only this machine.
    pub file: Option<(String, Vec<u8>)>,
    /// All environment variables. Those that begin with `KAFKA_` are configuration.
    pub environment: Vec<(String, String)>,
    /// The pairs of `--override`.
    pub overrides: Vec<(String, String)>,
    /// This machine's name, which is advertised if no host is configured.
    pub host_name: String,
    /// The files that `config.providers` may read.
    pub files: FileAccess,
}

/// A configuration and warnings about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<String>,
}

/// Why a configuration is refused, and which settings caused that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadError {
    pub error: ConfigError,
    /// Each key that the error names, with the file and line, variable or argument that sets it.
    pub causes: Vec<(String, String)>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        let causes = self.causes.iter().map(|(name, origin)| format!("{origin} sets {name}"));
        match causes.collect::<Vec<_>>().as_slice() {
            [] => Ok(()),
            causes => write!(f, " ({})", causes.join(", ")),
        }
    }
}

impl LoadError {
    fn new(error: ConfigError, origins: &Properties) -> Self {
        let is_named = |name: &&String| names(&error.message, name);
        let causes =
            origins.keys().filter(is_named).map(|name| (name.clone(), origins[name].clone()));
        Self { causes: causes.collect(), error }
    }
}

/// Whether a text contains this key as a whole word.
fn names(text: &str, key: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.split(|c| !is_part(c)).any(|word| word.trim_end_matches('.') == key)
}

/// Joins the sources and checks the result. Fails with the first value that is not allowed.
pub fn load(sources: Sources) -> Result<Loaded, LoadError> {
    let has_file = sources.file.is_some();
    let file = sources.file.as_ref().map(|(name, bytes)| from_file(name, bytes)).transpose();
    let layers = file.and_then(|file| {
        let overrides = sources.overrides.iter().map(|(name, value)| Setting {
            name: name.clone(),
            value: value.clone(),
            origin: "--override".to_owned(),
        });
        let environment = from_environment(&sources.environment);
        join([Layer(file.unwrap_or_default()), Layer(environment), Layer(overrides.collect())])
    });
    let (properties, origins) = layers.map_err(|error| LoadError { error, causes: Vec::new() })?;
    let outside = providers::Outside { environment: &sources.environment, files: sources.files };
    let checked = providers::resolve(properties, &outside)
        .map_err(|error| (error, Vec::new()))
        .and_then(|found| {
            check(found.properties, &origins, &sources, has_file, found.warnings)
                .map_err(|error| (error, found.variables))
        });
    checked.map_err(|(mut error, variables)| {
        // A value from a provider may be secret, so the message shows the variable instead.
        for (written, value) in variables.iter().filter(|(_, value)| value.len() >= SECRET_MIN) {
            error.message = error.message.replace(value, written);
        }
        LoadError::new(error, &origins)
    })
}

/// Length in bytes from which a value of a provider is hidden in messages. A shorter one is no
/// secret, and may be in a message by chance.
const SECRET_MIN: usize = 4;

fn check(
    mut properties: Properties,
    origins: &Properties,
    sources: &Sources,
    has_file: bool,
    mut warnings: Vec<String>,
) -> Result<Loaded, ConfigError> {
    adopt_legacy_keys(&mut properties, &mut warnings)?;
    effects::check_protection(&properties)?;
    warnings.extend(without_effect(&properties));
    for name in properties.keys() {
        let origin = origins.get(name).map_or("", String::as_str);
        warnings.extend(unknown_key(name, origin));
    }
    defaults::fill_in(&mut properties, has_file);
    let config = Config::new(properties, &sources.host_name)?;
    warnings.extend(unusable(&config));
    Ok(Loaded { config, warnings })
}

/// A pair, and its origin: file and line, variable or argument.
#[derive(Clone, Debug)]
struct Setting {
    name: String,
    value: String,
    origin: String,
}

fn from_file(file: &str, bytes: &[u8]) -> Result<Vec<Setting>, ConfigError> {
    let located = |error: ConfigError| ConfigError::config(format!("{file}, {}", error.message));
    let pairs = parse::properties(bytes).map_err(located)?.into_iter();
    let setting = |it: parse::Property| Setting {
        name: it.name,
        value: it.value,
        origin: format!("{file}, line {}", it.line),
    };
    Ok(pairs.map(setting).collect())
}

/// The `config` crate treats a dot in a name as nesting. This prefix cannot be a part of a path, so
/// a name behind it stays whole and keeps its case.
const WHOLE: char = '\u{1f}';

/// One source of settings for the `config` crate.
#[derive(Clone, Debug)]
struct Layer(Vec<Setting>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Found>, config::ConfigError> {
        let found = self.0.iter().map(|it| {
            let value = Found::new(Some(&it.origin), it.value.as_str());
            (format!("{WHOLE}{}", it.name), value)
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

/// Variables of the stock container images and of Kubernetes that are not configuration.
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

/// Settings from the environment: `KAFKA_LOG_DIRS` sets `log.dirs`, `___` is `-`, and `__` is `_`
/// (KIP-975).
fn from_environment(environment: &[(String, String)]) -> Vec<Setting> {
    let settings = environment.iter().filter_map(|(variable, value)| {
        let name = variable.strip_prefix("KAFKA_")?;
        // Kubernetes sets these variables for a service named kafka.
        let is_service_link = name.starts_with("PORT_")
            || name.starts_with("SERVICE_")
            || (name == "PORT" && value.contains("://"));
        if NO_CONFIGURATION.contains(&variable.as_str()) || is_service_link {
            return None;
        }
        let name = name.to_lowercase().replace('_', ".").replace("...", "-").replace("..", "_");
        let origin = format!("environment variable {variable}");
        Some(Setting { name, value: value.clone(), origin })
    });
    settings.collect()
}

/// Handles keys that Kafka has removed and existing files still have.
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
            "host.name and port (also advertised.*) are keys of older Kafka versions: {listeners} \
             replaces them, here {listeners}={kept}"
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

/// One warning for all keys that are set and have no effect yet.
fn without_effect(properties: &Properties) -> Option<String> {
    let set = properties.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let names = ignored_configs(set, keys::find_static);
    let listed = || format!("keys are set that have no effect yet: {}", names.join(", "));
    (!names.is_empty()).then(listed)
}

/// Settings of Kafka's authorizer, which are not broker keys.
const OF_AUTHORIZER: &[&str] = &["super.users", "allow.everyone.if.no.acl.found"];

fn unknown_key(name: &str, origin: &str) -> Option<String> {
    const FREE: &[&str] = &["config.providers.", "rsm.config.", "rlmm.config."];
    let is_known =
        keys::find_static(name).is_some() || FREE.iter().any(|prefix| name.starts_with(prefix));
    if is_known {
        return None;
    }
    if OF_AUTHORIZER.contains(&name) {
        return Some(format!("{origin} sets {name}, which has no effect without an authorizer"));
    }
    let hint = similar_key(name).map(|known| format!("; did you mean {known}?"));
    let hint = hint.unwrap_or_default();
    Some(format!("{origin} sets {name}, which is no known key and has no effect{hint}"))
}

/// The known key that is so similar to this name that it is probably meant.
fn similar_key(name: &str) -> Option<&'static str> {
    let near = (name.len() / 5).min(4);
    let known = keys::broker().keys().filter(|known| keys::find_static(known).is_some());
    let distances = known.map(|known| (strsim::damerau_levenshtein(name, known), *known));
    distances.filter(|(distance, _)| *distance <= near).min().map(|(_, known)| known)
}

const REBALANCE_PROTOCOLS: &str = "group.coordinator.rebalance.protocols";

/// Warnings about settings that are allowed, as in Kafka, but cannot work or are deprecated.
fn unusable(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let cluster = &config.broker.cluster;
    let is_alone = cluster.is_controller
        && cluster.controller_quorum_voters.len() <= 1
        && cluster.controller_quorum_bootstrap_servers.len() <= 1
        && config.broker.controller_listeners.is_empty();
    let factor = config.broker.group.offsets_topic_replication_factor;
    if is_alone && factor > 1 {
        warnings.push(format!(
            "offsets.topic.replication.factor is {factor}, but this broker is alone: consumer \
             groups will wait for __consumer_offsets until it is set to 1"
        ));
    }
    let transaction = &config.broker.transaction;
    let factor = transaction.transaction_state_log_replication_factor;
    let min_isr = transaction.transaction_state_log_min_isr;
    if is_alone && (factor > 1 || min_isr > 1) {
        warnings.push(format!(
            "transaction.state.log.replication.factor is {factor} and transaction.state.log.min.isr \
             is {min_isr}, but this broker is alone: transactional producers will wait for \
             __transaction_state until both are set to 1"
        ));
    }
    if config.statics().contains_key(REBALANCE_PROTOCOLS) {
        warnings.push(format!(
            "{REBALANCE_PROTOCOLS} is deprecated, and Kafka 5.0 will enable all protocols: remove it"
        ));
    }
    if config.broker.http_listener.is_none() && !config.statics().contains_key("http.listener") {
        warnings.push(
            "metrics are off, for a listener has the default port of http.listener: set another"
                .to_owned(),
        );
    }
    warnings
}
