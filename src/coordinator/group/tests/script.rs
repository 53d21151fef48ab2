//! Runs a script of requests against the state machine, and prints the effects of each.

mod classic;
mod consumer;

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{
    super::{
        Event, LoggedState, Record, TimerKey, VolatileState, messages::*,
        records::OffsetCommitValue, subscription,
    },
    LoggedRecord, pop_due, replay, write,
};
use crate::{
    base::{TopicId, TopicPartition, kafka_uuid},
    coordinator::{
        Outcome, Shard, TimerOp,
        golden::{self, Words, places},
        group::{GroupConfig, GroupShard, consumer::resolution::ResolveRegexes},
    },
    records::{Producer, TransactionVersion, TxnMarker, Verification},
};

/// The prefix of random ids. Printed ids omit it.
const ID_PREFIX: &str = "00000000-0000-0000-0000-";

#[derive(Default)]
pub struct Machine {
    logged: LoggedState,
    volatile: VolatileState,
    now_ms: i64,
    timers: BTreeMap<TimerKey, i64>,
    log: Vec<LoggedRecord>,
    next_token: u64,
    next_id: u128,
    /// Work that the shard has requested.
    work: Vec<ResolveRegexes>,
    out: String,
}

impl Words<'_> {
    fn member(&self) -> Arc<str> {
        full_id(self.named.get("member").copied().unwrap_or_default())
    }

    fn group(&self) -> Arc<str> {
        self.plain[0].into()
    }

    fn ids(&self) -> Vec<Arc<str>> {
        self.plain.iter().map(|id| (*id).into()).collect()
    }
}

/// Returns the member id for a name in a script. `c-1` stands for the id of client `c` with the
/// first random id, `~1` for the first random id in Kafka's form.
fn full_id(id: &str) -> Arc<str> {
    if let Some(number) = id.strip_prefix('~') {
        return kafka_uuid::encode(Uuid::from_u128(number.parse().unwrap())).into();
    }
    match id.rsplit_once('-') {
        Some((client, number)) if number.chars().all(|c| c.is_ascii_digit()) => {
            format!("{client}-{ID_PREFIX}{number:0>12}").into()
        }
        _ => id.into(),
    }
}

fn short_id(id: &str) -> String {
    if let Some(id) = kafka_uuid::decode(id) {
        return format!("~{}", id.as_u128());
    }
    match id.split_once(ID_PREFIX) {
        Some((client, number)) => format!("{client}{}", number.trim_start_matches('0')),
        None => id.into(),
    }
}

fn print_metadata(metadata: &Bytes) -> String {
    match subscription::subscribed_topics(metadata.clone()) {
        Ok(topics) => topics.join("+"),
        Err(_) => String::from_utf8_lossy(metadata).into_owned(),
    }
}

impl golden::Machine for Machine {
    fn command(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let words = Words::new(words);
        let request = match name {
            "config" => return self.configure(&words),
            "wait" => return self.wait(words.plain[0].parse().unwrap()),
            "reload" => return self.reload(),
            "offsets" => return self.print_offsets(),
            "resolve" => return self.resolve_regexes(),
            "topics" => {
                let topics = consumer::topics(&words);
                Request::UpdateClusterInfo(consumer::with_topics(&self.volatile.cluster, topics))
            }
            "group-config" => {
                let cluster = &self.volatile.cluster;
                Request::UpdateClusterInfo(consumer::with_group_config(cluster, &words))
            }
            "beat" => Request::ConsumerHeartbeat(consumer::heartbeat(&words)),
            "describe-consumer" => Request::ConsumerDescribe(words.ids()),
            "kafka-wrote" => return self.kafka_wrote(&words),
            "join" => Request::Join(self.join(&words)),
            "sync" => Request::Sync(sync(&words)),
            "heartbeat" => Request::Heartbeat(HeartbeatRequest {
                group: words.group(),
                generation: words.number("gen", 0),
                member_id: words.member(),
                instance_id: words.option("instance"),
            }),
            "leave" => Request::Leave(leave(&words)),
            "commit" => Request::CommitOffsets(commit(&words)),
            "transaction" => Request::EndTransaction(end_transaction(&words)),
            "fetch" => Request::FetchOffsets(fetch(&words)),
            "delete-offsets" => Request::DeleteOffsets(DeleteOffsetsRequest {
                group: words.group(),
                topics: words.plain[1..].iter().map(|word| places(word)).collect(),
            }),
            "delete-groups" => Request::DeleteGroups(words.ids()),
            "describe" => Request::Describe(words.ids()),
            "list" => {
                let split =
                    |key| words.text(key, "").split_terminator(',').map(Into::into).collect();
                Request::List(ListRequest { states: split("states"), types: split("types") })
            }
            "forget" => {
                let place = |(topic, partitions): (Arc<str>, Vec<i32>)| {
                    partitions.into_iter().map(move |at| TopicPartition::new(topic.clone(), at))
                };
                let gone = words.plain.iter().flat_map(|word| place(places(word)));
                Request::ForgetPartitions(gone.collect())
            }
            other => panic!("no command {other}"),
        };
        self.request(request);
    }

