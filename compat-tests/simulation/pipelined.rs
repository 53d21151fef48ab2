//! An idempotent producer that pipelines requests like the Java client. A request has one batch for
//! each partition that the node leads. Several requests are in flight on a connection, so that
//! several batches of a partition are in flight, too, with consecutive sequence numbers. Batches
//! that are not acknowledged are sent again, in order and with the same sequence numbers.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::messages::{
    ProduceRequest, ProduceResponse, produce_response::PartitionProduceResponse,
};
use sordini::{
    base::environment::now_ms,
    peers::{self, Address},
    protocol::ErrorCode,
};
use tokio::time::{Instant, sleep_until};

use crate::{
    client::Client,
    history::{Acked, SharedHistory, TimedOut, Unanswered},
    leaders::{Leader, Leaders},
    network::{ClientEnd, SimNetwork},
    produce,
    random::Rng,
    requests,
    wire::ClientEvent,
};

/// The first version of Produce whose response names the current leader (KIP-951).
const VERSION: i16 = 12;
/// `max.in.flight.requests.per.connection`
const IN_FLIGHT_MAX: usize = 5;
/// Limit of unacknowledged batches of a partition. It is above `IN_FLIGHT_MAX`, so that some may
/// be in flight to the former leader and others to the current one.
const BATCHES_MAX: usize = 10;
/// The `timeout.ms` of a request, in milliseconds.
const TIMEOUT_MS: i32 = 1_500;
/// The most time that a request and its response travel in a healthy network.
const ON_ITS_WAY_MAX: Duration = Duration::from_millis(500);
const CONNECT_MAX: Duration = Duration::from_millis(1_000);
/// How long known leaders are used before they are looked up again.
const LEADERS_AGE_MAX: Duration = Duration::from_millis(500);

struct Batch {
    values: Vec<String>,
    /// The sequence number of its first record.
    sequence: i32,
    bytes: Bytes,
    is_on_its_way: bool,
    is_repeated: bool,
}

/// What the producer holds for one partition.
#[derive(Default)]
struct Stream {
    number: u64,
    sequence: i32,
    /// Unacknowledged batches in the order of their sequence numbers.
    batches: VecDeque<Batch>,
    /// The newest acknowledged sequence number.
    acknowledged: Option<i32>,
    made: Option<Instant>,
    resumes: Option<Instant>,
}

/// A connection and its requests in flight.
struct Node {
    end: ClientEnd,
    is_connected: bool,
    requests: VecDeque<Sent>,
    /// When the connection was opened, in milliseconds of the clients' clock.
    opened_ms: i64,
    deadline: Instant,
}

struct Sent {
    at: Instant,
    /// Each partition's batch, named by its first value.
    batches: Vec<(i32, String)>,
    deadline: Instant,
}

pub struct Producer {
    name: String,
    topic: String,
    producer_id: i64,
    rng: Rng,
    history: SharedHistory,
    network: SimNetwork,
    /// How long it waits for a response before it closes the connection.
    patience: Duration,
    streams: BTreeMap<i32, Stream>,
    nodes: BTreeMap<Address, Node>,
    /// When the producer may connect again to a node whose connection failed.
    avoided: BTreeMap<Address, Instant>,
    leaders: Leaders,
}

/// Writes to all partitions of the topic, including those that are added later.
pub async fn run(mut client: Client, topic: String) {
    let producer_id = produce::producer_id(&mut client).await;
    let mut rng = Rng::new(client.rng.next());
    let patience = if rng.one_in(2) { 1_500 } else { 3_000 };
    let (history, network) = (client.history.clone(), client.network.clone());
    let (name, leaders) = (client.name.clone(), Leaders::default());
    // This task ends with the runtime.
    tokio::spawn(keep_leaders_current(client, topic.clone(), leaders.clone()));
    let mut producer = Producer {
        name,
        topic,
        producer_id,
        rng,
        history,
        network,
        patience: Duration::from_millis(patience),
        streams: BTreeMap::new(),
        nodes: BTreeMap::new(),
        avoided: BTreeMap::new(),
        leaders,
    };
    producer.work().await;
}

