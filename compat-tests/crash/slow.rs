//! Consumers that read a few bytes per second while retention deletes their segments. They must get
//! their whole response, must not delay other clients, and must not make memory grow.

use std::{
    fs,
    io::{ErrorKind, Read},
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use kafka_protocol::messages::FetchRequest;
use sordini::records::Batch;

use super::{
    alone, load,
    shared::{
        client::{Client, FETCH_VERSION},
        process::{Process, Site},
        requests,
    },
};

const TOPIC: &str = "slow";
const PARTITIONS: i32 = 6;
const READERS: usize = 20;
const RECORD: usize = 50_000;
const LOAD: Duration = Duration::from_secs(5);
/// The longest time for a response to other clients, even on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Allowed growth of resident memory in KiB, for the requests of the other clients.
const MEMORY_KIB: u64 = 24 << 10;

/// A client that has read a part of a response.
struct Reader {
    client: Client,
    taken: Vec<u8>,
}

impl Reader {
    /// Sends a fetch for the first segment of all partitions.
    fn ask(address: SocketAddr) -> Self {
        let mut client = Client::connect(address).expect("connects");
        let room = rustix::net::sockopt::set_socket_recv_buffer_size(client.stream(), 64 << 10);
        room.expect("is set");
        let from = (0..PARTITIONS).map(|index| (index, 0));
        let request = requests::fetch(TOPIC, from, 4 << 20).with_max_bytes(64 << 20);
        client.send(FETCH_VERSION, &request).expect("is sent");
        Self { client, taken: Vec::new() }
    }

    fn take(&mut self, at_most: usize) {
        let mut some = vec![0; at_most];
        let taken = match self.client.stream().read(&mut some) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
        self.taken.extend_from_slice(&some[..taken]);
    }

    /// Reads the rest of the response. Checks that offsets are consecutive from 0, and returns the
    /// number of batches.
    fn finish(mut self) -> usize {
        while self.taken.len() < 4 {
            self.take(4);
        }
        let size = u32::from_be_bytes(self.taken[..4].try_into().expect("four bytes")) as usize;
        let mut rest = vec![0; size + 4 - self.taken.len()];
        self.client.stream().read_exact(&mut rest).expect("all that was promised comes");
        self.taken.extend_from_slice(&rest);
        let mut frame = Bytes::from(self.taken);
        frame.advance(4);
        let response = self.client.decode::<FetchRequest>(FETCH_VERSION, frame);
        let response = response.expect("a response");
        let partitions = &response.responses[0].partitions;
        assert_eq!(partitions.len(), PARTITIONS as usize);
        let mut count = 0;
        for partition in partitions {
            let mut bytes = partition.records.clone().expect("records");
            let mut next = 0;
            while let Ok(batch) = Batch::split_first(&mut bytes) {
                batch.verify_crc().expect("as it was written");
                assert_eq!(batch.header.base_offset, next);
                next = batch.header.last_offset() + 1;
                count += 1;
            }
            assert!(next > 10, "a whole segment, not {next}");
        }
        count
    }
}

/// The other clients: number of their responses, and the longest time for one.
#[derive(Default)]
struct Others {
    stop: AtomicBool,
    answers: AtomicU64,
    slowest_us: AtomicU64,
}

impl Others {
    fn answered(&self, asked: Instant) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.slowest_us.fetch_max(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn produce(&self, mut client: Client, first: i32) {
        let mut n = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            n += 1;
            let to = (TOPIC, (first + n) % PARTITIONS);
            let batch = load::batch(&[(1, n as u64)], RECORD, None);
            client.produce(to, 1, &batch).expect("answered").expect("acknowledged");
            self.answered(asked);
        }
    }

    fn fetch(&self, mut client: Client) {
        let mut next = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let fetched = client.fetch((TOPIC, 0), next).expect("answered");
            self.answered(asked);
            // On an error the offset is out of range: retention has deleted it.
            next = if fetched.code == 0 { fetched.high_watermark } else { next + 100 };
        }
    }

    fn run(&self, process: &Process) -> u64 {
        thread::scope(|scope| {
            for first in 0..2 {
                scope.spawn(move || self.produce(process.client(), first));
            }
            scope.spawn(|| self.fetch(process.client()));
            let (until, mut most) = (Instant::now() + LOAD, 0);
            while Instant::now() < until {
                most = most.max(process.rss_kib());
                thread::sleep(Duration::from_millis(20));
            }
            self.stop.store(true, Ordering::Relaxed);
            most
        })
    }
}

fn fill(client: &mut Client) {
    for partition in 0..PARTITIONS {
        for n in 0..45 {
            let batch = load::batch(&[(0, n)], RECORD, None);
            let answer = client.produce((TOPIC, partition), 1, &batch).expect("answered");
            assert_eq!(answer, Ok(n as i64));
        }
    }
}

/// Whether the first segments of all partitions are gone, also under the name `.log.deleted`.
fn are_first_segments_gone(site: &Site) -> bool {
    (0..PARTITIONS).all(|index| {
        let dir = site.log_dir().join(format!("{TOPIC}-{index}"));
        let mut names = fs::read_dir(dir).expect("a directory").filter_map(|it| it.ok());
        !names.any(|it| it.file_name().to_string_lossy().starts_with("00000000000000000000.log"))
    })
}

#[test]
fn slow_consumers_get_deleted_segments_without_delaying_others() {
    let _alone = alone();
    let site = Site::new(&[
        "log.retention.check.interval.ms=100",
        "log.initial.task.delay.ms=1500",
        "log.segment.delete.delay.ms=100",
        "socket.send.buffer.bytes=32768",
    ]);
    let process = site.start();
    let mut client = process.client();
    let small = [("segment.bytes", "1048576"), ("retention.bytes", "3145728")];
    assert_eq!(client.create_topic(TOPIC, PARTITIONS, &small).expect("answered"), 0);
    fill(&mut client);
    let before = process.rss_kib();
    let mut readers: Vec<_> = (0..READERS).map(|_| Reader::ask(site.address)).collect();
    let others = Others::default();
    let most = thread::scope(|scope| {
        scope.spawn(|| {
            while !others.stop.load(Ordering::Relaxed) {
                readers.iter_mut().for_each(|reader| reader.take(7));
                thread::sleep(Duration::from_millis(200));
            }
        });
        others.run(&process)
    });
    let slowest = Duration::from_micros(others.slowest_us.load(Ordering::Relaxed));
    let answers = others.answers.load(Ordering::Relaxed);
    let grown = most.saturating_sub(before);
    println!("{answers} answers beside {READERS} slow readers, the slowest after {slowest:?}");
    println!("resident {before} KiB before, at most {most} KiB");
    assert!(are_first_segments_gone(&site), "what they read is deleted");
    let records: usize = readers.into_iter().map(Reader::finish).sum();
    println!("{records} records from deleted segments");
    assert!(answers > 100 && slowest < ANSWER_MAX, "others go on: {answers}, {slowest:?}");
    assert!(grown < MEMORY_KIB, "memory has grown by {grown} KiB");
    process.stop();
}
