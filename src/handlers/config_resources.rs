//! Shared by the APIs on configs: resources, errors, the checks that a broker makes before it
//! forwards a change (Kafka's `ConfigAdminManager`), and the change at the controller.

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::protocol::{Request, StrBytes};

use super::{Client, Context, ErrorCode, Reply, errors, forward};
use crate::{
    base::config::{
        Config, ConfigError, ConfigErrorKind, Properties, ignored_configs, key::Type, keys, parse,
    },
    controller::{ConfigOp, ControllerError, find_config},
    metadata::{ConfigResource, ConfigResourceType, Image},
    protocol::{
        checks::{
            CLUSTER_ACTION, CLUSTER_ALTER_CONFIGS, CLUSTER_NAME, Check, GROUP_ALTER_CONFIGS,
            TOPIC_ALTER_CONFIGS,
        },
        error_code,
    },
    telemetry::{LevelChange, LogLevel, Loggers, ROOT},
};

/// An error in a response: its code, and its message if Kafka sends one.
#[derive(Clone, PartialEq, Debug)]
pub struct ResourceError {
    pub code: ErrorCode,
    pub message: Option<String>,
}

impl ResourceError {
    pub fn request(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::InvalidRequest, message: Some(message.into()) }
    }

    pub fn config(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::InvalidConfig, message: Some(message.into()) }
    }

    /// Whether the client may not do what it requested.
    pub fn is_denial(&self) -> bool {
        use ErrorCode::{
            ClusterAuthorizationFailed, GroupAuthorizationFailed, TopicAuthorizationFailed,
        };
        [ClusterAuthorizationFailed, TopicAuthorizationFailed, GroupAuthorizationFailed]
            .contains(&self.code)
    }
}

/// Checks whether the client may read or change the configs of a resource. There is a check for
/// configs of topics, one for those of groups, and one on the cluster for all others.
///
/// # Errors
/// The client may not. The error has Kafka's default message.
pub fn check_allowed(
    client: &Client,
    kind: ConfigResourceType,
    name: &str,
    [on_cluster, on_topic, on_group]: [Check; 3],
) -> Result<(), ResourceError> {
    let checked = match kind {
        ConfigResourceType::Topic => client.check(on_topic, name),
        ConfigResourceType::Group => client.check(on_group, name),
        ConfigResourceType::Broker
        | ConfigResourceType::BrokerLogger
        | ConfigResourceType::ClientMetrics => client.check(on_cluster, CLUSTER_NAME),
    };
    checked.map_err(|code| {
        let message = error_code::default_message(code.code()).to_owned();
        ResourceError { code, message: Some(message) }
    })
}

impl From<ConfigError> for ResourceError {
    fn from(error: ConfigError) -> Self {
        match error.kind {
            ConfigErrorKind::InvalidConfig => Self::config(error.message),
            ConfigErrorKind::InvalidRequest | ConfigErrorKind::Requirement => {
                Self::request(error.message)
            }
        }
    }
}

impl From<ControllerError> for ResourceError {
    fn from(error: ControllerError) -> Self {
        Self { code: errors::controller(&error), message: error.message() }
    }
}

/// The error code and the message of a response.
pub type CodeAndMessage = (i16, Option<StrBytes>);

/// The error code and the message for a result.
pub fn code_and_message(result: Result<(), ResourceError>) -> CodeAndMessage {
    match result {
        Ok(()) => (errors::NONE, None),
        Err(refusal) => (refusal.code.code(), refusal.message.map(StrBytes::from_string)),
    }
}

/// A resource with a copy of `name`. A slice of the request would keep its whole frame in memory.
pub fn resource(kind: ConfigResourceType, name: &str) -> ConfigResource {
    ConfigResource::new(kind, name)
}

/// The change of one resource, as requested.
pub struct Change {
    pub kind: i8,
    pub name: String,
    pub ops: Vec<Op>,
}

/// The change of one config.
pub struct Op {
    pub name: String,
    /// `AlterConfigOp.OpType` of Kafka: 0 set, 1 delete, 2 append, 3 subtract.
    pub kind: i8,
    pub value: Option<String>,
}

pub const SET: i8 = 0;
pub const DELETE: i8 = 1;
pub const APPEND: i8 = 2;
pub const SUBTRACT: i8 = 3;

impl Op {
    fn check(&self) -> Result<ConfigOp, ResourceError> {
        let value = self.value.clone().unwrap_or_default();
        match self.kind {
            SET => Ok(ConfigOp::Set(value)),
            DELETE => Ok(ConfigOp::Delete),
            APPEND => Ok(ConfigOp::Append(value)),
            SUBTRACT => Ok(ConfigOp::Subtract(value)),
            other => Err(ResourceError::request(format!("Unknown operations type {other}"))),
        }
    }

