//! Property test of consumer groups: random histories of clients, topics, lost responses, reloads
//! and time. At every moment a partition has one owner, which is at least who uses it; epochs do not
//! fall; a replay gives the live state. Once the clients only send heartbeats, the group converges,
//! also from a log that ends within the records of a heartbeat.

mod classic;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::{prelude::*, sample::Index};

use self::classic::{CLASSIC_CLIENTS, ClassicClient};
use super::{
    super::{Event, LoggedState, TimerKey, VolatileState, messages::*},
    LoggedRecord, pop_due, replay, write,
};
use crate::{
    base::{TopicId, config::MigrationPolicy},
    coordinator::{
        Shard, TimerOp,
        group::{
            ClusterInfo, GroupConfig, GroupShard,
            assignor::{Assignment, Assignor},
            consumer::{
                ConsumerGroup,
                member::LEAVE_STATIC_EPOCH,
                messages::{
                    ConsumerHeartbeatReply, ConsumerHeartbeatRequest, TopicInfo, TopicsSnapshot,
                },
                resolution::ResolveRegexes,
                state::GroupState,
            },
        },
    },
};

const GROUP: &str = "g";
const TOPICS: [&str; 3] = ["ta", "tb", "u"];
/// The number of clients that use the consumer protocol.
const CLIENTS: usize = 5;

fn topic_id(name: &str) -> TopicId {
    let letters = name.bytes().fold(0, |id: u128, letter| (id << 8) | u128::from(letter));
    TopicId::from_u128(letters)
}

/// The topics of a cluster by name, with their numbers of partitions.
pub fn snapshot_of(topics: &BTreeMap<&'static str, i32>) -> TopicsSnapshot {
    let mut snapshot = TopicsSnapshot::default();
    for (name, partitions) in topics {
        let (id, name): (_, Arc<str>) = (topic_id(name), (*name).into());
        let info = TopicInfo { id, partitions: *partitions, hash: i64::from(*partitions) };
        snapshot.topics.insert(name.clone(), Arc::new(info));
        snapshot.names.insert(id, name);
    }
    snapshot
}

/// The topics of the bits of a number.
fn names_of(bits: u8) -> Vec<Arc<str>> {
    let names = TOPICS.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
    names.map(|(_, name)| (*name).into()).collect()
}

/// An action as small numbers.
#[derive(Debug, Clone)]
struct Step {
    kind: u8,
    client: usize,
    value: u8,
    wait_ms: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..30, 0..CLIENTS, 0u8..8, prop_oneof![0i64..2_000, 0i64..30_000]);
    let step =
        step.prop_map(|(kind, client, value, wait_ms)| Step { kind, client, value, wait_ms });
    proptest::collection::vec(step, 1..150)
}

/// A client that follows the protocol. The last two are static members, which share an instance id.
#[derive(Debug, Clone, Default)]
struct Client {
    id: Arc<str>,
    instance_id: Option<Arc<str>>,
    /// Whether it has joined and has not been fenced.
    is_member: bool,
    epoch: i32,
    /// The partitions that it uses.
    owned: Assignment,
    names: Vec<Arc<str>>,
    regex: Arc<str>,
    /// Whether the next heartbeat has the subscription.
    must_subscribe: bool,
}

impl Client {
    fn request(&self) -> ConsumerHeartbeatRequest {
        let subscribes = !self.is_member || self.must_subscribe;
        ConsumerHeartbeatRequest {
            group: GROUP.into(),
            member_id: self.id.clone(),
            member_epoch: if self.is_member { self.epoch } else { 0 },
            instance_id: self.instance_id.clone(),
            rack_id: None,
            rebalance_timeout_ms: if subscribes { 20_000 } else { -1 },
            subscribed_topic_names: subscribes.then(|| self.names.clone()),
            subscribed_topic_regex: subscribes.then(|| self.regex.clone()),
            server_assignor: None,
            owned_partitions: Some(self.owned.clone().into_iter().collect()),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
        }
    }

    fn take(&mut self, reply: &ConsumerHeartbeatReply) {
        self.is_member = true;
        self.must_subscribe = false;
        self.epoch = reply.member_epoch;
        if let Some(assignment) = &reply.assignment {
            self.owned = assignment.clone();
        }
    }

    /// Gives up all partitions, to join again later.
    fn abandon(&mut self) {
        self.is_member = false;
        self.owned.clear();
    }
}

