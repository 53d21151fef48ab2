//! Tests of the runtime on a log in memory, whose high watermark the tests move. Those in this file
//! use the group coordinator.

mod consumer;
mod shard;
mod transactions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::{ShardLog, ShardLogError, WriteRefused};
use crate::{
    base::{TopicId, TopicPartition},
    coordinator::{
        Coordinator, GroupCoordinator, PlannedBatch,
        group::{
            GroupConfig, GroupError,
            messages::{
                CommitPartition, CommitRequest, CommitTopic, CommitTransaction, FetchRequest,
                FetchTopic, GroupSurvey, HeartbeatRequest, JoinRequest, ListRequest, SyncRequest,
            },
        },
    },
    records::{
        Batch, BatchBuilder, BatchHeader, BatchOptions, ControlRecordType, Producer,
        TransactionVersion, TxnMarker, Verification, control::EndTxnMarker,
    },
};

struct MemoryLog {
    batches: Mutex<Vec<Batch>>,
    end: Mutex<i64>,
    high_watermark: watch::Sender<i64>,
    /// Whether an append is committed at once.
    commits_itself: bool,
    fails: Mutex<bool>,
    /// Why `check` refuses every batch, if it does.
    refuses: Mutex<Option<WriteRefused>>,
    reads_wait: AtomicBool,
}

impl MemoryLog {
    fn new(commits_itself: bool) -> Arc<Self> {
        Arc::new(Self {
            batches: Mutex::default(),
            end: Mutex::default(),
            high_watermark: watch::Sender::new(0),
            commits_itself,
            fails: Mutex::default(),
            refuses: Mutex::default(),
            reads_wait: AtomicBool::default(),
        })
    }

    fn batches(&self) -> usize {
        self.batches.lock().len()
    }

    fn commit_all(&self) {
        let end = self.end_offset();
        self.high_watermark.send_replace(end);
    }

    /// Appends a record as another coordinator would write it.
    fn push(&self, options: BatchOptions, key: &[u8], value: Option<&[u8]>) {
        let mut batch = BatchBuilder::new(options);
        batch.append(0, Some(key), value, &[]);
        self.append(batch.build()).unwrap();
    }
}

impl ShardLog for MemoryLog {
    fn end_offset(&self) -> i64 {
        *self.end.lock()
    }

    fn high_watermark(&self) -> i64 {
        *self.high_watermark.borrow()
    }

    fn check(&self, _batch: &PlannedBatch, _needs_all: bool) -> Result<(), WriteRefused> {
        self.refuses.lock().map_or(Ok(()), Err)
    }

    fn append(&self, mut batch: Batch) -> Result<i64, ShardLogError> {
        if *self.fails.lock() {
            return Err(ShardLogError::Failed("told to".into()));
        }
        let mut end = self.end.lock();
        batch.header.base_offset = *end;
        *end = batch.header.last_offset() + 1;
        self.batches.lock().push(batch);
        if self.commits_itself {
            self.high_watermark.send_replace(*end);
        }
        Ok(*end)
    }

    fn wait_committed(&self, end_offset: i64) -> BoxFuture<'_, bool> {
        let mut high_watermark = self.high_watermark.subscribe();
        Box::pin(async move { high_watermark.wait_for(|at| *at >= end_offset).await.is_ok() })
    }

    fn read_all(
        &self,
        each: &mut dyn FnMut(Batch) -> Result<(), ShardLogError>,
    ) -> Result<(), ShardLogError> {
        while self.reads_wait.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let batches = self.batches.lock().clone();
        batches.into_iter().try_for_each(each)
    }
}

/// A group coordinator with one partition.
fn coordinator(log: &Arc<MemoryLog>) -> GroupCoordinator {
    let config = GroupConfig {
        offsets_topic_num_partitions: 1,
        initial_rebalance_delay_ms: 0,
        min_session_timeout_ms: 1,
        ..GroupConfig::default()
    };
    let groups = GroupCoordinator::new(config);
    groups.on_elected(0, 0, Arc::clone(log) as _);
    groups
}

