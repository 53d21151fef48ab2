//! Log lines about the decisions of the active controller: one line per broker, topic,
//! configuration or feature that a decision changes, and one line with counts for all partitions
//! that it changes. Only the active controller writes them, and only once the records are
//! committed.

use std::{collections::BTreeMap, sync::Arc};

use tracing::{info, warn};

use crate::{
    base::TopicId,
    metadata::{
        BrokerImage, Change, ConfigResource, ConfigResourceType, Image, PartitionImage,
        topics::NO_LEADER,
    },
};

/// If one decision changes more topics or configurations than this, one line with their number
/// replaces the line for each.
const LINES_MAX: usize = 10;

/// The cause of a decision, for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cause {
    pub reason: &'static str,
    /// The broker that sent the request, or that the decision is about.
    pub broker: Option<i32>,
    /// Whether the cause is a failure. Fencing and changes of leaders are then logged as warnings.
    pub is_fault: bool,
}

impl Cause {
    pub fn request(reason: &'static str) -> Self {
        Self { reason, ..Self::default() }
    }

    pub fn broker(reason: &'static str, broker: i32) -> Self {
        Self { broker: Some(broker), ..Self::request(reason) }
    }

    pub fn fault(reason: &'static str, broker: i32) -> Self {
        Self { is_fault: true, ..Self::broker(reason, broker) }
    }
}

/// The changes of one decision, collected until they are committed and logged.
#[derive(Debug, Default)]
pub(super) struct Events {
    cause: Cause,
    brokers: Vec<BrokerEvent>,
    created: Vec<(TopicId, Arc<str>)>,
    /// By topic, the number of partitions added and their replication factor. Includes the
    /// partitions of new topics.
    added: BTreeMap<Arc<str>, (usize, usize)>,
    deleted: Vec<(TopicId, Arc<str>, usize)>,
    configs: BTreeMap<ConfigResource, Keys>,
    features: Vec<(String, i16, i16)>,
    controllers: Vec<i32>,
    partitions: Partitions,
}

#[derive(Debug)]
enum BrokerEvent {
    Changed { old: Option<Arc<BrokerImage>>, new: Arc<BrokerImage> },
    Unregistered(i32),
}

/// Keys of a changed configuration. Values are left out, because they may be secret.
#[derive(Debug, Default)]
struct Keys {
    set: Vec<String>,
    removed: Vec<String>,
}

/// Counts of partitions whose state changes.
#[derive(Debug, Default)]
struct Partitions {
    changed: usize,
    first: Option<(Arc<str>, i32)>,
    leader_changed: usize,
    leader_lost: usize,
    isr_shrunk: usize,
    isr_expanded: usize,
    recovering: usize,
    reassignments_began: usize,
    reassignments_ended: usize,
}

impl Events {
    pub fn new(cause: Cause) -> Self {
        Self { cause, ..Self::default() }
    }

    /// Adds a change that the decision's records make to the image.
    pub fn note(&mut self, change: Change) {
        match change {
            Change::TopicCreated { id, name } => self.created.push((id, name)),
            Change::TopicDeleted { topic } => {
                self.deleted.push((topic.id, Arc::clone(&topic.name), topic.partitions.len()));
            }
            Change::PartitionAdded { name, new, .. } => {
                let (count, replicas) = self.added.entry(name).or_default();
                *count += 1;
                *replicas = new.replicas.len();
            }
            Change::PartitionChanged(change) => {
                let at = (change.name, change.partition);
                self.partitions.note(at, &change.old, &change.new);
            }
            Change::ConfigChanged { resource, key, new, .. } => {
                let keys = self.configs.entry(resource).or_default();
                if new.is_some() { &mut keys.set } else { &mut keys.removed }.push(key);
            }
            Change::BrokerChanged { old, new, .. } => {
                self.brokers.push(BrokerEvent::Changed { old, new });
            }
            Change::BrokerUnregistered { id, .. } => {
                self.brokers.push(BrokerEvent::Unregistered(id));
            }
            Change::ControllerRegistered { id } => self.controllers.push(id),
            Change::FeatureChanged { name, old, new } => self.features.push((name, old, new)),
            _ => {}
        }
    }