struct Run {
    logged: LoggedState,
    volatile: VolatileState,
    now_ms: i64,
    log: Vec<LoggedRecord>,
    timers: BTreeMap<TimerKey, i64>,
    work: Vec<ResolveRegexes>,
    clients: Vec<Client>,
    classics: Vec<ClassicClient>,
    partitions: BTreeMap<&'static str, i32>,
    token: u64,
}

impl Run {
    fn new(interval_ms: i32, log: Vec<LoggedRecord>, now_ms: i64) -> Self {
        let mut config = GroupConfig::default();
        config.consumer.assignment_interval_ms.value = interval_ms;
        config.consumer.max_size = CLIENTS - 1 + CLASSIC_CLIENTS;
        config.consumer.migration_policy = MigrationPolicy::Upgrade;
        config.consumer.assignors = vec![Assignor::Uniform, Assignor::Range];
        let clients = (0..CLIENTS).map(|at| Client {
            id: format!("m{at}").into(),
            instance_id: (at >= CLIENTS - 2).then(|| "i".into()),
            names: vec![TOPICS[0].into()],
            ..Client::default()
        });
        let mut run = Self {
            logged: replay(&log),
            volatile: VolatileState::new(ClusterInfo {
                config: Arc::new(config),
                ..ClusterInfo::default()
            }),
            now_ms,
            log,
            timers: BTreeMap::new(),
            work: Vec::new(),
            clients: clients.collect(),
            classics: ClassicClient::all(),
            partitions: BTreeMap::new(),
            token: 0,
        };
        run.event(Event::Loaded);
        run.set_partitions(TOPICS[0], 4);
        run
    }

    fn group(&self) -> Option<&ConsumerGroup> {
        self.logged.consumer(GROUP)
    }

    fn request(&mut self, request: Request) -> Reply {
        self.token += 1;
        let token = self.token;
        let mut replies = self.event(Event::Request { token, request });
        assert_eq!(replies.len(), 1);
        replies.remove(0)
    }

    fn event(&mut self, event: Event) -> Vec<Reply> {
        let before = self.group().cloned();
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
        self.work.extend(outcome.effects);
        if let (Some(before), Some(after)) = (before, self.group()) {
            check_epochs(&before, after);
        }
        if let Some(group) = self.group() {
            check_owners(group);
        }
        outcome.replies.into_iter().map(|(_, reply)| reply).collect()
    }

    fn wait(&mut self, ms: i64) {
        let until_ms = self.now_ms + ms;
        while let Some((at_ms, key)) = pop_due(&mut self.timers, until_ms) {
            self.now_ms = at_ms;
            self.event(Event::Timer(key));
        }
        self.now_ms = until_ms;
    }

    /// Sets the number of partitions of a topic. With 0, the topic does not exist.
    fn set_partitions(&mut self, topic: &'static str, partitions: i32) {
        self.partitions.insert(topic, partitions);
        self.partitions.retain(|_, partitions| *partitions > 0);
        let version = self.volatile.cluster.version + 1;
        let topics = Some(Arc::new(snapshot_of(&self.partitions)));
        let info = ClusterInfo { version, topics, ..self.volatile.cluster.clone() };
        self.request(Request::UpdateClusterInfo(info));
    }

    /// Sends a heartbeat. If its response is lost, the client does not change.
    fn beat(&mut self, at: usize, is_lost: bool) {
        let request = self.clients[at].request();
        let Reply::ConsumerHeartbeat(reply) = self.request(Request::ConsumerHeartbeat(request))
        else {
            panic!("another reply")
        };
        let client = &mut self.clients[at];
        match reply {
            _ if is_lost => client.must_subscribe = true,
            Ok(reply) => client.take(&reply),
            Err(refusal) => match refusal.error {
                GroupError::FencedMemberEpoch
                | GroupError::UnknownMemberId
                | GroupError::FencedInstanceId
                | GroupError::GroupIdNotFound
                | GroupError::UnreleasedInstanceId
                | GroupError::GroupMaxSizeReached => client.abandon(),
                other => panic!("{other}"),
            },
        }
    }

    fn leave(&mut self, at: usize, will_return: bool) {
        let client = &self.clients[at];
        let will_return = will_return && client.instance_id.is_some();
        let member_epoch = if will_return { LEAVE_STATIC_EPOCH } else { -1 };
        let request = ConsumerHeartbeatRequest { member_epoch, ..client.request() };
        self.clients[at].abandon();
        self.request(Request::ConsumerHeartbeat(request));
    }

