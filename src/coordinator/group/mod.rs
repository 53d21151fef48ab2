//! The group coordinator as a pure shard: the classic rebalance protocol, the consumer protocol
//! (KIP-848, in [`consumer`]), and committed offsets.
//!
//! The module owns the records of `__consumer_offsets` ([`records`]), the state that they determine
//! ([`logged_state`]), the live groups ([`state`]) and all rules between a request and its reply. The rules
//! are those of Kafka's `GroupMetadataManager` (classic and consumer groups) and
//! `OffsetMetadataManager`.
//!
//! It knows neither the clock, nor randomness (ids for new members come with the request), nor the
//! log, nor the wire protocol.
//!
//! A classic group is live if it had members when the shard was loaded, or has been used since. Live
//! groups are in [`VolatileState`]. A consumer group is as its records say; only marks are volatile.
//!
//! Invariants:
//! - A live classic group differs from its record only during a rebalance, and in what a restart may lose:
//!   waiting members, pending members, and the time of its last change of state.
//! - The token of a request is answered exactly once, or still waits in a member of a live group.
//! - A record that is too large for one append is never proposed. The request is refused instead.

mod admin;
pub mod assignor;
pub mod cluster_info;
pub mod config;
pub mod consumer;
mod consumer_protocol;
pub mod error;
mod expire;
pub mod group_type;
mod join;
mod leave;
pub mod logged_state;
pub mod messages;
pub mod metadata_hash;
pub mod offset_map;
mod offsets;
pub mod pending_offsets;
mod rebalance;
pub mod records;
pub mod state;
mod static_member;
mod subscription;
mod sync;
pub mod unserved;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

pub use self::{
    cluster_info::ClusterInfo,
    config::GroupConfig,
    consumer::{LiveConsumerGroup, live::mark_changes, resolution::ResolveRegexes},
    error::GroupError,
    logged_state::{LoggedGroup, LoggedState},
    messages::{CommitRequest, CommitTransaction, Reply, Request},
    records::Record,
    state::ClassicGroup,
};
use super::{BatchKind, Outcome, PlannedBatch, Shard, TimerOp, Token};
use crate::{
    base::planted_bugs::{Bug, has_bug},
    protocol::WireError,
};

/// The partition of `__consumer_offsets` that stores a group: Java's hash of the group id, made
/// positive as in Kafka's `Utils.abs`, modulo the number of partitions.
pub fn partition_for(group: &str, partitions: i32) -> i32 {
    let hash = group
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let positive = if hash == i32::MIN { 0 } else { hash.abs() };
    positive % partitions.max(1)
}

/// The group coordinator as a shard.
#[derive(Debug)]
pub enum GroupShard {}

/// What the shard decides on.
pub type Event = super::Event<Request, TimerKey>;

/// Identifies a timer. One with the same key replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimerKey {
    /// The end of a member's session, or of the time that a pending member has to join again.
    Session { group: Arc<str>, member: Arc<str> },
    /// The end of a rebalance's join phase.
    Join { group: Arc<str> },
    /// The end of a rebalance's sync phase.
    Sync { group: Arc<str> },
    /// The end of the time in which a member of a consumer group must revoke partitions.
    Rebalance { group: Arc<str>, member: Arc<str> },
    /// The end of the time in which a classic member of a consumer group must join again.
    MemberJoin { group: Arc<str>, member: Arc<str> },
    /// The end of the time in which a classic member of a consumer group must send SyncGroup.
    MemberSync { group: Arc<str>, member: Arc<str> },
    /// The next search for expired offsets.
    Expire,
}

/// A live group.
#[derive(Debug)]
pub enum Group {
    Classic(Box<ClassicGroup>),
    Consumer(LiveConsumerGroup),
}

/// Live groups by id.
pub type Groups = BTreeMap<Arc<str>, Group>;

/// The state that a restart loses.
#[derive(Debug, Default)]
pub struct VolatileState {
    /// What is known of the cluster's metadata, and the configuration.
    pub cluster: ClusterInfo,
    /// The live groups. All others are as their records say.
    pub groups: Groups,
}

impl VolatileState {
    pub fn new(cluster: ClusterInfo) -> Self {
        Self { cluster, groups: Groups::new() }
    }

    /// Takes a newer info, and marks the consumer groups that must follow it. Infos can arrive out
    /// of order.
    fn update_cluster(&mut self, logged: &LoggedState, info: ClusterInfo) {
        if info.version <= self.cluster.version {
            return;
        }
        if let Some(topics) = &info.topics {
            mark_changes(&mut self.groups, logged, self.cluster.topics.as_ref(), topics);
        }
        self.cluster = info;
    }
}

