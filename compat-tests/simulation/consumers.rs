//! Consumers of the consumer protocol (KIP-848), which behave like Kafka's. They join, revoke and
//! take partitions, commit and fetch offsets, and sometimes leave, crash, or are slow to revoke. The
//! committed offset that a member finds must not be older than the last acknowledged commit of any
//! member.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kafka_protocol::{
    messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeleteGroupsRequest,
        MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    },
    protocol::StrBytes,
};
use sordini::{
    base::{TopicId, environment::now_ms},
    protocol::ErrorCode,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    admin,
    client::Client,
    consumer_history::{Answer, Partitions, Refused},
    history::{Place, WrongOffset},
    membership::{Assignment, Membership, Settings, Subscription, assigned},
    requests::{group_id, topic_name},
};

const HEARTBEAT: i16 = 1;
const OFFSET_COMMIT: i16 = 9;
const OFFSET_FETCH: i16 = 9;
const DELETE_GROUPS: i16 = 2;
const METADATA: i16 = 12;

/// The topics that the members are subscribed to, by names and as a regular expression.
pub const NAMES: [&str; 3] = ["first", "second", GROWING];
const REGEX: &str = "first|sec.*|growing";
/// A topic without records, which gets new partitions.
const GROWING: &str = "growing";
const GROWING_PARTITIONS: (i32, i32) = (4, 9);
/// The longest time that a consumer takes to revoke partitions. The rebalance timeout is shorter.
const REVOCATION_MS_MAX: u64 = 2_500;
const REBALANCE_MS: i32 = 2_000;

/// A consumer that is started again each time it ends.
#[derive(Clone, Copy)]
pub struct Role {
    pub name: &'static str,
    pub settings: Settings,
    /// After one in so many heartbeats, the consumer ends.
    ends_one_in: u64,
    /// Whether it deletes the group each time it ends. It must be the only member.
    deletes_group: bool,
}

/// The group of all roles but the last one.
const SHARED: &str = "consumers";
/// The group that is deleted again and again.
const DELETED: &str = "deleted";

pub fn roles() -> [Role; 5] {
    let role = |name, group, instance_id, subscription| Role {
        name,
        settings: Settings { group, instance_id, subscription, rebalance_timeout_ms: REBALANCE_MS },
        ends_one_in: 25,
        deletes_group: false,
    };
    let names = Subscription::Names(&NAMES);
    [
        role("consumer-a", SHARED, None, names),
        role("consumer-b", SHARED, None, Subscription::Regex(REGEX)),
        role("consumer-c", SHARED, Some("c"), names),
        role("consumer-d", SHARED, Some("d"), names),
        Role { ends_one_in: 10, deletes_group: true, ..role("consumer-e", DELETED, None, names) },
    ]
}

/// How a consumer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It leaves the group. A static member leaves for a while.
    Closed,
    /// It leaves the group, and a static member does not keep its place.
    ClosedForGood,
    /// It leaves the group, and joins it again with the same member id.
    Unsubscribed,
    /// It sends nothing more.
    Crashed,
}

/// A reconciliation that has begun.
struct Reconciliation {
    assignment: Assignment,
    /// When the consumer has revoked the partitions that it loses.
    revoked_at: Instant,
}

struct Consumer {
    client: Client,
    role: Role,
    membership: Membership,
    /// Number of member ids so far.
    ids: u32,
    reconciliation: Option<Reconciliation>,
    /// The partitions that it uses.
    owned: Partitions,
    /// The partitions whose committed offset it has fetched.
    positions: Partitions,
    heartbeat_at: Instant,
    topic_names: BTreeMap<TopicId, String>,
}

/// Creates the topic without records, and adds partitions to it.
pub async fn grow(mut client: Client) {
    let (mut partitions, most) = GROWING_PARTITIONS;
    admin::create_topic(&mut client, GROWING, partitions).await;
    while partitions < most {
        let pause = client.rng.between(500, 5_000);
        sleep(Duration::from_millis(pause)).await;
        let broker = client.any_broker();
        if admin::grow(&mut client, &broker, GROWING, partitions + 1).await.1 {
            partitions += 1;
        }
    }
}

/// Runs consumers of a role, one after the other. Never returns.
pub async fn run(client: Client, role: Role) {
    let membership = Membership::new(format!("{}-0", role.name), role.settings);
    let mut consumer = Consumer {
        client,
        role,
        membership,
        ids: 1,
        reconciliation: None,
        owned: Partitions::new(),
        positions: Partitions::new(),
        heartbeat_at: Instant::now(),
        topic_names: BTreeMap::new(),
    };
    loop {
        let end = consumer.live().await;
        consumer.end(end).await;
        if role.deletes_group && end != End::Unsubscribed {
            consumer.delete_group().await;
        }
        let pause = consumer.client.rng.between(10, 500);
        sleep(Duration::from_millis(pause)).await;
    }
}

