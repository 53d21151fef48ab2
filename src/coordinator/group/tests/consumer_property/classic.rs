//! Clients of the property test that use the classic protocol. They follow it as Java's consumer
//! does: they join again when a heartbeat says so, and then send SyncGroup.

use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::{GROUP, Reply, Request, Run, TOPICS, topic_id};
use crate::coordinator::{
    group::{
        GroupError,
        assignor::Assignment,
        consumer_protocol::{
            self, ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartitions,
        },
        messages::{
            HeartbeatRequest, JoinReply, JoinRequest, LeaveRequest, LeavingMember, SyncRequest,
        },
    },
    record_value,
};

pub const CLASSIC_CLIENTS: usize = 3;

#[derive(Debug, Clone, Default)]
pub struct ClassicClient {
    /// Empty until the coordinator has made it.
    pub id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    /// Whether it gives up all partitions before it joins. Others report what they own.
    is_eager: bool,
    /// The generation of its last join; `None` if it is not a member.
    pub generation: Option<i32>,
    /// Whether it must join again although no heartbeat has said so.
    pub must_join: bool,
    /// The partitions that it uses.
    pub owned: Assignment,
    pub names: Vec<Arc<str>>,
}

impl ClassicClient {
    /// An eager client, a cooperative one, and a static one. The static one has the instance id of
    /// static members of the consumer protocol.
    pub fn all() -> Vec<Self> {
        let new = |is_eager, instance_id: Option<&str>| Self {
            is_eager,
            instance_id: instance_id.map(Into::into),
            names: vec![TOPICS[0].into()],
            ..Self::default()
        };
        vec![new(true, None), new(false, None), new(false, Some("i"))]
    }

    /// Gives up all partitions. It joins next as another member.
    pub fn abandon(&mut self) {
        self.id = Arc::default();
        self.generation = None;
        self.owned.clear();
    }

    fn join_request(&self, fresh_id: Uuid) -> JoinRequest {
        let name_of = |id| TOPICS.iter().find(|name| topic_id(name) == id).unwrap();
        let owned = self.owned.iter().map(|(id, partitions)| TopicPartitions {
            topic: name_of(*id).to_string(),
            partitions: partitions.clone(),
        });
        let subscription = ConsumerProtocolSubscription {
            topics: self.names.iter().map(|name| name.to_string()).collect(),
            owned_partitions: owned.collect(),
            ..ConsumerProtocolSubscription::default()
        };
        let version = if self.is_eager { 0 } else { 3 };
        JoinRequest {
            group: GROUP.into(),
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 20_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), record_value::encode(&subscription, version))],
            requires_known_member_id: true,
            supports_skipping_assignment: true,
            fresh_id,
        }
    }

    fn take_assignment(&mut self, assignment: bytes::Bytes) {
        let decoded: ConsumerProtocolAssignment = consumer_protocol::decode(assignment).unwrap();
        let assigned = decoded.assigned_partitions.into_iter();
        let assigned: Assignment =
            assigned.map(|it| (topic_id(&it.topic), it.partitions)).collect();
        let keeps = |(topic, partitions): (&_, &Vec<i32>)| {
            let kept = assigned.get(topic);
            partitions.iter().all(|at| kept.is_some_and(|kept| kept.contains(at)))
        };
        // A client that has given up partitions joins again to say so.
        self.must_join = !self.owned.iter().all(keeps);
        self.owned = assigned;
    }
}

impl Run {
    /// Sends a heartbeat, and joins again if the member must. If its responses are lost, the client
    /// does not change.
    pub fn classic_beat(&mut self, at: usize, is_lost: bool) {
        let client = &self.classics[at];
        if let Some(generation) = client.generation {
            let request = HeartbeatRequest {
                group: GROUP.into(),
                generation,
                member_id: client.id.clone(),
                instance_id: client.instance_id.clone(),
            };
            let reply = self.request(Request::Heartbeat(request));
            let client = &mut self.classics[at];
            match reply {
                Reply::Heartbeat(Ok(())) if !client.must_join => return,
                Reply::Heartbeat(Ok(()) | Err(GroupError::RebalanceInProgress)) => {}
                Reply::Heartbeat(Err(error)) => return client.fail(error),
                _ => panic!("another reply"),
            }
        }
        self.classic_join(at, is_lost);
    }

    fn classic_join(&mut self, at: usize, is_lost: bool) {
        if self.group().is_none_or(|group| group.members().is_empty()) {
            return self.classics[at].abandon(); // it would found a classic group
        }
        if self.classics[at].is_eager {
            self.classics[at].owned.clear();
        }
        let mut reply = self.send_join(at);
        if reply.error == Some(GroupError::MemberIdRequired) {
            self.classics[at].id = reply.member_id;
            reply = self.send_join(at);
        }
        let client = &mut self.classics[at];
        match reply.error {
            _ if is_lost => {}
            Some(error) => client.fail(error),
            None => {
                (client.id, client.generation) = (reply.member_id, Some(reply.generation));
                self.classic_sync(at);
            }
        }
    }

