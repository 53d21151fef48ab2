//! The content of a DescribeConfigs response for each kind of resource (`ConfigHelper` of Kafka),
//! as plain data.

use super::{
    Config, ConfigError, Key, Properties,
    key::{Mode, Type},
    keys,
    keys::topic::Convert,
    parse,
    parse::Value,
    topic::TopicValues,
};

/// `DescribeConfigsResponse.ConfigSource` of Kafka, with its ids on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum ConfigSource {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    BrokerLogger = 6,
    ClientMetrics = 7,
    Group = 8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synonym {
    pub name: String,
    /// `None` for a sensitive value.
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// One config of a resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub name: String,
    pub value: Option<String>,
    pub read_only: bool,
    pub source: ConfigSource,
    pub is_sensitive: bool,
    /// All synonyms, also if the request does not ask for them. The one with the highest precedence
    /// comes first.
    pub synonyms: Vec<Synonym>,
    /// `None` if the name is not in the table.
    pub kind: Option<Type>,
    pub documentation: Option<&'static str>,
}

impl Entry {
    /// The id of `ConfigEntry.ConfigType` in the response. 0 means unknown.
    pub fn type_id(&self) -> i8 {
        self.kind.map_or(0, Type::wire_id)
    }

    /// Whether the value is a default. Version 0 of DescribeConfigs has this field in place of the
    /// source.
    pub fn is_default(&self) -> bool {
        self.source == ConfigSource::Default
    }

    fn plain(name: &str, value: &str, source: ConfigSource) -> Self {
        Self {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            read_only: false,
            source,
            is_sensitive: false,
            synonyms: Vec::new(),
            kind: None,
            // An empty text, not null, as in Kafka's response for loggers.
            documentation: Some(""),
        }
    }

    fn from_key(key: &Key, value: String, synonyms: Vec<Synonym>) -> Self {
        Self {
            name: key.name.to_owned(),
            value: Some(value).filter(|_| !key.is_sensitive()),
            read_only: false,
            source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
            is_sensitive: key.is_sensitive(),
            synonyms,
            kind: Some(key.kind),
            documentation: Some(key.doc),
        }
    }
}

/// All configs that topics can have, with their values for this topic.
pub fn topic(config: &Config, overrides: &Properties) -> Result<Vec<Entry>, ConfigError> {
    let values = TopicValues::resolve(config, overrides)?;
    let is_shown = |key: &&Key| key.is_listed() || overrides.contains_key(key.name);
    let shown = keys::topic().values().copied().filter(is_shown);
    let entries = shown.filter_map(|key| {
        let value = values.get(key.name)?.text();
        let mut synonyms = Vec::new();
        if overrides.contains_key(key.name) {
            synonyms.push(synonym(key.name, &value, ConfigSource::Topic));
        }
        let stand_in = keys::topic::SYNONYMS.iter().find(|(name, _)| *name == key.name);
        if let Some((_, [(broker_name, _), ..])) = stand_in {
            synonyms.extend(broker_synonyms(config, broker_name, false));
        }
        Some(Entry::from_key(key, value, synonyms))
    });
    Ok(entries.collect())
}

/// The broker's value of a config that a topic does not set, as CreateTopics returns it
/// (`KafkaConfigSchema.resolveEffectiveTopicConfig` of Kafka): the text as it is set, under any of
/// the config's synonyms. `None` if the default of the topic config applies.
pub fn topic_config_of_broker(config: &Config, topic_key: &str) -> Option<(String, ConfigSource)> {
    let (_, synonyms) = keys::topic::SYNONYMS.iter().find(|(name, _)| *name == topic_key)?;
    let layers = [
        (config.per_broker(), ConfigSource::DynamicBroker),
        (config.cluster_default(), ConfigSource::DynamicDefaultBroker),
        (config.statics(), ConfigSource::StaticBroker),
    ];
    layers.into_iter().find_map(|(layer, source)| {
        let set = |(name, convert): &(&str, Convert)| {
            let text = layer.get(*name)?;
            let in_ms = |factor: i64| Some(text.trim().parse::<i64>().ok()?.saturating_mul(factor));
            let converted = match convert {
                Convert::Same => None,
                Convert::MinutesToMs => in_ms(60_000),
                Convert::HoursToMs => in_ms(3_600_000),
            };
            Some((converted.map_or(text.clone(), |ms| ms.to_string()), source))
        };
        synonyms.iter().find_map(set)
    })
}

