//! Runs a script of requests against the state machine, and prints the effects of each. Producers
//! are written as `id/epoch`, and partitions as `topic:0+1`. New producer ids are 1000 and up.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use super::{
    super::{
        messages::*,
        state::{Transaction, TxnState},
    },
    Effects, Event, Machine, Record, Reply, Request, TxnConfig,
};
use crate::{
    base::TopicPartition,
    coordinator::golden::{self, Words, places},
    records::{Producer, TransactionVersion},
};

pub struct Script {
    machine: Machine,
    next_id: i64,
    /// The last requested markers of each transactional id.
    markers: BTreeMap<Arc<str>, MarkersWritten>,
    out: String,
}

impl Default for Script {
    fn default() -> Self {
        let mut machine = Machine::new(TxnConfig::default());
        machine.event(Event::Loaded);
        Self { machine, next_id: 1000, markers: BTreeMap::new(), out: String::new() }
    }
}

impl golden::Machine for Script {
    fn command(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let words = Words::new(words);
        match name {
            "config" => self.configure(&words),
            "wait" => self.wait(words.plain[0].parse().unwrap()),
            "clear" => *self = Self { out: std::mem::take(&mut self.out), ..Self::default() },
            "load" => {
                self.machine.leader_epoch += words.number("epochs", 1);
                let effects = self.machine.reload();
                self.print_effects(&effects);
            }
            "reelected" => self.machine.leader_epoch += 1,
            "record" => self.record(&words),
            "garbage" => {
                let record = Record::decode(b"\0\x09".as_slice().into(), None);
                self.machine.append(record);
            }
            "unreadable" => {
                let unreadable = self.machine.logged.unreadable;
                self.print(&format!("{unreadable:?}"));
            }
            _ => self.request(name, &words),
        }
    }

    fn take_output(&mut self) -> String {
        std::mem::take(&mut self.out)
    }
}

impl Script {
    fn configure(&mut self, words: &Words) {
        let config = TxnConfig::clone(&self.machine.volatile.config);
        let config = TxnConfig {
            id_expiration_ms: words.number("expiration", config.id_expiration_ms),
            abort_interval_ms: words.number("abort", config.abort_interval_ms),
            max_batch_bytes: words.number("batch", config.max_batch_bytes),
            ..config
        };
        self.machine.volatile.config = Arc::new(config);
    }

    fn request(&mut self, name: &str, words: &Words) {
        let new_producer_id = words.named.get("new").map(|id| id.parse().unwrap());
        let id = || words.plain[0].into();
        let request = match name {
            "init" => Request::Init {
                request: InitRequest {
                    id: id(),
                    timeout_ms: words.number("timeout", 60_000),
                    expected: words.named.get("expected").map(|word| producer(word)),
                },
                new_producer_id,
            },
            "add" => Request::Add(AddRequest {
                id: id(),
                producer: producer(words.plain[1]),
                partitions: partitions(&words.plain[2..]),
                version: version(words),
            }),
            "verify" => Request::Verify(VerifyRequest {
                id: id(),
                producer: producer(words.plain[1]),
                partitions: partitions(&words.plain[2..]),
            }),
            "commit" | "abort" => Request::End {
                request: EndRequest {
                    id: id(),
                    producer: producer(words.plain[1]),
                    commits: name == "commit",
                    version: version(words),
                },
                new_producer_id,
            },
            "abort-timed-out" => Request::AbortTimedOut {
                id: id(),
                producer: producer(words.plain[1]),
                new_producer_id: new_producer_id.unwrap(),
            },
            "written" => Request::MarkersWritten(self.written(words)),
            "describe" => Request::Describe(id()),
            "list" => Request::List(ListRequest {
                producer_ids: words.named.get("ids").map_or_else(Vec::new, |ids| numbers(ids)),
                states: words.text("states", "").split_terminator(',').map(Into::into).collect(),
                longer_than_ms: words.named.get("longer").map(|ms| ms.parse().unwrap()),
            }),
            "level" => Request::SetVersion(level(words.plain[0])),
            "survey" => Request::Survey,
            other => panic!("no command {other}"),
        };
        self.send(request);
    }

