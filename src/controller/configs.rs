//! Changes of configurations (Kafka's `ConfigurationControlManager`).

use std::collections::BTreeMap;

use super::{Context, ControllerError, Decision, topic_names};
use crate::base::config::parse;
use crate::metadata::{
    Config, ConfigResource, ConfigResourceType, MetadataRecord,
    records::{ClearElrRecord, ConfigRecord},
};

/// Checks of configuration keys and values. `TableRules` implements it with the table of keys.
pub trait ConfigRules: Send + Sync {
    /// Checks the values that the resource would have after the change. `old` are its present
    /// values. The error says which value is invalid.
    fn validate(
        &self,
        resource: &ConfigResource,
        new: &Config,
        old: &Config,
    ) -> Result<(), ControllerError>;

    /// Whether the value of the key is a list, to which items can be appended.
    fn is_list(&self, kind: ConfigResourceType, key: &str) -> bool;

    /// The default value of the key, as text.
    fn default_value(&self, kind: ConfigResourceType, key: &str) -> Option<String>;
}

/// An operation of IncrementalAlterConfigs on one key.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigOp {
    Set(String),
    Delete,
    /// Appends items, separated by commas, to a list.
    Append(String),
    /// Removes items, separated by commas, from a list.
    Subtract(String),
}

/// Keys and values of a resource. `None` unsets the key.
pub type ConfigValues = Vec<(String, Option<String>)>;
pub type ConfigResults = Vec<(ConfigResource, Result<(), ControllerError>)>;

/// Applies the operations and returns the records. If one operation is invalid, none is applied.
pub fn change(
    cx: &Context<'_>,
    resource: &ConfigResource,
    ops: &[(String, ConfigOp)],
) -> Result<Vec<MetadataRecord>, ControllerError> {
    let current = cx.image.config(resource);
    let mut values = BTreeMap::new();
    for (key, op) in ops {
        let old = current.get(key);
        let new = match op {
            ConfigOp::Set(value) => Some(value.clone()),
            ConfigOp::Delete => None,
            ConfigOp::Append(items) => Some(edit_list(cx, resource, key, items, true)?),
            ConfigOp::Subtract(items) => Some(edit_list(cx, resource, key, items, false)?),
        };
        // A broker config gets a record even if its value does not change, so that the broker
        // reloads it (KAFKA-14136).
        if old != new.as_ref() || resource.kind == ConfigResourceType::Broker {
            values.insert(key.clone(), new);
        }
    }
    check(cx, resource, &values)?;
    Ok(to_records(resource, values))
}

fn edit_list(
    cx: &Context<'_>,
    resource: &ConfigResource,
    key: &str,
    items: &str,
    append: bool,
) -> Result<String, ControllerError> {
    let rules = &cx.settings.rules;
    if !rules.is_list(resource.kind, key) {
        let op = if append { "APPEND" } else { "SUBTRACT" };
        return Err(ControllerError::InvalidConfig(format!(
            "Can't {op} to key {key} because its type is not LIST."
        )));
    }
    let current = cx.image.config(resource).get(key).cloned();
    let current = current.or_else(|| rules.default_value(resource.kind, key)).unwrap_or_default();
    let mut list: Vec<&str> = current.split(',').filter(|item| !item.is_empty()).collect();
    for item in parse::list_items(items) {
        let at = list.iter().position(|present| *present == item);
        match at {
            None if append => list.push(item),
            Some(at) if !append => drop(list.remove(at)),
            _ => {}
        }
    }
    Ok(list.join(","))
}

/// Checks the name of the resource, and all its values after the change.
fn check(
    cx: &Context<'_>,
    resource: &ConfigResource,
    values: &BTreeMap<String, Option<String>>,
) -> Result<(), ControllerError> {
    check_name(resource)?;
    let old = cx.image.config(resource);
    let mut new = old.clone();
    for (key, value) in values {
        match value {
            Some(value) => new.insert(key.clone(), value.clone()),
            None => new.remove(key),
        };
    }
    cx.settings.rules.validate(resource, &new, old)
}