    /// Writes the log lines. `image` is the image after the decision.
    pub fn log(mut self, image: &Image) {
        self.brokers.iter().for_each(|event| event.log(self.cause));
        self.partitions.log(self.cause);
        for (name, from, to) in &self.features {
            info!(feature = name, from, to, "feature level changed");
        }
        for id in &self.controllers {
            info!(controller = id, "controller registered");
        }
        self.log_created();
        self.log_added(image);
        self.log_deleted();
        self.log_configs();
    }

    /// Logs created topics. The configs and partitions of a new topic are part of its line, so they
    /// are removed from `configs` and `added`.
    fn log_created(&mut self) {
        let created = std::mem::take(&mut self.created);
        let count = created.len();
        let mut all_partitions = 0;
        let first = created.first().map(|(_, name)| Arc::clone(name));
        for (id, name) in created {
            let configs = self.configs.remove(&ConfigResource::topic(Arc::clone(&name)));
            let (partitions, replication_factor) = self.added.remove(&name).unwrap_or_default();
            all_partitions += partitions;
            if count <= LINES_MAX {
                let configs = configs.unwrap_or_default().set;
                info!(topic = %name, %id, partitions, replication_factor, ?configs, "topic created");
            }
        }
        if let Some(first) = first.filter(|_| count > LINES_MAX) {
            info!(topics = count, partitions = all_partitions, %first, "topics created");
        }
    }

    fn log_added(&self, image: &Image) {
        let count = self.added.len();
        if let Some((first, _)) = self.added.iter().next().filter(|_| count > LINES_MAX) {
            let partitions: usize = self.added.values().map(|(partitions, _)| partitions).sum();
            info!(topics = count, partitions, %first, "partitions added");
            return;
        }
        for (name, (partitions, _)) in &self.added {
            let total = image.topic(name).map_or(0, |topic| topic.partitions.len());
            info!(topic = %name, partitions, total, "partitions added");
        }
    }

    fn log_deleted(&self) {
        let count = self.deleted.len();
        if let Some((_, first, _)) = self.deleted.first().filter(|_| count > LINES_MAX) {
            let partitions: usize = self.deleted.iter().map(|(_, _, partitions)| partitions).sum();
            info!(topics = count, partitions, %first, "topics deleted");
            return;
        }
        for (id, name, partitions) in &self.deleted {
            info!(topic = %name, %id, partitions, "topic deleted");
        }
    }

    fn log_configs(&self) {
        let count = self.configs.len();
        if let Some((first, _)) = self.configs.iter().next().filter(|_| count > LINES_MAX) {
            let (kind, first) = (kind_of(first), name_of(first));
            info!(resources = count, kind, first, "configs changed");
            return;
        }
        for (resource, Keys { set, removed }) in &self.configs {
            let (kind, name) = (kind_of(resource), name_of(resource));
            info!(kind, name, ?set, ?removed, "configs changed");
        }
    }
}

fn kind_of(resource: &ConfigResource) -> &'static str {
    match resource.kind {
        ConfigResourceType::Topic => "topic",
        ConfigResourceType::Broker => "broker",
        ConfigResourceType::BrokerLogger => "broker_logger",
        ConfigResourceType::ClientMetrics => "client_metrics",
        ConfigResourceType::Group => "group",
    }
}

fn name_of(resource: &ConfigResource) -> &str {
    if resource.name.is_empty() { "<default>" } else { &resource.name }
}

