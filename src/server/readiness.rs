//! Health of this node, for the probes `/livez`, `/readyz` and `/health`.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use serde_json::json;

use crate::{
    base::environment::now_ms,
    broker::Broker,
    partition::Role,
    telemetry::{Health, NotReady, StartProgress, http::HealthCheck},
};

/// How long a partition counts as failing after a failed write, in milliseconds. A later successful
/// write ends it at once.
const FAILING_MS: i64 = 60_000;
/// How long a rename, a creation or a sync of directories in a log directory may take before the
/// node counts as not ready.
const HUNG: Duration = Duration::from_secs(10);
/// The most partitions that an answer names. It also has their total number.
const NAMES_MAX: usize = 10;

/// The health check of a node. It reports the progress of the start until the start is complete,
/// and then the state of the broker.
pub(super) struct Probes {
    progress: Arc<StartProgress>,
    /// Empty until the broker is composed.
    broker: OnceLock<Weak<Broker>>,
}

impl Probes {
    pub fn new(progress: Arc<StartProgress>) -> Self {
        Self { progress, broker: OnceLock::new() }
    }

    /// Sets the broker whose state is reported once the start is complete.
    pub fn watch(&self, broker: &Arc<Broker>) {
        // The start calls this once, so it cannot fail.
        let _ = self.broker.set(Arc::downgrade(broker));
    }

    /// The broker, once the start is complete. The inner `None` means that the broker has stopped.
    fn started(&self) -> Option<Option<Arc<Broker>>> {
        self.broker.get().filter(|_| self.progress.is_ready()).map(Weak::upgrade)
    }
}

impl HealthCheck for Probes {
    fn is_alive(&self) -> bool {
        self.started().flatten().is_none_or(|broker| !broker.has_failed())
    }

    fn health(&self) -> Health {
        match self.started() {
            None => self.progress.health(),
            Some(Some(broker)) => health(&broker),
            Some(None) => Health::unhealthy(NotReady::new("stopping")),
        }
    }
}

fn health(broker: &Broker) -> Health {
    let is_online = || broker.replicas.lock_dirs().dirs().iter().any(|it| !it.is_offline());
    Health { is_healthy: !broker.has_failed() && is_online(), reasons: reasons(broker) }
}

fn reasons(broker: &Broker) -> Vec<NotReady> {
    let settings = broker.settings();
    let cluster = &settings.cluster;
    let is_stopping = broker.membership.is_stopping();
    let stopping = is_stopping.then(|| NotReady::new("stopping"));
    let registered = broker.metadata().broker(broker.node.id).map(|it| it.fenced);
    let fenced = match registered {
        _ if !cluster.is_broker => None,
        None => Some(NotReady::new("not_registered")),
        Some(true) => Some(NotReady::new("fenced")),
        Some(false) => None,
    };
    let silence = broker.membership.since_heartbeat_response();
    let is_silent = match cluster.is_broker {
        true => silence > broker.node.session_timeout(),
        false => broker.quorum.leader().is_none(),
    };
    let since = ("silent_ms", json!(silence.as_millis() as u64));
    let no_controller = NotReady::new("no_controller");
    let no_controller = match cluster.is_broker {
        true => no_controller.with([since]),
        false => no_controller,
    };
    let no_room = broker.quorum.has_no_room();
    let no_room = no_room.then(|| NotReady::new("no_room_for_metadata"));
    let found = [stopping, fenced, is_silent.then_some(no_controller), no_room];
    let dirs = [offline_dirs(broker), hung_dirs(broker)];
    let partitions = [offline_partitions(broker), failing_partitions(broker)];
    found.into_iter().chain(dirs).chain(partitions).flatten().collect()
}

fn offline_dirs(broker: &Broker) -> Option<NotReady> {
    let dirs = broker.replicas.lock_dirs();
    let offline = dirs.dirs().iter().filter(|dir| dir.is_offline());
    dirs_reason("offline_log_directories", offline.map(|dir| dir.path.clone()).collect())
}

/// Log directories with an operation on directories that has not finished for [`HUNG`].
fn hung_dirs(broker: &Broker) -> Option<NotReady> {
    let hung = broker.replicas.log_dirs.hung_for(HUNG);
    dirs_reason("hung_log_directories", hung)
}

fn offline_partitions(broker: &Broker) -> Option<NotReady> {
    let all = broker.replicas.partitions.partitions();
    let offline = all.iter().filter(|it| it.view().role == Role::Offline);
    partitions_reason("offline_partitions", offline.map(|it| it.id.to_string()).collect())
}

/// Partitions whose writes have failed recently, mostly because the disk is full.
fn failing_partitions(broker: &Broker) -> Option<NotReady> {
    let since_ms = now_ms() - FAILING_MS;
    let all = broker.replicas.partitions.partitions();
    let failing = all.iter().filter(|it| it.refuses_writes(since_ms));
    partitions_reason("partitions_refuse_writes", failing.map(|it| it.id.to_string()).collect())
}

fn dirs_reason(reason: &'static str, dirs: Vec<PathBuf>) -> Option<NotReady> {
    let paths: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    let details = [("log_directories", json!(paths))];
    (!paths.is_empty()).then(|| NotReady::new(reason).with(details))
}

fn partitions_reason(reason: &'static str, mut names: Vec<String>) -> Option<NotReady> {
    let count = names.len();
    names.sort_unstable();
    names.truncate(NAMES_MAX);
    let details = [("count", json!(count)), ("partitions", json!(names))];
    (count > 0).then(|| NotReady::new(reason).with(details))
}