async fn ready(groups: &GroupCoordinator) {
    while groups.list(ListRequest::default()).await == Err(GroupError::CoordinatorLoadInProgress) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn commit(group: &str, offset: i64) -> CommitRequest {
    let partition = CommitPartition { partition: 0, offset, leader_epoch: -1, metadata: None };
    CommitRequest {
        group: group.into(),
        generation: -1,
        member_id: Arc::default(),
        instance_id: None,
        retention_ms: None,
        knows_group_id_not_found: true,
        topics: vec![CommitTopic {
            name: "t".into(),
            id: TopicId::nil(),
            partitions: vec![partition],
        }],
        transaction: None,
    }
}

fn fetch(group: &str, topics: Option<Vec<FetchTopic>>) -> FetchRequest {
    let (member_id, member_epoch, requires_stable) = (None, -1, topics.is_some());
    FetchRequest { group: group.into(), member_id, member_epoch, topics, requires_stable }
}

async fn committed(groups: &GroupCoordinator, group: &str) -> Vec<i64> {
    let fetched = groups.fetch_offsets(fetch(group, None)).await.wait().await;
    let topics = fetched.unwrap().unwrap();
    topics.iter().flat_map(|topic| &topic.partitions).map(|it| it.offset).collect()
}

fn join(group: &str, session_timeout_ms: i32) -> JoinRequest {
    JoinRequest {
        group: group.into(),
        member_id: Arc::default(),
        instance_id: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::new())],
        requires_known_member_id: false,
        supports_skipping_assignment: true,
        fresh_id: Uuid::from_u128(1),
    }
}

#[tokio::test]
async fn waiting_commits_share_one_append() {
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    ready(&groups).await;
    let mut answers = Vec::new();
    for n in 0..50 {
        answers.push(groups.commit_offsets(commit(&format!("g{n}"), n)).await);
    }
    for answer in answers {
        assert!(answer.wait().await.unwrap().is_ok());
    }
    assert_eq!(log.end_offset(), 50);
    assert_eq!(log.batches(), 1);
}

#[tokio::test]
async fn answers_wait_for_the_high_watermark() {
    let log = MemoryLog::new(false);
    let groups = coordinator(&log);
    ready(&groups).await;
    let answer = tokio::spawn(groups.commit_offsets(commit("g", 7)).await.wait());
    // The read was decided after the commit and returns its offset, so it must not be answered
    // before the commit.
    let fetched = tokio::spawn(groups.fetch_offsets(fetch("g", None)).await.wait());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!answer.is_finished() && !fetched.is_finished());
    log.commit_all();
    assert!(answer.await.unwrap().unwrap().is_ok());
    assert_eq!(fetched.await.unwrap().unwrap().unwrap()[0].partitions[0].offset, 7);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_committed_in_time_is_told_so_and_stands() {
    let log = MemoryLog::new(false);
    let groups = coordinator(&log);
    ready(&groups).await;
    let began = tokio::time::Instant::now();
    let refused = groups.commit_offsets(commit("g", 7)).await.wait().await;
    assert_eq!(refused, Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(began.elapsed().as_secs(), 5);
    log.commit_all();
    assert_eq!(committed(&groups, "g").await, [7]);
}

#[tokio::test]
async fn a_new_coordinator_has_what_the_log_has() {
    let log = MemoryLog::new(true);
    let first = coordinator(&log);
    ready(&first).await;
    first.commit_offsets(commit("g", 7)).await.wait().await.unwrap().unwrap();
    let second = coordinator(&log);
    ready(&second).await;
    assert_eq!(committed(&second, "g").await, [7]);
}

#[tokio::test]
async fn calls_are_refused_while_loading_and_elsewhere() {
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    ready(&groups).await;
    groups.commit_offsets(commit("g", 7)).await.wait().await.unwrap().unwrap();
    groups.on_resigned(0);
    let refused = groups.commit_offsets(commit("g", 8)).await.wait().await;
    assert_eq!(refused, Err(GroupError::NotCoordinator));

    log.reads_wait.store(true, Ordering::Release);
    groups.on_elected(0, 0, Arc::clone(&log) as _);
    let refused = groups.commit_offsets(commit("g", 8)).await.wait().await;
    assert_eq!(refused, Err(GroupError::CoordinatorLoadInProgress));
    log.reads_wait.store(false, Ordering::Release);
    ready(&groups).await;
    assert_eq!(committed(&groups, "g").await, [7]);
}

#[tokio::test]
async fn waiting_calls_fail_when_shard_stops() {
    let log = MemoryLog::new(false);
    let groups = coordinator(&log);
    ready(&groups).await;
    let answer = groups.commit_offsets(commit("g", 7)).await;
    groups.on_resigned(0);
    assert_eq!(answer.wait().await, Err(GroupError::NotCoordinator));
}

#[tokio::test]
async fn failed_append_reloads_shard() {
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    ready(&groups).await;
    groups.commit_offsets(commit("g", 7)).await.wait().await.unwrap().unwrap();
    *log.fails.lock() = true;
    let refused = groups.commit_offsets(commit("g", 8)).await.wait().await;
    assert_eq!(refused, Err(GroupError::NotCoordinator));
    *log.fails.lock() = false;
    ready(&groups).await;
    assert_eq!(committed(&groups, "g").await, [7]);
}

#[tokio::test]
async fn sessions_end_on_time() {
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    ready(&groups).await;
    let joined = groups.join(join("g", 500)).await.wait().await.unwrap();
    assert_eq!(joined.error, None);
    let sync = SyncRequest {
        group: "g".into(),
        generation: 1,
        member_id: joined.member_id.clone(),
        instance_id: None,
        protocol_type: None,
        protocol_name: None,
        assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"all"))],
    };
    let synced = groups.sync(sync).await.wait().await.unwrap();
    assert_eq!(synced.assignment, "all");
    let heartbeat = || {
        let member_id = joined.member_id.clone();
        HeartbeatRequest { group: "g".into(), generation: 1, member_id, instance_id: None }
    };
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(groups.heartbeat(heartbeat()).await.wait().await, Ok(Ok(())));
    }
    tokio::time::sleep(Duration::from_millis(800)).await;
    let late = groups.heartbeat(heartbeat()).await.wait().await;
    assert_eq!(late, Ok(Err(GroupError::UnknownMemberId)));
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_millis(100)
}

