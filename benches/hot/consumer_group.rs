//! The state machine of consumer groups: heartbeats of 1,000 members with 10,000 partitions.

use std::sync::Arc;

use divan::Bencher;
use sordini::{
    base::TopicId,
    coordinator::{
        BatchKind, Shard,
        group::{
            ClusterInfo, Event, GroupShard, LoggedState, Reply, Request, VolatileState,
            consumer::messages::{ConsumerHeartbeatRequest, TopicInfo, TopicsSnapshot},
        },
    },
};

use crate::NOW_MS;

const MEMBERS: usize = 1_000;
const TOPICS: u128 = 10;
const PARTITIONS: i32 = 1_000;
/// Longer than the least interval between two target assignments.
const ROUND_MS: i64 = 5_000;

/// A member, as its client sees it.
#[derive(Clone, Default)]
struct Client {
    epoch: i32,
    owned: Vec<(TopicId, Vec<i32>)>,
}

/// A shard without its log, and the members of its group.
struct Machine {
    logged: LoggedState,
    volatile: VolatileState,
    next_offset: i64,
    now_ms: i64,
    names: Vec<Arc<str>>,
    clients: Vec<Client>,
}

impl Machine {
    fn new() -> Self {
        let mut topics = TopicsSnapshot::default();
        for at in 1..=TOPICS {
            let (id, name): (_, Arc<str>) = (TopicId::from_u128(at), format!("topic-{at}").into());
            let info = TopicInfo { id, partitions: PARTITIONS, hash: at as i64 };
            topics.topics.insert(name.clone(), Arc::new(info));
            topics.names.insert(id, name);
        }
        let names = topics.topics.keys().cloned().collect();
        let topics = Some(Arc::new(topics));
        let cluster = ClusterInfo { version: 1, topics, ..ClusterInfo::default() };
        Self {
            logged: LoggedState::default(),
            volatile: VolatileState::new(cluster),
            next_offset: 0,
            now_ms: NOW_MS,
            names,
            clients: vec![Client::default(); MEMBERS],
        }
    }

    /// Handles a heartbeat as the coordinator runtime does, but discards the encoded records.
    fn heartbeat(&mut self, at: usize) {
        let Client { epoch, owned } = self.clients[at].clone();
        let joins = epoch == 0;
        let request = ConsumerHeartbeatRequest {
            group: "group".into(),
            member_id: format!("member-{at}").into(),
            member_epoch: epoch,
            instance_id: None,
            rack_id: None,
            rebalance_timeout_ms: if joins { 300_000 } else { -1 },
            subscribed_topic_names: joins.then(|| self.names.clone()),
            subscribed_topic_regex: None,
            server_assignor: None,
            owned_partitions: Some(owned),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
        };
        let event = Event::Request { token: 1, request: Request::ConsumerHeartbeat(request) };
        let outcome = GroupShard::decide(&self.logged, &mut self.volatile, self.now_ms, 0, event);
        for record in &outcome.records {
            divan::black_box(GroupShard::encode(record));
            GroupShard::apply(&mut self.logged, self.next_offset, BatchKind::Plain, record);
            self.next_offset += 1;
        }
        let (_, Reply::ConsumerHeartbeat(Ok(reply))) = &outcome.replies[0] else {
            panic!("refused: {:?}", outcome.replies);
        };
        self.clients[at].epoch = reply.member_epoch;
        if let Some(assignment) = &reply.assignment {
            self.clients[at].owned = assignment.clone().into_iter().collect();
        }
    }

    /// Sends one heartbeat of each member.
    fn round(&mut self) {
        (0..MEMBERS).for_each(|at| self.heartbeat(at));
        self.now_ms += ROUND_MS;
    }

    /// From the first member that joins until all have their partitions.
    fn form(&mut self) {
        (0..4).for_each(|_| self.round());
        let each = TOPICS as usize * PARTITIONS as usize / MEMBERS;
        for Client { owned, .. } in &self.clients {
            let count: usize = owned.iter().map(|(_, partitions)| partitions.len()).sum();
            assert_eq!(count, each);
        }
    }
}

#[divan::bench(sample_size = 1, sample_count = 10)]
fn consumer_group_of_1000_forms(bencher: Bencher) {
    bencher.with_inputs(Machine::new).bench_local_values(|mut machine| {
        machine.form();
        machine
    });
}

#[divan::bench(sample_size = 1000)]
fn consumer_heartbeat(bencher: Bencher) {
    let mut machine = Machine::new();
    machine.form();
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % MEMBERS;
        machine.heartbeat(at);
    });
}