impl BrokerEvent {
    fn log(&self, cause: Cause) {
        let (old, new) = match self {
            Self::Unregistered(broker) => return info!(broker, "broker unregistered"),
            Self::Changed { old, new } => (old, new),
        };
        let (broker, epoch, reason) = (new.broker_id, new.broker_epoch, cause.reason);
        let Some(old) = old.as_ref().filter(|old| old.incarnation_id == new.incarnation_id) else {
            let (rack, replaced_epoch) = (&new.rack, old.as_ref().map(|old| old.broker_epoch));
            let endpoints = new.end_points.iter();
            let endpoints: Vec<_> =
                endpoints.map(|it| format!("{}://{}:{}", it.name, it.host, it.port)).collect();
            return info!(broker, epoch, replaced_epoch, rack, ?endpoints, "broker registered");
        };
        match (old.fenced, new.fenced) {
            (false, true) if cause.is_fault => warn!(broker, epoch, reason, "broker fenced"),
            (false, true) => info!(broker, epoch, reason, "broker fenced"),
            (true, false) => info!(broker, epoch, "broker unfenced"),
            _ => {}
        }
        if !old.in_controlled_shutdown && new.in_controlled_shutdown {
            info!(broker, epoch, "broker began a controlled shutdown");
        }
        let (before, left) = (old.log_dirs.len(), new.log_dirs.len());
        if left < before {
            warn!(broker, failed = before - left, left, "log directories failed");
        }
        if old.cordoned_log_dirs != new.cordoned_log_dirs {
            let cordoned = new.cordoned_log_dirs.as_ref().map_or(0, Vec::len);
            let before = old.cordoned_log_dirs.as_ref().map_or(0, Vec::len);
            if (before, cordoned) != (0, 0) {
                info!(broker, before, cordoned, "cordoned log directories changed");
            }
        }
    }
}

impl Partitions {
    fn note(&mut self, at: (Arc<str>, i32), old: &PartitionImage, new: &PartitionImage) {
        let lacks = |ids: &[i32], of: &[i32]| of.iter().any(|id| !ids.contains(id));
        let is_moving = |it: &PartitionImage| {
            !it.adding_replicas.is_empty() || !it.removing_replicas.is_empty()
        };
        self.changed += 1;
        self.first.get_or_insert(at);
        self.leader_changed += usize::from(old.leader != new.leader);
        self.leader_lost += usize::from(old.leader != new.leader && new.leader == NO_LEADER);
        self.isr_shrunk += usize::from(lacks(&new.isr, &old.isr));
        self.isr_expanded += usize::from(lacks(&old.isr, &new.isr));
        let recovers = old.leader_recovery_state == 0 && new.leader_recovery_state != 0;
        self.recovering += usize::from(recovers);
        self.reassignments_began += usize::from(!is_moving(old) && is_moving(new));
        let is_replaced = old.replicas != new.replicas && !is_moving(new);
        let has_ended = is_moving(old) && !is_moving(new) || is_replaced;
        self.reassignments_ended += usize::from(has_ended);
    }

    fn log(&self, Cause { reason, broker, is_fault }: Cause) {
        let Some((topic, index)) = &self.first else { return };
        let first = format!("{topic}-{index}");
        let Self { changed, leader_changed, leader_lost, isr_shrunk, isr_expanded, .. } = *self;
        let (began, ended) = (self.reassignments_began, self.reassignments_ended);
        if leader_changed + isr_shrunk + isr_expanded > 0 {
            let is_warning = is_fault || self.recovering > 0;
            macro_rules! line {
                ($level:ident) => {
                    $level!(
                        reason,
                        broker,
                        partitions = changed,
                        leader_changed,
                        leader_lost,
                        isr_shrunk,
                        isr_expanded,
                        unclean = self.recovering,
                        first,
                        "leaders and in-sync replicas changed"
                    )
                };
            }
            if is_warning { line!(warn) } else { line!(info) }
        }
        if began > 0 {
            info!(partitions = began, first, "reassignments began");
        }
        if ended > 0 {
            info!(reason, partitions = ended, first, "reassignments ended");
        }
    }
}
