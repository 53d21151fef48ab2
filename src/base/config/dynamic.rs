//! Checks of configs that are set while the broker runs, of topics, brokers, groups and client
//! metrics, with Kafka's error messages.

use super::{
    Config, ConfigError, ConfigErrorKind, Properties, effects, key::Mode, keys, parse, parse::Value,
};

/// Keys that can be changed only per listener (`DynamicBrokerConfig.DYNAMIC_SECURITY_CONFIGS`).
const PER_LISTENER: &[&str] = &[
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// Listener keys that can be set for all brokers at once.
const CLUSTER_LEVEL_OF_LISTENER: &[&str] =
    &["max.connections", "max.connection.creation.rate", "num.network.threads"];

/// Keys whose value may at most double or halve in one change.
const THREADS: &[&str] = &[
    "num.io.threads",
    "num.replica.fetchers",
    "num.recovery.threads.per.data.dir",
    "background.threads",
    "num.network.threads",
    "log.cleaner.threads",
];

/// Checks all configs of a topic (`LogConfig.validate` of Kafka).
pub fn validate_topic_configs(config: &Config, configs: &Properties) -> Result<(), ConfigError> {
    if let Some(unknown) = configs.keys().find(|name| !keys::topic().contains_key(name.as_str())) {
        let message = format!("Unknown topic config name: {unknown}");
        return Err(ConfigError::config(message));
    }
    let values = super::topic::TopicValues::resolve(config, configs)?;
    let integer = |name: &str| match values.get(name) {
        Some(Value::Integer(value)) => *value,
        _ => 0,
    };
    let (min, max) = (integer("min.compaction.lag.ms"), integer("max.compaction.lag.ms"));
    if min > max {
        return Err(ConfigError::config(format!(
            "conflict topic config setting min.compaction.lag.ms ({min}) > \
             max.compaction.lag.ms ({max})"
        )));
    }
    let is_tiered = matches!(values.get("remote.storage.enable"), Some(Value::Boolean(true)));
    if is_tiered && !config.values().bool("remote.log.storage.system.enable") {
        return Err(ConfigError::config(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
             with remote log storage.",
        ));
    }
    Ok(())
}

/// Checks all configs of a client metrics subscription (`ClientMetricsConfigs.validate` of Kafka).
pub fn validate_client_metrics_configs(configs: &Properties) -> Result<(), ConfigError> {
    for (name, text) in configs {
        let Some(key) = keys::client_metrics().get(name.as_str()) else {
            let message = format!("Unknown client metrics configuration: {name}");
            return Err(ConfigError::request(message));
        };
        match parse::value(key, name, text)? {
            Value::Integer(ms) if !(100..=3_600_000).contains(&ms) => {
                return Err(ConfigError::request(format!(
                    "Invalid value {ms} for interval.ms, interval must be between 100 and 3600000 \
                     (1 hour)"
                )));
            }
            Value::List(patterns) if name == "match" => {
                if let Some(pattern) = patterns.iter().find(|pattern| !is_client_match(pattern)) {
                    let message = format!("Illegal client matching pattern: {pattern}");
                    return Err(ConfigError::config(message));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a pattern is `name=regular expression`. Of the expression, only the brackets are
/// checked.
fn is_client_match(pattern: &str) -> bool {
    const NAMES: &[&str] = &[
        "client_instance_id",
        "client_id",
        "client_software_name",
        "client_software_version",
        "client_source_address",
        "client_source_port",
    ];
    let Some((name, expression)) = pattern.split_once('=') else { return false };
    let count = |c: char| expression.matches(c).count();
    NAMES.contains(&name.trim())
        && !expression.trim().is_empty()
        && count('[') <= count(']')
        && count('(') == count(')')
}

impl Config {
    /// Checks a single config of a topic.
    pub fn validate_topic_config(&self, name: &str, value: &str) -> Result<(), ConfigError> {
        let one = Properties::from([(name.to_owned(), value.to_owned())]);
        validate_topic_configs(self, &one)
    }

    /// Checks a single dynamic config of this broker, or of all brokers.
    pub fn validate_broker_config(
        &self,
        name: &str,
        value: &str,
        per_broker: bool,
    ) -> Result<(), ConfigError> {
        let level = if per_broker { &self.per_broker } else { &self.cluster_default };
        let mut configs = Properties::clone(level);
        configs.insert(name.to_owned(), value.to_owned());
        self.validate_broker_configs(&configs, per_broker)
    }

    /// Checks all dynamic configs of this broker (resource name: its id) or of all brokers
    /// (resource name ""), as they would be after a change. Every error becomes INVALID_REQUEST, as
    /// in Kafka (KAFKA-13609).
    pub fn validate_broker_configs(
        &self,
        configs: &Properties,
        per_broker: bool,
    ) -> Result<(), ConfigError> {
        check_names(configs, per_broker)
            .and_then(|()| check_types(configs))
            .and_then(|()| effects::check_protection(configs))
            .and_then(|()| self.check_whole(configs, per_broker))
            .map_err(as_request)
    }

    fn check_whole(&self, configs: &Properties, per_broker: bool) -> Result<(), ConfigError> {
        if configs.get("log.cleaner.threads").is_some_and(|text| text.trim() == "0") {
            return Err(ConfigError::config("/ by zero")); // Kafka shares a buffer among them
        }
        let changed = match per_broker {
            true => self.with_dynamic(&self.cluster_default, configs),
            false => self.with_dynamic(configs, &self.per_broker),
        }?;
        for name in THREADS {
            check_threads(name, self.values.i64(name), changed.values.i64(name))?;
        }
        for (local, whole) in [
            ("log.local.retention.ms", "log.retention.ms"),
            ("log.local.retention.bytes", "log.retention.bytes"),
        ] {
            let whole_value = match whole {
                "log.retention.ms" => super::topic::retention_ms(&changed.values),
                _ => changed.values.i64(whole),
            };
            check_local_retention((local, changed.values.i64(local)), (whole, whole_value))?;
        }
        Ok(())
    }
}

fn as_request(error: ConfigError) -> ConfigError {
    let message = match error.kind {
        ConfigErrorKind::Requirement => format!("requirement failed: {}", error.message),
        _ => error.message,
    };
    ConfigError::request(message)
}

/// Kafka's message when a component of the running broker refuses its new configuration.
fn refused_change(why: &str) -> ConfigError {
    ConfigError::config(format!(
        "Invalid value org.apache.kafka.common.config.ConfigException: {why} for configuration \
         Invalid dynamic configuration"
    ))
}

fn check_threads(name: &str, old: i64, new: i64) -> Result<(), ConfigError> {
    let is_cleaner = name == "log.cleaner.threads";
    let why = match () {
        () if new > old * 2 && is_cleaner => format!(
            "Log cleaner threads cannot be increased to more than double the current value {old}"
        ),
        () if new < old / 2 && is_cleaner => format!(
            "Log cleaner threads cannot be reduced to less than half the current value {old}"
        ),
        () if new > old * 2 => format!(
            "Dynamic thread count update validation failed for {name}={new}, value should not be \
             greater than double the current value {old}"
        ),
        () if new < old / 2 => format!(
            "Dynamic thread count update validation failed for {name}={new}, value should be at \
             least half the current value {old}"
        ),
        () => return Ok(()),
    };
    Err(refused_change(&why))
}

/// Checks that local retention does not exceed total retention. A local value of -2 means the total
/// retention.
fn check_local_retention(local: (&str, i64), whole: (&str, i64)) -> Result<(), ConfigError> {
    let ((local_name, local), (whole_name, whole)) = (local, whole);
    if whole == -1 || local == -2 {
        return Ok(());
    }
    let why = match local {
        -1 => format!("Value must not be -1 as {whole_name} value is set as {whole}."),
        _ if local > whole => {
            format!("Value must not be more than {whole_name} property value: {whole}")
        }
        _ => return Ok(()),
    };
    Err(refused_change(&parse::invalid(local_name, &local.to_string(), &why).message))
}

fn refuse_names(names: &[&str], why: &str) -> Result<(), ConfigError> {
    match names {
        [] => Ok(()),
        names => Err(ConfigError::config(format!("{why}: [{}]", names.join(", ")))),
    }
}

fn check_names(configs: &Properties, per_broker: bool) -> Result<(), ConfigError> {
    let such = |is_refused: fn(&str) -> bool| -> Vec<&str> {
        configs.keys().map(String::as_str).filter(|name| is_refused(name)).collect()
    };
    let is_read_only = |name: &str| {
        let key = keys::broker().get(name);
        key.is_some_and(|key| key.mode == Mode::ReadOnly)
    };
    refuse_names(&such(is_read_only), "Cannot update these configs dynamically")?;
    // Unlike Sordini, Kafka also resolves variables in dynamic configs.
    refuse_names(
        &such(|name| name.starts_with("config.providers")),
        "Config providers can be set at the start only",
    )?;
    refuse_names(
        &such(|name| PER_LISTENER.contains(&name)),
        "These security configs can be dynamically updated only per-listener using the listener \
         prefix",
    )?;
    if per_broker {
        return Ok(());
    }
    let needs_broker = |name: &str| match keys::listener_base_name(name) {
        Some(base) => !CLUSTER_LEVEL_OF_LISTENER.contains(&base),
        None => keys::broker().get(name).is_some_and(|key| key.mode == Mode::PerBroker),
    };
    check_types(configs)?;
    refuse_names(
        &such(needs_broker),
        "Cannot update these configs at default cluster level, broker id must be specified",
    )
}

fn check_types(configs: &Properties) -> Result<(), ConfigError> {
    for (name, text) in configs {
        if let Some(key) = keys::find_broker(name) {
            parse::value(key, key.name, text)?;
        }
    }
    Ok(())
}
