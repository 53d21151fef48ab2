//! Group configs, and the broker keys with their defaults.

use super::{Key, keys};

keys! {
    GROUP:

    "consumer.session.timeout.ms" Int "45000" (at_least 1) Medium ReadOnly Used
        "A member of a consumer group silent for this long is removed.";
    "consumer.heartbeat.interval.ms" Int "5000" (at_least 1) Medium ReadOnly Used
        "How often members of a consumer group send heartbeats.";
    "consumer.assignment.interval.ms" Int "1000" (at_least 0) Medium ReadOnly Used
        "The least time between two assignments of a consumer group.";
    "share.session.timeout.ms" Int "45000" (at_least 1) Medium ReadOnly Ignored
        "A member of a share group silent for this long is removed.";
    "share.heartbeat.interval.ms" Int "5000" (at_least 1) Medium ReadOnly Ignored
        "How often members of a share group send heartbeats.";
    "share.record.lock.duration.ms" Int "30000" (at_least 1000) Medium ReadOnly Ignored
        "How long a consumer holds a delivered record.";
    "share.delivery.count.limit" Int "5" (at_least 2) Medium ReadOnly Ignored
        "How often a record is delivered before it is given up.";
    "share.partition.max.record.locks" Int "2000" (at_least 100) Medium ReadOnly Ignored
        "The most records of a partition held at once.";
    "share.auto.offset.reset" String "latest" auto_offset_reset Medium ReadOnly Ignored
        "Where a share group without a position starts.";
    "share.isolation.level" String "read_uncommitted"
        (one_of "read_committed" "read_uncommitted") Medium ReadOnly Ignored
        "Whether records of open transactions are delivered.";
    "share.renew.acknowledge.enable" Boolean "true" any Medium ReadOnly Ignored
        "Whether a consumer may hold a record for longer by renewing.";
    "share.assignment.interval.ms" Int "1000" (at_least 0) Medium ReadOnly Ignored
        "The least time between two assignments of a share group.";
    "streams.session.timeout.ms" Int "45000" (at_least 1) Medium ReadOnly Ignored
        "A member of a streams group silent for this long is removed.";
    "streams.heartbeat.interval.ms" Int "5000" (at_least 1) Medium ReadOnly Ignored
        "How often members of a streams group send heartbeats.";
    "streams.num.standby.replicas" Int "0" (at_least 0) Medium ReadOnly Ignored
        "Standby replicas of each streams task.";
    "streams.initial.rebalance.delay.ms" Int "3000" (at_least 0) Medium ReadOnly Ignored
        "How long the first rebalance of a streams group waits for more members.";
    "streams.assignment.interval.ms" Int "1000" (at_least 0) Medium ReadOnly Ignored
        "The least time between two assignments of a streams group.";
}

/// For a group config, the broker key whose value is its default.
pub static SYNONYMS: &[(&str, &str)] = &[
    ("consumer.session.timeout.ms", "group.consumer.session.timeout.ms"),
    ("consumer.heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
    ("consumer.assignment.interval.ms", "group.consumer.assignment.interval.ms"),
    ("share.session.timeout.ms", "group.share.session.timeout.ms"),
    ("share.heartbeat.interval.ms", "group.share.heartbeat.interval.ms"),
    ("share.record.lock.duration.ms", "group.share.record.lock.duration.ms"),
    ("share.delivery.count.limit", "group.share.delivery.count.limit"),
    ("share.partition.max.record.locks", "group.share.partition.max.record.locks"),
    ("share.assignment.interval.ms", "group.share.assignment.interval.ms"),
    ("streams.session.timeout.ms", "group.streams.session.timeout.ms"),
    ("streams.heartbeat.interval.ms", "group.streams.heartbeat.interval.ms"),
    ("streams.num.standby.replicas", "group.streams.num.standby.replicas"),
    ("streams.initial.rebalance.delay.ms", "group.streams.initial.rebalance.delay.ms"),
    ("streams.assignment.interval.ms", "group.streams.assignment.interval.ms"),
];