    fn is_known(&self) -> bool {
        (SET..=SUBTRACT).contains(&self.kind)
    }
}

/// What happens to the configs of a resource that a change does not name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// They are kept (IncrementalAlterConfigs).
    Others,
    /// They are unset (AlterConfigs).
    Nothing,
}

/// Checks changes, with the configuration and the metadata of this node.
pub struct Judge<'a> {
    pub node_id: i32,
    /// Whether the request came by a controller listener, usually forwarded from a broker. A change
    /// of a broker's configs may then name any broker, not only this node.
    pub is_handed_on: bool,
    pub config: &'a Config,
    pub image: &'a Image,
    pub keeps: Keeps,
    pub client: &'a Client,
}

/// A change that passed the checks of this node.
#[derive(Clone, PartialEq, Debug)]
pub enum Checked {
    /// Configs in metadata, which the controller decides on.
    Configs(Configs),
    /// Log levels of this node, which it changes without the controller.
    Levels(Vec<LevelChange>),
}

/// The changed configs of a resource.
pub type Configs = (ConfigResource, Vec<(String, ConfigOp)>);

impl Checked {
    fn configs(&self) -> Option<&Configs> {
        match self {
            Self::Configs(configs) => Some(configs),
            Self::Levels(_) => None,
        }
    }
}

impl Judge<'_> {
    /// Checks each change. A change that fails does not reach the controller.
    pub fn check_all(&self, changes: &[Change]) -> Vec<Result<Checked, ResourceError>> {
        let is_repeated = |change: &Change| {
            let same = |other: &&Change| other.kind == change.kind && other.name == change.name;
            changes.iter().filter(same).count() > 1
        };
        let check = |change: &Change| match is_repeated(change) {
            true => Err(ResourceError::request("Each resource must appear at most once.")),
            false => self.check(change),
        };
        changes.iter().map(check).collect()
    }

    fn check(&self, change: &Change) -> Result<Checked, ResourceError> {
        let mut names = HashSet::new();
        if !change.ops.iter().all(|op| names.insert(&op.name)) {
            return Err(ResourceError::request("Error due to duplicate config keys"));
        }
        let is_null = |op: &&Op| op.kind != DELETE && op.value.is_none();
        let nulls: Vec<&str> =
            change.ops.iter().filter(is_null).map(|op| op.name.as_str()).collect();
        if !nulls.is_empty() {
            let message = format!("Null value not supported for : {}", nulls.join(", "));
            return Err(ResourceError::request(message));
        }
        let unknown = || ResourceError::request(format!("Unknown resource type {}", change.kind));
        let kind = ConfigResourceType::from_id(change.kind).ok_or_else(unknown)?;
        // Log levels have checks of their own. Other configs are checked by the controller only.
        if self.is_handed_on && kind != ConfigResourceType::BrokerLogger {
            let checks = [CLUSTER_ALTER_CONFIGS, TOPIC_ALTER_CONFIGS, GROUP_ALTER_CONFIGS];
            check_allowed(self.client, kind, &change.name, checks)?;
        }
        if kind == ConfigResourceType::Topic && !change.ops.iter().all(Op::is_known) {
            // Kafka's controller fails here, without a message.
            return Err(ResourceError { code: ErrorCode::UnknownServerError, message: None });
        }
        if kind == ConfigResourceType::BrokerLogger {
            return match self.keeps {
                Keeps::Nothing => Err(unknown()),
                Keeps::Others => Ok(Checked::Levels(self.check_loggers(change)?)),
            };
        }
        let ops = change.ops.iter().map(|op| Ok((op.name.clone(), op.check()?)));
        let ops: Vec<(String, ConfigOp)> = ops.collect::<Result<_, ResourceError>>()?;
        match kind {
            ConfigResourceType::Broker => self.check_broker(change, &ops)?,
            ConfigResourceType::ClientMetrics if change.name.is_empty() => {
                return Err(ResourceError::request("Subscription name can't be empty"));
            }
            ConfigResourceType::Topic
            | ConfigResourceType::Group
            | ConfigResourceType::ClientMetrics
            | ConfigResourceType::BrokerLogger => {}
        }
        Ok(Checked::Configs((resource(kind, &change.name), ops)))
    }

    /// Checks a change of dynamic broker configs. The broker that receives the request does this.
    fn check_broker(
        &self,
        change: &Change,
        ops: &[(String, ConfigOp)],
    ) -> Result<(), ResourceError> {
        let per_broker = !change.name.is_empty();
        if per_broker && !self.is_handed_on {
            self.check_node_id(&change.name)?;
        }
        let current = self.image.config(&resource(ConfigResourceType::Broker, &change.name));
        let mut configs = match self.keeps {
            Keeps::Others => current.clone(),
            Keeps::Nothing => Properties::new(),
        };
        for (name, op) in ops {
            apply(&mut configs, name, op)?;
        }
        self.config.validate_broker_configs(&configs, per_broker)?;
        self.check_min_insync_replicas(&configs, ops, per_broker)
    }

    /// Checks a change of `min.insync.replicas`. With eligible leader replicas (KIP-966), it must
    /// be set for the whole cluster, and cannot be changed for single brokers.
    fn check_min_insync_replicas(
        &self,
        configs: &Properties,
        ops: &[(String, ConfigOp)],
        per_broker: bool,
    ) -> Result<(), ResourceError> {
        const NAME: &str = "min.insync.replicas";
        if self.image.feature("eligible.leader.replicas.version") == 0 {
            return Ok(());
        }
        let is_named = ops.iter().any(|(name, _)| name == NAME);
        if per_broker && is_named {
            return Err(ResourceError::config(format!(
                "Broker-level {NAME} cannot be altered while ELR is enabled."
            )));
        }
        let may_lose_it = is_named || self.keeps == Keeps::Nothing;
        if !per_broker && may_lose_it && !configs.contains_key(NAME) {
            return Err(ResourceError::config(format!(
                "Cluster-level {NAME} cannot be removed while ELR is enabled."
            )));
        }
        Ok(())
    }

    fn check_node_id(&self, name: &str) -> Result<(), ResourceError> {
        let id = node_id(name)?;
        if id != self.node_id {
            return Err(ResourceError::request(format!(
                "Unexpected broker id, expected {}, but received {name}",
                self.node_id
            )));
        }
        Ok(())
    }

    /// Checks the changes of log levels of one resource. If one is invalid, none is made (Kafka's
    /// `RuntimeLoggerManager`).
    fn check_loggers(&self, change: &Change) -> Result<Vec<LevelChange>, ResourceError> {
        let check = if self.is_handed_on { CLUSTER_ACTION } else { CLUSTER_ALTER_CONFIGS };
        check_allowed(self.client, ConfigResourceType::BrokerLogger, &change.name, [check; 3])?;
        let id = node_id(&change.name)?;
        if id != self.node_id {
            return Err(ResourceError::request(format!(
                "Unexpected node id. Expected {}, but received {id}",
                self.node_id
            )));
        }
        change.ops.iter().map(check_logger).collect()
    }
}

