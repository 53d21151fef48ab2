//! A live classic group: its members, their waiting requests, and the state of its rebalance. The
//! rules are those of Kafka's `ClassicGroup` and `ClassicGroupMember`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use indexmap::IndexMap;

use super::{
    consumer::member::Subscription,
    messages::{GroupDescription, GroupError, JoinReply, JoinedMember, MemberDescription},
    records::{GroupMetadataValue, MemberMetadata},
    subscription::subscribed_topics,
};
use crate::coordinator::Token;

/// Protocol type of consumers.
pub const CONSUMER_PROTOCOL: &str = "consumer";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    pub const ALL: [Self; 4] =
        [Self::Empty, Self::PreparingRebalance, Self::CompletingRebalance, Self::Stable];

    /// The name that tools print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// Protocols of a member with their metadata, the preferred one first.
pub type Protocols = Vec<(Arc<str>, Bytes)>;

#[derive(Debug, Clone)]
pub struct Member {
    pub id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocols: Protocols,
    pub assignment: Bytes,
    /// The JoinGroup request of the member that waits.
    awaiting_join: Option<Token>,
    /// The SyncGroup request of the member that waits.
    pub awaiting_sync: Option<Token>,
    /// The member has not completed a join yet. Until then, its session timer also ends a waiting
    /// join.
    pub is_new: bool,
}

impl Member {
    pub fn new(request: &super::messages::JoinRequest, id: Arc<str>) -> Self {
        Self {
            id,
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
        }
    }

    /// A member from the record of its group.
    fn loaded(value: &MemberMetadata, protocol: &Arc<str>) -> Self {
        let rebalance_timeout_ms = match value.rebalance_timeout {
            -1 => value.session_timeout,
            timeout => timeout,
        };
        Self {
            id: value.member_id.as_str().into(),
            instance_id: value.group_instance_id.as_deref().map(Into::into),
            client_id: value.client_id.as_str().into(),
            client_host: value.client_host.as_str().into(),
            session_timeout_ms: value.session_timeout,
            rebalance_timeout_ms,
            protocols: vec![(protocol.clone(), value.subscription.clone())],
            assignment: value.assignment.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        }
    }

    /// A member of the classic protocol in a consumer group, as a member of a classic group without
    /// an assignment. `None` if it uses the consumer protocol.
    pub fn classic(id: &Arc<str>, subscription: &Subscription) -> Option<Self> {
        let classic = subscription.classic.as_ref()?;
        let protocols = classic.supported_protocols.iter();
        Some(Self {
            id: id.clone(),
            instance_id: subscription.instance_id.clone(),
            client_id: subscription.client_id.clone(),
            client_host: subscription.client_host.clone(),
            session_timeout_ms: classic.session_timeout_ms,
            rebalance_timeout_ms: subscription.rebalance_timeout_ms,
            protocols: protocols.map(|it| (it.name.as_str().into(), it.metadata.clone())).collect(),
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        })
    }

    pub fn is_awaiting_join(&self) -> bool {
        self.awaiting_join.is_some()
    }

    /// Whether the member stays if its session timer fires now. A member whose join or sync waits
    /// cannot send heartbeats, so it stays.
    pub fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    /// The member's metadata for a protocol; empty if it does not support the protocol.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| **name == *protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }
}

/// The delay of the first rebalance of a group, which waits for further members
/// (`group.initial.rebalance.delay.ms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitialDelay {
    /// The current delay.
    pub delay_ms: i64,
    /// By how much the delay can still be extended.
    pub remaining_ms: i64,
}

#[derive(Debug, Clone)]
pub struct ClassicGroup {
    pub id: Arc<str>,
    pub state: State,
    pub previous_state: Option<State>,
    pub state_timestamp_ms: Option<i64>,
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    pub generation: i32,
    pub leader: Option<Arc<str>>,
    /// Members by id, in the order in which they joined.
    pub members: IndexMap<Arc<str>, Member>,
    /// Member ids by instance id.
    pub static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids of pending members, which must join again with their new id (KIP-394).
    pub pending_joins: BTreeSet<Arc<str>>,
    /// Members that have not sent SyncGroup in this generation.
    pub pending_syncs: BTreeSet<Arc<str>>,
    /// The topics that the members subscribe to. `None` if the group's protocol type is not
    /// `consumer`, or if a subscription cannot be decoded.
    pub subscribed_topics: Option<BTreeSet<String>>,
    /// Whether a member has joined since the delay of the first rebalance was last extended.
    pub new_member_added: bool,
    pub initial_delay: Option<InitialDelay>,
    /// How many members support each protocol.
    support: HashMap<Arc<str>, usize>,
    /// Number of members whose join waits.
    awaiting_joins: usize,
}

