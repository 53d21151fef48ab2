//! The state machine of the group coordinator: `decide`, and `apply` of its records.

use std::sync::Arc;

use bytes::Bytes;
use divan::Bencher;
use sordini::{
    base::TopicId,
    coordinator::{
        BatchKind, Shard, Token,
        group::{
            ClusterInfo, Event, GroupShard, LoggedState, Reply, Request, TimerKey, VolatileState,
            messages::{
                CommitPartition, CommitRequest, CommitTopic, HeartbeatRequest, JoinRequest,
                SyncRequest,
            },
        },
    },
};
use uuid::Uuid;

use crate::NOW_MS;

const GROUP: &str = "group";
const MEMBERS: u32 = 100;

/// A shard without its log.
struct Machine {
    logged: LoggedState,
    volatile: VolatileState,
    next_offset: i64,
}

impl Machine {
    fn new() -> Self {
        let volatile = VolatileState::new(ClusterInfo::default());
        Self { logged: LoggedState::default(), volatile, next_offset: 0 }
    }

    /// Handles an event as the coordinator runtime does, but discards the encoded records.
    fn event(&mut self, event: Event) -> Vec<(Token, Reply)> {
        let outcome = GroupShard::decide(&self.logged, &mut self.volatile, NOW_MS, 0, event);
        for record in &outcome.records {
            divan::black_box(GroupShard::encode(record));
            GroupShard::apply(&mut self.logged, self.next_offset, BatchKind::Plain, record);
            self.next_offset += 1;
        }
        outcome.replies
    }

    fn request(&mut self, request: Request) -> Vec<(Token, Reply)> {
        self.event(Event::Request { token: 1, request })
    }

    /// Rebalances an empty group, from the first JoinGroup to the last SyncGroup.
    fn rebalance(&mut self, member_ids: &[Arc<str>]) {
        for (at, _) in (0..).zip(member_ids) {
            self.request(Request::Join(join(at)));
        }
        // The delay of the first rebalance (`group.initial.rebalance.delay.ms`) may be extended.
        let mut joined = 0;
        while joined == 0 {
            joined = self.event(Event::Timer(TimerKey::Join { group: GROUP.into() })).len();
        }
        assert_eq!(joined, member_ids.len());
        let assignment = Bytes::from_static(&[7; 100]);
        let leaders: Vec<_> =
            member_ids.iter().map(|id| (id.clone(), assignment.clone())).collect();
        let mut synced = 0;
        for (at, id) in member_ids.iter().enumerate().rev() {
            let assignments = if at == 0 { leaders.clone() } else { Vec::new() };
            synced += self.request(Request::Sync(sync(id.clone(), assignments))).len();
        }
        assert_eq!(synced, member_ids.len());
    }
}

fn member_ids() -> Vec<Arc<str>> {
    (0..MEMBERS).map(|at| format!("client-{}", fresh_id(at)).into()).collect()
}

fn fresh_id(at: u32) -> Uuid {
    Uuid::from_u128(u128::from(at) + 1)
}

/// A join as before KIP-394, so that a member joins with its first request.
fn join(at: u32) -> JoinRequest {
    let topic = b"\0\x01\0\0\0\x01\0\x05topic\xff\xff\xff\xff";
    JoinRequest {
        group: GROUP.into(),
        member_id: "".into(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(topic))],
        requires_known_member_id: false,
        supports_skipping_assignment: true,
        fresh_id: fresh_id(at),
    }
}

fn sync(member_id: Arc<str>, assignments: Vec<(Arc<str>, Bytes)>) -> SyncRequest {
    SyncRequest {
        group: GROUP.into(),
        generation: 1,
        member_id,
        instance_id: None,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments,
    }
}

#[divan::bench(sample_size = 10)]
fn rebalance_of_100(bencher: Bencher) {
    let ids = member_ids();
    bencher.with_inputs(Machine::new).bench_local_values(|mut machine| {
        machine.rebalance(&ids);
        machine
    });
}

#[divan::bench(sample_size = 1000)]
fn heartbeat(bencher: Bencher) {
    let ids = member_ids();
    let mut machine = Machine::new();
    machine.rebalance(&ids);
    let heartbeat = HeartbeatRequest {
        group: GROUP.into(),
        generation: 1,
        member_id: ids[50].clone(),
        instance_id: None,
    };
    bencher.bench_local(|| {
        let replies = machine.request(Request::Heartbeat(heartbeat.clone()));
        assert!(matches!(replies[0].1, Reply::Heartbeat(Ok(()))));
    });
}

#[divan::bench(sample_size = 20)]
fn commit_of_100(bencher: Bencher) {
    let ids = member_ids();
    let mut machine = Machine::new();
    machine.rebalance(&ids);
    let partition = |partition| CommitPartition {
        partition,
        offset: 1_000_000,
        leader_epoch: 3,
        metadata: Some(String::new()),
    };
    let topic = CommitTopic {
        name: "topic".into(),
        id: TopicId::from_u128(1),
        partitions: (0..100).map(partition).collect(),
    };
    let commit = CommitRequest {
        group: GROUP.into(),
        generation: 1,
        member_id: ids[50].clone(),
        instance_id: None,
        retention_ms: None,
        knows_group_id_not_found: true,
        topics: vec![topic],
        transaction: None,
    };
    bencher.with_inputs(|| commit.clone()).bench_local_values(|commit| {
        let replies = machine.request(Request::CommitOffsets(commit));
        assert!(matches!(replies[0].1, Reply::CommitOffsets(Ok(_))));
    });
}
