//! Property test of groups that change between the protocols: random histories of clients that use
//! the classic protocol, the consumer protocol, or change from one to the other. A partition has
//! one owner in a consumer group, only allowed conversions happen, and a replay gives the live
//! state. Once the clients use one protocol, or both if that is allowed, they share all partitions,
//! also from a log that ends within the records of a conversion.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use proptest::{prelude::*, sample::Index};
use uuid::Uuid;

use super::{
    super::{Event, LoggedState, TimerKey, VolatileState, messages::*},
    LoggedRecord,
    consumer_property::{check_owners, snapshot_of},
    pop_due, replay, write,
};
use crate::{
    base::config::MigrationPolicy,
    coordinator::{
        Shard, TimerOp, Token,
        group::{
            ClusterInfo, Group, GroupConfig, GroupShard, LoggedGroup,
            consumer::{
                member::LEAVE_STATIC_EPOCH,
                messages::{ConsumerHeartbeatReply, ConsumerHeartbeatRequest},
            },
            consumer_protocol::{
                ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartitions, decode,
            },
        },
        record_value::encode,
    },
};

const GROUP: &str = "g";
const CLIENTS: usize = 4;
const PROTOCOL: &str = "range";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Classic,
    Consumer,
}

/// An action as small numbers.
#[derive(Debug, Clone)]
struct Step {
    kind: u8,
    client: usize,
    wait_ms: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..20, 0..CLIENTS, prop_oneof![4 => 0i64..2_000, 1 => 0i64..30_000]);
    let step = step.prop_map(|(kind, client, wait_ms)| Step { kind, client, wait_ms });
    proptest::collection::vec(step, 1..120)
}

/// The settings of the broker in a run.
#[derive(Debug, Clone, Copy)]
struct Settings {
    policy: MigrationPolicy,
    max_size: usize,
    consumer_max_size: usize,
}

impl Settings {
    /// The number of clients that every group has room for.
    fn room(self) -> usize {
        self.max_size.min(self.consumer_max_size).min(CLIENTS)
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let policies = [
        MigrationPolicy::Bidirectional,
        MigrationPolicy::Bidirectional,
        MigrationPolicy::Upgrade,
        MigrationPolicy::Downgrade,
        MigrationPolicy::Disabled,
    ];
    let sizes = [(9, 9), (9, 9), (9, 2), (2, 9)];
    (proptest::sample::select(policies.to_vec()), proptest::sample::select(sizes.to_vec()))
        .prop_map(|(policy, (max_size, consumer_max_size))| Settings {
            policy,
            max_size,
            consumer_max_size,
        })
}

/// What a client waits for or does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It joins next.
    Out,
    /// Its JoinGroup has no response yet.
    Joining,
    /// Its SyncGroup has no response yet.
    Syncing,
    /// It sends heartbeats.
    In,
}

/// A client that follows one protocol or the other. The last two are static members, which share
/// an instance id.
#[derive(Debug, Clone)]
struct Client {
    protocol: Protocol,
    id: Arc<str>,
    instance_id: Option<Arc<str>>,
    phase: Phase,
    /// The member epoch, or the generation.
    epoch: i32,
    /// The partitions of the topic that it uses.
    owned: BTreeSet<i32>,
}

impl Client {
    /// Gives up all partitions, to join next.
    fn rejoin(&mut self) {
        self.phase = Phase::Out;
        self.owned.clear();
    }

    /// Gives up its membership, to join as another member next.
    fn forget(&mut self) {
        self.rejoin();
        self.id = Arc::default();
    }

    fn heartbeat(&self) -> ConsumerHeartbeatRequest {
        let joins = self.phase == Phase::Out;
        let owned: Vec<i32> = self.owned.iter().copied().collect();
        let partitions = if owned.is_empty() { vec![] } else { vec![(topic_id(), owned)] };
        ConsumerHeartbeatRequest {
            group: GROUP.into(),
            member_id: self.id.clone(),
            member_epoch: if joins { 0 } else { self.epoch },
            instance_id: self.instance_id.clone(),
            rack_id: None,
            rebalance_timeout_ms: if joins { 20_000 } else { -1 },
            subscribed_topic_names: joins.then(|| vec![TOPIC.into()]),
            subscribed_topic_regex: None,
            server_assignor: None,
            owned_partitions: Some(partitions),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
        }
    }

    fn take(&mut self, reply: &ConsumerHeartbeatReply) {
        self.phase = Phase::In;
        self.epoch = reply.member_epoch;
        if let Some(assignment) = &reply.assignment {
            self.owned = assignment.values().flatten().copied().collect();
        }
    }
}

const TOPIC: &str = "ta";

