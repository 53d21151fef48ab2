//! Log lines about this node when metadata changes: roles of its replicas, whether it is fenced,
//! and the leader of the quorum. The active controller logs facts about the whole cluster.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::{info, warn};

use super::Broker;
use crate::{
    metadata::{BrokerImage, Change, PartitionImage, topics::NO_LEADER},
    quorum::Leadership,
};

/// Counts of this broker's replicas whose role changes with one metadata batch.
#[derive(Debug, Default, PartialEq, Eq)]
struct RoleChanges {
    became_leader: usize,
    became_follower: usize,
    /// Replicas here of partitions that have lost their leader.
    became_leaderless: usize,
    removed: usize,
}

impl RoleChanges {
    fn of(node_id: i32, changes: &[Change]) -> Self {
        let is_here = |it: &PartitionImage| it.replicas.contains(&node_id);
        let mut counts = Self::default();
        for change in changes {
            match change {
                Change::PartitionAdded { new, .. } if is_here(new) => counts.assigned(node_id, new),
                Change::PartitionChanged(change) => {
                    let (old, new) = (&change.old, &change.new);
                    match (is_here(old), is_here(new)) {
                        (true, false) => counts.removed += 1,
                        (false, true) => counts.assigned(node_id, new),
                        (true, true) if old.leader != new.leader => counts.assigned(node_id, new),
                        _ => {}
                    }
                }
                Change::TopicDeleted { topic } => {
                    counts.removed += topic.partitions.iter().filter(|it| is_here(it)).count();
                }
                _ => {}
            }
        }
        counts
    }

    fn assigned(&mut self, node_id: i32, new: &PartitionImage) {
        let count = match new.leader {
            NO_LEADER => &mut self.became_leaderless,
            leader if leader == node_id => &mut self.became_leader,
            _ => &mut self.became_follower,
        };
        *count += 1;
    }
}

impl Broker {
    /// Logs one line for changed roles of this broker's replicas, and one if it was fenced or
    /// unfenced.
    pub(super) fn log_own_changes(&self, offset: i64, changes: &[Change]) {
        for change in changes {
            if let Change::BrokerChanged { id, old: Some(old), new } = change
                && *id == self.node.id
            {
                self.log_own_fencing(old, new);
            }
        }
        let counts = RoleChanges::of(self.node.id, changes);
        if counts != RoleChanges::default() {
            let RoleChanges { became_leader, became_follower, became_leaderless, removed } = counts;
            info!(
                became_leader,
                became_follower, became_leaderless, removed, offset, "roles of replicas changed"
            );
        }
    }

    fn log_own_fencing(&self, old: &BrokerImage, new: &BrokerImage) {
        let epoch = new.broker_epoch;
        let is_asked_for = self.membership.is_stopping();
        match (old.fenced, new.fenced) {
            _ if old.incarnation_id != new.incarnation_id => {}
            (true, false) => info!(epoch, "this broker was unfenced"),
            (false, true) if is_asked_for => info!(epoch, "this broker was fenced"),
            (false, true) => warn!(epoch, "this broker was fenced"),
            _ => {}
        }
    }
}

/// Logs each new leader of the quorum. Logs a warning if there is none for
/// `broker.session.timeout.ms`.
pub(super) async fn watch_quorum_leader(broker: Arc<Broker>) {
    let session_ms = broker.settings().cluster.broker_session_timeout_ms.max(0) as u64;
    let mut leadership = broker.quorum.leadership();
    let mut known = None;
    loop {
        let Leadership { leader, epoch, .. } = *leadership.borrow_and_update();
        let Some(leader) = leader else {
            let found = leadership.wait_for(|it| it.leader.is_some());
            match timeout(Duration::from_millis(session_ms), found).await {
                Ok(Ok(_)) => continue,
                Ok(Err(_)) => return,
                Err(_) => warn!(epoch, session_ms, "quorum has no leader"),
            }
            match leadership.wait_for(|it| it.leader.is_some()).await {
                Ok(_) => continue,
                Err(_) => return,
            }
        };
        if known != Some((leader, epoch)) {
            known = Some((leader, epoch));
            info!(leader, epoch, "quorum leader elected");
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::TopicId, metadata::PartitionChange};

    fn partition(leader: i32, replicas: &[i32]) -> PartitionImage {
        PartitionImage { leader, replicas: replicas.to_vec(), ..PartitionImage::default() }
    }

    fn changed(old: PartitionImage, new: PartitionImage) -> Change {
        let (id, name) = (TopicId::default(), "a".into());
        Change::PartitionChanged(Box::new(PartitionChange { id, name, partition: 0, old, new }))
    }

    #[test]
    fn roles_are_counted_per_batch() {
        let added = |leader| Change::PartitionAdded {
            id: TopicId::default(),
            name: "a".into(),
            partition: 0,
            new: partition(leader, &[1, 2]),
        };
        let changes = [
            added(1),
            added(2),
            added(NO_LEADER),
            changed(partition(2, &[1, 2]), partition(1, &[1, 2])),
            changed(partition(1, &[1, 2]), partition(1, &[1, 2])),
            changed(partition(2, &[1, 2]), partition(2, &[2, 3])),
            changed(partition(2, &[2, 3]), partition(3, &[2, 3])),
        ];
        let expected =
            RoleChanges { became_leader: 2, became_follower: 1, became_leaderless: 1, removed: 1 };
        assert_eq!(RoleChanges::of(1, &changes), expected);
    }
}