    fn take_output(&mut self) -> String {
        std::mem::take(&mut self.out)
    }
}

impl Machine {
    fn request(&mut self, request: Request) {
        self.next_token += 1;
        self.event(Event::Request { token: self.next_token, request });
    }

    /// Does the work that the shard has requested, and reports it.
    fn resolve_regexes(&mut self) {
        for work in std::mem::take(&mut self.work) {
            self.request(Request::RegexesResolved(work.run()));
        }
    }

    fn configure(&mut self, words: &Words) {
        let mut config = GroupConfig::clone(&self.volatile.cluster.config);
        config.initial_rebalance_delay_ms =
            words.number("delay", config.initial_rebalance_delay_ms);
        config.max_size = words.number("max-size", config.max_size);
        config.offset_metadata_max_bytes =
            words.number("metadata", config.offset_metadata_max_bytes);
        config.offsets_retention_ms = words.number("retention", config.offsets_retention_ms);
        config.offsets_retention_check_interval_ms =
            words.number("check", config.offsets_retention_check_interval_ms);
        config.max_batch_bytes = words.number("batch", config.max_batch_bytes);
        consumer::configure(&mut config.consumer, words);
        self.volatile.cluster.config = Arc::new(config);
    }

    fn join(&mut self, words: &Words) -> JoinRequest {
        self.next_id += 1;
        let protocol_type = words.text("type", "consumer");
        let version: i16 = words.number("version", 9);
        JoinRequest {
            group: words.group(),
            member_id: words.member(),
            instance_id: words.option("instance"),
            client_id: words.text("client", "c"),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: words.number("session", 10_000),
            rebalance_timeout_ms: words.number("rebalance", 60_000),
            protocols: classic::protocols(words, &protocol_type),
            protocol_type,
            requires_known_member_id: version >= 4,
            supports_skipping_assignment: version >= 9,
            fresh_id: Uuid::parse_str(&format!("{ID_PREFIX}{:0>12}", self.next_id)).unwrap(),
        }
    }

    fn wait(&mut self, ms: i64) {
        let until_ms = self.now_ms + ms;
        while let Some((at_ms, key)) = pop_due(&mut self.timers, until_ms) {
            self.now_ms = at_ms;
            self.print(&format!("at {at_ms}: {} is due", print_timer(&key)));
            self.event(Event::Timer(key));
        }
        self.now_ms = until_ms;
    }

    /// Appends a record to the log, as Apache Kafka writes it. The value is given in hex.
    fn kafka_wrote(&mut self, words: &Words) {
        let group = words.group();
        let mut key = BytesMut::new();
        key.put_i16(words.number("type", 3));
        for text in [Some(group), words.option("rest")].into_iter().flatten() {
            key.put_i16(text.len() as i16);
            key.put_slice(text.as_bytes());
        }
        let value = words.text("value", "00");
        let byte = |at| u8::from_str_radix(&value[at..at + 2], 16).unwrap();
        let value: Bytes = (0..value.len()).step_by(2).map(byte).collect();
        let record = Record::decode(key.freeze(), Some(value)).unwrap();
        self.write(record.expect("a type that Kafka writes"));
    }