impl ClassicGroup {
    pub fn new(id: Arc<str>, now_ms: Option<i64>) -> Self {
        Self {
            id,
            state: State::Empty,
            previous_state: None,
            state_timestamp_ms: now_ms,
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: IndexMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            subscribed_topics: None,
            new_member_added: false,
            initial_delay: None,
            support: HashMap::new(),
            awaiting_joins: 0,
        }
    }

    /// The group from its record.
    pub fn loaded(id: Arc<str>, value: &GroupMetadataValue) -> Self {
        let protocol: Arc<str> = value.protocol.as_deref().unwrap_or_default().into();
        let timestamp_ms = Some(value.current_state_timestamp).filter(|at| *at != -1);
        let mut group = Self::new(id, timestamp_ms);
        group.generation = value.generation;
        if !value.protocol_type.is_empty() {
            group.protocol_type = Some(value.protocol_type.as_str().into());
        }
        group.leader = value.leader.as_deref().map(Into::into);
        group.protocol_name = value.protocol.as_deref().map(Into::into);
        for member in &value.members {
            group.add(Member::loaded(member, &protocol), None);
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// A stable group of these consumers. `None` if they have no protocol in common.
    pub fn of_members(
        id: Arc<str>,
        generation: i32,
        members: Vec<Member>,
        now_ms: i64,
    ) -> Option<Self> {
        let mut group = Self::new(id, Some(now_ms));
        group.state = State::Stable;
        group.generation = generation;
        group.protocol_type = Some(CONSUMER_PROTOCOL.into());
        members.into_iter().for_each(|member| group.add(member, None));
        group.protocol_name = Some(group.select_protocol()?);
        group.subscribed_topics = group.compute_subscribed_topics();
        Some(group)
    }

    /// The value of the group's record in its present state.
    pub fn to_value(&self) -> GroupMetadataValue {
        let protocol = self.protocol_name.as_deref();
        let members = self.members.values().map(|member| MemberMetadata {
            member_id: member.id.to_string(),
            group_instance_id: member.instance_id.as_deref().map(str::to_owned),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: member.metadata(protocol.unwrap_or_default()),
            assignment: member.assignment.clone(),
        });
        GroupMetadataValue {
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_owned(),
            generation: self.generation,
            protocol: protocol.map(str::to_owned),
            leader: self.leader.as_deref().map(str::to_owned),
            current_state_timestamp: self.state_timestamp_ms.unwrap_or(-1),
            members: members.collect(),
        }
    }

    pub fn transition_to(&mut self, state: State, now_ms: i64) {
        self.previous_state = Some(self.state);
        self.state = state;
        self.state_timestamp_ms = Some(now_ms);
    }

    /// Whether a new rebalance may start. During a join phase, the present rebalance continues
    /// instead.
    pub fn can_rebalance(&self) -> bool {
        self.state != State::PreparingRebalance
    }

    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL)
    }

    /// Adds a member, and its waiting join. The first member becomes the leader.
    pub fn add(&mut self, member: Member, join: Option<Token>) {
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.pending_joins.remove(&member.id);
        self.count_support(&member.protocols, true);
        let id = member.id.clone();
        self.members.insert(id.clone(), member);
        self.set_awaiting_join(&id, join);
    }