impl Shard for GroupShard {
    type Request = Request;
    type Reply = Reply;
    type Record = Record;
    type Timer = TimerKey;
    type Effect = ResolveRegexes;
    type LoggedState = LoggedState;
    type VolatileState = VolatileState;

    fn decide(
        logged: &LoggedState,
        volatile: &mut VolatileState,
        now_ms: i64,
        _leader_epoch: i32,
        event: Event,
    ) -> Outcome<Self> {
        let cluster = volatile.cluster.clone();
        let out = Outcome::default();
        let mut turn = Turn { logged, config: &cluster.config, cluster: &cluster, now_ms, out };
        match event {
            Event::Loaded => turn.loaded(&mut volatile.groups),
            Event::Request { token, request: Request::UpdateClusterInfo(info) } => {
                volatile.update_cluster(logged, info);
                turn.reply(token, Reply::UpdateClusterInfo);
            }
            Event::Request { token, request } => turn.request(&mut volatile.groups, token, request),
            Event::Timer(key) => turn.timer(&mut volatile.groups, key),
        }
        turn.out
    }

    fn planned_batch(request: &Request) -> Option<PlannedBatch> {
        match request {
            Request::CommitOffsets(CommitRequest { transaction: Some(transaction), .. }) => {
                let CommitTransaction { producer, verification, version } = *transaction;
                Some(PlannedBatch::Transactional { producer, verification, version })
            }
            Request::EndTransaction(marker) => Some(PlannedBatch::Marker(*marker)),
            _ => None,
        }
    }

    fn batch_kind(record: &Record) -> BatchKind {
        match record {
            Record::OffsetInTransaction { producer, .. } => BatchKind::Transactional(*producer),
            Record::Marker(marker) => BatchKind::Control(marker.producer),
            Record::Group { .. }
            | Record::Offset { .. }
            | Record::Consumer(_)
            | Record::Unserved { .. } => BatchKind::Plain,
        }
    }

    fn apply(logged: &mut LoggedState, offset: i64, batch_kind: BatchKind, record: &Record) {
        match batch_kind {
            BatchKind::Transactional(producer) => {
                logged.apply_in_transaction(producer.id, offset, record);
            }
            BatchKind::Plain | BatchKind::Control(_) => logged.apply(offset, record),
        }
    }

    fn answers_early(reply: &Reply) -> bool {
        has_bug(Bug::EarlyHeartbeatAnswer) && matches!(reply, Reply::ConsumerHeartbeat(_))
    }

    fn end_transaction(logged: &mut LoggedState, producer_id: i64, commits: bool) {
        logged.end_transaction(producer_id, commits);
    }

    fn encode(record: &Record) -> (Bytes, Option<Bytes>) {
        record.encode()
    }

    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Record>, WireError> {
        Record::decode(key, value)
    }
}

/// One decision in progress. `out` collects its effects.
struct Turn<'a> {
    logged: &'a LoggedState,
    config: &'a GroupConfig,
    cluster: &'a ClusterInfo,
    now_ms: i64,
    out: Outcome<GroupShard>,
}