/// Looks up the leaders at each request, and otherwise about every [`LEADERS_AGE_MAX`].
async fn keep_leaders_current(mut client: Client, topic: String, leaders: Leaders) {
    loop {
        for (partition, leader) in client.look_up(&topic).await.unwrap_or_default() {
            leaders.set(partition, leader);
        }
        // Limits the rate of look-ups.
        client.rest().await;
        leaders.wait_for_request(LEADERS_AGE_MAX).await;
    }
}

fn stream_name(producer: &str, partition: i32) -> String {
    format!("{producer}-{partition}")
}

impl Producer {
    async fn work(&mut self) {
        loop {
            self.make();
            self.send();
            let wake = Instant::now() + Duration::from_millis(self.rng.between(2, 15));
            let event = tokio::select! {
                biased;
                event = next_event(&mut self.nodes) => Some(event),
                () = sleep_until(wake) => None,
            };
            if let Some((address, event)) = event {
                self.take(&address, event);
            }
            self.expire();
        }
    }

    /// Makes a batch for each partition that is due.
    fn make(&mut self) {
        let now = Instant::now();
        let pause = Duration::from_millis(self.rng.between(5, 60));
        let id = self.producer_id;
        for partition in self.leaders.partitions() {
            if !self.streams.contains_key(&partition) {
                self.history.lock().progress.insert(stream_name(&self.name, partition), 0);
                self.streams.insert(partition, Stream::default());
            }
        }
        for stream in self.streams.values_mut() {
            let is_due = stream.made.is_none_or(|made| made + pause <= now);
            if !is_due || stream.batches.len() >= BATCHES_MAX {
                continue;
            }
            let count = self.rng.between(1, 4);
            let numbers = stream.number..stream.number + count;
            let values: Vec<_> = numbers.map(|number| format!("{}:{number}", self.name)).collect();
            let sequence = stream.sequence;
            let bytes = produce::batch(&values, id, sequence);
            stream.number += count;
            stream.sequence += count as i32;
            stream.made = Some(now);
            let (is_on_its_way, is_repeated) = (false, false);
            let batch = Batch { values, sequence, bytes, is_on_its_way, is_repeated };
            stream.batches.push_back(batch);
        }
    }

    /// Sends each ready node one request with the next batch of each partition that it leads.
    fn send(&mut self) {
        let now = Instant::now();
        let mut by_leader: BTreeMap<Address, Vec<i32>> = BTreeMap::new();
        for (partition, stream) in &self.streams {
            let is_resting = stream.resumes.is_some_and(|at| at > now);
            if is_resting || stream.next().is_none() {
                continue;
            }
            match self.leaders.get(*partition) {
                Some(leader) => by_leader.entry(leader.address).or_default().push(*partition),
                None => self.leaders.request_lookup(),
            }
        }
        for (address, partitions) in by_leader {
            if self.is_ready(&address, now) {
                self.send_to(&address, &partitions, now);
            }
        }
    }

    /// Whether a request can be sent to this address now. Opens a connection if there is none.
    fn is_ready(&mut self, address: &Address, now: Instant) -> bool {
        if let Some(node) = self.nodes.get(address) {
            return node.is_connected && node.requests.len() < IN_FLIGHT_MAX;
        }
        if self.avoided.get(address).is_none_or(|until| *until <= now) {
            let end = self.network.open(address);
            let deadline = now + CONNECT_MAX;
            let requests = VecDeque::new();
            let opened_ms = now_ms();
            let node = Node { end, is_connected: false, requests, opened_ms, deadline };
            self.nodes.insert(address.clone(), node);
        }
        false
    }