fn node_id(name: &str) -> Result<i32, ResourceError> {
    name.parse().map_err(|_| {
        ResourceError::request(format!("Node id must be an integer, but it is: {name}"))
    })
}

fn check_logger(op: &Op) -> Result<LevelChange, ResourceError> {
    let name = &op.name;
    let logger = || {
        let unknown = || ResourceError::config(format!("Logger {name} does not exist!"));
        Loggers::find(name).ok_or_else(unknown)
    };
    let refuse_op = |op: &str| {
        ResourceError::request(format!(
            "{op} operation is not allowed for the BROKER_LOGGER resource"
        ))
    };
    match op.kind {
        SET => Ok(LevelChange { logger: logger()?, level: Some(level(op)?) }),
        DELETE if logger()? == ROOT => {
            let message = format!("Removing the log level of the {ROOT} logger is not allowed");
            Err(ResourceError::request(message))
        }
        DELETE => Ok(LevelChange { logger: logger()?, level: None }),
        APPEND => Err(refuse_op("APPEND")),
        SUBTRACT => Err(refuse_op("SUBTRACT")),
        // Kafka fails here, without a message.
        _ => Err(ResourceError { code: ErrorCode::UnknownServerError, message: None }),
    }
}

/// The log level in a change. Its name is case-sensitive.
fn level(op: &Op) -> Result<LogLevel, ResourceError> {
    let text = op.value.as_deref().unwrap_or_default();
    let named = LogLevel::SETTABLE.into_iter().find(|level| level.name() == text);
    named.ok_or_else(|| {
        let valid = LogLevel::SETTABLE.map(LogLevel::name).join(", ");
        ResourceError::config(format!(
            "Cannot set the log level of {} to {text} as it is not a supported log level. Valid log \
             levels are {valid}",
            op.name
        ))
    })
}