impl Turn<'_> {
    fn request(&mut self, groups: &mut Groups, token: Token, request: Request) {
        let reply = match request {
            Request::Join(request) => return self.join(groups, token, &request),
            Request::Sync(request) => return self.sync(groups, token, request),
            Request::Heartbeat(request) => Reply::Heartbeat(self.heartbeat(groups, &request)),
            Request::Leave(request) => Reply::Leave(self.leave(groups, &request)),
            Request::CommitOffsets(request) => {
                Reply::CommitOffsets(self.commit_offsets(groups, request))
            }
            Request::FetchOffsets(request) => Reply::FetchOffsets(self.fetch_offsets(request)),
            Request::DeleteOffsets(request) => {
                Reply::DeleteOffsets(self.delete_offsets(groups, &request))
            }
            Request::DeleteGroups(ids) => Reply::DeleteGroups(self.delete_groups(groups, ids)),
            Request::Describe(ids) => Reply::Describe(self.describe(groups, ids)),
            Request::List(request) => Reply::List(self.list(groups, &request)),
            Request::ForgetPartitions(partitions) => {
                self.forget_partitions(&partitions);
                Reply::ForgetPartitions
            }
            Request::EndTransaction(marker) => {
                self.record(Record::Marker(marker));
                Reply::EndTransaction
            }
            Request::Survey => Reply::Survey(self.survey(groups)),
            Request::ConsumerHeartbeat(request) => {
                Reply::ConsumerHeartbeat(self.consumer_heartbeat(groups, &request))
            }
            Request::ConsumerDescribe(ids) => {
                Reply::ConsumerDescribe(self.describe_consumer_groups(ids))
            }
            Request::RegexesResolved(outcome) => {
                self.apply_resolved_regexes(groups, outcome);
                Reply::RegexesResolved
            }
            Request::UpdateClusterInfo(_) => unreachable!("handled by `decide`"),
        };
        self.reply(token, reply);
    }

    fn timer(&mut self, groups: &mut Groups, key: TimerKey) {
        match key {
            TimerKey::Session { group, member } if self.logged.consumer(&group).is_some() => {
                self.expire_consumer_member(groups, &group, &member, "session timed out");
            }
            TimerKey::Rebalance { group, member } => self.expire_rebalance(groups, &group, &member),
            TimerKey::MemberJoin { group, member } => {
                self.expire_consumer_member(groups, &group, &member, "did not join again in time");
            }
            TimerKey::MemberSync { group, member } => {
                let reason = "did not send SyncGroup in time";
                self.expire_consumer_member(groups, &group, &member, reason);
            }
            TimerKey::Session { group, member } => {
                if let Some(group) = classic_mut(groups, &group) {
                    self.expire_session(group, &member);
                }
            }
            TimerKey::Join { group } => {
                if let Some(group) = classic_mut(groups, &group) {
                    self.expire_join_phase(group);
                }
            }
            TimerKey::Sync { group } => {
                if let Some(group) = classic_mut(groups, &group) {
                    self.expire_sync_phase(group);
                }
            }
            TimerKey::Expire => self.expire_offsets(groups),
        }
    }

    /// Starts a new session for every loaded member, and a rebalance of groups with more members
    /// than `group.max.size`.
    fn loaded(&mut self, groups: &mut Groups) {
        for (id, group) in &self.logged.groups {
            let LoggedGroup::Classic(value) = group else { continue };
            if value.members.is_empty() {
                continue;
            }
            let mut group = ClassicGroup::loaded(id.clone(), value);
            for member in group.members.values() {
                self.restart_session(&group, &member.id, member.session_timeout_ms);
            }
            if group.members.len() > self.config.max_size {
                self.prepare_rebalance(&mut group);
            }
            groups.insert(id.clone(), Group::Classic(Box::new(group)));
        }
        self.start_consumer_sessions();
        self.log_unserved();
        self.set_timer(TimerKey::Expire, self.config.offsets_retention_check_interval_ms);
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        self.out.replies.push((token, reply));
    }

    fn record(&mut self, record: Record) {
        self.out.records.push(record);
    }

    fn set_timer(&mut self, key: TimerKey, delay_ms: i64) {
        let at_ms = self.now_ms.saturating_add(delay_ms);
        self.out.timers.push(TimerOp::Set { key, at_ms });
    }

    /// Sets a timer unless it is set already.
    fn set_timer_once(&mut self, key: TimerKey, delay_ms: i64) {
        let at_ms = self.now_ms.saturating_add(delay_ms);
        self.out.timers.push(TimerOp::SetOnce { key, at_ms });
    }

    fn cancel_timer(&mut self, key: TimerKey) {
        self.out.timers.push(TimerOp::Cancel { key });
    }

    /// A classic group that the decision may change; `None` if it does not exist. A group that is
    /// not live becomes live.
    fn group<'g>(&self, groups: &'g mut Groups, id: &Arc<str>) -> Option<&'g mut ClassicGroup> {
        if !groups.contains_key(id) {
            groups.insert(id.clone(), Group::Classic(Box::new(self.logged.group(id)?)));
        }
        classic_mut(groups, id)
    }

    /// Reads a classic group without making it live; `None` if it does not exist.
    fn look<T>(
        &self,
        groups: &Groups,
        id: &Arc<str>,
        look: impl FnOnce(&ClassicGroup) -> T,
    ) -> Option<T> {
        match groups.get(id) {
            Some(Group::Classic(group)) => Some(look(group)),
            Some(Group::Consumer(_)) => None,
            None => Some(look(&self.logged.group(id)?)),
        }
    }
}

/// A live group, if it exists and its protocol is the classic one.
fn classic_mut<'g>(groups: &'g mut Groups, id: &str) -> Option<&'g mut ClassicGroup> {
    match groups.get_mut(id)? {
        Group::Classic(group) => Some(group),
        Group::Consumer(_) => None,
    }
}

#[cfg(test)]
mod tests;