/// All configs of a group. The group need not exist.
pub fn group(config: &Config, overrides: &Properties) -> Result<Vec<Entry>, ConfigError> {
    let mut entries = Vec::with_capacity(keys::group().len());
    for key in keys::group().values() {
        let stand_in = keys::group::SYNONYMS.iter().find(|(name, _)| *name == key.name);
        let from_broker = stand_in.and_then(|(_, name)| config.values().get(name)).map(Value::text);
        let default = from_broker.or(key.default_text().map(str::to_owned));
        let mut synonyms = Vec::new();
        let value = match overrides.get(key.name) {
            Some(text) => {
                let value = parse::value(key, key.name, text)?.text();
                synonyms.push(synonym(key.name, &value, ConfigSource::Group));
                value
            }
            None => default.unwrap_or_default(),
        };
        match stand_in {
            Some((_, name)) => synonyms.extend(broker_synonyms(config, name, false)),
            None => {
                let default = key.default_text();
                let default = default.map(|text| synonym(key.name, text, ConfigSource::Default));
                synonyms.extend(default);
            }
        }
        entries.push(Entry::from_key(key, value, synonyms));
    }
    Ok(entries)
}

/// This broker's configs: every listed key, and every other name that is set.
pub fn broker(config: &Config) -> Vec<Entry> {
    let layers = [config.per_broker(), config.cluster_default(), config.statics()];
    let mut names: Vec<&str> =
        layers.iter().flat_map(|layer| layer.keys()).map(String::as_str).collect();
    names.extend(keys::broker().values().filter(|key| key.is_listed()).map(|key| key.name));
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| broker_entry(config, name, true)).collect()
}

/// The dynamic configs of all brokers (resource name "").
pub fn cluster_default(config: &Config) -> Vec<Entry> {
    let names = config.cluster_default().keys();
    names.map(|name| broker_entry(config, name, false)).collect()
}

fn broker_entry(config: &Config, name: &str, per_broker: bool) -> Entry {
    let key = keys::find_broker(name);
    let is_sensitive = key.is_none_or(Key::is_sensitive);
    let value = match per_broker {
        true => config.values().get(name).map(Value::text),
        false => config.cluster_default().get(name).cloned(),
    };
    let mut synonyms = broker_synonyms(config, name, is_sensitive);
    if !per_broker {
        synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
    }
    let is_dynamic = keys::broker().get(name).is_some_and(|key| key.mode != Mode::ReadOnly);
    Entry {
        name: name.to_owned(),
        value: value.filter(|_| !is_sensitive),
        read_only: !is_dynamic,
        source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
        is_sensitive,
        synonyms,
        kind: key.map(|key| key.kind),
        documentation: key.filter(|key| !keys::DYNAMIC_ONLY.contains(&key.name)).map(|key| key.doc),
    }
}

/// All settings and defaults of a broker's key, in the order of precedence. Those under a name with
/// a higher precedence than the key's own come first and are left out, up to the first entry of the
/// key itself. So, as in Kafka, a key without a prefix does not show the values of listeners.
fn broker_synonyms(config: &Config, name: &str, is_sensitive: bool) -> Vec<Synonym> {
    let names = keys::broker_synonyms(name);
    let mut found = Vec::new();
    for (layer, source) in [
        (config.per_broker(), ConfigSource::DynamicBroker),
        (config.cluster_default(), ConfigSource::DynamicDefaultBroker),
        (config.statics(), ConfigSource::StaticBroker),
    ] {
        let set = names.iter().filter_map(|name| Some((name, layer.get(*name)?)));
        found.extend(set.map(|(name, value)| synonym(name, value, source)));
    }
    let defaults = names.iter().filter_map(|name| {
        let default = keys::broker().get(name)?.default_text()?;
        Some(synonym(name, default, ConfigSource::Default))
    });
    found.extend(defaults);
    let mut found: Vec<Synonym> =
        found.into_iter().skip_while(|synonym| synonym.name != name).collect();
    if is_sensitive {
        found.iter_mut().for_each(|synonym| synonym.value = None);
    }
    found
}

fn synonym(name: &str, value: &str, source: ConfigSource) -> Synonym {
    Synonym { name: name.to_owned(), value: Some(value.to_owned()), source }
}

/// The loggers and their levels.
pub fn loggers<'a>(levels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Entry> {
    let entry = |(name, level)| Entry::plain(name, level, ConfigSource::BrokerLogger);
    levels.into_iter().map(entry).collect()
}

/// The configs of a client metrics subscription, with defaults for those that it does not set. The
/// subscription need not exist.
pub fn client_metrics(configs: &Properties) -> Result<Vec<Entry>, ConfigError> {
    let entry = |key: &&Key| {
        let (text, source) = match configs.get(key.name) {
            Some(text) => (text.as_str(), Some(ConfigSource::ClientMetrics)),
            None => (key.default_text().unwrap_or_default(), None),
        };
        let value = parse::value(key, key.name, text)?.text();
        let synonyms = source.map(|source| synonym(key.name, &value, source));
        Ok(Entry::from_key(key, value.clone(), Vec::from_iter(synonyms)))
    };
    keys::client_metrics().values().map(entry).collect()
}
