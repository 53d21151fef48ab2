//! Commands and texts of consumer groups in scripts. Topics have names of one letter, which gives
//! their ids.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use super::{full_id, short_id};
use crate::{
    base::{TopicId, config::MigrationPolicy},
    coordinator::{
        golden::{Words, places},
        group::{
            ClusterInfo,
            assignor::{Assignment, Assignor},
            config::{ConsumerConfig, ConsumerGroupConfig},
            consumer::{
                ConsumerChange, ConsumerRecord,
                member::{EpochAssignment, Subscription},
                messages::{
                    ConsumerGroupDescription, ConsumerHeartbeatReply, ConsumerHeartbeatRequest,
                    Refusal, TopicInfo, TopicsSnapshot,
                },
            },
        },
    },
};

pub fn topic_id(name: &str) -> TopicId {
    TopicId::from_u128(name.as_bytes()[0].into())
}

fn topic_name(id: TopicId) -> char {
    id.as_u128() as u8 as char
}

/// The topics of words such as `t:3`: names with their numbers of partitions. The hash of a topic
/// is made of both.
pub fn topics(words: &Words) -> TopicsSnapshot {
    let mut snapshot = TopicsSnapshot::default();
    for (name, partitions) in words.plain.iter().map(|word| word.split_once(':').unwrap()) {
        let (id, partitions) = (topic_id(name), partitions.parse().unwrap());
        let hash = i64::from(partitions) + 1000 * id.as_u128() as i64;
        let info = TopicInfo { id, partitions, hash };
        snapshot.topics.insert(name.into(), Arc::new(info));
        snapshot.names.insert(id, name.into());
    }
    snapshot
}

pub fn with_topics(cluster: &ClusterInfo, topics: TopicsSnapshot) -> ClusterInfo {
    let (version, topics) = (cluster.version + 1, Some(Arc::new(topics)));
    ClusterInfo { version, topics, ..cluster.clone() }
}

/// The cluster info with other settings of one group.
pub fn with_group_config(cluster: &ClusterInfo, words: &Words) -> ClusterInfo {
    let number = |key| words.named.get(key).map(|text| text.parse().unwrap());
    let config = ConsumerGroupConfig {
        session_timeout_ms: number("session"),
        heartbeat_interval_ms: number("heartbeat"),
        assignment_interval_ms: number("interval"),
    };
    let mut group_configs = BTreeMap::clone(&cluster.group_configs);
    group_configs.insert(words.plain[0].into(), config);
    let (version, group_configs) = (cluster.version + 1, Arc::new(group_configs));
    ClusterInfo { version, group_configs, ..cluster.clone() }
}

/// The settings of the broker for consumer groups.
pub fn configure(config: &mut ConsumerConfig, words: &Words) {
    config.session_timeout_ms.value = words.number("session", config.session_timeout_ms.value);
    config.assignment_interval_ms.value =
        words.number("interval", config.assignment_interval_ms.value);
    config.max_size = words.number("consumer-max-size", config.max_size);
    config.migration_policy = match words.named.get("policy") {
        None => config.migration_policy,
        Some(&"disabled") => MigrationPolicy::Disabled,
        Some(&"upgrade") => MigrationPolicy::Upgrade,
        Some(&"downgrade") => MigrationPolicy::Downgrade,
        Some(_) => MigrationPolicy::Bidirectional,
    };
    if let Some(names) = words.named.get("assignors") {
        let assignors = names.split(',').map(|name| Assignor::by_name(name).unwrap());
        config.assignors = assignors.collect();
    }
}

/// Parses a heartbeat. A member that joins sends what it must; others leave out what does not
/// change. `topics=` and `owned=` are empty lists.
pub fn heartbeat(words: &Words) -> ConsumerHeartbeatRequest {
    let epoch = words.number("epoch", 0);
    let joins = epoch == 0;
    let list = |text: &&str| text.split_terminator('+').map(Into::into).collect();
    let owned = |text: &&str| {
        let topics = text.split_terminator(',').map(places);
        topics.map(|(name, partitions)| (topic_id(&name), partitions)).collect()
    };
    ConsumerHeartbeatRequest {
        group: words.plain[0].into(),
        member_id: full_id(&words.text("member", "m")),
        member_epoch: epoch,
        instance_id: words.option("instance"),
        rack_id: words.option("rack"),
        rebalance_timeout_ms: words.number("timeout", if joins { 60_000 } else { -1 }),
        subscribed_topic_names: words.named.get("topics").map(list),
        subscribed_topic_regex: words.option("regex"),
        server_assignor: words.option("assignor"),
        owned_partitions: match words.named.get("owned") {
            None if joins => Some(Vec::new()),
            text => text.map(owned),
        },
        client_id: words.text("client", "c"),
        client_host: "/127.0.0.1".into(),
    }
}