/// Applies the change of one broker config to `configs`.
fn apply(configs: &mut Properties, name: &str, op: &ConfigOp) -> Result<(), ResourceError> {
    let (items, verb) = match op {
        ConfigOp::Set(value) => {
            configs.insert(name.to_owned(), value.clone());
            return Ok(());
        }
        ConfigOp::Delete => {
            configs.remove(name);
            return Ok(());
        }
        ConfigOp::Append(items) => (items, "append"),
        ConfigOp::Subtract(items) => (items, "subtract"),
    };
    let Some(key) = keys::broker().get(name) else {
        return Err(ResourceError::config(format!("Unknown config name: {name}")));
    };
    if key.kind != Type::List {
        let message = format!("Config value {verb} is not allowed for config key: {name}");
        return Err(ResourceError::config(message));
    }
    let current = configs.get(name).map_or(key.default_text().unwrap_or_default(), |text| text);
    let mut list: Vec<&str> = current.split(',').filter(|item| !item.is_empty()).collect();
    for item in parse::list_items(items) {
        match list.iter().position(|present| *present == item) {
            None if verb == "append" => list.push(item),
            Some(at) if verb == "subtract" => drop(list.remove(at)),
            _ => {}
        }
    }
    let joined = list.join(",");
    configs.insert(name.to_owned(), joined);
    Ok(())
}

/// Checks the changes. Valid changes of log levels are made at once, unless `validate_only` is set.
fn check(
    cx: &Context<'_>,
    changes: &[Change],
    keeps: Keeps,
    validate_only: bool,
    is_handed_on: bool,
) -> Vec<Result<Checked, ResourceError>> {
    let (broker, client) = (cx.broker, &cx.session.client);
    let (config, image) = (broker.config(), broker.metadata());
    let (node_id, config, image) = (broker.node.id, &config, &image);
    let judge = Judge { node_id, is_handed_on, config, image, keeps, client };
    let mut checked = judge.check_all(changes);
    for verdict in checked.iter_mut().filter(|_| !validate_only) {
        if let Ok(Checked::Levels(levels)) = verdict
            && let Err(error) = broker.loggers.alter(levels)
        {
            tracing::error!(%error, "log levels not changed");
            let code = ErrorCode::UnknownServerError;
            *verdict = Err(ResourceError { code, message: Some(error.to_string()) });
        }
    }
    checked
}

/// The request types of AlterConfigs and IncrementalAlterConfigs, for [`handle`].
pub trait AlterRequest: Request<Response: Send> + Send + Sync + 'static {
    const KEEPS: Keeps;
    type Resource;

    fn resources(&mut self) -> &mut Vec<Self::Resource>;
    fn validate_only(&self) -> bool;
    /// The change that the request asks for one resource.
    fn change(resource: &Self::Resource) -> Change;
    /// The error code and the message of each resource in a response.
    fn codes(response: Self::Response) -> impl Iterator<Item = CodeAndMessage> + Send;
    /// The response with one row for each resource.
    fn response(rows: impl Iterator<Item = Row>) -> Self::Response;
}

/// The fields of a response for one resource.
pub struct Row {
    pub kind: i8,
    pub name: StrBytes,
    pub code: i16,
    pub message: Option<StrBytes>,
}

/// Handles AlterConfigs and IncrementalAlterConfigs. On a broker listener, the broker checks the
/// changes, changes its own log levels, and forwards valid changes of configs to the controller.
pub async fn handle<R: AlterRequest>(cx: &mut Context<'_>, mut request: R) -> Reply<R::Response> {
    let changes: Vec<Change> = request.resources().iter().map(R::change).collect();
    let validate_only = request.validate_only();
    if cx.session.on_controller_listener {
        let altered = alter(cx, &changes, R::KEEPS, validate_only).await;
        return Reply::Now(response::<R>(changes, altered));
    }
    let checked = check(cx, &changes, R::KEEPS, validate_only, false);
    let mut verdicts = checked.iter();
    request.resources().retain(|_| matches!(verdicts.next(), Some(Ok(Checked::Configs(_)))));
    let (broker, client, version) = (Arc::clone(cx.broker), cx.session.client.clone(), cx.version);
    let is_decided_here = broker.leads_quorum();
    let rest = async move {
        let deadline = forward::deadline(&broker);
        let answer = match request.resources().is_empty() {
            true => None,
            false => forward::ask(broker, client, version, request, deadline).await.ok(),
        };
        let codes = answer.into_iter().flat_map(R::codes);
        response::<R>(changes, outcomes(checked, codes.map(|(code, message)| told(code, message))))
    };
    match is_decided_here {
        true => Reply::Now(rest.await),
        false => Reply::Later(Box::pin(rest)),
    }
}

