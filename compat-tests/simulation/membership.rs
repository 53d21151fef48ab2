//! The state of a member of a consumer group as its consumer keeps it: which heartbeat it sends
//! next, and what a response changes (`AbstractMembershipManager` and `HeartbeatState` of Kafka's
//! consumer).

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        consumer_group_heartbeat_request::TopicPartitions,
    },
    protocol::StrBytes,
};
use sordini::base::TopicId;

use crate::{
    consumer_history::Partitions,
    requests::{group_id, text, topic_name},
};

const JOIN_EPOCH: i32 = 0;
const LEAVE_EPOCH: i32 = -1;
const LEAVE_STATIC_EPOCH: i32 = -2;

/// What a consumer is subscribed to.
#[derive(Clone, Copy)]
pub enum Subscription {
    Names(&'static [&'static str]),
    /// A regular expression, which the coordinator resolves.
    Regex(&'static str),
}

/// What does not change in the life of a consumer.
#[derive(Clone, Copy)]
pub struct Settings {
    pub group: &'static str,
    /// The instance id of a static member.
    pub instance_id: Option<&'static str>,
    pub subscription: Subscription,
    pub rebalance_timeout_ms: i32,
}

/// How far the consumer is with its assignment (Kafka's `MemberState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Joining,
    /// The consumer must revoke or take partitions.
    Reconciling,
    /// The consumer has done so. Its next heartbeat reports it.
    Acknowledging,
    Stable,
}

/// An assignment with a number, because an equal one that comes later is another one (Kafka's
/// `LocalAssignment`).
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    number: u64,
    pub partitions: Partitions,
}

pub struct Membership {
    pub id: String,
    pub epoch: i32,
    settings: Settings,
    state: State,
    /// The assignment that the consumer has taken. `None` if it has none since it joined.
    current: Option<Assignment>,
    /// The newest assignment of the coordinator.
    target: Option<Assignment>,
    /// Whether the coordinator knows the subscription.
    has_sent_subscription: bool,
    /// The assignment in the last heartbeat that had one. `None` before it, and after an error.
    sent: Option<Option<Assignment>>,
}

impl Membership {
    pub fn new(id: String, settings: Settings) -> Self {
        Self {
            id,
            epoch: JOIN_EPOCH,
            settings,
            state: State::Joining,
            current: None,
            target: None,
            has_sent_subscription: false,
            sent: None,
        }
    }

    /// Whether the next heartbeat must not wait for the heartbeat interval.
    pub fn must_send_now(&self) -> bool {
        matches!(self.state, State::Joining | State::Acknowledging)
    }

    /// The next heartbeat. What has not changed since the last one is left out.
    pub fn heartbeat(&mut self) -> ConsumerGroupHeartbeatRequest {
        let request = self.request(self.epoch);
        if self.state == State::Acknowledging {
            self.state = match self.current == self.target {
                true => State::Stable,
                false => State::Reconciling,
            };
        }
        request
    }

    /// The last heartbeat: a static member leaves for a while, unless `for_good` is set. The
    /// consumer must not use any partitions any more.
    pub fn leave(&mut self, for_good: bool) -> ConsumerGroupHeartbeatRequest {
        self.reset();
        self.request(match self.settings.instance_id.is_some() && !for_good {
            true => LEAVE_STATIC_EPOCH,
            false => LEAVE_EPOCH,
        })
    }

    fn request(&mut self, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        let Settings { group, instance_id, subscription, rebalance_timeout_ms } = self.settings;
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(group))
            .with_member_id(StrBytes::from_string(self.id.clone()))
            .with_member_epoch(epoch)
            .with_instance_id(instance_id.map(text));
        let is_complete = epoch == JOIN_EPOCH;
        if is_complete || !self.has_sent_subscription {
            self.has_sent_subscription = true;
            let (names, regex) = match subscription {
                Subscription::Names(names) => (names, None),
                Subscription::Regex(regex) => (&[][..], Some(text(regex))),
            };
            let names = names.iter().map(|name| topic_name(name)).collect();
            request = request
                .with_rebalance_timeout_ms(rebalance_timeout_ms)
                .with_subscribed_topic_names(Some(names))
                .with_subscribed_topic_regex(regex);
        }
        if is_complete || self.sent.as_ref() != Some(&self.current) {
            self.sent = Some(self.current.clone());
            request = request.with_topic_partitions(Some(by_topic(self.current.as_ref())));
        }
        request
    }

    /// Takes a response without an error.
    pub fn accept(&mut self, response: &ConsumerGroupHeartbeatResponse) {
        self.epoch = response.member_epoch;
        let Some(assigned) = assigned(response) else { return };
        if self.target.as_ref().is_none_or(|target| target.partitions != assigned) {
            let number = self.target.as_ref().map_or(0, |target| target.number + 1);
            self.target = Some(Assignment { number, partitions: assigned });
        }
        if self.current != self.target {
            self.state = State::Reconciling;
        } else if matches!(self.state, State::Reconciling | State::Joining) {
            self.state = State::Stable;
        }
    }

    /// Takes an error or a lost response: the next heartbeat has the subscription and the
    /// partitions again.
    pub fn fail(&mut self) {
        self.has_sent_subscription = false;
        self.sent = None;
    }

    /// The coordinator does not know the member, or not in this epoch. It must join again, without
    /// partitions.
    pub fn reset(&mut self) {
        self.epoch = JOIN_EPOCH;
        self.state = State::Joining;
        self.current = None;
        self.target = None;
    }

    /// The assignment that the consumer must take. `None` if it has taken the newest one.
    pub fn to_reconcile(&self) -> Option<&Assignment> {
        let target = self.target.as_ref().filter(|_| self.state == State::Reconciling);
        target.filter(|_| self.current != self.target)
    }

    /// The consumer has taken an assignment.
    pub fn reconciled(&mut self, assignment: Assignment) {
        self.current = Some(assignment);
        self.state = State::Acknowledging;
    }
}

fn by_topic(assignment: Option<&Assignment>) -> Vec<TopicPartitions> {
    let mut topics: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in assignment.iter().flat_map(|it| &it.partitions) {
        topics.entry(*topic).or_default().push(*partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TopicPartitions::default().with_topic_id(topic).with_partitions(partitions)
    });
    topics.collect()
}

/// The assignment in a response. `None` if the member already has it.
pub fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Option<Partitions> {
    let topics = &response.assignment.as_ref()?.topic_partitions;
    let partitions =
        topics.iter().flat_map(|it| it.partitions.iter().map(|index| (it.topic_id, *index)));
    Some(partitions.collect())
}
