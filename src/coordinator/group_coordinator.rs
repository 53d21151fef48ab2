//! The handle to the group coordinator for handlers and the broker. It routes each request by group
//! id to the shard of the group's partition of `__consumer_offsets`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use super::{
    Coordinator, OFFSETS_TOPIC,
    group::{
        ClusterInfo, GroupConfig, GroupShard, VolatileState,
        config::ConsumerGroupConfig,
        consumer::messages::{
            ConsumerGroupDescription, ConsumerHeartbeatReply, ConsumerHeartbeatRequest, Refusal,
            TopicsSnapshot,
        },
        consumer::resolution::ResolveRegexes,
        messages::{
            CommitReply, CommitRequest, DeleteOffsetsRequest, DeletedOffsets, FetchRequest,
            FetchedTopic, GroupDescription, GroupError, GroupSurvey, HeartbeatRequest, JoinReply,
            JoinRequest, LeaveRequest, LeaveResult, ListRequest, ListedGroup, Reply, Request,
            SyncReply, SyncRequest,
        },
        partition_for,
    },
    runtime::{Answered, CallError, Limits, ShardLog, Shards, Unavailable, WriteRefused},
};
use crate::{
    base::{TopicPartition, environment::blocking},
    records::TxnMarker,
};

/// A pending response. The request already has its place in the order of the shard's requests, so
/// the caller may send the next one before it waits.
pub struct Answer<T> {
    reply: Result<oneshot::Receiver<Answered<GroupShard>>, GroupError>,
    read: fn(Reply) -> Option<T>,
}

impl<T> Answer<T> {
    /// Waits for the response. Fails with `NotCoordinator` if the shard ends before it answers, and
    /// with `CoordinatorNotAvailable` if the records are not committed within
    /// `offsets.commit.timeout.ms`. If the log does not take a transactional batch, the error says
    /// why.
    pub async fn wait(self) -> Result<T, GroupError> {
        let answered = self.reply?.await.map_err(|_| GroupError::NotCoordinator)?;
        let reply = answered.map_err(|error| match error {
            CallError::NotCommitted => GroupError::CoordinatorNotAvailable,
            CallError::Refused(refused) => write_refused(refused),
        })?;
        (self.read)(reply).ok_or(GroupError::UnknownServerError)
    }

    fn refused(error: GroupError) -> Self {
        Self { reply: Err(error), read: |_| None }
    }
}

/// A function that takes the reply of the given kind.
macro_rules! reply_of {
    ($kind:ident) => {
        |reply| match reply {
            Reply::$kind(reply) => Some(reply),
            _ => None,
        }
    };
}

struct Inner {
    shards: Shards<GroupShard>,
    cluster: ArcSwap<ClusterInfo>,
    partitions: AtomicI32,
}

/// The most groups whose regular expressions are resolved at once, as many as Kafka has by default
/// (`group.coordinator.background.threads`). A large expression needs milliseconds per topic.
const RESOLUTIONS_MAX: usize = 2;

/// Handle to the group coordinator; clones share it. A request fails with `NotCoordinator` if this
/// broker does not lead the group's partition, and with `CoordinatorLoadInProgress` while its shard
/// loads.
#[derive(Clone)]
pub struct GroupCoordinator(Arc<Inner>);

impl GroupCoordinator {
    pub fn new(config: GroupConfig) -> Self {
        let partitions = AtomicI32::new(config.offsets_topic_num_partitions);
        let cluster = ClusterInfo { config: Arc::new(config), ..ClusterInfo::default() };
        let cluster = ArcSwap::from_pointee(cluster);
        Self(Arc::new_cyclic(|inner: &Weak<Inner>| {
            let inner = Weak::clone(inner);
            let turns = Arc::new(Semaphore::new(RESOLUTIONS_MAX));
            let shards = Shards::new(move |partition, work| {
                let (inner, turns) = (Weak::clone(&inner), Arc::clone(&turns));
                tokio::spawn(resolve_regexes(inner, turns, partition, work));
            });
            Inner { shards, cluster, partitions }
        }))
    }

    /// Sends the cluster's topics to all shards. Before the first call, consumer groups get no
    /// assignments. Must be called within a tokio runtime.
    pub fn set_topics(&self, topics: Arc<TopicsSnapshot>) {
        self.update_cluster(|cluster| cluster.topics = Some(Arc::clone(&topics)));
    }

