//! Loggers with the names that Apache Kafka gives them (KIP-412). Each stands for the log lines of
//! one part of the broker. Clients can read and change their levels while the broker runs. After a
//! restart, the levels are again those of the start-up filter.
//!
//! As in Kafka, a logger without a level of its own has the level of its nearest parent with one.
//! Parents follow from the dots in the name; the last one is `root`.

use std::{collections::BTreeMap, iter::successors};

use parking_lot::{Mutex, MutexGuard};
use tracing::{level_filters::LevelFilter, warn};
use tracing_subscriber::{
    EnvFilter,
    filter::{ParseError, Targets},
    reload,
};

/// The logger that all others inherit from.
pub const ROOT: &str = "root";
/// The prefix of all targets of this broker.
const ALL: &str = env!("CARGO_PKG_NAME");

/// Loggers in the order of their names, each with the tracing target of its log lines. A line
/// belongs to the longest target that is a prefix of the line's target. A logger without a target
/// only passes its level on to the loggers below it.
const LOGGERS: &[(&str, Option<&str>)] = &[
    ("kafka", Some(ALL)),
    ("kafka.log.LogManager", Some("sordini::broker::replicas::tasks")),
    ("kafka.network.SocketServer", Some("sordini::net")),
    ("kafka.server.BrokerServer", Some("sordini::server")),
    (
        "kafka.server.DefaultAlterPartitionManager",
        Some("sordini::broker::replicas::replication::proposals"),
    ),
    ("kafka.server.KafkaApis", Some("sordini::handlers")),
    ("kafka.server.ReplicaAlterLogDirsThread", Some("sordini::broker::replicas::moves")),
    ("kafka.server.ReplicaFetcherThread", Some("sordini::broker::replicas::replication")),
    ("kafka.server.ReplicaManager", Some("sordini::broker::replicas::logs")),
    ("openraft", Some("openraft")),
    ("org.apache.kafka", None),
    ("org.apache.kafka.controller", Some("sordini::controller")),
    ("org.apache.kafka.controller.QuorumController", Some("sordini::controller::task")),
    (
        "org.apache.kafka.coordinator.common.runtime.CoordinatorRuntime",
        Some("sordini::coordinator::runtime"),
    ),
    (
        "org.apache.kafka.coordinator.group.GroupCoordinatorService",
        Some("sordini::coordinator::group"),
    ),
    ("org.apache.kafka.raft.KafkaRaftClient", Some("sordini::quorum")),
    ("org.apache.kafka.server.AssignmentsManager", Some("sordini::broker::replicas::directories")),
    (
        "org.apache.kafka.server.BrokerLifecycleManager",
        Some("sordini::broker::membership::lifecycle"),
    ),
    (
        "org.apache.kafka.server.NodeToControllerRequestThread",
        Some("sordini::broker::membership::to_controller"),
    ),
    ("org.apache.kafka.server.util.KafkaScheduler", Some("sordini::broker::tasks")),
    ("org.apache.kafka.storage.internals.log.UnifiedLog", Some("sordini::log")),
    (ROOT, None),
    ("state.change.logger", Some("sordini::broker::event_log")),
];