    fn send_to(&mut self, address: &Address, partitions: &[i32], now: Instant) {
        let mut records = Vec::new();
        let mut batches = Vec::new();
        for partition in partitions {
            let Some(stream) = self.streams.get_mut(partition) else { continue };
            let Some(at) = stream.next() else { continue };
            let batch = &mut stream.batches[at];
            batch.is_on_its_way = true;
            records.push((*partition, batch.bytes.clone()));
            batches.push((*partition, batch.values[0].clone()));
        }
        let request = requests::produce(&self.topic, -1, records).with_timeout_ms(TIMEOUT_MS);
        let frame = peers::encode(VERSION, &request).expect("it is well formed");
        if let Some(node) = self.nodes.get_mut(address) {
            node.end.send(frame);
            node.requests.push_back(Sent { at: now, batches, deadline: now + self.patience });
        }
    }

    fn take(&mut self, address: &Address, event: ClientEvent) {
        match event {
            ClientEvent::Accepted => {
                if let Some(node) = self.nodes.get_mut(address) {
                    node.is_connected = true;
                }
            }
            ClientEvent::Refused | ClientEvent::Closed => self.give_up(address),
            ClientEvent::Frame(frame) => {
                let answer = peers::decode::<ProduceRequest>(VERSION, frame);
                let Ok(answer) = answer else {
                    let wrong = format!("{}: {answer:?} is no answer", self.name);
                    self.history.lock().wrong.push(wrong);
                    return;
                };
                let node = self.nodes.get_mut(address);
                if let Some(sent) = node.and_then(|it| it.requests.pop_front()) {
                    self.answered(address, sent, answer);
                }
            }
        }
    }

    fn answered(&mut self, by: &Address, sent: Sent, answer: ProduceResponse) {
        let nodes: BTreeMap<i32, Address> = answer
            .node_endpoints
            .iter()
            .map(|it| (it.node_id.0, Address { host: it.host.to_string(), port: it.port as u16 }))
            .collect();
        let replies = answer.responses.into_iter().flat_map(|it| it.partition_responses);
        let mut replies: BTreeMap<i32, _> = replies.map(|reply| (reply.index, reply)).collect();
        for (partition, first) in sent.batches {
            match replies.remove(&partition) {
                Some(reply) => {
                    if reply.error_code == ErrorCode::RequestTimedOut.code() {
                        let (host, place) = (by.host.clone(), (self.topic.clone(), partition));
                        let timed_out = TimedOut { host, place, first: first.clone() };
                        self.history.lock().timed_out.push(timed_out);
                    }
                    self.replied(by, (partition, &first), reply, &nodes);
                }
                None => {
                    let wrong = format!("{}: {partition} is not answered", self.name);
                    self.history.lock().wrong.push(wrong);
                }
            }
        }
    }

    fn replied(
        &mut self,
        by: &Address,
        (partition, first): (i32, &str),
        reply: PartitionProduceResponse,
        nodes: &BTreeMap<i32, Address>,
    ) {
        let place = (self.topic.clone(), partition);
        let code = ErrorCode::try_from_code(reply.error_code);
        let Some(stream) = self.streams.get_mut(&partition) else { return };
        let Some(at) = stream.position(first) else { return };
        let mut history = self.history.lock();
        let sequence = stream.batches[at].sequence;
        let is_stored = match code {
            Some(ErrorCode::DuplicateSequenceNumber) => true,
            // A broker remembers five batches. An older one than an acknowledged batch is stored,
            // because the broker would have refused the later batch otherwise.
            Some(ErrorCode::OutOfOrderSequenceNumber) => Some(sequence) < stream.acknowledged,
            _ => false,
        };
        if reply.error_code == 0 || is_stored {
            let values = stream.batches.remove(at).map(|it| it.values).unwrap_or_default();
            stream.acknowledged = stream.acknowledged.max(Some(sequence));
            history.note_progress(&self.name);
            history.note_progress(&stream_name(&self.name, partition));
            if !is_stored {
                history.acked.push(Acked { place, base_offset: reply.base_offset, values });
            }
            return;
        }
        history.refused(reply.error_code);
        tracing::debug!(name = self.name, partition, first, at, ?code, "refused");
        // Real clients would continue with a new producer epoch here, and might duplicate records.
        if code == Some(ErrorCode::OutOfOrderSequenceNumber) && at == 0 {
            let wrong = format!("{first} for {place:?} is next, but refused by {}", by.host);
            history.wrong.push(wrong);
        }
        drop(history);
        let hint = &reply.current_leader;
        if let Some(address) = nodes.get(&hint.leader_id.0) {
            let leader = Leader { address: address.clone(), epoch: hint.leader_epoch };
            self.leaders.set(partition, leader);
        }
        self.again(partition, at);
    }