fn response<R: AlterRequest>(
    changes: Vec<Change>,
    outcomes: Vec<Result<(), ResourceError>>,
) -> R::Response {
    R::response(changes.into_iter().zip(outcomes).map(|(change, outcome)| {
        let (code, message) = code_and_message(outcome);
        Row { kind: change.kind, name: StrBytes::from_string(change.name), code, message }
    }))
}

/// The outcome of a change from the error code and message in the controller's response.
fn told(code: i16, message: Option<StrBytes>) -> Result<(), ResourceError> {
    if code == errors::NONE {
        return Ok(());
    }
    let code = ErrorCode::try_from_code(code).unwrap_or(ErrorCode::UnknownServerError);
    Err(ResourceError { code, message: message.map(|text| text.to_string()) })
}

/// Handles the changes of a request on a controller listener. Checks them, lets the controller make
/// those that pass, and returns once this node has applied them.
async fn alter(
    cx: &Context<'_>,
    changes: &[Change],
    keeps: Keeps,
    validate_only: bool,
) -> Vec<Result<(), ResourceError>> {
    let (broker, controller) = (cx.broker, cx.controller());
    let checked = check(cx, changes, keeps, validate_only, true);
    let configs = checked.iter().flatten().filter_map(Checked::configs);
    let accepted: Vec<Configs> = configs.clone().cloned().collect();
    if accepted.is_empty() {
        return outcomes(checked, []);
    }
    let count = accepted.len();
    let decided = match keeps {
        Keeps::Nothing => {
            let accepted = accepted.iter().map(whole).collect();
            controller.alter_configs(accepted, validate_only).await
        }
        Keeps::Others => controller.incremental_alter_configs(accepted, validate_only).await,
    };
    let decided: Vec<_> = match decided {
        Ok(committed) => {
            broker.node.applied(committed.offset).await;
            let results = committed.value.into_iter();
            results.map(|(_, result)| result.map_err(ResourceError::from)).collect()
        }
        Err(error) => vec![Err(ResourceError::from(error)); count],
    };
    if !validate_only {
        for (change, _) in configs.zip(&decided).filter(|(_, it)| it.is_ok()) {
            warn_of_ignored(change);
        }
    }
    outcomes(checked, decided)
}

/// Logs a warning if a change sets configs that have no effect yet. Each broker does this itself
/// for broker configs.
fn warn_of_ignored((resource, ops): &Configs) {
    if resource.kind == ConfigResourceType::Broker {
        return;
    }
    let set = ops.iter().filter_map(|(name, op)| match op {
        ConfigOp::Set(value) | ConfigOp::Append(value) => Some((name.as_str(), value.as_str())),
        ConfigOp::Delete | ConfigOp::Subtract(_) => None,
    });
    let ignored = ignored_configs(set, |name| find_config(resource.kind, name));
    if !ignored.is_empty() {
        let (kind, name) = (resource.kind, &*resource.name);
        tracing::warn!(?kind, name, configs = ?ignored, "configs set that have no effect yet");
    }
}

/// The new configs of a resource, as the controller's AlterConfigs takes them.
fn whole((resource, ops): &Configs) -> (ConfigResource, Vec<(String, Option<String>)>) {
    let value = |op: &ConfigOp| match op {
        ConfigOp::Set(value) => Some(value.clone()),
        ConfigOp::Delete | ConfigOp::Append(_) | ConfigOp::Subtract(_) => None,
    };
    let configs = ops.iter().map(|(name, op)| (name.clone(), value(op)));
    (resource.clone(), configs.collect())
}

/// The outcome of each change, in the order of the request. `decided` has the controller's outcomes
/// of the changes that it decided. This node knows the outcomes of all others from its checks.
fn outcomes(
    checked: Vec<Result<Checked, ResourceError>>,
    decided: impl IntoIterator<Item = Result<(), ResourceError>>,
) -> Vec<Result<(), ResourceError>> {
    let mut decided = decided.into_iter();
    let lost = || ResourceError { code: ErrorCode::UnknownServerError, message: None };
    let outcome = |checked: Result<Checked, ResourceError>| match checked? {
        Checked::Configs(_) => decided.next().unwrap_or_else(|| Err(lost())),
        Checked::Levels(_) => Ok(()),
    };
    checked.into_iter().map(outcome).collect()
}

#[cfg(test)]
#[path = "config_resources/tests.rs"]
mod tests;