    /// Sends a request, and as the handle does, once more if it needs a new producer id.
    fn send(&mut self, request: Request) {
        let effects = self.machine.request(request.clone());
        self.print_effects(&effects);
        let needs = Reply::Producer(Err(Refused::NeedsProducerId));
        if effects.replies.iter().any(|(_, reply)| *reply == needs) {
            let new_producer_id = Some(self.next_id);
            self.next_id += 1;
            self.send(match request {
                Request::Init { request, .. } => Request::Init { request, new_producer_id },
                Request::End { request, .. } => Request::End { request, new_producer_id },
                other => other,
            });
        }
    }

    /// A report on the last requested markers of an id. Words replace parts of it.
    fn written(&self, words: &Words) -> MarkersWritten {
        let mut written = self.markers[words.plain[0]].clone();
        if words.plain.len() > 1 {
            written.partitions = partitions(&words.plain[1..]);
        }
        if let Some(word) = words.named.get("producer") {
            written.producer = producer(word);
        }
        written.coordinator_epoch = words.number("epoch", written.coordinator_epoch);
        written.end_ms = words.number("end", written.end_ms);
        written
    }

    /// Appends a record, as another coordinator would write it.
    fn record(&mut self, words: &Words) {
        let state = TxnState::ALL.into_iter().find(|state| state.name() == words.plain[2]);
        let producer = producer(words.plain[1]);
        let value = Transaction {
            producer,
            last_epoch: -1,
            previous_id: words.number("previous", producer.id),
            next_id: words.number("next", -1),
            timeout_ms: words.number("timeout", 60_000),
            state: state.unwrap(),
            partitions: Arc::new(partitions(&words.plain[3..]).into_iter().collect()),
            start_ms: words.number("start", self.machine.now_ms),
            last_update_ms: words.number("updated", self.machine.now_ms),
            version: version(words),
        };
        let version = words.number("value", 1);
        self.machine.append(Record::State { id: words.plain[0].into(), value, version });
    }

    /// Moves the time. Prints the time of timers that have an effect.
    fn wait(&mut self, ms: i64) {
        let until_ms = self.machine.now_ms + ms;
        while let Some(effects) = self.machine.next_timer(until_ms) {
            if !effects.records.is_empty() || !effects.effects.is_empty() {
                let now_ms = self.machine.now_ms;
                self.print(&format!("at {now_ms}:"));
            }
            self.print_effects(&effects);
        }
    }

    fn print_effects(&mut self, effects: &Effects) {
        for record in &effects.records {
            self.print(&print_record(record));
        }
        for effect in &effects.effects {
            if let ShardEffect::Broker(Effect::WriteMarkers { id, marker, end_ms, partitions }) =
                effect
            {
                let written = MarkersWritten {
                    id: id.clone(),
                    producer: marker.producer,
                    coordinator_epoch: marker.coordinator_epoch,
                    end_ms: *end_ms,
                    partitions: partitions.clone(),
                };
                self.markers.insert(id.clone(), written);
            }
            self.print(&print_effect(effect));
        }
        for (token, reply) in &effects.replies {
            self.print(&format!("{token} <- {}", print_reply(reply)));
        }
    }

    fn print(&mut self, line: &str) {
        writeln!(self.out, "{line}").unwrap();
    }
}

fn producer(word: &str) -> Producer {
    let (id, epoch) = word.split_once('/').unwrap();
    Producer { id: id.parse().unwrap(), epoch: epoch.parse().unwrap() }
}

fn partitions(words: &[&str]) -> Vec<TopicPartition> {
    let of_topic = |word: &&str| {
        let (topic, indices) = places(word);
        indices.into_iter().map(move |index| TopicPartition::new(topic.clone(), index))
    };
    words.iter().flat_map(of_topic).collect()
}