    fn again(&mut self, partition: i32, at: usize) {
        let pause = Duration::from_millis(self.rng.between(10, 100));
        if let Some(stream) = self.streams.get_mut(&partition) {
            (stream.batches[at].is_on_its_way, stream.batches[at].is_repeated) = (false, true);
            stream.resumes = Some(Instant::now() + pause);
        }
        self.leaders.request_lookup();
    }

    /// Closes a connection. The broker may or may not have received the requests in flight, so
    /// their batches are sent again.
    fn give_up(&mut self, address: &Address) {
        let Some(node) = self.nodes.remove(address) else { return };
        let pause = Duration::from_millis(self.rng.between(20, 200));
        self.avoided.insert(address.clone(), Instant::now() + pause);
        for (partition, first) in node.requests.into_iter().flat_map(|it| it.batches) {
            let stream = self.streams.get(&partition);
            if let Some(at) = stream.and_then(|it| it.position(&first)) {
                self.again(partition, at);
            }
        }
        self.leaders.request_lookup();
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let is_late = |node: &Node| match node.requests.front() {
            Some(sent) => sent.deadline <= now,
            None => !node.is_connected && node.deadline <= now,
        };
        let late = self.nodes.iter().filter(|(_, node)| is_late(node));
        let late: Vec<_> = late.map(|(address, _)| address.clone()).collect();
        for address in late {
            self.note_unanswered(&address);
            self.give_up(&address);
        }
    }
}

impl Producer {
    /// Records that a request had no response for longer than its timeout. The checks decide
    /// whether the broker has an excuse.
    fn note_unanswered(&self, address: &Address) {
        let Some(node) = self.nodes.get(address) else { return };
        let Some(waited) = node.requests.front().map(|sent| sent.at.elapsed()) else { return };
        if waited > Duration::from_millis(TIMEOUT_MS as u64) + ON_ITS_WAY_MAX {
            let (host, opened_ms) = (address.host.clone(), node.opened_ms);
            let unanswered = Unanswered { client: self.name.clone(), host, opened_ms, waited };
            self.history.lock().unanswered.push(unanswered);
        }
    }
}

impl Stream {
    /// The batch to send next: the first that is not in flight. A repeated batch waits until it is
    /// the first of all. So does every batch until one is acknowledged: like Kafka, a broker
    /// accepts any sequence number as the first of an unknown producer.
    fn next(&self) -> Option<usize> {
        let at = self.batches.iter().position(|it| !it.is_on_its_way)?;
        (at == 0 || self.acknowledged.is_some() && !self.batches[at].is_repeated).then_some(at)
    }

    /// The index of the batch whose first value is `first`.
    fn position(&self, first: &str) -> Option<usize> {
        self.batches.iter().position(|it| it.values[0] == first)
    }
}

/// Waits for the next event on any connection.
async fn next_event(nodes: &mut BTreeMap<Address, Node>) -> (Address, ClientEvent) {
    poll_fn(|cx| {
        for (address, node) in &mut *nodes {
            if let Poll::Ready(event) = node.end.poll_event(cx) {
                return Poll::Ready((address.clone(), event));
            }
        }
        Poll::Pending
    })
    .await
}