    /// Sends the configs of groups to all shards, which use them from the next heartbeat on. Must be
    /// called within a tokio runtime.
    pub fn set_group_configs(&self, configs: Arc<BTreeMap<Arc<str>, ConsumerGroupConfig>>) {
        self.update_cluster(|cluster| cluster.group_configs = Arc::clone(&configs));
    }

    /// Sends a changed configuration to all shards. Must be called within a tokio runtime.
    pub fn set_config(&self, config: GroupConfig) {
        let config = Arc::new(config);
        self.update_cluster(|cluster| cluster.config = Arc::clone(&config));
    }

    fn update_cluster(&self, update: impl Fn(&mut ClusterInfo)) {
        self.0.cluster.rcu(|cluster| {
            let mut cluster = ClusterInfo::clone(cluster);
            cluster.version += 1;
            update(&mut cluster);
            cluster
        });
        // A shard that loads meanwhile gets it twice.
        let latest = self.0.cluster.load_full();
        self.0.shards.notify_all(|| Request::UpdateClusterInfo(ClusterInfo::clone(&latest)));
    }

    pub fn config(&self) -> Arc<GroupConfig> {
        Arc::clone(&self.0.cluster.load().config)
    }

    /// The partition of `__consumer_offsets` that stores a group.
    pub fn partition_of(&self, group: &str) -> i32 {
        partition_for(group, self.0.partitions.load(Ordering::Acquire))
    }

    /// JoinGroup. The response may wait until the join phase of the rebalance completes.
    pub async fn join(&self, request: JoinRequest) -> Answer<JoinReply> {
        let config = self.config();
        let timeouts_ms = config.min_session_timeout_ms..=config.max_session_timeout_ms;
        if request.group.is_empty() {
            return Answer::refused(GroupError::InvalidGroupId);
        }
        if !timeouts_ms.contains(&request.session_timeout_ms) {
            return Answer::refused(GroupError::InvalidSessionTimeout);
        }
        let group = Arc::clone(&request.group);
        self.call(&group, Request::Join(request), reply_of!(Join)).await
    }

    /// SyncGroup. The response may wait until the group's leader has sent the assignments.
    pub async fn sync(&self, request: SyncRequest) -> Answer<SyncReply> {
        if request.group.is_empty() {
            return Answer::refused(GroupError::InvalidGroupId);
        }
        let group = Arc::clone(&request.group);
        self.call(&group, Request::Sync(request), reply_of!(Sync)).await
    }

    pub async fn heartbeat(&self, request: HeartbeatRequest) -> Answer<Result<(), GroupError>> {
        if request.group.is_empty() {
            return Answer::refused(GroupError::InvalidGroupId);
        }
        let group = Arc::clone(&request.group);
        self.call(&group, Request::Heartbeat(request), reply_of!(Heartbeat)).await
    }

    pub async fn leave(
        &self,
        request: LeaveRequest,
    ) -> Answer<Result<Vec<LeaveResult>, GroupError>> {
        if request.group.is_empty() {
            return Answer::refused(GroupError::InvalidGroupId);
        }
        let group = Arc::clone(&request.group);
        self.call(&group, Request::Leave(request), reply_of!(Leave)).await
    }

    pub async fn commit_offsets(&self, request: CommitRequest) -> Answer<CommitReply> {
        let group = Arc::clone(&request.group);
        self.call(&group, Request::CommitOffsets(request), reply_of!(CommitOffsets)).await
    }

    /// OffsetFetch. The response waits until the high watermark has passed the records of all
    /// commits that were decided before it.
    pub async fn fetch_offsets(
        &self,
        request: FetchRequest,
    ) -> Answer<Result<Vec<FetchedTopic>, GroupError>> {
        let group = Arc::clone(&request.group);
        self.call(&group, Request::FetchOffsets(request), reply_of!(FetchOffsets)).await
    }

    pub async fn delete_offsets(
        &self,
        request: DeleteOffsetsRequest,
    ) -> Answer<Result<Vec<DeletedOffsets>, GroupError>> {
        if request.group.is_empty() {
            return Answer::refused(GroupError::InvalidGroupId);
        }
        let group = Arc::clone(&request.group);
        self.call(&group, Request::DeleteOffsets(request), reply_of!(DeleteOffsets)).await
    }