fn topic_id() -> crate::base::TopicId {
    snapshot_of(&BTreeMap::from([(TOPIC, 1)])).topics.get(TOPIC).unwrap().id
}

fn subscription() -> Bytes {
    let topics = vec![TOPIC.to_owned()];
    encode(&ConsumerProtocolSubscription { topics, ..Default::default() }, 1)
}

struct Run {
    settings: Settings,
    logged: LoggedState,
    volatile: VolatileState,
    now_ms: i64,
    log: Vec<LoggedRecord>,
    timers: BTreeMap<TimerKey, i64>,
    clients: Vec<Client>,
    partitions: i32,
    token: Token,
    /// The clients that wait for the responses to these requests.
    waiting: BTreeMap<Token, usize>,
    made_ids: u128,
}

impl Run {
    fn new(settings: Settings, log: Vec<LoggedRecord>, now_ms: i64) -> Self {
        let mut config = GroupConfig {
            max_size: settings.max_size,
            initial_rebalance_delay_ms: 1_000,
            new_member_join_timeout_ms: 20_000,
            ..GroupConfig::default()
        };
        config.consumer.max_size = settings.consumer_max_size;
        config.consumer.migration_policy = settings.policy;
        let clients = (0..CLIENTS).map(|at| Client {
            protocol: if at % 2 == 0 { Protocol::Classic } else { Protocol::Consumer },
            id: Arc::default(),
            instance_id: (at >= CLIENTS - 2).then(|| "i".into()),
            phase: Phase::Out,
            epoch: 0,
            owned: BTreeSet::new(),
        });
        let mut run = Self {
            settings,
            logged: replay(&log),
            volatile: VolatileState::new(ClusterInfo {
                config: Arc::new(config),
                ..ClusterInfo::default()
            }),
            now_ms,
            log,
            timers: BTreeMap::new(),
            clients: clients.collect(),
            partitions: 0,
            token: 0,
            waiting: BTreeMap::new(),
            made_ids: now_ms as u128 * 1_000,
        };
        run.event(Event::Loaded);
        run.set_partitions(4);
        run
    }

    fn request(&mut self, request: Request) -> Token {
        self.token += 1;
        let token = self.token;
        self.event(Event::Request { token, request });
        token
    }

    /// Sends a request of a client, which takes the response when it comes.
    fn send(&mut self, at: usize, request: Request) {
        self.waiting.insert(self.token + 1, at);
        self.request(request);
    }

    fn event(&mut self, event: Event) {
        let before = self.members();
        let outcome = GroupShard::decide(&self.logged, &mut self.volatile, self.now_ms, 0, event);
        for record in outcome.records {
            write(&mut self.logged, &mut self.log, record);
        }
        for op in outcome.timers {
            match op {
                TimerOp::Set { key, at_ms } => self.timers.insert(key, at_ms),
                TimerOp::SetOnce { key, at_ms } => Some(*self.timers.entry(key).or_insert(at_ms)),
                TimerOp::Cancel { key } => self.timers.remove(&key),
            };
        }
        self.check_conversion(before);
        if let Some(group) = self.logged.consumer(GROUP) {
            check_owners(group);
        }
        for (token, reply) in outcome.replies {
            if let Some(at) = self.waiting.remove(&token) {
                self.take(at, reply);
            }
        }
    }

    /// The members of the group, and the protocol that the group uses.
    fn members(&self) -> Option<(Protocol, BTreeSet<Arc<str>>)> {
        match (self.logged.groups.get(GROUP)?, self.volatile.groups.get(GROUP)) {
            (LoggedGroup::Consumer(group), _) => {
                Some((Protocol::Consumer, group.members().keys().cloned().collect()))
            }
            (_, Some(Group::Classic(group))) => {
                Some((Protocol::Classic, group.members.keys().cloned().collect()))
            }
            _ => None,
        }
    }

    /// Checks that a group with members changes its protocol only if the policy and the size allow
    /// it.
    fn check_conversion(&self, before: Option<(Protocol, BTreeSet<Arc<str>>)>) {
        let (Some((old, had)), Some((new, has))) = (before, self.members()) else { return };
        if old == new || had.is_disjoint(&has) {
            return;
        }
        let Settings { policy, max_size, consumer_max_size } = self.settings;
        match new {
            Protocol::Consumer => {
                assert!(policy.allows_upgrade() && has.len() <= consumer_max_size);
            }
            Protocol::Classic => assert!(policy.allows_downgrade() && has.len() <= max_size),
        }
    }

    fn wait(&mut self, ms: i64) {
        let until_ms = self.now_ms + ms;
        while let Some((at_ms, key)) = pop_due(&mut self.timers, until_ms) {
            self.now_ms = at_ms;
            self.event(Event::Timer(key));
        }
        self.now_ms = until_ms;
    }