/// A level of Kafka's loggers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// Only the start-up filter can set it.
    Off,
    Fatal,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// Levels that a client can set, in the order of their names.
    pub const SETTABLE: [Self; 6] =
        [Self::Debug, Self::Error, Self::Fatal, Self::Info, Self::Trace, Self::Warn];

    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }

    /// The level of `tracing` with the same lines. No line there is as severe as FATAL, so FATAL
    /// lets none pass.
    fn filter(self) -> LevelFilter {
        match self {
            Self::Off | Self::Fatal => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

impl From<LevelFilter> for LogLevel {
    fn from(filter: LevelFilter) -> Self {
        let mut levels = Self::SETTABLE.into_iter().filter(|level| *level != Self::Fatal);
        levels.find(|level| level.filter() == filter).unwrap_or(Self::Off)
    }
}

/// A change of a logger's level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LevelChange {
    pub logger: &'static str,
    /// The new level; `None` makes the logger inherit its level again.
    pub level: Option<LogLevel>,
}

/// Why a change of levels failed.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    #[error("the log levels give no valid filter: {0}")]
    Filter(#[from] ParseError),
    #[error("the log filter cannot be replaced: {0}")]
    Replace(#[from] reload::Error),
}

/// The levels of loggers that have one of their own, and the part of the start-up filter that
/// belongs to no logger.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Levels {
    root: LogLevel,
    set: BTreeMap<&'static str, LogLevel>,
    /// Directives for spans, for targets below those of loggers, and for other crates.
    fixed: Vec<String>,
}

impl Levels {
    /// The levels in a valid filter. [`Self::directives`] then lets the same lines pass as the
    /// filter.
    fn from_filter(filter: &str) -> Self {
        let mut levels = Self { root: LogLevel::Off, set: BTreeMap::new(), fixed: Vec::new() };
        let mut by_target: Vec<(String, LogLevel)> = Vec::new();
        for directive in filter.split(',') {
            let parsed = match directive.parse::<Targets>() {
                Ok(parsed) if !directive.contains('[') => parsed,
                _ => {
                    levels.fixed.push(directive.to_owned());
                    continue;
                }
            };
            levels.root = parsed.default_level().map_or(levels.root, LogLevel::from);
            for (target, level) in &parsed {
                by_target.push((target.to_owned(), level.into()));
                if !LOGGERS.iter().any(|(_, it)| *it == Some(target)) {
                    levels.fixed.push(directive.to_owned());
                }
            }
        }
        let decides = |target: Option<&str>| {
            let target = target.unwrap_or(ALL);
            let covering = by_target.iter().filter(|(prefix, _)| target.starts_with(prefix));
            covering.max_by_key(|(prefix, _)| prefix.len())
        };
        for (name, target) in LOGGERS.iter().filter(|(name, _)| *name != ROOT) {
            let parent = parents(name).find_map(|parent| LOGGERS.iter().find(|it| it.0 == parent));
            let (own, inherited) = (decides(*target), parent.and_then(|it| decides(it.1)));
            if own != inherited {
                levels.set.insert(name, own.map_or(levels.root, |(_, level)| *level));
            }
        }
        levels
    }

    /// The level of a logger: its own, or the one that it inherits.
    fn of(&self, logger: &str) -> LogLevel {
        let mut set = successors(Some(logger), |it| parent(it)).filter_map(|it| self.set.get(it));
        *set.next().unwrap_or(&self.root)
    }

    fn change(&mut self, change: LevelChange) {
        match (change.logger, change.level) {
            (ROOT, Some(level)) => self.root = level,
            (logger, Some(level)) => drop(self.set.insert(logger, level)),
            (logger, None) => drop(self.set.remove(logger)),
        }
    }

    /// The directives of a filter with these levels.
    fn directives(&self) -> String {
        let mut directives = vec![self.root.filter().to_string()];
        directives.extend(self.fixed.iter().cloned());
        for (name, target) in LOGGERS {
            let level = self.of(name).filter();
            directives.extend(target.map(|target| format!("{target}={level}")));
        }
        directives.join(",")
    }
}

fn parent(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(parent, _)| parent)
}

fn parents(name: &str) -> impl Iterator<Item = &str> {
    successors(parent(name), |it| parent(it))
}

/// The loggers of this process and their levels.
pub struct Loggers {
    levels: Mutex<Levels>,
    replace_filter: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

impl Default for Loggers {
    /// Loggers that change nothing, for a broker in a process with a log filter of its own.
    fn default() -> Self {
        Self::new("info", |_| Ok(()))
    }
}

impl Loggers {
    /// Creates the loggers. `start_filter` must be valid and in use already. `replace_filter` puts
    /// a new filter into use.
    pub(super) fn new(
        start_filter: &str,
        replace_filter: impl Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync + 'static,
    ) -> Self {
        let levels = Mutex::new(Levels::from_filter(start_filter));
        Self { levels, replace_filter: Box::new(replace_filter) }
    }

    /// The logger with this name, if there is one.
    pub fn find(name: &str) -> Option<&'static str> {
        LOGGERS.iter().map(|(it, _)| *it).find(|it| *it == name)
    }

    /// All loggers in the order of their names, each with its own or inherited level.
    pub fn all(&self) -> Vec<(&'static str, LogLevel)> {
        let levels = self.lock();
        LOGGERS.iter().map(|(name, _)| (*name, levels.of(name))).collect()
    }

    /// Makes all changes, or none of them if it fails.
    pub fn alter(&self, changes: &[LevelChange]) -> Result<(), LevelError> {
        {
            let mut levels = self.lock();
            let mut changed = levels.clone();
            changes.iter().for_each(|change| changed.change(*change));
            (self.replace_filter)(EnvFilter::builder().parse(changed.directives())?)?;
            *levels = changed;
        }
        for LevelChange { logger, level } in changes {
            match level {
                Some(level) => warn!(logger, level = level.name(), "log level set"),
                None => warn!(logger, "log level unset"),
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock()
    }
}

#[cfg(test)]
#[path = "loggers/tests.rs"]
mod tests;