pub fn print_record(ConsumerRecord { group, change }: &ConsumerRecord) -> String {
    match change {
        change if change.is_tombstone() => format!("record: {group} {} is gone", subject(change)),
        ConsumerChange::Group(Some(value)) => format!("record: {group} epoch {}", value.epoch),
        ConsumerChange::Member(id, Some(member)) => {
            format!("record: {group} member {}{}", short_id(id), print_subscription(member))
        }
        ConsumerChange::TargetEpoch(Some(value)) => {
            format!("record: {group} target epoch {}", value.assignment_epoch)
        }
        ConsumerChange::Target(id, Some(target)) => {
            format!("record: {group} target of {}{}", short_id(id), print_assignment(target))
        }
        ConsumerChange::Current(id, Some(current)) => {
            let (epoch, previous, state) = (current.epoch, current.previous_epoch, current.state);
            let id = short_id(id);
            let mut text = format!("record: {group} {id} epoch {epoch} after {previous} {state:?}");
            text += &print_epochs(&current.assigned);
            if !current.pending_revocation.is_empty() {
                text = text + " revokes" + &print_epochs(&current.pending_revocation);
            }
            text
        }
        ConsumerChange::Regex(regex, Some(resolved)) => {
            let topics: Vec<_> = resolved.topics.iter().map(|name| &**name).collect();
            format!("record: {group} regex {regex} matches '{}'", topics.join("+"))
        }
        other => format!("record: {group} {other:?}"),
    }
}

/// What a tombstone deletes.
fn subject(change: &ConsumerChange) -> String {
    match change {
        ConsumerChange::Group(_) => "itself".into(),
        ConsumerChange::PartitionMetadata(_) => "topic metadata".into(),
        ConsumerChange::Member(id, _) => format!("member {}", short_id(id)),
        ConsumerChange::TargetEpoch(_) => "target epoch".into(),
        ConsumerChange::Target(id, _) => format!("target of {}", short_id(id)),
        ConsumerChange::Current(id, _) => format!("assignment of {}", short_id(id)),
        ConsumerChange::Regex(regex, _) => format!("regex {regex}"),
    }
}

fn print_subscription(member: &Subscription) -> String {
    let names: Vec<_> = member.topic_names.iter().map(|name| &**name).collect();
    let mut text = format!(" topics '{}'", names.join("+"));
    for (label, value) in [
        ("regex", member.regex()),
        ("instance", member.instance_id.as_ref()),
        ("rack", member.rack_id.as_ref()),
        ("assignor", member.assignor.as_ref()),
    ] {
        if let Some(value) = value {
            write!(text, " {label} {value}").unwrap();
        }
    }
    if let Some(classic) = &member.classic {
        let names = classic.supported_protocols.iter().map(|protocol| &*protocol.name);
        let names = names.collect::<Vec<_>>().join("+");
        write!(text, " classic by {names}, session {}", classic.session_timeout_ms).unwrap();
    }
    text
}

fn print_assignment(assignment: &Assignment) -> String {
    let mut text = String::new();
    for (id, partitions) in assignment {
        for partition in partitions {
            write!(text, " {}-{partition}", topic_name(*id)).unwrap();
        }
    }
    text
}

fn print_epochs(assignment: &EpochAssignment) -> String {
    let mut text = String::new();
    for (id, partitions) in assignment {
        for (partition, epoch) in partitions {
            write!(text, " {}-{partition}@{epoch}", topic_name(*id)).unwrap();
        }
    }
    text
}

pub fn print_reply(reply: &Result<ConsumerHeartbeatReply, Refusal>) -> String {
    match reply {
        Err(refusal) => print_refusal(refusal),
        Ok(reply) => {
            let mut text = format!("{} epoch {}", short_id(&reply.member_id), reply.member_epoch);
            if let Some(assignment) = &reply.assignment {
                write!(text, " assigned:{}", print_assignment(assignment)).unwrap();
            }
            text
        }
    }
}

fn print_refusal(refusal: &Refusal) -> String {
    format!("{}: {}", refusal.error, refusal.message)
}

pub fn print_description(
    (id, described): &(Arc<str>, Result<ConsumerGroupDescription, Refusal>),
) -> String {
    let described = match described {
        Ok(described) => described,
        Err(refusal) => return format!("{id} {}", print_refusal(refusal)),
    };
    let (epoch, target) = (described.group_epoch, described.assignment_epoch);
    let (state, assignor) = (described.state, &described.assignor);
    let mut text = format!("{id} {state} epoch {epoch} target {target} by {assignor}");
    for member in &described.members {
        let (id, epoch) = (short_id(&member.member_id), member.member_epoch);
        let topics = member.subscribed_topic_names.join("+");
        let regex = member.subscribed_topic_regex.as_deref().unwrap_or("none");
        write!(text, "; {id} epoch {epoch} topics '{topics}' regex '{regex}'").unwrap();
        write!(text, " has{}", print_assignment(&member.assignment)).unwrap();
        write!(text, " target{}", print_assignment(&member.target_assignment)).unwrap();
        if member.is_classic {
            text.push_str(" classic");
        }
    }
    text
}