    fn set_partitions(&mut self, partitions: i32) {
        self.partitions = partitions;
        let version = self.volatile.cluster.version + 1;
        let topics = Some(Arc::new(snapshot_of(&BTreeMap::from([(TOPIC, partitions)]))));
        let info = ClusterInfo { version, topics, ..self.volatile.cluster.clone() };
        self.request(Request::UpdateClusterInfo(info));
    }

    /// Lets a client send its next request.
    fn act(&mut self, at: usize) {
        self.made_ids += 1;
        let client = &mut self.clients[at];
        match (client.protocol, client.phase) {
            (Protocol::Consumer, _) => {
                if client.id.is_empty() {
                    client.id = format!("m{}", self.made_ids).into();
                }
                let request = client.heartbeat();
                self.send(at, Request::ConsumerHeartbeat(request));
            }
            (Protocol::Classic, Phase::Out) => {
                client.phase = Phase::Joining;
                let request = JoinRequest {
                    group: GROUP.into(),
                    member_id: client.id.clone(),
                    instance_id: client.instance_id.clone(),
                    client_id: "c".into(),
                    client_host: "/127.0.0.1".into(),
                    session_timeout_ms: 10_000,
                    rebalance_timeout_ms: 20_000,
                    protocol_type: "consumer".into(),
                    protocols: vec![(PROTOCOL.into(), subscription())],
                    requires_known_member_id: client.instance_id.is_none(),
                    supports_skipping_assignment: true,
                    fresh_id: Uuid::from_u128(self.made_ids),
                };
                self.send(at, Request::Join(request));
            }
            (Protocol::Classic, Phase::Joining | Phase::Syncing) => {}
            (Protocol::Classic, Phase::In) => {
                let request = HeartbeatRequest {
                    group: GROUP.into(),
                    generation: client.epoch,
                    member_id: client.id.clone(),
                    instance_id: client.instance_id.clone(),
                };
                self.send(at, Request::Heartbeat(request));
            }
        }
    }

    fn take(&mut self, at: usize, reply: Reply) {
        let client = &mut self.clients[at];
        match reply {
            Reply::ConsumerHeartbeat(Ok(reply)) => client.take(&reply),
            Reply::ConsumerHeartbeat(Err(_)) => client.forget(),
            Reply::Join(JoinReply { error: None, .. }) => self.joined(at, reply),
            Reply::Join(JoinReply {
                error: Some(GroupError::MemberIdRequired), member_id, ..
            }) => {
                client.id = member_id;
                client.phase = Phase::Out;
            }
            Reply::Join(_) => client.forget(),
            Reply::Sync(SyncReply { error: None, assignment, .. }) => {
                client.phase = Phase::In;
                client.owned = partitions_of(assignment);
            }
            Reply::Sync(_) => client.rejoin(),
            Reply::Heartbeat(Ok(())) => {}
            Reply::Heartbeat(Err(GroupError::RebalanceInProgress)) => client.rejoin(),
            Reply::Heartbeat(Err(_)) => client.forget(),
            other => panic!("{other:?}"),
        }
    }

