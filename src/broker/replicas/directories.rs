//! Reports to the controller: which log directories are offline or cordoned, and which directory
//! each replica is in (AssignReplicasToDirs, KIP-858; Kafka's `AssignmentsManager`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kafka_protocol::messages::{
    AssignReplicasToDirsRequest, BrokerId,
    assign_replicas_to_dirs_request::{DirectoryData, PartitionData, TopicData},
};
use tokio::time::{sleep, timeout};
use tracing::debug;
use uuid::Uuid;

use super::Replicas;
use crate::{
    base::TopicId,
    controller::{METADATA_VERSION, is_nowhere},
    metadata::topics::LOST,
    partition::{Partition, Role},
};

const NONE: i16 = 0;
/// The first `metadata.version` in which replicas have log directories (KIP-858).
const DIRECTORIES_OF_REPLICAS: i16 = 17;
/// The time limit of a report, and of the wait until metadata contains it.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a failed report is sent again.
const BACKOFF: Duration = Duration::from_secs(1);

impl Replicas {
    /// The ids of the log directories that are online, or of those that are offline.
    pub(in crate::broker) fn log_dir_ids(&self, online: bool) -> Vec<Uuid> {
        let dirs = self.lock_dirs();
        let wanted = dirs.dirs().iter().filter(|dir| dir.is_offline() != online);
        // The id of a directory that was offline at the start is unknown (nil).
        wanted.map(|dir| dir.id).filter(|id| !id.is_nil()).collect()
    }

    pub(in crate::broker) fn cordoned_log_dir_ids(&self) -> Vec<Uuid> {
        let cordoned = &self.node.settings().cordoned_log_dirs;
        let dirs = self.lock_dirs();
        let wanted = dirs.dirs().iter().filter(|dir| cordoned.contains(&dir.path));
        wanted.map(|dir| dir.id).filter(|id| !id.is_nil()).collect()
    }

    /// Sends the next heartbeat at once, because it reports which log directories are cordoned.
    pub(in crate::broker) fn report_cordoned_dirs(&self) {
        self.dirs_changed.notify_one();
    }

    /// Reports to the controller which log directories are offline, and which directory each
    /// replica is in. Returns at once; tasks send the reports.
    pub(super) fn report_directories(self: &Arc<Self>) {
        self.dirs_changed.notify_one();
        let replicas = Arc::clone(self);
        self.node.runtime.spawn(async move { replicas.tell_directories().await });
    }

    /// Sends AssignReplicasToDirs until metadata has the directory of each replica here, or has no
    /// registration of this broker.
    pub(in crate::broker) async fn tell_directories(self: &Arc<Self>) {
        while let Some(request) = self.moved_replicas() {
            match self.to_controller.send(0, &request, REPORT_TIMEOUT).await {
                Ok(answer) if answer.error_code == NONE => {
                    // The assignment is committed, and reaches this node soon.
                    let known = self.node.metadata_shows(|_| self.moved_replicas().is_none());
                    let _ = timeout(REPORT_TIMEOUT, known).await;
                    continue;
                }
                Ok(answer) => debug!(code = answer.error_code, "AssignReplicasToDirs refused"),
                Err(error) => debug!(%error, "AssignReplicasToDirs failed"),
            }
            sleep(BACKOFF).await;
        }
    }

    /// The request that reports replicas whose log directory differs from metadata's: they are in
    /// another directory, or cannot be used. `None` if there are no such replicas.
    fn moved_replicas(&self) -> Option<AssignReplicasToDirsRequest> {
        let image = self.node.metadata();
        if image.feature(METADATA_VERSION) < DIRECTORIES_OF_REPLICAS {
            return None;
        }
        let registered = image.broker(self.node.id)?;
        let online = self.log_dir_ids(true);
        // Replicas in an offline directory are not reported as lost: the heartbeat names the
        // directory, and metadata must still say that they are in it.
        let is_news = |known: Uuid, now: Uuid| {
            known != now && (now != LOST || is_nowhere(known) || online.contains(&known))
        };
        let mut moved: BTreeMap<Uuid, BTreeMap<TopicId, Vec<PartitionData>>> = BTreeMap::new();
        for ((topic, index), directory) in self.directories_of_replicas() {
            let known = image.topic_by_id(topic);
            let known = known.and_then(|it| it.partitions.get(index as usize));
            let known = known.and_then(|it| it.directory_of(self.node.id));
            if known.is_some_and(|known| is_news(known, directory)) {
                let partition = PartitionData::default().with_partition_index(index);
                moved.entry(directory).or_default().entry(topic).or_default().push(partition);
            }
        }
        let topic =
            |(id, partitions)| TopicData::default().with_topic_id(id).with_partitions(partitions);
        let directory = |(id, topics): (_, BTreeMap<_, _>)| {
            let topics = topics.into_iter().map(topic).collect();
            DirectoryData::default().with_id(id).with_topics(topics)
        };
        (!moved.is_empty()).then(|| {
            AssignReplicasToDirsRequest::default()
                .with_broker_id(BrokerId(self.node.id))
                .with_broker_epoch(registered.broker_epoch)
                .with_directories(moved.into_iter().map(directory).collect())
        })
    }

    /// The id of each local replica's log directory, or `LOST` if the replica cannot be used. A
    /// replica that is about to move has its new directory.
    fn directories_of_replicas(&self) -> Vec<((TopicId, i32), Uuid)> {
        let dirs: Vec<_> = {
            let dirs = self.lock_dirs();
            let online = dirs.dirs().iter().filter(|dir| !dir.is_offline());
            online.map(|dir| (dir.path.clone(), dir.id)).collect()
        };
        let lost = self.offline_replicas().into_iter().map(|replica| (replica, LOST));
        let mut found: Vec<_> = lost.collect();
        for topic in self.partitions.topics() {
            let works = |it: &Arc<Partition>| it.view().role != Role::Offline;
            for partition in topic.partitions().into_iter().filter(works) {
                // The controller must have the new directory before a copy replaces the replica.
                let ready = partition.future_view().filter(|future| future.is_ready);
                let lies_in = partition.log_dir();
                let told = ready.as_ref().map_or(&**lies_in, |future| &future.log_dir);
                let dir = dirs.iter().find(|(path, _)| path == told);
                found.extend(dir.map(|(_, id)| ((topic.id, partition.id.partition), *id)));
            }
        }
        found
    }
}
