//! Malformed bytes over TCP. The broker must survive, must respond on other connections, and must
//! use at most the frame's size and 1 MiB of memory. `HOSTILE_BROKER=127.0.0.1:9092` tests a
//! running broker instead, such as Apache Kafka, from which the expected responses were recorded.
//! `HOSTILE_REPORT=FILE` lists which malformed requests got a response, for comparison.

mod batches;
mod broker;
mod samples;
#[path = "../shared/mod.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod shared;
mod wire;

use std::time::{Duration, Instant};

use broker::Broker;
use kafka_protocol::messages::ApiKey;
use samples::Expected;
use shared::client::{Client, Reply};
use sordini::protocol::{api::APIS, shape::sample::Sample};
use wire::{header, lies, request, sized, varint};

const SOON: Duration = Duration::from_secs(5);
/// How long to wait for a response. A valid request may wait in the broker, such as a join.
const BRIEFLY: Duration = Duration::from_millis(30);
/// Allowed growth of resident memory above a frame's size, in bytes.
const ALLOWED: u64 = 1 << 20;
/// Allowance for sockets, connection buffers and the allocator, in bytes.
const NOISE: u64 = 1 << 20;

fn api_versions() -> Vec<u8> {
    request(ApiKey::ApiVersions, 0, &[])
}

fn is_foreign() -> bool {
    std::env::var("HOSTILE_BROKER").is_ok()
}

/// A second connection that must stay responsive during the attack.
struct Bystander {
    connection: Client,
}

impl Bystander {
    fn of(broker: &Broker) -> Self {
        Self { connection: broker.connect() }
    }

    fn assert_answered(&mut self) {
        let asked = Instant::now();
        assert!(self.connection.write(&api_versions()).is_ok(), "the other connection is open");
        let reply = self.connection.read(SOON);
        assert!(matches!(reply, Reply::Frame(_)), "the other connection is answered: {reply:?}");
        assert!(asked.elapsed() < Duration::from_secs(2), "and at once: {:?}", asked.elapsed());
    }
}

/// The API keys and versions in the broker's ApiVersions response that the API table has, too.
fn served(broker: &Broker) -> Vec<(ApiKey, i16)> {
    let Reply::Frame(frame) = broker.send(&api_versions(), SOON) else {
        panic!("ApiVersions is answered")
    };
    let row = |at: usize| {
        let number = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
        (number(at), number(at + 4))
    };
    let keys: Vec<_> = (10..frame.len() - 5).step_by(6).map(row).collect();
    let known =
        |(key, max): &(i16, i16)| APIS.iter().find(|r| r.key as i16 == *key && r.max <= *max);
    let rows = keys.iter().filter_map(known);
    rows.flat_map(|row| row.versions().map(move |version| (row.key, version))).collect()
}

/// Sends a request on `connection`, and opens it first if the broker closed the last one.
fn attack(broker: &Broker, connection: &mut Option<Client>, bytes: &[u8]) -> Reply {
    let used = connection.get_or_insert_with(|| broker.connect());
    // The broker may close the connection before it has read all bytes.
    let _ = used.write(bytes);
    let reply = used.read(BRIEFLY);
    match &reply {
        Reply::Frame(frame) => {
            assert_eq!(frame[..4], wire::CORRELATION_ID.to_be_bytes(), "of this request");
        }
        Reply::Closed | Reply::Silence => *connection = None,
        Reply::Incomplete => panic!("a reply that ends early"),
    }
    reply
}

fn assert_grew_at_most(broker: &Broker, before: Option<u64>, allowed: u64, what: &str) {
    let (Some(before), Some(after)) = (before, broker.peak_rss()) else { return };
    let grown = after.saturating_sub(before);
    println!("{what}: resident {} KiB, grown by {} KiB", before >> 10, grown >> 10);
    assert!(grown <= allowed, "{what}: memory grew by {grown} bytes, {allowed} are allowed");
}

/// Compares responses with those of Apache Kafka 4.3.1. The same test passes against it.
#[test]
fn samples_are_answered_as_kafka_answers_them() {
    let mut broker = Broker::start();
    let served = served(&broker);
    for (what, bytes, expected) in samples::all() {
        let is_served = |key: u8| served.iter().any(|(api, _)| *api as i16 == i16::from(key));
        if matches!(expected, Expected::Answered) && !is_served(bytes[5]) {
            continue; // Without a handler, the broker closes the connection, as for an unknown API.
        }
        match (broker.send(&bytes, SOON), expected) {
            (Reply::Closed, Expected::Closed) => {}
            (Reply::Frame(_), Expected::Answered) => {}
            (Reply::Frame(frame), Expected::Exactly(bytes)) => assert_eq!(frame, bytes, "{what}"),
            (reply, _) => panic!("{what}: {reply:?}"),
        }
    }
    broker.assert_running();
}

#[test]
fn wrong_lengths_are_rejected() {
    let mut broker = Broker::start();
    let served = served(&broker);
    assert!(!served.is_empty(), "something is served");
    let mut bystander = Bystander::of(&broker);
    let mut connection = None;
    let (mut answered, mut closed, mut waiting) = (0u32, 0u32, 0u32);
    let mut report = String::new();
    // The first pass creates the state that a broker keeps: connections, topics, groups.
    for pass in 0..2 {
        let before = broker.reset_peak_rss();
        for &(api, version) in &served {
            let sample = Sample::small(api, version);
            let honest = std::iter::once(sample.body.clone());
            let bodies = sample.lengths.iter().flat_map(|length| lies(&sample, *length));
            for body in honest.chain(bodies) {
                let (count, outcome) =
                    match attack(&broker, &mut connection, &request(api, version, &body)) {
                        Reply::Frame(_) => (&mut answered, "answered"),
                        Reply::Closed => (&mut closed, "closed"),
                        Reply::Silence | Reply::Incomplete => (&mut waiting, "waiting"),
                    };
                *count += 1;
                report += &format!("{api:?} {version} {body:02x?}: {outcome}\n");
            }
            bystander.assert_answered();
            broker.assert_running();
        }
        if pass == 1 {
            assert_grew_at_most(&broker, before, ALLOWED + NOISE, "lies about lengths");
        }
    }
    println!("{answered} answered, {closed} closed, {waiting} left waiting");
    if let Ok(path) = std::env::var("HOSTILE_REPORT") {
        std::fs::write(path, report).expect("the report is written");
    }
    assert!(answered > 0 && closed > answered / 4, "most lies are found out");
}