    /// Removes a member or a pending member. If it was the leader, the member that joined first of
    /// the others becomes the leader.
    pub fn remove(&mut self, member_id: &str) {
        if let Some(removed) = self.members.shift_remove(member_id) {
            self.count_support(&removed.protocols, false);
            self.awaiting_joins -= usize::from(removed.is_awaiting_join());
            if let Some(instance_id) = &removed.instance_id {
                self.static_members.remove(instance_id);
            }
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_joins.remove(member_id);
        self.pending_syncs.remove(member_id);
    }

    /// Replaces the member id of a static member. Returns the tokens of the join and the sync that
    /// wait under the old id.
    pub fn replace_static_member(
        &mut self,
        old_id: &str,
        new_id: Arc<str>,
    ) -> (Option<Token>, Option<Token>) {
        let join = self.take_awaiting_join(old_id);
        let Some(place) = self.members.get_index_of(old_id) else { return (join, None) };
        let (_, mut member) = self.members.shift_remove_index(place).expect("looked up");
        let sync = member.awaiting_sync.take();
        member.id = new_id.clone();
        member.is_new = false;
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), new_id.clone());
        }
        self.members.shift_insert(place, new_id.clone(), member);
        self.pending_syncs.remove(old_id);
        if self.is_leader(old_id) {
            self.leader = Some(new_id);
        }
        (join, sync)
    }

    /// Updates a member from its JoinGroup request, which now waits.
    pub fn update_member(&mut self, request: &super::messages::JoinRequest, id: &str, join: Token) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        let old = std::mem::replace(&mut member.protocols, request.protocols.clone());
        self.count_support(&old, false);
        self.count_support(&request.protocols, true);
        self.set_awaiting_join(id, Some(join));
    }

    fn set_awaiting_join(&mut self, id: &str, join: Option<Token>) {
        let Some(member) = self.members.get_mut(id) else { return };
        let before = std::mem::replace(&mut member.awaiting_join, join);
        self.awaiting_joins += usize::from(join.is_some());
        self.awaiting_joins -= usize::from(before.is_some());
    }

    /// Removes and returns the token of a member's waiting join.
    pub fn take_awaiting_join(&mut self, id: &str) -> Option<Token> {
        let token = self.members.get(id)?.awaiting_join;
        self.set_awaiting_join(id, None);
        token
    }

    pub fn awaiting_joins(&self) -> usize {
        self.awaiting_joins
    }

    pub fn awaiting_syncs(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_sync.is_some()).count()
    }

    /// Whether the joins of all members wait, and no pending member is missing.
    pub fn have_all_members_joined(&self) -> bool {
        self.members.len() == self.awaiting_joins && self.pending_joins.is_empty()
    }

    /// The longest rebalance timeout of the members, in milliseconds.
    pub fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|m| i64::from(m.rebalance_timeout_ms)).max().unwrap_or(0).max(0)
    }

    /// If the leader has not rejoined, elects a member that has. Returns whether the group has a
    /// leader that has rejoined.
    pub fn elect_joined_leader(&mut self) -> bool {
        let Some(leader) = self.leader.as_ref().and_then(|id| self.members.get(id)) else {
            return false;
        };
        if leader.is_awaiting_join() {
            return true;
        }
        let joined = self.members.values().find(|member| member.is_awaiting_join());
        let Some(joined) = joined.map(|member| member.id.clone()) else { return false };
        self.leader = Some(joined);
        true
    }

    /// Checks that the group has the member, and that no newer instance has replaced it if it is
    /// static.
    pub fn validate_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(existing) if **existing != *member_id => {
                    return Err(GroupError::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if !self.members.contains_key(member_id) {
            return Err(GroupError::UnknownMemberId);
        }
        Ok(())
    }

    fn count_support(&mut self, protocols: &Protocols, more: bool) {
        for (name, _) in protocols {
            let count = self.support.entry(name.clone()).or_default();
            *count = if more { *count + 1 } else { *count - 1 };
            if *count == 0 {
                self.support.remove(name);
            }
        }
    }

    fn is_supported_by_all(&self, protocol: &str) -> bool {
        self.support.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    /// Whether a member with these protocols may join the group.
    pub fn supports(&self, protocol_type: &str, protocols: &Protocols) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.is_supported_by_all(name))
    }

    /// The protocol that most members prefer, of those that all members support. If several have
    /// the most votes, the first that got a vote wins.
    pub fn select_protocol(&self) -> Option<Arc<str>> {
        let mut votes: IndexMap<&Arc<str>, usize> = IndexMap::new();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|(name, _)| name);
            if let Some(choice) = names.find(|name| self.is_supported_by_all(name)) {
                *votes.entry(choice).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    /// Begins the next generation. A group with members enters its sync phase; a group without
    /// members becomes empty.
    pub fn init_next_generation(&mut self, now_ms: i64) {
        self.generation = self.generation.wrapping_add(1);
        self.protocol_name = self.select_protocol();
        self.subscribed_topics = self.compute_subscribed_topics();
        let empty = self.members.is_empty();
        self.transition_to(if empty { State::Empty } else { State::CompletingRebalance }, now_ms);
        self.pending_syncs.clear();
    }

    fn compute_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol_name.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(member.metadata(protocol)).ok()?);
        }
        Some(topics)
    }

    /// Whether a member subscribes to the topic. If the subscriptions of a consumer group cannot be
    /// decoded, it counts as subscribed to every topic.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// The JoinGroup response for a member of the present generation. Only the leader's contains
    /// the members.
    pub fn join_reply(&self, member_id: &Arc<str>) -> JoinReply {
        let members = if self.is_leader(member_id) { self.joined_members() } else { Vec::new() };
        JoinReply {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.clone(),
            members,
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let members = self.members.values().map(|member| JoinedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        });
        members.collect()
    }

    pub fn describe(&self) -> GroupDescription {
        let stable = self.state == State::Stable;
        let protocol = self.protocol_name.clone().filter(|_| stable).unwrap_or_default();
        let members = self.members.values().map(|member| MemberDescription {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable { member.metadata(&protocol) } else { Bytes::new() },
            assignment: member.assignment.clone(),
        });
        GroupDescription {
            group: self.id.clone(),
            error: None,
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        }
    }
}