    fn resolve(&mut self) {
        for work in std::mem::take(&mut self.work) {
            self.request(Request::RegexesResolved(work.run()));
        }
    }

    fn reload(&mut self) {
        self.volatile = VolatileState::new(self.volatile.cluster.clone());
        assert_eq!(replay(&self.log), self.logged);
        self.timers.clear();
        self.event(Event::Loaded);
    }

    fn step(&mut self, step: &Step) {
        self.wait(step.wait_ms);
        let (at, value) = (step.client, step.value);
        match step.kind {
            0..=8 => self.beat(at, false),
            9 | 10 => self.beat(at, true),
            11 => {
                self.clients[at].names = names_of(value);
                self.clients[at].must_subscribe = true;
                self.beat(at, false);
            }
            12 => {
                let regexes = ["", "t.", "u|ta", "t.", "", "[a-z]+", "x", ""];
                self.clients[at].regex = regexes[usize::from(value)].into();
                self.clients[at].must_subscribe = true;
                self.beat(at, false);
            }
            13 => self.leave(at, value > 2),
            14 => self.clients[at].abandon(),
            15 | 16 => self.set_partitions(TOPICS[at % 3], value.into()),
            17 => self.reload(),
            18 | 19 => self.resolve(),
            20..=25 => self.classic_beat(at % CLASSIC_CLIENTS, false),
            26 => self.classic_beat(at % CLASSIC_CLIENTS, true),
            27 => {
                let client = &mut self.classics[at % CLASSIC_CLIENTS];
                client.names = names_of(value);
                client.must_join = true;
                self.classic_beat(at % CLASSIC_CLIENTS, false);
            }
            28 => self.classic_leave(at % CLASSIC_CLIENTS),
            _ => self.classics[at % CLASSIC_CLIENTS].abandon(),
        }
        self.check_clients();
    }

    /// Checks that members use only partitions that they own in the group.
    fn check_clients(&self) {
        let modern = self.clients.iter().filter(|client| client.is_member);
        let classic = self.classics.iter().filter(|client| client.generation.is_some());
        let modern = modern.map(|client| (&client.id, &client.owned));
        for (id, owned) in modern.chain(classic.map(|client| (&client.id, &client.owned))) {
            let member = self.group().and_then(|group| group.member(id));
            let Some(member) = member else { continue };
            let known: BTreeSet<_> = member.current.owned().collect();
            for (topic, partitions) in owned {
                for at in partitions {
                    assert!(known.contains(&(*topic, *at)), "{id} {owned:?} {member:?}");
                }
            }
        }
    }

    /// Lets all clients but the last of each protocol send heartbeats, until their sessions would
    /// have ended several times. Checks that the group is then stable and every partition is used.
    fn converge(&mut self) {
        self.clients.truncate(CLIENTS - 1);
        self.classics.truncate(CLASSIC_CLIENTS - 1);
        for round in 0..40 {
            self.wait(3_000);
            let records = self.log.len();
            for at in 0..self.clients.len() {
                self.beat(at, false);
                self.check_clients();
            }
            for at in 0..self.classics.len() {
                self.classic_beat(at, false);
                self.check_clients();
            }
            self.resolve();
            assert!(round < 38 || self.log.len() == records, "still changing");
        }
        let Some(group) = self.group() else { panic!("no group") };
        assert_eq!(group.state(), GroupState::Stable);
        assert_eq!(group.members().len(), self.clients.len() + self.classics.len());
        assert_eq!(group.classic_members(), self.classics.len());
        assert!(self.clients.iter().all(|client| client.is_member));
        assert!(self.classics.iter().all(|client| client.generation.is_some()));
        let mut used: BTreeMap<TopicId, BTreeSet<i32>> = BTreeMap::new();
        let owned = self.clients.iter().map(|client| &client.owned);
        for owned in owned.chain(self.classics.iter().map(|client| &client.owned)) {
            for (topic, partitions) in owned {
                assert!(partitions.iter().all(|at| used.entry(*topic).or_default().insert(*at)));
            }
        }
        let subscribed = self.partitions.iter().filter(|(name, _)| group.is_subscribed_to(name));
        let expected = subscribed.map(|(name, count)| (topic_id(name), (0..*count).collect()));
        assert_eq!(used, expected.collect());
    }
}

/// Checks that no partition has two owners.
pub fn check_owners(group: &ConsumerGroup) {
    let mut owned = BTreeSet::new();
    for (id, member) in group.members() {
        for partition in member.current.owned() {
            assert!(owned.insert(partition), "{partition:?} of {id} has two owners");
        }
    }
}