    fn write(&mut self, record: Record) {
        write(&mut self.logged, &mut self.log, record);
    }

    /// Replays the log, checks that this gives the same logged state, and continues from it.
    fn reload(&mut self) {
        assert_eq!(replay(&self.log), self.logged);
        self.volatile = VolatileState::new(self.volatile.cluster.clone());
        self.timers.clear();
        self.event(Event::Loaded);
    }

    fn event(&mut self, event: Event) {
        let outcome = GroupShard::decide(&self.logged, &mut self.volatile, self.now_ms, 0, event);
        let Outcome { records, replies, timers, effects } = outcome;
        for record in records {
            self.print(&print_record(&record));
            self.write(record);
        }
        for work in effects {
            self.print(&format!("resolve {} of {}", work.regexes.join(", "), work.group));
            self.work.push(work);
        }
        for (token, reply) in replies {
            self.print(&format!("{token} <- {}", print_reply(&reply)));
        }
        for op in timers {
            match op {
                TimerOp::SetOnce { key, .. } if self.timers.contains_key(&key) => {}
                TimerOp::Set { key, at_ms } | TimerOp::SetOnce { key, at_ms } => {
                    self.print(&format!("{} at {at_ms}", print_timer(&key)));
                    self.timers.insert(key, at_ms);
                }
                TimerOp::Cancel { key } => {
                    if self.timers.remove(&key).is_some() {
                        self.print(&format!("no {}", print_timer(&key)));
                    }
                }
            }
        }
    }

    fn print_offsets(&mut self) {
        let mut lines = Vec::new();
        for (group, topics) in self.logged.offsets.groups() {
            for (topic, partitions) in topics {
                for (partition, at) in partitions {
                    lines.push(format!("{group} {topic}-{partition} {}", at.value.offset));
                }
            }
        }
        lines.iter().for_each(|line| self.print(line));
    }

    fn print(&mut self, line: &str) {
        writeln!(self.out, "{line}").unwrap();
    }
}

fn sync(words: &Words) -> SyncRequest {
    let assignments = words.text("assign", "");
    let assignments = assignments.split_terminator(',').map(|assignment| {
        let (member, bytes) = assignment.split_once(':').unwrap();
        (full_id(member), classic::assignment(bytes))
    });
    SyncRequest {
        group: words.group(),
        generation: words.number("gen", 0),
        member_id: words.member(),
        instance_id: words.option("instance"),
        protocol_type: words.option("type"),
        protocol_name: words.option("protocol"),
        assignments: assignments.collect(),
    }
}

/// Parses a LeaveGroup request. Members are `id`, `id@instance` or `@instance`.
fn leave(words: &Words) -> LeaveRequest {
    let members = words.plain[1..].iter().map(|word| {
        let (member, instance) = word.split_once('@').map_or((*word, None), |(m, i)| (m, Some(i)));
        LeavingMember {
            member_id: full_id(member),
            instance_id: instance.map(Into::into),
            reason: None,
        }
    });
    LeaveRequest { group: words.group(), members: members.collect() }
}

/// Parses an OffsetCommit request. Offsets are `topic:partition:offset` or
/// `topic:partition:offset:metadata`.
fn commit(words: &Words) -> CommitRequest {
    let topics = words.plain[1..].iter().map(|word| {
        let parts: Vec<&str> = word.split(':').collect();
        let partition = CommitPartition {
            partition: parts[1].parse().unwrap(),
            offset: parts[2].parse().unwrap(),
            leader_epoch: words.number("epoch", -1),
            metadata: parts.get(3).map(|text| (*text).into()),
        };
        let id = TopicId::from_u128(words.number("topic-id", 0));
        CommitTopic { name: parts[0].into(), id, partitions: vec![partition] }
    });
    let transaction = words.named.get("producer").map(|id| CommitTransaction {
        producer: Producer { id: id.parse().unwrap(), epoch: 0 },
        verification: Verification::MustBeOpen,
        version: TransactionVersion::V0,
    });
    CommitRequest {
        group: words.group(),
        generation: words.number("gen", -1),
        member_id: words.member(),
        instance_id: words.option("instance"),
        retention_ms: words.named.get("retention").map(|ms| ms.parse().unwrap()),
        knows_group_id_not_found: transaction.is_none() && words.number("version", 9) >= 9,
        topics: topics.collect(),
        transaction,
    }
}