#[tokio::test]
async fn snapshot_counts_members_and_waiting_requests() {
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    ready(&groups).await;
    groups.join(join("g", 10_000)).await.wait().await.unwrap();
    let late = JoinRequest { fresh_id: Uuid::from_u128(2), ..join("g", 10_000) };
    // The second member's join waits until the first member rejoins.
    let _waits = groups.join(late).await;
    groups.commit_offsets(commit("simple", 7)).await.wait().await.unwrap().unwrap();
    let surveys = groups.survey(soon()).await;
    let told = surveys.iter().map(|it| (&*it.group, it.state, it.members, it.parked, it.sessions));
    let expected = [("g", "PreparingRebalance", 2, 1, 2), ("simple", "Empty", 0, 0, 0)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(surveys[1].offsets, [(TopicPartition::new("t", 0), 7)]);
}

#[tokio::test]
async fn snapshot_omits_unresponsive_shards() {
    let (quick, stuck) = (MemoryLog::new(true), MemoryLog::new(false));
    let config = GroupConfig { offsets_topic_num_partitions: 3, ..GroupConfig::default() };
    let groups = GroupCoordinator::new(config);
    groups.on_elected(0, 0, Arc::clone(&stuck) as _);
    groups.on_elected(1, 0, Arc::clone(&quick) as _);
    ready(&groups).await;
    // The groups are in partitions 0 and 1. Another broker coordinates the third partition.
    assert_eq!((groups.partition_of("c"), groups.partition_of("a")), (0, 1));
    let _waits = groups.commit_offsets(commit("c", 1)).await;
    groups.commit_offsets(commit("a", 2)).await.wait().await.unwrap().unwrap();
    let names = |surveys: Vec<GroupSurvey>| {
        surveys.into_iter().map(|it| it.group.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(groups.survey(soon()).await), ["a"]);
    stuck.commit_all();
    assert_eq!(names(groups.survey(soon()).await), ["c", "a"]);
}

#[tokio::test]
async fn deleted_topics_lose_their_offsets_even_while_loading() {
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    ready(&groups).await;
    groups.commit_offsets(commit("g", 7)).await.wait().await.unwrap().unwrap();
    log.reads_wait.store(true, Ordering::Release);
    groups.on_elected(0, 0, Arc::clone(&log) as _);
    groups.on_topics_deleted(&[TopicPartition::new("t", 0)]);
    log.reads_wait.store(false, Ordering::Release);
    ready(&groups).await;
    assert_eq!(committed(&groups, "g").await, [0i64; 0]);
}

fn commit_in_transaction(group: &str, offset: i64, producer: Producer) -> CommitRequest {
    let (verification, version) = (Verification::MustBeOpen, TransactionVersion::default());
    let transaction = CommitTransaction { producer, verification, version };
    CommitRequest { transaction: Some(transaction), ..commit(group, offset) }
}

fn marker(producer: Producer, commits: bool) -> TxnMarker {
    let version = TransactionVersion::default();
    TxnMarker { producer, commits, coordinator_epoch: 9, version }
}

/// The offsets of a group's partitions; `None` for unstable ones.
async fn stable(groups: &GroupCoordinator, group: &str) -> Vec<Option<i64>> {
    let topic = FetchTopic { name: "t".into(), id: TopicId::nil(), partitions: vec![0] };
    let fetched = groups.fetch_offsets(fetch(group, Some(vec![topic]))).await.wait().await;
    let topics = fetched.unwrap().unwrap();
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|it| (!it.is_unstable).then_some(it.offset)).collect()
}

#[tokio::test]
async fn offsets_of_a_transaction_count_once_its_marker_commits() {
    let producer = Producer { id: 5, epoch: 1 };
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    ready(&groups).await;
    for (offset, commits, expected) in [(7, true, 7), (8, false, 7)] {
        let request = commit_in_transaction("g", offset, producer);
        groups.commit_offsets(request).await.wait().await.unwrap().unwrap();
        assert_eq!(stable(&groups, "g").await, [None]);
        let loaded = coordinator(&log);
        ready(&loaded).await;
        assert_eq!(stable(&loaded, "g").await, [None]);
        groups.end_transaction(0, marker(producer, commits)).await.unwrap();
        assert_eq!(stable(&groups, "g").await, [Some(expected)]);
    }
    let headers: Vec<_> = log.batches.lock().iter().map(|batch| batch.header).collect();
    let producers: Vec<_> = headers.iter().map(|it| (it.producer_id, it.producer_epoch)).collect();
    assert_eq!(producers, [(5, 1); 4]);
    assert!(headers.iter().all(BatchHeader::is_transactional));
    assert_eq!(
        headers.iter().map(BatchHeader::is_control).collect::<Vec<_>>(),
        [false, true, false, true]
    );
    assert_eq!(headers.iter().map(|it| it.base_sequence).collect::<Vec<_>>(), [0, -1, 0, -1]);
    let batch = log.batches.lock()[3].clone();
    let record = batch.records(1000).unwrap().next().unwrap().unwrap();
    assert_eq!(record.key.unwrap()[..], ControlRecordType::Abort.to_key());
    assert_eq!(record.value.unwrap()[..], EndTxnMarker { coordinator_epoch: 9 }.to_value());
}

#[tokio::test]
async fn refused_transactional_batches_name_the_reason() {
    let producer = Producer { id: 5, epoch: 1 };
    let log = MemoryLog::new(true);
    let groups = coordinator(&log);
    ready(&groups).await;
    for (refused, error) in [
        (WriteRefused::InvalidTxnState, GroupError::InvalidTxnState),
        (WriteRefused::InvalidProducerEpoch, GroupError::InvalidProducerEpoch),
        (WriteRefused::CoordinatorFenced, GroupError::TransactionCoordinatorFenced),
        (WriteRefused::NotLeader, GroupError::NotCoordinator),
    ] {
        *log.refuses.lock() = Some(refused);
        let request = commit_in_transaction("g", 1, producer);
        assert_eq!(groups.commit_offsets(request).await.wait().await, Err(error));
        assert_eq!(groups.end_transaction(0, marker(producer, true)).await, Err(error));
    }
    // A plain commit is decided without a question to the log.
    groups.commit_offsets(commit("g", 7)).await.wait().await.unwrap().unwrap();
    assert_eq!(log.batches(), 1);
    let elsewhere = groups.end_transaction(1, marker(producer, true)).await;
    assert_eq!(elsewhere, Err(GroupError::NotCoordinator));
}

#[tokio::test(start_paused = true)]
async fn marker_that_is_not_committed_in_time_times_out() {
    let groups = coordinator(&MemoryLog::new(false));
    ready(&groups).await;
    let late = groups.end_transaction(0, marker(Producer { id: 5, epoch: 1 }, true)).await;
    assert_eq!(late, Err(GroupError::RequestTimedOut));
}

#[tokio::test]
async fn log_written_by_kafka_loads() {
    let log = MemoryLog::new(true);
    // OffsetCommitKey 1 of group g, topic t, partition 0; values of version 3.
    let key = [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 0];
    let value = |offset: u8| {
        let mut value = vec![0, 3, 0, 0, 0, 0, 0, 0, 0, offset, 0xff, 0xff, 0xff, 0xff, 0, 0];
        value.extend([0; 8]);
        value
    };
    let transaction = |producer_id, is_control| BatchOptions {
        producer_id,
        producer_epoch: 0,
        base_sequence: if is_control { -1 } else { 0 },
        is_transactional: true,
        is_control,
        ..BatchOptions::default()
    };
    // A record of a group of the consumer protocol (KIP-848).
    log.push(BatchOptions::default(), &[0, 3, 0, 1, b'g'], Some(&[0, 0, 0, 0, 0, 1, 0]));
    log.push(BatchOptions::default(), &key, Some(&value(1)));
    log.push(transaction(5, false), &key, Some(&value(2)));
    log.push(transaction(6, false), &key, Some(&value(3)));
    let marker = |ends: ControlRecordType| ends.to_key();
    log.push(transaction(5, true), &marker(ControlRecordType::Commit), Some(&[0; 6]));
    log.push(transaction(6, true), &marker(ControlRecordType::Abort), Some(&[0; 6]));
    let groups = coordinator(&log);
    ready(&groups).await;
    assert_eq!(committed(&groups, "g").await, [2]);
}