    /// Sends SyncGroup. The leader of a classic group has computed the assignments.
    fn joined(&mut self, at: usize, reply: Reply) {
        let Reply::Join(reply) = reply else { unreachable!("checked by the caller") };
        let client = &mut self.clients[at];
        client.id = reply.member_id.clone();
        client.epoch = reply.generation;
        client.phase = Phase::Syncing;
        let count = reply.members.len();
        let share_of = |(place, member): (usize, &JoinedMember)| {
            let partitions = (0..self.partitions).filter(|it| *it as usize % count == place);
            (member.member_id.clone(), assignment(partitions.collect()))
        };
        let assignments = match reply.skip_assignment {
            true => Vec::new(),
            false => reply.members.iter().enumerate().map(share_of).collect(),
        };
        let request = SyncRequest {
            group: GROUP.into(),
            generation: reply.generation,
            member_id: reply.member_id,
            instance_id: client.instance_id.clone(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some(PROTOCOL.into()),
            assignments,
        };
        self.send(at, Request::Sync(request));
    }

    /// Leaves the group, unless the client is a static member that may return.
    fn leave(&mut self, at: usize, may_return: bool) {
        let client = self.clients[at].clone();
        self.waiting.retain(|_, waits| *waits != at);
        self.clients[at].forget();
        if client.id.is_empty() {
            return;
        }
        match (client.protocol, may_return && client.instance_id.is_some()) {
            (Protocol::Consumer, returns) => {
                let member_epoch = if returns { LEAVE_STATIC_EPOCH } else { -1 };
                let request = ConsumerHeartbeatRequest { member_epoch, ..client.heartbeat() };
                self.request(Request::ConsumerHeartbeat(request));
            }
            (Protocol::Classic, true) => {}
            (Protocol::Classic, false) => {
                let instance_id = client.instance_id;
                let leaving = LeavingMember { member_id: client.id, instance_id, reason: None };
                let request = LeaveRequest { group: GROUP.into(), members: vec![leaving] };
                self.request(Request::Leave(request));
            }
        }
    }

    /// Restarts a client with another protocol.
    fn change_protocol(&mut self, at: usize, protocol: Protocol) {
        if self.clients[at].protocol != protocol {
            self.leave(at, true);
            self.clients[at].protocol = protocol;
        }
    }

    fn reload(&mut self) {
        self.volatile = VolatileState::new(self.volatile.cluster.clone());
        assert_eq!(replay(&self.log), self.logged);
        self.timers.clear();
        // The clients lose their connections, and send the next request again.
        for at in std::mem::take(&mut self.waiting).into_values() {
            self.clients[at].rejoin();
        }
        self.event(Event::Loaded);
    }

    fn step(&mut self, step: &Step) {
        self.wait(step.wait_ms);
        let at = step.client;
        match step.kind {
            0..=11 => self.act(at),
            // The client gives up what it waits for.
            12 => {
                self.waiting.retain(|_, waits| *waits != at);
                self.clients[at].rejoin();
            }
            13 => self.leave(at, true),
            14 => self.leave(at, false),
            15..=17 => {
                let other = match self.clients[at].protocol {
                    Protocol::Classic => Protocol::Consumer,
                    Protocol::Consumer => Protocol::Classic,
                };
                self.change_protocol(at, other);
                self.act(at);
            }
            18 => self.set_partitions(2 + at as i32),
            _ => self.reload(),
        }
    }

    /// Lets as many clients as have room use these protocols, until all sessions of others have
    /// ended several times. Checks that they then share all partitions.
    ///
    /// One client leaves meanwhile and joins again. As in Kafka, classic members need that in two
    /// cases. If a consumer group has no others, they compute no target assignment when one of them
    /// is removed. If the group becomes a classic one without a rebalance, they do not get the
    /// partitions that they were waiting for.
    fn converge(&mut self, protocols: &[Protocol]) {
        let count = self.settings.room().min(CLIENTS - 1);
        for at in 0..CLIENTS {
            self.change_protocol(at, protocols[at % protocols.len()]);
            if at >= count {
                self.leave(at, false);
            }
        }
        for round in 0..80 {
            self.wait(2_000);
            if round == 40 {
                self.leave(0, false);
            }
            (0..count).for_each(|at| self.act(at));
        }
        let clients = &self.clients[..count];
        assert!(clients.iter().all(|client| client.phase == Phase::In), "{clients:?}");
        let used: Vec<i32> = clients.iter().flat_map(|client| client.owned.clone()).collect();
        let distinct: BTreeSet<i32> = used.iter().copied().collect();
        assert_eq!(used.len(), distinct.len(), "a partition is used twice: {clients:?}");
        assert_eq!(distinct, (0..self.partitions).collect(), "{clients:?}");
    }
}

fn assignment(partitions: Vec<i32>) -> Bytes {
    let topic = TopicPartitions { topic: TOPIC.into(), partitions };
    let assigned_partitions = vec![topic];
    encode(&ConsumerProtocolAssignment { assigned_partitions, user_data: None }, 1)
}

fn partitions_of(bytes: Bytes) -> BTreeSet<i32> {
    if bytes.is_empty() {
        return BTreeSet::new();
    }
    let decoded: ConsumerProtocolAssignment = decode(bytes).unwrap();
    decoded.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect()
}

proptest! {
    #[test]
    fn groups_converge_after_any_conversions(
        settings in settings(),
        steps in steps(),
        last in 0u8..3,
        cut in any::<Index>(),
    ) {
        let mut run = Run::new(settings, Vec::new(), 1_000_000);
        for step in &steps {
            run.step(step);
        }
        prop_assert_eq!(&replay(&run.log), &run.logged);

        // Members of both protocols are in one group only if it can be upgraded.
        let protocols: &[Protocol] = match last {
            0 if settings.policy.allows_upgrade() => &[Protocol::Classic, Protocol::Consumer],
            0 | 1 => &[Protocol::Classic],
            _ => &[Protocol::Consumer],
        };
        let log = run.log[..cut.index(run.log.len() + 1)].to_vec();
        run.converge(protocols);
        let mut torn = Run::new(settings, log, run.now_ms);
        torn.converge(protocols);
    }
}