fn numbers(word: &str) -> Vec<i64> {
    word.split(',').map(|number| number.parse().unwrap()).collect()
}

fn level(word: &str) -> TransactionVersion {
    TransactionVersion::of_level(word.parse().unwrap())
}

/// The transaction version of a request; 2 unless `v=` says otherwise.
fn version(words: &Words) -> TransactionVersion {
    level(words.named.get("v").unwrap_or(&"2"))
}

fn text(producer: Producer) -> String {
    format!("{}/{}", producer.id, producer.epoch)
}

fn print_record(record: &Record) -> String {
    let (id, value, version) = match record {
        Record::State { id, value, version } => (id, value, version),
        Record::Expired { id } => return format!("record: {id} is gone"),
        Record::Unreadable { reason, .. } => return format!("record: {reason}"),
    };
    let mut line = format!("record: {id} {} {}", text(value.producer), value.state.name());
    line += &print_partitions(value.partitions.iter());
    write!(line, " v{}", value.version.level()).unwrap();
    if value.start_ms != -1 {
        write!(line, " start {}", value.start_ms).unwrap();
    }
    if value.previous_id != value.producer.id {
        write!(line, " previous {}", value.previous_id).unwrap();
    }
    if value.next_id != -1 {
        write!(line, " next {}", value.next_id).unwrap();
    }
    if *version != 1 {
        write!(line, " value version {version}").unwrap();
    }
    line
}

fn print_partitions<'a>(partitions: impl Iterator<Item = &'a TopicPartition>) -> String {
    partitions.map(|partition| format!(" {partition}")).collect()
}

fn print_effect(effect: &ShardEffect) -> String {
    match effect {
        ShardEffect::Broker(Effect::WriteMarkers { id, marker, end_ms: _, partitions }) => {
            let kind = if marker.commits { "commit" } else { "abort" };
            let producer = text(marker.producer);
            let (epoch, version) = (marker.coordinator_epoch, marker.version.level());
            let partitions = print_partitions(partitions.iter());
            format!("markers: {id} {kind} {producer} of epoch {epoch} v{version} to{partitions}")
        }
        ShardEffect::Broker(Effect::AbortTimedOut { id, producer }) => {
            format!("abort with a new id: {id} {}", text(*producer))
        }
        ShardEffect::Ended(outcome) => format!("ended: {}", outcome.name()),
        ShardEffect::Completed { took_ms } => format!("completed after {took_ms} ms"),
    }
}

fn print_reply(reply: &Reply) -> String {
    match reply {
        Reply::Producer(Ok(producer)) => text(*producer),
        Reply::Producer(Err(Refused::Error(error))) => format!("{error:?}"),
        Reply::Producer(Err(Refused::NeedsProducerId)) => "needs a producer id".into(),
        Reply::Done(Ok(())) => "ok".into(),
        Reply::Done(Err(error)) | Reply::Verified(Err(error)) | Reply::Description(Err(error)) => {
            format!("{error:?}")
        }
        Reply::Verified(Ok(verified)) => {
            let has = |(partition, has): &(TopicPartition, bool)| format!("{partition} {has}");
            verified.iter().map(has).collect::<Vec<_>>().join(", ")
        }
        Reply::Description(Ok(it)) => {
            let (producer, partitions) =
                (text(it.producer), print_partitions(it.partitions.iter()));
            let TxnDescription { state, timeout_ms, start_ms, .. } = it;
            format!("{producer} {state}{partitions} timeout {timeout_ms} start {start_ms}")
        }
        Reply::List(listed) => {
            let one = |it: &ListedTxn| format!("{} {} {}", it.id, it.producer_id, it.state);
            listed.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        Reply::Survey(TxnSurvey { states, waiting_markers, late }) => {
            format!("{states:?}, {waiting_markers} waiting markers, {late} late")
        }
    }
}