fn check_name(resource: &ConfigResource) -> Result<(), ControllerError> {
    let refuse = |why: &str| Err(ControllerError::InvalidRequest(why.into()));
    let name = &*resource.name;
    match resource.kind {
        ConfigResourceType::Topic if name.is_empty() => {
            refuse("Default topic resources are not allowed.")
        }
        ConfigResourceType::Topic => topic_names::validate(name),
        ConfigResourceType::Broker if name.is_empty() => Ok(()),
        ConfigResourceType::Broker => match name.parse::<i32>() {
            Err(_) => refuse("Unable to parse broker name as a base 10 number."),
            Ok(id) if id < 0 => refuse("Invalid negative broker ID."),
            Ok(_) => Ok(()),
        },
        ConfigResourceType::Group if name.is_empty() => {
            refuse("Default group resources are not allowed.")
        }
        ConfigResourceType::BrokerLogger => refuse("Unknown resource type BROKER_LOGGER"),
        ConfigResourceType::Group | ConfigResourceType::ClientMetrics => Ok(()),
    }
}

/// Checks that a topic or broker exists. Other resources need not exist.
fn check_exists(cx: &Context<'_>, resource: &ConfigResource) -> Result<(), ControllerError> {
    match resource.kind {
        ConfigResourceType::Topic if cx.image.topic(&resource.name).is_none() => {
            let message = format!("The topic '{}' does not exist.", resource.name);
            Err(ControllerError::UnknownTopicOrPartition(Some(message)))
        }
        ConfigResourceType::Broker if !resource.name.is_empty() => {
            let id: i32 = resource.name.parse().unwrap_or(-1);
            if cx.image.broker(id).is_some() || cx.image.controllers.contains_key(&id) {
                return Ok(());
            }
            let message = format!("Broker {id} is not registered.");
            Err(ControllerError::BrokerIdNotRegistered(message))
        }
        _ => Ok(()),
    }
}

fn to_records(
    resource: &ConfigResource,
    values: BTreeMap<String, Option<String>>,
) -> Vec<MetadataRecord> {
    let record = |(name, value)| {
        MetadataRecord::from(ConfigRecord {
            resource_type: resource.kind.id(),
            resource_name: resource.name.to_string(),
            name,
            value,
        })
    };
    values.into_iter().map(record).collect()
}

/// IncrementalAlterConfigs (KIP-339).
pub fn alter_incrementally(
    cx: &Context<'_>,
    changes: &[(ConfigResource, Vec<(String, ConfigOp)>)],
) -> Decision<ConfigResults> {
    let mut records = Vec::new();
    let mut response = Vec::with_capacity(changes.len());
    for (resource, ops) in changes {
        let changed = change(cx, resource, ops)
            .and_then(|changed| check_exists(cx, resource).map(|()| changed));
        response.push((resource.clone(), changed.map(|changed| records.extend(changed))));
    }
    forget_eligible(cx, &mut records);
    Decision { records, response }
}

/// Clears the eligible leader replicas of topics whose `min.insync.replicas` changes, because they
/// were chosen with the old value (KIP-966).
fn forget_eligible(cx: &Context<'_>, records: &mut Vec<MetadataRecord>) {
    if !cx.elr_enabled() {
        return;
    }
    let of_minimum = |record: &MetadataRecord| match record {
        MetadataRecord::Config(it) if it.name == "min.insync.replicas" => {
            let of_topic = it.resource_type == ConfigResourceType::Topic.id();
            Some(if of_topic { it.resource_name.clone() } else { String::new() })
        }
        _ => None,
    };
    let topics: Vec<_> = records.iter().filter_map(of_minimum).collect();
    records.extend(topics.into_iter().map(|topic_name| ClearElrRecord { topic_name }.into()));
}

/// AlterConfigs: replaces the configuration of each resource. Keys that are not named are unset.
pub fn alter(
    cx: &Context<'_>,
    changes: &[(ConfigResource, ConfigValues)],
) -> Decision<ConfigResults> {
    let mut records = Vec::new();
    let mut response = Vec::with_capacity(changes.len());
    for (resource, configs) in changes {
        let mut values: BTreeMap<String, Option<String>> = BTreeMap::new();
        let current = cx.image.config(resource);
        for (key, value) in configs {
            let changes_it = current.get(key) != value.as_ref();
            if changes_it || resource.kind == ConfigResourceType::Broker {
                values.insert(key.clone(), value.clone());
            }
        }
        let named = |key: &String| configs.iter().any(|(name, _)| name == key);
        for key in current.keys().filter(|key| !named(key)) {
            values.insert(key.clone(), None);
        }
        let checked = check(cx, resource, &values).and_then(|()| check_exists(cx, resource));
        let done = checked.map(|()| records.extend(to_records(resource, values)));
        response.push((resource.clone(), done));
    }
    forget_eligible(cx, &mut records);
    Decision { records, response }
}