/// Parses the end of a transaction: `commits` or `aborts`, and the producer id.
fn end_transaction(words: &Words) -> TxnMarker {
    TxnMarker {
        producer: Producer { id: words.number("producer", 0), epoch: 0 },
        commits: words.plain[0] == "commits",
        coordinator_epoch: 0,
        version: TransactionVersion::V0,
    }
}

fn fetch(words: &Words) -> FetchRequest {
    let id = TopicId::from_u128(words.number("topic-id", 0));
    let topics = words.plain[1..].iter().map(|word| {
        let (name, partitions) = places(word);
        FetchTopic { name, id, partitions }
    });
    let topics: Vec<_> = topics.collect();
    FetchRequest {
        group: words.group(),
        member_id: words.option("member").map(|id| full_id(&id)),
        member_epoch: words.number("epoch", -1),
        topics: (!topics.is_empty()).then_some(topics),
        requires_stable: words.number("stable", false),
    }
}

fn print_timer(key: &TimerKey) -> String {
    match key {
        TimerKey::Session { group, member } => format!("session of {}/{}", group, short_id(member)),
        TimerKey::Join { group } => format!("end of joins of {group}"),
        TimerKey::Sync { group } => format!("end of syncs of {group}"),
        TimerKey::Rebalance { group, member } => {
            format!("rebalance timeout of {}/{}", group, short_id(member))
        }
        TimerKey::MemberJoin { group, member } => format!("join of {}/{}", group, short_id(member)),
        TimerKey::MemberSync { group, member } => format!("sync of {}/{}", group, short_id(member)),
        TimerKey::Expire => "expiry".into(),
    }
}

fn print_record(record: &Record) -> String {
    match record {
        Record::Group { group, value: None } => format!("record: {group} is gone"),
        Record::Group { group, value: Some(value) } => {
            let mut text = format!("record: {group} generation {}", value.generation);
            if let (Some(protocol), Some(leader)) = (&value.protocol, &value.leader) {
                write!(text, " by {protocol}, led by {}", short_id(leader)).unwrap();
            }
            for member in &value.members {
                let assignment = classic::print_partitions(&member.assignment);
                write!(text, ", {}={assignment}", short_id(&member.member_id)).unwrap();
            }
            text
        }
        Record::Consumer(record) => consumer::print_record(record),
        Record::Unserved { group, key, value, .. } => {
            let verb = if value.is_some() { "has" } else { "loses" };
            format!("record: {group} {verb} type {}", i16::from_be_bytes([key[0], key[1]]))
        }
        Record::Offset { group, topic, partition, value: None } => {
            format!("record: {group} {topic}-{partition} is gone")
        }
        Record::Offset { group, topic, partition, value: Some(value) } => {
            format!("record: {group} {topic}-{partition} {}", print_offset(value))
        }
        Record::OffsetInTransaction { producer, group, topic, partition, value } => {
            let (offset, id) = (print_offset(value), producer.id);
            format!("record: {group} {topic}-{partition} {offset} in transaction of {id}")
        }
        Record::Marker(marker) => {
            let ends = if marker.commits { "commits" } else { "aborts" };
            format!("record: transaction of {} {ends}", marker.producer.id)
        }
    }
}

fn print_offset(value: &OffsetCommitValue) -> String {
    let mut text = value.offset.to_string();
    if !value.metadata.is_empty() {
        write!(text, " '{}'", value.metadata).unwrap();
    }
    if value.leader_epoch != -1 {
        write!(text, " epoch {}", value.leader_epoch).unwrap();
    }
    if value.expire_timestamp != -1 {
        write!(text, " until {}", value.expire_timestamp).unwrap();
    }
    text
}

fn outcome<T>(result: &Result<T, GroupError>) -> String {
    result.as_ref().map_or_else(GroupError::to_string, |_| "ok".into())
}

