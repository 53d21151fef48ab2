//! What stands in the way of this node's service, for `/readyz` and `/health`.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use serde_json::json;

use super::Broker;
use crate::{
    base::world::now_ms,
    partition::Role,
    telemetry::{Health, NotReady, http::HealthCheck},
};

/// How long a partition counts as failing after it refused a write. A later write that succeeds ends
/// it at once.
const FAILING_MS: i64 = 60_000;
/// Partitions that an answer names; it has the number of all.
const NAMES_MAX: usize = 10;

impl Broker {
    pub(super) fn health_check(self: &Arc<Self>) -> HealthCheck {
        let broker = Arc::downgrade(self);
        Arc::new(move || match broker.upgrade() {
            Some(broker) => broker.health(),
            None => Health::unhealthy(NotReady::new("stopping")),
        })
    }

    fn health(&self) -> Health {
        let has_failed = self.has_failed();
        let is_healthy = !has_failed && self.lock_dirs().dirs().iter().any(|it| !it.is_offline());
        Health { is_alive: !has_failed, is_healthy, reasons: self.reasons() }
    }

    fn reasons(&self) -> Vec<NotReady> {
        let settings = self.settings();
        let cluster = &settings.cluster;
        let is_stopping = self.stopping.load(Ordering::Relaxed);
        let stopping = is_stopping.then(|| NotReady::new("stopping"));
        let registered = self.metadata().broker(self.node_id).map(|it| it.fenced);
        let fenced = match registered {
            _ if !cluster.is_broker => None,
            None => Some(NotReady::new("not_registered")),
            Some(true) => Some(NotReady::new("fenced")),
            Some(false) => None,
        };
        let session_ms = cluster.broker_session_timeout_ms.max(1) as u64;
        let silence = self.controller_silence();
        let is_silent = match cluster.is_broker {
            true => silence > Duration::from_millis(session_ms),
            false => self.quorum.leader().is_none(),
        };
        let since = ("silent_ms", json!(silence.as_millis() as u64));
        let no_controller = NotReady::new("no_controller");
        let no_controller = match cluster.is_broker {
            true => no_controller.with([since]),
            false => no_controller,
        };
        let no_room = self.quorum.has_no_room();
        let no_room = no_room.then(|| NotReady::new("no_room_for_metadata"));
        let found = [stopping, fenced, is_silent.then_some(no_controller), no_room];
        let disks = [self.offline_dirs(), self.offline_partitions(), self.failing_partitions()];
        found.into_iter().chain(disks).flatten().collect()
    }

    fn offline_dirs(&self) -> Option<NotReady> {
        let dirs = self.lock_dirs();
        let offline = dirs.dirs().iter().filter(|dir| dir.is_offline());
        let paths: Vec<_> = offline.map(|dir| dir.path.display().to_string()).collect();
        let reason = || NotReady::new("offline_log_directories");
        (!paths.is_empty()).then(|| reason().with([("log_directories", json!(paths))]))
    }

    fn offline_partitions(&self) -> Option<NotReady> {
        let all = self.partitions.partitions();
        let offline = all.iter().filter(|it| it.view().role == Role::Offline);
        partitions("offline_partitions", offline.map(|it| it.id.to_string()).collect())
    }

    /// Partitions whose writes the disk refuses, mostly because it is full.
    fn failing_partitions(&self) -> Option<NotReady> {
        let since_ms = now_ms() - FAILING_MS;
        let all = self.partitions.partitions();
        let failing = all.iter().filter(|it| it.refuses_writes(since_ms));
        partitions("partitions_refuse_writes", failing.map(|it| it.id.to_string()).collect())
    }
}

fn partitions(reason: &'static str, mut names: Vec<String>) -> Option<NotReady> {
    let count = names.len();
    names.sort_unstable();
    names.truncate(NAMES_MAX);
    let details = [("count", json!(count)), ("partitions", json!(names))];
    (count > 0).then(|| NotReady::new(reason).with(details))
}