    /// Writes the marker that ends a producer's transaction to a partition of
    /// `__consumer_offsets`, and waits until it is committed. The producer's pending offsets are
    /// then committed or dropped. The marker is also written if there are none.
    ///
    /// # Errors
    /// - `NotCoordinator` and `CoordinatorLoadInProgress`: the partition cannot be written here now.
    /// - `InvalidProducerEpoch` and `TransactionCoordinatorFenced`: the marker is out of date.
    /// - `RequestTimedOut`: the marker is not committed within `offsets.commit.timeout.ms`. It may
    ///   still be committed later.
    pub async fn end_transaction(
        &self,
        partition: i32,
        marker: TxnMarker,
    ) -> Result<(), GroupError> {
        let request = Request::EndTransaction(marker);
        let answer = self.0.shards.call(partition, request).await.map_err(unavailable)?;
        match answer.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(CallError::NotCommitted)) => Err(GroupError::RequestTimedOut),
            Ok(Err(CallError::Refused(refused))) => Err(write_refused(refused)),
            Err(_) => Err(GroupError::NotCoordinator),
        }
    }

    /// DeleteGroups: returns the result of each group. The groups are sorted by partition; those of
    /// one partition stay in their order.
    pub async fn delete_groups(
        &self,
        groups: Vec<Arc<str>>,
    ) -> Vec<(Arc<str>, Result<(), GroupError>)> {
        let mut results = Vec::with_capacity(groups.len());
        for (partition, groups) in self.by_partition(groups) {
            let request = Request::DeleteGroups(groups.clone());
            match self.call_partition(partition, request, reply_of!(DeleteGroups)).await {
                Ok(deleted) => results.extend(deleted),
                Err(error) => results.extend(groups.into_iter().map(|group| (group, Err(error)))),
            }
        }
        results
    }

    /// ConsumerGroupHeartbeat (KIP-848). The response leaves once its records are committed.
    pub async fn consumer_heartbeat(
        &self,
        request: ConsumerHeartbeatRequest,
    ) -> Answer<Result<ConsumerHeartbeatReply, Refusal>> {
        let group = Arc::clone(&request.group);
        self.call(&group, Request::ConsumerHeartbeat(request), reply_of!(ConsumerHeartbeat)).await
    }

    /// ConsumerGroupDescribe (KIP-848). The groups are sorted by partition; those of one partition
    /// stay in their order.
    pub async fn describe_consumer_groups(
        &self,
        groups: Vec<Arc<str>>,
    ) -> Vec<(Arc<str>, Result<ConsumerGroupDescription, Refusal>)> {
        let mut described = Vec::with_capacity(groups.len());
        for (partition, groups) in self.by_partition(groups) {
            let request = Request::ConsumerDescribe(groups.clone());
            match self.call_partition(partition, request, reply_of!(ConsumerDescribe)).await {
                Ok(found) => described.extend(found),
                Err(error) => {
                    let refusal = Refusal { error, message: String::new() };
                    described.extend(groups.into_iter().map(|id| (id, Err(refusal.clone()))));
                }
            }
        }
        described
    }

    pub async fn describe(&self, groups: Vec<Arc<str>>) -> Vec<GroupDescription> {
        let mut described = Vec::with_capacity(groups.len());
        for (partition, groups) in self.by_partition(groups) {
            let request = Request::Describe(groups.clone());
            match self.call_partition(partition, request, reply_of!(Describe)).await {
                Ok(found) => described.extend(found),
                Err(error) => described.extend(groups.into_iter().map(|group| GroupDescription {
                    group,
                    error: Some(error),
                    state: "",
                    protocol_type: Arc::default(),
                    protocol: Arc::default(),
                    members: Vec::new(),
                })),
            }
        }
        described
    }

    /// ListGroups: the groups of all partitions that this broker leads. Fails if one of their
    /// shards is loading.
    pub async fn list(&self, request: ListRequest) -> Result<Vec<ListedGroup>, GroupError> {
        let mut listed = Vec::new();
        for partition in self.0.shards.partitions() {
            let request = Request::List(request.clone());
            match self.call_partition(partition, request, reply_of!(List)).await {
                Ok(groups) => listed.extend(groups),
                Err(GroupError::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }

    /// All groups that this broker coordinates, for metrics. Leaves out shards that are loading or
    /// do not answer by the deadline.
    pub async fn survey(&self, deadline: Instant) -> Vec<GroupSurvey> {
        let mut surveys = Vec::new();
        for reply in self.0.shards.ask_all(|| Request::Survey, deadline).await {
            if let Reply::Survey(groups) = reply {
                surveys.extend(groups);
            }
        }
        surveys
    }

    /// Sends a request to the shard of a group. Returns once it has its place in the order.
    async fn call<T>(
        &self,
        group: &str,
        request: Request,
        read: fn(Reply) -> Option<T>,
    ) -> Answer<T> {
        let reply = self.0.shards.call(self.partition_of(group), request).await;
        Answer { reply: reply.map_err(unavailable), read }
    }

    /// Sends a request to the shard of a partition, and waits for the response.
    async fn call_partition<T>(
        &self,
        partition: i32,
        request: Request,
        read: fn(Reply) -> Option<T>,
    ) -> Result<T, GroupError> {
        let reply = self.0.shards.call(partition, request).await.map_err(unavailable);
        Answer { reply, read }.wait().await
    }

    fn by_partition(&self, groups: Vec<Arc<str>>) -> BTreeMap<i32, Vec<Arc<str>>> {
        let mut by_partition: BTreeMap<i32, Vec<Arc<str>>> = BTreeMap::new();
        for group in groups {
            by_partition.entry(self.partition_of(&group)).or_default().push(group);
        }
        by_partition
    }
}

impl Coordinator for GroupCoordinator {
    fn topic(&self) -> &'static str {
        OFFSETS_TOPIC
    }

    /// Before the topic exists, the number is `offsets.topic.num.partitions`.
    fn set_partition_count(&self, partitions: i32) {
        self.0.partitions.store(partitions, Ordering::Release);
    }

    fn on_elected(&self, partition: i32, leader_epoch: i32, log: Arc<dyn ShardLog>) {
        let GroupConfig { max_batch_bytes, commit_timeout_ms, .. } = *self.config();
        let commit_timeout = Duration::from_millis(commit_timeout_ms);
        let limits = Limits { max_batch_bytes, commit_timeout };
        let inner = Arc::downgrade(&self.0);
        let new_volatile = move || {
            // A coordinator that is gone sends its shards no requests.
            let cluster = inner.upgrade().map(|inner| inner.cluster.load_full());
            VolatileState::new(cluster.map(Arc::unwrap_or_clone).unwrap_or_default())
        };
        self.0.shards.elect(partition, leader_epoch, log, limits, new_volatile);
    }

    fn on_reelected(&self, partition: i32, leader_epoch: i32) {
        self.0.shards.set_leader_epoch(partition, leader_epoch);
    }

    /// Requests that wait in the shard fail with `NotCoordinator`.
    fn on_resigned(&self, partition: i32) {
        self.0.shards.resign(partition);
    }

    /// Deletes the offsets of the partitions, committed and in open transactions.
    fn on_topics_deleted(&self, partitions: &[TopicPartition]) {
        self.0.shards.notify_all(|| Request::ForgetPartitions(partitions.to_vec()));
    }
}

/// Resolves regular expressions for a shard, and sends it the outcome.
async fn resolve_regexes(
    inner: Weak<Inner>,
    turns: Arc<Semaphore>,
    partition: i32,
    work: ResolveRegexes,
) {
    let failed = work.failed();
    let _turn = turns.acquire().await;
    let outcome = blocking(move || work.run()).await.unwrap_or(failed);
    if let Some(inner) = inner.upgrade() {
        // The shard may have ended. Another one resolves them again.
        let _ = inner.shards.call(partition, Request::RegexesResolved(outcome)).await;
    }
}

fn unavailable(unavailable: Unavailable) -> GroupError {
    match unavailable {
        Unavailable::NotCoordinator => GroupError::NotCoordinator,
        Unavailable::Loading => GroupError::CoordinatorLoadInProgress,
    }
}

fn write_refused(refused: WriteRefused) -> GroupError {
    match refused {
        WriteRefused::NotEnoughReplicas => GroupError::CoordinatorNotAvailable,
        WriteRefused::NotLeader => GroupError::NotCoordinator,
        WriteRefused::InvalidProducerEpoch => GroupError::InvalidProducerEpoch,
        WriteRefused::CoordinatorFenced => GroupError::TransactionCoordinatorFenced,
        WriteRefused::InvalidTxnState => GroupError::InvalidTxnState,
    }
}