fn print_reply(reply: &Reply) -> String {
    match reply {
        Reply::Join(reply) => print_join(reply),
        Reply::Sync(SyncReply { error: Some(error), .. }) => error.to_string(),
        Reply::Sync(reply) => format!("assigned {}", classic::print_assignment(&reply.assignment)),
        Reply::Heartbeat(result) => outcome(result),
        Reply::Leave(Err(error)) | Reply::CommitOffsets(Err(error)) => error.to_string(),
        Reply::DeleteOffsets(Err(error)) => error.to_string(),
        Reply::Leave(Ok(left)) => join(left.iter().map(|left| {
            let instance = left.instance_id.as_ref().map(|id| format!("@{id}")).unwrap_or_default();
            format!("{}{instance} {}", short_id(&left.member_id), outcome(&left.result))
        })),
        Reply::CommitOffsets(Ok(topics)) => join(topics.iter().flat_map(|topic| {
            let of = |(at, result): &(i32, _)| format!("{}-{at} {}", topic.name, outcome(result));
            topic.partitions.iter().map(of)
        })),
        Reply::FetchOffsets(Err(error)) => error.to_string(),
        Reply::FetchOffsets(Ok(topics)) => join(topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|it| {
                let FetchedOffset { partition, offset, leader_epoch, metadata, is_unstable } = it;
                let unstable = if *is_unstable { " unstable" } else { "" };
                let name = &topic.name;
                format!("{name}-{partition} {offset} '{metadata}' epoch {leader_epoch}{unstable}")
            })
        })),
        Reply::DeleteOffsets(Ok(topics)) => join(topics.iter().flat_map(|topic| {
            let of = |(at, result): &(i32, _)| format!("{}-{at} {}", topic.topic, outcome(result));
            topic.partitions.iter().map(of)
        })),
        Reply::DeleteGroups(groups) => {
            join(groups.iter().map(|(group, result)| format!("{group} {}", outcome(result))))
        }
        Reply::Describe(groups) => join(groups.iter().map(print_description)),
        Reply::List(groups) => join(groups.iter().map(|listed| {
            let ListedGroup { group, protocol_type, state, group_type } = listed;
            format!("{group} {group_type} {state} '{protocol_type}'")
        })),
        Reply::ForgetPartitions => "forgotten".into(),
        Reply::EndTransaction => "ended".into(),
        Reply::Survey(surveys) => format!("{surveys:?}"),
        Reply::ConsumerHeartbeat(reply) => consumer::print_reply(reply),
        Reply::ConsumerDescribe(groups) => join(groups.iter().map(consumer::print_description)),
        Reply::RegexesResolved => "resolved".into(),
        Reply::UpdateClusterInfo => "updated".into(),
    }
}

fn print_join(reply: &JoinReply) -> String {
    let member = short_id(&reply.member_id);
    if let Some(error) = reply.error {
        return format!("{error} member '{member}'");
    }
    let protocol = reply.protocol_name.as_deref().unwrap_or("none");
    let leader = short_id(&reply.leader);
    let mut text =
        format!("joined {} as {member} by {protocol}, led by {leader}", reply.generation);
    for member in &reply.members {
        let instance = member.instance_id.as_ref().map(|id| format!("@{id}")).unwrap_or_default();
        let metadata = print_metadata(&member.metadata);
        write!(text, ", {}{instance}={metadata}", short_id(&member.member_id)).unwrap();
    }
    if reply.skip_assignment {
        text.push_str(", skip assignment");
    }
    text
}

fn print_description(group: &GroupDescription) -> String {
    let error = group.error.map(|error| format!(" {error}")).unwrap_or_default();
    let mut text = format!("{} {}{error}", group.group, group.state);
    write!(text, " '{}' '{}'", group.protocol_type, group.protocol).unwrap();
    for member in &group.members {
        let assignment = classic::print_partitions(&member.assignment);
        let metadata = print_metadata(&member.metadata);
        let id = short_id(&member.member_id);
        write!(text, ", {id} {} {metadata}={assignment}", member.client_id).unwrap();
    }
    text
}

fn join(parts: impl Iterator<Item = String>) -> String {
    let text = parts.collect::<Vec<_>>().join("; ");
    if text.is_empty() { "nothing".into() } else { text }
}