#[test]
fn frames_of_nothing_but_elements_take_no_more_than_their_size() {
    if is_foreign() {
        return; // Apache Kafka decodes them, and stops responding on all connections.
    }
    const SIZE: usize = 16 << 20;
    let filled = |start: Vec<u8>, filling: u8| {
        let mut body = start;
        body.resize(SIZE, filling);
        body
    };
    let count = |bytes_each: usize| (((SIZE - 64) / bytes_each) as i32).to_be_bytes().to_vec();
    let compact = |bytes_each: usize| varint(((SIZE - 64) / bytes_each) as u32);
    let bodies = [
        (ApiKey::Metadata, 1, filled(count(2), 0)),
        (ApiKey::Metadata, 9, filled(compact(2), 1)),
        (ApiKey::FindCoordinator, 4, filled([vec![0], compact(1)].concat(), 1)),
        (ApiKey::DescribeGroups, 0, filled(count(2), 0)),
        (ApiKey::DeleteGroups, 2, filled(compact(1), 1)),
        (ApiKey::ListGroups, 3, filled(compact(2), 0)),
        (ApiKey::CreateTopics, 2, filled(count(16), 0)),
        (ApiKey::OffsetForLeaderEpoch, 2, filled(count(6), 0)),
    ];
    let mut broker = Broker::start();
    let served = served(&broker);
    let mut bystander = Bystander::of(&broker);
    // Allowance for the first frame of that size on each thread of the broker, in either pass:
    // the allocator keeps its buffers, and the kernel maps code.
    const FIRST_TIME: u64 = 2 << 20;
    for pass in 0..2 {
        for (api, version, body) in &bodies {
            if !served.contains(&(*api, *version)) {
                continue;
            }
            let before = broker.reset_peak_rss();
            let reply = broker.send(&request(*api, *version, body), SOON);
            assert_eq!(reply, Reply::Closed, "{api:?} {version}, pass {pass}");
            let what = format!("{api:?} {version} of 16 MiB, pass {pass}");
            assert_grew_at_most(&broker, before, SIZE as u64 + ALLOWED + FIRST_TIME, &what);
            bystander.assert_answered();
        }
    }
    broker.assert_running();
}

#[test]
fn frames_that_are_announced_and_not_sent_take_no_memory() {
    if is_foreign() {
        return; // Apache Kafka allocates the announced size, and runs out of memory.
    }
    let mut broker = Broker::start();
    let mut bystander = Bystander::of(&broker);
    bystander.assert_answered();
    let before = broker.reset_peak_rss();
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut connection = broker.connect();
        let frame = [&(100u32 << 20).to_be_bytes()[..], &header(3, 1, false), &[0; 1024]].concat();
        assert!(connection.write(&frame).is_ok(), "the announcement is taken");
        idle.push(connection);
    }
    bystander.assert_answered();
    // 64 KiB for each connection, and nothing for the announced 5,000 MiB.
    assert_grew_at_most(&broker, before, 50 * (64 << 10) + NOISE, "fifty announcements");
    broker.assert_running();
}

#[test]
fn slow_frames_do_not_delay_other_connections() {
    let mut broker = Broker::start();
    let mut bystander = Bystander::of(&broker);
    let mut slow: Vec<_> = (0..20).map(|_| broker.connect()).collect();
    for byte in api_versions() {
        for connection in &mut slow {
            assert!(connection.write(&[byte]).is_ok(), "a byte at a time is fine");
        }
        bystander.assert_answered();
    }
    for connection in &mut slow {
        assert!(matches!(connection.read(SOON), Reply::Frame(_)), "answered in the end");
    }
    // Close all connections after half a frame.
    let half = api_versions();
    slow.iter_mut().for_each(|connection| {
        connection.write(&half[..half.len() / 2]).expect("is sent");
    });
    drop(slow);
    bystander.assert_answered();
    broker.assert_running();
}

#[test]
fn noise_harms_nothing() {
    let mut broker = Broker::start();
    let served = served(&broker);
    let mut bystander = Bystander::of(&broker);
    let mut connection = None;
    let mut seed = 1u64;
    let mut random = |end: usize| {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (seed >> 33) as usize % end
    };
    for round in 0..3000 {
        let noise: Vec<u8> = (0..random(200)).map(|_| random(256) as u8).collect();
        let bytes = match round % 3 {
            0 => sized(&noise),
            1 => {
                let (api, version) = served[random(served.len())];
                request(api, version, &noise)
            }
            _ => {
                let (api, version) = served[random(served.len())];
                let mut body = Sample::small(api, version).body;
                for _ in 0..=random(4) {
                    let at = random(body.len().max(1));
                    if let Some(byte) = body.get_mut(at) {
                        *byte = random(256) as u8;
                    }
                }
                request(api, version, &body)
            }
        };
        attack(&broker, &mut connection, &bytes);
        if round % 100 == 0 {
            bystander.assert_answered();
        }
    }
    bystander.assert_answered();
    broker.assert_running();
}