    fn send_join(&mut self, at: usize) -> JoinReply {
        let fresh_id = Uuid::from_u64_pair(self.now_ms as u64, self.token);
        match self.request(Request::Join(self.classics[at].join_request(fresh_id))) {
            Reply::Join(reply) => reply,
            _ => panic!("another reply"),
        }
    }

    fn classic_sync(&mut self, at: usize) {
        let client = &self.classics[at];
        let request = SyncRequest {
            group: GROUP.into(),
            generation: client.generation.unwrap(),
            member_id: client.id.clone(),
            instance_id: client.instance_id.clone(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            assignments: Vec::new(),
        };
        let Reply::Sync(reply) = self.request(Request::Sync(request)) else {
            panic!("another reply")
        };
        let client = &mut self.classics[at];
        match reply.error {
            None => client.take_assignment(reply.assignment),
            Some(GroupError::RebalanceInProgress) => client.must_join = true,
            Some(error) => client.fail(error),
        }
    }

    pub fn classic_leave(&mut self, at: usize) {
        let client = &mut self.classics[at];
        let member = LeavingMember {
            member_id: client.id.clone(),
            instance_id: client.instance_id.clone(),
            reason: None,
        };
        client.abandon();
        if !member.member_id.is_empty() {
            let members = vec![member];
            self.request(Request::Leave(LeaveRequest { group: GROUP.into(), members }));
        }
    }
}

impl ClassicClient {
    /// Handles an error after which the client has no partitions any more.
    fn fail(&mut self, error: GroupError) {
        match error {
            GroupError::IllegalGeneration
            | GroupError::UnknownMemberId
            | GroupError::FencedInstanceId
            | GroupError::GroupMaxSizeReached => self.abandon(),
            other => panic!("{other}"),
        }
    }
}

/// A request of the classic protocol with any values, such as a broken client may send.
pub fn any_request() -> impl Strategy<Value = Request> {
    let id = proptest::sample::select(&["m3", "x", "y", ""][..]).prop_map(Arc::<str>::from);
    let instance_id = proptest::sample::select(&[None, None, Some("i"), Some("j")][..]);
    let generation = proptest::sample::select(&[-1, 0, 1, 2, 3, i32::MAX][..]);
    let member = (id, instance_id.prop_map(|id| id.map(Arc::<str>::from)), generation);
    (0u8..4, member, any_join()).prop_map(|(kind, (member_id, instance_id, generation), join)| {
        let group: Arc<str> = GROUP.into();
        match kind {
            0 => Request::Heartbeat(HeartbeatRequest { group, generation, member_id, instance_id }),
            1 => Request::Sync(SyncRequest {
                group,
                generation,
                member_id,
                instance_id,
                protocol_type: None,
                protocol_name: None,
                assignments: Vec::new(),
            }),
            _ => Request::Join(JoinRequest { member_id, instance_id, ..join }),
        }
    })
}

fn any_join() -> impl Strategy<Value = JoinRequest> {
    let names = proptest::collection::vec(proptest::sample::select(&["ta", "u", "none"][..]), 0..3);
    let partitions = proptest::collection::vec(-1..6, 0..4);
    let owned = (proptest::sample::select(&["ta", "u", "none"][..]), partitions);
    let owned = proptest::collection::vec(owned, 0..3);
    let timeouts_ms = (
        proptest::sample::select(&[0, 6_000, 30_000][..]),
        proptest::sample::select(&[-7, -1, 0, 5_000, i32::MAX][..]),
    );
    let cut = prop_oneof![3 => Just(0), 1 => 1usize..20];
    let ids = (any::<bool>(), any::<u64>());
    (names, owned, timeouts_ms, 0i16..5, cut, ids).prop_map(
        |(names, owned, (session_timeout_ms, rebalance_timeout_ms), version, cut, (known, id))| {
            let owned = owned
                .into_iter()
                .map(|(topic, partitions)| TopicPartitions { topic: topic.into(), partitions });
            let subscription = ConsumerProtocolSubscription {
                topics: names.into_iter().map(Into::into).collect(),
                owned_partitions: owned.collect(),
                ..ConsumerProtocolSubscription::default()
            };
            let mut metadata = record_value::encode(&subscription, version);
            metadata.truncate(metadata.len().saturating_sub(cut));
            JoinRequest {
                session_timeout_ms,
                rebalance_timeout_ms,
                protocols: vec![("range".into(), metadata)],
                requires_known_member_id: known,
                ..ClassicClient::default().join_request(Uuid::from_u64_pair(1, id))
            }
        },
    )
}