impl Consumer {
    fn group(&self) -> &'static str {
        self.role.settings.group
    }

    /// Sends heartbeats, reconciles and commits, until it ends.
    async fn live(&mut self) -> End {
        loop {
            let now = Instant::now();
            if self.membership.must_send_now() || self.heartbeat_at <= now {
                match self.beat().await {
                    Ok(true) => {}
                    Ok(false) => self.client.rest().await,
                    Err(end) => return end,
                }
            }
            self.reconcile().await;
            if self.membership.must_send_now() {
                continue;
            }
            self.fetch_positions().await;
            self.commit(&self.positions.clone()).await;
            let must_settle = self.client.history.lock().consumers.must_settle;
            if !must_settle && self.client.rng.one_in(self.role.ends_one_in) {
                return self.random_end();
            }
            let revoked_at = self.reconciliation.as_ref().map(|it| it.revoked_at);
            sleep_until(revoked_at.unwrap_or(self.heartbeat_at).min(self.heartbeat_at)).await;
        }
    }

    fn random_end(&mut self) -> End {
        match self.client.rng.between(0, 7) {
            0..=3 => End::Closed,
            4 => End::ClosedForGood,
            5 => End::Unsubscribed,
            _ => End::Crashed,
        }
    }

    /// Sends a heartbeat. Returns whether it was accepted, or that the consumer must end.
    async fn beat(&mut self) -> Result<bool, End> {
        let request = self.membership.heartbeat();
        let Some((host, sent_ms, response)) = self.send_heartbeat(&request).await else {
            self.membership.fail();
            return Ok(false);
        };
        if response.error_code != 0 {
            return self.refused((host, sent_ms), request.member_epoch, response.error_code);
        }
        let interval_ms = response.heartbeat_interval_ms.max(0) as u64;
        self.heartbeat_at = Instant::now() + Duration::from_millis(interval_ms);
        self.membership.accept(&response);
        let answer = Answer {
            group: self.group(),
            member: self.membership.id.clone(),
            epoch: response.member_epoch,
            assigned: assigned(&response),
        };
        let mut history = self.client.history.lock();
        if response.member_epoch < request.member_epoch {
            let (id, sent) = (&self.membership.id, request.member_epoch);
            let wrong = format!("{id} had epoch {sent}, and gets {}", response.member_epoch);
            history.wrong.push(wrong);
        }
        history.consumers.answers.push(answer);
        history.note_progress(&self.client.name);
        Ok(true)
    }

    /// Handles an error as Kafka's `AbstractHeartbeatRequestManager.onErrorResponse`.
    fn refused(
        &mut self,
        (host, sent_ms): (String, i64),
        epoch: i32,
        code: i16,
    ) -> Result<bool, End> {
        self.membership.fail();
        let mut history = self.client.history.lock();
        history.refused(code);
        let known = ErrorCode::try_from_code(code);
        match known {
            Some(ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable) => {
                drop(history);
                self.client.forget_coordinator();
                return Ok(false);
            }
            Some(ErrorCode::CoordinatorLoadInProgress) => return Ok(false),
            _ => {}
        }
        let (group, member) = (self.group(), self.membership.id.clone());
        if epoch > 0 {
            history.consumers.refused.push(Refused { host, group, member, epoch, sent_ms, code });
        }
        // The coordinator works.
        history.note_progress(&self.client.name);
        drop(history);
        match known {
            Some(ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId) => {
                self.release();
                self.membership.reset();
                Ok(false)
            }
            // The static member that it replaces has not left.
            Some(ErrorCode::UnreleasedInstanceId) => Err(End::Crashed),
            Some(ErrorCode::FencedInstanceId | ErrorCode::GroupIdNotFound) if epoch > 0 => {
                Err(End::Crashed)
            }
            // The broker has not received the features of the cluster yet.
            Some(ErrorCode::UnsupportedVersion) => Err(End::Crashed),
            _ => {
                let id = &self.membership.id;
                let wrong = format!("{id}: a heartbeat in epoch {epoch} has error {known:?}");
                self.client.history.lock().wrong.push(wrong);
                Err(End::Crashed)
            }
        }
    }

    /// Sends a heartbeat and notes what it reports. Returns the coordinator, when it was sent, and
    /// the response. `None` without a response.
    async fn send_heartbeat(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Option<(String, i64, ConsumerGroupHeartbeatResponse)> {
        let (group, id) = (self.group(), self.membership.id.clone());
        let coordinator = self.client.coordinator(group).await;
        let reports = request.topic_partitions.as_ref().map(|topics| {
            let of = topics.iter();
            of.flat_map(|it| it.partitions.iter().map(|at| (it.topic_id, *at))).collect()
        });
        let reports = match request.member_epoch < 0 {
            true => Some(Partitions::new()),
            false => reports,
        };
        let has_report = reports.is_some();
        if let Some(owned) = reports {
            let mut history = self.client.history.lock();
            history.consumers.member(group, &id).report(request.member_epoch, owned);
        }
        let sent_ms = now_ms();
        let response = self.client.ask(&coordinator, HEARTBEAT, request).await?;
        if has_report {
            self.client.history.lock().consumers.member(group, &id).answered();
        }
        Some((coordinator.host, sent_ms, response))
    }

    /// Takes the newest assignment: commits, revokes the partitions that it loses, and takes the
    /// others. Heartbeats continue while it revokes.
    async fn reconcile(&mut self) {
        let Some(target) = self.membership.to_reconcile().cloned() else { return };
        if self.reconciliation.is_none() {
            if !self.know_topics(&target.partitions).await {
                return;
            }
            self.commit(&self.positions.clone()).await;
            let has_revoked = !self.owned.is_subset(&target.partitions);
            let ms = match has_revoked && self.client.rng.one_in(2) {
                true => self.client.rng.between(0, REVOCATION_MS_MAX),
                false => 0,
            };
            let revoked_at = Instant::now() + Duration::from_millis(ms);
            self.reconciliation = Some(Reconciliation { assignment: target, revoked_at });
        }
        if let Some(done) = self.reconciliation.take_if(|it| it.revoked_at <= Instant::now()) {
            self.own(done.assignment.partitions.clone());
            self.membership.reconciled(done.assignment);
        }
    }

    fn own(&mut self, partitions: Partitions) {
        self.positions.retain(|partition| partitions.contains(partition));
        let mut history = self.client.history.lock();
        history.consumers.member(self.group(), &self.membership.id).owned = partitions.clone();
        self.owned = partitions;
    }

    /// Stops using any partition.
    fn release(&mut self) {
        self.reconciliation = None;
        self.own(Partitions::new());
    }

    async fn end(&mut self, end: End) {
        self.release();
        if end != End::Crashed {
            let request = self.membership.leave(end == End::ClosedForGood);
            self.send_heartbeat(&request).await;
        }
        self.membership.fail();
        if end == End::Unsubscribed {
            return;
        }
        self.client.history.lock().consumers.remove(self.group(), &self.membership.id);
        let id = format!("{}-{}", self.role.name, self.ids);
        self.ids += 1;
        self.membership = Membership::new(id, self.role.settings);
    }

    /// Deletes the group once it has no member any more. Its offsets must not come back.
    async fn delete_group(&mut self) {
        let group = self.group();
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
        loop {
            let coordinator = self.client.coordinator(group).await;
            let answer = self.client.ask(&coordinator, DELETE_GROUPS, &request).await;
            let code = answer.and_then(|mut it| it.results.pop()).map(|it| it.error_code);
            match code.map(ErrorCode::try_from_code) {
                Some(None) => break self.client.history.lock().forget_commits(group, true),
                // An earlier request may have deleted it, or the broker is no longer coordinator.
                Some(Some(ErrorCode::GroupIdNotFound)) => {
                    break self.client.history.lock().forget_commits(group, false);
                }
                Some(Some(ErrorCode::NonEmptyGroup)) => {
                    self.client.history.lock().note_progress(&self.client.name);
                }
                _ => self.client.forget_coordinator(),
            }
            self.client.history.lock().refused(code.unwrap_or_default());
            self.client.rest().await;
        }
    }

    /// Asks for the names of topics that it does not know. Returns whether it then knows all.
    async fn know_topics(&mut self, partitions: &Partitions) -> bool {
        let topics: BTreeSet<_> = partitions.iter().map(|(topic, _)| *topic).collect();
        let unknown: Vec<_> = topics
            .into_iter()
            .filter(|topic| !self.topic_names.contains_key(topic))
            .map(|topic| MetadataRequestTopic::default().with_topic_id(topic).with_name(None))
            .collect();
        if unknown.is_empty() {
            return true;
        }
        let broker = self.client.any_broker();
        let request = MetadataRequest::default().with_topics(Some(unknown));
        let answer = self.client.ask(&broker, METADATA, &request).await;
        for topic in answer.iter().flat_map(|it| &it.topics) {
            if let Some(name) = topic.name.as_ref().filter(|_| topic.error_code == 0) {
                self.topic_names.insert(topic.topic_id, name.to_string());
            }
        }
        partitions.iter().all(|(topic, _)| self.topic_names.contains_key(topic))
    }

    fn place(&self, (topic, partition): &(TopicId, i32)) -> Place {
        (self.topic_names[topic].clone(), *partition)
    }

    /// Fetches the committed offsets of new partitions, and checks them.
    async fn fetch_positions(&mut self) {
        let missing: Vec<_> = self.owned.difference(&self.positions).copied().collect();
        if missing.is_empty() {
            return;
        }
        let group = self.group();
        let coordinator = self.client.coordinator(group).await;
        let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        let mut least = BTreeMap::new();
        for partition in &missing {
            let (topic, index) = self.place(partition);
            let place = (topic.clone(), index);
            let acknowledged = self.client.history.lock().commits(group, &place).acknowledged;
            least.insert(place, (*partition, acknowledged));
            topics.entry(topic).or_default().push(index);
        }
        let topics = topics.into_iter().map(|(topic, indexes)| {
            OffsetFetchRequestTopics::default()
                .with_name(topic_name(&topic))
                .with_partition_indexes(indexes)
        });
        let of_group = OffsetFetchRequestGroup::default()
            .with_group_id(group_id(group))
            .with_member_id(Some(StrBytes::from_string(self.membership.id.clone())))
            .with_member_epoch(self.membership.epoch)
            .with_topics(Some(topics.collect()));
        let request = OffsetFetchRequest::default().with_groups(vec![of_group]);
        let answer = self.client.ask(&coordinator, OFFSET_FETCH, &request).await;
        let Some(answer) = answer.and_then(|mut it| it.groups.pop()) else { return };
        if answer.error_code != 0 {
            self.offset_error(answer.error_code);
            return;
        }
        for topic in answer.topics {
            for it in topic.partitions.iter().filter(|it| it.error_code == 0) {
                let place = (topic.name.to_string(), it.partition_index);
                let Some((partition, least)) = least.get(&place) else { continue };
                self.positions.insert(*partition);
                self.check_committed(&coordinator.host, &place, it.committed_offset, *least);
            }
        }
    }

    /// Checks a committed offset. `least` was acknowledged before the request.
    fn check_committed(&self, host: &str, place: &Place, found: i64, least: i64) {
        let group = self.group();
        let mut history = self.client.history.lock();
        if !history.commits(group, place).may_find(found, least) {
            let (host, group) = (host.to_owned(), group.to_owned());
            history.wrong_offsets.push(WrongOffset { host, group, found, expected: least });
        }
    }

    /// Handles the error of a request about offsets.
    fn offset_error(&mut self, code: i16) {
        self.client.history.lock().refused(code);
        match ErrorCode::try_from_code(code) {
            // The next heartbeat gets the epoch, or finds out that the member was removed.
            Some(ErrorCode::StaleMemberEpoch | ErrorCode::UnknownMemberId) => {}
            _ => self.client.forget_coordinator(),
        }
    }

    /// Commits the next offset of each partition.
    async fn commit(&mut self, partitions: &Partitions) {
        if partitions.is_empty() {
            return;
        }
        let group = self.group();
        let coordinator = self.client.coordinator(group).await;
        let mut sent = BTreeMap::new();
        let mut topics: BTreeMap<String, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for partition in partitions {
            let place = self.place(partition);
            let offset = self.client.history.lock().commits(group, &place).send();
            let committed = OffsetCommitRequestPartition::default()
                .with_partition_index(place.1)
                .with_committed_offset(offset);
            topics.entry(place.0.clone()).or_default().push(committed);
            sent.insert(place, offset);
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(&topic))
                .with_partitions(partitions)
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_member_id(StrBytes::from_string(self.membership.id.clone()))
            .with_generation_id_or_member_epoch(self.membership.epoch)
            .with_topics(topics.collect());
        let answer = self.client.ask(&coordinator, OFFSET_COMMIT, &request).await;
        for topic in answer.iter().flat_map(|it| &it.topics) {
            for it in &topic.partitions {
                let place = (topic.name.to_string(), it.partition_index);
                let Some(offset) = sent.get(&place) else { continue };
                self.committed(&place, *offset, it.error_code);
            }
        }
    }

    /// Handles the result of a commit.
    fn committed(&mut self, place: &Place, offset: i64, code: i16) {
        let group = self.group();
        let mut history = self.client.history.lock();
        match ErrorCode::try_from_code(code) {
            None => {
                history.commits(group, place).acknowledge(offset);
                history.acked_commits.push((group.to_owned(), place.clone(), offset));
                history.note_progress(group);
                return;
            }
            Some(
                ErrorCode::StaleMemberEpoch
                | ErrorCode::UnknownMemberId
                | ErrorCode::GroupIdNotFound
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::CoordinatorLoadInProgress,
            ) => history.commits(group, place).refuse(offset),
            // It may have been written, and be committed later.
            Some(ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable) => {}
            Some(error) => {
                let id = &self.membership.id;
                history.wrong.push(format!("{id}: the commit of {place:?} has error {error:?}"));
            }
        }
        drop(history);
        self.offset_error(code);
    }
}