/// Checks that no epoch has fallen, except that of a static member that leaves or returns.
fn check_epochs(before: &ConsumerGroup, after: &ConsumerGroup) {
    assert!(before.epoch <= after.epoch);
    assert!(before.target_epoch <= after.target_epoch || after.target_epoch == -1);
    assert!(after.target_epoch <= after.epoch);
    for (id, old) in before.members() {
        let Some(new) = after.member(id) else { continue };
        let (old, new) = (old.current.epoch, new.current.epoch);
        let left_or_returned = old == LEAVE_STATIC_EPOCH || new == LEAVE_STATIC_EPOCH;
        assert!(left_or_returned || old <= new, "{id}: {old} to {new}");
    }
}

/// A heartbeat with any values, such as a broken client may send.
fn any_heartbeat() -> impl Strategy<Value = ConsumerHeartbeatRequest> {
    let text = |texts: &'static [&'static str]| {
        proptest::sample::select(texts).prop_map(|text| Some(Arc::<str>::from(text)))
    };
    let optional = move |texts| prop_oneof![2 => Just(None), 1 => text(texts)];
    let id = proptest::sample::select(&["m3", "x", "y"][..]);
    let epoch = proptest::sample::select(&[-3, -2, -1, 0, 0, 0, 1, 2, 3, i32::MAX, i32::MIN][..]);
    let timeout_ms = proptest::sample::select(&[-7, -1, 0, 5_000, i32::MAX][..]);
    let names = proptest::collection::vec(text(&["ta", "tb", "u", "ta", "none", ""]), 0..4);
    let topics = proptest::sample::select(&["ta", "u", "none"][..]).prop_map(topic_id);
    let partitions = proptest::collection::vec(-1..6, 0..4);
    let owned = proptest::collection::vec((topics, partitions), 0..3);
    let owned = prop_oneof![Just(None), Just(Some(Vec::new())), owned.prop_map(Some)];
    let names = prop_oneof![Just(None), names.prop_map(Some)];
    let regex = optional(&["", "t.", "(", "[a-z]+", r"\"]);
    let ids = (id, optional(&["i", "j"]), optional(&["r"]), optional(&["range", "none"]));
    (ids, epoch, timeout_ms, names, regex, owned).prop_map(
        |((id, instance_id, rack_id, server_assignor), epoch, timeout_ms, names, regex, owned)| {
            ConsumerHeartbeatRequest {
                group: GROUP.into(),
                member_id: id.into(),
                member_epoch: epoch,
                instance_id,
                rack_id,
                rebalance_timeout_ms: timeout_ms,
                subscribed_topic_names: names.map(|names| names.into_iter().flatten().collect()),
                subscribed_topic_regex: regex,
                server_assignor,
                owned_partitions: owned,
                client_id: "c".into(),
                client_host: "/127.0.0.1".into(),
            }
        },
    )
}

fn any_request() -> impl Strategy<Value = Request> {
    let heartbeat = any_heartbeat().prop_map(Request::ConsumerHeartbeat);
    prop_oneof![heartbeat, classic::any_request()]
}

proptest! {
    #[test]
    fn broken_clients_do_no_harm_to_others(
        requests in proptest::collection::vec((any_request(), 0i64..20_000), 1..60),
    ) {
        let mut run = Run::new(0, Vec::new(), 1_000_000);
        run.beat(1, false);
        for (at, (request, wait_ms)) in requests.into_iter().enumerate() {
            run.request(request);
            run.beat(1, false);
            run.check_clients();
            match at % 8 {
                0 => run.reload(),
                3 => run.resolve(),
                _ => run.wait(wait_ms),
            }
        }
        prop_assert_eq!(&replay(&run.log), &run.logged);
        run.converge();
    }

    #[test]
    fn partitions_have_one_owner_and_groups_converge(
        steps in steps(),
        interval_ms in prop_oneof![Just(0), Just(1_000)],
        cut in any::<Index>(),
    ) {
        let mut run = Run::new(interval_ms, Vec::new(), 1_000_000);
        for step in &steps {
            run.step(step);
        }
        prop_assert_eq!(&replay(&run.log), &run.logged);

        // The log may end within the records of a heartbeat.
        let log = run.log[..cut.index(run.log.len() + 1)].to_vec();
        run.converge();
        let mut torn = Run::new(interval_ms, log, run.now_ms);
        torn.converge();
    }
}
